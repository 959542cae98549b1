"""From a file's topology and one of its frames to a system: atoms, bonds, chains.

Residues are known by the bonds between their heavy atoms, and bonds by their lengths:
within a residue, from C to the N that is near, and between side chains. Distances are
those of nearest periodic images.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump.data.residues import (
    CAPS,
    RESIDUES,
    TOKENS,
    Residue,
    element_of,
    is_link,
    num_slots_of,
    num_types_for,
    slot_of,
    token_of,
)
from equijump.data.topology import System, all_bonds, places_of
from equijump.data.whole import RADII, Positions, apart, describe_unit

NEAR = 1.3
"""Longest bond over the sum of covalent radii, in one residue or along the chain."""

_CROSS = 1.15
"""The same between other residues, where no bond is expected."""

_DISULPHIDE = 2.5
"""Å, longest bond of two sulphurs."""

_BINDING = frozenset(("C", "N", "O", "S", "Se", "P", "B"))
"""Elements whose short distance from a protein is a bond; metals are left out."""

_TABLE = "a row of equijump/data/residues.py adds a type"
_SELECT = '--select "not resname {}" (config.data.select)'


class Part(NamedTuple):
    """A residue or cap of a protein, as found in a file.

    Attributes:
        token: type.
        name: name in the file.
        chain: number of its chain in the file.
        number: number of the residue in the file.
        atoms: atom of the file in each slot, -1 for none.
    """

    token: int
    name: str
    chain: int
    number: int
    atoms: Int[np.ndarray, " num_slots"]


class Atoms(NamedTuple):
    """Heavy atoms of one residue of a file.

    Attributes:
        residue: residue of MDTraj.
        indices: numbers of the atoms in the file.
        names: names in the file.
        elements: symbols of the elements.
        positions: positions in Å.
        box: edges of the periodic box, or None.
    """

    residue: Any
    indices: list[int]
    names: list[str]
    elements: list[str]
    positions: Float[np.ndarray, "num_heavy 3"]
    box: Float[np.ndarray, "3 3"] | None

    @property
    def where(self) -> str:
        """Returns residue and chain in words."""
        return f"{self.residue} of chain {self.residue.chain.index}"


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
    chosen = _choose(topology, select, source)
    parts: list[Part] = []
    others: list[Atoms] = []
    for residue in topology.residues:
        atoms = _heavy(residue, chosen, positions, box)
        if not atoms.indices:
            continue
        token = token_of(residue.name)
        if token is None:
            others.append(atoms)
        else:
            parts += _parts_of(atoms, token, source)
    if not parts:
        raise UsageError(f"{source}: expected at least one residue, found none")
    notes = _left_out(parts, others, positions, box, source)
    system, found = _assemble(topology, parts, positions, box)
    return system, notes + found


def _choose(topology: Any, select: str, source: str) -> np.ndarray:
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


def _heavy(residue: Any, chosen: np.ndarray, positions: Any, box: Any) -> Atoms:
    """Returns the heavy atoms of a residue that are selected."""
    known = [(a, _element(a)) for a in residue.atoms if chosen[a.index]]
    known = [(a, e) for a, e in known if e not in ("H", "D", "VS")]
    indices = [a.index for a, _ in known]
    names, elements = [a.name for a, _ in known], [e for _, e in known]
    return Atoms(residue, indices, names, elements, positions[indices], box)


def _element(atom: Any) -> str:
    """Returns the symbol of an element, by the name of the atom where it has none."""
    if atom.element is not None and atom.element.symbol:
        return atom.element.symbol
    letters = atom.name.lstrip("0123456789'*").upper()
    return {"": "VS", "M": "VS", "L": "VS", "E": "VS"}.get(letters[:1], letters[:1])


def _parts_of(atoms: Atoms, token: int, source: str) -> Iterator[Part]:
    """Yields a residue, and caps that the file counts as a part of it, in order."""
    kind = RESIDUES[token - 1]
    bonds = _bonds(atoms.elements, atoms.positions, atoms.box)
    found = match(kind, atoms.elements, bonds, atoms.names)
    if found is None or describe_unit(atoms.positions, atoms.box):
        raise UsageError(_mismatch(atoms, kind, source))
    used = {index for index in found if index is not None}
    before, after, rest = _caps(atoms, kind, found, bonds)
    rest -= _second_oxygens(atoms, kind, found, bonds, used)
    if rest:
        names = " ".join(atoms.names[i] for i in sorted(rest))
        raise UsageError(
            f"{source}: expected the heavy atoms {' '.join(filter(None, kind.slots))} "
            f"of {kind.name}, found {names} besides in {atoms.where}; {_TABLE}, or "
            f"leave the residue out by {_SELECT.format(atoms.residue.name)}"
        )
    number, chain = atoms.residue.resSeq, atoms.residue.chain.index
    row = lambda found: _row(found, atoms.indices)
    if before:
        yield Part(TOKENS[before[0]], before[0], chain, number - 1, row(before[1]))
    yield Part(token, atoms.residue.name, chain, number, row(found))
    if after:
        yield Part(TOKENS[after[0]], after[0], chain, number + 1, row(after[1]))


def _row(
    found: Sequence[int | None], indices: Sequence[int]
) -> Int[np.ndarray, " num_slots"]:
    row = np.full(num_slots_of(len(RESIDUES)), -1, np.int64)
    for slot, atom in enumerate(found):
        if atom is not None:
            row[slot] = indices[atom]
    return row


_Cap = tuple[str, tuple[int | None, ...]]


def _caps(
    atoms: Atoms,
    kind: Residue,
    found: Sequence[int | None],
    bonds: set[tuple[int, int]],
) -> tuple[_Cap | None, _Cap | None, set[int]]:
    """Finds caps among the atoms beyond those of a residue, as CHARMM's patches.

    Returns:
        Name and slots of a cap before and of one behind, None for none, and the atoms
        that are left.
    """
    rest = set(range(len(atoms.names))) - set(found)
    if kind.name in CAPS or not rest:
        return None, None, rest
    caps: list[_Cap | None] = []
    for anchor, link, names in (("N", "C", ("ACE", "FOR")), ("C", "N", ("NME", "NH2"))):
        held = found[kind.slots.index(anchor)]
        cap = None
        for name in names:
            cap = _cap_at(atoms, name, link, held, rest, bonds)
            if cap is not None:
                rest -= set(cap[1])
                break
        caps.append(cap)
    return caps[0], caps[1], rest


def _cap_at(
    atoms: Atoms,
    name: str,
    link: str,
    anchor: int | None,
    rest: set[int],
    bonds: set[tuple[int, int]],
) -> _Cap | None:
    """Returns a cap whose atom `link` is bonded to an anchor, None for none."""
    kind, order = RESIDUES[TOKENS[name] - 1], sorted(rest)
    place = {atom: i for i, atom in enumerate(order)}
    inner = {(place[a], place[b]) for a, b in bonds if a in place and b in place}
    elements = [atoms.elements[i] for i in order]
    found = match(kind, elements, inner, [atoms.names[i] for i in order])
    if found is None:
        return None
    whole = tuple(None if i is None else order[i] for i in found)
    held = whole[kind.slots.index(link)]
    bonded = (min(anchor, held), max(anchor, held)) in bonds
    return (name, whole) if bonded else None


def _second_oxygens(
    atoms: Atoms,
    kind: Residue,
    found: Sequence[int | None],
    bonds: set[tuple[int, int]],
    used: set[int],
) -> set[int]:
    """Returns atoms that end a chain: a second oxygen on C."""
    if kind.name in CAPS:
        return set()
    carbon = found[kind.slots.index("C")]
    return {
        i
        for i in range(len(atoms.names))
        if i not in used
        and atoms.elements[i] == "O"
        and (min(i, carbon), max(i, carbon)) in bonds
    }


def _mismatch(atoms: Atoms, kind: Residue, source: str) -> str:
    """Says why the atoms of a residue are not those of its type."""
    unit = describe_unit(atoms.positions, atoms.box)
    wanted = list(filter(None, kind.slots))
    found = f"{' '.join(atoms.names) or 'none'} in {atoms.where}"
    start = (
        f"{source}: expected the heavy atoms {' '.join(wanted)} of {kind.name}, bonded "
        f"as there, found {found}"
    )
    if unit:
        return f"{start}, {unit}"
    missing = [name for name in wanted if name not in atoms.names]
    if missing or len(atoms.indices) < len(wanted):
        return (
            f"{start}; complete the residue, e.g. by equijump simulate --pdb or "
            f"PDBFixer, or leave it out by {_SELECT.format(atoms.residue.name)}"
        )
    lengths = {
        (a, b): float(
            apart(
                atoms.positions[atoms.names.index(a)],
                atoms.positions[atoms.names.index(b)],
                atoms.box,
            )
        )
        for a, b in kind.bonds
    }
    (a, b), worst = max(lengths.items(), key=lambda item: item[1])
    return (
        f"{start}, with {a}-{b} of {worst:.2f} Å; split over the periodic box? make it "
        "whole, e.g. by gmx trjconv -pbc whole"
    )


def match(
    residue: Residue,
    elements: Sequence[str],
    bonds: set[tuple[int, int]],
    names: Sequence[str],
) -> tuple[int | None, ...] | None:
    """Finds the atom of each slot such that all bonds of the residue are there.

    Names decide between atoms that the bonds cannot tell apart. Atoms beyond those of
    the residue, as the second oxygen of a chain's end, are left out.

    Returns:
        The index of each slot's atom, None where the slot is empty; None if the atoms
        are not this residue's.
    """
    slots = [name for name in residue.slots if name]
    partners = {
        name: [a if b == name else b for a, b in residue.bonds if name in (a, b)]
        for name in slots
    }

    def extend(placed: dict[str, int]) -> dict[str, int] | None:
        rest = [name for name in slots if name not in placed]
        if not rest:
            return placed
        near = [n for n in rest if any(p in placed for p in partners[n])]
        name = (near or rest)[0]
        free = [i for i in range(len(elements)) if i not in placed.values()]
        for atom in sorted(free, key=lambda i: names[i] != name):
            fits = elements[atom] == element_of(name) and all(
                (min(atom, placed[p]), max(atom, placed[p])) in bonds
                for p in partners[name]
                if p in placed
            )
            if fits:
                found = extend({**placed, name: atom})
                if found is not None:
                    return found
        return None

    found = extend({})
    if found is None:
        return None
    return tuple(found[name] if name else None for name in residue.slots)


def _bonds(
    elements: Sequence[str],
    positions: Float[np.ndarray, "num_atoms 3"],
    box: Float[np.ndarray, "3 3"] | None = None,
) -> set[tuple[int, int]]:
    """Returns pairs closer than `NEAR` times the sum of their covalent radii."""
    radii = np.array([RADII.get(e, 0.76) for e in elements])
    lengths = apart(positions[:, None], positions[None], box)
    near = lengths < NEAR * (radii[:, None] + radii[None])
    return {
        (i, j) for i, j in itertools.combinations(range(len(radii)), 2) if near[i, j]
    }


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
            ions += [] if is_water else [name]
            continue
        is_amino_acid = {"N", "CA", "C"} <= set(atoms.names)
        if is_amino_acid or _is_bonded(atoms, positions[protein], box):
            how = "an amino acid" if is_amino_acid else "bonded to the protein"
            known = " ".join(sorted(r.name for r in RESIDUES))
            raise UsageError(
                f"{source}: expected residues among {known}, found {atoms.where}, "
                f"{how}; {_TABLE}, or leave it out by {_SELECT.format(name)}"
            )
        rest.append(name)
    found = [f"{waters} water"] if waters else []
    found += [_count("ion", ions)] if ions else []
    found += [_count("other molecule", rest)] if rest else []
    return [f"left out: {', '.join(found)}"] if found else []


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
            gaps.append(
                f"chain {first.chain} ends at {first.name}{first.number} and another "
                f"begins at {second.name}{second.number}, {length:.1f} Å apart"
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
    rows, columns = np.nonzero(slots >= 0)
    order = np.lexsort((columns, rows))
    atoms, rows, columns = slots[rows, columns][order], rows[order], columns[order]
    names = [RESIDUES[parts[r].token - 1].slots[c] for r, c in zip(rows, columns, strict=True)]  # fmt: skip  # noqa: E501
    elements = np.array([element_of(name) for name in names])
    radii = np.array([RADII[e] for e in elements])
    is_sulphur = np.isin(elements, ("S", "Se"))
    is_along = np.append(chains[:-1] == chains[1:], False)
    bonds, notes = [], []
    for first, second in _near_pairs(positions[atoms], box):
        a, b = rows[first], rows[second]
        both = is_sulphur[first] and is_sulphur[second]
        limit = _DISULPHIDE if both else _CROSS * (radii[first] + radii[second])
        length = float(apart(*positions[atoms[[first, second]]], box))
        is_chain = b == a + 1 and is_along[a] and (names[first], names[second]) == ("C", "N")  # fmt: skip  # noqa: E501
        if a == b or is_chain or length > limit:
            continue
        bonds.append((atoms[first], atoms[second]))
        ends = [f"{names[i]} of {parts[r].name}{parts[r].number}" for i, r in ((first, a), (second, b))]  # fmt: skip  # noqa: E501
        notes.append(f"{ends[0]} and {ends[1]}")
    told = [f"bonds besides those of the chain: {', '.join(notes[:20])}"]
    return np.array(bonds, np.int64).reshape(-1, 2), told if notes else []


def _near_pairs(
    positions: Positions, box: Float[np.ndarray, "3 3"] | None
) -> list[tuple[int, int]]:
    """Returns pairs of atoms nearer than `_DISULPHIDE`, sorted."""
    found = []
    for first in range(len(positions)):
        near = apart(positions[first], positions[first + 1 :], box) < _DISULPHIDE
        found += [(first, first + 1 + int(i)) for i in np.flatnonzero(near)]
    return found
