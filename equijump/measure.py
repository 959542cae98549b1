"""How far vectors of clouds move in a lag: the scales of a run, from training pairs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from equijump import build, loss
from equijump.cloud import roots_of, shape_of, to_cloud, tree_of
from equijump.data import lags, pairs
from equijump.data.residues import CA_SLOT, num_slots_of
from equijump.data.splits import Segments

NUM_MEASURED = 4_000
"""Pairs of a lag from which the spread of the displacement is measured."""


def measure(
    segments: Segments, align: bool, ensemble: bool = False, cloud: str = "ca"
) -> build.Statistics:
    """Measures the displacement over the lags of the data, on training pairs.

    Args:
        segments: data of a run; its training pairs are measured.
        align: true to superpose targets.
        ensemble: true to measure the spread of frames with a hidden source too.
        cloud: kind of cloud; of trees each slot of each residue type is measured.
    """
    moved = partial(_moved, align=align, cloud=cloud, num_types=segments.num_types)
    moved = jax.jit(jax.vmap(moved))

    def spread(batch: pairs.Batch) -> tuple[Any, Any, Any]:
        found = _Moved(*map(np.asarray, moved(batch)))
        position = _root_mean(found, found.is_position)
        if cloud == "ca":
            return position, _root_mean(found, found.others), np.nan
        by_slot = partial(_by_slot, found, batch, segments)
        return position, np.sqrt(by_slot(found.squares)), _shape(by_slot, found.shape)

    values = lags.representative(segments.lags, segments.training)
    found = [spread(_draw(segments, lag)) for lag in values]
    positions, others, shapes = map(np.array, zip(*found, strict=True))
    statistics = build.Statistics(np.array(values, float), positions, others)
    if cloud != "ca":
        shape = shapes.mean(axis=0)
        statistics = statistics._replace(lengths=shape[0, ..., 0], shape=shape)
    if not ensemble:
        return statistics
    hidden = pairs.hide_sources(_draw(segments, values[0]), 1.0, seed=0, step=0)
    position, others, _ = spread(hidden)
    others = others if cloud == "ca" else 0.0  # Known of bonds.
    return statistics._replace(ensemble=np.array([position, others]))


def _draw(segments: Segments, lag: float) -> pairs.Batch:
    law = pairs.Lags((float(lag),), is_range=False)
    return pairs.batch_at(
        segments.training, law, NUM_MEASURED, segments.num_nodes, seed=0, step=0
    )


class _Moved(NamedTuple):
    """Squares of the displacements of many pairs, Å^2, and which of them are what.

    Attributes:
        squares: mean square over the axes.
        is_position: true for slots that hold a position.
        others: true for slots that hold another vector.
        freedom: share of the degrees of freedom that centred positions keep.
        shape: features of `shape_of` of the target.
    """

    squares: Float[np.ndarray, "batch num_nodes num_slots"]
    is_position: Bool[np.ndarray, "batch num_nodes num_slots"]
    others: Bool[np.ndarray, "batch num_nodes num_slots"]
    freedom: Float[np.ndarray, " batch"]
    shape: Float[np.ndarray, "batch num_nodes num_slots num_shape"]


def _moved(
    batch: pairs.Batch, align: bool, cloud: str, num_types: int
) -> tuple[Array, ...]:
    """Returns the fields of `_Moved` for one pair."""
    mask = batch.slot_mask
    tree = tree_of(cloud, num_types, batch.tokens, batch.chains, batch.numbers)
    make = partial(to_cloud, slot_mask=mask, tree=tree)
    source, target = (make(x) for x in loss.centred_pair(batch, align))
    squares = jnp.mean(jnp.square(target - source), axis=-1)
    roots = roots_of(mask, tree)
    is_position = roots[:, None] & (jnp.arange(mask.shape[1]) == CA_SLOT)
    count = jnp.sum(roots)
    others = mask & ~is_position
    shape = jnp.zeros((*mask.shape, 0)) if tree is None else shape_of(target, tree)
    return squares, is_position, others, (count - 1) / count, shape


def _root_mean(
    found: _Moved, chosen: Bool[np.ndarray, "batch num_nodes num_slots"]
) -> float:
    """Returns the root mean square over some slots, per degree of freedom."""
    counts = chosen.sum(axis=(1, 2), dtype=float)
    if chosen is found.is_position:
        # Centred positions have three degrees of freedom less, as has their noise.
        counts *= found.freedom
    total = np.where(chosen, found.squares, 0.0).sum(dtype=float)
    # The position of a single segment never moves.
    return max(float(np.sqrt(total / max(counts.sum(), 1.0))), build.LEAST_SCALE)


def _by_slot(
    found: _Moved,
    batch: pairs.Batch,
    segments: Segments,
    values: Float[np.ndarray, "batch num_nodes num_slots"],
) -> Float[np.ndarray, "num_tokens num_slots"]:
    """Returns the mean of values over each slot of each residue type.

    A slot that no pair has takes that of its slot in all types, or of all slots.
    """
    num_types = segments.num_types
    shape = num_types + 1, num_slots_of(num_types)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, batch.tokens, np.where(found.others, values, 0.0))
    np.add.at(count, batch.tokens, found.others)
    mean = np.full(shape, total.sum() / max(count.sum(), 1))
    for part in (count.sum(axis=0), count):
        sums = total.sum(axis=0) if part.ndim == 1 else total
        mean = np.where(part > 0, sums / np.maximum(part, 1), mean)
    return mean


def _shape(
    by_slot: Callable[..., np.ndarray],
    shape: Float[np.ndarray, "batch num_nodes num_slots num_shape"],
) -> Float[np.ndarray, "2 num_tokens num_slots num_shape"]:
    """Returns mean and standard deviation of the features of each slot of each type.

    Four decimals are enough: they are kept as text.
    """
    features = np.moveaxis(shape, -1, 0)
    mean = np.stack([by_slot(feature) for feature in features], axis=-1)
    square = np.stack([by_slot(feature**2) for feature in features], axis=-1)
    std = np.sqrt(np.maximum(square - mean**2, 0.0))
    return np.round(np.stack([mean, std]), 4)
