"""Tests of the solvers, on equations that are solved in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.generative import solvers
from common.generative.schedules import karras_schedule

SHAPE = (20_000,)


def noise(key):
    return jax.random.normal(key, SHAPE)


def error(solve, num_steps):
    """Of dx/dt = -t x from 1, which ends at exp(-1/2)."""
    times = jnp.linspace(0.0, 1.0, num_steps + 1)
    found = solve(lambda x, t: -t * x, jnp.ones(()), times)
    return abs(float(found) - np.exp(-0.5))


@pytest.mark.parametrize("solve", [solvers.euler, solvers.heun])
def test_a_constant_velocity_is_followed_exactly(solve):
    times = jnp.array([3.0, 1.0, 0.5, 0.0])  # They may fall.
    found = solve(lambda x, t: jnp.full_like(x, 2.0), jnp.ones(4), times)
    np.testing.assert_allclose(found, 1.0 - 6.0, rtol=1e-6)


def test_euler_is_of_first_order():
    assert error(solvers.euler, 20) / error(solvers.euler, 40) == pytest.approx(
        2.0, rel=0.1
    )


def test_heun_is_of_second_order():
    """Where the last step, which is Euler's, is short."""

    def solve(num_steps):
        times = jnp.append(jnp.linspace(0.0, 1.0, num_steps + 1), 1.0)
        found = solvers.heun(lambda x, t: -x, jnp.ones(()), times)
        return abs(float(found) - np.exp(-1.0))

    assert solve(5) / solve(10) == pytest.approx(4.0, rel=0.2)
    assert solve(10) < 0.1 * error(solvers.euler, 20)  # Of as many evaluations.


def test_heun_never_asks_at_the_last_time():
    """Where there is no noise left a velocity may be nothing divided by nothing."""
    velocity = lambda x, t: x / (1.0 - t) * jnp.where(t < 1.0, 1.0, jnp.nan)
    found = solvers.heun(velocity, jnp.ones(()), jnp.array([0.0, 0.5, 0.75, 1.0]))
    assert np.isfinite(found)


@pytest.mark.parametrize(("solve", "expected"), [(solvers.euler, 4), (solvers.heun, 7)])
def test_evaluations_are_counted(solve, expected):
    calls = []

    def velocity(x, t):
        jax.debug.callback(lambda _: calls.append(1), t)
        return -x

    solve(velocity, jnp.ones(()), jnp.linspace(0.0, 1.0, 5))
    jax.effects_barrier()
    assert len(calls) == expected


def gaussian(spread):
    """The denoiser of normal data."""
    return lambda y, sigma: spread**2 / (spread**2 + sigma**2) * y


@pytest.mark.parametrize(("spread", "loss"), [(1.0, 0.02), (0.03, 0.05)])
def test_ancestral_steps_keep_the_spread_of_a_normal(spread, loss):
    levels = karras_schedule(400, 30.0, 0.003)
    start = 30.0 * noise(jax.random.key(0))
    found = solvers.ancestral(gaussian(spread), start, levels, noise, jax.random.key(1))
    assert np.std(found) == pytest.approx(spread, rel=loss)
    assert np.mean(found) == pytest.approx(0.0, abs=4 * spread / SHAPE[0] ** 0.5)


def test_ancestral_steps_of_a_known_sample_have_its_law_at_every_level():
    """N(x, u^2) at level u, if the denoiser knows x."""
    for last in (0.5, 0.1):
        levels = jnp.array([2.0, 1.0, last])
        start = 3.0 + 2.0 * noise(jax.random.key(0))
        found = solvers.ancestral(
            lambda y, sigma: jnp.full_like(y, 3.0), start, levels, noise,
            jax.random.key(1),
        )  # fmt: skip
        assert np.mean(found) == pytest.approx(3.0, abs=0.02)
        assert np.std(found) == pytest.approx(last, rel=0.02)


def test_steps_without_diffusion_are_euler_s():
    times = jnp.linspace(0.0, 1.0, 9)
    found = solvers.euler_maruyama(
        lambda x, t, g: -t * x, jnp.zeros(8), jnp.ones(SHAPE), times, noise,
        jax.random.key(0),
    )  # fmt: skip
    due = solvers.euler(lambda x, t: -t * x, jnp.ones(SHAPE), times)
    np.testing.assert_allclose(found, due, rtol=1e-6)


def test_brownian_motion_has_the_variance_of_its_time():
    diffusion = jnp.array([0.0, 2.0, 1.0])  # None in the first step.
    found = solvers.euler_maruyama(
        lambda x, t, g: 0.0 * x, diffusion, jnp.zeros(SHAPE),
        jnp.array([0.0, 5.0, 6.0, 8.0]), noise, jax.random.key(0),
    )  # fmt: skip
    assert np.var(found) == pytest.approx(4.0 * 1.0 + 1.0 * 2.0, rel=0.03)


@pytest.mark.parametrize("g", [0.5, 2.0])
def test_the_score_keeps_a_law_whatever_the_diffusion(g):
    """Langevin dynamics: at rest under N(1, 1), whose score is 1 - x."""
    times = jnp.linspace(0.0, 2.0, 401)
    found = solvers.euler_maruyama(
        lambda x, t, g: 0.5 * g**2 * (1.0 - x), jnp.full(400, g),
        1.0 + noise(jax.random.key(0)), times, noise, jax.random.key(1),
    )  # fmt: skip
    assert np.mean(found) == pytest.approx(1.0, abs=0.03)
    assert np.std(found) == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("solve", [solvers.euler, solvers.heun])
def test_linear_flows_have_their_discrete_solution(solve):
    """Each step of Euler's multiplies by 1 - h, of Heun's by 1 - h + h^2 / 2."""
    h, count = 0.125, 8
    found = solve(lambda x, t: -x, jnp.ones(()), h * jnp.arange(count + 1.0))
    factor = 1.0 - h if solve is solvers.euler else 1.0 - h + h**2 / 2.0
    due = factor ** (count - 1) * (1.0 - h)
    assert float(found) == pytest.approx(due, rel=1e-5)
    slope = jax.grad(lambda x: solve(lambda x, t: -x, x, h * jnp.arange(count + 1.0)))(
        1.0
    )
    assert float(slope) == pytest.approx(due, rel=1e-5)


def test_there_and_back_again():
    """Along falling times a flow runs backwards."""
    velocity = lambda x, t: jnp.stack([-x[1], x[0]])  # Once round the circle.
    times = jnp.linspace(0.0, 2.0, 400)
    start = jnp.array([1.0, 0.0])
    there = solvers.heun(velocity, start, times)
    np.testing.assert_allclose(there, [np.cos(2.0), np.sin(2.0)], atol=1e-4)
    back = solvers.heun(velocity, there, times[::-1])
    np.testing.assert_allclose(back, start, atol=1e-4)


def test_one_key_decides_all_noise():
    levels = karras_schedule(5, 3.0, 0.1)[:-1]
    draw = lambda seed: solvers.ancestral(
        gaussian(1.0), jnp.zeros(SHAPE), levels, noise, jax.random.key(seed)
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    assert abs(np.corrcoef(draw(0), draw(1))[0, 1]) < 0.05
