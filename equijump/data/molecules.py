"""From a file's topology and one of its frames to a system: atoms, bonds, chains.

Residues are known by the bonds between their heavy atoms, and bonds by their lengths:
within a residue, from C to the N that is near, and between side chains. Distances are
those of nearest periodic images.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump.data.parts import NEAR, SELECT, TABLE, Atoms, Part, heavy_atoms, parts_of
from equijump.data.residues import (
    RESIDUES,
    element_of,
    is_link,
    num_slots_of,
    num_types_for,
    slot_of,
    token_of,
)
from equijump.data.topology import System, all_bonds, places_of
from equijump.data.whole import RADII, Positions, apart

_CROSS = 1.15
"""Longest bond over the sum of covalent radii of residues that are no neighbours."""

_DISULPHIDE = 2.5
"""Å, longest bond of two sulphurs."""

_BINDING = frozenset(("C", "N", "O", "S", "Se", "P", "B"))
"""Elements whose short distance from a protein is a bond; metals are left out."""

_NUCLEOPHILES = frozenset(("N", "NZ", "NE", "SG", "OG", "OG1", "OH"))
"""Atoms that bind to the C of another residue, as in a ring or an ester."""

_NO_IONS = frozenset(("C", "N", "P", "S"))
"""Elements that are no ions by themselves."""


def read_system(
    topology: Any,
    positions: Float[np.ndarray, "num_file_atoms 3"],
    source: str,
    box: Float[np.ndarray, "3 3"] | None = None,
    select: str = "",
) -> System:
    """Returns the system of a frame, and logs what `survey` tells of it, once."""
    system, notes = survey(topology, positions, source, box, select)
    tell(source, notes)
    return system


_told: set[str] = set()


def tell(source: str, notes: Sequence[str]) -> None:
    """Logs what is to be known of a file, once for all files alike."""
    for note in notes:
        if note not in _told:
            _told.add(note)
            logging.info("%s: %s", source, note)


def survey(
    topology: Any,
    positions: Float[np.ndarray, "num_file_atoms 3"],
    source: str,
    box: Float[np.ndarray, "3 3"] | None = None,
    select: str = "",
) -> tuple[System, list[str]]:
    """Returns the system of a frame, and notes on what was left out or found.

    Hydrogens go. Residues that are no part of a protein, as water, are left out.

    Args:
        topology: topology of MDTraj.
        positions: positions of one frame, in Å, which tell the bonds.
        source: file name, for the message of an error.
        box: edges of the periodic box as rows, in Å.
        select: atoms that are read, in MDTraj's selection language; all where empty.

    Raises:
        UsageError: A residue of a protein is unknown, or lacks heavy atoms.
    """
    chosen = choose_atoms(topology, select, source)
    parts: list[Part] = []
    others: list[Atoms] = []
    for residue in topology.residues:
        atoms = heavy_atoms(residue, chosen, positions, box)
        if not atoms.indices:
            continue
        token = token_of(residue.name)
        if token is None:
            others.append(atoms)
        else:
            parts += parts_of(atoms, token, source)
    if not parts:
        names = dict.fromkeys(atoms.residue.name for atoms in others)
        found = f"none but {_listed(list(names))}" if names else "none"
        raise UsageError(
            f"{source}: expected at least one residue of a protein, found {found}; is "
            "it the right file, and --select (config.data.select)?"
        )
    notes = _left_out(parts, others, positions, box, source)
    system, found = _assemble(topology, parts, positions, box)
    return system, notes + found


def choose_atoms(topology: Any, select: str, source: str) -> np.ndarray:
    """Returns which atoms of a topology are selected."""
    chosen = np.ones(topology.n_atoms, bool)
    if select:
        try:
            found = topology.select(select)
        except Exception as error:  # The parser raises errors of its own.
            raise UsageError(
                f"--select (config.data.select): expected MDTraj's selection language, "
                f'as "protein and chainid 0", found {select!r}'
            ) from error
        if not len(found):
            raise UsageError(
                f"--select (config.data.select): expected atoms of {source}, found "
                f"none by {select!r}"
            )
        chosen[:] = False
        chosen[found] = True
    return chosen


def _left_out(
    parts: Sequence[Part],
    others: Sequence[Atoms],
    positions: Positions,
    box: Float[np.ndarray, "3 3"] | None,
    source: str,
) -> list[str]:
    """Checks that residues of no type are no part of the protein, and names them."""
    protein = np.concatenate([part.atoms[part.atoms >= 0] for part in parts])
    waters, ions, rest = 0, [], []
    for atoms in others:
        name = atoms.residue.name
        if len(atoms.indices) == 1:
            is_water = atoms.elements[0] == "O"
            waters += is_water
            (ions if _is_ion(atoms) else rest).extend([] if is_water else [name])
            continue
        is_amino_acid = {"N", "CA", "C"} <= set(atoms.names)
        if is_amino_acid or _is_bonded(atoms, positions[protein], box):
            how = (
                "an amino acid of no known type"
                if is_amino_acid
                else "bonded to the protein"
            )
            known = " ".join(sorted(r.name for r in RESIDUES))
            raise UsageError(
                f"{source}: expected residues among {known}, found {atoms.where}, "
                f"{how}; {TABLE}, or leave it out by {SELECT.format(name)}"
            )
        rest.append(name)
    found = [f"{waters} water"] if waters else []
    found += [_count("ion", ions)] if ions else []
    found += [_count("other molecule", rest)] if rest else []
    return [f"left out: {', '.join(found)}"] if found else []


def _is_ion(atoms: Atoms) -> bool:
    """Returns whether a single atom is an ion, by its element or its own name."""
    named_alike = atoms.names[0] == atoms.residue.name and len(atoms.names[0]) > 1
    return atoms.elements[0] not in _NO_IONS or named_alike


def _count(kind: str, names: Sequence[str]) -> str:
    listed = ", ".join(dict.fromkeys(names))
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({listed})"


def _is_bonded(
    atoms: Atoms, protein: Positions, box: Float[np.ndarray, "3 3"] | None
) -> bool:
    """Returns whether an atom of a residue has the distance of a bond to a protein."""
    binding = [i for i, e in enumerate(atoms.elements) if e in _BINDING]
    if not binding:
        return False
    limits = [_CROSS * (RADII.get(atoms.elements[i], 0.76) + 0.76) for i in binding]
    near = apart(atoms.positions[binding][:, None], protein[None], box)
    return bool(np.any(near.min(axis=1) < limits))


def _assemble(
    topology: Any,
    parts: Sequence[Part],
    positions: Positions,
    box: Float[np.ndarray, "3 3"] | None,
) -> tuple[System, list[str]]:
    """Numbers kept atoms and chains anew, and finds the bonds between residues."""
    width = num_slots_of(num_types_for(part.token for part in parts))
    file_slots = np.stack([part.atoms[:width] for part in parts])
    tokens = np.array([part.token for part in parts], np.int32)
    kept = np.sort(file_slots[file_slots >= 0]).astype(np.int32)
    renumber = np.full(topology.n_atoms + 1, -1, np.int32)  # Its last serves -1.
    renumber[kept] = np.arange(len(kept))
    slots = renumber[file_slots]
    linked, gaps = _links(parts, positions, box)
    chains = np.cumsum(~np.append(False, linked)[: len(parts)]).astype(np.int32) - 1
    crossed, notes = _cross_links(parts, slots, chains, positions[kept], box)
    bonds = np.concatenate([all_bonds(tokens, chains, slots), crossed])
    system = System(
        tokens=tokens,
        chains=chains,
        numbers=places_of(chains, np.array([part.number for part in parts])),
        slot_atoms=slots,
        bonds=bonds.astype(np.int32),
        kept=kept,
        residue_names=tuple(part.name for part in parts),
        atom_names=tuple(topology.atom(int(index)).name for index in kept),
    )
    return system, gaps + notes


def _links(
    parts: Sequence[Part],
    positions: Positions,
    box: Float[np.ndarray, "3 3"] | None,
) -> tuple[np.ndarray, list[str]]:
    """Returns whether each residue is bonded to the next, and notes on gaps."""
    linked, gaps = [], []
    for first, second in itertools.pairwise(parts):
        length = np.inf
        if is_link(first.token, "C") and is_link(second.token, "N"):
            ends = [
                positions[part.atoms[slot_of(part.token, name)]]
                for part, name in ((first, "C"), (second, "N"))
            ]
            length = float(apart(ends[0], ends[1], box))
        is_near = length < NEAR * (RADII["C"] + RADII["N"])
        linked.append(is_near)
        if not is_near and first.chain == second.chain:
            far = f" (about {length:.0f} Å)" if np.isfinite(length) else ""
            gaps.append(
                f"no bond C-N from {first.name}{first.number} to {second.name}"
                f"{second.number}{far}: another chain begins there"
            )
    return np.array(linked, bool), gaps[:1] + (
        [f"{len(gaps) - 1} more chains are divided so"] if len(gaps) > 1 else []
    )


def _cross_links(
    parts: Sequence[Part],
    slots: Int[np.ndarray, "num_nodes num_slots"],
    chains: Int[np.ndarray, " num_nodes"],
    positions: Positions,
    box: Float[np.ndarray, "3 3"] | None,
) -> tuple[Int[np.ndarray, "num_bonds 2"], list[str]]:
    """Returns bonds between residues that are not neighbours, and notes on them."""
    ends = _ends_of(parts, slots)
    bonds, taken, close = [], [], []
    for first, second in _near_pairs(positions[[end.atom for end in ends]], box):
        a, b = ends[first], ends[second]
        is_chain = (
            b.row == a.row + 1
            and chains[a.row] == chains[b.row]
            and (a.name, b.name) == ("C", "N")
        )
        if a.row == b.row or is_chain:
            continue
        length = float(apart(positions[a.atom], positions[b.atom], box))
        both = {element_of(a.name), element_of(b.name)} <= {"S", "Se"}
        usual = _CROSS * (RADII[element_of(a.name)] + RADII[element_of(b.name)])
        if length > (_DISULPHIDE if both else usual):
            continue
        is_known = both or _is_link_of(a, b) or _is_link_of(b, a)
        (taken if is_known else close).append(
            f"{a.name} of {a.residue} and {b.name} of {b.residue}"
        )
        bonds += [(a.atom, b.atom)] if is_known else []
    notes = [f"bonds besides those of the chain: {_listed(taken)}"] if taken else []
    notes += (
        [
            f"as close as a bond, and not taken for one: {_listed(close)}; overlapping "
            "molecules, or a bond that is not known?"
        ]
        if close
        else []
    )
    return np.array(bonds, np.int64).reshape(-1, 2), notes


class _End(NamedTuple):
    """An atom that may bind another residue: its residue, name, label and number."""

    row: int
    name: str
    residue: str
    atom: int


def _ends_of(
    parts: Sequence[Part], slots: Int[np.ndarray, "num_nodes num_slots"]
) -> list[_End]:
    """Returns all atoms in the order of slots."""
    found = []
    for row, (part, atoms) in enumerate(zip(parts, slots.tolist(), strict=True)):
        kind = RESIDUES[part.token - 1]
        named = zip(kind.slots, atoms, strict=False)
        label = f"{part.name}{part.number}"
        found += [_End(row, n, label, atom) for n, atom in named if n]
    return found


def _is_link_of(carbon: _End, other: _End) -> bool:
    """Returns whether two atoms are a chain's carbon and what may bind to it."""
    return carbon.name == "C" and other.name in _NUCLEOPHILES


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(names[:10])}{more}"


def _near_pairs(
    positions: Positions, box: Float[np.ndarray, "3 3"] | None
) -> list[tuple[int, int]]:
    """Returns pairs of atoms nearer than `_DISULPHIDE`, sorted."""
    found = []
    for first in range(len(positions)):
        near = apart(positions[first], positions[first + 1 :], box) < _DISULPHIDE
        found += [(first, first + 1 + int(i)) for i in np.flatnonzero(near)]
    return found
