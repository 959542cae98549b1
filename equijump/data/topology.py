"""What does not change along a trajectory: residues in slots, chains and bonds.

`equijump.data.molecules` reads it from files.
"""

import string
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from common.errors import UsageError
from equijump.data.residues import RESIDUES, element_of, is_link, num_slots_of, slot_of

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


def places_of(
    chains: Int[np.ndarray, " num_nodes"], numbers: Int[np.ndarray, " num_nodes"]
) -> Int[np.ndarray, " num_nodes"]:
    """Counts residues from the start of their chain, gaps in the numbering kept."""
    places = np.zeros(len(chains), np.int32)
    for chain in np.unique(chains):
        members = chains == chain
        steps = np.maximum(np.diff(numbers[members]), 1)
        places[members] = np.concatenate([[0], np.cumsum(steps)])
    return places


def all_bonds(
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
        first, second = int(tokens[i]), int(tokens[i + 1])
        is_bonded = is_link(first, "C") and is_link(second, "N")
        if chains[i] == chains[i + 1] and is_bonded:
            ends = slots[i, slot_of(first, "C")], slots[i + 1, slot_of(second, "N")]
            bonds.append(ends)
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
    """Returns whether residues, chains and bonds are the same; names may differ."""
    numbered = lambda chains: np.unique(chains, return_inverse=True)[1]
    return (
        np.array_equal(first.tokens, second.tokens)
        and np.array_equal(numbered(first.chains), numbered(second.chains))
        and _bonded(first) == _bonded(second)
    )


def _bonded(system: System) -> set[tuple[int, ...]]:
    """Returns the bonds, atoms counted in the order of slots."""
    return {tuple(sorted(pair)) for pair in in_slot_order(system).bonds.tolist()}


def difference(first: System, second: System) -> str:
    """Returns how residues or bonds of two systems differ, empty where they do not.

    Of systems with the same residues, a bond is named that one of them lacks.
    """
    if not np.array_equal(first.tokens, second.tokens):
        return ", of other residues"
    for one, other, has in ((first, second, "without"), (second, first, "with")):
        lacking = sorted(_bonded(one) - _bonded(other))
        if lacking:
            ends = " - ".join(_label(in_slot_order(one), i) for i in lacking[0])
            return f", {has} the bond {ends}"
    return ""


def _label(system: System, atom: int) -> str:
    row = int(np.argwhere(system.slot_atoms == atom)[0, 0])
    return f"{system.atom_names[atom]} of {system.residue_names[row]}{row + 1}"


def fit_to(system: System, num_types: int, source: str) -> System:
    """Returns a system with as many slots as a network has.

    Args:
        system: system as it was read.
        num_types: number of types that the network knows.
        source: file or name, for the message.

    Raises:
        UsageError: A residue is none of the network's types.
    """
    unknown = np.flatnonzero(system.tokens > num_types)
    if len(unknown):
        row = int(unknown[0])
        raise UsageError(
            f"{source}: expected residue types that the network was trained with, "
            f"found {RESIDUES[system.tokens[row] - 1].name} as residue {row + 1}; "
            "train a network on such residues"
        )
    width = num_slots_of(num_types)
    slots = np.full((len(system.tokens), width), -1, np.int32)
    shared = min(width, system.slot_atoms.shape[1])
    slots[:, :shared] = system.slot_atoms[:, :shared]
    return system._replace(slot_atoms=slots)


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
        element = element_of(RESIDUES[system.tokens[row] - 1].slots[slot])
        topology.add_atom(name, get_by_symbol(element), topology.residue(int(row)))
    for first, second in system.bonds.tolist():
        topology.add_bond(topology.atom(first), topology.atom(second))
    return topology
