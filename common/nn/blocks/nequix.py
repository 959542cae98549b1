r"""The layer of Nequix: NequIP's messages, one self-connection, a norm before the gate.

$$ x_i \leftarrow \mathrm{gate}\Big( \mathrm{norm}\Big( W x_i + \frac{V}{\sqrt{n}}
   \sum_j f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij})) \Big) \Big), $$
f an MLP of the radial basis, n the usual number of neighbours (Koker et al. 2025,
arXiv:2508.16067). The gates are scalars of the same sum, so the norm sees them too. One
matrix W serves all species, which enter the first layer as scalars.
"""

import flax.linen as nn

from common.nn.activations import swish
from common.nn.blocks.messages import Rows, radial_sums
from common.nn.features import Features, add
from common.nn.gate import gate, split_gates
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.norm import RMSNorm
from common.so3.irreps import SCALAR, format_irreps, parse


class NequixBlock(nn.Module):
    """A layer; the residual connection, where there is one, is around it.

    Attributes:
        irreps: irreps of the output.
        avg_num_neighbors: number whose root divides the sum of messages.
        num_hidden: width of the two hidden layers of the radial network; the number of
            scalars if zero.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
    """

    irreps: str
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    product: str = "clebsch_gordan"

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        irreps = parse(self.irreps)
        num_scalars = irreps[SCALAR]
        width = self.num_hidden or num_scalars
        scope = self, self.product, width, self.avg_num_neighbors
        sums = radial_sums(*scope, x, graph, tuple(irreps))
        num_gates = sum(count for i, count in irreps.items() if i != SCALAR)
        wide = format_irreps({**irreps, SCALAR: num_scalars + num_gates})
        update = add(Linear(wide)(receiver_feats(x, graph)), Linear(wide)(sums))
        if condition is not None:
            shift = nn.Dense(num_scalars + num_gates, name="condition")(condition)
            update[SCALAR] += shift[:, None]
        update = RMSNorm()(update)
        gates = split_gates(update[SCALAR][..., num_scalars:], irreps)
        update[SCALAR] = update[SCALAR][..., :num_scalars]
        return gate(update, gates, swish, swish)
