"""Products of matrices and sums whose derivatives are the same again, channels last.

XLA's own derivatives of products put the channels elsewhere and transpose back, and
those of broadcasts are sums over short axes, for which its CPU kernel takes a hundred
times as long as for adding up slices. The functions here are each other's derivatives,
of any order in reverse mode.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def times(
    a: Float[Array, "*batch n k"], b: Float[Array, "*batch k channels"]
) -> Float[Array, "*batch n channels"]:
    """Returns a b.

    >>> times(jnp.ones((5, 2, 3)), jnp.ones((5, 3, 8))).shape
    (5, 2, 8)
    """
    return jnp.einsum("...nk,...kc->...nc", a, b)


@jax.custom_vjp
def transpose_times(
    a: Float[Array, "*batch n k"], b: Float[Array, "*batch n channels"]
) -> Float[Array, "*batch k channels"]:
    """Returns the transpose of a, times b.

    >>> transpose_times(jnp.ones((5, 2, 3)), jnp.ones((5, 2, 8))).shape
    (5, 3, 8)
    """
    return jnp.einsum("...nk,...nc->...kc", a, b)


@jax.custom_vjp
def times_transpose(
    a: Float[Array, "*batch n channels"], b: Float[Array, "*batch k channels"]
) -> Float[Array, "*batch n k"]:
    """Returns a times the transpose of b.

    >>> times_transpose(jnp.ones((5, 2, 8)), jnp.ones((5, 3, 8))).shape
    (5, 2, 3)
    """
    return jnp.einsum("...nc,...kc->...nk", a, b)


def with_forward_mode(function: jax.custom_vjp) -> Callable[[Array, Array], Array]:
    """Returns a product of the above with JAX's own derivatives, forward mode too.

    >>> ones = [jnp.ones((1, 1))] * 2
    >>> jax.jvp(with_forward_mode(times), ones, ones)[1]
    Array([[2.]], dtype=float32)
    """
    return function.fun


def _kept(function: jax.custom_vjp) -> None:
    """Gives a product of two factors its derivative, by `_BARS`."""

    def fwd(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
        return function(a, b), (a, b)

    def bwd(factors: tuple[Array, Array], bar: Array) -> tuple[Array, Array]:
        return _BARS[function](*factors, bar)

    function.defvjp(fwd, bwd)


_BARS = {
    times: lambda a, b, bar: (times_transpose(bar, b), transpose_times(a, bar)),
    transpose_times: lambda a, b, bar: (times_transpose(b, bar), times(a, bar)),
    times_transpose: lambda a, b, bar: (times(bar, b), transpose_times(bar, a)),
}
for _function in _BARS:
    _kept(_function)


@jax.custom_vjp
def total(
    rows: Float[Array, "*batch rows channels"],
) -> Float[Array, "*batch channels"]:
    """Returns the sum of a few rows.

    >>> total(jnp.ones((5, 3, 8)))[0, 0]
    Array(3., dtype=float32)
    """
    parts = jnp.split(rows, rows.shape[-2], axis=-2)
    return functools.reduce(jnp.add, parts)[..., 0, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(
    row: Float[Array, "*batch channels"], count: int
) -> Float[Array, "*batch count channels"]:
    """Returns a row several times.

    >>> spread(jnp.ones((5, 8)), 3).shape
    (5, 3, 8)
    """
    shape = (*row.shape[:-1], count, row.shape[-1])
    return jnp.broadcast_to(row[..., None, :], shape)


total.defvjp(
    # The count is kept as the length of an array without elements.
    lambda rows: (total(rows), jnp.zeros((rows.shape[-2], 0))),
    lambda kept, bar: (spread(bar, kept.shape[0]),),
)
spread.defvjp(
    lambda row, count: (spread(row, count), None),
    lambda count, _, bar: (total(bar),),
)
