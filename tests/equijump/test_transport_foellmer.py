"""Tests of what the Föllmer transport has of its own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from benchmarks import jump_steps
from equijump.transport import foellmer, foellmer_steps, paths
from tests.equijump.solvable import (
    draw_noise,
    make_jump,
    normal,
    predict_exactly,
)

NUM_STEPS = 10  # As in configs/equijump/ala2.py.
JUMP = make_jump(foellmer, normal, NUM_STEPS)


def test_levels_of_noise_fall_evenly_in_their_root():
    numbers = foellmer_steps.numbers_of(NUM_STEPS)
    step = foellmer_steps.steps(NUM_STEPS)
    times = np.asarray(step.time)
    assert (times[0], len(times)) == (0.0, NUM_STEPS)
    levels = (1.0 - times[1:]) / np.sqrt(times[1:])
    ends = np.array([numbers.largest, numbers.smallest]) ** (1.0 / numbers.rho)
    roots = levels ** (1.0 / numbers.rho)
    np.testing.assert_allclose(roots, np.linspace(*ends, 9), atol=1e-3)
    assert (float(step.kept[-1]), float(step.noise[-1])) == (0.0, 0.0)


@pytest.mark.parametrize("num_steps", [*foellmer_steps.FITTED, 9, 11, 30])
def test_targets_whose_end_is_known_are_kept(num_steps):
    """Few evaluations keep them roughly, six or more closely."""
    step = foellmer_steps.steps(num_steps)
    wide = 1.25 if num_steps >= 6 else 1.5 if num_steps >= 4 else 3.0
    spreads = np.asarray(jump_steps.spread_ratios(step))
    assert 1.0 / wide < spreads.min() <= spreads.max() < wide
    for weight, distance, spread in ((0.3, 2.2, 0.06), (0.001, 1.7, 0.15)):
        found = float(
            jump_steps.rarer(step, jax.random.key(0), weight, distance, spread, 200_000)
        )
        assert 1.0 / wide < found < wide
    length, share = np.asarray(jump_steps.bond(step, jax.random.key(0), 25.0))
    assert length < (0.01 if num_steps >= 5 else 0.02)  # Å
    assert 1.0 / wide < share < wide


def test_a_search_finds_better_numbers(monkeypatch):
    monkeypatch.setattr(jump_steps, "WEIGHTS", {0.01: 20_000, 0.3: 20_000})
    monkeypatch.setattr(jump_steps, "BASINS", ((1.7, 0.06), (3.0, 0.1)))
    found = jump_steps.search(4, 30, foellmer_steps.FITTED[10])
    before, after = (
        jump_steps.error_of(jump_steps.measure(foellmer_steps.steps(4, numbers)))
        for numbers in (foellmer_steps.FITTED[10], found)
    )
    assert after < 0.8 * before


@pytest.mark.parametrize("median", [foellmer.MEDIAN, 0.5])
def test_training_draws_levels_around_their_median_and_the_begin_of_a_jump(median):
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.vmap(foellmer.draw_time, (0, None))
    times = np.asarray(draw(keys, median))
    assert np.mean(times == 0.0) == pytest.approx(foellmer.BLIND_SHARE, abs=0.01)
    levels = (1.0 - times[times > 0]) / np.sqrt(times[times > 0])
    high, low = foellmer.TRAINED
    assert low * 0.99 < levels.min()
    assert levels.max() < high * 1.01
    # Of its logarithm the density is 1 / cosh, cut at both ends.
    edges = np.linspace(np.log(low), np.log(high), 9)
    density = lambda x: 1.0 / np.cosh(x - np.log(median))
    masses = [quad(density, *pair)[0] for pair in itertools.pairwise(edges)]
    shares = np.histogram(np.log(levels), edges)[0] / len(levels)
    np.testing.assert_allclose(shares, masses / np.sum(masses), atol=0.01)


@pytest.mark.parametrize("std", [0.3, 0.1])
def test_spreads_between_wide_and_narrow_are_kept(std):
    found = JUMP(np.zeros((500, 1, 14, 3)), std, 1.0, law=(0.0, std))
    assert np.std(found) == pytest.approx(std, rel=0.05)


def test_a_narrow_slot_beside_wide_ones_keeps_its_spread():
    found = JUMP(np.zeros((500, 1, 14, 3)), 0.25, 1.0, law=(0.0, 0.028))
    assert np.std(found) == pytest.approx(0.028, rel=0.05)


def test_fewer_steps_are_worse():
    jump = make_jump(foellmer, normal, 4)
    found = jump(np.zeros((500, 1, 14, 3)), 0.028, 1.0, law=(0.0, 0.028))
    assert abs(np.std(found) / 0.028 - 1.0) > 0.1


def test_the_estimate_is_the_normal_end_point():
    scales = paths.Scales(jnp.full((14, 1), 0.4), jnp.full((14, 1), 1.5))
    x_0, x_t = np.random.default_rng(0).normal(size=(2, 1, 14, 3)).astype(np.float32)
    for t in (0.1, 0.5, 0.97):
        path = foellmer.path(jnp.float32(t))
        known = paths.estimate(path, scales, jnp.asarray(x_0), jnp.asarray(x_t))
        gain = 0.4**2 / (t * 0.4**2 + 1.5**2 * (1.0 - t) ** 2)
        np.testing.assert_allclose(known.mean, x_0 + gain * (x_t - x_0), atol=1e-5)
        posterior = 1.0 / np.sqrt(1.0 / 0.4**2 + t / (1.5 * (1.0 - t)) ** 2)
        np.testing.assert_allclose(known.std, posterior, rtol=1e-4)
        level = 1.5 * (1.0 - t) / np.sqrt(t)
        np.testing.assert_allclose(known.log_level, np.log(level), atol=1e-4)


def test_without_noise_nothing_is_known_but_the_source():
    scales = paths.Scales(jnp.full((14, 1), 0.4), jnp.full((14, 1), 1.5))
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(1, 14, 3)), jnp.float32)
    known = paths.estimate(foellmer.path(jnp.zeros(())), scales, x_0, x_0)
    np.testing.assert_array_equal(known.mean, x_0)
    np.testing.assert_allclose(known.std, 0.4, rtol=1e-6)
    assert np.all(np.isfinite(known.displacement))


@pytest.mark.parametrize("num_steps", [10, 20])
@pytest.mark.parametrize(
    ("rare", "num_coordinates", "apart"), [(0.03, 12, 1.3), (0.2, 5, 2.0)]
)
def test_a_rare_basin_far_off_in_many_coordinates_comes_as_often_as_it_must(
    num_steps, rare, num_coordinates, apart
):
    """Basins a few noises apart are decided between early, at high levels of noise."""
    moved = jnp.zeros(42).at[:num_coordinates].set(apart).reshape(1, 14, 3)
    scales = paths.Scales(jnp.full((14, 1), 0.26), jnp.full((14, 1), 1.05))

    def predict(x_t, t):
        at = foellmer.path(t)
        variance = (0.15 * at.beta) ** 2 + (1.05 * at.gamma) ** 2 + 1e-12
        beyond = jnp.stack([x_t, x_t - at.beta * moved])
        logits = -0.5 * jnp.sum(beyond**2, axis=(1, 2, 3)) / variance
        shares = jax.nn.softmax(logits + jnp.log(jnp.array([1.0 - rare, rare])))
        ends = at.beta * 0.15**2 / variance * beyond + jnp.stack([0.0 * moved, moved])
        return (jnp.einsum("k,kabc->abc", shares, ends),)

    @jax.jit
    @jax.vmap
    def run(key):
        start = jnp.zeros((1, 14, 3))
        return foellmer.jump(
            paths.Request(predict, draw_noise, key, start, scales, num_steps, "bridge")
        )

    ends = run(jax.random.split(jax.random.key(0), 40_000))
    found = np.mean(np.asarray(ends)[:, 0, 0, 0] > apart / 2)
    assert found == pytest.approx(rare, rel=0.1)


@pytest.mark.parametrize("std", [0.028, 1.0])
def test_an_end_made_anew_has_the_law_of_ends_and_is_near(std):
    """Narrow slots are drawn again, with nine tenths of the spread; wide ones stay."""
    scales = paths.Scales(jnp.full((14, 1), std), jnp.ones((14, 1)))
    known = std * np.random.default_rng(0).normal(size=(500, 1, 14, 3))

    @jax.jit
    @jax.vmap
    def remake(key, x_1):
        x_0 = jnp.zeros_like(x_1)
        modes = normal(x_0, (0.0, std))
        predict = predict_exactly(foellmer, 1.0, modes, x_0)
        request = paths.Request(predict, draw_noise, key, x_0, scales, NUM_STEPS)
        return foellmer.remake(request, x_1)

    keys = jax.random.split(jax.random.key(0), len(known))
    found = np.asarray(remake(keys, jnp.asarray(known, jnp.float32)))
    assert 0.88 * std < np.std(found) < 1.02 * std
    correlation = np.corrcoef(found.ravel(), known.ravel())[0, 1]
    assert correlation < 0.1 if std < 0.1 else correlation > 0.9
