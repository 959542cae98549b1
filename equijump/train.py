"""Trains EquiJump from a config: `equijump train --config=... --workdir=...`.

Pairs and noise are functions of (seed, step), so a run that was killed and is started
again ends as if it had not been. MDTraj is needed only to pack trajectories that were
not read before.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from common.commands import cli
from common.commands import training as command
from common.programs import compiler_options
from common.runs import config as configs
from common.runs import loop as run
from common.runs import parallel, training
from common.runs import workdir as run_folder
from equijump import build, loss, rules
from equijump.data import mixture, pairs, splits
from equijump.data.splits import Segments
from equijump.measure import measure

VALIDATION_BATCH = 256
"""Pairs that are validated at once."""

FIXED = (
    "config.model.", "config.transport.kind", "config.transport.noise_factor",
    "config.data.lags", "config.data.held_out", "config.data.align",
    "config.data.split", "config.data.identity",
)  # fmt: skip
"""Config values with which a run must go on, or their beginnings."""


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values that would fail later, or with less to say."""
    configs.check(config, configs.default_of("equijump"), rules.RULES)


def make_errors(
    config: ml_collections.ConfigDict, statistics: build.Statistics
) -> Callable[..., Float[Array, " batch"]]:
    """Returns `(params, batch, keys) -> errors`, one for each pair."""
    model = build.make_model(config)
    settings = loss.Settings(
        build.TRANSPORTS[config.transport.kind],
        statistics,
        config.transport.noise_factor,
        config.data.source_noise,
        config.data.align,
        num_steps=config.sample.num_steps,
        random_frames=build.has_random_frames(config),
        **config.loss,
    )

    def errors(params: Any, batch: pairs.Batch, keys: Any) -> Float[Array, " batch"]:
        error = partial(loss.pair_loss, model.bind(params), settings)
        return jax.vmap(error)(batch, keys)

    return errors


def make_loss(
    config: ml_collections.ConfigDict, statistics: build.Statistics
) -> training.LossFn:
    """Returns `(params, batch, keys) -> (loss, metrics)`, means over the pairs."""
    errors = make_errors(config, statistics)

    def loss_fn(params: Any, batch: pairs.Batch, keys: Any) -> tuple[Any, Any]:
        error = jnp.mean(errors(params, batch, keys))
        return error, {"error": error}

    return loss_fn


def make_validate(
    config: ml_collections.ConfigDict,
    segments: Segments,
    errors: Callable[..., Float[Array, " batch"]],
    mesh: Mesh | None = None,
) -> Callable[[training.Params], dict[str, float]]:
    """Returns `params -> {"validation_error": ...}`: the same pairs at every call.

    Args:
        config: config of the run.
        segments: data of the run.
        errors: errors of the pairs of a batch, see `make_errors`.
        mesh: devices that share each batch, if more than one.
    """
    count = config.train.num_validation
    num_devices = 1 if mesh is None else mesh.shape["data"]
    keys = jax.random.split(jax.random.key(0), count)

    @partial(jax.jit, compiler_options=compiler_options())
    def total(params: Any, batch: pairs.Batch, keys: Any, counts: Any) -> Any:
        return jnp.sum(jnp.where(counts, errors(params, batch, keys), 0.0))

    plan = pairs.make_plan(segments.validation, segments.lags, config.loss.unroll)

    def part(params: training.Params, chosen: _Part) -> float:
        size, own = chosen.num_nodes, parallel.own_rows(len(chosen.rows))
        rows = chosen.rows[own]
        batch = pairs.draw(plan, count, size, seed=0, step=0, rows=rows)
        given = (batch, keys[rows], chosen.counts[own])
        return float(total(params, *parallel.split_batch(given, mesh)))

    buckets = mixture.make_buckets(segments.training)
    parts = _validation_parts(plan, buckets, count, num_devices)
    mean = lambda params: sum(part(params, chosen) for chosen in parts) / count
    return lambda params: {"validation_error": mean(params)}


