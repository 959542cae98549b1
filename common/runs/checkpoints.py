"""The one door to Orbax, and the packaged form of trained weights.

A run keeps its checkpoints in `workdir/checkpoints`; packaged weights are a directory
with `weights.npz` and `config.json`. Nothing is ever unpickled. Orbax is imported where
it is used: packaged weights load without it.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Array, Bool

from common import __version__
from common.commands import cli, reading
from common.errors import RunError, UsageError
from common.runs import config as configs
from common.runs import old_names, parallel
from common.runs.training import Params, TrainState, check_finite, named_leaves

FORMAT_VERSION = 1
_EMA_PREFIX = "ema_params/"
_OVERHEAD = 500_000
"""Bytes of a checkpoint beside its arrays, which Orbax holds twice while it writes."""

_GO_ON = "remove this folder to go on from an earlier one"


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: TrainState
    config: ml_collections.ConfigDict
    meta: dict[str, Any]  # As given to `save`, with `package_version` and `step`.


class Stored(NamedTuple):
    """Trained weights in today's names, and the checksums of what is stored.

    Attributes:
        config: config of the run.
        params: averaged parameters.
        meta: as given to `save`.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
    """

    config: ml_collections.ConfigDict
    params: Params
    meta: dict[str, Any]
    checksum: str
    config_checksum: str


@contextlib.contextmanager
def make_manager(workdir: Path, writable: bool = True) -> Iterator[Any]:
    """Opens `workdir/checkpoints` as an Orbax `CheckpointManager`.

    It writes in the background and keeps the latest two checkpoints and the one of
    least validation loss. Leaving the block waits for the last write.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with make_manager(Path(folder)) as manager:
    ...         print(manager.all_steps())
    []

    Args:
        workdir: folder of the run.
        writable: true to make the folder if need be, and to clear it of what a killed
            run left half-written; false for a look at a run that may be under way.

    Raises:
        UsageError: The losses of a checkpoint, which Orbax reads of all, are damaged.
        RunError: A checkpoint cannot be written.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

    policy = policies.AnyPreservationPolicy(
        [
            policies.LatestN(2),
            policies.BestN(
                get_metric_fn=_validation_loss,
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
    )
    # The policy alone ranks; without `best_fn` the losses would not be written, and a
    # resumed run would not know its best checkpoint.
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_validation_loss,
        best_mode="min",
        create=writable,
        cleanup_tmp_directories=writable,
    )
    folder = _directory(workdir)
    _check_losses(folder)
    with reading.refusing(folder, "checkpoints of a run"):
        manager = ocp.CheckpointManager(folder.resolve(), options=options)
    with telling_of_writes(workdir), _without_its_log():
        try:
            yield manager
        finally:
            manager.close()


def _check_losses(folder: Path) -> None:
    """Raises `UsageError` for a checkpoint whose validation loss cannot be read."""
    for path in sorted(folder.glob("*/metrics/metrics")):
        step = path.parents[1]
        with reading.refusing(step, "a complete checkpoint", _GO_ON):
            float(_validation_loss(reading.parse_json(path.read_bytes())))


@contextlib.contextmanager
def _without_its_log() -> Iterator[None]:
    """Keeps Orbax's log back: what fails there is raised here, and told in one line."""
    handler = logging.get_absl_handler()
    is_not_orbax = lambda record: "/orbax/" not in record.pathname
    handler.addFilter(is_not_orbax)
    try:
        yield
    finally:
        handler.removeFilter(is_not_orbax)


@contextlib.contextmanager
def telling_of_writes(workdir: Path) -> Iterator[None]:
    """Turns a write that fails, as on a full disk, into one line; a `with` block.

    >>> with telling_of_writes(Path("mine")):  # doctest: +ELLIPSIS
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    common.errors.RunError: mine: cannot be written (No space left on device); ...

    Args:
        workdir: folder of the run.

    Raises:
        RunError: The block has raised an error of the operating system, or Orbax's own
            for one in the background.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        found = _failed_write(error)
        if found is None:
            raise
        raise RunError(
            f"{workdir}: cannot be written ({found}); {_what_is_left(workdir)}"
        ) from error


def _failed_write(error: BaseException) -> str | None:
    """Returns why a write failed, None for an error of another kind."""
    causes = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
    return next((cause for cause in causes if cause in str(error)), None)


def _what_is_left(workdir: Path) -> str:
    steps = [int(p.name) for p in _directory(workdir).glob("*") if p.name.isdigit()]
    if not steps:
        return "there is no checkpoint yet: make room and run again"
    return f"step {max(steps)} is complete: make room and run again, it goes on"


def has_checkpoint(workdir: Path) -> bool:
    """Returns whether a run has left a complete checkpoint, without opening it.

    >>> has_checkpoint(Path("workdir/none"))
    False
    """
    return any(path.name.isdigit() for path in _directory(workdir).glob("*"))


def latest_checkpoint(manager: Any) -> Path | None:
    """Returns the directory of the latest complete checkpoint, if there is one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with make_manager(Path(folder)) as manager:
    ...         print(latest_checkpoint(manager))
    None
    """
    manager.wait_until_finished()
    step = manager.latest_step()
    return None if step is None else Path(manager.directory) / str(step)


def save(
    manager: Any,
    state: TrainState,
    config: ml_collections.ConfigDict | Mapping[str, Any],
    meta: Mapping[str, Any],
    validation_loss: float | None = None,
) -> None:
    """Starts writing a checkpoint of the state; it appears once complete.

    Raises `RunError`, and writes nothing, if the state is not finite. A step that has
    its checkpoint already keeps that one.

    >>> import optax, tempfile
    >>> from common.runs.training import make_state
    >>> state = make_state({"bias": jnp.zeros(2)}, optax.identity())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with make_manager(Path(folder)) as manager:
    ...         save(manager, state, {"seed": 0}, {"species": ["H"]})
    ...         print(latest_checkpoint(manager).name)
    0

    Args:
        manager: manager of the run, see `make_manager`.
        state: state of the run; it may be donated as soon as this returns.
        config: config of the run.
        meta: JSON values: species table, statistics and checksum of the data, times.
        validation_loss: rank of the checkpoint; without it, only recency keeps it.
    """
    import orbax.checkpoint as ocp

    check_finite(_with_whole_check(state), latest_checkpoint(manager))
    step = int(state.step)
    if step in manager.all_steps():
        return
    record = _record(config, meta) | {"validation_loss": validation_loss, "step": step}
    arrays = {name: _kept(leaf) for name, leaf in named_leaves(state)}
    if jax.process_index() == 0:
        num_bytes = sum(leaf.nbytes for leaf in arrays.values())
        _check_room(Path(manager.directory), num_bytes)
    rank = math.inf if validation_loss is None else validation_loss
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
    )
    manager.save(step, args=items, metrics={"validation_loss": rank}, force=True)


def _kept(leaf: jax.Array) -> jax.Array | np.ndarray:
    """Returns a copy of an array; of one in parts on several hosts, the array itself.

    Each of them writes its parts then.
    """
    is_here = leaf.is_fully_addressable or leaf.is_fully_replicated
    return np.array(leaf) if is_here else jnp.copy(leaf)


def _check_room(folder: Path, num_bytes: int) -> None:
    """Raises `RunError` where a checkpoint of so many bytes will not fit.

    Orbax, which writes in the background, would leave a part of it and many lines.
    """
    needed, free = 2 * num_bytes + _OVERHEAD, shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder.parent}: expected {needed / 1e6:.1f} MB of room "
            f"for a checkpoint, found {free / 1e6:.1f} MB; "
            f"{_what_is_left(folder.parent)}"
        )


def restore(manager: Any, template: TrainState, step: int | None = None) -> Restored:
    """Reads a checkpoint, the latest unless `step` names another.

    >>> import optax, tempfile
    >>> from common.runs.training import make_state
    >>> state = make_state({"bias": jnp.zeros(2)}, optax.identity())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with make_manager(Path(folder)) as manager:
    ...         save(manager, state, {"seed": 7}, {})
    ...         manager.wait_until_finished()
    ...         print(restore(manager, state).config.seed)
    7

    Args:
        manager: manager of the run, see `make_manager`.
        template: state of the same structure. Its arrays are placed where the
            restored ones shall be, on any number of devices.
        step: step of the checkpoint.
    """
    path, arrays, record = _read(manager, step)
    with reading.refusing(path, "a config of this package", _GO_ON):
        config = _config(record, str(path), resumes=True)
        arrays = old_names.update_paths(configs.kind_of(config), arrays)

    def place(name: str, leaf: Any) -> jax.Array:
        value = arrays.get(name)
        found = None if value is None else (value.shape, value.dtype)
        if found != (leaf.shape, leaf.dtype):
            raise UsageError(
                f"{path}: expected {name} of shape {leaf.shape} and type {leaf.dtype}, "
                f"as the config says, found {_describe(value)}; version "
                f"{record['meta']['package_version']} wrote it"
            )
        if isinstance(leaf, jax.Array) and not leaf.committed:
            return jnp.array(value)
        return parallel.place(value, leaf.sharding)

    leaves = [place(name, leaf) for name, leaf in named_leaves(template)]
    unknown = arrays.keys() - {name for name, _ in named_leaves(template)}
    if unknown:
        raise UsageError(
            f"{path}: expected the model of the config, found {min(unknown)} too; "
            f"version {record['meta']['package_version']} wrote it"
        )
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Restored(state, config, record["meta"])


def load_stored(path: Path, which: str = "best") -> Stored:
    """Returns all that a sampler needs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_packaged(Path(folder), {"bias": np.zeros(2)}, {"seed": 7}, {})
    ...     stored = load_stored(Path(folder))
    >>> stored.checksum == params_checksum({"bias": np.zeros(2)})
    True

    Args:
        path: workdir of a run, or a directory of packaged weights.
        which: checkpoint of a workdir, "best" by validation loss (the latest, if none
            has one) or "latest".
    """
    if (path / "weights.npz").exists():
        return load_packaged(path)
    if not _directory(path).is_dir():
        raise UsageError(
            f"{path}: expected a training run (with checkpoints/) or packaged weights "
            "(with weights.npz), found neither"
        )
    with make_manager(path, writable=False) as manager:
        step = _best_step(manager) if which == "best" else None
        _, arrays, record = _read(manager, step)
    names = (name for name in arrays if name.startswith(_EMA_PREFIX))
    params = {name.removeprefix(_EMA_PREFIX): arrays[name] for name in names}
    record["meta"] |= {"step": record.get("step")}
    return _stored(record, params, path)


def _stored(
    record: dict[str, Any], arrays: Mapping[str, np.ndarray], source: Path
) -> Stored:
    """Returns a record and its parameters, by their paths, in today's names."""
    with reading.refusing(source, "the config and the parameters of one model"):
        config = _config(record, str(source))
        text = json.dumps(record["config"], sort_keys=True)
        return Stored(
            config,
            _nest(old_names.update_paths(configs.kind_of(config), arrays)),
            record["meta"],
            params_checksum(_nest(arrays)),
            hashlib.sha256(text.encode()).hexdigest(),
        )


def changed_values(
    old: ml_collections.ConfigDict, new: ml_collections.ConfigDict
) -> dict[str, list[Any]]:
    """Returns old and new value of what differs, by names as `config.train.seed`.

    >>> old, new = (ml_collections.ConfigDict({"seed": seed}) for seed in (0, 1))
    >>> changed_values(old, new)
    {'config.seed': [0, 1]}
    """

    def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
        values = configs.flat(config).items()
        return {f"config.{k}": [*v] if isinstance(v, tuple) else v for k, v in values}

    before, after = plain(old), plain(new)
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def save_packaged(
    directory: Path,
    params: Params,
    config: ml_collections.ConfigDict | Mapping[str, Any],
    meta: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Writes parameters as `weights.npz` and `config.json`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_packaged(Path(folder), {"bias": np.ones(2)}, {"seed": 7}, {})
    ...     print(sorted(path.name for path in Path(folder).iterdir()))
    ['config.json', 'weights.npz']

    Args:
        directory: folder to write; made if it does not exist.
        params: nested dictionaries of arrays.
        config: config of the run.
        meta: JSON values, as for `save`.
        half: true to store 16-bit floats, a relative error of 5e-4 at most.
    """
    dtype = np.float16 if half else np.float32
    with np.errstate(over="ignore"):  # Found below.
        arrays = {name: np.asarray(leaf, dtype) for name, leaf in named_leaves(params)}
    bad = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if bad:
        raise UsageError(f"{bad[0]}: expected finite {dtype.__name__} parameters")
    record = _record(config, meta) | {
        "dtype": dtype.__name__,
        "weights_sha256": params_checksum(_nest(arrays)),
    }
    text = json.dumps(record, indent=1) + "\n"
    with cli.atomic_path(directory / "config.json") as path:
        path.write_text(text, encoding="utf-8")
    with cli.atomic_path(directory / "weights.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_packaged(directory: Path) -> Stored:
    """Returns packaged weights, parameters in float32.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     params, meta = {"bias": np.ones(2)}, {"step": 3}
    ...     save_packaged(Path(folder), params, {"seed": 7}, meta, half=True)
    ...     stored = load_packaged(Path(folder))
    >>> stored.params["bias"].dtype, stored.meta["step"]
    (dtype('float32'), 3)

    Raises:
        UsageError: A file is missing or damaged, or the two are not of one model.
    """
    what = "weights.npz and config.json of a trained model"
    with reading.refusing(directory, what):
        record = reading.read_json(directory / "config.json", "the config of a model")
        _check_record(record)
        checksum = str(record["weights_sha256"])
        found = reading.read_arrays(directory / "weights.npz", "the weights of a model")
        arrays = {name: _as_parameters(name, array) for name, array in found.items()}
    stored = _stored(record, arrays, directory)
    if stored.checksum != checksum:
        raise UsageError(
            f"{directory}: expected the weights.npz that config.json was written with "
            f"(weights_sha256 {checksum[:12]}), found another "
            f"({stored.checksum[:12]}); copy both files again"
        )
    return stored


def params_checksum(params: Params) -> str:
    """Returns the SHA-256 of parameters, by name and in float32.

    >>> params_checksum({"bias": np.zeros(2)})[:8]
    '6f58b405'
    """
    digest = hashlib.sha256()
    for name, leaf in named_leaves(params):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf, "<f4").data)
    return digest.hexdigest()


def _directory(workdir: Path) -> Path:
    return workdir / "checkpoints"


def _record(
    config: ml_collections.ConfigDict | Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the JSON part of a checkpoint."""
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {
        "format_version": FORMAT_VERSION,
        "config": plain,
        "meta": dict(meta) | {"package_version": __version__},
    }


def _check_record(record: Any) -> None:
    """Raises `ValueError` unless it is one that `_record` returns."""
    types = {"format_version": int, "config": dict, "meta": dict}
    for name, wanted in types.items():
        if not isinstance(record, dict) or not isinstance(record.get(name), wanted):
            raise ValueError(f"a record without {name}")
    if not isinstance(record["meta"].get("package_version"), str):
        raise ValueError("a record without meta.package_version")


def _as_parameters(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"{name} of type {array.dtype}, not of floats")
    return array.astype(np.float32)


def _config(
    record: dict[str, Any], source: str, resumes: bool = False
) -> ml_collections.ConfigDict:
    """Returns the config of a record in today's names, its lists tuples again."""
    if record["format_version"] > FORMAT_VERSION:
        raise UsageError(
            f"checkpoint: expected format {FORMAT_VERSION} or before, found "
            f"{record['format_version']}; a newer version of this package wrote it"
        )

    def restore_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restore_tuples(item) for key, item in value.items()}
        if isinstance(value, list):
            return tuple(restore_tuples(item) for item in value)
        return value

    config = ml_collections.ConfigDict(restore_tuples(record["config"]))
    version = record["meta"]["package_version"]
    return old_names.update_config(config, source, version, resumes)


def _read(
    manager: Any, step: int | None
) -> tuple[Path, dict[str, np.ndarray], dict[str, Any]]:
    """Returns path, arrays by name and record of one checkpoint."""
    import orbax.checkpoint as ocp

    if step is None:
        step = manager.latest_step()
    if step is None:
        raise UsageError(f"{manager.directory}: expected a checkpoint, found none")
    path = Path(manager.directory) / str(step)
    with reading.refusing(path, "a complete checkpoint", _GO_ON):
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_shapes(path / "state")),
            record=ocp.args.JsonRestore(),
        )
        restored = manager.restore(step, args=items)
        arrays = {name: np.asarray(value) for name, value in restored.state.items()}
        record = restored.record
        _check_record(record)
    return path, arrays, record


