"""Ends of chains: which are free, and ACE and NME put on them. Positions are in Å."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from common.errors import UsageError
from equijump import internal
from equijump.data.residues import CAPS, RESIDUES, TOKENS
from equijump.data.topology import System, all_bonds, nearby
from equijump.internal import C_N, C_N_CA, CA_C_N

_NUM_TRIES = 36
_CLOSEST = 2.6  # Å, from which on atoms more than three bonds apart have room.
_LEAST = 2.2  # Å, below which a cap is refused; the gate asks for 2.0.

Frames = Float[np.ndarray, "num_frames 3"]
Tries = Float[np.ndarray, "num_tries num_frames 3"]


class End(NamedTuple):
    """A free end of a chain: the row of its residue, and N or C."""

    row: int
    atom: str


def free_ends(system: System) -> list[End]:
    """Returns the ends of chains that bind neither a cap nor another residue."""
    row_of = np.full(len(system.kept), -1)
    rows, slots = np.nonzero(system.slot_atoms >= 0)
    row_of[system.slot_atoms[rows, slots]] = rows
    linked = {
        int(atom)
        for pair in system.bonds
        if row_of[pair[0]] != row_of[pair[1]]
        for atom in pair
    }
    ends = []
    for row, token in enumerate(system.tokens.tolist()):
        residue = RESIDUES[token - 1]
        if residue.name in CAPS:
            continue
        atoms = dict(zip(residue.slots, system.slot_atoms[row].tolist(), strict=False))
        ends += [End(row, name) for name in ("N", "C") if atoms[name] not in linked]
    return ends


def describe(system: System, ends: list[End]) -> str:
    """Returns which residues free ends are at, in words."""
    names = [
        f"{end.atom} of {system.residue_names[end.row]}{end.row + 1}" for end in ends
    ]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"


def add_caps(
    system: System,
    positions: Float32[np.ndarray, "num_frames num_atoms 3"],
    source: str,
) -> tuple[System, Float32[np.ndarray, "num_frames num_all 3"]]:
    """Puts ACE and NME on all free ends.

    Returns:
        System and positions, atoms in the order of slots where a cap was put on.

    Raises:
        UsageError: There is no room for a cap.
    """
    ends = free_ends(system)
    if not ends:
        return system, positions
    made = _with_rows(system, ends)
    placed = np.full((len(positions), len(made.kept), 3), np.inf)
    for row, old in _old_rows(system, ends):
        filled = system.slot_atoms[old] >= 0
        atoms = system.slot_atoms[old][filled]
        placed[:, made.slot_atoms[row][filled]] = positions[:, atoms]
    is_far = ~nearby(made.bonds, len(made.kept))
    for row, token in enumerate(made.tokens.tolist()):
        name = RESIDUES[token - 1].name
        if np.isfinite(placed[:, made.slot_atoms[row][1]]).all():
            continue
        room = _put(made, placed, row, name, is_far)
        if room < _LEAST:
            host = row + 1 if name == "ACE" else row - 1
            kinds = [RESIDUES[token - 1].name for token in made.tokens[: host + 1]]
            number = sum(kind not in CAPS for kind in kinds)
            raise UsageError(
                f"{source}: expected room for {name} at "
                f"{made.residue_names[host]}{number}, found atoms {room:.1f} Å apart; "
                "leave --add_caps out, or build what is missing of the chain there"
            )
    return made, placed.astype(np.float32)


def _old_rows(system: System, ends: list[End]) -> Iterator[tuple[int, int]]:
    """Yields the row of each residue with caps, and its row without."""
    row = 0
    for old in range(len(system.tokens)):
        row += End(old, "N") in ends
        yield row, old
        row += 1 + (End(old, "C") in ends)


def _with_rows(system: System, ends: list[End]) -> System:
    """Returns the system with rows of caps, all atoms in the order of slots."""
    columns: list[tuple[int, int, int, str]] = []
    for old in range(len(system.tokens)):
        chain, number = int(system.chains[old]), int(system.numbers[old]) + 1
        if End(old, "N") in ends:
            columns.append((TOKENS["ACE"], chain, number - 1, "ACE"))
        name = system.residue_names[old]
        columns.append((int(system.tokens[old]), chain, number, name))
        if End(old, "C") in ends:
            columns.append((TOKENS["NME"], chain, number + 1, "NME"))
    tokens, chains, numbers, names = zip(*columns, strict=True)
    tokens, chains, numbers = (np.array(x, np.int32) for x in (tokens, chains, numbers))
    slots = np.full((len(tokens), system.slot_atoms.shape[1]), -1, np.int32)
    atom_names: list[str] = []
    place = np.full(len(system.kept), -1, np.int32)
    old_of = dict(_old_rows(system, ends))
    for row, token in enumerate(tokens.tolist()):
        for slot, name in enumerate(RESIDUES[token - 1].slots):
            if name is None:
                continue
            slots[row, slot] = len(atom_names)
            if row in old_of:
                atom = system.slot_atoms[old_of[row], slot]
                place[atom], name = len(atom_names), system.atom_names[atom]
            atom_names.append(name)
    bonds = np.concatenate([all_bonds(tokens, chains, slots), place[system.bonds]])
    return System(
        tokens=tokens,
        chains=chains,
        numbers=numbers,
        slot_atoms=slots,
        bonds=np.unique(np.sort(bonds, axis=1), axis=0).astype(np.int32),
        kept=np.arange(len(atom_names), dtype=np.int32),
        residue_names=tuple(names),
        atom_names=tuple(atom_names),
    )


def _put(
    system: System, placed: np.ndarray, row: int, name: str, is_far: np.ndarray
) -> float:
    """Places a cap where it has most room; returns its least distance, in Å.

    For NME the oxygen of the residue before turns along, unless it has room as it is.
    """
    host = row + 1 if name == "ACE" else row - 1
    residue = RESIDUES[system.tokens[host] - 1]
    atoms = dict(zip(residue.slots, system.slot_atoms[host].tolist(), strict=False))
    known = {n: placed[:, atom] for n, atom in atoms.items() if n is not None}
    tried = _acetyl(known) if name == "ACE" else _amide(known)
    slots = zip(RESIDUES[TOKENS[name] - 1].slots, system.slot_atoms[row], strict=False)
    own = atoms | dict(slots)  # NME has no O: it is that of the residue before.
    numbers = [int(own[atom]) for atom in tried]
    room = _room(np.stack(list(tried.values()), axis=2), numbers, placed, is_far)
    # The first try is the one that moves nothing; it wins where it has room.
    best = np.argmax(np.minimum(room, _CLOSEST), axis=0)
    frames = np.arange(len(placed))
    for number, places in zip(numbers, tried.values(), strict=True):
        placed[:, number] = places[best, frames]
    return float(room[best, frames].min())


def _acetyl(known: dict[str, Frames]) -> dict[str, Tries]:
    """Returns tries of ACE at an N, which turn phi; that of proline is given."""
    n, ca, c = known["N"], known["CA"], known["C"]
    turns = np.linspace(-75.0, 285.0, _NUM_TRIES, endpoint=False)[:, None]
    if "CD" in known and np.linalg.norm(known["CD"] - n, axis=-1).max() < 1.9:
        turns = internal.torsion(known["CD"], n, ca, c)[None] + 180.0
    carbon = internal.place(c, ca, n, C_N, C_N_CA, turns)
    methyl = internal.place(ca, n, carbon, internal.CA_C, CA_C_N, 180.0)
    oxygen = internal.place(n, methyl, carbon, internal.C_O, internal.CA_C_O, 180.0)
    return {"CH3": methyl, "C": carbon, "O": oxygen}


def _amide(known: dict[str, Frames]) -> dict[str, Tries]:
    """Returns tries of NME at a C, the first opposite to the oxygen that is there."""
    n, ca, c = known["N"], known["CA"], known["C"]
    psi = internal.torsion(n, ca, c, known["O"]) + 180.0
    turns = np.linspace(0.0, 360.0, _NUM_TRIES, endpoint=False)[:, None] + psi
    oxygen = internal.place(n, ca, c, internal.C_O, internal.CA_C_O, turns + 180.0)
    oxygen[0] = known["O"]
    nitrogen = internal.place(n, ca, c, C_N, CA_C_N, turns)
    methyl = internal.place(ca, c, nitrogen, internal.N_CA, C_N_CA, 180.0)
    return {"N": nitrogen, "CH3": methyl, "O": oxygen}


def _room(
    tried: Float[np.ndarray, "num_tries num_frames num_new 3"],
    numbers: list[int],
    placed: Float[np.ndarray, "num_frames num_atoms 3"],
    is_far: np.ndarray,
) -> Float[np.ndarray, "num_tries num_frames"]:
    """Returns the least distance of new atoms to those more than three bonds away."""
    room = np.full(tried.shape[:2], np.inf)
    for place, number in enumerate(numbers):
        others = is_far[number].copy()
        others[numbers] = False
        others &= np.isfinite(placed[0, :, 0])
        apart = tried[:, :, place, None] - placed[:, others]
        if others.any():
            room = np.minimum(room, np.linalg.norm(apart, axis=-1).min(axis=-1))
    return room
