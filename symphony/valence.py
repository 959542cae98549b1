r"""Bonds and open valences of molecules under construction, from distances alone.

The order of a bond between heavy atoms follows its length $d$ by Pauling's rule,
$\exp((d_1 - d) / 0.3)$ with $d_1$ the length of a single bond (Å). What the orders
leave of an atom's valence is what hydrogens will take. On molecules of QM9, stripped of
their hydrogens, it is right for 99.5 % of atoms. All atoms are taken as neutral.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from symphony.arrays import (
    AtomicNumbers,
    HostPositions,
    NodeIndices,
    NodeMask,
    PairMask,
    Positions,
    Species,
)
from symphony.data.molecules import to_species

# Valences of neutral atoms, the largest of each element; others are not limited.
VALENCES = {
    1: 1, 5: 3, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 5, 16: 6, 17: 1, 34: 6, 35: 1, 53: 1,
}  # fmt: skip
UNKNOWN_VALENCE = 12

# Valences where an element has several, by which it takes hydrogens.
_USUAL = {15: 3, 16: 2, 34: 2}

_RADII = {
    1: 0.31, 5: 0.84, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 14: 1.11, 15: 1.07, 16: 1.05,
    17: 1.02, 34: 1.20, 35: 1.20, 53: 1.39,
}  # fmt: skip
_UNKNOWN_RADIUS = 1.5
_SINGLE = {
    (6, 6): 1.53, (6, 7): 1.47, (6, 8): 1.43, (7, 7): 1.45, (7, 8): 1.40, (8, 8): 1.48,
    (6, 9): 1.36, (6, 16): 1.82, (6, 17): 1.77, (6, 35): 1.94,
}  # fmt: skip
_REACH = 1.15  # Of the sum of two radii: longer pairs are not bonded.
_SOFTNESS = 0.3  # Å, of Pauling's rule.
# Part of an order that makes one more. Nitrogen gives its lone pair to rings and
# carbonyl groups, which shortens bonds that stay single.
_ROUNDING = {7: 0.2}
_OTHER_ROUNDING = 0.4
_MOST_ORDER = 3.0


class Table(NamedTuple):
    """What is known of the elements of a species table; arrays over its species.

    Attributes:
        valence: bonds of a neutral atom, at most.
        usual: bonds of a neutral atom, at least; it takes hydrogens up to these.
        is_known: true for species whose valence is known.
        single: length of a single bond, in Å.
        reach: distance below which two atoms are bonded, in Å.
        rounding: part of an order that makes one more.
        is_heavy: true for species heavier than hydrogen.
    """

    valence: Any
    usual: Any
    is_known: Any
    single: Any
    reach: Any
    rounding: Any
    is_heavy: Any


@cache
def table_of(atomic_numbers: tuple[int, ...]) -> Table:
    """Returns the table of some elements, in their order.

    >>> table_of((1, 6, 8)).valence
    array([1, 4, 2], dtype=int32)
    """
    radii = np.array([_RADII.get(n, _UNKNOWN_RADIUS) for n in atomic_numbers])
    sums = radii[:, None] + radii
    single = sums.copy()
    for i, one in enumerate(atomic_numbers):
        for j, other in enumerate(atomic_numbers):
            single[i, j] = _SINGLE.get((min(one, other), max(one, other)), sums[i, j])
    valences = [VALENCES.get(n, UNKNOWN_VALENCE) for n in atomic_numbers]
    usual = [_USUAL.get(n, v) for n, v in zip(atomic_numbers, valences, strict=True)]
    rounding = [_ROUNDING.get(n, _OTHER_ROUNDING) for n in atomic_numbers]
    return Table(
        valence=np.array(valences, np.int32),
        usual=np.array(usual, np.int32),
        is_known=np.array([n in VALENCES for n in atomic_numbers]),
        single=single.astype(np.float32),
        reach=(_REACH * sums).astype(np.float32),
        rounding=np.array(rounding, np.float32),
        is_heavy=np.array(atomic_numbers) > 1,
    )


class Bonds(NamedTuple):
    """Bonds of the placed atoms; zero elsewhere.

    Attributes:
        bonded: true for pairs nearer than their reach.
        room: bonds that an atom may still get by the number of its neighbours.
        needed: hydrogens that an atom still needs, by the orders of its bonds.
    """

    bonded: PairMask
    room: NodeIndices
    needed: NodeIndices


def find_bonds(
    table: Table, positions: Positions, species: Species, placed: NodeMask
) -> Bonds:
    """Perceives the bonds of the placed atoms.

    Args:
        table: what is known of the elements.
        positions: positions of the atoms, in Å.
        species: indices into the species table.
        placed: true for the atoms there are.
    """
    take = jnp.asarray
    pair = (species[:, None], species[None])
    vectors = positions[:, None] - positions[None]
    distances = jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1))
    both = placed[:, None] & placed[None] & ~jnp.eye(len(species), dtype=bool)
    bonded = both & (distances < take(table.reach)[pair])
    heavy = take(table.is_heavy)[species]
    orders = jnp.exp((take(table.single)[pair] - distances) / _SOFTNESS)
    between_heavy = bonded & heavy[:, None] & heavy[None]
    used = jnp.sum(between_heavy * jnp.clip(orders, 1.0, _MOST_ORDER), axis=1)
    used = jnp.floor(used + take(table.rounding)[species]).astype(jnp.int32)
    neighbours = jnp.sum(bonded, axis=1, dtype=jnp.int32)
    hydrogens = neighbours - jnp.sum(between_heavy, axis=1, dtype=jnp.int32)
    valence = take(table.valence)[species]
    needed = jnp.maximum(take(table.usual)[species] - used - hydrogens, 0)
    needed = jnp.where(take(table.is_known)[species], needed, 0)
    return Bonds(
        bonded=bonded,
        room=jnp.where(placed, jnp.maximum(valence - neighbours, 0), 0),
        needed=jnp.where(placed & heavy, needed, 0),
    )


_find_bonds = jax.jit(find_bonds)


def bonds_of(
    atomic_numbers: AtomicNumbers, positions: HostPositions, table: tuple[int, ...]
) -> Bonds:
    """Perceives the bonds of one molecule; arrays of the host.

    Args:
        atomic_numbers: nuclear charges, all in the table.
        positions: positions of the atoms, in Å.
        table: atomic numbers of the species table.
    """
    count = len(atomic_numbers)
    missing = -count % 8  # Molecules of similar size share one program.
    found = _find_bonds(
        table_of(table),
        np.pad(positions.astype(np.float32), ((0, missing), (0, 0))),
        np.pad(to_species(atomic_numbers, table), (0, missing)),
        np.arange(count + missing) < count,
    )
    bonded, room, needed = (np.asarray(array)[:count] for array in found)
    return Bonds(bonded[:, :count], room, needed)
