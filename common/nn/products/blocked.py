"""Convolution block by block, for features of one number of channels.

It sums the products of neighbours' features with the harmonics of the edges, a block of
receivers at a time: neither products nor messages of all edges ever exist, in the
gradient no more than in the value, which recomputes them. Under `jax.vmap` molecules
become one long list of receivers. It is differentiable any number of times in reverse
mode; second derivatives take the memory of all edges.
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

from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path, product_paths


class Layout(NamedTuple):
    """Irreps of features with one number of channels; what is static of a convolution.

    Attributes:
        x: irreps of the nodes.
        y: irreps of the harmonics.
        out: irreps kept.
    """

    x: tuple[Irrep, ...]
    y: tuple[Irrep, ...]
    out: tuple[Irrep, ...]


class Block(NamedTuple):
    """Rows and paths of one irrep in a message.

    Rows are ordered by irrep, then component, then path, so that a block becomes
    `[2l + 1, paths * channels]` without a transpose.
    """

    irrep: Irrep
    rows: slice
    paths: slice


@functools.cache
def message_blocks(layout: Layout) -> tuple[Block, ...]:
    """Returns where each irrep lies in a message, those without a path left out.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> layout = Layout((SCALAR, VECTOR), (SCALAR, VECTOR), (SCALAR, VECTOR))
    >>> [block.rows for block in message_blocks(layout)]
    [slice(0, 2, None), slice(2, 8, None)]
    """
    blocks, row, path = [], 0, 0
    outputs = [out for *_, out in product_paths(*layout)]
    for irrep in dict.fromkeys(outputs):
        count = outputs.count(irrep)
        size = irrep.dim * count
        blocks.append(Block(irrep, slice(row, row + size), slice(path, path + count)))
        row, path = row + size, path + count
    return tuple(blocks)


@functools.cache
def coupling_table(
    layout: Layout,
) -> Float[np.ndarray, "components_y components_x rows"]:
    """Returns all Clebsch-Gordan tables as one array, component normalisation in.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> coupling_table(Layout((SCALAR, VECTOR), (SCALAR, VECTOR), (VECTOR,))).shape
    (4, 4, 6)
    """
    ends = lambda irreps: np.cumsum([0, *(i.dim for i in irreps)])
    start_x, start_y = (dict(zip(of, ends(of), strict=False)) for of in layout[:2])
    blocks = {block.irrep: block for block in message_blocks(layout)}
    shape = (
        ends(layout.y)[-1],
        ends(layout.x)[-1],
        message_blocks(layout)[-1].rows.stop,
    )
    table = np.zeros(shape, dtype=np.float32)
    for index, (i, j, k) in enumerate(product_paths(*layout)):
        block = blocks[k]
        count = block.paths.stop - block.paths.start
        first = block.rows.start + index - block.paths.start
        values = clebsch_gordan(i.degree, j.degree, k.degree) * math.sqrt(k.dim)
        x, y = start_x[i], start_y[j]
        rows = slice(first, block.rows.stop, count)
        table[y : y + j.dim, x : x + i.dim, rows] = np.swapaxes(values, 0, 1)
    table.setflags(write=False)
    return table


def by_path(
    message: Float[Array, "*batch rows channels"], layout: Layout, channels: int
) -> dict[Path, Float[Array, "*batch _components channels"]]:
    """Returns the message of each path.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> layout = Layout((SCALAR, VECTOR), (SCALAR, VECTOR), (SCALAR, VECTOR))
    >>> [part.shape for part in by_path(jnp.ones((5, 8, 4)), layout, 4).values()]
    [(5, 1, 4), (5, 1, 4), (5, 3, 4), (5, 3, 4)]
    """
    every, found = product_paths(*layout), {}
    for block in message_blocks(layout):
        part = message[..., block.rows, :]
        part = part.reshape(*message.shape[:-2], block.irrep.dim, -1, channels)
        for place, path in enumerate(every[block.paths]):
            found[path] = part[..., place, :]
    return found


def _edge_matrices(
    harmonics: Float[Array, "edges components_harmonics"], layout: Layout
) -> Float[Array, "edges components rows"]:
    table = jnp.asarray(coupling_table(layout), harmonics.dtype)
    flat = harmonics @ table.reshape(table.shape[0], -1)
    return flat.reshape(-1, *table.shape[1:])


def _edge_products(
    x: Float[Array, "edges components channels"],
    harmonics: Float[Array, "edges components_harmonics"],
    layout: Layout,
) -> Float[Array, "edges rows channels"]:
    return jnp.einsum("ear,eac->erc", _edge_matrices(harmonics, layout), x)


def _times_weights(
    products: Float[Array, "*edges rows channels"],
    weights: Float[Array, "*edges paths channels"],
    layout: Layout,
) -> Float[Array, "*edges rows channels"]:
    """Multiplies every path of a message by its weight."""
    edges, channels = products.shape[:-2], products.shape[-1]
    blocks = []
    for block in message_blocks(layout):
        shape = (*edges, block.irrep.dim, -1, channels)
        product = products[..., block.rows, :].reshape(shape)
        product = product * weights[..., None, block.paths, :]
        blocks.append(product.reshape(*edges, -1, channels))
    return jnp.concatenate(blocks, axis=-2)


def _over_components(
    products: Float[Array, "*edges rows channels"], layout: Layout
) -> Float[Array, "*edges paths channels"]:
    """Sums every path over its components: the transpose of spreading a weight."""
    edges, channels = products.shape[:-2], products.shape[-1]
    return jnp.concatenate(
        [
            products[..., block.rows, :]
            .reshape(*edges, block.irrep.dim, -1, channels)
            .sum(axis=-3)
            for block in message_blocks(layout)
        ],
        axis=-2,
    )


class _Batch(NamedTuple):
    """Molecules side by side; what every blocked function below works on.

    Attributes:
        x: features.
        harmonics: spherical harmonics.
        radial: weights, or without paths and channels what `kernel` makes them from.
        senders: neighbours, counted within each molecule.
        kernel: last radial layer, one for all molecules or one for each.
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
def blocked_sums(layout: Layout, edges_per_block: int, *batch: Array | None) -> Array:
    """Returns sums of messages, `[batch, receivers, rows, channels]`.

    >>> from common.so3.irreps import SCALAR
    >>> layout, ones = Layout((SCALAR,), (SCALAR,), (SCALAR,)), jnp.ones((1, 2, 3, 1))
    >>> x, senders = jnp.ones((1, 3, 1, 8)), jnp.zeros((1, 2, 3), int)
    >>> blocked_sums(layout, 4, x, ones, jnp.ones((1, 2, 3, 1, 8)), senders, None).shape
    (1, 2, 1, 8)

    Args:
        layout: irreps.
        edges_per_block: number of edges whose messages exist at once.
        *batch: fields of `_Batch`.
    """
    return _flattened(_forward, layout, edges_per_block)(None, *batch)


