"""Tests of diffusion: levels, preconditioning, the loss, and samplers on known laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.generative import diffusion
from common.geometry import alignment
from tests.common.geometry.test_alignment import CHIRAL, random_rotation

RATIOS = np.geomspace(0.01, 30.0, 7).astype(np.float32)


def test_signal_and_noise_keep_their_ratio():
    for schedule in (diffusion.variance_exploding, diffusion.variance_preserving):
        level = schedule(jnp.asarray(RATIOS))
        np.testing.assert_allclose(level.sigma / level.alpha, RATIOS, rtol=1e-5)
    level = diffusion.variance_preserving(jnp.asarray(RATIOS), 1.7)
    variance = np.square(level.alpha * 1.7) + np.square(level.sigma)
    np.testing.assert_allclose(variance, 1.7**2, rtol=1e-5)
    level = diffusion.variance_exploding(jnp.asarray(RATIOS))
    np.testing.assert_array_equal(level.alpha, 1.0)


def test_preconditioning_is_that_of_karras():
    """Table 1 of arXiv:2206.00364, which has a signal of scale one."""
    sigma, data = 0.8, 0.5
    found = diffusion.precondition(
        diffusion.Level(jnp.ones(()), jnp.float32(sigma)), data
    )
    total = sigma**2 + data**2
    expected = [
        data**2 / total, sigma * data / total**0.5, total**-0.5, np.log(sigma) / 4,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_a_network_is_asked_for_has_unit_variance():
    rng = np.random.default_rng(0)
    x, noise = 1.3 * rng.normal(size=200_000), rng.normal(size=200_000)
    level = diffusion.variance_preserving(jnp.float32(0.7), 2.0)
    scales = diffusion.precondition(level, 1.3)
    y = np.asarray(level.alpha * x + level.sigma * noise)
    asked = (x - scales.skip * y) / scales.out
    assert np.std(asked) == pytest.approx(1.0, abs=0.01)
    assert np.std(scales.input * y) == pytest.approx(1.0, abs=0.01)
    assert np.mean(asked * y) == pytest.approx(0.0, abs=0.01)


def test_ratios_fall_from_the_largest_to_none():
    found = np.asarray(diffusion.falling_ratios(5, 80.0, 0.002))
    assert found[0] == pytest.approx(80.0)
    assert found[-2] == pytest.approx(0.002, rel=1e-3)
    assert found[-1] == 0.0
    assert np.all(np.diff(found) < 0.0)
    # Equation 5: evenly spaced in the seventh root.
    np.testing.assert_allclose(np.diff(found[:-1] ** (1 / 7), 2), 0.0, atol=1e-5)


def mixture(y, ratio, modes):
    """E[x | y] of a mixture of normals (weight, mean, std)."""
    logits, means = [], []
    for weight, mean, std in modes:
        variance = std**2 + ratio**2
        logits.append(
            jnp.log(weight)
            - 0.5 * jnp.log(variance)
            - 0.5 * jnp.square(y - mean) / variance
        )
        means.append(mean + std**2 / variance * (y - mean))
    shares = jax.nn.softmax(jnp.stack(logits), axis=0)
    return jnp.sum(shares * jnp.stack(means), axis=0)


STEPS = {"heun": 20, "euler": 200, "ancestral": 400}


@partial(jax.jit, static_argnums=(0, 1))
def draw(method, modes, key):
    key_start, key_steps = jax.random.split(key)
    shape = (1, 20_000, 3)
    ratios = diffusion.falling_ratios(STEPS[method], 30.0, 0.005)
    start = ratios[0] * jax.random.normal(key_start, shape)
    return diffusion.sample(
        partial(mixture, modes=modes),
        start,
        ratios,
        method,
        lambda key: jax.random.normal(key, shape),
        key_steps,
    )


@pytest.mark.parametrize("method", diffusion.METHODS)
@pytest.mark.parametrize("std", [1.0, 0.028])
def test_samplers_keep_the_spread_of_a_normal(method, std):
    found = draw(method, ((1.0, 0.0, std),), jax.random.key(0))
    assert np.std(found) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("method", diffusion.METHODS)
def test_samplers_keep_the_weights_of_two_modes(method):
    modes = ((0.3, -1.0, 0.1), (0.7, 1.0, 0.1))
    found = np.ravel(draw(method, modes, jax.random.key(1)))
    assert np.mean(found < 0.0) == pytest.approx(0.3, abs=0.02)
    assert np.std(found[found > 0.0]) == pytest.approx(0.1, rel=0.1)


def oracle(y, ratio):
    x = jnp.asarray(CHIRAL - CHIRAL.mean(axis=0), jnp.float32)
    return alignment.oracle_denoiser(y, x[None], ratio).denoised


@pytest.mark.parametrize("method", diffusion.METHODS)
def test_the_optimal_denoiser_makes_its_molecule_from_noise(method):
    """In every orientation, and never its mirror image."""
    keys = jax.random.split(jax.random.key(2), 64)
    ratios = diffusion.falling_ratios(STEPS[method] // 2, 10.0, 0.01)
    noise = lambda key: jax.random.normal(key, CHIRAL.shape)
    one = lambda key: diffusion.sample(
        oracle,
        ratios[0] * noise(key),
        ratios,
        method,
        noise,
        jax.random.fold_in(key, 1),
    )
    found = jax.jit(jax.vmap(one))(keys)
    x = jnp.asarray(CHIRAL, jnp.float32)
    assert np.max(alignment.rmsd(found, x)) < 0.02
    directions = np.asarray(found[:, 1] / np.linalg.norm(found[:, 1:2], axis=-1))
    assert np.linalg.norm(directions.mean(axis=0)) < 0.4


def test_a_denoiser_of_any_schedule_samples_alike():
    """One told alpha y and the level makes of it what the oracle makes of y."""

    def of_level(y, level):
        return oracle(y / level.alpha[..., None, None], level.sigma / level.alpha)

    wrapped = diffusion.in_ratio(of_level, diffusion.variance_preserving)
    y = jax.random.normal(jax.random.key(0), CHIRAL.shape)
    for ratio in (0.1, 2.0):
        found = wrapped(y, jnp.float32(ratio))
        np.testing.assert_allclose(found, oracle(y, ratio), atol=1e-4)


def losses(method, denoise=lambda y, level: oracle(y, level.sigma), **changes):
    """Of the molecule in all orientations, at a noise of .3 Å."""
    x = np.stack([CHIRAL @ random_rotation(seed).T for seed in range(400)])
    arguments = {
        "x": jnp.asarray(x + 5.0, jnp.float32),  # Anywhere in space.
        "noise": jax.random.normal(jax.random.key(0), x.shape),
        "level": diffusion.variance_exploding(jnp.full(400, 0.3)),
        "sigma_data": 50.0,
        "method": method,
        **changes,
    }
    return np.asarray(diffusion.denoising_loss(denoise, **arguments))


def test_the_exact_loss_of_the_optimal_denoiser_is_zero():
    assert np.max(losses("exact")) < 1e-6


def test_the_single_loss_keeps_the_variance_of_three_rotations():
    """3 sigma^2 of a molecule's 3 n sigma^2, to first order in the noise."""
    assert np.mean(losses("single")) == pytest.approx(1 / 5, rel=0.15)


