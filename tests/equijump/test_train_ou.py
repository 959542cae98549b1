"""A network trained on a process of which all is known, at any lag of a range."""

import numpy as np
import pytest
import scipy.stats

import equijump
from configs.equijump import ou
from equijump import train
from equijump.data.sources import ornstein_uhlenbeck


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ou")
    train.train(ou.get_config(), workdir)
    return equijump.load(workdir)


def vectors(frames):
    """From each CA to its atoms, in units of their standard deviation."""
    apart = frames[:, :, [0, 2, 3, 4, 6, 7]] - frames[:, :, [1, 1, 1, 5, 5, 5]]
    return apart / ornstein_uhlenbeck.VECTOR


def roll(sampler, lag, num_jumps, seed=0):
    return np.concatenate(
        list(sampler.stream(num_jumps, replicas=200, seed=seed, lag=lag, gate=False))
    )


@pytest.mark.slow
@pytest.mark.parametrize("lag", [4.0, 8.0, 32.0])
def test_a_trained_network_keeps_variance_and_correlation(sampler, lag):
    frames = roll(sampler, lag, 40)[10:]
    between = (frames[:, :, 1] - frames[:, :, 5]) / (2 * ornstein_uhlenbeck.POSITION)
    exact = np.exp(-lag / ornstein_uhlenbeck.CORRELATION_TIME)
    for values in (vectors(frames), between):
        assert np.var(values) == pytest.approx(1.0, rel=0.1)
        correlation = np.mean(values[1:] * values[:-1]) / np.var(values)
        assert correlation == pytest.approx(exact, abs=0.03)


@pytest.mark.slow
def test_two_jumps_are_one_of_twice_the_lag(sampler):
    """Jumps of 8 ps twice, and of 16 ps once, from the same starts."""
    twice = roll(sampler, 8.0, 2, seed=1)
    once = roll(sampler, 16.0, 1, seed=2)
    np.testing.assert_array_equal(twice[0], once[0])
    a = np.exp(-16.0 / ornstein_uhlenbeck.CORRELATION_TIME)
    ends = [np.ravel(vectors(x)[-1] - a * vectors(x)[0]) for x in (twice, once)]
    assert scipy.stats.ks_2samp(*ends).pvalue > 0.01
