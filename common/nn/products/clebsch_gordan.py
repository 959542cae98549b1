r"""The channelwise Clebsch-Gordan product, and its convolution block by block.

$$ z_{p c} = w_{p c} \sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3} (x_{l_1 c} \otimes y_{l_2}) $$
for every path $p = (l_1, l_2, l_3)$ with $p_1 p_2 = p_3$, in component normalisation.
The paths to one irrep lie side by side in its channels, for a linear map to mix.

The convolution sums the products of neighbours' features with the harmonics of the
edges, a block of receivers at a time: neither products nor messages of all edges ever
exist, in the gradient no more than in the value, which recomputes them. Under
`jax.vmap` molecules become one long list of receivers. It is differentiable any number
of times in reverse mode; second derivatives take the memory of all edges.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from common.nn.features import Features
from common.nn.graph import Graph, neighbour_table
from common.nn.products.spec import EdgeWeights, RadialWeights, Spec, split_weights
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path, product_paths

EDGES_PER_BLOCK = 128
"""Edges handled at once by the convolution: 1-3 MB, which stay in the cache."""


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists all paths of the irreps, ordered by output first.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> [str(out) for *_, out in paths(make_spec(*[uniform(1, 8)] * 3))]
    ['0e', '0e', '1o', '1o']
    """
    return product_paths(dict(spec.x), dict(spec.y), spec.out)


def num_weights(spec: Spec) -> int:
    """Returns one weight a path and channel of the first factor.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> num_weights(make_spec(*[uniform(1, 8)] * 3))
    32
    """
    return sum(_sizes(spec))


def irreps_out(spec: Spec) -> dict[Irrep, int]:
    """Returns the irreps of the product: for each, the channels of all its paths.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> list(irreps_out(make_spec(*[uniform(1, 8)] * 3)).values())
    [16, 16]
    """
    channels: dict[Irrep, int] = {}
    for (*_, out), size in zip(paths(spec), _sizes(spec), strict=True):
        channels[out] = channels.get(out, 0) + size
    return channels


def _sizes(spec: Spec) -> tuple[int, ...]:
    return tuple(dict(spec.x)[path[0]] for path in paths(spec))


def product(
    x: Features, y: Features, weights: Float[Array, "*batch num_weights"], spec: Spec
) -> Features:
    """Returns the products; y has one channel, or those of x.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> spec = make_spec({VECTOR: 1}, {VECTOR: 1}, [SCALAR])
    >>> x = {VECTOR: jnp.ones((3, 1))}
    >>> np.asarray(product(x, x, jnp.ones(1), spec)[SCALAR]).round(3)
    array([[1.732]], dtype=float32)
    """
    every = paths(spec)
    of_paths = split_weights(weights, _sizes(spec))
    return _join(
        (path, w[..., None, :] * path_product(x, y, path))
        for path, w in zip(every, of_paths, strict=True)
    )


def path_product(
    x: Features, y: Features, path: Path
) -> Float[Array, "*batch components channels"]:
    """Returns the product along one path, channel by channel.

    >>> from common.so3.irreps import PSEUDOVECTOR, VECTOR
    >>> x = {VECTOR: jnp.ones((3, 1))}
    >>> float(jnp.abs(path_product(x, x, (VECTOR, VECTOR, PSEUDOVECTOR))).max())
    0.0
    """
    i, j, k = path
    table = clebsch_gordan(i.degree, j.degree, k.degree) * math.sqrt(k.dim)
    outer = x[i][..., :, None, :] * y[j][..., None, :, :]
    outer = outer.reshape(*outer.shape[:-3], -1, outer.shape[-1])
    matrix = jnp.asarray(table.reshape(-1, k.dim).T, outer.dtype)
    return jnp.einsum("ka,...ac->...kc", matrix, outer)


def _join(parts: Iterable[tuple[Path, Array]]) -> Features:
    """Puts the products of all paths to one irrep side by side."""
    found: dict[Irrep, list[Array]] = {}
    for (*_, out), part in parts:
        found.setdefault(out, []).append(part)
    return {irrep: jnp.concatenate(found[irrep], axis=-1) for irrep in sorted(found)}


