r"""Primitives that are gradients of multilinear forms, closed under differentiation.

A form $Q(a_1, \ldots, a_n)$ is linear in each of its *slots*. A product is its gradient
by one of them, and every derivative of a product is again such a gradient,
$$ \frac{\partial}{\partial a_k} \frac{\partial Q}{\partial a_s} \dot a_k =
   \frac{\partial Q}{\partial a_s}\Big|_{a_k \to \dot a_k}, \qquad
   \Big(\frac{\partial^2 Q}{\partial a_k \partial a_s}\Big)^{\!\top} \bar a_s =
   \frac{\partial Q}{\partial a_k}\Big|_{a_s \to \bar a_s}. $$
So one JAX primitive, the gradient by a slot, has itself as derivative and as transpose:
what computes it well is used in derivatives of any order, in both modes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def gradient_of(
    name: str,
    num_slots: int,
    evaluate: Callable[..., Array],
    shape: Callable[..., tuple[int, ...]],
) -> Callable[..., Array]:
    """Returns the gradient of a form, differentiable any number of times.

    >>> def evaluate(x, *, slot, scale):
    ...     return scale * x
    >>> product = gradient_of("scaled", 2, evaluate, lambda x, *, slot, scale: x.shape)
    >>> float(product(jnp.float32(3.0), slot=1, scale=2.0))
    6.0

    Args:
        name: name in jaxprs.
        num_slots: number of slots.
        evaluate: `(*others, slot, **static) -> gradient by the slot`, where the others
            are what is in the other slots, in their order, of one type. Leading axes
            are a batch, of one shape.
        shape: what shape that has, from arrays of shapes.
    """
    primitive = Primitive(name)

    def abstract(*operands: Any, **static: Any) -> Any:
        return operands[0].update(shape=shape(*operands, **static))

    def jvp(
        primals: tuple[Array, ...], tangents: tuple[Any, ...], **static: Any
    ) -> tuple[Array, Any]:
        out = primitive.bind(*primals, **static)
        parts = []
        for place, tangent in enumerate(tangents):
            if not isinstance(tangent, ad.Zero):
                operands = (*primals[:place], tangent, *primals[place + 1 :])
                parts.append(primitive.bind(*operands, **static))
        return out, sum(parts[1:], parts[0]) if parts else ad.Zero.from_primal_value(
            out
        )

    def transpose(
        cotangent: Any, *operands: Any, slot: int, **static: Any
    ) -> tuple[Array | None, ...]:
        others = [s for s in range(num_slots) if s != slot]
        if isinstance(cotangent, ad.Zero):
            return (None,) * len(others)
        given = dict(zip(others, operands, strict=True)) | {slot: cotangent}
        (linear,) = (s for s in others if ad.is_undefined_primal(given[s]))
        arrays = [given[s] for s in range(num_slots) if s != linear]
        found = primitive.bind(*arrays, slot=linear, **static)
        return tuple(found if s == linear else None for s in others)

    def batch(
        operands: tuple[Array, ...], axes: tuple[Any, ...], **static: Any
    ) -> tuple[Array, int]:
        pairs = [*zip(operands, axes, strict=True)]
        size = next(a.shape[axis] for a, axis in pairs if axis is not None)
        front = [
            jnp.broadcast_to(a, (size, *a.shape))
            if axis is None
            else jnp.moveaxis(a, axis, 0)
            for a, axis in pairs
        ]
        return primitive.bind(*front, **static), 0

    primitive.def_impl(lambda *operands, **static: evaluate(*operands, **static))
    primitive.def_abstract_eval(abstract)
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=False))
    return primitive.bind
