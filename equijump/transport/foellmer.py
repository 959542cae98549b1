r"""The Föllmer transport: one drift, from exactly the source frame.

With a Brownian motion $W$, the interpolant is
$$ x_t = (1 - t) x_0 + t x_1 + \sigma (1 - t) W_t, $$
so that $\alpha = 1 - t$, $\beta = t$, $\gamma = (1 - t) \sqrt t$. Its law is that of
$$ dX = \frac{D(X, t, x_0) - X}{1 - t} dt + \sigma (1 - t) dB, \qquad
   D(x, t, x_0) = E[x_1 \mid x_t = x, x_0], $$
from $X_0 = x_0$ (Chen, Goldstein, Hua, Albergo, Boffi and Vanden-Eijnden, Probabilistic
forecasting with stochastic interpolants and Föllmer processes, 2024; the drift there,
$E[x_1 - x_0 - \sigma W_t \mid x_t]$, is the same).

Were $D$ constant over a step from $t$ to $u$,
$$ X_u = D + \frac{1 - u}{1 - t} (X_t - D) + \sigma (1 - u) \sqrt{u - t}\, z $$
would be exact. Three things correct for $D$ that moves, and for the spread of $x_1$
around it, so that ten steps serve torsions, that move by an Å, and bonds, by .03:

* Times are such that the noise on the jump's end, $\sigma (1 - t) / \sqrt t$, falls
  from 3.5 to .008 $\sigma$, evenly in its third root. Basins that lie apart in many
  coordinates at once are decided between at the higher of these levels: were 1.5 the
  first, half of the rare crossings would be lost, however many steps followed.
* $D$ is extrapolated from the step before in $\lambda = \log(\sqrt t / (1 - t))$, early
  to the middle of the step, then a third as far (Lu et al. 2022, arXiv:2211.01095, go
  all the way, and too much spread comes of it).
* The noise of a step is early .9 of $\sigma^2 \int_t^u (1 - r)^2 dr$ and .1 of the
  above, in variance, and then about half of each; the first step, which sees the source
  alone, adds the known spread $d$ of the displacement, $t_1^2 d^2$.

Their numbers were searched for on exact targets: normal ones of spread .028 to 1
$\sigma$ (kept to 4 %), and pairs of basins 2.5 to 4.5 $\sigma$ apart in 2 to 12
coordinates, the rarer of weight .03 or .2 (kept to 4 %).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from common.generative.schedules import karras_schedule
from equijump.transport.paths import Cloud, Path, Request, Time, noised

HEADS = ("end",)
METHODS = ("bridge", "euler_maruyama")
LARGEST, SMALLEST, RHO = 3.54, 0.008, 3.0
"""Noise on the end of the jump at the first and the last inner time, in units of the
scale of the noise, and exponent of the schedule between them."""

EARLY = 1.29
"""Level down to which basins are decided between; the two numbers of what follows are
for the steps that begin above it, and for the others."""

EXTRAPOLATION, LAST_EXTRAPOLATION = (1.09, 0.35), 0.37
"""Share of the extrapolation to the middle of a step; the last step, at whose end the
signal is infinite, has a number of its own."""

MEAN_SQUARE_SHARE = (0.9, 0.55)
"""Share of the mean square in the noise of a step; the rest is that at its end."""

TRAINED = (5.0, 0.004)
"""Levels between which training draws times: wider than the sampler needs."""

MEDIAN = 0.25
"""Level at which the noise is as wide as the displacement, if `noise_factor` is 4."""

BLIND_SHARE = 0.05
"""Share of training at t = 0, where the first step of every jump begins."""


def path(t: Time) -> Path:
    """Returns the coefficients at a time."""
    return Path(1.0 - t, t, (1.0 - t) * jnp.sqrt(t))


def time_of(level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Returns the time at which $(1 - t) / \sqrt t$ is the level."""
    root = 0.5 * (jnp.sqrt(jnp.square(level) + 4.0) - level)
    return jnp.square(root)


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


def times(num_steps: int) -> Float[Array, " num_steps_plus_one"]:
    """Returns the times of the sampler, from 0 to 1."""
    levels = karras_schedule(num_steps - 1, LARGEST, SMALLEST, RHO)
    return jnp.append(0.0, time_of(levels))