def convolve(
    x: Features,
    graph: Graph,
    weights: EdgeWeights,
    spec: Spec,
    edges_per_block: int = EDGES_PER_BLOCK,
) -> Features:
    """Sums the products with the harmonics of the edges at their receivers.

    >>> from common.nn.features import from_scalars, irreps_of
    >>> from common.nn.graph import make_graph
    >>> from common.nn.products.spec import make_spec
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=1)
    >>> irreps = irreps_of(graph.harmonics)
    >>> spec = make_spec(irreps_of(x), irreps, irreps)
    >>> sums = convolve(x, graph, jnp.ones((2, 2, num_weights(spec))), spec)
    >>> [part.shape for part in sums.values()]
    [(2, 1, 8), (2, 3, 8)]

    Args:
        x: features of the nodes.
        graph: edges; irreps of `x` and of their harmonics are those of `spec`.
        weights: weights of the edges, zero where there is none.
        spec: irreps.
        edges_per_block: number of edges whose messages exist at once.
    """
    senders = neighbour_table(graph, next(iter(x.values())).shape[0])
    y = jnp.concatenate([graph.harmonics[j] for j, _ in spec.y], axis=-2)[..., 0]
    channels = dict(spec.x)
    sizes = _sizes(spec)
    found = {}
    # Irreps of one number of channels share a table; usually all do.
    for count in sorted(set(channels.values())):
        layout = Layout(
            tuple(i for i, c in spec.x if c == count),
            tuple(j for j, _ in spec.y),
            spec.out,
        )
        kept = [path[0] in layout.x for path in paths(spec)]
        if not any(kept):
            continue
        nodes = jnp.concatenate([x[i] for i in layout.x], axis=-2)
        radial, kernel = _of_paths(weights, sizes, kept, count)
        batch = (a[None] for a in (nodes, y, radial, senders))
        kernel = None if kernel is None else kernel[None]
        rows = _blocked(layout, edges_per_block, *batch, kernel)[0]
        found.update(_by_path(rows, layout, count))
    return _join((path, found[path]) for path in paths(spec))


def _of_paths(
    weights: EdgeWeights, sizes: Sequence[int], kept: Sequence[bool], channels: int
) -> tuple[Array, Array | None]:
    """Returns the weights of some paths, `[..., paths, channels]`, and their kernel."""

    def select(array: Array) -> Array:
        pairs = zip(split_weights(array, sizes), kept, strict=True)
        chosen = array if all(kept) else jnp.concatenate([w for w, k in pairs if k], -1)
        return chosen.reshape(*chosen.shape[:-1], -1, channels)

    if isinstance(weights, RadialWeights):
        return weights.radial, select(weights.kernel)
    return select(weights), None


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


def _by_path(
    message: Float[Array, "*batch rows channels"], layout: Layout, channels: int
) -> dict[Path, Float[Array, "*batch _components channels"]]:
    """Returns the message of each path."""
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
def _blocked(layout: Layout, edges_per_block: int, *batch: Array | None) -> Array:
    return _flattened(_forward, layout, edges_per_block)(None, *batch)


def _blocked_fwd(
    layout: Layout, edges_per_block: int, *batch: Array | None
) -> tuple[Array, tuple[Array | None, ...]]:
    return _blocked(layout, edges_per_block, *batch), batch


def _blocked_bwd(
    layout: Layout,
    edges_per_block: int,
    batch: tuple[Array | None, ...],
    cotangent: Array,
) -> tuple[Array | None, ...]:
    x_bar, y_bar, radial_bar, kernel_bar = _pullback(
        layout, edges_per_block, cotangent, *batch
    )
    return x_bar, y_bar, radial_bar, None, kernel_bar


_blocked.defvjp(_blocked_fwd, _blocked_bwd)


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
            block.cotangent[:, None],
            (*block.senders.shape, *block.cotangent.shape[1:]),
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
