r"""The layer of the Tensor Field Network: convolution, self-interaction, norms.

$$ y_i = W x_i + \frac{V}{\sqrt n} \sum_j
   f(r_{ij}) \odot (U x_j \otimes Y(\hat r_{ij})), \qquad
   x_i^l \leftarrow \sigma(|y_i^l| + b^l)\, y_i^l, \quad
   x_i^0 \leftarrow \sigma(y_i^0 + b^0), $$
W, U and V the self-interactions, f an MLP of the radial basis and $\sigma$ a shifted
softplus (Thomas et al. 2018, arXiv:1802.08219, section 4.1). A centre that is its own
neighbour, of distance zero, is what W is here. Conditions, as species, shift b.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.activations import shifted_softplus
from common.nn.blocks.messages import Rows, message_product
from common.nn.features import Features, add, irreps_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products.spec import RadialWeights
from common.so3.irreps import SCALAR, format_irreps, parse

EPSILON = 1e-6
"""Number under the root of a norm, which makes it smooth where features are zero."""


class TFNBlock(nn.Module):
    """A layer; the residual connection, where there is one, is around it.

    Attributes:
        irreps: irreps of the output.
        avg_num_neighbors: number whose root divides the sum of messages.
        num_hidden: width of the hidden layer of the radial network; the number of
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
        width = self.num_hidden or irreps[SCALAR]
        mixed = Linear(format_irreps(irreps_of(x)))(x)
        row, spec = message_product(self.product, mixed, graph, tuple(irreps))
        hidden = shifted_softplus(MLP((width,))(graph.feats))
        shape = (width, row.num_weights(spec))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        weights = RadialWeights(hidden * graph.envelope[..., None], kernel)
        sums = row.convolve(mixed, graph, weights, spec)
        sums = jax.tree.map(lambda part: part / self.avg_num_neighbors**0.5, sums)
        own = Linear(self.irreps, name="own")(receiver_feats(x, graph))
        update = add(own, Linear(self.irreps, name="sums")(sums))
        biases = self.param("biases", nn.initializers.zeros, (sum(irreps.values()),))
        if condition is not None:
            biases += nn.Dense(len(biases), name="condition")(condition)
        return norm_activation(update, biases)


def norm_activation(
    x: Features, biases: Float[Array, "*#batch all_channels"]
) -> Features:
    r"""Scales features by an activation of their norms, and applies it to scalars.

    Norms are divided by $\sqrt{2l + 1}$, so that they are about one for any degree.

    >>> from common.so3.irreps import VECTOR
    >>> x = {SCALAR: jnp.zeros((1, 1)), VECTOR: jnp.ones((3, 1))}
    >>> round(float(norm_activation(x, jnp.zeros(2))[VECTOR][0, 0]), 2)
    1.16

    Args:
        x: features.
        biases: numbers added to the scalars and the norms, irrep by irrep in their
            order.
    """
    found, start = {}, 0
    for irrep, channels in irreps_of(x).items():
        bias = biases[..., None, start : start + channels]
        start += channels
        if irrep == SCALAR:
            found[irrep] = shifted_softplus(x[irrep] + bias)
            continue
        squared = jnp.sum(jnp.square(x[irrep]), axis=-2, keepdims=True)
        norms = jnp.sqrt(squared + EPSILON) / math.sqrt(irrep.dim)
        found[irrep] = shifted_softplus(norms + bias) * x[irrep]
    return found
