r"""Preconditioning: what a noised sample tells before a network is asked.

For a clean sample $x \sim N(m, s^2)$ and $y = \alpha x + \sigma \epsilon$, with $v =
\alpha^2 s^2 + \sigma^2$, the clean sample given the noised one is normal, of
$$ E[x \mid y] = m + \frac{\alpha s^2}{v} (y - \alpha m), \qquad
   \mathrm{std}[x \mid y] = \frac{\sigma s}{\sqrt v}. $$
A network F of unit variance is left to give the rest,
$D(y) = m + c_\mathrm{skip} (y - \alpha m) + c_\mathrm{out} F$, and sees
$c_\mathrm{in} (y - \alpha m)$. With $m = 0$ and $\alpha = 1$ these are the numbers of
Karras et al. 2022 (arXiv:2206.00364), table 1; EquiJump has the source frame as $m$.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.generative.schedules import Level, Number


class Preconditioning(NamedTuple):
    """Numbers around a network; see the module's head."""

    skip: Number
    out: Number
    input: Number


def precondition(
    level: Level, sigma_data: Float[Array, "*#batch"] | float
) -> Preconditioning:
    r"""Returns $c_\mathrm{skip}, c_\mathrm{out}, c_\mathrm{in}$ of a level of noise.

    Where nothing at all is seen, neither signal nor noise, the prior is left:
    skip 0, out $s$, input 1.

    Args:
        level: level of noise.
        sigma_data: standard deviation $s$ of clean samples.

    >>> level = Level(jnp.array(1.0), jnp.array(0.75))
    >>> [round(float(c), 3) for c in precondition(level, sigma_data=1.0)]
    [0.64, 0.6, 0.8]
    """
    signal = level.alpha * sigma_data
    variance = jnp.square(signal) + jnp.square(level.sigma)
    is_blind = variance <= 0.0
    variance = jnp.where(is_blind, 1.0, variance)
    root = jnp.sqrt(variance)
    return Preconditioning(
        skip=signal * sigma_data / variance,
        out=jnp.where(is_blind, sigma_data, sigma_data * level.sigma / root),
        input=1.0 / root,
    )
