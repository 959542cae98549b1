r"""The layer of NequIP: convolution, self-connection by species, gate.

$$ x_i \leftarrow \mathrm{gate}\Big( W_{s_i} x_i + \frac{V}{\sqrt{n}} \sum_j
   f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij})) \Big), $$
f an MLP of the radial basis, n the usual number of neighbours and $s_i$ the species
(Batzner et al. 2022, arXiv:2101.03164). Linear maps have no biases and, with the
activations, keep unit second moments.
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from common.nn.activations import swish
from common.nn.blocks.messages import Rows, edge_feats, message_product
from common.nn.features import Features, add, irreps_of
from common.nn.gate import gate
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products.spec import RadialWeights
from common.so3.irreps import SCALAR, format_irreps, parse


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
            own, scale = _by_species(own, condition), float(condition.shape[-1])
        sums = self._messages(x, graph)
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
        rows, start = {}, 0
        for irrep in sorted(irreps.keys() - {SCALAR}):
            rows[irrep] = gates[..., start : start + irreps[irrep]]
            start += irreps[irrep]
        return gate(update, rows, swish, swish)

    def _messages(self, x: Features, graph: Graph) -> Features:
        """Returns the sums of messages of unit variance."""
        irreps = parse(self.irreps)
        width = self.num_hidden or irreps[SCALAR]
        mixed = Linear(format_irreps(irreps_of(x)))(x)
        row, spec = message_product(self.product, mixed, graph, tuple(irreps))
        hidden = MLP((width,) * 2, swish, use_bias=False)(edge_feats(graph))
        shape = (width, row.num_weights(spec))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        sums = row.convolve(mixed, graph, RadialWeights(swish(hidden), kernel), spec)
        return jax.tree.map(lambda part: part / self.avg_num_neighbors**0.5, sums)


def _by_species(
    x: Features, one_hot: Float[Array, "num_nodes num_species"]
) -> Features:
    """Lays out channels by species: only one block of them is not zero."""
    spread = lambda part: (part[..., None, :] * one_hot[:, None, :, None]).reshape(
        *part.shape[:-1], -1
    )
    return jax.tree.map(spread, x)
