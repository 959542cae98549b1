"""Layers of one kind, one after the other, as one compiled loop."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

FEWEST = 3
"""Layers that are worth a loop: two take as long to compile in one as without.

A gradient is not worth one: the loop copies what its backward pass needs.
"""


def scan_layers(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    layers: Sequence[nn.Module],
    carry: Any,
    rows: Any = None,
) -> tuple[Any, Any]:
    """Runs a step for each layer; equal layers are compiled once.

    Parameters of equal layers are stacked, and `jax.lax.scan` goes over them. Fewer
    than `FEWEST` layers, or layers whose parameters differ in shape, go one by one, and
    so does the first evaluation, which makes the parameters. The numbers are the same.

    >>> class Stack(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         layers = [nn.Dense(4, parent=self) for _ in range(3)]
    ...         step = lambda layer, x, _: (jnp.sin(layer(x)), None)
    ...         return scan_layers(step, layers, x)[0]
    >>> ones = jnp.ones((2, 4))
    >>> params = Stack().init(jax.random.key(0), ones)
    >>> Stack().apply(params, ones).shape
    (2, 4)

    Args:
        step: function `(layer, carry, row) -> (carry, result)` of a bound layer. The
            carry keeps its shapes.
        layers: bound layers.
        carry: what the first step gets.
        rows: arrays with an axis of layers in front, an entry of which a step gets.

    Returns:
        The carry after the last step, and the results with an axis of layers in front;
        None for these where there is no layer.
    """
    if not layers:
        return carry, None
    params = None if layers[0].is_initializing() else _stack(layers)
    if params is None:
        results = []
        for index, layer in enumerate(layers):
            row = jax.tree.map(lambda array, index=index: array[index], rows)
            carry, result = step(layer, carry, row)
            results.append(result)
        return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *results)
    # Not of the parent: its scope belongs to a trace outside the loop.
    layer = layers[0].clone(parent=None)

    def one(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        params, row = inputs
        return step(layer.bind({"params": params}), carry, row)

    return jax.lax.scan(one, carry, (params, rows))


def _stack(layers: Sequence[nn.Module]) -> Any:
    """Returns the stacked parameters of layers; None if they differ or are few."""
    if len(layers) < FEWEST:
        return None
    first, *others = (layer.variables["params"] for layer in layers)
    shapes = jax.tree.map(jnp.shape, first)
    if any(jax.tree.map(jnp.shape, other) != shapes for other in others):
        return None
    return jax.tree.map(lambda *parts: jnp.stack(parts), first, *others)
