r"""The layer of MACE: messages of several bodies from powers of one sum.

$$ A_i = \frac{1}{\sqrt n} \sum_j f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij})), \qquad
   x_i \leftarrow W_{s_i} x_i + V \sum_{\nu = 1}^{N} w^\nu_{s_i} B^\nu(V' A_i), $$
$B^\nu$ all equivariant polynomials of order $\nu$ of a channel, see
`common.nn.contraction`: of four bodies where N is 3. f is an MLP of the radial basis
and $s_i$ the species (Batatia et al. 2022, arXiv:2206.07697, eqs. 8 to 11).
"""

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

from common.nn.activations import swish
from common.nn.blocks.messages import Rows, by_species, message_product
from common.nn.contraction import CONTRACTIONS, Contraction
from common.nn.features import Features, add, irreps_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products.spec import RadialWeights
from common.so3.irreps import SCALAR, Irrep, format_irreps, parse


class MACEBlock(nn.Module):
    """A layer with its residual connection.

    Attributes:
        irreps: irreps of the output; A has as many channels as they have scalars.
        avg_num_neighbors: number whose root divides the sum of messages.
        num_hidden: width of the radial network; the number of scalars if zero.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        correlation: largest order N.
        contraction: row of `common.nn.contraction.CONTRACTIONS`.
    """

    irreps: str
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    product: str = "clebsch_gordan"
    correlation: int = 3
    contraction: str = "symmetric"

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        """Returns the features of the receivers.

        Args:
            x: features of the nodes.
            graph: edges.
            condition: species as one-hot rows: each has weights of its own. One set
                serves all where it is None.
        """
        if self.contraction not in CONTRACTIONS:
            raise ValueError(
                f"contraction: expected one of {', '.join(CONTRACTIONS)}, found "
                f"{self.contraction!r}"
            )
        basis = self._basis(x, graph)
        spec = Contraction(
            tuple(basis), tuple(sorted(parse(self.irreps))), self.correlation
        )
        paths, contract = CONTRACTIONS[self.contraction]
        weights = self._path_weights(paths(spec), condition)
        own, scale = receiver_feats(x, graph), 1.0
        if condition is not None:
            own, scale = by_species(own, condition), float(condition.shape[-1])
        init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
        return add(
            Linear(self.irreps, kernel_init=init, name="own")(own),
            Linear(self.irreps, name="message")(contract(basis, weights, spec)),
        )

    def _basis(self, x: Features, graph: Graph) -> Features:
        """Returns A: sums of messages, of one number of channels, sorted."""
        scalars = parse(self.irreps)[SCALAR]
        width = self.num_hidden or scalars
        mixed = Linear(format_irreps(irreps_of(x)))(x)
        out = tuple(sorted({*graph.harmonics, *parse(self.irreps)}))
        row, spec = message_product(self.product, mixed, graph, out)
        hidden = swish(MLP((width,) * 3, swish)(graph.feats))
        shape = (width, row.num_weights(spec))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        weights = RadialWeights(hidden * graph.envelope[..., None], kernel)
        sums = row.convolve(mixed, graph, weights, spec)
        sums = jax.tree.map(lambda part: part / self.avg_num_neighbors**0.5, sums)
        basis = Linear(scalars, name="basis")(sums)
        return {irrep: basis[irrep] for irrep in sorted(basis)}

    def _path_weights(
        self, paths: tuple[Irrep, ...], condition: Rows
    ) -> Float[Array, "*num_receivers num_paths channels"]:
        """Returns the weights of all polynomials, of each species or of all."""
        counts = [paths.count(irrep) for irrep in paths]
        deviation = np.array(counts)[:, None] ** -0.5
        channels = parse(self.irreps)[SCALAR]
        species = () if condition is None else (condition.shape[-1],)

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.normal(key, shape) * deviation

        weights = self.param("weights", init, (*species, len(paths), channels))
        if condition is None:
            return weights
        flat = condition @ weights.reshape(len(weights), -1)
        return flat.reshape(-1, len(paths), channels)
