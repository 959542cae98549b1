r"""Diffusion of point clouds: levels of noise, the loss of a denoiser, samplers.

At a level of noise $y = \alpha x + \sigma \epsilon$. Its *ratio* $\rho = \sigma /
\alpha$ alone says how much is lost, since $y / \alpha$ has the noise $\rho$; so
samplers work there, where $\alpha = 1$ ("variance exploding"), and `in_ratio` brings a
denoiser of another schedule to them. A denoiser gives $D(y) = E[x \mid y]$, and the
score of $y / \alpha$ is $(D - y / \alpha) / \rho^2$.

Clouds `[..., num_points, 3]` may come in any orientation;
see `common.geometry.alignment` for what a denoiser is then asked for.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from common.geometry import alignment

Cloud = Float[Array, "*#batch num_points 3"]
Mask = Bool[Array, "*#batch num_points"]
Weights = Float[Array, "*#batch num_points"]
Number = Float[Array, "*#batch"]

METHODS = ("heun", "euler", "ancestral")


class Level(NamedTuple):
    """A level of noise.

    Attributes:
        alpha: Scale of the signal.
        sigma: Standard deviation of the noise, in the unit of the clouds.
    """

    alpha: Number
    sigma: Number


Schedule: TypeAlias = Callable[[Number], Level]
Denoise: TypeAlias = Callable[[Cloud, Number], Cloud]


def variance_exploding(ratio: Number) -> Level:
    r"""Returns the level whose signal stays as it is: $\alpha = 1$."""
    return Level(jnp.ones_like(ratio), ratio)


def variance_preserving(ratio: Number, sigma_data: float = 1.0) -> Level:
    r"""Returns the level at which y varies as x: $\alpha^2 s^2 + \sigma^2 = s^2$.

    Args:
        ratio: Noise over signal.
        sigma_data: Standard deviation $s$ of the clean clouds.
    """
    alpha = jax.lax.rsqrt(1.0 + jnp.square(ratio / sigma_data))
    return Level(alpha, alpha * ratio)


def in_ratio(denoise: Callable[[Cloud, Level], Cloud], schedule: Schedule) -> Denoise:
    """Returns a denoiser of signals of scale one, made from one of any schedule."""

    def of_ratio(y: Cloud, ratio: Number) -> Cloud:
        level = schedule(ratio)
        return denoise(_of_cloud(level.alpha) * y, level)

    return of_ratio


def falling_ratios(
    num_steps: int, largest: float, smallest: float, rho: float = 7.0
) -> Float[Array, " num_levels"]:
    r"""Returns the ratios of a sampler, the last one zero.

    Evenly spaced in $\sigma^{1 / \rho}$ (Karras et al. 2022, arXiv:2206.00364,
    equation 5).

    Args:
        num_steps: One less than the levels.
        largest: First ratio.
        smallest: Last one but zero.
        rho: Larger values give more steps to small noise.
    """
    place = jnp.linspace(0.0, 1.0, num_steps)
    first, last = largest ** (1.0 / rho), smallest ** (1.0 / rho)
    levels = (first + place * (last - first)) ** rho
    return jnp.append(levels, 0.0)


class Preconditioning(NamedTuple):
    """Numbers around a network F: D(y) = skip y + out F(input y; noise)."""

    skip: Number
    out: Number
    input: Number
    noise: Number


def precondition(level: Level, sigma_data: float) -> Preconditioning:
    r"""Returns what leaves a network of unit variance the least to say.

    Karras et al. 2022 (arXiv:2206.00364), table 1, here for any $\alpha$: with $s$ the
    spread of the data and $v = \alpha^2 s^2 + \sigma^2$, skip is $\alpha s^2 / v$, out
    $\sigma s / \sqrt v$, input $1 / \sqrt v$, and noise $\log(\sigma / \alpha) / 4$.
    """
    alpha, sigma = level
    variance = jnp.square(alpha * sigma_data) + jnp.square(sigma)
    return Preconditioning(
        skip=alpha * sigma_data**2 / variance,
        out=sigma * sigma_data * jax.lax.rsqrt(variance),
        input=jax.lax.rsqrt(variance),
        noise=0.25 * jnp.log(sigma / alpha),
    )


class Expected(NamedTuple):
    r"""Clean cloud and noise as they are expected, given what is seen.

    Attributes:
        clean: In the unit of the clouds.
        noise: $\epsilon$ such that $\alpha x + \sigma \epsilon / \sqrt w = y$ still.
    """

    clean: Cloud
    noise: Cloud


def expected(
    y: Cloud,
    x: Cloud,
    level: Level,
    mask: Mask | None = None,
    weights: Weights | None = None,
    method: str = "exact",
) -> Expected:
    """Returns what a network is asked for, clean cloud or noise, by a way of aligning.

    Whatever is asked that is linear in both (a velocity, a drift) follows from them.
    For the arguments see `alignment.rotation_target`.
    """
    clean = alignment.rotation_target(
        y, x, level.sigma, level.alpha, mask, weights, method
    )
    noise = (y - _of_cloud(level.alpha) * clean) / _of_cloud(level.sigma)
    if weights is not None:
        noise *= jnp.sqrt(weights)[..., None]
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
    weights: Weights | None = None,
    method: str = "exact",
) -> Number:
    r"""Returns the mean squared error of a denoiser, over that of `Preconditioning`.

    Where a cloud lies is not told: noised and clean ones are centred, by weight. With
    "single" the minimum is not zero, but the variance that rotations leave.

    Args:
        denoise: The denoiser.
        x: Clean clouds.
        noise: Standard normal.
        level: Of the noise.
        sigma_data: Standard deviation of the clean clouds.
        mask: True where real.
        weights: Precision of a point in units of $1 / \sigma^2$: a point of weight
            10^4 is all but known.
        method: See `alignment.rotation_target`.
    """
    x, _ = alignment.center(x, mask, weights)
    scale = jnp.ones(x.shape[:-1]) if weights is None else jax.lax.rsqrt(weights)
    y = _of_cloud(level.alpha) * x + _of_cloud(level.sigma) * scale[..., None] * noise
    y, _ = alignment.center(y, mask, weights)
    target = expected(y, x, level, mask, weights, method).clean
    error = jnp.sum(jnp.square(denoise(y, level) - target), axis=-1)
    error /= jnp.square(precondition(level, sigma_data).out)[..., None]
    real = jnp.ones(error.shape, bool) if mask is None else mask
    count = 3 * jnp.maximum(jnp.sum(real, axis=-1), 1)
    return jnp.sum(jnp.where(real, error, 0.0), axis=-1) / count


def sample(
    denoise: Denoise,
    y: Cloud,
    ratios: Float[Array, " num_levels"],
    method: str = "heun",
    draw_noise: Callable[[Key[Array, ""]], Cloud] | None = None,
    key: Key[Array, ""] | None = None,
) -> Cloud:
    r"""Returns the clean cloud at the end of falling levels of noise.

    "euler" and "heun" follow the flow $dy / d\rho = (y - D) / \rho$ (Karras et al.
    2022, algorithm 1; with Heun's the last step is Euler's, so that n steps need
    2 n - 1 evaluations). "ancestral" draws each level from its law given the expected
    clean cloud (Ho et al. 2020, arXiv:2006.11239, equations 6 and 7; here with
    $\alpha = 1$): from $\rho$ to $u$, $N(D + (u / \rho)^2 (y - D),\;
    u^2 (1 - u^2 / \rho^2))$.

    Args:
        denoise: Of a cloud whose signal has scale one, and a ratio.
        y: Noised cloud, of the first ratio.
        ratios: From `falling_ratios`.
        method: One of `METHODS`.
        draw_noise: Standard normal numbers of a key, for "ancestral".
        key: For "ancestral".

    Raises:
        ValueError: There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, found {method!r}")
    slope = lambda y, ratio: (y - denoise(y, ratio)) / ratio

    def euler(y: Cloud, inputs: tuple[Array, Array, Array]) -> tuple[Cloud, None]:
        now, later, _ = inputs
        return y + (later - now) * slope(y, now), None

    def heun(y: Cloud, inputs: tuple[Array, Array, Array]) -> tuple[Cloud, None]:
        now, later, _ = inputs
        first = slope(y, now)
        second = slope(y + (later - now) * first, later)
        return y + (later - now) * 0.5 * (first + second), None

    def ancestral(y: Cloud, inputs: tuple[Array, Array, Array]) -> tuple[Cloud, None]:
        now, later, key = inputs
        share = jnp.square(later / now)
        mean = denoise(y, now)
        std = later * jnp.sqrt(1.0 - share)
        return mean + share * (y - mean) + std * draw_noise(key), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, len(ratios) - 1)
    inputs = (ratios[:-1], ratios[1:], keys)
    step = {"heun": heun, "euler": euler, "ancestral": ancestral}[method]
    y, _ = jax.lax.scan(step, y, jax.tree.map(lambda x: x[:-1], inputs))
    last = ancestral if method == "ancestral" else euler
    return last(y, jax.tree.map(lambda x: x[-1], inputs))[0]


def _of_cloud(number: Number) -> Array:
    return jnp.asarray(number)[..., None, None]
