r"""The steps of a jump of the Föllmer transport, by the number of evaluations.

Were $D$ constant over a step from $t$ to $u$,
$$ X_u = D + \frac{1 - u}{1 - t} (X_t - D) + \sigma (1 - u) \sqrt{u - t}\, z $$
would be exact. Three things correct for $D$ that moves, and for the spread of $x_1$
around it, so that a few steps serve torsions, that move by an Å, and bonds, by .03:

* Times are such that the noise on the jump's end, $\sigma (1 - t) / \sqrt t$, falls
  evenly in a root. Basins that lie apart in many coordinates at once are decided
  between at its higher levels: were 1.5 $\sigma$ the first, half of the rare crossings
  would be lost, however many steps followed.
* $D$ is extrapolated from the step before in $\lambda = \log(\sqrt t / (1 - t))$, early
  beyond the middle of the step, then a third as far (Lu et al. 2022, arXiv:2211.01095,
  go to the middle throughout, and too much spread comes of it).
* The noise of a step lies between $\sigma^2 \int_t^u (1 - r)^2 dr$ and the above, in
  variance; the first step, which sees the source alone, adds the known spread $d$ of
  the displacement, $t_1^2 d^2$.

Their numbers are a row of `FITTED`, searched for on targets whose $D$ is known: see
`benchmarks/jump_steps.py`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from common.generative.schedules import karras_schedule


class Numbers(NamedTuple):
    """What decides the steps of a jump.

    Attributes:
        largest: noise on the end of the jump at the first inner time, in units of the
            scale of the noise.
        smallest: the same at the last inner time.
        rho: exponent of the schedule between them.
        early: level down to which basins are decided between; of the pairs that follow,
            the first is for the steps that begin above it.
        extrapolation: shares of the extrapolation to the middle of a step.
        last_extrapolation: weight at the last step, at whose end the signal is
            infinite.
        mean_square_share: shares of the mean square in the noise of a step; the rest is
            that at its end.
    """

    largest: float
    smallest: float
    rho: float
    early: float
    extrapolation: tuple[float, float]
    last_extrapolation: float
    mean_square_share: tuple[float, float]


FITTED: dict[int, Numbers] = {
    3: Numbers(0.656, 0.0372, 2.307, 2.125, (2.568, 0.757), 0.351, (0.466, 0.182)),
    4: Numbers(1.146, 0.0239, 2.628, 2.227, (2.566, 0.661), 0.216, (0.784, 0.159)),
    5: Numbers(1.526, 0.0181, 3.455, 3.695, (1.526, 0.415), 0.279, (0.993, 0.315)),
    6: Numbers(2.325, 0.0166, 3.185, 0.481, (1.659, 0.317), 0.118, (0.41, 0.632)),
    7: Numbers(2.773, 0.0148, 3.716, 0.658, (1.2, 0.237), 0.19, (0.378, 0.866)),
    8: Numbers(2.935, 0.0120, 3.337, 1.543, (1.389, 0.355), 0.47, (0.86, 0.344)),
    10: Numbers(3.145, 0.0118, 2.718, 1.170, (1.367, 0.341), 0.542, (0.843, 0.371)),
    14: Numbers(3.408, 0.0079, 3.248, 1.442, (1.374, 0.411), 0.571, (0.824, 0.417)),
    20: Numbers(3.350, 0.0059, 3.762, 1.581, (1.363, 0.53), 0.577, (0.791, 0.335)),
}
"""Numbers by the evaluations of a jump; in between, those of the fewer ones serve."""


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


def numbers_of(num_steps: int) -> Numbers:
    """Returns the numbers of a jump: of as many evaluations, or of the next fewer.

    >>> numbers_of(1) is FITTED[min(FITTED)], numbers_of(1_000) is FITTED[max(FITTED)]
    (True, True)
    """
    fewer = [count for count in FITTED if count <= num_steps]
    return FITTED[max(fewer, default=min(FITTED))]


def levels_of(num_steps: int, numbers: Numbers) -> Float[Array, " num_inner"]:
    """Returns the noise on the end of a jump at its inner times, and zero at its end.

    Args:
        num_steps: number of evaluations.
        numbers: numbers of the jump.
    """
    return karras_schedule(
        num_steps - 1, numbers.largest, numbers.smallest, numbers.rho
    )


def time_of(level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Returns the time at which $(1 - t) / \sqrt t$ is the level.

    >>> float(time_of(jnp.float32(1.5)))
    0.25
    """
    root = 0.5 * (jnp.sqrt(jnp.square(level) + 4.0) - level)
    return jnp.square(root)


def steps(num_steps: int, numbers: Numbers | None = None) -> Step:
    """Returns the coefficients of all steps.

    Args:
        num_steps: number of evaluations.
        numbers: numbers of the jump; those of `FITTED` if None.
    """
    numbers = numbers or numbers_of(num_steps)
    t = jnp.append(0.0, time_of(levels_of(num_steps, numbers)))
    begin, end = t[:-1], t[1:]
    snr = 0.5 * jnp.log(t[1:-1]) - jnp.log1p(-t[1:-1])
    is_early = jnp.append(True, jnp.exp(-snr) > numbers.early)
    at_end = jnp.square(1.0 - end) * (end - begin)
    mean_square = ((1.0 - begin) ** 3 - (1.0 - end) ** 3) / 3.0
    share = jnp.where(is_early, *numbers.mean_square_share)
    variance = at_end + share * (mean_square - at_end)
    return Step(
        time=begin,
        kept=(1.0 - end) / (1.0 - begin),
        noise=jnp.sqrt(variance.at[-1].set(0.0)),
        spread=jnp.zeros(num_steps).at[0].set(end[0]),
        extrapolation=_extrapolation(snr, is_early, numbers),
    )


def _extrapolation(
    snr: Float[Array, " num_inner"],
    is_early: Bool[Array, " num_steps"],
    numbers: Numbers,
) -> Float[Array, " num_steps"]:
    """Returns the weights of the extrapolation; the first two steps have none."""
    weights = jnp.zeros(is_early.shape)
    if len(weights) <= 3:
        return weights
    widths = jnp.diff(snr)
    inner = 0.5 * widths[1:] / widths[:-1]
    inner *= jnp.where(is_early, *numbers.extrapolation)[2:-1]
    return weights.at[2:-1].set(inner).at[-1].set(numbers.last_extrapolation)


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
