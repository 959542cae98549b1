r"""Sums over edges, a block of receivers at a time, in value and in every derivative.

A function of some receivers, `f(nodes, shared, rows) -> (nodes, shared, rows)`, sees
what the senders have, what all share, and what receivers and their edges have; it
returns sums for each of the three. Its pullback takes the same three, each with its
cotangent, and returns the same three:
$$ (\bar n, \bar s, \bar r) = (\partial f)^\top (n, s, r)\, (\bar n', \bar s', \bar r'),
$$
so that derivatives of any order in reverse mode go block by block as the value does,
which they recompute: what belongs to all edges at once never exists. Under `jax.vmap`
molecules become one long list of receivers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Int

from common.nn.features import Features
from common.nn.graph import Graph, neighbour_table
from common.nn.products.spec import EdgeWeights, RadialWeights, Spec, as_array

EVERY_EDGE = 2**31 - 1
"""As the number of edges of a block: all of them, molecules in parallel."""


class Operands(NamedTuple):
    """Three PyTrees of arrays, of molecules side by side.

    Attributes:
        nodes: `[batch, num_nodes, ...]`; a block has them as `[receivers, senders,
            ...]`.
        shared: `[batch, ...]`, or `[1, ...]` if one is for all; a block has its own.
        rows: `[batch, num_receivers, ...]`; a block has its receivers' rows.
    """

    nodes: Any
    shared: Any
    rows: Any


Function: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
"""What is done in a block; hashable, and zero where rows are."""
Senders: TypeAlias = Int[Array, "batch num_receivers num_senders"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def over_blocks(
    function: Function, edges_per_block: int, senders: Senders, operands: Operands
) -> Operands:
    """Returns the sums, of nodes over the edges that they send to.

    >>> operands = Operands(jnp.ones((1, 3, 8)), (), jnp.ones((1, 2, 4)))
    >>> def weighted(nodes, shared, weights):
    ...     return (), (), jnp.einsum("rs,rsc->rc", weights, nodes)
    >>> sums = over_blocks(weighted, 4, jnp.zeros((1, 2, 4), int), operands)
    >>> sums.rows.shape
    (1, 2, 8)

    Args:
        function: `(nodes, shared, rows) -> (nodes, shared, rows)` of a block.
        edges_per_block: number of edges that exist at once, or `EVERY_EDGE`.
        senders: senders of each receiver, counted within each molecule.
        operands: operands.
    """
    return _flattened(function, edges_per_block)(senders, operands)


@jax.tree_util.register_static
class _Wanted(tuple[bool, ...]):
    """Which arrays, in the order of their leaves, have a gradient that is asked for."""


def _fwd(
    function: Function, edges_per_block: int, senders: Any, operands: Any
) -> tuple[Operands, tuple[Senders, Operands, _Wanted]]:
    value = lambda tree: jax.tree.map(lambda a: a.value, tree)
    wanted = _Wanted(a.perturbed for a in jax.tree.leaves(operands))
    given = value(senders), value(operands)
    return over_blocks(function, edges_per_block, *given), (*given, wanted)


def _bwd(
    function: Function,
    edges_per_block: int,
    residuals: tuple[Senders, Operands, _Wanted],
    bars: Operands,
) -> tuple[None, Operands]:
    senders, operands, wanted = residuals
    known = lambda a: None if isinstance(a, SymbolicZero) else a
    bars = jax.tree.map(known, bars)
    both = Operands(*zip(operands, bars, strict=True))
    pullback = _Pullback(function, wanted)
    return None, over_blocks(pullback, edges_per_block, senders, both)


over_blocks.defvjp(_fwd, _bwd, symbolic_zeros=True)


class _Pullback(NamedTuple):
    """The same of derivatives, those that are not zero and are asked for."""

    function: Function
    wanted: _Wanted

    def __call__(self, *pairs: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        operands, bars = zip(*pairs, strict=True)
        leaves, tree = jax.tree.flatten(operands)

        def known(chosen: list[Array]) -> list[Array]:
            """Returns the outputs whose cotangents are not zero."""
            own = iter(chosen)
            every = [
                next(own) if wanted else leaf
                for leaf, wanted in zip(leaves, self.wanted, strict=True)
            ]
            out = self.function(*jax.tree.unflatten(tree, every))
            is_none = lambda a: a is None
            kept = jax.tree.map(
                lambda bar, part: None if bar is None else part, bars, tuple(out),
                is_leaf=is_none,
            )  # fmt: skip
            return jax.tree.leaves(kept)

        chosen = [a for a, wanted in zip(leaves, self.wanted, strict=True) if wanted]
        found = iter(jax.vjp(known, chosen)[1](jax.tree.leaves(bars))[0])
        every = [next(found) if wanted else None for wanted in self.wanted]
        return jax.tree.unflatten(tree, every)


@functools.cache
def _flattened(
    function: Function, edges_per_block: int
) -> Callable[[Senders, Operands], Operands]:
    """Gives blocks a batching rule that puts molecules side by side."""

    @custom_vmap
    def call(senders: Senders, operands: Operands) -> Operands:
        return _scan(function, edges_per_block, senders, operands)

    @call.def_vmap
    def rule(
        size: int, is_batched: Any, senders: Array, operands: Operands
    ) -> tuple[Operands, Operands]:
        inner = senders.shape[1 if is_batched[0] else 0]

        def merged(array: Array, batched: bool) -> Array:
            if not batched:
                array = jnp.broadcast_to(array, (size, *array.shape))
            return array.reshape(-1, *array.shape[2:])

        def merged_shared(array: Array, batched: bool) -> Array:
            # One for all stays one; otherwise every molecule has its own.
            if not batched and array.shape[0] == 1:
                return array
            if batched and array.shape[1] == 1:
                array = jnp.broadcast_to(array, (size, inner, *array.shape[2:]))
            return merged(array, batched)

        own = is_batched[1]
        flat = Operands(
            jax.tree.map(merged, operands.nodes, own.nodes),
            jax.tree.map(merged_shared, operands.shared, own.shared),
            jax.tree.map(merged, operands.rows, own.rows),
        )
        sums = call(merged(senders, is_batched[0]), flat)
        split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), sums)
        return split, jax.tree.map(lambda _: True, split)

    return call


def _scan(
    function: Function, edges_per_block: int, senders: Senders, operands: Operands
) -> Operands:
    size, num_receivers, num_senders = senders.shape
    num_nodes = _num_nodes(operands)
    shift = num_nodes * jnp.arange(size, dtype=senders.dtype)
    arrays = senders + shift[:, None, None], operands.rows
    # Nothing ties a block to a molecule if nothing is shared: one list of receivers.
    molecules = size if jax.tree.leaves(operands.shared) else 1
    in_molecule = size * num_receivers // molecules
    per_block = _receivers_per_block(edges_per_block, in_molecule, num_senders)
    missing = -in_molecule % per_block

    def cut(array: Array) -> Array:
        array = array.reshape(molecules, in_molecule, *array.shape[2:])
        if missing:
            array = jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))
        return array.reshape(-1, per_block, *array.shape[2:])

    def join(array: Array) -> Array:
        joined = array.reshape(molecules, -1, *array.shape[2:])[:, :in_molecule]
        return joined.reshape(size, num_receivers, *array.shape[2:])

    nodes = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), operands.nodes)

    def evaluate(
        index: Array, molecule: Array | int, rows: Any
    ) -> tuple[Any, Any, Any]:
        near = jax.tree.map(lambda a: a[index], nodes)
        own = lambda a: a[molecule] if a.shape[0] > 1 else a[0]
        return function(near, jax.tree.map(own, operands.shared), rows)

    def step(sums: tuple[Any, Any], block: tuple[Array, Array, Any]) -> Any:
        return _add(sums, block, evaluate(*block))

    indices, rows = jax.tree.map(cut, arrays)
    molecule = jnp.arange(len(indices)) // (len(indices) // molecules)
    first = jax.tree.map(lambda a: a[0], (indices, molecule, rows))
    to_nodes, to_shared, _ = jax.eval_shape(evaluate, *first)
    zeros = (
        jax.tree.map(
            lambda a: jnp.zeros((size * num_nodes, *a.shape[2:]), a.dtype), to_nodes
        ),
        # One for each molecule even if one is for all: the caller adds them up.
        jax.tree.map(lambda a: jnp.zeros((size, *a.shape), a.dtype), to_shared),
    )
    blocks = indices, molecule, rows
    if edges_per_block >= EVERY_EDGE:  # Blocks are molecules, side by side.
        (at_nodes, for_all), out = _add(zeros, blocks, jax.vmap(evaluate)(*blocks))
    else:
        (at_nodes, for_all), out = jax.lax.scan(step, zeros, blocks)
    split = lambda a: a.reshape(size, num_nodes, *a.shape[1:])
    return Operands(jax.tree.map(split, at_nodes), for_all, jax.tree.map(join, out))


class _Convolution(NamedTuple):
    """Sums of a block's edges, the weights of which are made here."""

    sums: Callable[[Any, Array, Any], Features]

    def __call__(
        self, x: Features, kernel: Array | None, rows: tuple[Any, Array]
    ) -> tuple[None, None, Features]:
        edges, radial = rows
        weights = radial if kernel is None else RadialWeights(radial, kernel)
        return None, None, self.sums(x, as_array(weights), edges)


