r"""The error of equivariance of a function, measured.

$\mathrm{mean}_R \| f(R x) - D(R) f(x) \| / \| f(x) \|$ for each irrep of the output.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common.geometry import alignment, matrix_fisher
from common.nn.features import Features, rotate
from common.so3.irreps import VECTOR, Irrep


def equivariance_error(
    function: Callable[[Float[Array, "num_points 3"]], Features],
    positions: Float[Array, "num_points 3"],
    key: Key[Array, ""],
    num_rotations: int = 8,
) -> dict[Irrep, Float[Array, ""]]:
    """Returns the relative error of each irrep, a mean over random rotations.

    An irrep that is zero has the error zero. For a function that gives vectors, as a
    denoiser, see `from_vectors`.

    >>> x = jnp.array([[1.0, 2.0, 3.0]])
    >>> error = equivariance_error(from_vectors, x, jax.random.key(0), 2)[VECTOR]
    >>> bool(error < 1e-5)
    True

    Args:
        function: function of a cloud.
        positions: cloud at which it is evaluated.
        key: key of the rotations.
        num_rotations: number of rotations.
    """
    norms = lambda x: jax.tree.map(jnp.linalg.norm, x)
    before = function(positions)
    size = norms(before)

    def error(rotation: Float[Array, "3 3"]) -> dict[Irrep, Array]:
        after = function(alignment.rotate(positions, rotation))
        return norms(jax.tree.map(jnp.subtract, after, rotate(before, rotation)))

    rotations = matrix_fisher.uniform(key, num_rotations).astype(positions.dtype)
    means = jax.tree.map(jnp.mean, jax.vmap(error)(rotations))
    ratio = lambda e, s: jnp.where(s > 0.0, e / jnp.where(s > 0.0, s, 1.0), 0.0)
    return jax.tree.map(ratio, means, size)


def from_vectors(vectors: Float[Array, "*batch 3"]) -> Features:
    """Returns vectors as features.

    >>> from_vectors(jnp.ones((5, 3)))[VECTOR].shape
    (5, 3, 1)
    """
    return {VECTOR: vectors[..., None]}
