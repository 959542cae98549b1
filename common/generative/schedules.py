r"""Levels of noise: what a noised sample is made of, and the schedule of a sampler.

A noised sample is $y = \alpha x + \sigma \epsilon$ with standard normal $\epsilon$. Its
noise-to-signal ratio $\sigma / \alpha$ alone says how much is lost: $y / \alpha$ is the
sample of the variance-exploding parametrisation, $\alpha = 1$, at that ratio.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Number = Float[Array, "*#batch"]


class Level(NamedTuple):
    """A level of noise.

    Attributes:
        alpha: scale of the signal.
        sigma: standard deviation of the noise, in the unit of the samples.
    """

    alpha: Number
    sigma: Number


def variance_exploding(sigma: Number) -> Level:
    r"""Returns the level of a noise added to an unscaled signal: $\alpha = 1$.

    Args:
        sigma: standard deviation of the noise, which is the noise-to-signal ratio.

    >>> level = variance_exploding(jnp.array(0.5))
    >>> float(level.alpha), float(level.sigma)
    (1.0, 0.5)
    """
    return Level(jnp.ones_like(sigma), sigma)


def karras_schedule(
    num_steps: int, largest: float, smallest: float, rho: float = 7.0
) -> Float[Array, " num_levels"]:
    r"""Returns falling noise levels, evenly spaced in $\sigma^{1 / \rho}$, and zero.

    Karras et al. 2022 (arXiv:2206.00364), equation 5.

    Args:
        num_steps: number of steps, one less than that of the levels.
        largest: first level.
        smallest: last level before zero.
        rho: exponent; larger ones spend more steps on small noise.

    >>> karras_schedule(3, largest=9.0, smallest=1.0, rho=2.0)
    Array([9., 4., 1., 0.], dtype=float32)
    """
    roots = jnp.linspace(largest ** (1.0 / rho), smallest ** (1.0 / rho), num_steps)
    return jnp.append(roots**rho, 0.0)
