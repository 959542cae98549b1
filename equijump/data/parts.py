"""Residues of a file, their heavy atoms matched to the slots of a type.

A residue is known by its name and by the bonds between its heavy atoms; names of atoms
decide only between those that bonds cannot tell apart.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.errors import UsageError
from equijump.data.residues import (
    CAPS,
    RESIDUES,
    TOKENS,
    Residue,
    element_of,
    num_slots_of,
)
from equijump.data.whole import ABSURD, RADII, apart, describe_unit

NEAR = 1.3
"""Longest bond over the sum of covalent radii, in one residue or along the chain."""

TABLE = "a row of equijump/data/residues.py adds a type"
BEADS = frozenset(("CA", "BB", *(f"SC{i}" for i in range(1, 7))))
"""Atoms of models of beads, as Martini's, and of CA alone."""

SELECT = '--select "not resname {}" (config.data.select)'


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
        num_left_out: number of heavy atoms that are not selected.
    """

    residue: Any
    indices: list[int]
    names: list[str]
    elements: list[str]
    positions: Float[np.ndarray, "num_heavy 3"]
    box: Float[np.ndarray, "3 3"] | None
    num_left_out: int

    @property
    def where(self) -> str:
        """Returns residue and chain in words."""
        return f"{self.residue} of chain {self.residue.chain.index}"


def heavy_atoms(residue: Any, chosen: np.ndarray, positions: Any, box: Any) -> Atoms:
    """Returns the heavy atoms of a residue that are selected."""
    heavy = [(a, _element(a)) for a in residue.atoms]
    heavy = [(a, e) for a, e in heavy if e not in ("H", "D", "VS")]
    known = [(a, e) for a, e in heavy if chosen[a.index]]
    rest = len(heavy) - len(known)
    indices = [a.index for a, _ in known]
    names, elements = [a.name for a, _ in known], [e for _, e in known]
    return Atoms(residue, indices, names, elements, positions[indices], box, rest)


def _element(atom: Any) -> str:
    """Returns the symbol of an element, by the name of the atom where it has none."""
    if atom.element is not None and atom.element.symbol:
        return atom.element.symbol
    letters = atom.name.lstrip("0123456789'*").upper()
    return {"": "VS", "M": "VS", "L": "VS", "E": "VS"}.get(letters[:1], letters[:1])


def parts_of(atoms: Atoms, token: int, source: str) -> Iterator[Part]:
    """Yields a residue, and caps that the file counts as a part of it, in order."""
    kind = RESIDUES[token - 1]
    bonds = bonded_pairs(atoms.elements, atoms.positions, atoms.box)
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
            f"of {kind.name}, found {names} besides in {atoms.where}; {TABLE}, or "
            f"leave the residue out by {SELECT.format(atoms.residue.name)}"
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
    largest = np.abs(atoms.positions).max(initial=0.0)
    if not largest < ABSURD:
        return f"{start} at positions up to {largest:.3g} Å; the file is damaged"
    if unit:
        return f"{start}, {unit}"
    if atoms.num_left_out:
        return f"{start}; --select (config.data.select) must keep whole residues"
    if len(wanted) > 1 and set(atoms.names) <= BEADS:
        return (
            f"{start}: beads, or CA alone; take the file of all atoms, or build them "
            "anew, e.g. by cg2all or backward"
        )
    missing = [name for name in wanted if name not in atoms.names]
    if missing or len(atoms.indices) < len(wanted):
        return (
            f"{start}; complete the residue, e.g. by equijump simulate --pdb or "
            f"PDBFixer, or leave it out by {SELECT.format(atoms.residue.name)}"
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
        "whole, e.g. by gmx trjconv -pbc whole; or does the topology list other atoms?"
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


def bonded_pairs(
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
