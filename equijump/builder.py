"""Peptides built from their sequence: ideal geometry, torsions drawn where they rest.

A chain grows residue by residue. For each several draws of phi, psi and of the side
chain are placed at once, and the first without a clash is kept; where none is, the
chain grows again from some residues before. Lengths are in Å, angles in degrees.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from common.errors import RunError, UsageError
from equijump import internal
from equijump.data.residues import RESIDUES, TOKENS, num_slots_of
from equijump.data.topology import System, all_bonds, nearby
from equijump.internal import C_N, C_N_CA, CA_C_N, N_CA

LETTERS = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS",
    "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
), strict=True))  # fmt: skip
"""Three letters of each amino acid, by its one."""

LONGEST = 500
"""Residues of a sequence that is built, at most."""

_BASINS = np.array([[-65, -42], [-120, 130], [-70, 145]], float)
_GLYCINE = np.array([*_BASINS, [65, 42], [120, -130], [70, -145], [180, 180]], float)
_SPREAD = 8.0  # Degrees, of phi and psi about a basin.
_NUM_DRAWS, _NUM_RETREATS, _RETREAT = 24, 400, 3
_CLOSEST, _CLOSEST_CARBONS = 2.7, 3.1  # Å, of atoms more than three bonds apart.

Point = Float[np.ndarray, "3"]
Points = Float[np.ndarray, "num_draws 3"]


class Built(NamedTuple):
    """A peptide, and positions of it.

    Attributes:
        system: molecule, its atoms in the order of slots.
        positions: positions of its atoms, in Å.
    """

    system: System
    positions: Float32[np.ndarray, "num_replicas num_atoms 3"]


def parse(sequence: str, flag: str = "--sequence") -> tuple[str, ...]:
    """Returns the residues of one-letter codes.

    >>> parse("GW")
    ('GLY', 'TRP')

    Raises:
        UsageError: A letter is of no amino acid, or there are none, or too many.
    """
    if not 1 <= len(sequence) <= LONGEST:
        raise UsageError(
            f"{flag}: expected 1 to {LONGEST} letters, found {len(sequence)}"
        )
    for number, letter in enumerate(sequence, start=1):
        if letter not in LETTERS:
            hint = "; write capital letters" if letter.upper() in LETTERS else ""
            raise UsageError(
                f"{flag}: expected one-letter codes of the twenty amino acids "
                f"({''.join(LETTERS)}), found {letter!r} at place {number}{hint}"
            )
    return tuple(LETTERS[letter] for letter in sequence)


def build(names: Sequence[str], count: int, seed: int = 0) -> Built:
    """Returns a chain of residues in `count` conformations.

    Conformation `i` of a seed is the same however many there are.

    Args:
        names: residues, as ALA; ACE may be first and NME last.
        count: number of conformations.
        seed: seed of the random numbers.

    Raises:
        RunError: No conformation without a clash was found.
    """
    system = system_of(names)
    closest = _closest(system)
    grown = [
        _grow(system, closest, np.random.default_rng((seed, number)))
        for number in range(count)
    ]
    return Built(system, np.stack(grown).astype(np.float32))


def system_of(names: Sequence[str]) -> System:
    """Returns the system of one chain, its atoms in the order of slots."""
    tokens = np.array([TOKENS[name] for name in names], np.int32)
    slots = np.full((len(names), num_slots_of(int(tokens.max()))), -1, np.int32)
    atom_names: list[str] = []
    for row, token in zip(slots, tokens.tolist(), strict=True):
        for slot, name in enumerate(RESIDUES[token - 1].slots):
            if name is not None:
                row[slot] = len(atom_names)
                atom_names.append(name)
    chains = np.zeros(len(names), np.int32)
    return System(
        tokens=tokens,
        chains=chains,
        numbers=np.arange(len(names), dtype=np.int32),
        slot_atoms=slots,
        bonds=all_bonds(tokens, chains, slots),
        kept=np.arange(len(atom_names), dtype=np.int32),
        residue_names=tuple(names),
        atom_names=tuple(atom_names),
    )


def _closest(system: System) -> Float[np.ndarray, "num_atoms num_atoms"]:
    """Returns the least distance of each pair, 0 for those of three bonds or less."""
    is_carbon = np.array([name[0] in "CS" for name in system.atom_names])
    both = is_carbon[:, None] & is_carbon[None]
    closest = np.where(both, _CLOSEST_CARBONS, _CLOSEST)
    return np.where(nearby(system.bonds, len(is_carbon)), 0.0, closest)


def _grow(
    system: System,
    closest: Float[np.ndarray, "num_atoms num_atoms"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns positions of one conformation."""
    positions = np.zeros((len(closest), 3))
    names = [RESIDUES[token - 1].name for token in system.tokens.tolist()]
    grown: list[dict[str, Point]] = []
    retreats = 0
    while len(grown) < len(names):
        row = len(grown)
        drawn = _draw(names, row, grown[-1] if grown else {}, rng)
        number = _first_that_fits(system, closest, positions, row, drawn)
        if number is not None:
            grown.append({name: atoms[number] for name, atoms in drawn.items()})
            for name, atom in _atoms_of(system, row):
                positions[atom] = grown[-1][name]
            continue
        retreats += 1
        if retreats > _NUM_RETREATS:
            raise RunError(
                f"no conformation without a clash was found for {len(names)} residues; "
                "give a structure by --start"
            )
        del grown[-min(row, _RETREAT + retreats // 20) :]
    return positions


def _atoms_of(system: System, row: int) -> list[tuple[str, int]]:
    """Returns names and numbers of the atoms of a residue."""
    slots = RESIDUES[system.tokens[row] - 1].slots
    atoms = system.slot_atoms[row].tolist()
    return [(name, atoms[slot]) for slot, name in enumerate(slots) if name is not None]


def _draw(
    names: Sequence[str],
    row: int,
    before: Mapping[str, Point],
    rng: np.random.Generator,
) -> dict[str, Points]:
    """Returns draws of the atoms of a residue, and N and CA of the next as N+ and CA+.

    Args:
        names: residues of the chain.
        row: place of the residue.
        before: atoms of the residue before, empty for the first.
        rng: random numbers.
    """
    name = names[row]
    if name == "NME":
        ends = {"N": before["N+"], "CH3": before["CA+"]}
        return {atom: _repeated(place) for atom, place in ends.items()}
    if name == "ACE":
        return _acetyl()
    torsions = _torsions(name, names[row + 1 : row + 2] == ["PRO"], rng)
    atoms = _ends(before, torsions)
    turned = torsions | {"psi": torsions["psi"] + 180.0}
    for one in (*internal.SIDE_CHAINS[name], internal.OXYGEN):
        atoms[one.atom] = internal.place_row(one, atoms, turned)
    bond = atoms["N"], atoms["CA"], atoms["C"]
    atoms["N+"] = internal.place(*bond, C_N, CA_C_N, torsions["psi"])
    link = atoms["CA"], atoms["C"], atoms["N+"]
    return atoms | {"CA+": internal.place(*link, N_CA, C_N_CA, 180.0)}


def _torsions(
    name: str, is_before_proline: bool, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, " num_draws"]]:
    """Returns draws of phi, psi and chi of a residue."""
    basins = _GLYCINE if name == "GLY" else _BASINS
    if is_before_proline:
        basins = basins[np.abs(basins[:, 1]) > 90.0]
    chosen = basins[rng.integers(len(basins), size=_NUM_DRAWS)]
    phi, psi = (chosen + rng.normal(0.0, _SPREAD, (_NUM_DRAWS, 2))).T
    return {"phi": phi, "psi": psi, **internal.draw_chi(name, rng, _NUM_DRAWS)}


def _ends(
    before: Mapping[str, Point], torsions: Mapping[str, np.ndarray]
) -> dict[str, Points]:
    """Returns draws of N, CA and C, behind a residue or as the first."""
    last = before.get("C", np.array([-0.6, 1.2, 0.0]))
    n, ca = before.get("N+", np.zeros(3)), before.get("CA+", np.array([N_CA, 0.0, 0.0]))
    c = internal.place(last, n, ca, internal.CA_C, internal.N_CA_C, torsions["phi"])
    return {
        "N": np.tile(n, (_NUM_DRAWS, 1)),
        "CA": np.tile(ca, (_NUM_DRAWS, 1)),
        "C": c,
    }


def _acetyl() -> dict[str, Points]:
    """Returns ACE in a plane, the N and CA behind it too."""
    ch3, c = np.zeros(3), np.array([internal.CA_C, 0.0, 0.0])
    aside = np.array([0.0, 1.0, 0.0])
    n = internal.place(aside, ch3, c, C_N, CA_C_N, 180.0)
    o = internal.place(aside, ch3, c, internal.C_O, internal.CA_C_O, 0.0)
    ca = internal.place(ch3, c, n, N_CA, C_N_CA, 180.0)
    atoms = {"CH3": ch3, "C": c, "O": o, "N+": n, "CA+": ca}
    return {name: _repeated(place) for name, place in atoms.items()}


def _repeated(place: Point) -> Points:
    return np.tile(place, (_NUM_DRAWS, 1))


def _first_that_fits(
    system: System,
    closest: Float[np.ndarray, "num_atoms num_atoms"],
    positions: Float[np.ndarray, "num_atoms 3"],
    row: int,
    drawn: Mapping[str, Points],
) -> int | None:
    """Returns the first draw of a residue without a clash, None where all have one.

    Args:
        system: chain.
        closest: least distances, see `_closest`.
        positions: positions of the chain up to this residue, in Å.
        row: place of the residue.
        drawn: draws of `_draw`.
    """
    named = _atoms_of(system, row)
    if row + 1 < len(system.tokens):
        named += zip(("N+", "CA+"), system.slot_atoms[row + 1, :2], strict=True)
    numbers = np.array([number for _, number in named])
    placed = np.stack([drawn[name] for name, _ in named], axis=1)
    first = int(numbers.min())
    apart = np.linalg.norm(placed[:, :, None] - positions[:first], axis=-1)
    fits = np.all(apart >= closest[numbers, :first], axis=(1, 2))
    for draw in np.flatnonzero(fits).tolist():
        apart = np.linalg.norm(placed[draw, :, None] - placed[draw], axis=-1)
        if np.all(apart >= closest[np.ix_(numbers, numbers)]):
            return draw
    return None
