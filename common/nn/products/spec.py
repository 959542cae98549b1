"""The row of the table of products, and what a product knows before it sees arrays."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph, gather
from common.so3.irreps import Irrep, Irreps, Path


class Spec(NamedTuple):
    """Irreps of a product; hashable.

    Attributes:
        x: irreps and channels of the first factor, sorted.
        y: those of the second factor.
        out: irreps kept in the product.
    """

    x: tuple[tuple[Irrep, int], ...]
    y: tuple[tuple[Irrep, int], ...]
    out: tuple[Irrep, ...]


def make_spec(x: Irreps, y: Irreps, out: Iterable[Irrep]) -> Spec:
    """Returns the spec of two factors.

    >>> from common.so3.irreps import uniform
    >>> len(make_spec(uniform(2, 8), uniform(2, 1), uniform(2, 1)).x)
    3
    """
    sort = lambda irreps: tuple(sorted(irreps.items()))
    return Spec(sort(x), sort(y), tuple(sorted(out)))


class RadialWeights(NamedTuple):
    """Weights of edges as `radial @ kernel`, which a product may make block by block.

    Attributes:
        radial: functions of each edge, zero where there is none.
        kernel: last layer of the radial network, without bias.
    """

    radial: Float[Array, "num_receivers num_senders num_radial"]
    kernel: Float[Array, "num_radial num_weights"]


EdgeWeights: TypeAlias = (
    Float[Array, "num_receivers num_senders num_weights"] | RadialWeights
)


PathWeights: TypeAlias = dict[Path, Float[Array, "*batch _channels"]]
"""Weights of Clebsch-Gordan products by path."""


class Product(NamedTuple):
    """A row of the table of products.

    Attributes:
        paths: `(spec) -> paths`, in the order of the weights.
        num_weights: `(spec) -> number` of weights of one product.
        irreps_out: `(spec) -> irreps` of the product.
        product: `(x, y, weights, spec) -> features`; weights are `[..., num_weights]`.
        convolve: `(x, graph, weights, spec) -> features`: the products of the senders'
            features with the harmonics of the edges, summed at the receivers.
        path_weights: `(weights, spec) -> weights by path` of the channelwise
            Clebsch-Gordan product whose paths to one irrep, added up, are the same.
        needs_direction: true if y must be the harmonics of one direction.
        parity: parity rule, for the documentation.
        cost: cost for largest degree L, a channel and an edge or node.
        is_complete: true if the paths span all equivariant bilinear maps of a channel.
        is_separable: true if weights belong to the irreps of x, of y and of the product
            instead of paths: the product is cubic in them, else linear.
        mixes_channels: true if every channel of x meets every one of y; the weights of
            a path are `[..., channels_x, channels_y, channels]`.
        makes_messages: true if it reaches all irreps of natural parity, so that every
            block can take its messages from it.
    """

    paths: Callable[[Spec], tuple[Path, ...]]
    num_weights: Callable[[Spec], int]
    irreps_out: Callable[[Spec], dict[Irrep, int]]
    product: Callable[..., Features]
    convolve: Callable[..., Features]
    path_weights: Callable[..., PathWeights]
    needs_direction: bool
    parity: str
    cost: str
    is_complete: bool
    is_separable: bool = False
    mixes_channels: bool = False
    makes_messages: bool = True


def as_array(weights: EdgeWeights) -> Float[Array, "receivers senders num_weights"]:
    """Returns the weights of edges as one array.

    >>> as_array(RadialWeights(jnp.ones((2, 2, 3)), jnp.ones((3, 8)))).shape
    (2, 2, 8)
    """
    if not isinstance(weights, RadialWeights):
        return weights
    return weights.radial @ weights.kernel


def split_weights(
    weights: Float[Array, "*batch num_weights"], sizes: Iterable[int]
) -> Iterator[Float[Array, "*batch _size"]]:
    """Yields slices of the weights, of these sizes.

    >>> [w.shape for w in split_weights(jnp.ones((2, 5)), (2, 3))]
    [(2, 2), (2, 3)]
    """
    start = 0
    for size in sizes:
        yield weights[..., start : start + size]
        start += size


def equal_channels(spec: Spec) -> int:
    """Returns the number of channels of the first factor.

    >>> from common.so3.irreps import uniform
    >>> equal_channels(make_spec(uniform(2, 8), uniform(2, 1), uniform(2, 1)))
    8

    Raises:
        ValueError: Its irreps have different numbers.
    """
    channels = {count for _, count in spec.x}
    if len(channels) != 1:
        raise ValueError(
            "expected one number of channels for all irreps of this product, found "
            f"{sorted(channels)}"
        )
    return channels.pop()


def num_weights_of(paths: Callable[[Spec], Sequence[Path]], spec: Spec) -> int:
    """Returns one weight a path and channel.

    >>> from common.nn.products.self_product import paths
    >>> from common.so3.irreps import uniform
    >>> num_weights_of(paths, make_spec(*[uniform(1, 8)] * 3))
    32
    """
    return equal_channels(spec) * len(paths(spec))


def added_up(paths: Callable[[Spec], Sequence[Path]], spec: Spec) -> dict[Irrep, int]:
    """Returns the irreps of a product whose paths to one irrep are added up.

    >>> from common.nn.products.self_product import paths
    >>> from common.so3.irreps import uniform
    >>> list(added_up(paths, make_spec(*[uniform(1, 8)] * 3)).values())
    [8, 8]
    """
    return {out: equal_channels(spec) for *_, out in paths(spec)}


def convolve_edges(
    product: Callable[..., Features],
    x: Features,
    graph: Graph,
    weights: EdgeWeights,
    spec: Spec,
) -> Features:
    """Sums the products of all edges at their receivers: any product, much memory.

    >>> from common.nn.features import from_scalars, irreps_of
    >>> from common.nn.graph import make_graph
    >>> ones, x = jnp.ones((2, 2)), from_scalars(jnp.ones((2, 8)))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> spec = make_spec(irreps_of(x), irreps_of(graph.harmonics), irreps_of(x))
    >>> only_weights = lambda x, y, weights, spec: {i: weights for i in spec.out}
    >>> sums = convolve_edges(only_weights, x, graph, jnp.ones((2, 2, 8)), spec)
    >>> [part.shape for part in sums.values()]
    [(2, 8)]
    """
    senders = jax.tree.map(lambda part: gather(part, graph), x)
    messages = product(senders, graph.harmonics, as_array(weights), spec)
    return jax.tree.map(lambda part: jnp.sum(part, axis=1), messages)