def _shapes(folder: Path) -> dict[str, np.ndarray]:
    """Returns empty arrays for those of a checkpoint, to be read as a whole.

    Without them each would be placed on the devices that wrote it.
    """
    import orbax.checkpoint as ocp

    with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
        tree = reader.metadata(folder).tree
    return {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in tree.items()}


def _best_step(manager: Any) -> int | None:
    """Returns the step of least validation loss, None if no checkpoint has one."""
    found = {step: manager.metrics(step) for step in manager.all_steps()}
    losses = {step: _validation_loss(m) for step, m in found.items() if m is not None}
    best = min(losses, key=losses.__getitem__, default=None)
    return best if best is not None and math.isfinite(losses[best]) else None


def _validation_loss(metrics: Mapping[str, float]) -> float:
    return metrics["validation_loss"]


@jax.jit
def _all_finite(tree: Any) -> Bool[Array, ""]:
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(finite).all()


def _with_whole_check(state: TrainState) -> TrainState:
    """Returns the state with its step marked bad if any array in it is not finite."""
    if int(state.first_bad_step) >= 0 or bool(_all_finite(state)):
        return state
    return state._replace(first_bad_step=state.step)


def _nest(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns nested dictionaries from names with slashes."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def _describe(value: np.ndarray | None) -> str:
    return "nothing" if value is None else f"{value.shape} and {value.dtype}"