def _sums_fwd(
    layout: Layout, edges_per_block: int, *batch: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
    return blocked_sums(layout, edges_per_block, *batch), batch


def _sums_bwd(
    layout: Layout,
    edges_per_block: int,
    batch: tuple[Array | None, ...],
    cotangent: Array,
) -> tuple[Array | None, ...]:
    x_bar, y_bar, radial_bar, kernel_bar = _pullback(
        layout, edges_per_block, cotangent, *batch
    )
    return x_bar, y_bar, radial_bar, None, kernel_bar


blocked_sums.defvjp(_sums_fwd, _sums_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pullback(
    layout: Layout, edges_per_block: int, cotangent: Array, *batch: Array | None
) -> tuple[Array | None, ...]:
    """Returns the gradients of a convolution; itself differentiable."""
    return _flattened(_backward, layout, edges_per_block)(cotangent, *batch)


def _pullback_fwd(
    layout: Layout, edges_per_block: int, *operands: Array | None
) -> tuple[tuple[Array | None, ...], tuple[Array | None, ...]]:
    return _pullback(layout, edges_per_block, *operands), operands


def _pullback_bwd(
    layout: Layout,
    edges_per_block: int,
    operands: tuple[Array | None, ...],
    bars: tuple[Array | None, ...],
) -> tuple[Array | None, ...]:
    """Differentiates the gradients of the plain form, all edges at once."""
    cotangent, x, y, radial, senders, kernel = operands

    def gradients(cotangent: Array, *floats: Array | None) -> tuple[Array | None, ...]:
        plain = lambda x, y, radial, kernel: _all_edges(
            layout, _Batch(x, y, radial, senders, kernel)
        )
        return jax.vjp(plain, *floats)[1](cotangent)

    found = jax.vjp(gradients, cotangent, x, y, radial, kernel)[1](bars)
    return (*found[:4], None, found[4])


_pullback.defvjp(_pullback_fwd, _pullback_bwd)


def _all_edges(layout: Layout, batch: "_Batch") -> Array:
    """Convolves one molecule, all its edges at once, by plain operations."""
    senders = batch.senders[0]
    x, y = batch.x[0][senders.reshape(-1)], batch.harmonics[0]
    products = _edge_products(x, y.reshape(-1, y.shape[-1]), layout)
    products = products.reshape(*senders.shape, *products.shape[1:])
    weights = batch.radial[0]
    if batch.kernel is not None:
        kernel = batch.kernel[0]
        weights = jnp.einsum("rsh,hpc->rspc", weights, kernel)
    return _times_weights(products, weights, layout).sum(axis=1)[None]


@functools.cache
def _flattened(
    function: Callable[..., Any], layout: Layout, edges_per_block: int
) -> Callable[..., Any]:
    """Gives a blocked function a batching rule that puts molecules side by side."""

    @custom_vmap
    def call(cotangent: Array | None, *batch: Array | None) -> Any:
        return function(layout, edges_per_block, cotangent, _Batch(*batch))

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
    layout: Layout, edges_per_block: int, cotangent: None, batch: _Batch
) -> Array:
    del cotangent
    x = batch.x.reshape(-1, *batch.x.shape[2:])

    def step(_: None, block: _Slice) -> tuple[None, Array]:
        harmonics = block.harmonics.reshape(-1, block.harmonics.shape[-1])
        products = _edge_products(x[block.senders.reshape(-1)], harmonics, layout)
        products = products.reshape(*block.senders.shape, *products.shape[1:])
        weights = _weights(block, batch.kernel)
        return None, _times_weights(products, weights, layout).sum(axis=1)

    blocks, join = _slices(edges_per_block, None, batch)
    return join(jax.lax.scan(step, None, blocks)[1])


def _backward(
    layout: Layout, edges_per_block: int, cotangent: Array, batch: _Batch
) -> tuple[Array, Array, Array, Array | None]:
    x = batch.x.reshape(-1, *batch.x.shape[2:])
    table = jnp.asarray(coupling_table(layout), x.dtype)
    table = table.reshape(table.shape[0], -1)

    def step(
        bars: tuple[Array, Array | None], block: _Slice
    ) -> tuple[tuple[Array, Array | None], tuple[Array, Array]]:
        x_bar, kernel_bar = bars
        index = block.senders.reshape(-1)
        edge_x = x[index]
        harmonics = block.harmonics.reshape(len(index), -1)
        matrices = _edge_matrices(harmonics, layout)
        products = jnp.einsum("ear,eac->erc", matrices, edge_x)
        edge_bar = jnp.broadcast_to(
            block.cotangent[:, None], (*block.senders.shape, *block.cotangent.shape[1:])
        )
        weights_bar = _over_components(
            products.reshape(edge_bar.shape) * edge_bar, layout
        )
        products_bar = _times_weights(edge_bar, _weights(block, batch.kernel), layout)
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
