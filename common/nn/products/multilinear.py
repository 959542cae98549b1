r"""A multilinear form given by its terms.

$$ Q(w, x, y, z) = \sum_t v_t\, w_{p_t} x_{i_t} y_{j_t} z_{k_t} $$
is linear in each of four slots, arrays `[..., rows, channels]`, channel by channel.
Terms are written out, which takes one pass over memory; automatic differentiation of
the same sums takes three times as long, since it writes every product to memory. See
`forms`.
"""

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.products.forms import gradient_of

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
    return _gradient(*full, form=form, slot=Z)


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


def _shape(first: Any, *_: Any, form: Form, slot: int) -> tuple[int, ...]:
    return (*first.shape[:-2], form.sizes[slot], first.shape[-1])


_gradient = gradient_of("multilinear_gradient", 4, _evaluate, _shape)
