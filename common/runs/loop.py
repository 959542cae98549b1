"""The loop of a training run: resume, step, log, validate, save, stop on a signal.

What a model trains on and how it is judged come as `Parts`; what is here is the same
for all. Batches and keys are functions of the step, so that a run that was killed and
is started again ends as if it had not been.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from common.commands import cli, hosts
from common.errors import UsageError
from common.runs import checkpoints, curves, loggers, metrics, parallel, training

Write = Callable[[int, Mapping[str, SupportsFloat]], None]
"""Takes the step and the numbers of a record."""


class Parts(NamedTuple):
    """What a run needs of its model and its data.

    Attributes:
        loss_fn: `(params, batch, keys) -> (loss, metrics)`, see
            `common.runs.training.make_train_step`.
        batch_at: some rows of the batch of a step, from 0; of several processes each
            asks for its own.
        validate: metrics of averaged parameters, `validation_<loss_name>` among them.
        average: metrics of several steps to one record, `loss_name` among them.
        loss_name: name of the number that is shown, and that ranks checkpoints.
        unit: unit of that number.
        steps_per_epoch: number of steps, for the log.
        fixed: names of config values, or their beginnings, that a resumed run must have
            begun with.
    """

    loss_fn: training.LossFn
    batch_at: Callable[[int, Int[np.ndarray, " num_rows"]], Any]
    validate: Callable[[training.Params], dict[str, float]]
    average: Callable[[Sequence[Any]], dict[str, float]]
    loss_name: str
    unit: str
    steps_per_epoch: int
    fixed: tuple[str, ...]


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    params: training.Params,
    parts: Parts,
    meta: dict[str, Any],
    train_key: Key[Array, ""],
    mesh: Mesh | None,
) -> training.TrainState:
    """Trains to `config.train.num_steps`, going on with what `workdir` holds.

    >>> import tempfile
    >>> settings = {
    ...     "optimizer": "adam", "adam_b2": 0.99, "weight_decay": 0.0, "clip_norm": 0.0,
    ...     "learning_rate": 0.1, "warmup_steps": 0, "final_factor": 1.0,
    ...     "num_steps": 2, "batch_size": 4, "num_microbatches": 1, "ema_decay": 0.5,
    ...     "log_every": 1, "eval_every": 2, "checkpoint_every": 2, "loggers": (),
    ...     "shard_parameters": False,
    ... }
    >>> config = ml_collections.ConfigDict({"train": settings})
    >>> def loss_fn(params, batch, keys):
    ...     loss = ((params["bias"] - batch) ** 2).mean()
    ...     return loss, {"error": loss}
    >>> parts = Parts(
    ...     loss_fn, batch_at=lambda step, rows: np.ones(4, np.float32)[rows],
    ...     average=average,
    ...     validate=lambda params: {"validation_error": float(params["bias"][0])},
    ...     loss_name="error", unit="units", steps_per_epoch=1, fixed=(),
    ... )
    >>> params, key = {"bias": jax.numpy.zeros(1)}, jax.random.key(0)
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +ELLIPSIS
    ...     state = train(config, Path(folder), params, parts, {}, key, mesh=None)
    training: 0/2 steps
    training: 2/2 steps...units
    >>> int(state.step), round(float(state.params["bias"][0]), 3)
    (2, 0.2)

    Args:
        config: config of the run, of which `train` is read here.
        workdir: folder of `checkpoints/`, `config.json` and `metrics.jsonl`.
        params: parameters at the start of a fresh run.
        parts: model and data of the run.
        meta: JSON values kept in checkpoints; a run goes on only with the same
            `*_checksum`.
        train_key: key of the whole run.
        mesh: devices that share each batch, if more than one.

    Returns:
        The last state; of an earlier step if a signal asked to stop.

    Raises:
        UsageError: What `workdir` holds is of another run.
        RunError: The loss became non-finite.
    """
    settings, is_first = config.train, jax.process_index() == 0
    shards = settings.shard_parameters and mesh is not None
    optimizer = training.make_optimizer(settings, shards)
    is_short = settings.num_steps <= training.SHORT
    train_step = training.make_train_step(
        parts.loss_fn, optimizer, settings.ema_decay, mesh, settings.num_microbatches,
        is_short, shards,
    )  # fmt: skip
    place = parallel.shard if shards else parallel.replicate
    state = place(training.make_state(params, optimizer), mesh)
    rows = parallel.own_rows(settings.batch_size)

    # Virtual devices share one pool of threads: a step that starts while another waits
    # for its all-reduce can take the thread that the other needs, and neither goes on.
    shares_cpu = mesh is not None and jax.default_backend() == "cpu"

    with (
        _kept_folder(workdir, is_first),
        checkpoints.make_manager(workdir) as manager,
        hosts.ending_together(),
        training.StopOnSignal() as stop,
    ):
        state, elapsed = _resume(manager, workdir, state, config, meta, parts.fixed)
        if is_first:
            _write_config(workdir, config)
        first, last = int(state.step) + 1, int(settings.num_steps)
        clock = training.start_clock(elapsed)
        _tell_steps(first, last, workdir, parts.steps_per_epoch)
        with (
            _records(config, workdir, clock, first - 1) as write,
            cli.progress(
                max(last, first - 1), "training", "steps", completed=first - 1
            ) as advance,
        ):
            step, sums = first - 1, []
            for step in range(first, last + 1):
                batch = parallel.split_batch(parts.batch_at(step - 1, rows), mesh)
                state, totals = train_step(state, batch, train_key)
                if shares_cpu:
                    jax.block_until_ready(totals)
                sums.append(totals)
                ends = stop.after(step) or step == last
                note = ""
                if ends or step % settings.log_every == 0:
                    training.check_finite(state, checkpoints.latest_checkpoint(manager))
                    record = parts.average(sums)
                    sums = []
                    write(step, record)
                    note = f"{record[parts.loss_name]:.3f} {parts.unit}"
                advance(1, note)
                evaluates = step == last or step % settings.eval_every == 0
                if evaluates or ends or step % settings.checkpoint_every == 0:
                    loss = None
                    if evaluates:
                        loss = _validate(parts, state, mesh, write)
                        if is_first:
                            _draw(parts, step, workdir)
                    now = meta | {"elapsed": list(clock())}
                    checkpoints.save(manager, state, config, now, loss)
                if ends:
                    break
            if first <= step < last:
                logging.info("stopped after step %d; run again, it goes on", step)
    return state


@contextlib.contextmanager
def _kept_folder(workdir: Path, is_first: bool) -> Iterator[None]:
    """Makes the folder and keeps it to this run; its first process does."""
    with contextlib.ExitStack() as stack:
        if is_first:
            stack.enter_context(cli.made_folder(workdir, "--workdir"))
            stack.enter_context(cli.locked(workdir))
        yield


@contextlib.contextmanager
def _records(
    config: ml_collections.ConfigDict,
    workdir: Path,
    clock: Callable[[], training.Elapsed],
    resume_step: int,
) -> Iterator[Write]:
    """Yields what takes a record; of several processes, the first one writes it."""
    if jax.process_index() > 0:
        yield lambda step, record: None
        return
    with (
        loggers.opened(config, workdir, resume_step) as others,
        metrics.MetricsWriter(workdir, clock, resume_step, others) as writer,
    ):
        yield writer.write


def _tell_steps(first: int, last: int, workdir: Path, per_epoch: int) -> None:
    if first <= last:
        logging.info(
            "steps %d to %d of %s, %d an epoch", first, last, workdir, per_epoch
        )
        return
    logging.warning(
        "%s: all %d steps are done, config.train.num_steps asks for %d; raise it to go "
        "on", workdir, first - 1, last,
    )  # fmt: skip


def _resume(
    manager: Any,
    workdir: Path,
    state: training.TrainState,
    config: ml_collections.ConfigDict,
    meta: dict[str, Any],
    fixed: tuple[str, ...],
) -> tuple[training.TrainState, training.Elapsed]:
    """Returns the state and the times of the latest checkpoint, fresh ones if none is.

    What was changed since goes to `meta`.
    """
    if checkpoints.latest_checkpoint(manager) is None:
        return state, training.NOTHING_ELAPSED
    state, former, saved = checkpoints.restore(manager, state)
    _check_same_data(workdir, saved, meta)
    _check_same_model(workdir, former, config, fixed)
    meta["changes"] = _note_changes(saved, int(state.step), former, config)
    return state, training.Elapsed(*saved["elapsed"])


def _validate(
    parts: Parts,
    state: training.TrainState,
    mesh: Mesh | None,
    write: Write,
) -> float:
    """Writes the metrics of averaged parameters; returns the validation loss."""
    step = int(state.step)
    record = parts.validate(parallel.whole(state.ema_params, mesh))
    write(step, record)
    logging.info("step %d: validation %s", step, describe(record))
    return record[f"validation_{parts.loss_name}"]


def _draw(parts: Parts, step: int, workdir: Path) -> None:
    """Draws the curves, and tells of a validation loss that rises."""
    curves.draw(workdir, parts.loss_name, parts.unit)
    told = metrics.rising(metrics.read_metrics(workdir), parts.loss_name)
    if told is not None:
        logging.warning("step %d: %s", step, told)


def _check_same_data(
    workdir: Path, saved: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Raises `UsageError` if the run that is resumed saw other data.

    Each checksum of `meta` is compared, as far as the run was begun with it.
    """
    for name in [name for name in meta if name.endswith("_checksum")]:
        expected, found = saved.get(name, meta[name]), meta[name]
        if found != expected:
            what = f"{name.removesuffix('_checksum')} data".replace("data data", "data")
            raise UsageError(
                f"{workdir}: expected the {what} that this run was begun with "
                f"(checksum {expected[:12]}), found other data ({found[:12]}); another "
                "--workdir begins a new run"
            )


