"""Trains EquiJump from a config: `equijump train --config=... --workdir=...`.

Pairs and noise are functions of (seed, step), so a run that was killed and is started
again ends as if it had not been. MDTraj is needed only to pack trajectories that were
not read before.
"""

import glob
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from common.commands import cli
from common.errors import UsageError
from common.runs import config as configs
from common.runs import loop as run
from common.runs import parallel, training
from equijump import build, loss, rules
from equijump.data import frames, pairs, rebalance, synthetic
from equijump.data.residues import CA_SLOT
from equijump.model import ROOM_TEMPERATURE, to_cloud

PACKAGED = Path(__file__).parent / "packaged"
NUM_BLOCKS = 5
"""Blocks of time of a system with one trajectory; the last one validates."""

NUM_MEASURED = 4_000
"""Pairs of a lag from which the spread of the displacement is measured."""


class Segments(NamedTuple):
    """Where pairs come from.

    Attributes:
        training: To learn from.
        validation: Held out.
        lags: Of the pairs.
        num_nodes: Residues of the largest system.
    """

    training: tuple[pairs.Segment, ...]
    validation: tuple[pairs.Segment, ...]
    lags: pairs.Lags
    num_nodes: int


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values that would fail later, or with less to say."""
    configs.check(config, configs.default_of("equijump"), rules.RULES)


def load_segments(config: ml_collections.ConfigDict) -> Segments:
    """Reads the trajectories of a config and divides them.

    The last `held_out` trajectories of each system and temperature validate; where
    there are no more than so many, the last of five blocks of time of each.

    Raises:
        UsageError: There are none, or they are shorter than the largest lag.
    """
    settings = config.data
    lags = pairs.Lags(tuple(map(float, settings.lags)), bool(settings.log_uniform))
    temperatures = settings.temperatures or [ROOM_TEMPERATURE]
    alike: dict[tuple[bytes, float], list[frames.Trajectory]] = {}
    for index, text in enumerate(settings.trajectories):
        temperature = float(temperatures[index % len(temperatures)])
        for one in _read(text, settings):
            key = one.system.tokens.tobytes(), temperature
            alike.setdefault(key, []).append(one)
    training, validation = [], []
    for (_, temperature), members in alike.items():
        longest = max(pairs.in_frames(lags, members[0]))
        for trajectory in members:
            needed = (1 + max(1, config.loss.unroll)) * NUM_BLOCKS * longest
            if len(trajectory.positions) <= needed:
                raise UsageError(
                    f"{trajectory.name}: expected more than {needed} frames "
                    f"for lags up to {max(lags.values):g} ps, found "
                    f"{len(trajectory.positions)}"
                )
        if len(members) > settings.held_out:
            cut = len(members) - settings.held_out
            whole = [pairs.Segment(t, 0, len(t.positions)) for t in members]
            kept, held = whole[:cut], whole[cut:]
        else:
            cut_up = [
                pairs.blocks(t, NUM_BLOCKS, NUM_BLOCKS - 1, longest + 1)
                for t in members
            ]
            kept = [segment for several, _ in cut_up for segment in several]
            held = [segment for _, segment in cut_up]
        training += [s._replace(temperature=temperature) for s in kept]
        validation += [s._replace(temperature=temperature) for s in held]
    if settings.num_clusters:
        middle = float(np.sqrt(lags.values[0] * lags.values[-1]))
        training = rebalance.rebalance(training, middle, settings.num_clusters)
    num_nodes = max(len(s.trajectory.system.tokens) for s in training)
    return Segments(tuple(training), tuple(validation), lags, num_nodes)


def _read(
    text: str, settings: ml_collections.ConfigDict
) -> Iterator[frames.Trajectory]:
    """Yields the trajectories of a name or of a pattern of files."""
    if text == "ou":
        yield from synthetic.ornstein_uhlenbeck()
        return
    for path in _paths(text):
        topology = _topology(path, settings)
        yield from frames.read_trajectories([path], topology, settings.spacing)


def _paths(text: str) -> list[Path]:
    is_name = Path(text).name == text
    packaged = sorted(PACKAGED.glob(f"{text}_*.xtc")) if is_name else []
    found = packaged or sorted(map(Path, glob.glob(text)))
    if not found:
        raise UsageError(
            f"config.data.trajectories: expected files, found none at {text}"
        )
    return found


def _topology(path: Path, settings: ml_collections.ConfigDict) -> Path:
    """Returns the file given, or the PDB beside the trajectory, or of its replicas."""
    if settings.topology:
        return Path(settings.topology)
    stem, _, number = path.stem.rpartition("_")
    of_all = path.with_name(f"{stem}.pdb")
    own = path.with_suffix(".pdb")
    return of_all if number.isdigit() and not own.is_file() else own


def measure(
    segments: Segments, align: bool, ensemble: bool = False
) -> build.Statistics:
    """Measures the displacement over the lags of the data, on training pairs.

    Args:
        segments: Whose training pairs are measured.
        align: Whether targets are superposed.
        ensemble: Whether that from a hidden source is measured too.
    """
    values = segments.lags.values
    if segments.lags.is_range:
        spacing = max(s.trajectory.spacing for s in segments.training)
        counts = np.geomspace(values[0] / spacing, values[-1] / spacing, 10)
        values = tuple(spacing * np.unique(np.round(counts)))

    @jax.jit
    @jax.vmap
    def squares(batch: pairs.Batch) -> tuple[Any, Any]:
        mask = batch.slot_mask
        source, target = loss.centred_pair(batch, align)
        moved = jnp.square(to_cloud(target, mask) - to_cloud(source, mask))
        vectors = jnp.where(jnp.arange(mask.shape[1])[:, None] == CA_SLOT, 0.0, moved)
        counts = jnp.sum(mask[:, CA_SLOT]), jnp.sum(mask)
        # Centred positions have three degrees of freedom less, as has their noise.
        positions = jnp.sum(moved[:, CA_SLOT]) / (3 * jnp.maximum(counts[0] - 1, 1))
        return positions, jnp.sum(vectors) / (3 * (counts[1] - counts[0]))

    found = []
    draw = lambda lag: pairs.batch_at(
        segments.training, pairs.Lags((float(lag),), is_range=False), NUM_MEASURED,
        segments.num_nodes, seed=0, step=0,
    )  # fmt: skip
    batches = [draw(lag) for lag in values]
    if ensemble:
        batches.append(pairs.hide_sources(draw(values[0]), 1.0, seed=0, step=0))
        values = (*values, pairs.ENSEMBLE_LAG)
    for batch in batches:
        found.append([float(np.sqrt(np.mean(x))) for x in squares(batch)])
    positions, vectors = np.array(found).T
    return build.Statistics(np.array(values, float), positions, vectors)


def make_loss(
    config: ml_collections.ConfigDict, statistics: build.Statistics
) -> training.LossFn:
    """Returns `(params, batch, keys) -> (loss, metrics)`, means over the pairs."""
    model = build.make_model(config)
    transport = build.TRANSPORTS[config.transport.kind]
    settings = loss.Settings(
        config.transport.noise_factor,
        config.data.source_noise,
        config.data.align,
        num_steps=config.sample.num_steps,
        free_frames=build.has_free_frames(config),
        **config.loss,
    )

    def loss_fn(params: Any, batch: pairs.Batch, keys: Any) -> tuple[Any, Any]:
        one = partial(
            loss.pair_loss, model.bind(params), transport, statistics, settings
        )
        error = jnp.mean(jax.vmap(one)(batch, keys))
        return error, {"error": error}

    return loss_fn


def make_validate(
    config: ml_collections.ConfigDict,
    segments: Segments,
    loss_fn: training.LossFn,
) -> Callable[[training.Params], dict[str, float]]:
    """Returns `params -> {"validation_error": ...}`: the same pairs at every call."""
    count = config.train.num_validation
    batch = pairs.batch_at(
        segments.validation, segments.lags, count, segments.num_nodes, seed=0, step=0,
        num_before=config.loss.unroll,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), count)
    evaluate = jax.jit(lambda params: loss_fn(params, batch, keys)[0])
    return lambda params: {"validation_error": float(evaluate(params))}


def train(config: ml_collections.ConfigDict, workdir: Path) -> training.TrainState:
    """Trains to `config.train.num_steps`, going on with what `workdir` holds.

    Args:
        config: See `configs/equijump/ala2.py`.
        workdir: Receives `checkpoints/`, `config.json` and `metrics.jsonl`.

    Raises:
        UsageError: The config, the data or what `workdir` holds cannot be used.
        RunError: The loss became non-finite.
    """
    settings = config.train
    check_config(config)
    run.make_folder(workdir)
    segments = load_segments(config)
    share = config.data.ensemble_share
    statistics = measure(
        segments, config.data.align, share > 0.0 or build.has_free_frames(config)
    )

    def batch_at(step: int) -> pairs.Batch:
        batch = pairs.batch_at(
            segments.training, segments.lags, settings.batch_size, segments.num_nodes,
            config.seed, step, num_before=config.loss.unroll,
        )  # fmt: skip
        return pairs.hide_sources(batch, share, config.seed, step) if share else batch

    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    mesh = (
        parallel.make_mesh(settings.num_devices) if settings.num_devices > 1 else None
    )
    loss_fn = make_loss(config, statistics)
    used = {s.trajectory.checksum for s in segments.training + segments.validation}
    meta = {
        "data_checksum": hashlib.sha256("".join(sorted(used)).encode()).hexdigest(),
        "statistics": {k: v.tolist() for k, v in statistics._asdict().items()},
        "num_nodes": segments.num_nodes,
    }
    num_frames = sum(s.stop - s.start for s in segments.training)
    parts = run.Parts(
        loss_fn=loss_fn,
        batch_at=batch_at,
        validate=make_validate(config, segments, loss_fn),
        average=run.average,
        loss_name="error",
        unit="of unit variance",
        steps_per_epoch=-(-num_frames // settings.batch_size),
        fixed=("config.model.", "config.transport.kind", "config.data.lags"),
    )  # fmt: skip
    params = build.init_params(config, init_key)
    return run.train(config, workdir, params, parts, meta, train_key, mesh)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump train`."""
    flags = cli.training_flags("equijump train", "Trains EquiJump from a config.", argv)
    check_config(flags.config)
    if flags.config.train.num_devices > 1:
        parallel.set_num_cpu_devices(flags.config.train.num_devices)
    cli.announce_device()
    train(flags.config, Path(flags.workdir))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("equijump train", main))
