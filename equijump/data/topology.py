"""From a topology of MDTraj to tokens and slots, by the bonds between heavy atoms."""

import itertools
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from common.errors import UsageError
from equijump.data.residues import NUM_SLOTS, RESIDUES, TOKENS, Residue

_COVALENT_RADII = {"C": 0.76, "N": 0.71, "O": 0.66, "S": 1.05}  # Å
_SOLVENT = frozenset(
    {
        *("HOH", "WAT", "SOL", "TIP3", "TIP4", "SPC"),
        *("NA", "CL", "K", "NA+", "CL-", "K+", "SOD", "CLA", "POT"),
    }
)


PerResidue = Int[np.ndarray, " num_nodes"]


class System(NamedTuple):
    """What does not change along a trajectory; kept atoms are numbered anew.

    Attributes:
        tokens: residue types, see `equijump.data.residues`.
        chains: number of the chain of each residue.
        numbers: place of each residue in its chain.
        slot_atoms: kept atom in each slot, -1 for an empty one.
        bonds: pairs of kept atoms, over all residues.
        kept: index of each kept atom in the topology of the file.
        residue_names: names of residues as in the file.
        atom_names: names of the kept atoms as in the file.
    """

    tokens: PerResidue
    chains: PerResidue
    numbers: PerResidue
    slot_atoms: Int[np.ndarray, "num_nodes num_slots"]
    bonds: Int[np.ndarray, "num_bonds 2"]
    kept: Int[np.ndarray, " num_atoms"]
    residue_names: tuple[str, ...]
    atom_names: tuple[str, ...]


def read_system(
    topology: Any, positions: Float[np.ndarray, "num_file_atoms 3"], source: str
) -> System:
    """Maps the residues of a topology; hydrogens, water and ions are dropped.

    Args:
        topology: topology of MDTraj.
        positions: positions of one frame, in Å, which tell the bonds in a residue.
        source: file name, for the message of an error.

    Raises:
        UsageError: A residue is unknown, or lacks heavy atoms.
    """
    residues = [r for r in topology.residues if r.name.upper() not in _SOLVENT]
    if not residues:
        raise UsageError(f"{source}: expected at least one residue, found none")
    file_slots = np.stack([_slots_of(r, positions, source) for r in residues])
    tokens = np.array([TOKENS[r.name.upper()] for r in residues], np.int32)
    chains = np.array([r.chain.index for r in residues], np.int32)
    kept = np.sort(file_slots[file_slots >= 0]).astype(np.int32)
    renumber = np.full(topology.n_atoms + 1, -1, np.int32)  # Its last serves -1.
    renumber[kept] = np.arange(len(kept))
    slots = renumber[file_slots]
    return System(
        tokens=tokens,
        chains=chains,
        numbers=_places(chains, np.array([r.resSeq for r in residues])),
        slot_atoms=slots,
        bonds=_all_bonds(tokens, chains, slots),
        kept=kept,
        residue_names=tuple(r.name for r in residues),
        atom_names=tuple(topology.atom(int(index)).name for index in kept),
    )


def _slots_of(
    residue: Any, positions: Float[np.ndarray, "num_file_atoms 3"], source: str
) -> Int[np.ndarray, " num_slots"]:
    """Returns the atom of the file in each slot of one residue, -1 for no atom."""
    token = TOKENS.get(residue.name.upper())
    where = f"{residue} of chain {residue.chain.index}"
    if token is None:
        raise UsageError(
            f"{source}: expected residues among {' '.join(sorted(TOKENS))}, found "
            f"{where}; a type is added in equijump/data/residues.py"
        )
    kind = RESIDUES[token - 1]
    atoms = [atom for atom in residue.atoms if atom.element.symbol != "H"]
    elements, names = [a.element.symbol for a in atoms], [a.name for a in atoms]
    found = match(
        kind, elements, _bonds(elements, positions[[a.index for a in atoms]]), names
    )
    if found is None:
        wanted = " ".join(filter(None, kind.slots))
        raise UsageError(
            f"{source}: expected the heavy atoms {wanted} of {kind.name}, bonded as "
            f"there, found {' '.join(names) or 'none'} in {where}"
        )
    row = np.full(NUM_SLOTS, -1)
    for slot, atom in enumerate(found):
        if atom is not None:
            row[slot] = atoms[atom].index
    return row


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
            fits = elements[atom] == name[0] and all(
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
    elements: Sequence[str], positions: Float[np.ndarray, "num_atoms 3"]
) -> set[tuple[int, int]]:
    """Returns pairs closer than 1.3 times the sum of their covalent radii."""
    radii = np.array([_COVALENT_RADII.get(e, 0.76) for e in elements])
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near = apart < 1.3 * (radii[:, None] + radii[None])
    return {
        (i, j) for i, j in itertools.combinations(range(len(radii)), 2) if near[i, j]
    }


