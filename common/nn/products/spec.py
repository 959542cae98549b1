"""The row of the table of products, and what a product knows before it sees arrays."""

from collections.abc import Callable, Iterable, Iterator
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


class Product(NamedTuple):
    """A row of the table of products.

    Attributes:
        paths: `(spec) -> paths`, in the order of the weights.
        num_weights: `(spec) -> number` of weights of one product.
        irreps_out: `(spec) -> irreps` of the product.
        product: `(x, y, weights, spec) -> features`; weights are `[..., num_weights]`.
        convolve: `(x, graph, weights, spec) -> features`: the products of the senders'
            features with the harmonics of the edges, summed at the receivers.
        needs_direction: true if y must be the harmonics of one direction.
        parity: parity rule, for the documentation.
        cost: cost for largest degree L, a channel and an edge or node.
        is_complete: true if the paths span all equivariant bilinear maps of a channel.
    """

    paths: Callable[[Spec], tuple[Path, ...]]
    num_weights: Callable[[Spec], int]
    irreps_out: Callable[[Spec], dict[Irrep, int]]
    product: Callable[..., Features]
    convolve: Callable[..., Features]
    needs_direction: bool
    parity: str
    cost: str
    is_complete: bool


def as_array(weights: EdgeWeights) -> Float[Array, "receivers senders num_weights"]:
    """Returns the weights of edges as one array."""
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


def convolve_edges(
    product: Callable[..., Features],
    x: Features,
    graph: Graph,
    weights: EdgeWeights,
    spec: Spec,
) -> Features:
    """Sums the products of all edges at their receivers: any product, much memory."""
    senders = jax.tree.map(lambda part: gather(part, graph), x)
    messages = product(senders, graph.harmonics, as_array(weights), spec)
    return jax.tree.map(lambda part: jnp.sum(part, axis=1), messages)
