r"""Solvers of flows and of stochastic differential equations, on given times.

Times may rise or fall, and are any clock: the time of a path, or a level of noise.
Every solver runs in a compiled loop, `jax.lax.scan`, over the steps between them.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

State = Float[Array, "*shape"]
Time = Float[Array, ""]
Times = Float[Array, " num_times"]
Velocity: TypeAlias = Callable[[State, Time], State]
DrawNoise: TypeAlias = Callable[[Key[Array, ""]], State]


def euler(velocity: Velocity, x: State, times: Times) -> State:
    r"""Solves $dx / dt = v(x, t)$ by Euler's method: one evaluation a step.

    Args:
        velocity: function $v$ of the state and the time.
        x: state at the first time.
        times: times between which steps are taken.

    >>> float(euler(lambda x, t: -x, jnp.array(1.0), jnp.array([0.0, 0.5, 1.0])))
    0.25
    """

    def step(x: State, ends: tuple[Time, Time]) -> tuple[State, None]:
        t, u = ends
        return x + (u - t) * velocity(x, t), None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


def heun(velocity: Velocity, x: State, times: Times) -> State:
    r"""Solves $dx / dt = v(x, t)$ by Heun's method, whose last step is Euler's.

    At the last time noise may be gone, and the velocity without meaning (Karras et al.
    2022, arXiv:2206.00364, algorithm 1). So n steps take 2 n - 1 evaluations.

    Args:
        velocity: function $v$ of the state and the time.
        x: state at the first time.
        times: times between which steps are taken.

    >>> float(heun(lambda x, t: 2.0 * t, jnp.array(0.0), jnp.array([0.0, 1.0, 1.0])))
    1.0
    """

    def step(x: State, ends: tuple[Time, Time]) -> tuple[State, None]:
        t, u = ends
        first = velocity(x, t)
        second = velocity(x + (u - t) * first, u)
        return x + 0.5 * (u - t) * (first + second), None

    x = jax.lax.scan(step, x, (times[:-2], times[1:-1]))[0]
    return euler(velocity, x, times[-2:])


def ancestral(
    denoise: Velocity,
    y: State,
    levels: Times,
    draw_noise: DrawNoise,
    key: Key[Array, ""],
) -> State:
    r"""Draws each level of noise from its law given the expected clean sample.

    From $\sigma$ to $u$ that is $N(D + (u / \sigma)^2 (y - D),\; u^2 (1 - u^2 /
    \sigma^2))$ (Ho et al. 2020, arXiv:2006.11239, equations 6 and 7; variance
    exploding).

    Args:
        denoise: denoiser $D$ of the noised sample and the level.
        y: sample noised at the first level.
        levels: falling levels of noise; the last may be zero.
        draw_noise: function of a key that gives standard normal numbers.
        key: key of all steps.

    >>> noise = lambda key: jax.random.normal(key)
    >>> levels, key = jnp.array([2.0, 1.0, 0.0]), jax.random.key(0)
    >>> float(ancestral(lambda y, level: 3.0 + 0.0 * y, noise(key), levels, noise, key))
    3.0
    """

    def step(y: State, inputs: tuple[Time, Time, Array]) -> tuple[State, None]:
        now, later, key = inputs
        share = jnp.square(later / now)
        mean = denoise(y, now)
        std = later * jnp.sqrt(1.0 - share)
        return mean + share * (y - mean) + std * draw_noise(key), None

    keys = jax.random.split(key, len(levels) - 1)
    return jax.lax.scan(step, y, (levels[:-1], levels[1:], keys))[0]


def euler_maruyama(
    drift: Callable[[State, Time, Array], State],
    diffusion: Float[Array, " num_steps *factor"],
    x: State,
    times: Times,
    draw_noise: DrawNoise,
    key: Key[Array, ""],
) -> State:
    r"""Solves $dX = b(X, t, g)\, dt + g\, dB$ by the Euler-Maruyama method.

    Args:
        drift: function $b$ of the state, the time and the diffusion. Where it is
            $v + g^2 s / 2$, with the velocity $v$ of a flow and the score $s$, the law
            of X at every time is the flow's, whatever $g$.
        diffusion: factor $g$ of each step, broadcast against the state.
        x: state at the first time.
        times: rising times between which steps are taken.
        draw_noise: function of a key that gives standard normal numbers.
        key: key of all steps.

    >>> noise = lambda key: jax.random.normal(key)
    >>> still, times = jnp.zeros(2), jnp.array([0.0, 0.5, 1.0])
    >>> decay = lambda x, t, g: -x
    >>> key = jax.random.key(0)
    >>> float(euler_maruyama(decay, still, jnp.array(1.0), times, noise, key))
    0.25
    """

    def step(x: State, inputs: tuple[Time, Time, Array, State]) -> tuple[State, None]:
        t, u, g, noise = inputs
        return x + (u - t) * drift(x, t, g) + jnp.sqrt(u - t) * g * noise, None

    noises = jax.vmap(draw_noise)(jax.random.split(key, len(times) - 1))
    return jax.lax.scan(step, x, (times[:-1], times[1:], diffusion, noises))[0]
