"""Radial bases and envelopes: how networks see distances and other numbers."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def bessel_basis(
    distances: Float[Array, "*batch"], num_basis: int, cutoff: float
) -> Float[Array, "*batch num_basis"]:
    r"""Encodes distances by spherical Bessel functions of order zero.

    $b_n(d) = \sqrt{2 / c}\, \sin(n \pi d / c) / d$ for n from 1 (Gasteiger et al.,
    Directional Message Passing, arXiv:2003.03123, eq. 7), with its limit at d = 0.

    >>> bessel_basis(jnp.array([0.0, 5.0]), 3, cutoff=5.0).shape
    (2, 3)

    Args:
        distances: distances in Å.
        num_basis: number of functions.
        cutoff: distance c in Å at which every function is zero.
    """
    order = jnp.arange(1, num_basis + 1, dtype=distances.dtype)
    scaled = distances[..., None] / cutoff
    # Sinc by hand: below the threshold its series is exact in single precision, and
    # the quotient is kept away from zero for the sake of the gradient.
    argument = math.pi * order * scaled
    small = jnp.abs(argument) < 1e-2
    safe = jnp.where(small, 1.0, argument)
    series = 1.0 - jnp.square(argument) / 6.0
    sinc = jnp.where(small, series, jnp.sin(safe) / safe)
    return math.sqrt(2.0 / cutoff) * (math.pi / cutoff) * order * sinc


def polynomial_envelope(
    distances: Float[Array, "*batch"], cutoff: float, p: int = 6
) -> Float[Array, "*batch"]:
    r"""Falls smoothly from 1 at zero to 0 at the cutoff and beyond.

    $u(x) = 1 - \frac{(p+1)(p+2)}{2} x^p + p (p+2) x^{p+1} - \frac{p (p+1)}{2} x^{p+2}$
    with x = d / c (Gasteiger et al., Directional Message Passing, eq. 8); its first
    two derivatives vanish at the cutoff.

    >>> polynomial_envelope(jnp.array([0.0, 5.0]), cutoff=5.0).tolist()
    [1.0, 0.0]

    Args:
        distances: distances in Å.
        cutoff: distance c in Å.
        p: power of the first term; a larger one keeps 1 for longer.
    """
    x = jnp.minimum(distances / cutoff, 1.0)
    # The same polynomial with its triple root at 1 divided out: no cancellation.
    remainder = sum((k + 1) * (k + 2) / 2 * x**k for k in range(p))
    return jnp.where(distances < cutoff, (1.0 - x) ** 3 * remainder, 0.0)


def gaussian_basis(
    values: Float[Array, "*batch"], low: float, high: float, num_basis: int
) -> Float[Array, "*batch num_basis"]:
    """Encodes numbers by Gaussians as wide as the distance between their centres.

    >>> gaussian_basis(jnp.array(0.0), low=0.0, high=2.0, num_basis=3).round(2).tolist()
    [1.0, 0.6100000143051147, 0.14000000059604645]

    Args:
        values: numbers to encode.
        low: centre of the first Gaussian.
        high: centre of the last Gaussian.
        num_basis: number of Gaussians, at least two.
    """
    centres = np.linspace(low, high, num_basis, dtype=np.float32)
    width = float(centres[1] - centres[0])
    return jnp.exp(-0.5 * jnp.square((values[..., None] - centres) / width))
