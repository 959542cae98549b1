"""Solvers that transports share: Euler, Heun, Euler-Maruyama, on given inner times."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from equijump.transport.paths import Path, Scales

Cloud = Float[Array, "num_nodes num_slots 3"]
Velocity = Callable[[Cloud, Float[Array, ""]], Cloud]


SMALLEST, ROOT = 0.01, 3.0
"""Share of the noise left at the last inner time, and the root in which it falls: with
ten steps of Heun spreads of .028 to 1 sigma are kept to 3 %."""


def falling(
    largest: float, smallest: float, num_levels: int
) -> Float[Array, " num_levels"]:
    """Returns levels of noise that fall evenly in their third root."""
    ends = largest ** (1.0 / ROOT), smallest ** (1.0 / ROOT)
    return jnp.linspace(*ends, num_levels) ** ROOT


def times_of(num_steps: int) -> Float[Array, " num_times"]:
    """Returns times from 0 to 1 between which 1 - t falls so."""
    return jnp.append(1.0 - falling(1.0, SMALLEST, num_steps), 1.0)


def follow(method: str, velocity: Velocity, x: Cloud, num_evaluations: int) -> Cloud:
    """Solves a flow from time 0 to 1 by "euler" or "heun", with so many evaluations."""
    if method == "euler":
        return euler(velocity, x, times_of(num_evaluations))
    return heun(velocity, x, times_of((num_evaluations + 1) // 2))


def euler(velocity: Velocity, x: Cloud, times: Float[Array, " num_times"]) -> Cloud:
    """Solves dx/dt = v(x, t), one evaluation a step."""

    def step(x: Cloud, ends: tuple[Array, Array]) -> tuple[Cloud, None]:
        t, u = ends
        return x + (u - t) * velocity(x, t), None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


def heun(velocity: Velocity, x: Cloud, times: Float[Array, " num_times"]) -> Cloud:
    """Solves dx/dt = v(x, t), two evaluations a step, one in the last.

    At the last time a path may have lost its noise, and the velocity no meaning.
    """

    def step(x: Cloud, ends: tuple[Array, Array]) -> tuple[Cloud, None]:
        t, u = ends
        first = velocity(x, t)
        second = velocity(x + (u - t) * first, u)
        return x + 0.5 * (u - t) * (first + second), None

    x = jax.lax.scan(step, x, (times[:-2], times[1:-1]))[0]
    return euler(velocity, x, times[-2:])


def euler_maruyama(
    predict: Callable[[Cloud, Float[Array, ""]], tuple[Cloud, Cloud]],
    path: Callable[[Float[Array, ""]], Path],
    draw_noise: Callable[[Key[Array, ""]], Cloud],
    key: Key[Array, ""],
    x: Cloud,
    times: Float[Array, " num_times"],
    scales: Scales,
    window: tuple[float, float],
) -> Cloud:
    r"""Solves the SDE of a stochastic interpolant with diffusion $\epsilon = \sigma^2$.

    $$ dX = \big(b - \mathbb 1_w \frac{\sigma}{\gamma} \eta \big) dt
       + \mathbb 1_w \sqrt 2 \sigma dB, $$
    since the score is $-\eta / (\gamma \sigma)$ (Albergo, Boffi and Vanden-Eijnden
    2023, arXiv:2303.08797, section 2). Outside the window $w$ of times the noise is so
    small that $1 / \gamma$ would amplify errors: there the drift is followed alone.

    Args:
        predict: Drift $b$ and noise $\eta$, of the noised frame and the time.
        path: Coefficients at a time.
        draw_noise: Standard normal numbers, masked and centred.
        key: Key of the jump.
        x: Å, the frame at the first time.
        times: Rising.
        scales: Å, of each slot.
        window: First and last time with diffusion.
    """

    def step(x: Cloud, inputs: tuple[Array, Array, Cloud]) -> tuple[Cloud, None]:
        t, u, fresh = inputs
        drift, noise = predict(x, t)
        width = u - t
        # The whole step lies inside, or its noise would stay.
        inside = (t >= window[0]) & (u <= window[1])
        gamma = jnp.where(inside, path(t).gamma, 1.0)
        pull = scales.noise / gamma * noise * width
        kick = jnp.sqrt(2.0 * width) * scales.noise * fresh
        return x + drift * width + jnp.where(inside, kick - pull, 0.0), None

    noises = jax.vmap(draw_noise)(jax.random.split(key, len(times) - 1))
    return jax.lax.scan(step, x, (times[:-1], times[1:], noises))[0]
