"""Tests of the Föllmer transport with exact end points of solvable targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equijump.transport import foellmer, paths

NUM_STEPS = 10  # As in configs/equijump/ala2.py.


def draw_noise(key):
    return jax.random.normal(key, (1, 14, 3))


def jump(end_point, x_0, spread, noise, seed=0, num_steps=NUM_STEPS):
    """Ends of jumps from many sources; every number is a target of its own."""
    keys = jax.random.split(jax.random.key(seed), len(x_0))
    scales = paths.Scales(jnp.full((14, 1), spread), jnp.full((14, 1), noise))

    @jax.jit
    @jax.vmap
    def run(key, x_0):
        at = lambda x, t: end_point(x, t, x_0)
        return foellmer.jump(at, draw_noise, key, x_0, scales, num_steps)

    return np.asarray(run(keys, jnp.asarray(x_0, jnp.float32)))


def normal_end(mean, std, noise):
    """E[x_1 | x_t, x_0] where x_1 is normal around `mean(x_0)`."""

    def end_point(x_t, t, x_0):
        gain = std**2 / (t * std**2 + noise**2 * (1.0 - t) ** 2)
        return mean(x_0) + gain * (x_t - (1.0 - t) * x_0 - t * mean(x_0))

    return end_point


def test_the_path_begins_at_the_source_and_ends_at_the_target():
    scales = paths.Scales(jnp.ones((14, 1)), jnp.full((14, 1), 3.0))
    x_0, x_1, z = np.random.default_rng(0).normal(size=(3, 1, 14, 3)).astype(np.float32)
    for t, end in ((0.0, x_0), (1.0, x_1)):
        path = foellmer.path(jnp.float32(t))
        found = paths.noised(path, scales, *map(jnp.asarray, (x_0, x_1, z)))
        np.testing.assert_array_equal(found, end)


def test_levels_of_noise_fall_evenly_in_their_root():
    times = np.asarray(foellmer.times(NUM_STEPS))
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, NUM_STEPS + 1)
    levels = (1.0 - times[1:-1]) / np.sqrt(times[1:-1])
    ends = np.cbrt([foellmer.LARGEST, foellmer.SMALLEST])
    np.testing.assert_allclose(np.cbrt(levels), np.linspace(*ends, 9), atol=1e-3)
    last = foellmer.steps(NUM_STEPS)
    assert (float(last.kept[-1]), float(last.noise[-1])) == (0.0, 0.0)


def test_training_draws_levels_evenly_and_the_begin_of_a_jump():
    keys = jax.random.split(jax.random.key(0), 20_000)
    times = np.asarray(jax.vmap(foellmer.draw_time)(keys))
    assert np.mean(times == 0.0) == pytest.approx(foellmer.BLIND_SHARE, abs=0.01)
    levels = (1.0 - times[times > 0]) / np.sqrt(times[times > 0])
    high, low = foellmer.TRAINED
    shares = np.histogram(np.log(levels), np.linspace(np.log(low), np.log(high), 6))[0]
    np.testing.assert_allclose(shares / len(levels), 0.2, atol=0.02)


@pytest.mark.parametrize("std", [1.0, 0.3, 0.1, 0.028])
def test_wide_and_narrow_targets_keep_their_spread(std):
    end_point = normal_end(lambda x_0: 0.0 * x_0, std, 1.0)
    found = jump(end_point, np.zeros((3_000, 1, 14, 3)), std, noise=1.0)
    assert np.std(found) == pytest.approx(std, rel=0.05)
    assert np.mean(found) == pytest.approx(0.0, abs=0.02 * std)


@pytest.mark.parametrize("a", [0.5, 0.9, 0.99])
def test_a_rollout_of_ornstein_uhlenbeck_stays_stationary(a):
    std = np.sqrt(1.0 - a**2)
    spread = np.sqrt((1.0 - a) ** 2 + std**2)  # Of the displacement.
    noise = 2.0 * spread
    end_point = normal_end(lambda x_0: a * x_0, std, noise)
    x = np.random.default_rng(0).normal(size=(1_000, 1, 14, 3))
    for number in range(20):
        before = x
        x = jump(end_point, x, spread, noise, seed=number)
    assert np.var(x) == pytest.approx(1.0, rel=0.03)
    correlation = np.mean(x * before) / np.sqrt(np.var(x) * np.var(before))
    assert correlation == pytest.approx(a, abs=0.01)


def bimodal_end(noise):
    weights = np.array([0.85, 0.15])
    means, stds = np.array([0.8, -1.0]), np.array([0.1, 0.15])

    def end_point(x_t, t, x_0):
        # Of a time of zero nothing is seen but the source.
        seen = (x_t - (1.0 - t) * x_0)[..., None]
        variance = (noise * (1.0 - t)) ** 2 * t + 1e-12
        of_mode = t**2 * stds**2 + variance
        logits = jnp.log(weights) - 0.5 * jnp.log(of_mode)
        logits -= 0.5 * jnp.square(seen - t * means) / of_mode
        ends = means + t * stds**2 * (seen - t * means) / of_mode
        return jnp.sum(jax.nn.softmax(logits) * ends, axis=-1)

    return end_point


def test_two_basins_have_their_weights():
    x_0 = np.full((1_000, 1, 14, 3), 0.6)
    found = jump(bimodal_end(1.3), x_0, spread=0.65, noise=1.3).ravel()
    assert np.mean(found > 0) == pytest.approx(0.85, abs=0.01)
    rng = np.random.default_rng(1)
    upper = rng.random(found.size) < 0.85
    exact = np.where(
        upper, 0.8 + 0.1 * rng.normal(size=found.size),
        -1.0 + 0.15 * rng.normal(size=found.size),
    )  # fmt: skip
    assert np.mean(np.abs(np.sort(found) - np.sort(exact))) < 0.02


def test_a_narrow_slot_beside_wide_ones_keeps_its_spread():
    end_point = normal_end(lambda x_0: 0.0 * x_0, 0.028, 1.0)
    found = jump(end_point, np.zeros((1_000, 1, 14, 3)), spread=0.25, noise=1.0)
    assert np.std(found) == pytest.approx(0.028, rel=0.05)


def test_fewer_steps_are_worse():
    end_point = normal_end(lambda x_0: 0.0 * x_0, 0.028, 1.0)
    found = jump(end_point, np.zeros((1_000, 1, 14, 3)), 0.028, 1.0, num_steps=4)
    assert abs(np.std(found) / 0.028 - 1.0) > 0.1


def test_the_estimate_is_the_normal_end_point():
    scales = paths.Scales(jnp.full((14, 1), 0.4), jnp.full((14, 1), 1.5))
    x_0, x_t = np.random.default_rng(0).normal(size=(2, 1, 14, 3)).astype(np.float32)
    for t in (0.1, 0.5, 0.97):
        path = foellmer.path(jnp.float32(t))
        known = paths.estimate(path, scales, jnp.asarray(x_0), jnp.asarray(x_t))
        expected = normal_end(lambda x: x, 0.4, 1.5)(x_t, t, x_0)
        np.testing.assert_allclose(known.mean, expected, atol=1e-5)
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


def test_noise_is_masked_and_its_positions_centred():
    mask = jnp.asarray(np.arange(14)[None] < np.array([[5], [2], [0]]))
    noise = np.asarray(paths.draw_noise(jax.random.key(0), mask))
    assert not noise[~np.asarray(mask)].any()
    np.testing.assert_allclose(noise[:2, 1].sum(axis=0), 0.0, atol=1e-6)
    assert np.all(noise[0, :5] != 0.0)
