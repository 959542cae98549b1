"""Convolution block by block, for features of one number of channels.

It sums the products of neighbours' features with the harmonics of the edges, a block of
receivers at a time, and so do all its derivatives in reverse mode (see `over_blocks`).
The first is written by hand.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from common.nn.products.over_blocks import Operands, over_blocks
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


def blocked_sums(
    layout: Layout,
    edges_per_block: int,
    x: Float[Array, "batch nodes components channels"],
    harmonics: Float[Array, "batch receivers neighbours components_harmonics"],
    radial: Float[Array, "batch receivers neighbours *weights"],
    senders: Int[Array, "batch receivers neighbours"],
    kernel: Float[Array, "kernels num_radial paths channels"] | None,
) -> Float[Array, "batch receivers rows channels"]:
    """Returns sums of messages.

    >>> from common.so3.irreps import SCALAR
    >>> layout, ones = Layout((SCALAR,), (SCALAR,), (SCALAR,)), jnp.ones((1, 2, 3, 1))
    >>> x, senders = jnp.ones((1, 3, 1, 8)), jnp.zeros((1, 2, 3), int)
    >>> blocked_sums(layout, 4, x, ones, jnp.ones((1, 2, 3, 1, 8)), senders, None).shape
    (1, 2, 1, 8)

    Args:
        layout: irreps.
        edges_per_block: number of edges whose messages exist at once.
        x: features.
        harmonics: spherical harmonics.
        radial: weights, or without paths and channels what `kernel` makes them from.
        senders: neighbours, counted within each molecule.
        kernel: last radial layer, one for all molecules or one for each.
    """
    operands = Operands(x, kernel, (harmonics, radial))
    return over_blocks(_Sums(layout), edges_per_block, senders, operands).rows


class _Sums(NamedTuple):
    """What is done in a block."""

    layout: Layout

    def __call__(
        self, x: Array, kernel: Array | None, rows: tuple[Array, Array]
    ) -> tuple[None, None, Array]:
        return None, None, _sums(self.layout, x, kernel, *rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(
    layout: Layout,
    x: Float[Array, "receivers neighbours components channels"],
    kernel: Float[Array, "num_radial paths channels"] | None,
    harmonics: Float[Array, "receivers neighbours components_harmonics"],
    radial: Float[Array, "receivers neighbours *weights"],
) -> Float[Array, "receivers rows channels"]:
    products = _edge_products(_flat(x), _flat(harmonics), layout)
    weighted = _times_weights(products, _flat(_weights(radial, kernel)), layout)
    return weighted.reshape(*x.shape[:2], *weighted.shape[1:]).sum(axis=1)


def _sums_fwd(
    layout: Layout, *operands: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
    return _sums(layout, *operands), operands


def _sums_bwd(
    layout: Layout, operands: tuple[Array | None, ...], cotangent: Array
) -> tuple[Array | None, ...]:
    x, kernel, harmonics, radial = operands
    edge_x = _flat(x)
    matrices = _edge_matrices(_flat(harmonics), layout)
    products = jnp.einsum("ear,eac->erc", matrices, edge_x)
    shape = (*x.shape[:2], *cotangent.shape[1:])
    edge_bar = _flat(jnp.broadcast_to(cotangent[:, None], shape))
    weights_bar = _over_components(products * edge_bar, layout)
    products_bar = _times_weights(edge_bar, _flat(_weights(radial, kernel)), layout)
    matrices_bar = jnp.einsum("eac,erc->ear", edge_x, products_bar)
    table = jnp.asarray(coupling_table(layout), x.dtype)
    harmonics_bar = _matrix(matrices_bar) @ table.reshape(len(table), -1).T
    x_bar = jnp.einsum("ear,erc->eac", matrices, products_bar)
    radial_bar, kernel_bar = weights_bar, None
    if kernel is not None:
        one = _matrix(kernel)
        radial_bar = _matrix(weights_bar) @ one.T
        kernel_bar = (_flat(radial).T @ _matrix(weights_bar)).reshape(kernel.shape)
    return (
        x_bar.reshape(x.shape),
        kernel_bar,
        harmonics_bar.reshape(harmonics.shape),
        radial_bar.reshape(radial.shape),
    )


_sums.defvjp(_sums_fwd, _sums_bwd)


def _flat(array: Float[Array, "receivers neighbours *rest"]) -> Array:
    """Puts the edges in a row."""
    return array.reshape(-1, *array.shape[2:])


def _matrix(array: Float[Array, "_count ..."]) -> Float[Array, "_count _size"]:
    return array.reshape(array.shape[0], -1)


def _weights(radial: Array, kernel: Array | None) -> Array:
    """Returns a block's radial weights, made here if there is a kernel."""
    if kernel is None:
        return radial
    weights = _flat(radial) @ _matrix(kernel)
    return weights.reshape(*radial.shape[:2], *kernel.shape[1:])
