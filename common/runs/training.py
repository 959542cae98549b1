"""State, optimiser and update of a training run, and what its loop needs around them.

A loss here takes a batch and one key per example and returns means over examples, so
that no result depends on how a batch is cut over devices or microbatches.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.experimental.multihost_utils import reached_preemption_sync_point
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from common.errors import RunError, UsageError
from common.programs import compiler_options
from common.runs import parallel
from common.runs.grouping import grouped

Params: TypeAlias = Any  # A tree of float arrays, as `Module.init` returns it.
Metrics: TypeAlias = dict[str, Float[Array, ""]]
LossFn: TypeAlias = Callable[
    [Params, Any, Key[Array, " batch"]], tuple[Float[Array, ""], Metrics]
]

MUON_RMS = 0.2  # Root mean square of a Muon update, that of Adam in practice.
SHORT = 5_000
"""Steps up to which a run compiles in half the time, for steps that take 6 % longer."""

NEWTON_SCHULZ, NUM_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315), 5  # Of Jordan et al.


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds."""

    step: Int[Array, ""]  # Optimisation steps taken so far.
    params: Params
    ema_params: Params  # Moving average, used for validation and sampling.
    opt_state: optax.OptState
    first_bad_step: Int[Array, ""]  # First non-finite step, counted from 1; -1: none.