def convolve_blocks(
    sums: Callable[[Any, Array, Any], Features],
    x: Features,
    graph: Graph,
    edges: Any,
    weights: EdgeWeights,
    edges_per_block: int,
) -> Features:
    """Sums over the edges, a block at a time.

    >>> from common.nn.features import from_scalars
    >>> from common.nn.graph import make_graph
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> def weighted(x, weights, edges):
    ...     return {i: jnp.einsum("rsc,rsmc->rmc", weights, x[i]) for i in x}
    >>> weights = jnp.ones((2, 2, 8))
    >>> sums = convolve_blocks(weighted, x, graph, graph.vectors, weights, 2)
    >>> [part.shape for part in sums.values()]
    [(2, 1, 8)]

    Args:
        sums: `(x, weights, edges) -> features` of receivers, zero where weights are;
            hashable.
        x: features of the nodes.
        graph: edges.
        edges: arrays of the edges, of which `sums` has those of a block.
        weights: weights of the edges.
        edges_per_block: number of edges handled at once.
    """
    is_made = isinstance(weights, RadialWeights)
    radial, kernel = weights if is_made else (weights, None)
    senders = neighbour_table(graph, next(iter(x.values())).shape[0])
    one = lambda tree: jax.tree.map(lambda a: a[None], tree)
    operands = Operands(one(x), one(kernel), one((edges, radial)))
    found = over_blocks(_Convolution(sums), edges_per_block, senders[None], operands)
    return jax.tree.map(lambda a: a[0], found.rows)