def _places(
    chains: Int[np.ndarray, " num_nodes"], numbers: Int[np.ndarray, " num_nodes"]
) -> Int[np.ndarray, " num_nodes"]:
    """Counts residues from the start of their chain, gaps in the numbering kept."""
    places = np.zeros(len(chains), np.int32)
    for chain in np.unique(chains):
        members = chains == chain
        steps = np.maximum(np.diff(numbers[members]), 1)
        places[members] = np.concatenate([[0], np.cumsum(steps)])
    return places


def _all_bonds(
    tokens: Int[np.ndarray, " num_nodes"],
    chains: Int[np.ndarray, " num_nodes"],
    slots: Int[np.ndarray, "num_nodes num_slots"],
) -> Int[np.ndarray, "num_bonds 2"]:
    """Lists bonds inside residues, and C to N of the next residue of a chain."""
    bonds = []
    for token, row in zip(tokens, slots, strict=True):
        residue = RESIDUES[token - 1]
        atom_of = dict(zip(residue.slots, row, strict=False))
        bonds += [(atom_of[a], atom_of[b]) for a, b in residue.bonds]
    for i in range(len(tokens) - 1):
        if chains[i] == chains[i + 1]:
            bonds.append((slots[i, 2], slots[i + 1, 0]))
    return np.array(bonds, np.int32).reshape(-1, 2)


def nearby(
    bonds: Int[np.ndarray, "num_bonds 2"], num_atoms: int, num_bonds: int = 3
) -> Bool[np.ndarray, "num_atoms num_atoms"]:
    """Returns which pairs of atoms have at most so many bonds between them.

    >>> nearby(np.array([[0, 1], [1, 2]]), 3, num_bonds=1)[0]
    array([ True,  True, False])

    Args:
        bonds: pairs of bonded atoms.
        num_atoms: number of atoms.
        num_bonds: largest number of bonds between two atoms that are near.
    """
    import scipy.sparse

    rows, columns = np.concatenate([bonds, bonds[:, ::-1]]).T
    ones = np.ones(len(rows), bool)
    shape = num_atoms, num_atoms
    step = scipy.sparse.csr_array((ones, (rows, columns)), shape)
    step = step + scipy.sparse.eye_array(num_atoms, dtype=bool)
    near = step
    for _ in range(num_bonds - 1):
        near = near @ step
    return near.toarray()


def slot_order(system: System) -> Int[np.ndarray, " num_atoms"]:
    """Returns the kept atoms in the order of slots."""
    return system.slot_atoms[system.slot_atoms >= 0]


def in_slot_order(system: System) -> System:
    """Returns the system with its kept atoms numbered in the order of slots."""
    order = slot_order(system)
    place = np.append(np.argsort(order), -1).astype(np.int32)  # Its last serves -1.
    return system._replace(
        slot_atoms=place[system.slot_atoms],
        bonds=place[system.bonds],
        kept=system.kept[order],
        atom_names=tuple(system.atom_names[index] for index in order),
    )


def is_same(first: System, second: System) -> bool:
    """Returns whether residues and chains are the same; names may differ."""
    numbered = lambda chains: np.unique(chains, return_inverse=True)[1]
    return np.array_equal(first.tokens, second.tokens) and np.array_equal(
        numbered(first.chains), numbered(second.chains)
    )


def reordered(
    positions: Float[np.ndarray, "*batch num_atoms 3"], system: System, target: System
) -> Float[np.ndarray, "*batch num_atoms 3"]:
    """Returns positions in the order in which another file lists the same atoms.

    Args:
        positions: positions of the kept atoms of `system`.
        system: system as the positions have it.
        target: system of the same atoms, in the order that is wanted.
    """
    ordered = np.empty_like(positions)
    ordered[..., slot_order(target), :] = positions[..., slot_order(system), :]
    return ordered


def to_topology(system: System) -> Any:
    """Returns the kept atoms, with their bonds, as a topology of MDTraj."""
    import mdtraj
    from mdtraj.core.element import get_by_symbol

    topology, letters = mdtraj.Topology(), string.ascii_uppercase
    chains = {
        number: topology.add_chain(letters[place % len(letters)])
        for place, number in enumerate(np.unique(system.chains).tolist())
    }
    for name, chain, number in zip(
        system.residue_names, system.chains.tolist(), system.numbers, strict=True
    ):
        topology.add_residue(name, chains[chain], int(number) + 1)
    rows, slots = np.nonzero(system.slot_atoms >= 0)
    order = np.argsort(system.slot_atoms[rows, slots])
    for name, row, slot in zip(
        system.atom_names, rows[order], slots[order], strict=True
    ):
        element = RESIDUES[system.tokens[row] - 1].slots[slot][0]
        topology.add_atom(name, get_by_symbol(element), topology.residue(int(row)))
    for first, second in system.bonds.tolist():
        topology.add_bond(topology.atom(first), topology.atom(second))
    return topology
