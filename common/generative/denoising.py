r"""Denoisers of point clouds: what they are asked for, their loss, their sampler.

A denoiser gives $D(y) = E[x \mid y]$ of a noised cloud $y = \alpha x + \sigma \epsilon$
(`common.generative.schedules`). Samplers work where $\alpha = 1$: there the score of y
is $(D - y) / \sigma^2$, and the flow that takes noise off is
$dy / d\sigma = (y - D) / \sigma$.

Clouds `[..., num_points, 3]` may come in any orientation;
see `common.geometry.alignment` for what a denoiser is then asked for.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common.generative import solvers
from common.generative.preconditioning import precondition
from common.generative.schedules import Level, Number
from common.geometry import alignment
from common.geometry.alignment import Cloud, Mask, Precision

METHODS = ("heun", "euler", "ancestral")


class Expected(NamedTuple):
    r"""Clean cloud and noise as they are expected, given the noised cloud.

    Attributes:
        clean: clean cloud, in the unit of the clouds.
        noise: noise $\epsilon$; $\alpha x + \sigma \epsilon / \sqrt w = y$ still holds.
    """

    clean: Cloud
    noise: Cloud


def expected(
    y: Cloud, x: Cloud, level: Level,
    mask: Mask | None = None, precision: Precision | None = None, method: str = "exact",
) -> Expected:  # fmt: skip
    """Returns what a network is asked for, clean cloud or noise, over orientations.

    Targets that are linear in both (a velocity, a drift) follow from them.

    Args:
        y: noised cloud.
        x: clean cloud.
        level: level of the noise.
        mask: true where real.
        precision: precision of each point, see `alignment.rotation_target`.
        method: way of aligning, see `alignment.rotation_target`.

    >>> level = Level(jnp.array(1.0), jnp.array(2.0))
    >>> found = expected(jnp.ones((1, 3)), jnp.zeros((1, 3)), level, method="single")
    >>> found.noise
    Array([[0.5, 0.5, 0.5]], dtype=float32)
    """
    clean = alignment.rotation_target(
        y, x, level.sigma, level.alpha, mask, precision, method
    )
    noise = (y - _of_cloud(level.alpha) * clean) / _of_cloud(level.sigma)
    if precision is not None:
        noise *= jnp.sqrt(precision)[..., None]
    if mask is not None:
        noise = jnp.where(mask[..., None], noise, 0.0)
    return Expected(clean, noise)


def denoising_loss(
    denoise: Callable[[Cloud, Level], Cloud],
    x: Cloud,
    noise: Cloud,
    level: Level,
    sigma_data: float,
    mask: Mask | None = None,
    precision: Precision | None = None,
    method: str = "exact",
) -> Number:
    r"""Returns the mean squared error of a denoiser over that of `precondition`.

    Where a cloud lies is not told: noised and clean ones are centred, by weight. With
    "single" the minimum is not zero, but the variance that rotations leave.

    Args:
        denoise: denoiser of the noised cloud and the level.
        x: clean clouds.
        noise: standard normal numbers.
        level: level of the noise.
        sigma_data: standard deviation of the clean clouds.
        mask: true where real.
        precision: precision of each point in units of $1 / \sigma^2$: a point of weight
            10^4 is all but known.
        method: way of aligning, see `alignment.rotation_target`.

    >>> x = jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> level = Level(jnp.array(1.0), jnp.array(0.5))
    >>> float(denoising_loss(lambda y, level: x, x, 0.0 * x, level, 1.0, None, None,
    ...                      "single"))
    0.0
    """
    x, _ = alignment.center(x, mask, precision)
    scale = jnp.ones(x.shape[:-1]) if precision is None else jax.lax.rsqrt(precision)
    y = _of_cloud(level.alpha) * x + _of_cloud(level.sigma) * scale[..., None] * noise
    y, _ = alignment.center(y, mask, precision)
    target = expected(y, x, level, mask, precision, method).clean
    error = jnp.sum(jnp.square(denoise(y, level) - target), axis=-1)
    error /= jnp.square(precondition(level, sigma_data).out)[..., None]
    real = jnp.ones(error.shape, bool) if mask is None else mask
    count = 3 * jnp.maximum(jnp.sum(real, axis=-1), 1)
    return jnp.sum(jnp.where(real, error, 0.0), axis=-1) / count


def sample(
    denoise: solvers.Velocity,
    y: Cloud,
    levels: Float[Array, " num_levels"],
    method: str = "heun",
    draw_noise: solvers.DrawNoise | None = None,
    key: Key[Array, ""] | None = None,
) -> Cloud:
    r"""Returns the clean cloud at the end of falling levels of noise.

    "euler" and "heun" follow the flow $dy / d\sigma = (y - D) / \sigma$ (Karras et al.
    2022, arXiv:2206.00364); "ancestral" draws every level, see `solvers.ancestral`.

    Args:
        denoise: denoiser of a cloud and its noise, variance exploding.
        y: cloud noised at the first level.
        levels: levels of `schedules.karras_schedule`.
        method: one of `METHODS`.
        draw_noise: function of a key that gives standard normal numbers; "ancestral"
            needs it.
        key: key of the noise; "ancestral" needs it.

    Raises:
        ValueError: the method is unknown, or lacks what it needs.

    >>> shrink = lambda y, sigma: y / (1.0 + sigma**2)  # Of data N(0, 1).
    >>> y = sample(shrink, jnp.full((1, 3), 50.0), jnp.array([50.0, 1.0, 0.1, 0.0]))
    >>> y.shape
    (1, 3)
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, found {method!r}")
    if method == "ancestral":
        given = {"draw_noise": draw_noise, "key": key}
        if absent := [name for name, value in given.items() if value is None]:
            raise ValueError(
                f"method 'ancestral': expected draw_noise and key, found no "
                f"{' and no '.join(absent)}"
            )
        return solvers.ancestral(denoise, y, levels, draw_noise, key)
    solve = {"heun": solvers.heun, "euler": solvers.euler}[method]
    return solve(lambda y, sigma: (y - denoise(y, sigma)) / sigma, y, levels)


def _of_cloud(number: Number) -> Array:
    return jnp.asarray(number)[..., None, None]