REMADE = 0.35
"""Level at or below which `remake` begins: torsions are decided, bonds are not. The
steps from there on give nine tenths of a narrow spread, those before them a little more
than all of it."""


class Step(NamedTuple):
    r"""Coefficients of one step: see the module's head.

    Attributes:
        time: time $t$ at its begin.
        kept: share $(1 - u) / (1 - t)$.
        noise: noise, in units of the scale of the noise.
        spread: noise, in units of the displacement's.
        extrapolation: weight of the change of $D$ since the step before.
    """

    time: Float[Array, " num_steps"]
    kept: Float[Array, " num_steps"]
    noise: Float[Array, " num_steps"]
    spread: Float[Array, " num_steps"]
    extrapolation: Float[Array, " num_steps"]


def steps(num_steps: int) -> Step:
    """Returns the coefficients of all steps."""
    t = times(num_steps)
    begin, end = t[:-1], t[1:]
    snr = 0.5 * jnp.log(t[1:-1]) - jnp.log1p(-t[1:-1])
    is_early = jnp.append(True, jnp.exp(-snr) > EARLY)
    at_end = jnp.square(1.0 - end) * (end - begin)
    mean_square = ((1.0 - begin) ** 3 - (1.0 - end) ** 3) / 3.0
    share = jnp.where(is_early, *MEAN_SQUARE_SHARE)
    variance = at_end + share * (mean_square - at_end)
    return Step(
        time=begin,
        kept=(1.0 - end) / (1.0 - begin),
        noise=jnp.sqrt(variance.at[-1].set(0.0)),
        spread=jnp.zeros(num_steps).at[0].set(end[0]),
        extrapolation=_extrapolation(snr, is_early),
    )


def _extrapolation(
    snr: Float[Array, " num_inner"], is_early: Bool[Array, " num_steps"]
) -> Float[Array, " num_steps"]:
    """Returns the weights of the extrapolation; the first two steps have none."""
    weights = jnp.zeros(is_early.shape)
    if len(weights) <= 3:
        return weights
    widths = jnp.diff(snr)
    inner = 0.5 * widths[1:] / widths[:-1]
    inner *= jnp.where(is_early, *EXTRAPOLATION)[2:-1]
    return weights.at[2:-1].set(inner).at[-1].set(LAST_EXTRAPOLATION)


def plain_steps(num_steps: int) -> Step:
    """Returns the coefficients of the Euler-Maruyama method with equal steps."""
    t = jnp.linspace(0.0, 1.0, num_steps + 1)
    begin, end = t[:-1], t[1:]
    none = jnp.zeros(num_steps)
    return Step(
        time=begin,
        kept=(1.0 - end) / (1.0 - begin),
        noise=(1.0 - begin) * jnp.sqrt(end - begin),
        spread=none,
        extrapolation=none,
    )


def jump(request: Request) -> Cloud:
    """Draws the end of one jump."""
    is_plain = request.method == METHODS[1]
    coefficients = (plain_steps if is_plain else steps)(request.num_steps)
    return _advance(request, request.key, request.x_0, coefficients)


def remake(request: Request, x_1: Cloud) -> Cloud:
    """Draws the end of a jump anew from a late time on, near a known end.

    Args:
        request: whole jump, whose last evaluations are taken here.
        x_1: known end, Å.
    """
    with jax.ensure_compile_time_eval():
        levels = karras_schedule(request.num_steps - 1, LARGEST, SMALLEST, RHO)
        first = 1 + int(jnp.sum(levels[:-1] > REMADE))
    coefficients = steps(request.num_steps)
    rest = Step(*(numbers[first:] for numbers in coefficients))
    rest = rest._replace(extrapolation=rest.extrapolation.at[0].set(0.0))
    key_path, key_steps = jax.random.split(request.key)
    at = path(coefficients.time[first])
    noise = request.draw_noise(key_path)
    x_t = noised(at, request.scales, request.x_0, x_1, noise)
    return _advance(request, key_steps, x_t, rest)


def _advance(
    request: Request, key: Key[Array, ""], x_t: Cloud, coefficients: Step
) -> Cloud:
    """Takes steps to the end of a jump."""
    scales = request.scales

    def step(
        carry: tuple[Cloud, Cloud], inputs: tuple[Step, Cloud]
    ) -> tuple[tuple[Cloud, Cloud], None]:
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