def _check_same_model(
    workdir: Path,
    former: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    fixed: tuple[str, ...],
) -> None:
    """Raises `UsageError` if the run that is resumed had another network or cut."""
    for name, (old, new) in checkpoints.changed_values(former, config).items():
        if name.startswith(fixed):
            raise UsageError(
                f"{workdir}: expected {name} = {old}, with which this run was begun, "
                f"found {new}; another --workdir begins a new run"
            )


def _note_changes(
    saved: dict[str, Any],
    step: int,
    former: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
) -> list[dict[str, Any]]:
    """Returns what was changed between the starts of a run, for its checkpoints."""
    changes = list(saved.get("changes", []))
    changed = checkpoints.changed_values(former, config)
    for name, (old, new) in changed.items():
        logging.warning("%s: was %s up to step %d, now %s", name, old, step, new)
    return [*changes, {"step": step, **changed}] if changed else changes


def _write_config(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Writes the config where a person finds it; checkpoints have their own copy."""
    with cli.atomic_path(workdir / "config.json") as path:
        path.write_text(json.dumps(config.to_dict(), indent=1) + "\n", "utf-8")


def average(records: Sequence[training.Metrics]) -> dict[str, float]:
    """Averages the metrics of several steps: for `Parts.average`.

    >>> average([{"loss": jax.numpy.float32(loss)} for loss in (1.0, 3.0)])
    {'loss': 2.0}
    """
    records = jax.device_get(list(records))
    return {name: float(np.mean([r[name] for r in records])) for name in records[0]}


def describe(record: dict[str, float]) -> str:
    """Returns one line of metrics.

    >>> describe({"validation_nll": -3.5, "validation_focus": 0.25})
    'nll -3.500, focus 0.250'
    """
    return ", ".join(
        f"{name.removeprefix('validation_')} {value:.3f}"
        for name, value in record.items()
    )
