"""Lengths and directions of vectors, with gradients that are finite at zero."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def safe_norm(vectors: Float[Array, "*batch 3"]) -> Float[Array, "*batch"]:
    """Returns lengths, with a gradient of zero where a vector is zero.

    >>> float(safe_norm(jnp.array([3.0, 4.0, 0.0])))
    5.0
    """
    squared = jnp.sum(jnp.square(vectors), axis=-1)
    # One where keeps the root away from zero, the other restores the value there.
    is_zero = squared == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


def unit_vectors(vectors: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Divides vectors by their lengths; zero stays zero, and so does its gradient.

    >>> unit_vectors(jnp.array([0.0, 2.0, 0.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    # The root has no gradient at zero: one where keeps it away from zero, the other
    # discards what it gives there.
    is_zero = squared == 0.0
    inverse = jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared))
    return jnp.where(is_zero, 0.0, vectors * inverse)
