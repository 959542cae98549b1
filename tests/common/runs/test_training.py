"""A toy regression trained on one and many devices, in one piece and in several."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from common.errors import RunError, UsageError
from common.runs import training

ROOT = Path(__file__).resolve().parents[3]
BATCH_SIZE = 8


def optimizer_config(**changes):
    config = ml_collections.ConfigDict(
        {
            "optimizer": "adam",
            "learning_rate": 0.02,
            "warmup_steps": 4,
            "num_steps": 40,
            "final_factor": 0.1,
            "clip_norm": 1.0,
            "weight_decay": 0.0,
            "adam_b2": 0.99,
        }
    )
    config.update(changes)
    return config


def initial_params():
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {
            "kernel": 0.5 * jax.random.normal(first, (3, 8)),
            "bias": jnp.zeros(8),
        },
        "heads": {"kernel_degrees": 0.3 * jax.random.normal(second, (2, 8, 4))},
        "embedding": jnp.ones((2, 4)),
    }


def toy_loss(params, batch, keys):
    def one(x, key):
        noisy = x + 0.1 * jax.random.normal(key, x.shape)
        hidden = jnp.tanh(noisy @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        heads = jnp.einsum("i,dio->do", hidden, params["heads"]["kernel_degrees"])
        return jnp.mean((heads * params["embedding"] - jnp.sum(x)) ** 2)

    losses = jax.vmap(one)(batch, keys)
    return jnp.mean(losses), {"first_input": jnp.mean(batch[:, 0])}


def batch_at(step):
    rng = np.random.default_rng(step)
    return rng.normal(size=(BATCH_SIZE, 3)).astype(np.float32)


def run(
    num_steps, *, state=None, mesh=None, num_microbatches=1, shards=False, **changes
):
    optimizer = training.make_optimizer(optimizer_config(**changes), shards)
    if state is None:
        state = training.make_state(initial_params(), optimizer)
    step_fn = training.make_train_step(
        toy_loss, optimizer, 0.99, mesh, num_microbatches, shards=shards
    )
    losses = []
    for step in range(int(state.step) + 1, num_steps + 1):
        state, metrics = step_fn(state, batch_at(step), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return state, np.array(losses), step_fn


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_loss_falls_on_one_batch(optimizer):
    config = optimizer_config(optimizer=optimizer)
    tx = training.make_optimizer(config)
    state = training.make_state(initial_params(), tx)
    step_fn = training.make_train_step(toy_loss, tx, 0.99)
    losses = []
    for _ in range(40):
        state, metrics = step_fn(state, batch_at(1), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    assert step_fn.num_compilations() == 1


def test_schedule_warms_up_then_follows_a_cosine_to_its_floor():
    schedule = training.make_schedule(optimizer_config(warmup_steps=3, num_steps=23))
    rates = [float(schedule(count)) for count in range(30)]
    np.testing.assert_allclose(rates[:4], [0.005, 0.01, 0.015, 0.02], rtol=1e-6)
    np.testing.assert_allclose(rates[13], 0.02 * 0.55, rtol=1e-6)
    np.testing.assert_allclose(rates[23:], 0.002, rtol=1e-5)


def test_the_learning_rate_follows_the_schedule_inside_the_optimizer():
    config = optimizer_config(clip_norm=0.0, warmup_steps=1, learning_rate=0.1)
    tx = training.make_optimizer(config)
    params = {"kernel": jnp.ones((2, 2))}
    grads = {"kernel": jnp.ones((2, 2))}
    updates, opt_state = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-4)
    updates, _ = tx.update(grads, opt_state, params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-4)


def test_muon_takes_the_kernels_and_each_of_their_matrices_alone():
    dims = training.muon_dimensions(initial_params())
    assert dims["hidden"]["kernel"] == (0, 1)
    assert dims["heads"]["kernel_degrees"] == (1, 2)
    assert dims["hidden"]["bias"] is None
    assert dims["embedding"] is None
    tx = training.make_optimizer(optimizer_config(optimizer="muon", clip_norm=0.0))
    params = {"kernel": jnp.zeros((2, 5, 5))}
    grads = {"kernel": jax.random.normal(jax.random.key(3), (2, 5, 5))}
    updates, _ = tx.update(grads, tx.init(params), params)
    singular = np.linalg.svd(updates["kernel"], compute_uv=False)
    assert singular.max() / singular.min() < 3.0  # Newton-Schulz: roughly orthogonal.


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay_shrinks_matrices_only(optimizer):
    config = optimizer_config(
        optimizer=optimizer, weight_decay=0.5, learning_rate=0.1, warmup_steps=0
    )
    tx = training.make_optimizer(config)
    params = initial_params()
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    kernel = params["hidden"]["kernel"]
    np.testing.assert_allclose(updates["hidden"]["kernel"], -0.05 * kernel, rtol=1e-5)
    np.testing.assert_array_equal(updates["hidden"]["bias"], 0.0)
    np.testing.assert_array_equal(updates["embedding"], 0.0)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(UsageError, match="lion"):
        training.make_optimizer(optimizer_config(optimizer="lion"))


def test_moving_average_forgets_the_start_early():
    average, params = jnp.zeros(2), jnp.ones(2)
    early = training.update_average(average, params, jnp.array(1), 0.999)
    late = training.update_average(average, params, jnp.array(10**6), 0.999)
    np.testing.assert_allclose(early, 1 - 2 / 11, rtol=1e-6)
    np.testing.assert_allclose(late, 0.001, rtol=1e-3)


@pytest.mark.parametrize("num_microbatches", [2, 4])
def test_microbatches_change_nothing(num_microbatches):
    whole, whole_losses, _ = run(5)
    pieces, pieces_losses, _ = run(5, num_microbatches=num_microbatches)
    np.testing.assert_allclose(pieces_losses, whole_losses, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(whole.ema_params),
        jax.tree.leaves(pieces.ema_params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_batch_that_cannot_be_cut_is_told():
    with pytest.raises(UsageError, match="multiple of 3"):
        run(1, num_microbatches=3)


def test_devices_give_the_same_losses_whether_the_state_is_whole_or_in_parts_on_them():
    code = (
        "import jax, numpy as np\n"
        "from common.runs import parallel, training\n"
        "from tests.common.runs import test_training as toy\n"
        "cases = (1, 1, 0), (1, 4, 0), (4, 8, 0), (8, 1, 0), (2, 1, 1), (4, 8, 1)\n"
        "for n, pieces, shards in cases:\n"
        "    mesh = parallel.make_mesh(n)\n"
        "    tx = training.make_optimizer(toy.optimizer_config(), shards)\n"
        "    state = training.make_state(toy.initial_params(), tx)\n"
        "    place = parallel.shard if shards else parallel.replicate\n"
        "    before = place(state, mesh)\n"
        "    layout = jax.tree.map(lambda x: x.sharding, before)\n"
        "    after, losses, step = toy.run(20, state=before, mesh=mesh,\n"
        "        num_microbatches=pieces, shards=shards)\n"
        "    assert step.num_compilations() == 1\n"
        "    same = lambda x, own: x.sharding.is_equivalent_to(own, x.ndim)\n"
        "    assert jax.tree.all(jax.tree.map(same, after, layout))\n"
        "    kernel = after.params['hidden']['kernel'].addressable_shards[0].data\n"
        "    assert kernel.shape == ((3, 8 // n) if shards else (3, 8))\n"
        "    np.savetxt(f'losses_{n}_{pieces}_{shards}', losses)\n"
    )
    _, expected, _ = run(20)
    for name, losses in losses_in_child(code).items():
        np.testing.assert_allclose(losses, expected, atol=1e-5, err_msg=name)


def losses_in_child(code):
    flags = "--xla_force_host_platform_device_count=8"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            cwd=folder,
            env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        )
        files = sorted(Path(folder).iterdir())
        assert len(files) == 6
        return {file.name: np.loadtxt(file) for file in files}


def test_the_first_non_finite_step_is_remembered_and_raised():
    optimizer = training.make_optimizer(optimizer_config())
    state = training.make_state(initial_params(), optimizer)
    step_fn = training.make_train_step(toy_loss, optimizer, 0.99)
    for step in range(1, 6):
        batch = batch_at(step)
        batch[3] = np.inf if step == 3 else batch[3]
        state, _ = step_fn(state, batch, jax.random.key(1))
        if step == 2:
            training.check_finite(state, None)
    with pytest.raises(RunError, match=r"at step 3; .*checkpoints/2"):
        training.check_finite(state, Path("checkpoints/2"))


def test_a_non_finite_gradient_of_a_finite_loss_counts():
    def loss_fn(params, batch, keys):
        return jnp.sqrt(params["x"]) + 0.0 * jnp.sum(batch), {}

    optimizer = training.make_optimizer(optimizer_config())
    state = training.make_state({"x": jnp.zeros(())}, optimizer)
    step_fn = training.make_train_step(loss_fn, optimizer, 0.99)
    state, metrics = step_fn(state, batch_at(1), jax.random.key(1))
    assert np.isfinite(metrics["loss"])
    assert int(state.first_bad_step) == 1


def test_the_state_is_donated():
    optimizer = training.make_optimizer(optimizer_config())
    state = training.make_state(initial_params(), optimizer)
    step_fn = training.make_train_step(toy_loss, optimizer, 0.99)
    step_fn(state, batch_at(1), jax.random.key(1))
    assert state.params["hidden"]["kernel"].is_deleted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_raises_a_flag_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with training.StopOnSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_obeyed_at_once():
    with training.StopOnSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_clocks_go_on_from_what_was_carried():
    clock = training.start_clock(training.Elapsed(100.0, 200.0))
    time.sleep(0.02)
    sum(range(10**5))
    elapsed = clock()
    assert 100.0 < elapsed.cpu_seconds < 110.0
    assert 200.02 <= elapsed.wall_seconds < 210.0
