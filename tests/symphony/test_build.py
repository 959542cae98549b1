"""From a config to a model, its loss, and programs compiled once per bucket."""

import functools

import jax
import numpy as np
import pytest

from common.errors import UsageError
from common.runs import training
from configs.symphony import tiny
from symphony import build, data
from tests.symphony.small import chain


def make_batch(seeds, num_atoms, num_nodes):
    """One molecule per seed, padded."""
    missing = num_nodes - num_atoms
    chains = [chain(seed, num_atoms) for seed in seeds]
    return data.Batch(
        np.stack([np.pad(x, [(0, missing), (0, 0)]) for x, _ in chains]),
        np.stack([np.pad(s, (0, missing)) for _, s in chains]).astype(np.int32),
        np.arange(num_nodes) < np.full((len(seeds), 1), num_atoms),
        {},
    )


@functools.cache
def tiny_params():
    return build.init_params(tiny.get_config(), jax.random.key(0))


def test_an_unknown_kind_is_refused_by_name():
    config = tiny.get_config()
    config.kind = "dance"
    with pytest.raises(UsageError, match=r"config.kind: .*symphony.*dance"):
        build.make_model(config)


def test_loss_is_nats_per_step_and_a_mean_over_independent_molecules():
    config = tiny.get_config()
    loss_fn = jax.jit(build.make_loss(config, 8.0))
    batch = make_batch([0, 1, 2], 5, 6)
    keys = jax.random.split(jax.random.key(1), 3)
    loss, totals = loss_fn(tiny_params(), batch, keys)
    assert float(loss) == pytest.approx(float(totals["nll"]) / 8.0, rel=1e-5)
    assert float(totals["num_steps"]) == 5
    alone = []
    for index in range(3):
        one = jax.tree.map(lambda x, i=index: x[i : i + 1], batch)
        alone.append(float(loss_fn(tiny_params(), one, keys[index : index + 1])[0]))
    assert float(loss) == pytest.approx(np.mean(alone), rel=1e-5)
    assert np.ptp(alone) > 1e-3


def test_a_step_is_compiled_once_per_bucket():
    config = tiny.get_config()
    config.train.optimizer = "adam"
    optimizer = training.make_optimizer(config.train)
    loss_fn = build.make_loss(config, 8.0)
    train_step = training.make_train_step(loss_fn, optimizer, 0.99)
    state = training.make_state(tiny_params(), optimizer)
    buckets = [make_batch([i, i + 1], n, n) for i in range(3) for n in (4, 6)]
    for step in range(20):
        batch = buckets[step % len(buckets)]
        state, metrics = train_step(state, batch, jax.random.key(0))
        assert np.isfinite(metrics["loss"])
    assert train_step.num_compilations() == 2
    assert int(state.step) == 20
    assert int(state.first_bad_step) == -1