class _Products(NamedTuple):
    """Sums of any products."""

    product: Callable[..., Features]
    spec: Spec

    def __call__(self, x: Features, weights: Array, y: Features) -> Features:
        messages = self.product(x, y, weights, self.spec)
        return jax.tree.map(lambda part: jnp.sum(part, axis=1), messages)


def convolve(
    product: Callable[..., Features],
    x: Features,
    graph: Graph,
    weights: EdgeWeights,
    spec: Spec,
    edges_per_block: int,
) -> Features:
    """Sums any products with the harmonics of the edges at their receivers.

    >>> from common.nn.features import from_scalars, irreps_of
    >>> from common.nn.graph import make_graph
    >>> from common.nn.products.spec import make_spec
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> spec = make_spec(irreps_of(x), irreps_of(graph.harmonics), irreps_of(x))
    >>> def only_weights(x, y, weights, spec):
    ...     return {i: weights[..., None, :] for i in spec.out}
    >>> sums = convolve(only_weights, x, graph, jnp.ones((2, 2, 8)), spec, 4)
    >>> [part.shape for part in sums.values()]
    [(2, 1, 8)]

    Args:
        product: `(x, y, weights, spec) -> features`, zero where weights are.
        x: features of the nodes.
        graph: edges.
        weights: weights of the edges.
        spec: irreps.
        edges_per_block: number of edges whose products exist at once.
    """
    sums = _Products(product, spec)
    return convolve_blocks(sums, x, graph, graph.harmonics, weights, edges_per_block)


def _add(
    sums: tuple[Any, Any], block: tuple[Array, Array, Any], found: tuple[Any, Any, Any]
) -> tuple[tuple[Any, Any], Any]:
    """Adds what was found in a block to what belongs to nodes and to all."""
    index, molecule, _ = block
    to_nodes, to_shared, out = found
    add = lambda at: lambda total, part: total.at[at].add(part)
    at_nodes = jax.tree.map(add(index), sums[0], to_nodes)
    return (at_nodes, jax.tree.map(add(molecule), sums[1], to_shared)), out


def _num_nodes(operands: Operands) -> int:
    return jax.tree.leaves(operands.nodes)[0].shape[1]


def _receivers_per_block(
    edges_per_block: int, num_receivers: int, num_senders: int
) -> int:
    """Chooses a block's size near the target such that little of the last is empty."""
    target = max(1, edges_per_block // max(1, num_senders))
    if num_receivers <= target:
        return num_receivers
    near = range((target + 1) // 2, min(2 * target, num_receivers) + 1)
    return min(near, key=lambda size: (-num_receivers % size, abs(size - target)))
