"""Products of matrices and sums whose derivatives are the same again, channels last.

XLA's own derivatives of products put the channels elsewhere and transpose back, and
those of broadcasts are sums over short axes, for which its CPU kernel takes a hundred
times as long as for adding up slices. The functions here are each other's derivatives,
of any order and in both modes, see `forms`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.products.forms import gradient_of

A, B, C = range(3)
MAX_WRITTEN_OUT = 5
"""Rows and columns of the largest matrices whose products are written out.

They are of degree two. For many small matrices XLA's CPU kernel takes up to 16 times as
long, above all if they are transposed.
"""


def times(
    a: Float[Array, "*#batch n k"], b: Float[Array, "*#batch k channels"]
) -> Float[Array, "*batch n channels"]:
    """Returns a b.

    >>> times(jnp.ones((5, 2, 3)), jnp.ones((5, 3, 8))).shape
    (5, 2, 8)
    """
    return _matrix_product(*_alike(a, b), slot=C)


def transpose_times(
    a: Float[Array, "*#batch n k"], b: Float[Array, "*#batch n channels"]
) -> Float[Array, "*batch k channels"]:
    """Returns the transpose of a, times b.

    >>> transpose_times(jnp.ones((5, 2, 3)), jnp.ones((5, 2, 8))).shape
    (5, 3, 8)
    """
    return _matrix_product(*_alike(a, b), slot=B)


def _alike(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns both with one batch and of one type."""
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    kind = jnp.result_type(a, b)
    full = lambda x: jnp.broadcast_to(x, (*batch, *x.shape[-2:])).astype(kind)
    return full(a), full(b)


# Of the form sum a[n, k] b[k, c] c[n, c].
_EINSUM = {
    A: "...kc,...nc->...nk",
    B: "...nk,...nc->...kc",
    C: "...nk,...kc->...nc",
}


def _evaluate_product(first: Array, second: Array, *, slot: int) -> Array:
    if slot == A or max(first.shape[-2:]) > MAX_WRITTEN_OUT:
        return jnp.einsum(_EINSUM[slot], first, second)
    axis = -2 if slot == B else -1
    pairs = zip(unstacked(first, axis), unstacked(second, axis=-2), strict=True)
    return sum(a[..., :, None] * b[..., None, :] for a, b in pairs)


def _product_shape(first: Any, second: Any, *, slot: int) -> tuple[int, ...]:
    rows, columns = {
        A: (second.shape[-2], first.shape[-2]),
        B: (first.shape[-1], second.shape[-1]),
        C: (first.shape[-2], second.shape[-1]),
    }[slot]
    return (*first.shape[:-2], rows, columns)


_matrix_product = gradient_of(
    "matrix_product",
    3,
    _evaluate_product,
    _product_shape,
)


def spread(row: Float[Array, "..."], count: int, axis: int = -2) -> Float[Array, "..."]:
    """Returns a row several times.

    >>> spread(jnp.ones((5, 8)), 3).shape
    (5, 3, 8)

    Args:
        row: row.
        count: how many times.
        axis: axis of the rows in what is returned, negative.
    """
    return _spread(row, slot=1, count=count, axis=axis)


def _evaluate_spread(x: Array, *, slot: int, count: int, axis: int) -> Array:
    if slot == 0:
        return functools.reduce(jnp.add, unstacked(x, axis))
    shape = _spread_shape(x, slot=slot, count=count, axis=axis)
    return jnp.broadcast_to(jnp.expand_dims(x, axis), shape)


def _spread_shape(x: Any, *, slot: int, count: int, axis: int) -> tuple[int, ...]:
    shape = list(x.shape)
    if slot == 0:
        del shape[axis]
    else:
        shape.insert(len(shape) + 1 + axis, count)
    return tuple(shape)


# Of the form sum x[c] y[n, c].
_spread = gradient_of("spread", 2, _evaluate_spread, _spread_shape)


def expand(
    values: Float[Array, "*batch terms"], table: Float[np.ndarray, "terms _entries"]
) -> Float[Array, "*batch _entries"]:
    """Returns sums of terms with the coefficients of a table, rounded on no device.

    Tables of couplings and frames carry the symmetry: rounded factors would break it.

    >>> expand(jnp.ones((5, 2)), np.ones((2, 3))).shape
    (5, 3)
    """
    table = jnp.asarray(table, values.dtype)
    return jnp.matmul(values, table, precision=jax.lax.Precision.HIGHEST)


def unstacked(array: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
    """Returns the slices along an axis.

    >>> [row.shape for row in unstacked(jnp.ones((5, 2, 8)), axis=-2)]
    [(5, 8), (5, 8)]
    """
    parts = jnp.split(array, array.shape[axis], axis=axis)
    return [jnp.squeeze(part, axis) for part in parts]
