"""Tests of denoisers: their targets, their loss, and samplers on known laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.generative import denoising
from common.generative.schedules import Level, karras_schedule, variance_exploding
from common.geometry import alignment
from tests.common.geometry.test_alignment import CHIRAL, random_rotation


def mixture(y, sigma, modes):
    """E[x | y] of a mixture of normals (weight, mean, std)."""
    logits, means = [], []
    for weight, mean, std in modes:
        variance = std**2 + sigma**2
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
    levels = karras_schedule(STEPS[method], 30.0, 0.005)
    start = levels[0] * jax.random.normal(key_start, shape)
    return denoising.sample(
        partial(mixture, modes=modes),
        start,
        levels,
        method,
        lambda key: jax.random.normal(key, shape),
        key_steps,
    )


@pytest.mark.parametrize("method", denoising.METHODS)
@pytest.mark.parametrize("std", [1.0, 0.028])
def test_samplers_keep_the_spread_of_a_normal(method, std):
    found = draw(method, ((1.0, 0.0, std),), jax.random.key(0))
    assert np.std(found) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("method", denoising.METHODS)
def test_samplers_keep_the_weights_of_two_modes(method):
    modes = ((0.3, -1.0, 0.1), (0.7, 1.0, 0.1))
    found = np.ravel(draw(method, modes, jax.random.key(1)))
    assert np.mean(found < 0.0) == pytest.approx(0.3, abs=0.02)
    assert np.std(found[found > 0.0]) == pytest.approx(0.1, rel=0.1)


def oracle(y, sigma):
    x = jnp.asarray(CHIRAL - CHIRAL.mean(axis=0), jnp.float32)
    return alignment.oracle_denoiser(y, x[None], sigma).denoised


@pytest.mark.parametrize("method", denoising.METHODS)
def test_the_optimal_denoiser_makes_its_molecule_from_noise(method):
    """In every orientation, and never its mirror image."""
    keys = jax.random.split(jax.random.key(2), 64)
    levels = karras_schedule(STEPS[method] // 2, 10.0, 0.01)
    noise = lambda key: jax.random.normal(key, CHIRAL.shape)
    one = lambda key: denoising.sample(
        oracle,
        levels[0] * noise(key),
        levels,
        method,
        noise,
        jax.random.fold_in(key, 1),
    )
    found = jax.jit(jax.vmap(one))(keys)
    x = jnp.asarray(CHIRAL, jnp.float32)
    assert np.max(alignment.rmsd(found, x)) < 0.02
    directions = np.asarray(found[:, 1] / np.linalg.norm(found[:, 1:2], axis=-1))
    assert np.linalg.norm(directions.mean(axis=0)) < 0.4


def losses(method, denoise=lambda y, level: oracle(y, level.sigma), **changes):
    """Of the molecule in all orientations, at a noise of .3 Å."""
    x = np.stack([CHIRAL @ random_rotation(seed).T for seed in range(400)])
    arguments = {
        "x": jnp.asarray(x + 5.0, jnp.float32),  # Anywhere in space.
        "noise": jax.random.normal(jax.random.key(0), x.shape),
        "level": variance_exploding(jnp.full(400, 0.3)),
        "sigma_data": 50.0,
        "method": method,
        **changes,
    }
    return np.asarray(denoising.denoising_loss(denoise, **arguments))


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
    level = variance_exploding(jnp.full(3, 0.3))
    shrink = lambda y, level: 0.9 * y
    found = denoising.denoising_loss(shrink, x, noise, level, 1.0)
    mask = jnp.broadcast_to(jnp.arange(7) < 5, (3, 7))
    padded = denoising.denoising_loss(
        shrink, pad(x, 9.0), pad(noise, 3.0), level, 1.0, mask
    )
    np.testing.assert_allclose(padded, found, rtol=1e-5)


def test_clean_cloud_and_noise_make_what_is_seen():
    y = jax.random.normal(jax.random.key(0), CHIRAL.shape)
    level = Level(jnp.float32(0.8), jnp.float32(0.6))
    weights = jnp.array([1.0, 4.0, 1.0, 0.5, 2.0])
    x = jnp.asarray(CHIRAL, jnp.float32)
    for method in ("single", "exact"):
        found = denoising.expected(y, x, level, None, weights, method)
        again = 0.8 * found.clean + 0.6 * found.noise / jnp.sqrt(weights)[:, None]
        np.testing.assert_allclose(again, y, atol=1e-5)


def test_points_that_are_known_hold_the_rest():
    """Three of weight 10^4 fix the frame: the target is the cloud as it was."""
    weights = jnp.array([1e4, 1e4, 1e4, 1.0, 1.0])
    x, _ = alignment.center(jnp.asarray(CHIRAL, jnp.float32), None, weights)
    noise = jax.random.normal(jax.random.key(3), x.shape)
    y = x + 0.3 * noise * (weights < 2.0)[:, None]
    found = denoising.expected(
        y, x, variance_exploding(jnp.float32(0.3)), None, weights
    )
    np.testing.assert_allclose(found.clean, x, atol=0.01)
    free = denoising.expected(y, x, variance_exploding(jnp.float32(0.3)))
    assert np.max(np.abs(free.clean - x)) > 0.05


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"expected one of .*heun.*found 'dpm'"):
        denoising.sample(oracle, jnp.zeros((5, 3)), jnp.ones(2), "dpm")


@pytest.mark.parametrize("given", [{}, {"key": jax.random.key(0)}])
def test_ancestral_steps_need_noise_and_a_key(given):
    with pytest.raises(ValueError, match="expected draw_noise and key, found no draw"):
        denoising.sample(oracle, jnp.zeros((5, 3)), jnp.ones(2), "ancestral", **given)
    noise = lambda key: jax.random.normal(key, (5, 3))
    with pytest.raises(ValueError, match="found no key"):
        denoising.sample(oracle, jnp.zeros((5, 3)), jnp.ones(2), "ancestral", noise)


def test_a_flow_has_the_closed_form_of_a_normal():
    """Of N(0, s^2): y sqrt((s^2 + u^2) / (s^2 + sigma^2)), from sigma down to u = 0."""
    y = 3.0 * jax.random.normal(jax.random.key(0), (4, 3))
    denoise = lambda y, sigma: 0.25 / (0.25 + sigma**2) * y
    expected = y * 0.5 / np.sqrt(0.25 + 9.0)
    for method, num_steps in (("heun", 60), ("euler", 2_000)):
        levels = karras_schedule(num_steps, 3.0, 1e-3)
        found = denoising.sample(denoise, y, levels, method)
        np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_the_loss_of_the_prior_alone_is_one():
    """What preconditioning is for: a network that says nothing has an error of one."""
    key_x, key_noise = jax.random.split(jax.random.key(0))
    x = 0.7 * jax.random.normal(key_x, (500, 40, 3))
    noise = jax.random.normal(key_noise, x.shape)
    for sigma in (0.1, 1.0, 5.0):
        level = variance_exploding(jnp.full(500, sigma))
        shrink = lambda y, level: 0.49 / (0.49 + level.sigma[0] ** 2) * y
        found = denoising.denoising_loss(
            shrink, x, noise, level, 0.7, None, None, "single"
        )
        # Centring takes one point of forty.
        assert np.mean(found) == pytest.approx(39 / 40, rel=0.01)


@pytest.mark.parametrize("method", denoising.METHODS)
def test_a_known_cloud_is_reached_from_any_noise(method):
    x = jnp.asarray(CHIRAL, jnp.float32)
    levels = karras_schedule(6, 5.0, 0.1)
    noise = lambda key: jax.random.normal(key, x.shape)
    found = denoising.sample(
        lambda y, sigma: x, 3.0 * noise(jax.random.key(1)), levels, method, noise,
        jax.random.key(0),
    )  # fmt: skip
    np.testing.assert_allclose(found, x, atol=1e-5)


@pytest.mark.parametrize("method", denoising.METHODS)
def test_a_single_step_is_one_denoising(method):
    y = jnp.asarray(CHIRAL, jnp.float32)
    noise = lambda key: jax.random.normal(key, y.shape)
    found = denoising.sample(
        lambda y, sigma: 0.3 * y, y, jnp.array([2.0, 0.0]), method, noise,
        jax.random.key(0),
    )  # fmt: skip
    np.testing.assert_allclose(found, 0.3 * y, atol=1e-6)


@pytest.mark.parametrize("alignment_method", ["single", "mode", "exact"])
def test_the_loss_is_blind_to_where_a_cloud_lies_and_how(alignment_method):
    """For a denoiser that rotates with its input."""
    key_x, key_noise = jax.random.split(jax.random.key(0))
    x, noise = (jax.random.normal(key, (4, 5, 3)) for key in (key_x, key_noise))
    level = variance_exploding(jnp.full(4, 0.5))
    shrink = lambda y, level: 0.7 * y
    loss = lambda x, noise: denoising.denoising_loss(
        shrink, x, noise, level, 1.0, None, None, alignment_method
    )
    due = loss(x, noise)
    turn = jnp.asarray(random_rotation(3))
    rotate = lambda z: alignment.rotate(z, turn)
    np.testing.assert_allclose(loss(rotate(x) + 7.0, rotate(noise)), due, rtol=1e-4)


def test_masked_points_have_no_expected_noise():
    key_x, key_y = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(key, (2, 5, 3)) for key in (key_x, key_y))
    mask = jnp.arange(5) < jnp.array([[3], [5]])
    level = Level(jnp.full(2, 0.8), jnp.array([0.3, 2.0]))
    found = denoising.expected(y, x, level, mask)
    np.testing.assert_array_equal(found.noise[0, 3:], 0.0)
    np.testing.assert_array_equal(found.clean[0, 3:], 0.0)
    one = denoising.expected(y[1], x[1], Level(level.alpha[1], level.sigma[1]))
    np.testing.assert_allclose(found.clean[1], one.clean, atol=1e-5)
    np.testing.assert_allclose(found.noise[1], one.noise, atol=1e-5)
