r"""Wigner matrices: how harmonics of each degree rotate.

$Y^l(R v) = D^l(R) Y^l(v)$ with R acting on (x, y, z), in the basis and the order of
`common.so3.harmonics`. Each degree follows from the one before by Clebsch-Gordan
coefficients: no angles, so no pole, and gradients are finite everywhere.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.so3.clebsch_gordan import clebsch_gordan


def wigner_matrices(
    rotation: Float[Array, "*batch 3 3"], max_degree: int
) -> tuple[Float[Array, "*batch _dim _dim"], ...]:
    r"""Returns $D^0$ to $D^L$ of rotations.

    $D^l = (2l + 1)\, C\, (D^1 \otimes D^{l-1})\, C^\top$ with
    $C = C^{1, l-1, l}$, normalised to one as in `clebsch_gordan`.

    >>> [d.shape for d in wigner_matrices(jnp.eye(3), 2)]
    [(1, 1), (3, 3), (5, 5)]

    Args:
        rotation: rotation matrices that act on (x, y, z). An improper one gives the
            matrices of natural parity.
        max_degree: largest degree L.
    """
    highest = jax.lax.Precision.HIGHEST
    matrices = [jnp.ones((*rotation.shape[:-2], 1, 1), rotation.dtype), rotation]
    for l in range(2, max_degree + 1):
        table = jnp.asarray(clebsch_gordan(1, l - 1, l), rotation.dtype)
        half = jnp.einsum("abk,...ac->...kcb", table, rotation, precision=highest)
        both = jnp.einsum("...kcb,...bd->...kcd", half, matrices[-1], precision=highest)
        whole = jnp.einsum("...kcd,cde->...ke", both, table, precision=highest)
        matrices.append((2 * l + 1) * whole)
    return tuple(matrices[: max_degree + 1])
