r"""The Föllmer transport: one drift, from exactly the source frame.

With a Brownian motion $W$, the interpolant is
$$ x_t = (1 - t) x_0 + t x_1 + \sigma (1 - t) W_t, $$
so that $\alpha = 1 - t$, $\beta = t$, $\gamma = (1 - t) \sqrt t$. Its law is that of
$$ dX = \frac{D(X, t, x_0) - X}{1 - t} dt + \sigma (1 - t) dB, \qquad
   D(x, t, x_0) = E[x_1 \mid x_t = x, x_0], $$
from $X_0 = x_0$ (Chen, Goldstein, Hua, Albergo, Boffi and Vanden-Eijnden, Probabilistic
forecasting with stochastic interpolants and Föllmer processes, 2024, arXiv:2403.13724;
the drift there, $E[x_1 - x_0 - \sigma W_t \mid x_t]$, is the same).

A jump takes the steps of `equijump.transport.foellmer_steps`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from equijump.transport.foellmer_steps import (
    Step,
    levels_of,
    numbers_of,
    plain_steps,
    steps,
    time_of,
)
from equijump.transport.paths import Cloud, Path, Request, Time, noised

Values = Float[Array, "*shape"]

HEADS = ("end",)
METHODS = ("bridge", "euler_maruyama")
TRAINED = (5.0, 0.004)
"""Levels between which training draws times: wider than the sampler needs."""

MEDIAN = 0.25
"""Level at which the noise is as wide as the displacement, if `noise_factor` is 4."""

BLIND_SHARE = 0.05
"""Share of training at t = 0, where the first step of every jump begins."""


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, (1.0 - t) * jnp.sqrt(t))


def draw_time(key: Key[Array, ""], median: float = MEDIAN) -> Time:
    r"""Draws a time of training, or zero.

    The logarithm of the level has the density $1 / \cosh$ around that of the median:
    what of an end is decided there is learnt last, and levels far from it, of which a
    log-uniform draw has most, teach little.
    """
    key_level, key_blind = jax.random.split(key)
    highest, lowest = (math.atan(level / median) for level in TRAINED)
    angle = jax.random.uniform(key_level, (), minval=lowest, maxval=highest)
    level = median * jnp.tan(angle)
    return jnp.where(jax.random.uniform(key_blind) < BLIND_SHARE, 0.0, time_of(level))


REMADE = 0.4
"""Level at or below which `remake` begins: torsions are decided, bonds are not. Of ten
steps, those from there on give 95 % of a narrow spread."""


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    is_plain = request.method == METHODS[1]
    coefficients = (plain_steps if is_plain else steps)(request.num_steps)
    return advance(request, request.key, request.x_0, coefficients)


def remake(request: Request, x_1: Cloud) -> Cloud:
    """Draws the end of a jump anew from a late time on, near a known end.

    Args:
        request: whole jump, whose last evaluations are taken here.
        x_1: known end, Å.
    """
    with jax.ensure_compile_time_eval():
        levels = levels_of(request.num_steps, numbers_of(request.num_steps))
        first = 1 + int(jnp.sum(levels[:-1] > REMADE))
    coefficients = steps(request.num_steps)
    rest = Step(*(numbers[first:] for numbers in coefficients))
    rest = rest._replace(extrapolation=rest.extrapolation.at[0].set(0.0))
    key_path, key_steps = jax.random.split(request.key)
    at = path(coefficients.time[first])
    noise = request.draw_noise(key_path)
    x_t = noised(at, request.scales, request.x_0, x_1, noise)
    return advance(request, key_steps, x_t, rest)


def advance(
    request: Request, key: Key[Array, ""], x_t: Values, coefficients: Step
) -> Values:
    """Takes steps to the end of a jump.

    Args:
        request: what is asked; its source is not looked at.
        key: key of the noise of all steps.
        x_t: frame to begin with, Å.
        coefficients: steps, those of `equijump.transport.foellmer_steps`.
    """
    scales = request.scales

    def step(
        carry: tuple[Values, Values], inputs: tuple[Step, Values]
    ) -> tuple[tuple[Values, Values], None]:
        (x_t, before), (now, noise) = carry, inputs
        (end,) = request.predict(x_t, now.time)
        middle = end + now.extrapolation * (end - before)
        x_u = middle + now.kept * (x_t - middle)
        variance = jnp.square(now.noise * scales.noise)
        variance += jnp.square(now.spread * scales.displacement)
        return (x_u + jnp.sqrt(variance) * noise, end), None

    count = coefficients.time.shape[0]
    noises = jax.vmap(request.draw_noise)(jax.random.split(key, count))
    (x_1, _), _ = jax.lax.scan(step, (x_t, x_t), (coefficients, noises))
    return x_1
