r"""Log-likelihoods of molecules under a trained model, in nats.

For one order of atoms, with $S_t$ the atoms `0..t` of the order,

$$ \log p = \log p(s_0) + \sum_t \log \sum_{i \le t} p(i, s_{t+1} \mid S_t)\,
   p(r_{t+1} - x_i \mid i, s_{t+1}, S_t) + \log p(\mathrm{stop} \mid S_{n-1}), $$

where $i$ runs over the atoms that the new one could have been reached from. Densities
of positions are per Å³; the first atom has none, so the place of the molecule in space
counts nothing. Over $K$ orders drawn from the law $q$ of the cuts in training,
$\log \frac1K \sum_k p_k / q_k$ bounds the log-likelihood of the molecule from below, in
the mean. The coarse direction of a position is integrated as well as by $M$ independent
draws around the true one; see `num_directions`.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, Key

from common.errors import UsageError
from common.nn.conditions import Conditions, Known, known
from common.nn.features import Features
from common.programs import LEVEL
from symphony import build, data
from symphony.arrays import (
    Flag,
    HostPositions,
    NodeIndices,
    NodeMask,
    Positions,
    RandomKey,
    Scalar,
    Species,
)
from symphony.conditions import some_known
from symphony.generate import in_full_precision
from symphony.model import NextAtom, Symphony
from symphony.orders import Cut
from symphony.places import NearPairs, Order, find_near_pairs, log_densities
from symphony.sharing import embed_order, share
from symphony.weights import Weights

ORDERS_PER_CALL = 16

ORDERS_TOGETHER = 4
"""Orders that are evaluated side by side: on a CPU more would leave its caches."""

WORTH, FEWEST = 6, 4
"""Independent coarse directions that one of those spread evenly is worth, from some."""

NUM_BUCKETS, FEW_MOLECULES = 3, 100
"""Below this number, to compile for one size costs less than padding."""


class OrderTerms(NamedTuple):
    """Log-likelihood of one order, and its parts; nats.

    Attributes:
        placed: term of placing each atom, in the order of the input; for the first of
            the order, the logarithm of the probability of its species.
        stop: term of stopping.
        log_law: log-probability of the order under the law of the cuts.
        complete: false if the atoms do not hang together; the rest is then void.
    """

    placed: Float[Array, " num_nodes"]
    stop: Scalar
    log_law: Scalar
    complete: Flag


class Score(NamedTuple):
    r"""Scores of one molecule, in nats; positions per Å³.

    Attributes:
        bound: lower bound for the molecule, over orders.
        standard_error: error of `bound` by the spread of $p / q$; NaN for one order.
        effective_orders: $(\sum w)^2 / \sum w^2$ of the ratios $w = p / q$.
        mean_order: mean of the log-likelihood of one order.
        per_atom: mean over orders of the term of each atom, in the input's order.
        stop: mean over orders of the term of stopping.
    """

    bound: float
    standard_error: float
    effective_orders: float
    mean_order: float
    per_atom: Float[np.ndarray, " num_atoms"]
    stop: float


def step_features(
    model: Symphony, cut: Cut, conditions: Conditions
) -> tuple[Features, NextAtom]:
    """Returns the features of the atoms, and the logits, at every step of an order.

    The causal trunk gives an atom the same features at every step.
    """
    steps = jnp.arange(len(cut.species))
    placed = (steps <= steps[:, None]) & cut.node_mask
    # Step zero always has its atom, also in a row of padding.
    placed = placed.at[:, 0].set(True)
    return model.embed_steps(
        cut.species, cut.positions, cut.node_mask, placed, conditions
    )


def order_terms(
    model: Symphony,
    cut: Cut,
    near: NearPairs,
    conditions: Conditions,
    key: RandomKey,
    num_draws: int,
    embedded: tuple[Features, NextAtom] | None = None,
) -> OrderTerms:
    """Evaluates one order; the trunk sees all its steps at once.

    Args:
        model: network bound to its parameters.
        cut: molecule in the order.
        near: all pairs within the reach of a step; each belongs to one step, that of
            its later atom, with its earlier one as the focus.
        conditions: conditions of the network, `noise_std` among them.
        key: key of the coarse directions.
        num_draws: coarse directions for each pair.
        embedded: what `step_features` gives, where it is known.
    """
    num_nodes = cut.species.shape[0]
    node_feats, next_atom = embedded or step_features(model, cut, conditions)
    log_total = jax.nn.logsumexp(next_atom.focus_species, axis=(1, 2))
    log_total = jnp.logaddexp(log_total, next_atom.stop)
    rank = ranks(cut)
    order = Order(cut.positions, cut.species, cut.node_mask, node_feats, next_atom)
    terms = log_densities(model, order, near, rank, key, num_draws)
    first = jax.nn.log_softmax(model.first_logits(conditions))[cut.species[0]]
    terms = jnp.where(jnp.arange(num_nodes) == 0, first, terms)

    last = jnp.sum(cut.node_mask) - 1
    place_mask = jnp.arange(num_nodes) < last
    return OrderTerms(
        # Padding comes last in the order and in the input.
        placed=jnp.where(cut.node_mask, terms[rank], 0.0),
        stop=next_atom.stop[last] - log_total[last],
        log_law=cut.log_first + jnp.sum(jnp.where(place_mask, cut.log_law, 0.0)),
        complete=cut.complete,
    )


def ranks(cut: Cut) -> NodeIndices:
    """Returns the place in the order of each atom of the input; zero of padding."""
    num_nodes = cut.order.shape[0]
    # Padding has the place of atom zero in `order`; it must not write there.
    target = jnp.where(cut.node_mask, cut.order, num_nodes)
    steps = jnp.arange(num_nodes, dtype=jnp.int32)
    return jnp.zeros(num_nodes, jnp.int32).at[target].set(steps, mode="drop")


def num_directions(num_draws: int) -> int:
    """Returns how many coarse directions do as well as independent ones around a place.

    Those of `places.spread` do.

    >>> [num_directions(count) for count in (1, 4, 16, 32, 64)]
    [1, 4, 4, 6, 11]
    """
    return max(min(num_draws, FEWEST), -(-num_draws // WORTH))


@cache
def make_scorer(
    config: ml_collections.FrozenConfigDict, model: nn.Module, num_draws: int
) -> Callable[..., OrderTerms]:
    """Returns the compiled function that evaluates a random order for each key."""

    @partial(jax.jit, compiler_options=LEVEL)
    @in_full_precision
    def run(
        params: Any,
        keys: Key[Array, " num_orders"],
        positions: Positions,
        species: Species,
        node_mask: NodeMask,
        near: NearPairs,
        conditions: Conditions,
    ) -> OrderTerms:
        bound = model.bind(params)
        noise_std = jnp.float32(config.sample.noise_std)
        given = {**known({"noise_std": noise_std}), **conditions}

        shared = share(bound, positions, node_mask)
        draw_cut = lambda key: build.draw_cut(config, key, *molecule)
        molecule = (positions, species, node_mask)
        keys_cut, keys_draws = jnp.swapaxes(jax.vmap(jax.random.split)(keys), 0, 1)

        def one(given_order: tuple[Cut, RandomKey]) -> OrderTerms:
            drawn, key = given_order
            nodes = (species, node_mask, ranks(drawn))
            embedded = embed_order(bound, shared, *nodes, given)
            return order_terms(bound, drawn, near, given, key, num_draws, embedded)

        orders = (jax.vmap(draw_cut)(keys_cut), keys_draws)
        together = math.gcd(len(keys), ORDERS_TOGETHER)
        return jax.lax.map(one, orders, batch_size=together)

    return run


def scorer_of(weights: Weights, num_draws: int) -> Callable[..., OrderTerms]:
    """Returns the compiled function `(keys, *molecule)`; see `make_scorer`, `pad`.

    Raises:
        UsageError: The kind of model cannot score.
    """
    if not isinstance(weights.model, Symphony):
        raise UsageError(
            f"{weights.name}: expected a model of kind symphony, found "
            f"{weights.config.kind}; choose other weights by --checkpoint"
        )
    frozen = ml_collections.FrozenConfigDict(weights.config)
    scorer = make_scorer(frozen, weights.model, num_directions(num_draws))
    return partial(scorer, weights.params)


def score_molecules(
    weights: Weights,
    molecules: data.Molecules,
    num_orders: int,
    num_draws: int,
    seed: int,
    part: range | None = None,
) -> Iterator[tuple[int, Score]]:
    """Yields index and score of each molecule, bucket by bucket.

    Args:
        weights: trained model.
        molecules: molecules of at most `MAX_ATOMS` atoms, of known elements.
        num_orders: K, random orders for each molecule.
        num_draws: M, precision of the coarse directions; see `num_directions`.
        seed: seed of orders and directions, which depend on it, on the index of a
            molecule and on the bucket that holds it.
        part: indices of those to score, in the buckets of all; all where None.

    Raises:
        UsageError: The atoms of a molecule do not hang together, or the kind of model
            cannot score.
    """
    config, model = weights.config, weights.model
    run = scorer_of(weights, num_draws)
    species = data.to_species(molecules.atomic_numbers, tuple(config.data.species))
    slices = [slice(*ends) for ends in itertools.pairwise(molecules.offsets)]
    reach = (model.min_radius, model.max_radius)
    near = [find_near_pairs(molecules.positions[rows], *reach) for rows in slices]
    num_buckets = 1 if len(slices) < FEW_MOLECULES else NUM_BUCKETS
    buckets = data.choose_buckets(molecules.num_atoms, num_buckets)
    bucket_of = np.searchsorted(buckets, molecules.num_atoms)
    seed_key = jax.random.key(seed)
    for bucket, size in enumerate(buckets):
        members = np.flatnonzero(bucket_of == bucket)
        num_pairs = 8 * -(-max(1, *(len(near[m]) for m in members)) // 8)
        for index in members if part is None else filter(part.__contains__, members):
            rows = slices[index]
            inputs = pad(
                molecules.positions[rows], species[rows], near[index], size, num_pairs
            )
            inputs += (_conditions_of(molecules, int(index)),)
            key = jax.random.fold_in(seed_key, int(index))
            terms = all_orders(run, key, inputs, num_orders)
            _check_complete(terms, f"molecule {index} ({molecules.names[index]})")
            yield int(index), summarise(terms, int(molecules.num_atoms[index]))


def _check_complete(terms: OrderTerms, name: str) -> None:
    if not np.all(terms.complete):
        raise UsageError(
            f"{name}: expected atoms that hang together over the steps of the model"
        )


def _conditions_of(molecules: data.Molecules, index: int) -> dict[str, Known]:
    """Returns the properties of a molecule, unknown where the file has none."""
    values = {k: float(v[index]) for k, v in molecules.properties.items()}
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    return some_known(finite, tuple(values))


def pad(
    positions: HostPositions,
    species: Int[np.ndarray, " num_atoms"],
    near: Int[np.ndarray, "num_near 2"],
    num_nodes: int,
    num_pairs: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, NearPairs]:
    """Returns the arrays of a molecule at the sizes of its bucket, centred."""
    num_atoms, num_near = len(species), len(near)
    centred = positions - positions.mean(axis=0, dtype=np.float64)
    near = np.pad(near, ((0, num_pairs - num_near), (0, 0)))
    return (
        np.pad(centred.astype(np.float32), ((0, num_nodes - num_atoms), (0, 0))),
        np.pad(species, (0, num_nodes - num_atoms)),
        np.arange(num_nodes) < num_atoms,
        NearPairs(near[:, 0], near[:, 1], np.arange(num_pairs) < num_near),
    )


def all_orders(
    run: Callable[..., OrderTerms],
    key: RandomKey,
    inputs: tuple[Any, ...],
    num_orders: int,
) -> OrderTerms:
    """Evaluates the orders in groups of one size; order `k` depends on `k` alone."""
    parts = []
    for begin in range(0, num_orders, ORDERS_PER_CALL):
        numbers = np.arange(begin, begin + min(ORDERS_PER_CALL, num_orders))
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        parts.append(jax.tree.map(np.asarray, run(keys, *inputs)))
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return jax.tree.map(lambda array: array[:num_orders], joined)


def summarise(terms: OrderTerms, num_atoms: int) -> Score:
    """Reduces the terms of all orders of a molecule (first axis) to its score."""
    placed = np.asarray(terms.placed, np.float64)[:, :num_atoms]
    log_p = placed.sum(axis=1) + terms.stop
    return Score(
        *_bound(log_p - terms.log_law),
        mean_order=float(log_p.mean()),
        per_atom=placed.mean(axis=0),
        stop=float(terms.stop.mean()),
    )


def _bound(log_ratios: Float[np.ndarray, " num_orders"]) -> tuple[float, float, float]:
    """Returns bound, standard error and effective number of orders; see `Score`."""
    count, highest = len(log_ratios), log_ratios.max()
    if not np.isfinite(highest):
        return float("-inf"), float("nan"), 0.0
    ratios = np.exp(log_ratios - highest)
    mean = ratios.mean()
    effective = float(ratios.sum() ** 2 / np.square(ratios).sum())
    error = float("nan")
    if count > 1:
        error = float(ratios.std(ddof=1) / mean / np.sqrt(count))
    return float(highest + np.log(mean)), error, effective
