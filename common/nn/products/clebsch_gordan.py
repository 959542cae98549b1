r"""The channelwise Clebsch-Gordan product, and its convolution block by block.

$$ z_{p c} = w_{p c} \sqrt{2 l_3 + 1}\, C^{l_1 l_2 l_3} (x_{l_1 c} \otimes y_{l_2}) $$
for every path $p = (l_1, l_2, l_3)$ with $p_1 p_2 = p_3$, in component normalisation.
The paths to one irrep lie side by side in its channels, for a linear map to mix.
`common.nn.products.blocked` sums them over the edges.
"""

import math
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph, neighbour_table
from common.nn.products import plan
from common.nn.products.blocked import Layout, blocked_sums
from common.nn.products.kernels import expand, spread, times
from common.nn.products.spec import (
    EdgeWeights,
    PathWeights,
    RadialWeights,
    Spec,
    split_weights,
)
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path, product_paths


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
    >>> round(float(product(x, x, jnp.ones(1), spec)[SCALAR][0, 0]), 3)
    1.732
    """
    return _join(
        (path, spread(w, path[2].dim) * path_product(x, y, path))
        for path, w in path_weights(weights, spec).items()
    )


def path_weights(
    weights: Float[Array, "*batch num_weights"], spec: Spec
) -> PathWeights:
    """Returns the weights by path.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> spec = make_spec(*[uniform(1, 8)] * 3)
    >>> [w.shape for w in path_weights(jnp.ones(32), spec).values()]
    [(8,), (8,), (8,), (8,)]
    """
    parts = split_weights(weights, _sizes(spec))
    return dict(zip(paths(spec), parts, strict=True))


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
    if y[j].shape[-1] == 1:  # A matrix for all channels.
        entries = np.einsum("abk->bka", table).reshape(j.dim, -1)
        matrix = expand(y[j][..., 0], entries)
        return times(matrix.reshape(*matrix.shape[:-1], k.dim, i.dim), x[i])
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
    edges_per_block: int | None = None,
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
        edges_per_block: number of edges whose messages exist at once; by the device if
            None.
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
        floats = plan.message_floats(product_paths(*layout), count)
        edges = edges_per_block or plan.edges_per_block(floats)
        sums = blocked_sums(layout, edges, *batch, kernel)
        found.update({path: part[0] for path, part in sums.items()})
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
