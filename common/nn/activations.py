"""Activations scaled to unit second moment for a standard normal number."""

import functools
import math

import flax.linen as nn
import numpy as np
from jaxtyping import Array


@functools.cache
def root_second_moment(name: str) -> float:
    """Returns the root mean square of an activation of a standard normal number.

    >>> round(root_second_moment("swish"), 4)
    0.5965
    """
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    values = {
        "swish": z / (1.0 + np.exp(-z)),
        "softplus": np.logaddexp(z, 0.0),
        "shifted_softplus": np.logaddexp(z, 0.0) - math.log(2.0),
    }[name]
    return float(np.sqrt(np.sum(weights * values**2) / np.sum(weights)))


def swish(x: Array) -> Array:
    """Applies the swish, scaled to unit second moment.

    >>> import jax.numpy as jnp
    >>> float(swish(jnp.float32(0.0)))
    0.0
    """
    return nn.silu(x) / root_second_moment("swish")


def softplus(x: Array) -> Array:
    """Applies the softplus, scaled to unit second moment.

    >>> import jax.numpy as jnp
    >>> round(float(softplus(jnp.float32(0.0))), 3)
    0.722
    """
    return nn.softplus(x) / root_second_moment("softplus")


def shifted_softplus(x: Array) -> Array:
    """Applies the softplus less its value at zero, scaled to unit second moment.

    >>> import jax.numpy as jnp
    >>> float(shifted_softplus(jnp.float32(0.0)))
    0.0
    """
    return (nn.softplus(x) - math.log(2.0)) / root_second_moment("shifted_softplus")


def leaky_relu(x: Array, slope: float = 0.2) -> Array:
    """Applies a leaky ReLU that is smooth at zero: the ramp in it is a swish.

    >>> import jax.numpy as jnp
    >>> leaky_relu(jnp.array([-100.0, 0.0, 100.0])).tolist()
    [-20.0, 0.0, 100.0]

    Args:
        x: numbers.
        slope: slope far to the left.
    """
    return slope * x + (1.0 - slope) * nn.silu(x)