class _Part(NamedTuple):
    """Pairs of validation of about one size, judged at once.

    Attributes:
        num_nodes: residues that they are padded to.
        rows: numbers of the pairs.
        counts: false for pairs that only fill up the batch.
    """

    num_nodes: int
    rows: Int[np.ndarray, " batch"]
    counts: Bool[np.ndarray, " batch"]


def _validation_parts(
    plan: pairs.Plan, buckets: Sequence[mixture.Bucket], count: int, num_devices: int
) -> list[_Part]:
    """Divides the pairs of validation by size, as training does, and into batches.

    Those that are larger than any of training are a size of their own.
    """
    sizes = pairs.sizes_at(plan, count, seed=0, step=0)
    bounds = sorted({bucket.num_nodes for bucket in buckets})
    if sizes.max() > bounds[-1]:
        bounds.append(int(sizes.max()))
    places = np.searchsorted(bounds, sizes)
    parts = []
    for place in np.unique(places):
        members = np.flatnonzero(places == place)
        at_once = min(VALIDATION_BATCH, len(members))
        at_once = num_devices * -(-at_once // num_devices)
        for first in range(0, len(members), at_once):
            numbers = first + np.arange(at_once)
            rows, counts = members[numbers % len(members)], numbers < len(members)
            parts.append(_Part(bounds[place], rows, counts))
    return parts


def train(config: ml_collections.ConfigDict, workdir: Path) -> training.TrainState:
    """Trains to `config.train.num_steps`, going on with what `workdir` holds.

    Args:
        config: config as `configs/equijump/ala2.py`.
        workdir: folder of `checkpoints/`, `config.json` and `metrics.jsonl`.

    Raises:
        UsageError: The config, the data or what `workdir` holds cannot be used.
        RunError: The loss became non-finite.
    """
    check_config(config)
    run_folder.check(workdir)
    segments = splits.load_segments(config)
    config = config.copy_and_resolve_references()
    config.model.residue_types = segments.num_types
    ensemble = config.data.ensemble_share > 0.0 or build.has_random_frames(config)
    statistics = measure(segments, config.data.align, ensemble, config.model.cloud)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    mesh = parallel.mesh_of_run(config.train.num_devices)
    meta = splits.describe(segments) | {
        "statistics": build.write_statistics(statistics),
        "num_nodes": segments.num_nodes,
    }
    parts = _make_parts(config, segments, statistics, mesh)
    params = build.init_params(config, init_key)
    return run.train(config, workdir, params, parts, meta, train_key, mesh)


def _make_parts(
    config: ml_collections.ConfigDict,
    segments: Segments,
    statistics: build.Statistics,
    mesh: Mesh | None,
) -> run.Parts:
    size, share = config.train.batch_size, config.data.ensemble_share
    num_frames = sum(s.stop - s.start for s in segments.training)
    plan = pairs.make_plan(segments.training, segments.lags, config.loss.unroll)
    buckets = mixture.make_buckets(plan.segments, plan.shares)

    def batch_at(
        step: int, rows: Int[np.ndarray, " num_rows"] | None = None
    ) -> pairs.Batch:
        bucket = mixture.bucket_at(buckets, config.seed, step)
        given = plan, size, bucket.num_nodes, config.seed, step
        batch = pairs.draw(*given, rows, bucket.shares)
        if share:
            pairs.hide_sources(batch, share, config.seed, step, rows)
        return batch

    return run.Parts(
        loss_fn=make_loss(config, statistics),
        batch_at=batch_at,
        validate=make_validate(config, segments, make_errors(config, statistics), mesh),
        average=run.average,
        loss_name="error",
        unit="of unit variance",
        steps_per_epoch=-(-num_frames // size),
        fixed=FIXED,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump train`."""
    about = "Trains EquiJump from a config."
    return command.run("equijump train", about, check_config, train, argv)


if __name__ == "__main__":
    sys.exit(cli.run("equijump train", main))
