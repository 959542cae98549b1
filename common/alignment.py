r"""Superposition of point clouds: the rotation that brings one nearest to another.

A rotation $R$ acts on columns, $x_i \mapsto R x_i$. Only proper rotations are returned,
so that a mirror image stays one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def center(
    x: Float[Array, "num_points 3"], mask: Bool[Array, " num_points"]
) -> Float[Array, "num_points 3"]:
    """Moves the mean of the points in the mask to the origin; others become zero."""
    weight = mask.astype(x.dtype)[:, None]
    mean = jnp.sum(x * weight, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
    return (x - mean) * weight


def cross_covariance(
    y: Float[Array, "num_points 3"], x: Float[Array, "num_points 3"]
) -> Float[Array, "3 3"]:
    r"""Returns $M = \sum_i y_i x_i^\top$ of centred clouds."""
    return jnp.einsum("ni,nj->ij", y, x)


def kabsch_rotation(covariance: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    r"""Returns the proper rotation $R$ with the largest $\mathrm{tr}(R^\top M)$.

    For $M = \sum_i y_i x_i^\top$ it is the $R$ with the least $\sum_i |y_i - R x_i|^2$
    (Kabsch 1976); no gradient flows through it.
    """
    u, _, vt = jnp.linalg.svd(jax.lax.stop_gradient(covariance))
    # Singular values fall, so the last direction costs least to turn round.
    sign = jnp.where(jnp.linalg.det(u @ vt) < 0.0, -1.0, 1.0)
    return u.at[:, 2].multiply(sign) @ vt


def superpose(
    x: Float[Array, "num_points 3"],
    reference: Float[Array, "num_points 3"],
    mask: Bool[Array, " num_points"],
) -> Float[Array, "num_points 3"]:
    """Centres a cloud and turns it onto a reference that is centred already."""
    x = center(x, mask)
    rotation = kabsch_rotation(cross_covariance(reference * mask[:, None], x))
    return x @ rotation.T
