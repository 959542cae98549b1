"""Structures of files made ready to start from: heavy atoms that are missing are built.

Atoms are placed by the ideal geometry of `equijump.internal`; of several torsions the
one with most room is taken. Positions are in Å.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump import internal
from equijump.data import molecules, parts
from equijump.data.files import Frames
from equijump.data.residues import RESIDUES, Residue, element_of, token_of

NUM_TRIES = 96
"""Torsions that are tried for what is built."""

_NUM_SWEEPS = 3
_ROOM = 3.2  # Å; beyond it an atom is no nearer to others than it should be.
_LINK = 2.0  # Å, of C and N of neighbours.
_BACKBONE = ("N", "CA", "C")
_SECOND = frozenset(("OXT", "OT1", "OT2", "OT", "O1", "O2", "O'", "O''"))


class Gap(NamedTuple):
    """A residue of a file that lacks heavy atoms.

    Attributes:
        residue: residue of MDTraj.
        kind: name of its type.
        atoms: numbers of its heavy atoms in the file, by name.
        missing: names of the atoms that are built, those built anew among them.
    """

    residue: Any
    kind: str
    atoms: dict[str, int]
    missing: tuple[str, ...]


def complete(
    topology: Any, frames: Sequence[Frames], source: str, select: str = ""
) -> tuple[Any, list[Frames], str]:
    """Builds the heavy atoms that residues of a file lack, and names them.

    Args:
        topology: topology of MDTraj.
        frames: frames of the file.
        source: file, for messages.
        select: atoms that are read, in MDTraj's selection language; all where empty.

    Returns:
        Topology, frames, and what is still to be selected of them.

    Raises:
        UsageError: Atoms are missing that are not built.
    """
    chosen = molecules.choose_atoms(topology, select, source)
    positions = frames[0].positions[0].astype(np.float64)
    gaps = list(_gaps(topology, chosen, positions, source))
    if not gaps:
        return topology, list(frames), select
    _tell(gaps, source)
    made, order = _with_atoms(topology, chosen, gaps)
    return made, [_filled(frame, gaps, chosen, order) for frame in frames], ""


def _gaps(
    topology: Any,
    chosen: np.ndarray,
    positions: Float[np.ndarray, "num_file_atoms 3"],
    source: str,
) -> Iterator[Gap]:
    """Yields the residues that lack heavy atoms of their type."""
    for residue in topology.residues:
        token = token_of(residue.name)
        atoms = parts.heavy_atoms(residue, chosen, positions, None)
        if token is None or not atoms.indices or atoms.num_left_out:
            continue
        kind = RESIDUES[token - 1]
        bonds = parts.bonded_pairs(atoms.elements, atoms.positions, None)
        if parts.match(kind, atoms.elements, bonds, atoms.names) is not None:
            continue
        missing = _missing(kind, atoms.names)
        if not missing:
            continue  # Its names differ: the reader says what is wrong.
        if kind.name not in internal.SIDE_CHAINS or missing & set(_BACKBONE):
            raise UsageError(_refusal(kind, atoms, source))
        named = dict(zip(atoms.names, atoms.indices, strict=True))
        built = tuple(_anew(kind.name, missing))
        yield Gap(residue, kind.name, named, built)


def _missing(kind: Residue, names: Sequence[str]) -> set[str]:
    """Returns the atoms that a residue lacks; none where its atoms have other names."""
    found = set(names)
    missing = set(filter(None, kind.slots)) - found
    beyond = found - set(kind.slots)
    ends = beyond & _SECOND
    if ends:
        missing.discard("O")
    if found <= parts.BEADS or len(beyond - ends) >= len(missing):
        return set()
    return missing


def _refusal(kind: Residue, atoms: parts.Atoms, source: str) -> str:
    wanted = " ".join(filter(None, kind.slots))
    return (
        f"{source}: expected the heavy atoms {wanted} of {kind.name}, found "
        f"{' '.join(atoms.names)} in {atoms.where}; only O and side chains of the "
        "twenty amino acids are built: complete the residue, e.g. by PDBFixer, or "
        f"leave it out by {parts.SELECT.format(atoms.residue.name)}"
    )


def _anew(kind: str, missing: set[str]) -> Iterator[str]:
    """Yields the atoms to build: those that are missing, and what hangs on them."""
    built = set(missing)
    for row in internal.SIDE_CHAINS[kind]:
        if built & {row.atom, row.bonded, row.angle_to, row.torsion_to}:
            built.add(row.atom)
            yield row.atom
    if "O" in missing:
        yield "O"


def _tell(gaps: Sequence[Gap], source: str) -> None:
    listed = [f"{' '.join(gap.missing)} of {gap.residue}" for gap in gaps]
    more = f" and of {len(listed) - 6} more" if len(listed) > 6 else ""
    logging.warning(
        "%s: heavy atoms were missing and are built: %s%s; look at the topology that "
        "is written", source, ", ".join(listed[:6]), more,
    )  # fmt: skip


def _with_atoms(
    topology: Any, chosen: np.ndarray, gaps: Sequence[Gap]
) -> tuple[Any, Int[np.ndarray, " num_atoms"]]:
    """Returns a topology with the atoms of gaps at the ends of their residues.

    Returns:
        The topology, and where each of its atoms was: in the file, or behind all of
        the file's atoms in the order of gaps.
    """
    import mdtraj
    from mdtraj.core.element import get_by_symbol

    made, order = mdtraj.Topology(), []
    of_residue = {gap.residue.index: gap for gap in gaps}
    new = topology.n_atoms
    for chain in topology.chains:
        kept = made.add_chain(getattr(chain, "chain_id", None))
        for residue in chain.residues:
            copy = made.add_residue(
                residue.name, kept, residue.resSeq, residue.segment_id
            )
            for atom in residue.atoms:
                if chosen[atom.index]:
                    made.add_atom(atom.name, atom.element, copy)
                    order.append(atom.index)
            gap = of_residue.get(residue.index)
            for name in gap.missing if gap else ():
                if name in gap.atoms:
                    continue  # It moves.
                made.add_atom(name, get_by_symbol(element_of(name)), copy)
                order.append(new)
                new += 1
    return made, np.array(order)


def _filled(
    frame: Frames,
    gaps: Sequence[Gap],
    chosen: np.ndarray,
    order: Int[np.ndarray, " num_atoms"],
) -> Frames:
    """Returns frames with the atoms of gaps built, in the order of the new topology."""
    positions = frame.positions.astype(np.float64)
    rng = np.random.default_rng(0)
    built: list[dict[str, np.ndarray]] = [{} for _ in gaps]
    for _ in range(_NUM_SWEEPS):  # Later ones see what was built of all others.
        for number, gap in enumerate(gaps):
            rest = [one for i, one in enumerate(built) if i != number]
            others = [places for one in rest for places in one.values()]
            added = np.stack(others, axis=1) if others else positions[:, :0]
            built[number] = _build(gap, positions, added, chosen, rng)
    new = []
    for gap, atoms in zip(gaps, built, strict=True):
        for name, places in atoms.items():
            if name in gap.atoms:
                positions[:, gap.atoms[name]] = places
            else:
                new.append(places)
    whole = np.concatenate([positions, np.stack(new, axis=1)], axis=1)
    return frame._replace(positions=whole[:, order].astype(np.float32))


def _build(
    gap: Gap,
    positions: Float[np.ndarray, "num_frames num_file_atoms 3"],
    added: Float[np.ndarray, "num_frames num_added 3"],
    chosen: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "num_frames 3"]]:
    """Returns the atoms of one gap, those that are built anew among them."""
    known = {
        name: positions[:, atom]
        for name, atom in gap.atoms.items()
        if name not in gap.missing
    }
    residue = {atom.index for atom in gap.residue.atoms}
    others = [i for i in np.flatnonzero(chosen).tolist() if i not in residue]
    around = np.concatenate([positions[:, others], added], axis=1)
    drawn = internal.draw_chi(gap.kind, rng, NUM_TRIES)
    turns = {name: chi[:, None] for name, chi in drawn.items()}
    turns["psi"] = _psi(known, around)
    tried = dict(known)
    for row in (*internal.SIDE_CHAINS[gap.kind], internal.OXYGEN):
        if row.atom in gap.missing:
            tried[row.atom] = internal.place_row(row, tried, turns)
    shape = NUM_TRIES, len(positions), 3
    built = {name: np.broadcast_to(tried[name], shape) for name in gap.missing}
    best = _roomiest(np.stack(list(built.values()), axis=2), around)
    rows = np.arange(len(positions))
    return {name: places[best, rows] for name, places in built.items()}


def _psi(
    known: Mapping[str, Float[np.ndarray, "num_frames 3"]],
    around: Float[np.ndarray, "num_frames num_others 3"],
) -> Float[np.ndarray, "num_tries num_frames"]:
    """Returns the torsion of O: opposite to the N of the next residue, or any."""
    n, ca, c = (known[name] for name in _BACKBONE)
    tries = np.linspace(-180.0, 180.0, NUM_TRIES, endpoint=False)
    psi = np.tile(tries[:, None], (1, len(c)))
    apart = np.linalg.norm(around - c[:, None], axis=-1)
    if around.shape[1]:
        nearest = around[np.arange(len(c)), np.argmin(apart, axis=1)]
        linked = apart.min(axis=1) < _LINK
        opposite = internal.torsion(n, ca, c, nearest) + 180.0
        psi = np.where(linked, opposite, psi)
    return psi


def _roomiest(
    built: Float[np.ndarray, "num_tries num_frames num_built 3"],
    around: Float[np.ndarray, "num_frames num_others 3"],
) -> Int[np.ndarray, " num_frames"]:
    """Returns the try of each frame whose atoms are farthest from others."""
    room = np.zeros(built.shape[:2])
    for atom in np.moveaxis(built, 2, 0):
        apart = np.linalg.norm(atom[:, :, None] - around, axis=-1)
        room -= np.square(np.minimum(apart - _ROOM, 0.0)).sum(axis=-1)
    return np.argmax(room, axis=0)