TrainStep: TypeAlias = Callable[
    [TrainState, Any, Key[Array, ""]], tuple[TrainState, Metrics]
]


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree with their paths, as `params/Dense_0/kernel`.

    >>> list(named_leaves({"params": {"Dense_0": {"kernel": 0, "bias": 1}}}))
    [('params/Dense_0/bias', 1), ('params/Dense_0/kernel', 0)]
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def make_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step.

    The arrays are copies: a state is donated at every step, which destroys its
    buffers, and no two leaves of it may share one.

    >>> state = make_state({"bias": jnp.zeros(2)}, optax.sgd(0.1))
    >>> int(state.step), int(state.first_bad_step)
    (0, -1)
    """
    params = jax.tree.map(jnp.copy, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        first_bad_step=jnp.full((), -1, jnp.int32),
    )


def make_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    r"""Returns the learning rate as a function of the steps already taken.

    It rises linearly over `warmup_steps`, the first step included, then follows a half
    cosine from `learning_rate` to `final_factor * learning_rate` at `num_steps`, and
    stays there.

    >>> fields = {"learning_rate": 1.0, "final_factor": 0.0, "warmup_steps": 1}
    >>> schedule = make_schedule(ml_collections.ConfigDict({**fields, "num_steps": 5}))
    >>> [round(float(schedule(count)), 3) for count in (0, 1, 3, 5)]
    [0.5, 1.0, 0.5, 0.0]

    Args:
        config: group with `learning_rate`, `warmup_steps`, `num_steps`, `final_factor`.
    """
    peak, floor = float(config.learning_rate), float(config.final_factor)
    warmup, last = int(config.warmup_steps), int(config.num_steps)

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        rise = jnp.minimum((count + 1) / (warmup + 1), 1.0)
        progress = jnp.clip((count - warmup) / max(last - warmup, 1), 0.0, 1.0)
        fall = floor + (1.0 - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.asarray(peak * rise * fall, jnp.float32)

    return schedule


def muon_dimensions(params: Params) -> Any:
    """Returns Muon's view of each parameter: its two matrix axes, or None for Adam.

    Matrices are parameters whose own name starts with `kernel`; their last two axes are
    in and out, and any before those count separate matrices. Embeddings, biases, scales
    and whatever else has another name go to Adam.

    >>> muon_dimensions({"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)})["bias"]
    >>> muon_dimensions({"kernel": jnp.ones((3, 4))})["kernel"]
    MuonDimensionNumbers(reduction_axis=0, output_axis=1)
    """

    def dimensions(
        path: tuple[Any, ...], leaf: Any
    ) -> optax.contrib.MuonDimensionNumbers | None:
        if not _is_matrix(path, leaf):
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, params)


def make_optimizer(
    config: ml_collections.ConfigDict, shards: bool = False
) -> optax.GradientTransformation:
    """Returns Adam or Muon with the schedule of `make_schedule`.

    Muon (Jordan et al. 2024) orthogonalises the momentum of matrices, see
    `muon_dimensions`, scaled as Liu et al. (arXiv:2502.16982) so that one learning rate
    serves both; the other parameters take Adam's step. The learning rate follows the
    step counter inside the optimiser's state.

    >>> fields = {"learning_rate": 1.0, "final_factor": 0.0, "warmup_steps": 1}
    >>> fields |= {"num_steps": 5, "optimizer": "adam", "clip_norm": 1.0}
    >>> fields |= {"weight_decay": 0.0, "adam_b2": 0.99}
    >>> optimizer = make_optimizer(ml_collections.ConfigDict(fields))
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> updates["kernel"][0].round(2).tolist()  # Half the rate, in the warm-up.
    [-0.5, -0.5]

    Args:
        config: group with the schedule's fields and
            `optimizer`, a row of `OPTIMIZERS`;
            `clip_norm`, largest global norm of the gradient, 0 for no clipping;
            `weight_decay`, decoupled, times the learning rate, of matrices only, as
            `muon_dimensions` tells them;
            `adam_b2`.
        shards: true if each device holds a part of every parameter: they are updated
            one by one then, since those of a group would be gathered.
    """
    if config.optimizer not in OPTIMIZERS:
        raise UsageError(
            f"optimizer: expected one of {', '.join(OPTIMIZERS)}, found "
            f"{config.optimizer}"
        )
    step = OPTIMIZERS[config.optimizer](config, make_schedule(config))
    if config.clip_norm:
        step = optax.chain(optax.clip_by_global_norm(config.clip_norm), step)
    return step if shards else grouped(step, _is_matrix)


def _adam(
    config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    return optax.adamw(
        schedule,
        b2=config.adam_b2,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(_is_matrix, params),
    )


def _muon(
    config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    # A row of coefficients for each step makes a loop of what would be written out.
    step = optax.contrib.muon(
        schedule,
        ns_coeffs=np.tile(NEWTON_SCHULZ, (NUM_NEWTON_SCHULZ, 1)),
        ns_steps=NUM_NEWTON_SCHULZ,
        weight_decay=config.weight_decay,
        adam_weight_decay=0.0,
        adam_b2=config.adam_b2,
        muon_weight_dimension_numbers=muon_dimensions,
        consistent_rms=MUON_RMS,
    )
    one_row = partial(_map_coefficients, lambda rows: rows[0])
    all_rows = partial(
        _map_coefficients, lambda row: jnp.tile(row, (NUM_NEWTON_SCHULZ, 1))
    )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = step.update(updates, all_rows(state), params)
        return updates, one_row(state)

    # A checkpoint holds one row, as optax does where every step has the same.
    return optax.GradientTransformation(lambda p: one_row(step.init(p)), update)


def _map_coefficients(function: Callable[[Array], Array], state: Any) -> Any:
    """Returns a state of Muon with other coefficients of its iteration."""

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        is_it = jax.tree_util.keystr(path[-1:], simple=True) == "ns_coeffs"
        return function(leaf) if is_it else leaf

    return jax.tree_util.tree_map_with_path(change, state)


OPTIMIZERS = {"adam": _adam, "muon": _muon}


def update_average(
    average: Params, params: Params, step: Int[Array, ""], ema_decay: float
) -> Params:
    r"""Returns the moving average $\bar\theta$ after `step` steps.

    The decay is $\min(d, (1 + t) / (10 + t))$ at step $t$, so that the random initial
    parameters are forgotten early in a run.

    >>> print(update_average(jnp.zeros(2), jnp.ones(2), jnp.array(1), 0.999).round(3))
    [0.818 0.818]
    """
    decay = jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - decay)


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    mesh: Mesh | None = None,
    num_microbatches: int = 1,
    is_short: bool = True,
    shards: bool = False,
) -> TrainStep:
    """Returns a compiled `(state, batch, key) -> (state, metrics)`; it donates state.

    `key` is the same at every call and is folded with `state.step`, so that a resumed
    run draws what an uninterrupted one would. Example `i` of the batch gets key `i` of
    the split. The step never looks at the values on the host: a non-finite loss or
    gradient leaves its step in `first_bad_step`, for `check_finite`.

    >>> def loss_fn(params, batch, keys):
    ...     return jnp.mean((params["bias"] - batch) ** 2), {}
    >>> step = make_train_step(loss_fn, optax.sgd(0.5), ema_decay=0.9)
    >>> state = make_state({"bias": jnp.zeros(1)}, optax.sgd(0.5))
    >>> state, metrics = step(state, jnp.ones(4), jax.random.key(0))
    >>> float(state.params["bias"][0]), float(metrics["loss"])
    (1.0, 1.0)

    Args:
        loss_fn: `(params, batch, keys) -> (loss, metrics)`, both means over the
            examples it is given; metrics are scalars.
        optimizer: optimiser, see `make_optimizer`.
        ema_decay: largest decay of the parameters' moving average.
        mesh: devices that share the batch along the axis `data`; the state, which must
            have been through `parallel.replicate`, is the same on all.
        num_microbatches: pieces of a batch, computed one after another, so that what
            one piece needs stays in cache or memory. Devices share the pieces; each has
            at least one.
        is_short: true for a run that spends more on compilation than on a slower step,
            see `SHORT`.
        shards: true if each device holds a part of every array of the state, which must
            have been through `parallel.shard`. Parameters are gathered for a step.

    Returns:
        The step; `step.num_compilations()` is the number of sizes compiled so far, and
        `step.programs` are its two, gradient and update. Its metrics are those of
        `loss_fn` with `loss` and `grad_norm` (before clipping).
    """
    num_devices = 1 if mesh is None else mesh.shape["data"]
    num_pieces = max(num_microbatches // num_devices, 1)
    of_batch = partial(_accumulate, loss_fn, num_pieces)
    value_and_grads = _on_devices(of_batch, mesh, shards)
    num_traces = 0

    def gradients(
        params: Params, step: Int[Array, ""], batch: Any, key: Key[Array, ""]
    ) -> tuple[Params, Metrics]:
        nonlocal num_traces
        num_traces += 1  # This line runs once for every size, while it is compiled.
        batch_size = jax.tree.leaves(batch)[0].shape[0]
        if batch_size % (num_devices * num_pieces):
            raise UsageError(
                f"batch size: expected a multiple of {num_devices * num_pieces} "
                f"({num_devices} devices, {num_pieces} microbatches on each), "
                f"found {batch_size}"
            )
        keys = jax.random.split(jax.random.fold_in(key, step), batch_size)
        return value_and_grads(params, batch, keys)

    update = partial(_update, optimizer, ema_decay)
    gradients_fn, update_fn = _compile(gradients, update, mesh, is_short, shards)

    def train_step(
        state: TrainState, batch: Any, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        grads, metrics = gradients_fn(state.params, state.step, batch, key)
        return update_fn(state, grads, metrics)

    train_step.num_compilations = lambda: num_traces
    train_step.programs = gradients_fn, update_fn
    return train_step


def _on_devices(
    value_and_grads: Callable[..., tuple[Params, Metrics]],
    mesh: Mesh | None,
    shards: bool,
) -> Callable[..., tuple[Params, Metrics]]:
    """Returns the same function of a batch that is split over the devices of a mesh.

    Where parameters are in parts, so are the gradients.
    """
    if mesh is None:
        return value_and_grads
    everywhere, split = PartitionSpec(), PartitionSpec("data")
    size = mesh.shape["data"]
    axis_of = lambda leaf: parallel.cut_axis(leaf.shape, size) if shards else -1

    def of_parts(
        params: Params, batch: Any, keys: Key[Array, " batch"]
    ) -> tuple[Params, Metrics]:
        axes = jax.tree.map(axis_of, params)
        specs = jax.tree.map(lambda x, a: parallel.spec(x.ndim, a), params, axes)

        def on_device(params: Params, *given: Any) -> tuple[Params, Metrics]:
            grads, metrics = value_and_grads(parallel.gather(params, axes), *given)
            return parallel.mean_parts(grads, axes), jax.lax.pmean(metrics, "data")

        # Each device runs the loss on its own examples as if alone; left to the
        # compiler, a scan over blocks of atoms would gather the whole batch. Carries of
        # such scans start as constants, which the check for replication refuses.
        return jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(specs, split, split),
            out_specs=(specs, everywhere),
            check_vma=False,
        )(params, batch, keys)

    return of_parts


def _update(
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    state: TrainState,
    grads: Params,
    metrics: Metrics,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one step, and its metrics with the gradient's norm."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    keeps = finite | (state.first_bad_step >= 0)
    new_state = TrainState(
        step=step,
        params=params,
        ema_params=update_average(state.ema_params, params, step, ema_decay),
        opt_state=opt_state,
        first_bad_step=jnp.where(keeps, state.first_bad_step, step),
    )
    return new_state, metrics


def _compile(
    gradients: Callable[..., Any],
    update: Callable[..., Any],
    mesh: Mesh | None,
    is_short: bool,
    shards: bool,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns two programs: the update is the same for every size of batch."""
    quick = compiler_options()
    many = partial(jax.jit, gradients, compiler_options=quick if is_short else None)
    once = partial(jax.jit, update, donate_argnums=0, compiler_options=quick)
    if mesh is None:
        return many(), once()
    whole = NamedSharding(mesh, PartitionSpec())
    over_data = NamedSharding(mesh, PartitionSpec("data"))
    if shards:
        return many(), jax.jit(
            lambda *given: _constrain(update(*given), mesh),
            donate_argnums=0,
            compiler_options=quick,
        )
    shardings = (whole, whole, over_data, whole)
    return (
        many(in_shardings=shardings, out_shardings=whole),
        once(out_shardings=whole),
    )


def _constrain(results: Any, mesh: Mesh) -> Any:
    """Returns results of a program whose arrays lie as `parallel.shard` places them."""
    shardings = parallel.shardings_of(results, mesh)
    return jax.lax.with_sharding_constraint(results, shardings)


def check_finite(state: TrainState, last_good: Path | None) -> None:
    """Raises `RunError` if a loss or gradient of the run was not finite.

    Waits for the device. Called where a line is logged, and before anything is saved.

    >>> state = make_state({"bias": jnp.zeros(2)}, optax.sgd(0.1))
    >>> check_finite(state, None)

    Args:
        state: state of the run.
        last_good: latest checkpoint, if there is one.
    """
    first_bad_step = int(state.first_bad_step)
    if first_bad_step >= 0:
        where = "there is no checkpoint" if last_good is None else str(last_good)
        raise RunError(
            "the loss or its gradient first became non-finite at step "
            f"{first_bad_step}; last good checkpoint: {where}"
        )


class StopOnSignal:
    """Turns SIGTERM and Ctrl-C into a flag, which the loop reads between steps.

    A second Ctrl-C interrupts at once. Outside the main thread, where Python allows no
    handlers, signals keep their meaning and the flag stays down. A run of several
    processes leaves SIGTERM to JAX, which has all of them end after the same step.

    Attributes:
        requested: true once a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._several = jax.distributed.is_initialized()

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():
            terminate = () if self._several else (signal.SIGTERM,)
            for number in (*terminate, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after(self, step: int) -> bool:
        """Returns whether the run ends after a step; to be asked at every step."""
        return reached_preemption_sync_point(step) if self._several else self.requested

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._several:
            signal.raise_signal(signal.SIGTERM)


class Elapsed(NamedTuple):
    """Time that a run has taken, all its resumptions added up."""

    cpu_seconds: float  # s, of all threads of the process.
    wall_seconds: float  # s


NOTHING_ELAPSED = Elapsed(0.0, 0.0)


def start_clock(carried: Elapsed = NOTHING_ELAPSED) -> Callable[[], Elapsed]:
    """Returns a function that reads the run's clocks.

    >>> start_clock(Elapsed(100.0, 200.0))().wall_seconds >= 200.0
    True

    Args:
        carried: times of the run when the checkpoint that it resumes was written.
    """
    cpu_start, wall_start = time.process_time(), time.monotonic()

    def elapsed() -> Elapsed:
        return Elapsed(
            carried.cpu_seconds + time.process_time() - cpu_start,
            carried.wall_seconds + time.monotonic() - wall_start,
        )

    return elapsed


def _accumulate(
    loss_fn: LossFn,
    num_pieces: int,
    params: Params,
    batch: Any,
    keys: Key[Array, " batch"],
) -> tuple[Params, Metrics]:
    """Returns the gradient and metrics of a batch computed in equal pieces."""

    def share(params: Params, *piece: Any) -> tuple[Float[Array, ""], Metrics]:
        """Returns the part of a piece in the means of the batch."""
        loss, metrics = loss_fn(params, *piece)
        metrics = {k: v / num_pieces for k, v in (metrics | {"loss": loss}).items()}
        return loss / num_pieces, metrics

    @jax.jit  # Traced once for the shapes of its results and for the scan.
    def one_piece(
        params: Params, piece: tuple[Any, Key[Array, " piece"]]
    ) -> tuple[Params, Metrics]:
        return jax.grad(share, has_aux=True)(params, *piece)

    if num_pieces == 1:
        return one_piece(params, (batch, keys))

    def split(leaf: Any) -> Any:
        piece_size = leaf.shape[0] // num_pieces
        return leaf.reshape(num_pieces, piece_size, *leaf.shape[1:])

    pieces = jax.tree.map(split, (batch, keys))
    first = jax.tree.map(lambda leaf: leaf[0], pieces)
    shapes = jax.eval_shape(one_piece, params, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one_piece(params, piece)), None

    return jax.lax.scan(add, zeros, pieces)[0]


def _is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
    """Returns whether a parameter is a matrix, or several, by its own name."""
    last = path[-1]
    name = str(getattr(last, "key", getattr(last, "name", last)))
    return leaf.ndim >= 2 and name.startswith("kernel")
