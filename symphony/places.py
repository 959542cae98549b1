r"""Log-densities of where atoms are, seen from the foci that count, for one order.

Of a pair of new atom and focus, choice and radius cost little and decide most. The
direction is integrated only for pairs within `NEGLIGIBLE` nats of the best focus of
their step by choice and radius. Its estimate has importance weights: coarse directions
are drawn around the true one, wider than the blur, because the ratio of density and
blur grows outwards; and they are spread evenly, because it is smooth. Positions are in
Å, log-densities in nats.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from common.nn.features import Features
from symphony import densities
from symphony.arrays import (
    Flag,
    HostPositions,
    Index,
    NodeIndices,
    NodeMask,
    Positions,
    RandomKey,
    Species,
    Vector,
)
from symphony.model import NextAtom, Surroundings, Symphony

NEGLIGIBLE = 14.0
"""Nats by which the focus of a pair may lie below the best one of its step."""

CHUNK = 8
"""Pairs whose directions are integrated together."""

WIDENED = 1.3
"""Width of the coarse directions that are drawn, in widths of the blur."""

GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
"""Turn from one coarse direction to the next, which spreads any number of them."""


class NearPairs(NamedTuple):
    """Pairs of atoms at a distance at which one can have been placed from the other.

    Attributes:
        first: index of one atom, in the molecule as given.
        second: index of the other.
        pair_mask: true for real pairs.
    """

    first: Int[Array, " num_pairs"]
    second: Int[Array, " num_pairs"]
    pair_mask: Bool[Array, " num_pairs"]


class Order(NamedTuple):
    """A molecule in an order of generation, and what the network makes of it.

    Attributes:
        positions: positions of the atoms, in Å, in the order of placement.
        species: indices into the species table.
        node_mask: true for real atoms.
        node_feats: output of the trunk.
        next_atom: logits of every step.
    """

    positions: Positions
    species: Species
    node_mask: NodeMask
    node_feats: Features
    next_atom: NextAtom


class Pairs(NamedTuple):
    """Pairs of new atom and focus in an order.

    Attributes:
        focus: place of the focus in the order.
        new: place of the new atom.
        log_reach: log-density of focus, species and radius, per Å³ and without the
            direction's; minus infinity of padding.
        radius: distance, in Å.
        direction: unit vector from the focus.
        condition: input of the position heads.
        number: number of the pair, which decides its random numbers.
    """

    focus: Int[Array, " num_pairs"]
    new: Int[Array, " num_pairs"]
    log_reach: Float[Array, " num_pairs"]
    radius: Float[Array, " num_pairs"]
    direction: Float[Array, "num_pairs 3"]
    condition: Float[Array, "num_pairs num_channels"]
    number: Int[Array, " num_pairs"]


def find_near_pairs(
    positions: HostPositions, min_radius: float, max_radius: float
) -> Int[np.ndarray, "num_pairs 2"]:
    """Returns the pairs of atoms whose distance (Å) a step can have.

    >>> find_near_pairs(np.array([[0.0, 0, 0], [1.5, 0, 0], [4.0, 0, 0]]), 0.5, 2.0)
    array([[0, 1]], dtype=int32)
    """
    first, second = np.triu_indices(len(positions), 1)
    vectors = positions[first].astype(np.float64) - positions[second]
    lengths = np.linalg.norm(vectors, axis=-1)
    near = (lengths > min_radius) & (lengths < max_radius)
    return np.stack([first[near], second[near]], axis=1).astype(np.int32)


def log_densities(
    model: Symphony,
    order: Order,
    near: NearPairs,
    rank: NodeIndices,
    key: RandomKey,
    num_draws: int,
) -> Float[Array, " num_nodes"]:
    """Returns the log-density of each atom of an order, over all foci; nats.

    Args:
        model: network bound to its parameters.
        order: molecule in the order.
        near: all pairs within the reach of a step; each belongs to one step, that of
            its later atom, with its earlier one as the focus.
        rank: place in the order of each atom of the input.
        key: key of the coarse directions.
        num_draws: coarse directions for each pair.

    Returns:
        The entry of the first atom is minus infinity, as that of padding.
    """
    num_nodes = order.species.shape[0]
    kept, num_kept, has_gap = keep(survey(model, order, near, rank), order.node_mask)
    run = partial(_integrate, model, order, kept, key, num_draws)
    total = jnp.zeros(kept.focus.shape[0])
    begin = 0
    for size in _sizes(num_nodes):
        is_last = size == num_nodes
        # A step without a focus would shift the pairs behind it: all see all then.
        first = jnp.where(has_gap, 0, begin) if is_last else begin
        end = num_kept if is_last else jnp.where(has_gap, 0, min(size, len(total)))
        end = jnp.minimum(end, num_kept)
        total = jax.lax.fori_loop(
            first // CHUNK, -(-end // CHUNK), partial(run, size), total
        )
        begin = size
    log_p = jnp.where(jnp.isfinite(kept.log_reach), total + kept.log_reach, -jnp.inf)
    return _by_new(jax.nn.logsumexp, kept.new, log_p, num_nodes)


def _sizes(num_nodes: int) -> Sequence[int]:
    """Returns numbers of atoms that are looked at together, up to all."""
    sizes = [CHUNK]
    while sizes[-1] < num_nodes:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], num_nodes]


def survey(model: Symphony, order: Order, near: NearPairs, rank: NodeIndices) -> Pairs:
    """Returns all pairs with the log-density of choice and radius."""
    focus = jnp.minimum(rank[near.first], rank[near.second])
    new = jnp.maximum(rank[near.first], rank[near.second])
    step = jnp.maximum(new - 1, 0)
    # Masked pairs may be of one atom with itself; they must only stay finite.
    vectors = order.positions[new] - order.positions[focus]
    low, high = model.min_radius, model.max_radius
    radius, direction = densities.polar(vectors, low, high)
    logits, species = order.next_atom, order.species[new]
    log_total = jax.nn.logsumexp(logits.focus_species, axis=(1, 2))
    log_total = jnp.logaddexp(log_total, logits.stop)
    now = jax.tree.map(lambda x: x[step], logits)
    condition = model.position_condition(order.node_feats, now, focus, species)
    mixture = model.radial(condition)
    log_reach = densities.radial_log_density(mixture, radius, low, high)
    log_reach += logits.focus_species[step, focus, species] - log_total[step]
    log_reach = jnp.where(near.pair_mask, log_reach - 2.0 * jnp.log(radius), -jnp.inf)
    number = jnp.arange(len(focus))
    return Pairs(focus, new, log_reach, radius, direction, condition, number)


def keep(every: Pairs, node_mask: NodeMask) -> tuple[Pairs, Index, Flag]:
    """Returns the pairs that count, by the step, in front of the others.

    Also how many they are, and whether a step has none. If each step has one, pair `i`
    is of a step that sees at most `i + 1` atoms.
    """
    num_nodes = len(node_mask)
    best = _by_new(jnp.max, every.new, every.log_reach, num_nodes)
    counts = every.log_reach > jnp.maximum(best[every.new] - NEGLIGIBLE, -1e30)
    places = jnp.argsort(jnp.where(counts, every.new, num_nodes))
    kept = every._replace(log_reach=jnp.where(counts, every.log_reach, -jnp.inf))
    missing = -len(places) % CHUNK
    places = jnp.pad(places, (0, missing))
    kept = jax.tree.map(lambda x: x[places], kept)
    if missing:
        kept = kept._replace(log_reach=kept.log_reach.at[-missing:].set(-jnp.inf))
    has_gap = jnp.any(jnp.isinf(best) & node_mask & (jnp.arange(num_nodes) > 0))
    return kept, jnp.sum(counts), has_gap


def _by_new(
    reduce: Callable[..., Array],
    new: Int[Array, " num_pairs"],
    values: Float[Array, " num_pairs"],
    num_nodes: int,
) -> Float[Array, " num_nodes"]:
    """Reduces the values of the pairs of each new atom; minus infinity of none."""
    is_new = new[:, None] == jnp.arange(num_nodes)
    return reduce(jnp.where(is_new, values[:, None], -jnp.inf), axis=0)


def _integrate(
    model: Symphony,
    order: Order,
    kept: Pairs,
    key: RandomKey,
    num_draws: int,
    size: int,
    chunk: Index,
    total: Float[Array, " num_pairs"],
) -> Float[Array, " num_pairs"]:
    """Writes the log-densities of direction of a chunk of pairs, per steradian."""
    begin = chunk * CHUNK
    pairs = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, CHUNK), kept)
    visible = jnp.arange(size) < jnp.maximum(pairs.new, 1)[:, None]
    around = Surroundings(
        jax.tree.map(lambda x: x[:size], order.node_feats),
        order.positions[:size],
        jnp.minimum(pairs.focus, size - 1),
        visible & order.node_mask[:size],
    )
    keys = jax.vmap(partial(jax.random.fold_in, key))(pairs.number)
    noise = jax.vmap(partial(spread, count=num_draws))(keys)
    found = direction_log_density(model, pairs, around, noise)
    return jax.lax.dynamic_update_slice_in_dim(total, found, begin, 0)


def direction_log_density(
    model: Symphony,
    pairs: Pairs,
    around: Surroundings,
    noise: Float[Array, "num_pairs num_draws 2"],
) -> Float[Array, " num_pairs"]:
    """Estimates the log-density of directions, per steradian.

    Args:
        model: network bound to its parameters.
        pairs: pairs of new atom and focus.
        around: atoms that the position heads see, for each pair.
        noise: standard normal numbers that decide the coarse directions.
    """
    num_draws, width = noise.shape[1], WIDENED * model.blur
    tangents = width * (noise @ jax.vmap(tangent_frame)(pairs.direction))
    direction = jnp.broadcast_to(pairs.direction[:, None], tangents.shape)
    coarse = densities.exponential_map(direction, tangents)
    coefficients = model.coarse(pairs.condition, pairs.radius, around)
    at_draws = jax.vmap(jax.vmap(densities.coarse_logits, (None, 0)))
    log_weights = at_draws(coefficients, coarse)
    log_weights -= densities.log_integral(coefficients, model.grid)[:, None]
    log_weights -= densities.blur_log_density(direction, coarse, width)
    many = lambda x: jnp.repeat(x, num_draws, axis=0)
    around = around._replace(focus=many(around.focus), visible=many(around.visible))
    given = (many(pairs.condition), many(pairs.radius), coarse.reshape(-1, 3))
    fine = model.fine(*given, around)
    log_fine = densities.fine_log_density(fine, many(pairs.direction))
    log_weights += log_fine.reshape(log_weights.shape)
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(num_draws)


def tangent_frame(direction: Vector) -> Float[Array, "2 3"]:
    """Returns two unit vectors at right angles to a unit vector and to each other."""
    axis = jnp.where(jnp.abs(direction[0]) < 0.5, jnp.eye(3)[0], jnp.eye(3)[1])
    first = densities.tangent_part(direction, axis)
    first /= jnp.linalg.norm(first)
    return jnp.stack([first, jnp.cross(direction, first)])


def spread(key: RandomKey, count: int) -> Float[Array, "count 2"]:
    """Draws standard normal points of the plane that lie evenly.

    Each has a ring of its own, all of one mass, and a golden turn from the last; the
    mean of any function over them has the expectation of one independent point.
    """
    key_radius, key_turn = jax.random.split(key)
    below = jnp.arange(count) + jax.random.uniform(key_radius, (count,))
    radius = jnp.sqrt(-2.0 * jnp.log1p(-jnp.minimum(below / count, 1.0 - 1e-7)))
    turns = GOLDEN * jnp.arange(count) + jax.random.uniform(key_turn)
    angle = 2.0 * jnp.pi * turns
    return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
