"""What a molecule may become: masks on what a step may draw, and what it must not.

The state is arrays of one molecule in the compiled loop: how many atoms of each element
are left, how many hydrogens the open valences of what is placed still need (by
`symphony.valence`), which hydrogens of a core wait until the heavy atoms are placed.
`allow` masks stop, focus and species; `judge` tells of a drawn atom that closes the way
to the end, and is drawn again. Positions are in Å.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from symphony.arrays import (
    Flag,
    Index,
    NodeIndices,
    NodeScalars,
    Positions,
    Scalar,
    Species,
    Vector,
)
from symphony.surplus import MOST_KNOWN, chance
from symphony.valence import Bonds, Table, find_bonds

UNLIMITED = 10_000
"""Number of atoms where there is no limit."""

TRIES, MOST_TRIES = 4, 300
"""Draws that are taken back, at most, in one step and in one molecule."""

CLASH = 1.4
"""Å; a heavy atom nearer than this to a hydrogen of another atom is out of place."""

STOPPED, FULL, STUCK, CROWDED, HOPELESS = range(5)
REASONS = {
    FULL: "max_atoms",
    STUCK: "no open valence for what is left",
    CROWDED: "no place that is free",
    HOPELESS: "its bonds leave other hydrogens than those asked for",
}
"""Why a molecule did not stop, by the number in `Progress`."""


class Limits(NamedTuple):
    """What one molecule may become; arrays of the device or of the host.

    Attributes:
        most: atoms of each species, at most, those of a start counted.
        exact: true if there must be that many of each.
        fewest_atoms: atoms at the stop, at least.
        most_atoms: atoms, at most.
        most_heavy: atoms heavier than hydrogen, at most.
        heavy_first: true for weights that place all heavy atoms before a hydrogen.
        may_grow: true for nodes from which a heavy atom may grow.
        most_bonded: neighbours of each node, at most, where its bonds are known.
        kept: positions of hydrogens of a core that wait, in Å.
        parent: node of the heavy atom of each.
        always: true for those that come back at any rate, not as valence allows.
        num_kept: how many wait.
    """

    most: Any
    exact: Any
    fewest_atoms: Any
    most_atoms: Any
    most_heavy: Any
    heavy_first: Any
    may_grow: Any
    most_bonded: Any
    kept: Any
    parent: Any
    always: Any
    num_kept: Any


class Progress(NamedTuple):
    """How far one molecule is.

    Attributes:
        tries: draws of this step that were taken back.
        all_tries: those of all steps, and atoms that were taken back later.
        num_back: times that it went back several atoms; see `symphony.backtracking`.
        is_long: true until its cache is shortened to the atoms that stay.
        returning: hydrogens that come back, in the order in which they do.
        num_returning: how many do; -1 before that is known.
        returned: how many have come.
        reason: one of `REASONS`, or `STOPPED`.
        log_likelihood: log-likelihood in nats of the path under the masks.
        log_of_atoms: the part of each atom in it.
    """

    tries: Index
    all_tries: Index
    num_back: Index
    is_long: Flag
    returning: NodeIndices
    num_returning: Index
    returned: Index
    reason: Index
    log_likelihood: Scalar
    log_of_atoms: NodeScalars


class Allowed(NamedTuple):
    """What a step may draw.

    Attributes:
        first: species of a first atom.
        stop: true if the molecule may be complete.
        focus_species: pairs of focus and species of the next atom.
    """

    first: Bool[Array, " num_species"]
    stop: Flag
    focus_species: Bool[Array, "num_nodes num_species"]


def no_limits(capacity: int, num_species: int) -> Limits:
    """Returns limits that forbid nothing, for weights that mix hydrogens in."""
    many = np.int32(UNLIMITED)
    every = np.ones(capacity, bool)
    return Limits(
        most=np.full(num_species, many),
        exact=np.array(False),
        fewest_atoms=np.int32(0),
        most_atoms=many,
        most_heavy=many,
        heavy_first=np.array(False),
        may_grow=every,
        most_bonded=np.full(capacity, many),
        kept=np.zeros((capacity, 3), np.float32),
        parent=np.zeros(capacity, np.int32),
        always=~every,
        num_kept=np.int32(0),
    )


def begin(capacity: int) -> Progress:
    """Returns the state of a molecule that has nothing yet."""
    zero = jnp.array(0, jnp.int32)
    nodes = jnp.zeros(capacity, jnp.int32)
    return Progress(
        tries=zero,
        all_tries=zero,
        num_back=zero,
        is_long=jnp.array(False),
        returning=nodes,
        num_returning=zero - 1,
        returned=zero,
        reason=zero,
        log_likelihood=jnp.zeros(()),
        log_of_atoms=jnp.zeros(capacity),
    )


class Census(NamedTuple):
    """What is placed, counted.

    Attributes:
        bonds: bonds of the placed atoms.
        left: atoms of each species that may still come.
        is_heavy: true for heavy species.
        valence: valence of each species, at most.
        usual: valence of each species, at least.
        is_known: true if the valences of all that is placed, and must come, are known.
        num_atoms: atoms placed.
        num_heavy: heavy ones among them.
        heavy_left: heavy atoms that still may come, by the limits of species.
        closing: true once no heavy atom comes any more.
    """

    bonds: Bonds
    left: Int[Array, " num_species"]
    is_heavy: Bool[Array, " num_species"]
    valence: Int[Array, " num_species"]
    usual: Int[Array, " num_species"]
    is_known: Flag
    num_atoms: Index
    num_heavy: Index
    heavy_left: Index
    closing: Flag


def take_census(
    table: Table,
    limits: Limits,
    progress: Progress,
    positions: Positions,
    species: Species,
    num_atoms: Index,
) -> Census:
    """Counts what is placed of a molecule."""
    placed = jnp.arange(len(species)) < num_atoms
    numbers = jnp.arange(len(table.valence))
    at_species = (species[:, None] == numbers) & placed[:, None]
    counts = jnp.sum(at_species, axis=0, dtype=jnp.int32)
    is_heavy = jnp.asarray(table.is_heavy)
    left = jnp.maximum(limits.most - counts, 0)
    num_heavy = jnp.sum(jnp.where(is_heavy, counts, 0))
    present = (counts > 0) | (limits.exact & (left > 0))
    begun = (num_atoms > num_heavy) | (progress.num_returning >= 0)
    return Census(
        bonds=_known_bonds(limits, find_bonds(table, positions, species, placed)),
        left=left,
        is_heavy=is_heavy,
        valence=jnp.asarray(table.valence),
        usual=jnp.asarray(table.usual),
        is_known=jnp.all(jnp.asarray(table.is_known) | ~present),
        num_atoms=num_atoms,
        num_heavy=num_heavy,
        heavy_left=jnp.sum(jnp.where(is_heavy, left, 0)),
        closing=limits.heavy_first & begun,
    )


def _known_bonds(limits: Limits, bonds: Bonds) -> Bonds:
    """Returns the open valences where those of some nodes are known beforehand."""
    neighbours = jnp.sum(bonds.bonded, axis=1, dtype=jnp.int32)
    spare = jnp.maximum(limits.most_bonded - neighbours, 0)
    is_known = limits.most_bonded < UNLIMITED
    return bonds._replace(
        room=jnp.where(is_known, jnp.minimum(spare, bonds.room), bonds.room),
        needed=jnp.where(is_known, spare, bonds.needed),
    )


def allow(limits: Limits, census: Census) -> Allowed:
    """Returns what the next step may draw."""
    species = _allowed_species(limits, census)
    room = census.bonds.room > 0
    growing = room & limits.may_grow
    focus = jnp.where(census.is_heavy, growing[:, None], room[:, None])
    return Allowed(
        first=species,
        stop=_allowed_stop(limits, census),
        focus_species=focus & species,
    )


def _allowed_stop(limits: Limits, census: Census) -> Flag:
    enough = census.num_atoms >= limits.fewest_atoms
    spent = ~limits.exact | (jnp.sum(census.left) == 0)
    # Where hydrogens may not come, nothing else closes what is open.
    hydrogens_left = jnp.sum(jnp.where(census.is_heavy, 0, census.left))
    needed = jnp.sum(census.bonds.needed)
    saturated = (hydrogens_left > 0) | (needed == 0) | limits.exact
    return enough & spent & saturated & (census.num_atoms > 0)


def _allowed_species(limits: Limits, census: Census) -> Bool[Array, " num_species"]:
    """Returns the species that keep the end in reach."""
    heavy, valence, left = census.is_heavy, census.valence, census.left
    allowed = (left > 0) & (census.num_atoms < limits.most_atoms)
    more_heavy = (census.num_heavy < limits.most_heavy) & ~census.closing
    # A heavy atom takes one valence and brings its own: some must stay open as long
    # as atoms have to come.
    growing = jnp.sum(jnp.where(limits.may_grow, census.bonds.room, 0))
    opens = jnp.where(census.num_atoms > 0, growing - 2, 0) + valence
    heavy_after = jnp.where(limits.exact, census.heavy_left - 1, 0)
    more_heavy &= (opens > 0) | (heavy_after == 0)
    size = size_of(census) + 1 + _least_gain(census.usual, 3)
    more_heavy &= limits.exact | (size <= limits.most_atoms)
    begin_closing = ~limits.exact | (census.heavy_left == 0)
    begin_closing &= size_of(census) >= limits.fewest_atoms
    hydrogen = ~limits.heavy_first | census.closing | begin_closing
    hydrogen &= ~limits.exact | (census.heavy_left == 0) | (growing > 1)
    # A heavy atom comes first where weights place them so.
    hydrogen &= ~limits.heavy_first | (census.num_atoms > 0)
    return allowed & jnp.where(heavy, more_heavy, hydrogen)


def size_of(census: Census) -> Index:
    """Returns how many atoms there are once each has the hydrogens that it needs."""
    return census.num_atoms + jnp.sum(census.bonds.needed)


class Verdict(NamedTuple):
    """What is said of a placed atom.

    Attributes:
        in_reach: true if the end is likely to be reached from it.
        in_place: true if it may stay where it is.
        hopeless: true if no end is in reach.
    """

    in_reach: Flag
    in_place: Flag
    hopeless: Flag


def judge(limits: Limits, before: Census, after: Census, luck: Scalar) -> Verdict:
    """Judges an atom by what was there before it, and what is there with it.

    Args:
        limits: what the molecule may become.
        before: what was placed before.
        after: what is placed with it.
        luck: random number from 0 to 1; an atom of a formula is in reach of the end
            with its `symphony.surplus.chance`.
    """
    new = before.num_atoms
    is_new = jnp.arange(len(after.bonds.room)) == new
    is_heavy = after.num_heavy > before.num_heavy
    touched = jnp.any(after.bonds.bonded & is_new[:, None], axis=0)
    in_place = ~is_heavy | ~jnp.any(touched & ~limits.may_grow & ~is_new)
    # Of its neighbours none has a bond too many.
    in_reach = ~jnp.any(touched & (before.bonds.room <= 0))
    in_reach &= is_heavy | (jnp.sum(touched) <= 1)
    fits = _hydrogens_fit(limits, after, most_bonds=2, tolerance=0)
    num_left = jnp.sum(jnp.where(after.is_heavy, after.left, 0))
    likely = luck < chance(_surplus(before), _surplus(after), num_left)
    by_formula = limits.exact & after.is_known & (num_left < MOST_KNOWN)
    in_reach &= ~is_heavy | jnp.where(by_formula, likely, fits)
    # Open valences are known but for one, seldom; and triple bonds there are.
    fits = _hydrogens_fit(limits, after, most_bonds=3, tolerance=1)
    return Verdict(in_reach | (new == 0), in_place | (new == 0), is_heavy & ~fits)


def _hydrogens_fit(
    limits: Limits, census: Census, most_bonds: int, tolerance: int
) -> Flag:
    """Returns whether the hydrogens to come can be as many as are asked for.

    Args:
        limits: what the molecule may become.
        census: what is placed.
        most_bonds: bonds, at most, that each heavy atom to come has with those before.
        tolerance: open valences that may be wrong.
    """
    needed = jnp.sum(census.bonds.needed)
    left = jnp.where(census.is_heavy, census.left, 0)
    hydrogens = jnp.sum(jnp.where(census.is_heavy, 0, census.left))
    most = needed + jnp.sum(left * (census.usual - 2))
    fewest = needed + jnp.sum(left * _least_gain(census.usual, most_bonds))
    in_window = (fewest - tolerance <= hydrogens) & (hydrogens <= most + tolerance)
    is_small = size_of(census) - tolerance <= limits.most_atoms
    # At the last heavy atom the size is what it is.
    at_end = census.num_heavy >= limits.most_heavy
    is_large = ~at_end | (size_of(census) + tolerance >= limits.fewest_atoms)
    return ~census.is_known | jnp.where(limits.exact, in_window, is_small & is_large)


def _surplus(census: Census) -> Index:
    """Returns the surplus of hydrogens; see `symphony.surplus`."""
    gains = jnp.where(census.is_heavy, census.left * (census.usual - 2), -census.left)
    return jnp.sum(census.bonds.needed) + jnp.sum(gains)


def _least_gain(
    valence: Int[Array, " num_species"], most_bonds: int
) -> Int[Array, " num_species"]:
    """Returns the change of needed hydrogens by an atom of so many bonds, at most."""
    return valence - 2 * jnp.minimum(valence, most_bonds)


def clashes(limits: Limits, point: Vector, is_heavy: Flag) -> Flag:
    """Returns whether a heavy atom would lie on a hydrogen that comes back."""
    waits = (jnp.arange(len(limits.always)) < limits.num_kept) & limits.always
    apart = jnp.sqrt(jnp.sum(jnp.square(limits.kept - point), axis=-1))
    return is_heavy & jnp.any(waits & (apart < CLASH))


def choose_returning(
    limits: Limits, census: Census, positions: Positions
) -> tuple[NodeIndices, Index]:
    """Returns the hydrogens that come back, first in the order, and how many do.

    Those that stay only as valence allows are fewer than their atom needs, the
    farthest from other atoms first.
    """
    waits = jnp.arange(len(limits.always)) < limits.num_kept
    nearest = _nearest_other(limits, census, positions)
    same = (limits.parent[:, None] == limits.parent) & waits[None]
    farther = same & (nearest[None] > nearest[:, None])
    rank = jnp.sum(farther, axis=1)
    fits = (rank < census.bonds.needed[limits.parent]) & (nearest > CLASH)
    comes = waits & (limits.always | fits)
    order = jnp.argsort(2 * ~comes + ~limits.always, stable=True)
    hydrogens_left = jnp.sum(jnp.where(census.is_heavy, 0, census.left))
    count = jnp.minimum(jnp.sum(comes), hydrogens_left)
    return order.astype(jnp.int32), count.astype(jnp.int32)


def _nearest_other(
    limits: Limits, census: Census, positions: Positions
) -> Float[Array, " num_nodes"]:
    """Returns how far waiting hydrogens are from placed atoms but their own, in Å."""
    nodes = jnp.arange(len(positions))
    others = (nodes < census.num_atoms) & (nodes != limits.parent[:, None])
    vectors = limits.kept[:, None] - positions[None]
    apart = jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1))
    return jnp.min(jnp.where(others, apart, jnp.inf), axis=1)
