r"""A multilinear form given by its terms, closed under differentiation.

$$ Q(w, x, y, z) = \sum_t v_t\, w_{p_t} x_{i_t} y_{j_t} z_{k_t} $$
is linear in each of four *slots*, arrays `[..., rows, channels]`, channel by channel. A
product is its gradient by z, and every derivative of a product is again a gradient of Q
by one slot. So one JAX primitive, the gradient by a slot, has itself as derivative and
as transpose: products are differentiable any number of times, in both modes. Terms are
written out, which takes one pass over memory; automatic differentiation of the same
sums takes three times as long, since it writes every product to memory.
"""

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

W, X, Y, Z = range(4)


class Term(NamedTuple):
    """One product of components.

    Attributes:
        rows: rows of w, x, y and z.
        value: coefficient v.
    """

    rows: tuple[int, int, int, int]
    value: float


class Form(NamedTuple):
    """A multilinear form.

    Attributes:
        terms: terms of the sum, in any order.
        sizes: numbers of rows of w, x, y and z.
    """

    terms: tuple[Term, ...]
    sizes: tuple[int, int, int, int]


def apply(
    form: Form,
    w: Float[Array, "*#batch rows_w #channels"],
    x: Float[Array, "*#batch rows_x #channels"],
    y: Float[Array, "*#batch rows_y #channels"],
) -> Float[Array, "*batch rows_z channels"]:
    r"""Returns $\partial Q / \partial z$: the product of w, x and y.

    >>> form = Form((Term((0, 0, 0, 0), 2.0),), (1, 1, 1, 1))
    >>> apply(form, jnp.full((1, 1), 3.0), jnp.full((1, 1), 5.0), jnp.ones((1, 1)))
    Array([[30.]], dtype=float32)
    """
    operands = (w, x, y)
    shape = jnp.broadcast_shapes(*(a.shape[:-2] + a.shape[-1:] for a in operands))
    full = [
        jnp.broadcast_to(a, (*shape[:-1], a.shape[-2], shape[-1])) for a in operands
    ]
    return _gradient.bind(*full, form=form, slot=Z)


_gradient = Primitive("multilinear_gradient")


def _evaluate(*operands: Array, form: Form, slot: int) -> Array:
    """Sums the terms into the rows of the slot.

    What is multiplied last, w or else z, is taken out of the sums over one of its rows.
    """
    others = [s for s in range(4) if s != slot]
    arrays = dict(zip(others, operands, strict=True))
    outer = Z if slot == W else W
    left, right = (s for s in others if s != outer)
    by_rows = lambda term: (term.rows[slot], term.rows[outer])
    at = lambda s, row: arrays[s][..., row, :]
    rows: list[Any] = [jnp.zeros_like(operands[0][..., 0, :])] * form.sizes[slot]
    ordered = sorted(form.terms, key=by_rows)
    for (row, out), group in itertools.groupby(ordered, by_rows):
        total = sum(
            t.value * (at(left, t.rows[left]) * at(right, t.rows[right])) for t in group
        )
        rows[row] = rows[row] + at(outer, out) * total
    return jnp.stack(rows, axis=-2)


def _abstract(*operands: Any, form: Form, slot: int) -> Any:
    first = operands[0]
    shape = (*first.shape[:-2], form.sizes[slot], first.shape[-1])
    return first.update(shape=shape)


def _jvp(
    primals: tuple[Array, ...], tangents: tuple[Any, ...], *, form: Form, slot: int
) -> tuple[Array, Any]:
    out = _gradient.bind(*primals, form=form, slot=slot)
    parts = []
    for place, tangent in enumerate(tangents):
        if not isinstance(tangent, ad.Zero):
            operands = (*primals[:place], tangent, *primals[place + 1 :])
            parts.append(_gradient.bind(*operands, form=form, slot=slot))
    return out, sum(parts[1:], parts[0]) if parts else ad.Zero.from_primal_value(out)


def _transpose(
    cotangent: Any, *operands: Any, form: Form, slot: int
) -> tuple[Array | None, ...]:
    others = [s for s in range(4) if s != slot]
    if isinstance(cotangent, ad.Zero):
        return (None,) * 3
    given = dict(zip(others, operands, strict=True)) | {slot: cotangent}
    (linear,) = (s for s in others if ad.is_undefined_primal(given[s]))
    arrays = [given[s] for s in range(4) if s != linear]
    found = _gradient.bind(*arrays, form=form, slot=linear)
    return tuple(found if s == linear else None for s in others)


def _batch(
    operands: tuple[Array, ...], axes: tuple[Any, ...], *, form: Form, slot: int
) -> tuple[Array, int]:
    size = next(
        a.shape[axis]
        for a, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    front = [
        jnp.broadcast_to(a, (size, *a.shape))
        if axis is None
        else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(operands, axes, strict=True)
    ]
    return _gradient.bind(*front, form=form, slot=slot), 0


_gradient.def_impl(lambda *operands, **p: _evaluate(*operands, **p))
_gradient.def_abstract_eval(_abstract)
ad.primitive_jvps[_gradient] = _jvp
ad.primitive_transposes[_gradient] = _transpose
batching.primitive_batchers[_gradient] = _batch
mlir.register_lowering(_gradient, mlir.lower_fun(_evaluate, multiple_results=False))
