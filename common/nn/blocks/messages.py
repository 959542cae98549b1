"""Messages, said once: a product of the table for the edges of a graph."""

from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from common.nn.activations import swish
from common.nn.features import Features, irreps_of, take
from common.nn.graph import Graph, neighbour_table
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products import MESSAGE_PRODUCTS, PRODUCTS, plan
from common.nn.products.over_blocks import Operands, over_blocks
from common.nn.products.spec import Product, RadialWeights, Spec, make_spec
from common.so3.irreps import SCALAR, Irrep, format_irreps

Rows: TypeAlias = Float[Array, "num_receivers num_condition"] | None
"""Numbers by which a block is conditioned, a row a receiver."""


def message_product(
    name: str, x: Features, graph: Graph, out: tuple[Irrep, ...] = ()
) -> tuple[Product, Spec]:
    """Returns the row of a product, and its spec for features and harmonics.

    >>> import jax.numpy as jnp
    >>> from common.nn.features import from_scalars
    >>> from common.nn.graph import make_graph
    >>> ones = jnp.ones((3, 3))
    >>> graph = make_graph(jnp.ones((3, 3, 3)), ones[..., None], ones, max_degree=0)
    >>> row, spec = message_product("scalar", from_scalars(jnp.ones((3, 8))), graph)
    >>> row.num_weights(spec)
    8

    Args:
        name: row of `PRODUCTS`, among `MESSAGE_PRODUCTS`.
        x: features of the nodes.
        graph: edges.
        out: irreps of the messages; those of `x` if empty.

    Raises:
        ValueError: There is no such product of messages.
    """
    if name not in MESSAGE_PRODUCTS:
        raise ValueError(
            f"product: expected one of {', '.join(MESSAGE_PRODUCTS)}, found {name!r}"
        )
    irreps = irreps_of(x)
    return PRODUCTS[name], make_spec(irreps, irreps_of(graph.harmonics), out or irreps)


def edge_feats(graph: Graph) -> Float[Array, "num_receivers num_senders num_feats"]:
    """Returns the features of the edges times their envelope.

    >>> import jax.numpy as jnp
    >>> from common.nn.graph import make_graph
    >>> ones = jnp.ones((2, 2))
    >>> vectors, feats = jnp.ones((2, 2, 3)), ones[..., None]
    >>> edge_feats(make_graph(vectors, feats, 0.5 * ones, max_degree=0))[0, 0]
    Array([0.5], dtype=float32)
    """
    return graph.feats * graph.envelope[..., None]


def with_scalars(x: Features, scalars: Float[Array, "num_nodes channels"]) -> Features:
    """Returns features with other scalars.

    >>> import jax.numpy as jnp
    >>> with_scalars({SCALAR: jnp.ones((2, 1, 8))}, jnp.zeros((2, 4)))[SCALAR].shape
    (2, 1, 4)
    """
    return {**x, SCALAR: scalars[:, None]}


def radial_sums(
    module: nn.Module,
    product: str,
    width: int,
    avg_num_neighbors: float,
    x: Features,
    graph: Graph,
    out: tuple[Irrep, ...],
) -> Features:
    r"""Returns the sums of NequIP's messages, which have unit variance.

    $\frac{1}{\sqrt{n}} \sum_j f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij}))$, f a
    network of two hidden layers without biases (Batzner et al. 2022, arXiv:2101.03164).

    Args:
        module: block whose parameters these are.
        product: row of `PRODUCTS`.
        width: width of the hidden layers.
        avg_num_neighbors: number n whose root divides the sum.
        x: features of the nodes.
        graph: edges.
        out: irreps of the messages.
    """
    mixed = Linear(format_irreps(irreps_of(x)))(x)
    row, spec = message_product(product, mixed, graph, out)
    hidden = MLP((width,) * 2, swish, use_bias=False)(edge_feats(graph))
    shape = (width, row.num_weights(spec))
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    sums = row.convolve(mixed, graph, RadialWeights(swish(hidden), kernel), spec)
    return jax.tree.map(lambda part: part / avg_num_neighbors**0.5, sums)


class _Sums(NamedTuple):
    """What is done in a block."""

    module: nn.Module

    def __call__(self, x: Features, variables: Any, rows: Any) -> tuple[Any, Any, Any]:
        return None, None, self.module.apply(variables, x, *rows)


def sum_edges(
    module: nn.Module, floats: int, x: Features, graph: Graph, *rows: Any
) -> Features:
    """Returns what a module sums over the edges, a block of receivers at a time.

    Its inner arrays exist for a block only, in value and in derivatives in reverse
    mode, which make them anew.

    >>> import jax.numpy as jnp
    >>> from common.nn.features import from_scalars
    >>> from common.nn.graph import make_graph
    >>> class Weighted(nn.Module):
    ...     def __call__(self, x, weights):
    ...         return {i: jnp.einsum("rs,rsmc->rmc", weights, x[i]) for i in x}
    >>> class Block(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, graph):
    ...         return sum_edges(Weighted(), 8, x, graph, graph.envelope)
    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=0)
    >>> Block().apply({}, from_scalars(jnp.ones((2, 1))), graph)[SCALAR].tolist()
    [[[2.0]], [[2.0]]]

    Args:
        module: a submodule that is bound and not called:
            `(x, *rows) -> features` of receivers, where x is `[receivers, senders,
            ...]`, zero where rows are. It makes no random numbers.
        floats: numbers that it makes of an edge at once.
        x: features of the nodes.
        graph: edges.
        rows: PyTrees of what receivers and their edges have, receivers first.
    """
    senders = neighbour_table(graph, next(iter(x.values())).shape[0])
    if module.is_initializing():
        module(*jax.tree.map(lambda a: a[:1], (take(x, senders[:1]), *rows)))
    function, variables = module.unbind()
    one = lambda tree: jax.tree.map(lambda a: a[None], tree)
    operands = Operands(*map(one, (x, variables, rows)))
    edges = plan.edges_per_block(floats)
    found = over_blocks(_Sums(function), edges, senders[None], operands).rows
    return jax.tree.map(lambda a: a[0], found)


def by_species(x: Features, one_hot: Float[Array, "num_nodes num_species"]) -> Features:
    """Lays out channels by species, for a linear map to have a matrix for each.

    >>> import jax.numpy as jnp
    >>> x = {SCALAR: jnp.full((1, 1, 2), 3.0)}
    >>> by_species(x, jnp.array([[0.0, 1.0]]))[SCALAR].tolist()
    [[[0.0, 0.0, 3.0, 3.0]]]
    """
    spread = lambda part: (part[..., None, :] * one_hot[:, None, :, None]).reshape(
        *part.shape[:-1], -1
    )
    return jax.tree.map(spread, x)
