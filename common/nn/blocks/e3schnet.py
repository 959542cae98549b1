r"""The block of E3SchNet: SchNet's filters on tensor products with harmonics.

$$ x_i \leftarrow x_i + V\, \sigma\Big( U \sum_j f(r_{ij}) \odot
   (W x_j \otimes Y(\hat r_{ij})) \Big), $$
$\sigma$ a shifted softplus of the scalars and f an MLP of the radial basis (Schütt et
al. 2017, arXiv:1706.08566, made equivariant as in Daigavane et al. 2023,
arXiv:2311.16199).
"""

import flax.linen as nn

from common.nn.activations import shifted_softplus
from common.nn.blocks.messages import Rows, message_product
from common.nn.features import Features, add, irreps_of, scalars_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.so3.irreps import SCALAR, format_irreps, parse


class E3SchNetBlock(nn.Module):
    """A residual block.

    Attributes:
        irreps: irreps of the output.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        avg_num_neighbors: number whose root divides the sum of messages.
        num_hidden: channels of the messages; those of the output if zero.
    """

    irreps: str
    product: str = "clebsch_gordan"
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        irreps = parse(self.irreps)
        num_filters = self.num_hidden or irreps[SCALAR]
        filtered = Linear(num_filters)(x)
        row, spec = message_product(self.product, filtered, graph, tuple(irreps))
        widths = (num_filters, row.num_weights(spec))
        weights = MLP(widths, shifted_softplus, use_bias=False)(graph.feats)
        weights = weights * graph.envelope[..., None]
        sums = row.convolve(filtered, graph, weights, spec)
        scale = self.avg_num_neighbors**0.5
        sums = {irrep: part / scale for irrep, part in sums.items()}
        mixed = Linear(format_irreps(irreps))(sums)
        scalars = scalars_of(mixed)
        if condition is not None:
            scalars += nn.Dense(irreps[SCALAR], name="condition")(condition)
        mixed[SCALAR] = shifted_softplus(scalars)[:, None]
        update = Linear(format_irreps(irreps))(mixed)
        kept = {i: part for i, part in receiver_feats(x, graph).items() if i in irreps}
        if any(irreps[i] != channels for i, channels in irreps_of(kept).items()):
            kept = Linear(format_irreps(irreps), name="skip")(kept)
        return add(update, kept)
