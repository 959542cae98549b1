"""How far vectors of clouds move in a lag: the scales of a run, from training pairs."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from equijump import build, loss
from equijump.cloud import roots_of, to_cloud, tree_of
from equijump.data import pairs
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

    def spread(batch: pairs.Batch) -> tuple[Any, Any]:
        found = _Moved(*map(np.asarray, moved(batch)))
        if cloud == "ca":
            return _root_mean(found, found.is_position), _root_mean(found, found.others)
        return _root_mean(found, found.is_position), _by_slot(found, batch, segments)

    lags = _measured_lags(segments)
    found = [spread(_draw(segments, lag)) for lag in lags]
    positions, others = (np.array(column) for column in zip(*found, strict=True))
    statistics = build.Statistics(np.array(lags, float), positions, others)
    if not ensemble:
        return statistics
    hidden = pairs.hide_sources(_draw(segments, lags[0]), 1.0, seed=0, step=0)
    position, others = spread(hidden)
    if cloud == "ca":
        return statistics._replace(ensemble=np.array([position, others]))
    ensemble = np.array([position, np.nan])
    return statistics._replace(ensemble=ensemble, ensemble_vectors=others)


def _measured_lags(segments: Segments) -> list[float]:
    """Returns the lags of a list, or ten over a range."""
    values = sorted(set(segments.lags.values))
    if not segments.lags.is_range:
        return values
    spacing = max(s.trajectory.spacing for s in segments.training)
    counts = np.geomspace(values[0] / spacing, values[-1] / spacing, 10)
    return (spacing * np.unique(np.round(counts))).tolist()


def _draw(segments: Segments, lag: float) -> pairs.Batch:
    lags = pairs.Lags((lag,), is_range=False)
    return pairs.batch_at(
        segments.training, lags, NUM_MEASURED, segments.num_nodes, seed=0, step=0
    )


class _Moved(NamedTuple):
    """Squares of the displacements of many pairs, Å^2, and which of them are what.

    Attributes:
        squares: mean square over the axes.
        is_position: true for slots that hold a position.
        others: true for slots that hold another vector.
        freedom: share of the degrees of freedom that centred positions keep.
    """

    squares: Float[np.ndarray, "batch num_nodes num_slots"]
    is_position: Bool[np.ndarray, "batch num_nodes num_slots"]
    others: Bool[np.ndarray, "batch num_nodes num_slots"]
    freedom: Float[np.ndarray, " batch"]


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
    return squares, is_position, mask & ~is_position, (count - 1) / count


def _root_mean(
    found: _Moved, chosen: Bool[np.ndarray, "batch num_nodes num_slots"]
) -> float:
    """Returns the root mean square over some slots, per degree of freedom."""
    counts = chosen.sum(axis=(1, 2), dtype=float)
    if chosen is found.is_position:
        # Centred positions have three degrees of freedom less, as has their noise.
        counts *= found.freedom
    total = np.where(chosen, found.squares, 0.0).sum(dtype=float)
    return float(np.sqrt(total / max(counts.sum(), 1.0)))


def _by_slot(
    found: _Moved, batch: pairs.Batch, segments: Segments
) -> Float[np.ndarray, "num_tokens num_slots"]:
    """Returns the root mean square of each slot of each residue type.

    A slot that no pair has takes that of its slot in all types, or of all slots.
    """
    num_types = segments.num_types
    shape = num_types + 1, num_slots_of(num_types)
    total, count = np.zeros(shape), np.zeros(shape)
    kept = np.where(found.others, found.squares, 0.0)
    np.add.at(total, batch.tokens, kept)
    np.add.at(count, batch.tokens, found.others)
    over = lambda axes: np.where(
        count.sum(axes, keepdims=True) > 0,
        total.sum(axes, keepdims=True) / np.maximum(count.sum(axes, keepdims=True), 1),
        0.0,
    )
    of_slot, of_all = over((0,)), over((0, 1))
    usual = np.where(of_slot > 0.0, of_slot, of_all)
    return np.sqrt(np.where(count > 0, total / np.maximum(count, 1), usual))
