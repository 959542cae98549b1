r"""The layer of NequIP: convolution, self-connection by species, gate.

$$ x_i \leftarrow \mathrm{gate}\Big( W_{s_i} x_i + \frac{V}{\sqrt{n}} \sum_j
   f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij})) \Big), $$
f an MLP of the radial basis, n the usual number of neighbours and $s_i$ the species
(Batzner et al. 2022, arXiv:2101.03164). Linear maps have no biases and, with the
activations, keep unit second moments.
"""

import flax.linen as nn

from common.nn.activations import swish
from common.nn.blocks.messages import Rows, by_species, radial_sums
from common.nn.features import Features, add
from common.nn.gate import gate, split_gates
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.so3.irreps import SCALAR, parse


class NequIPBlock(nn.Module):
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
        """Returns the features of the receivers.

        Args:
            x: features of the nodes.
            graph: edges.
            condition: species as one-hot rows: each has a matrix of its own. One matrix
                serves all where it is None.
        """
        irreps = parse(self.irreps)
        own, scale = receiver_feats(x, graph), 1.0
        if condition is not None:
            own, scale = by_species(own, condition), float(condition.shape[-1])
        width = self.num_hidden or irreps[SCALAR]
        scope = self, self.product, width, self.avg_num_neighbors
        sums = radial_sums(*scope, x, graph, tuple(irreps))
        higher = sum(channels for i, channels in irreps.items() if i != SCALAR)
        init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
        of_scalars = lambda part: {SCALAR: part[SCALAR]}
        update = add(
            Linear(self.irreps, kernel_init=init)(own), Linear(self.irreps)(sums)
        )
        if not higher:
            return {SCALAR: swish(update[SCALAR])}
        gates = Linear(higher, kernel_init=init)(of_scalars(own))[SCALAR]
        gates += Linear(higher)(of_scalars(sums))[SCALAR]
        return gate(update, split_gates(gates, irreps), swish, swish)