def test_superposition_leaves_a_bias():
    found = np.mean(losses("mode"))
    assert 1e-5 < found < 0.05


def test_padding_counts_for_nothing():
    pad = lambda x, value: jnp.pad(x, ((0, 0), (0, 2), (0, 0)), constant_values=value)
    x = jnp.asarray(np.stack([CHIRAL] * 3), jnp.float32)
    noise = jax.random.normal(jax.random.key(0), x.shape)
    level = diffusion.variance_exploding(jnp.full(3, 0.3))
    shrink = lambda y, level: 0.9 * y
    found = diffusion.denoising_loss(shrink, x, noise, level, 1.0)
    mask = jnp.broadcast_to(jnp.arange(7) < 5, (3, 7))
    padded = diffusion.denoising_loss(
        shrink, pad(x, 9.0), pad(noise, 3.0), level, 1.0, mask
    )
    np.testing.assert_allclose(padded, found, rtol=1e-5)


def test_clean_cloud_and_noise_make_what_is_seen():
    y = jax.random.normal(jax.random.key(0), CHIRAL.shape)
    level = diffusion.Level(jnp.float32(0.8), jnp.float32(0.6))
    weights = jnp.array([1.0, 4.0, 1.0, 0.5, 2.0])
    x = jnp.asarray(CHIRAL, jnp.float32)
    for method in ("single", "exact"):
        found = diffusion.expected(y, x, level, None, weights, method)
        again = 0.8 * found.clean + 0.6 * found.noise / jnp.sqrt(weights)[:, None]
        np.testing.assert_allclose(again, y, atol=1e-5)


def test_points_that_are_known_hold_the_rest():
    """Three of weight 10^4 fix the frame: the target is the cloud as it was."""
    weights = jnp.array([1e4, 1e4, 1e4, 1.0, 1.0])
    x, _ = alignment.center(jnp.asarray(CHIRAL, jnp.float32), None, weights)
    noise = jax.random.normal(jax.random.key(3), x.shape)
    y = x + 0.3 * noise * (weights < 2.0)[:, None]
    found = diffusion.expected(
        y, x, diffusion.variance_exploding(jnp.float32(0.3)), None, weights
    )
    np.testing.assert_allclose(found.clean, x, atol=0.01)
    free = diffusion.expected(y, x, diffusion.variance_exploding(jnp.float32(0.3)))
    assert np.max(np.abs(free.clean - x)) > 0.05


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"expected one of .*heun.*found 'dpm'"):
        diffusion.sample(oracle, jnp.zeros((5, 3)), jnp.ones(2), "dpm")
