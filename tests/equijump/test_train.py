"""Tests of training on the packaged trajectories, and of rollouts of what it gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import checkpoints
from common.cli import UsageError
from configs.equijump import tiny
from equijump import build, loss, rollout, train
from equijump.data import pairs


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of six steps, and its last state."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train.train(tiny.get_config(), workdir)


@pytest.fixture(scope="module")
def segments(own_cache):
    return train.load_segments(tiny.get_config())


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_stopped_half_way_ends_as_one_that_was_not(
    finished, tmp_path, monkeypatch
):
    at = pairs.batch_at

    def stop_at(*arguments, **named):
        if arguments[-1] == 4:  # The step, where the run asks.
            raise KeyboardInterrupt
        return at(*arguments, **named)

    monkeypatch.setattr(pairs, "batch_at", stop_at)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny.get_config(), tmp_path)
    monkeypatch.setattr(pairs, "batch_at", at)
    assert_same(train.train(tiny.get_config(), tmp_path).params, finished[1].params)


def test_two_of_eight_trajectories_validate(segments):
    names = [s.trajectory.name for s in segments.validation]
    assert names == ["ala2_300K_6.xtc", "ala2_300K_7.xtc"]
    assert len(segments.training) == 6
    assert segments.num_nodes == 3


def test_the_only_trajectory_of_a_system_is_held_out_by_blocks():
    config = tiny.get_config()
    config.data.trajectories = ("equijump/packaged/ala2_300K_0.xtc",)
    config.data.topology = "equijump/packaged/ala2_300K.pdb"
    found = train.load_segments(config)
    (training,), (held,) = found.training, found.validation
    assert (held.start, held.stop) == (1599, 1999)
    assert training.stop <= held.start - 2


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("trajectories", ("nowhere/*.xtc",), "expected files, found none at nowhere"),
        ("lags", (7.0,), "expected multiples of 5 ps"),
        ("lags", (5_000.0,), "expected more than 10000 frames for lags up to 5000 ps"),
    ],
)
def test_data_that_cannot_be_used_is_told(name, value, told):
    config = tiny.get_config()
    config.data[name] = value
    with pytest.raises(UsageError, match=told):
        train.load_segments(config)


def test_the_spread_of_the_displacement_grows_with_the_lag(segments):
    ranged = segments._replace(lags=pairs.Lags((5.0, 500.0), is_range=True))
    measured = train.measure(ranged, align=True)
    assert (measured.lags[0], measured.lags[-1]) == (5.0, 500.0)
    assert np.all(np.diff(measured.vectors) > 0)
    at = lambda lag: build.scales_at(measured, jnp.float32(lag), 4.0)
    np.testing.assert_allclose(at(5.0).displacement[0, 0], measured.vectors[0], 1e-5)
    np.testing.assert_allclose(at(5.0).displacement[1, 0], measured.positions[0], 1e-5)
    np.testing.assert_allclose(at(50.0).noise, 4.0 * at(50.0).displacement, 1e-5)
    assert np.all(at(7.0).displacement > at(5.0).displacement)


def test_the_target_is_superposed_where_asked(segments):
    batch = pairs.batch_at(segments.training, segments.lags, 64, 3, seed=0, step=0)
    both = {
        align: jax.vmap(lambda b, a=align: loss.centred_pair(b, a))(
            jax.tree.map(jnp.asarray, batch)
        )
        for align in (True, False)
    }
    moved = {
        align: float(np.sqrt(np.mean(np.square(np.subtract(*pair)))))
        for align, pair in both.items()
    }
    assert moved[True] < 0.7 * moved[False]


@pytest.fixture(scope="module")
def roll(finished, segments):
    """Rolls out what the run gave, with three inner steps."""
    config, params, meta = checkpoints.load_params(finished[0])
    statistics = build.Statistics(
        **{k: np.array(v) for k, v in meta["statistics"].items()}
    )
    jump = rollout.make_jump(
        build.make_model(config), build.TRANSPORTS["foellmer"], statistics, 4.0, 3
    )
    system = segments.training[0].trajectory.system

    def run(starts, num_jumps, **arguments):
        chunks = rollout.rollout(
            jump, params, system, starts, 10.0, num_jumps, **arguments
        )
        return np.concatenate(list(chunks))

    return run


def test_replicas_do_not_depend_on_each_other_or_on_chunks(roll, segments):
    positions = segments.training[0].trajectory.positions
    starts = np.array(positions[[0, 500, 900]])
    three = roll(starts, 4, seed=3, chunk=4)
    assert three.shape == (4, 3, 10, 3)
    one = roll(starts[:1], 4, seed=3, chunk=2)
    np.testing.assert_allclose(one[:, 0], three[:, 0], atol=1e-4)
    other = roll(starts[:1], 4, seed=4, chunk=4)
    assert np.abs(other - one).max() > 0.01
    assert np.abs(three[:, 0] - three[:, 1]).max() > 0.01


def test_a_rollout_goes_on_where_it_was(roll, segments):
    start = np.array(segments.training[0].trajectory.positions[:1])
    whole = roll(start, 6, seed=3, chunk=3)
    rest = roll(whole[2], 3, seed=3, chunk=3, first=3)
    np.testing.assert_allclose(rest, whole[3:], atol=1e-4)


def test_atoms_come_back_in_the_order_of_the_file(roll, segments):
    """Atoms bonded in the file stay near each other, in their own order."""
    trajectory = segments.training[0].trajectory
    start = np.array(trajectory.positions[:1])
    frames = roll(start, 1, seed=0)
    apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
    known, found = apart(start[0]), apart(frames[0, 0])
    assert np.corrcoef(known.ravel(), found.ravel())[0, 1] > 0.8
