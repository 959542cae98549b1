r"""Symphony's block: messages, then inner products at the receivers.

$$ A_i^l = \sum_j w^l(r_{ij}) \odot (s_j \otimes Y^l(\hat r_{ij}))
   + v^l(r_{ij}) \odot h_j^l $$
(by the product "scalar"; any other one of the table may take its place), followed by
inner products $\langle U A_i^l, V A_i^l \rangle$, which see angles, an MLP on all
invariants, and gates on the degrees above zero.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from common.nn.blocks.messages import Rows, edge_feats, message_product, with_scalars
from common.nn.features import Features, add, irreps_of, scalars_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.norm import RMSNorm
from common.nn.products.spec import EdgeWeights
from common.so3.irreps import SCALAR, parse

EDGES = "Dense_1"
"""Name of the layer that makes the weights of edges; the others count on."""


class SymphonyBlock(nn.Module):
    """A residual block.

    Attributes:
        irreps: irreps of the features, of one number of channels.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        avg_num_neighbors: number whose root divides the sum of messages.
        num_hidden: width of the MLP; twice the number of channels if zero.
        zero_init: true for a fresh block that returns its receivers as they are.
    """

    irreps: str
    product: str = "scalar"
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    zero_init: bool = False

    def edge_weights(self, graph: Graph) -> EdgeWeights:
        """Returns the weights of the messages of all edges, of a bound block.

        They depend on distances alone, and edges may be left out of them later.
        """
        return edge_feats(graph) @ self.get_variable("params", EDGES)["kernel"]

    @nn.compact
    def __call__(
        self,
        x: Features,
        graph: Graph,
        condition: Rows = None,
        weights: EdgeWeights | None = None,
    ) -> Features:
        irreps = parse(self.irreps)
        width = irreps[SCALAR]
        senders = RMSNorm()(x)
        receivers = receiver_feats(x, graph)
        normed = scalars_of(RMSNorm()(receivers))
        scalars = nn.Dense(width, use_bias=False, name="Dense_0")(scalars_of(senders))
        row, spec = message_product(self.product, senders, graph, tuple(irreps))
        if weights is None:
            dense = nn.Dense(row.num_weights(spec), use_bias=False, name=EDGES)
            weights = dense(edge_feats(graph))
        sums = row.convolve(with_scalars(senders, scalars), graph, weights, spec)
        scale = math.sqrt(self.avg_num_neighbors)
        sums = RMSNorm()({irrep: part / scale for irrep, part in sums.items()})
        left, right = Linear(width)(sums), Linear(width)(sums)
        products = [
            jnp.sum(left[irrep] * right[irrep], axis=1) / irrep.dim
            for irrep in irreps_of(left)
        ]
        invariants = jnp.concatenate([normed, scalars_of(left), *products], -1)
        hidden = nn.Dense(self.num_hidden or 2 * width, name="Dense_2")(invariants)
        if condition is not None:
            hidden += nn.Dense(hidden.shape[-1], name="condition")(condition)
        return add(receivers, self._gated(left, nn.silu(hidden), width))

    def _gated(self, left: Features, hidden: Array, width: int) -> Features:
        """Makes new scalars, and gates for the other irreps, from invariants."""
        zeros, usual = nn.initializers.zeros, nn.initializers.lecun_normal()
        gates = nn.Dense(
            len(left) * width,
            kernel_init=zeros if self.zero_init else usual,
            name="Dense_3",
        )(hidden)
        gates = jnp.split(gates[:, None], len(left), axis=-1)
        return {
            irrep: own if irrep == SCALAR else left[irrep] * own
            for irrep, own in zip(irreps_of(left), gates, strict=True)
        }
