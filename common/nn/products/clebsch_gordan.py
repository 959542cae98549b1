r"""Equivariant convolution: neighbours' features times spherical harmonics, summed.

$m_{i p c} = \sum_j w_{i j p c} \sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3}
(x_{j, l_1 c} \otimes Y_{l_2}(\hat r_{i j}))$ for every path $p = (l_1, l_2, l_3)$.
Rows of a message are ordered by output degree, then component, then path, so that
the block of one degree is `[2l + 1, num_paths_l * channels]` without a transpose.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from common.so3.irreps import (
    clebsch_gordan,
    degree_slices,
    max_degree_of,
    tensor_product_paths,
)

EDGES_PER_BLOCK = 128
"""Edges handled at once by the blocked form: 1-3 MB, which stay in the cache."""


class Degrees(NamedTuple):
    """What is static about a convolution: three largest degrees and the group."""

    x: int
    harmonics: int
    out: int
    group: str


class Block(NamedTuple):
    """Rows and paths of one output degree in a message."""

    rows: slice
    paths: slice
    num_components: int


def num_paths(
    max_degree_in: int, max_degree_harmonics: int, max_degree_out: int, group: str
) -> int:
    """Returns the number of radial weights an edge needs, per channel."""
    return len(
        tensor_product_paths(max_degree_in, max_degree_harmonics, max_degree_out, group)
    )


@functools.cache
def message_blocks(degrees: Degrees) -> tuple[Block, ...]:
    """Returns where each output degree lies in a message, degrees without path too."""
    counts = np.zeros(degrees.out + 1, dtype=int)
    for *_, l3 in tensor_product_paths(*degrees):
        counts[l3] += 1
    blocks, row, path = [], 0, 0
    for degree, count in enumerate(counts.tolist()):
        size = (2 * degree + 1) * count
        blocks.append(
            Block(slice(row, row + size), slice(path, path + count), 2 * degree + 1)
        )
        row, path = row + size, path + count
    return tuple(blocks)


@functools.cache
def coupling_table(
    degrees: Degrees,
) -> Float[np.ndarray, "components_harmonics components_x rows"]:
    """Returns all Clebsch-Gordan tables as one array, component normalisation in."""
    blocks = message_blocks(degrees)
    table = np.zeros(
        (
            (degrees.harmonics + 1) ** 2,
            (degrees.x + 1) ** 2,
            blocks[-1].rows.stop,
        ),
        dtype=np.float32,
    )
    rows = degree_slices(max(degrees.x, degrees.harmonics))
    for index, (l1, l2, l3) in enumerate(tensor_product_paths(*degrees)):
        block = blocks[l3]
        count = block.paths.stop - block.paths.start
        first = block.rows.start + index - block.paths.start
        values = clebsch_gordan(l1, l2, l3) * math.sqrt(2 * l3 + 1)
        table[rows[l2], rows[l1], first : block.rows.stop : count] = np.swapaxes(
            values, 0, 1
        )
    table.setflags(write=False)
    return table


def message_per_degree(
    message: Float[Array, "*batch rows channels"], degrees: Degrees
) -> tuple[Float[Array, "*batch components paths_times_channels"], ...]:
    """Splits a message by degree, paths and channels side by side for a matrix."""
    return tuple(
        message[..., block.rows, :].reshape(
            *message.shape[:-2],
            block.num_components,
            (block.paths.stop - block.paths.start) * message.shape[-1],
        )
        for block in message_blocks(degrees)
    )


def convolution(
    x: Float[Array, "num_nodes components channels"],
    harmonics: Float[Array, "num_edges components_harmonics"],
    weights: Float[Array, "num_edges paths channels"],
    senders: Int[Array, " num_edges"],
    receivers: Int[Array, " num_edges"],
    max_degree: int,
    group: str = "O3",
) -> Float[Array, "num_nodes rows channels"]:
    """Sums messages over any list of edges: one dense matrix per edge.

    Differentiable any number of times and in forward mode.

    Args:
        x: Features of the nodes.
        harmonics: Spherical harmonics of the edges.
        weights: Radial weights, one per edge, path and channel, paths in the order of
            `common.so3.irreps.tensor_product_paths`. Zero where an edge is padding.
        senders: Index of the node each edge comes from.
        receivers: Index of the node each edge goes to.
        max_degree: Largest degree of the messages.
        group: `"O3"` or `"SO3"`, see `common.so3.irreps.tensor_product_paths`.

    Returns:
        Messages; the order of rows is the module's.
    """
    degrees = _degrees(x, harmonics, max_degree, group)
    products = _edge_products(x[senders], harmonics, degrees)
    messages = _times_weights(products, weights, degrees)
    return jax.ops.segment_sum(messages, receivers, x.shape[0])


def neighbour_convolution(
    x: Float[Array, "num_nodes components channels"],
    harmonics: Float[Array, "num_receivers num_neighbours components_harmonics"],
    weights: Float[Array, "num_receivers num_neighbours paths channels"],
    senders: Int[Array, "num_receivers num_neighbours"],
    max_degree: int,
    group: str = "O3",
    edges_per_block: int = EDGES_PER_BLOCK,
) -> Float[Array, "num_receivers rows channels"]:
    """Sums messages over a table of neighbours, a block of receivers at a time.

    The same as `convolution` with little memory: neither products nor messages of all
    edges ever exist, in the gradient no more than in the value, which recomputes them.
    Under `jax.vmap` molecules become one long list of receivers. Differentiable once,
    in reverse mode.

    Args:
        x: Features of the nodes.
        harmonics: Spherical harmonics of the edges.
        weights: Radial weights as for `convolution`; zero where a place in the table
            is empty.
        senders: Index of each neighbour; any valid index where the place is empty.
        max_degree: Largest degree of the messages.
        group: `"O3"` or `"SO3"`, see `common.so3.irreps.tensor_product_paths`.
        edges_per_block: Number of edges whose messages exist at once.

    Returns:
        Messages; the order of rows is the module's.
    """
    degrees = _degrees(x, harmonics, max_degree, group)
    batch = (a[None] for a in (x, harmonics, weights, senders))
    return _blocked(degrees, edges_per_block, *batch, None)[0]


def radial_convolution(
    x: Float[Array, "num_nodes components channels"],
    harmonics: Float[Array, "num_receivers num_neighbours components_harmonics"],
    radial: Float[Array, "num_receivers num_neighbours num_radial"],
    kernel: Float[Array, "num_radial paths channels"],
    senders: Int[Array, "num_receivers num_neighbours"],
    max_degree: int,
    group: str = "O3",
    edges_per_block: int = EDGES_PER_BLOCK,
) -> Float[Array, "num_receivers rows channels"]:
    """Does `neighbour_convolution` with weights `radial @ kernel`, made block by block.

    The weights are by far the largest array of a convolution; here they never exist
    as a whole, nor does their gradient.

    Args:
        x: Features of the nodes.
        harmonics: Spherical harmonics of the edges.
        radial: Functions of each distance; zero where a place in the table is empty.
        kernel: Last layer of the radial network, without bias.
        senders: Index of each neighbour; any valid index where the place is empty.
        max_degree: Largest degree of the messages.
        group: `"O3"` or `"SO3"`, see `common.so3.irreps.tensor_product_paths`.
        edges_per_block: Number of edges whose messages exist at once.

    Returns:
        Messages; the order of rows is the module's.
    """
    degrees = _degrees(x, harmonics, max_degree, group)
    batch = (a[None] for a in (x, harmonics, radial, senders, kernel))
    return _blocked(degrees, edges_per_block, *batch)[0]


def _degrees(x: Array, harmonics: Array, max_degree: int, group: str) -> Degrees:
    return Degrees(
        max_degree_of(x.shape[-2]),
        max_degree_of(harmonics.shape[-1]),
        max_degree,
        group,
    )


def _edge_matrices(
    harmonics: Float[Array, "edges components_harmonics"], degrees: Degrees
) -> Float[Array, "edges components rows"]:
    table = jnp.asarray(coupling_table(degrees), harmonics.dtype)
    flat = harmonics @ table.reshape(table.shape[0], -1)
    return flat.reshape(-1, *table.shape[1:])


def _edge_products(
    x: Float[Array, "edges components channels"],
    harmonics: Float[Array, "edges components_harmonics"],
    degrees: Degrees,
) -> Float[Array, "edges rows channels"]:
    return jnp.einsum("ear,eac->erc", _edge_matrices(harmonics, degrees), x)


def _times_weights(
    products: Float[Array, "*edges rows channels"],
    weights: Float[Array, "*edges paths channels"],
    degrees: Degrees,
) -> Float[Array, "*edges rows channels"]:
    """Multiplies every path of a message by its weight."""
    edges, channels = products.shape[:-2], products.shape[-1]
    blocks = []
    for block in message_blocks(degrees):
        shape = (*edges, block.num_components, -1, channels)
        if block.paths.start == block.paths.stop:
            continue
        product = products[..., block.rows, :].reshape(shape)
        product = product * weights[..., None, block.paths, :]
        blocks.append(product.reshape(*edges, -1, channels))
    return jnp.concatenate(blocks, axis=-2)


def _over_components(
    products: Float[Array, "*edges rows channels"], degrees: Degrees
) -> Float[Array, "*edges paths channels"]:
    """Sums every path over its components: the transpose of spreading a weight."""
    edges, channels = products.shape[:-2], products.shape[-1]
    return jnp.concatenate(
        [
            products[..., block.rows, :]
            .reshape(*edges, block.num_components, -1, channels)
            .sum(axis=-3)
            for block in message_blocks(degrees)
            if block.paths.start != block.paths.stop
        ],
        axis=-2,
    )


class _Batch(NamedTuple):
    """Molecules side by side; what every blocked function below works on.

    Attributes:
        x: Features.
        harmonics: Spherical harmonics.
        radial: Weights, or without paths and channels what `kernel` makes them from.
        senders: Neighbours, counted within each molecule.
        kernel: Last radial layer, one for all molecules or one for each.
    """

    x: Float[Array, "batch nodes components channels"]
    harmonics: Float[Array, "batch receivers neighbours components_harmonics"]
    radial: Float[Array, "batch receivers neighbours *weights"]
    senders: Int[Array, "batch receivers neighbours"]
    kernel: Float[Array, "kernels num_radial paths channels"] | None


class _Slice(NamedTuple):
    """One block of receivers, edges in a row, and the molecule it belongs to."""

    harmonics: Float[Array, "receivers neighbours components_harmonics"]
    radial: Float[Array, "receivers neighbours *weights"]
    senders: Int[Array, "receivers neighbours"]
    molecule: Int[Array, ""]
    cotangent: Float[Array, "receivers rows channels"] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _blocked(degrees: Degrees, edges_per_block: int, *batch: Array | None) -> Array:
    return _flattened(_forward, degrees, edges_per_block)(None, *batch)


def _blocked_fwd(
    degrees: Degrees, edges_per_block: int, *batch: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
    return _blocked(degrees, edges_per_block, *batch), batch


def _blocked_bwd(
    degrees: Degrees,
    edges_per_block: int,
    batch: tuple[Array | None, ...],
    cotangent: Array,
) -> tuple[Array | None, ...]:
    backward = _flattened(_backward, degrees, edges_per_block)
    x_bar, harmonics_bar, radial_bar, kernel_bar = backward(cotangent, *batch)
    return x_bar, harmonics_bar, radial_bar, None, kernel_bar


_blocked.defvjp(_blocked_fwd, _blocked_bwd)


@functools.cache
def _flattened(
    function: Callable[..., Any], degrees: Degrees, edges_per_block: int
) -> Callable[..., Any]:
    """Gives a blocked function a batching rule that puts molecules side by side."""

    @custom_vmap
    def call(cotangent: Array | None, *batch: Array | None) -> Any:
        return function(degrees, edges_per_block, cotangent, _Batch(*batch))

    @call.def_vmap
    def rule(
        size: int,
        is_batched: Sequence[bool | None],
        cotangent: Array | None,
        *batch: Array | None,
    ) -> tuple[Any, Any]:
        def merged(array: Array | None, batched: bool | None) -> Array | None:
            if array is None:
                return None
            if not batched:
                array = jnp.broadcast_to(array, (size, *array.shape))
            return array.reshape(-1, *array.shape[2:])

        def merged_kernel(kernel: Array | None, batched: bool | None) -> Array | None:
            # One kernel for all stays one; otherwise every molecule has its own.
            if kernel is None or (not batched and kernel.shape[0] == 1):
                return kernel
            if batched and kernel.shape[1] == 1:
                shape = (size, inner_size, *kernel.shape[2:])
                kernel = jnp.broadcast_to(kernel, shape)
            return merged(kernel, batched)

        inner_size = batch[0].shape[1 if is_batched[1] else 0]
        arrays = [merged(a, b) for a, b in zip(batch[:4], is_batched[1:5], strict=True)]
        results = call(
            merged(cotangent, is_batched[0]),
            *arrays,
            merged_kernel(batch[4], is_batched[5]),
        )
        split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), results)
        return split, jax.tree.map(lambda _: True, split)

    return call


def _receivers_per_block(
    edges_per_block: int, num_receivers: int, num_neighbours: int
) -> int:
    """Chooses a block's size near the target such that little of the last is empty."""
    target = max(1, edges_per_block // max(1, num_neighbours))
    if num_receivers <= target:
        return num_receivers
    near = range((target + 1) // 2, min(2 * target, num_receivers) + 1)
    return min(near, key=lambda size: (-num_receivers % size, abs(size - target)))


def _slices(
    edges_per_block: int, cotangent: Array | None, batch: _Batch
) -> tuple[_Slice, Callable[[Array], Array]]:
    """Cuts a batch into blocks of receivers.

    Returns:
        The blocks, stacked; and a function that puts what was computed for each
        receiver, stacked likewise, back into the shape of the batch.
    """
    size, num_receivers, num_neighbours = batch.senders.shape
    shift = batch.x.shape[1] * jnp.arange(size, dtype=batch.senders.dtype)
    arrays = [batch.harmonics, batch.radial, batch.senders + shift[:, None, None]]
    arrays += [] if cotangent is None else [cotangent]
    if batch.kernel is None:
        # Nothing ties a block to a molecule: the receivers are one list.
        arrays = [a.reshape(1, -1, *a.shape[2:]) for a in arrays]
    molecules, in_molecule = arrays[0].shape[:2]
    per_block = _receivers_per_block(edges_per_block, in_molecule, num_neighbours)
    missing = -in_molecule % per_block

    def cut(array: Array) -> Array:
        if missing:
            widths = [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)
            array = jnp.pad(array, widths)
        return array.reshape(-1, per_block, *array.shape[2:])

    def join(array: Array) -> Array:
        joined = array.reshape(molecules, -1, *array.shape[2:])[:, :in_molecule]
        return joined.reshape(size, num_receivers, *array.shape[2:])

    blocks = [cut(a) for a in arrays]
    molecule = jnp.arange(len(blocks[0])) // (len(blocks[0]) // molecules)
    return _Slice(*blocks[:3], molecule, blocks[3] if blocks[3:] else None), join


def _weights(block: _Slice, kernel: Array | None) -> Array:
    """Returns a block's radial weights, made here if there is a kernel."""
    if kernel is None:
        return block.radial
    one = kernel[block.molecule] if kernel.shape[0] > 1 else kernel[0]
    edges = block.radial.reshape(-1, block.radial.shape[-1])
    weights = edges @ one.reshape(one.shape[0], -1)
    return weights.reshape(*block.senders.shape, *one.shape[1:])


def _forward(
    degrees: Degrees, edges_per_block: int, cotangent: None, batch: _Batch
) -> Array:
    del cotangent
    x = batch.x.reshape(-1, *batch.x.shape[2:])

    def step(_: None, block: _Slice) -> tuple[None, Array]:
        harmonics = block.harmonics.reshape(-1, block.harmonics.shape[-1])
        products = _edge_products(x[block.senders.reshape(-1)], harmonics, degrees)
        products = products.reshape(*block.senders.shape, *products.shape[1:])
        weights = _weights(block, batch.kernel)
        return None, _times_weights(products, weights, degrees).sum(axis=1)

    blocks, join = _slices(edges_per_block, None, batch)
    return join(jax.lax.scan(step, None, blocks)[1])


def _backward(
    degrees: Degrees, edges_per_block: int, cotangent: Array, batch: _Batch
) -> tuple[Array, Array, Array, Array | None]:
    x = batch.x.reshape(-1, *batch.x.shape[2:])
    table = jnp.asarray(coupling_table(degrees), x.dtype)
    table = table.reshape(table.shape[0], -1)

    def step(
        bars: tuple[Array, Array | None], block: _Slice
    ) -> tuple[tuple[Array, Array | None], tuple[Array, Array]]:
        x_bar, kernel_bar = bars
        index = block.senders.reshape(-1)
        edge_x = x[index]
        harmonics = block.harmonics.reshape(len(index), -1)
        matrices = _edge_matrices(harmonics, degrees)
        products = jnp.einsum("ear,eac->erc", matrices, edge_x)
        edge_bar = jnp.broadcast_to(
            block.cotangent[:, None],
            (*block.senders.shape, *block.cotangent.shape[1:]),
        )
        weights_bar = _over_components(
            products.reshape(edge_bar.shape) * edge_bar, degrees
        )
        products_bar = _times_weights(edge_bar, _weights(block, batch.kernel), degrees)
        products_bar = products_bar.reshape(products.shape)
        matrices_bar = jnp.einsum("eac,erc->ear", edge_x, products_bar)
        harmonics_bar = matrices_bar.reshape(len(index), -1) @ table.T
        x_bar = x_bar.at[index].add(jnp.einsum("ear,erc->eac", matrices, products_bar))
        radial_bar = weights_bar
        if kernel_bar is not None:
            one = batch.kernel[block.molecule if len(batch.kernel) > 1 else 0]
            flat_bar = weights_bar.reshape(len(index), -1)
            radial_bar = flat_bar @ one.reshape(one.shape[0], -1).T
            here = block.radial.reshape(len(index), -1).T @ flat_bar
            kernel_bar = kernel_bar.at[block.molecule].add(here.reshape(one.shape))
        return (x_bar, kernel_bar), (
            harmonics_bar.reshape(block.harmonics.shape),
            radial_bar.reshape(block.radial.shape),
        )

    blocks, join = _slices(edges_per_block, cotangent, batch)
    kernel_bar = None
    if batch.kernel is not None:
        # One for each molecule even if all share a kernel: the caller adds them up.
        kernel_bar = jnp.zeros((len(batch.x), *batch.kernel.shape[1:]), x.dtype)
    (x_bar, kernel_bar), (harmonics_bar, radial_bar) = jax.lax.scan(
        step, (jnp.zeros_like(x), kernel_bar), blocks
    )
    return (
        x_bar.reshape(batch.x.shape),
        join(harmonics_bar),
        join(radial_bar),
        kernel_bar,
    )
