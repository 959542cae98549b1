"""Log-likelihoods over all orders of sampled molecules: `symphony sample --score`.

The bound is that of `symphony score`, see `symphony.likelihood`. What is drawn for it
depends on the seed, the index and the size of a molecule alone.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from common.nn.conditions import Known
from symphony import asking, columns, data, likelihood
from symphony.conditions import names_read, some_known
from symphony.likelihood import OrderTerms
from symphony.options import Options
from symphony.places import find_near_pairs
from symphony.records import Sample
from symphony.weights import Weights

NUM_ORDERS, NUM_DIRECTIONS = 16, 32
"""The defaults of `symphony score`."""

SIZE_STEP, PAIRS_STEP = 8, 64
"""Molecules are padded to multiples of so many atoms and pairs."""


def scored(
    samples: Iterator[Sample], weights: Weights, options: Options
) -> Iterator[Sample]:
    """Returns an iterator over molecules with their scores; unfinished ones have none.

    Args:
        samples: molecules.
        weights: those that drew them.
        options: what was asked, conditions and properties among it.

    Raises:
        UsageError: The weights cannot score; before anything is drawn.
    """
    run = likelihood.scorer_of(weights, NUM_DIRECTIONS)
    return (_with_score(run, one, weights, options) for one in samples)


def _with_score(
    run: Callable[..., OrderTerms], sample: Sample, weights: Weights, options: Options
) -> Sample:
    if not sample.stopped:
        return sample
    count, model = len(sample.atomic_numbers), weights.model
    positions = np.asarray(sample.positions, np.float32)
    near = find_near_pairs(positions, model.min_radius, model.max_radius)
    up = lambda number, step: step * max(1, -(-number // step))
    species = data.to_species(sample.atomic_numbers, tuple(weights.config.data.species))
    sizes = up(count, SIZE_STEP), up(len(near), PAIRS_STEP)
    inputs = likelihood.pad(positions, species, near, *sizes)
    asked = _conditions_of(weights, options, sample)
    key = jax.random.fold_in(jax.random.key(sample.seed), sample.index)
    terms = likelihood.all_orders(run, key, (*inputs, asked), NUM_ORDERS)
    if not np.all(terms.complete):
        return sample
    return sample._replace(score=likelihood.summarise(terms, count))


def _conditions_of(
    weights: Weights, options: Options, sample: Sample
) -> dict[str, Known]:
    """Returns what the network is told of a molecule: what was asked of it."""
    scores = asking.scores_of(sample.targets, weights.columns)
    names = columns.names_of(weights.config)
    asked = dict(zip(names, scores.tolist(), strict=True))
    given = {name: asked[name] for name in sample.targets}
    known = (*names_read(weights.config), *names)
    return some_known({**options.conditions, **given}, known)
