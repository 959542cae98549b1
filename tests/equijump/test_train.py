"""Tests of training on the packaged trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.cli import UsageError
from configs.equijump import tiny
from equijump import build, loss, train
from equijump.data import pairs


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
