"""Orders and steps, which the kinds that build a molecule atom by atom share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Array

from common.errors import UsageError
from common.nn.conditions import Conditions, known
from symphony import columns, data
from symphony.arrays import Positions, RandomKey, Scalar
from symphony.conditions import names_of, some_known
from symphony.orders import Cut, Law, cut, draw_cut_noise

Totals = dict[str, Scalar]
Terms = Callable[[nn.Module, Cut, Conditions, RandomKey], Totals]
"""`(bound model, cut, conditions, key) -> Totals` of one molecule in one order."""


def draw_cut(
    config: ml_collections.ConfigDict,
    key: RandomKey,
    positions: Positions,
    species: Array,
    node_mask: Array,
) -> Cut:
    """Draws the order in which a molecule is built, by the law in `config.data`."""
    data = config.data
    is_heavy = jnp.asarray(np.array(data.species) > 1)
    law = Law(is_heavy, data.nn_tolerance, data.cutoff, data.heavy_first)
    noise = draw_cut_noise(key, positions.shape[0])
    return cut(noise, positions, species, node_mask, law)


def molecule_totals(
    terms: Terms,
    config: ml_collections.ConfigDict,
    model: nn.Module,
    batch: data.Batch,
    key: RandomKey,
    train: bool,
) -> Totals:
    """Cuts one molecule and evaluates its steps; no coordinate noise outside training.

    Half of the molecules in training have none either; for the others its standard
    deviation is uniform up to `config.data.noise_std`. (The paper's model adds its own,
    always.) Properties are hidden at random in training alone, see `columns.hide`.
    """
    key_cut, key_level, key_terms = jax.random.split(key, 3)
    drawn = draw_cut(config, key_cut, batch.positions, batch.species, batch.node_mask)
    coin, level = jax.random.uniform(key_level, (2,))
    noise_std = jnp.where(coin < 0.5, 0.0, level) * config.data.noise_std
    noise_std = noise_std if train else jnp.zeros(())
    given = {**batch.conditions, **known({"noise_std": noise_std})}
    if train and columns.names_of(config):
        # Without properties, all draws are those of a run without them.
        key_hide = jax.random.fold_in(key, 1)
        given = columns.hide(key_hide, given, columns.names_of(config))
    return terms(model, drawn, given, key_terms)


def run(terms: Terms, config: ml_collections.ConfigDict, model: nn.Module) -> Totals:
    """Evaluates a chain of four atoms, so that every parameter is made."""
    num_nodes = 4
    example = Cut(
        positions=jnp.asarray(np.eye(num_nodes, 3), jnp.float32),
        species=jnp.zeros(num_nodes, jnp.int32),
        node_mask=jnp.ones(num_nodes, bool),
        focus=jnp.zeros(num_nodes, jnp.int32),
        labels=jnp.zeros((num_nodes, num_nodes, len(config.data.species))),
        log_law=jnp.zeros(num_nodes),
        log_first=jnp.zeros(()),
        order=jnp.arange(num_nodes, dtype=jnp.int32),
        complete=jnp.array(True),
    )
    names = (*names_of(config), *columns.names_of(config))
    given = some_known({"noise_std": 0.0}, names)
    return terms(model, example, given, jax.random.key(0))


def prepare(
    config: ml_collections.ConfigDict, molecules: data.Molecules
) -> data.Molecules:
    """Leaves out, and names, the molecules that the model's steps cannot build.

    Raises:
        UsageError: They are too many.
    """
    low, high = config.model.min_radius, config.model.max_radius
    furthest = min(high, config.data.cutoff) - config.data.nn_tolerance
    bad = data.unreachable(molecules, low, furthest, config.data.heavy_first)
    if not bad.any():
        return molecules
    reason = f"atoms that no step of {low:g} to {furthest:g} Å reaches"
    names = tuple(molecules.names[bad].tolist())
    report = data.SkipReport(len(bad), {reason: names})
    line = f"{config.data.path}: {data.describe(report)}"
    if np.mean(bad) > data.MAX_BAD_FRACTION:
        raise UsageError(
            f"{line}; at most {data.MAX_BAD_FRACTION:.0%} may be bad; "
            "config.model.min_radius and max_radius set the range"
        )
    logging.warning("%s", line)
    return data.select(molecules, ~bad)


def mean_steps(meta: dict[str, Any]) -> float:
    """Returns the mean number of steps of a molecule of the data."""
    return meta["mean_num_atoms"]
