r"""The block of Equiformer: attention by an MLP, with non-linear messages.

$$ x_{ij} = W_r h_i + W_s h_j, \quad
   f_{ij} = W (x_{ij} \otimes_{w(r_{ij})} Y(\hat r_{ij})), \quad
   v_{ij} = V (\mathrm{gate}(f_{ij}) \otimes_w Y(\hat r_{ij})), $$
$$ x_i \leftarrow x_i + U \sum_j a_{ij} v_{ij}, \quad
   a_{ij} = \mathrm{softmax}_j\, a^\top \mathrm{LeakyReLU}(f^{(0)}_{ij}), $$
h the normed features, each head with weights of its own and a part of the channels,
then $x_i \leftarrow x_i + \mathrm{FFN}(\mathrm{norm}(x_i))$ with a gate (Liao and Smidt
2022, arXiv:2206.11990, section 4). The products are channelwise, of the first weights
by distance. As published the weights jump where a neighbour crosses the cutoff.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.attention import AttentionLogits, attend, attention_weights
from common.nn.blocks.messages import Rows, message_product, sum_edges
from common.nn.features import Features, add, irreps_of, scalars_of
from common.nn.gate import gate
from common.nn.graph import Graph, never_empty, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.norm import LayerNorm
from common.nn.products import PRODUCTS
from common.nn.products.plan import message_floats
from common.nn.products.spec import make_spec
from common.so3.irreps import SCALAR, Irreps, format_irreps, parse


class EquiformerV1Block(nn.Module):
    """A transformer block.

    Attributes:
        irreps: irreps of the features.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        avg_num_neighbors: not used; attention averages.
        num_hidden: scalars inside the feed-forward network, other irreps in proportion;
            three times those of the features if zero.
        num_heads: number of heads.
        num_logit_channels: invariants of each head that its logit is made of.
        smooth: true for weights that vanish smoothly with the envelope.
    """

    irreps: str
    product: str = "clebsch_gordan"
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    num_heads: int = 4
    num_logit_channels: int = 8
    smooth: bool = False

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        own = receiver_feats(x, graph)
        own = add(own, self._attention(LayerNorm("each")(x), graph))
        return add(own, self._feed_forward(LayerNorm("each")(own), condition))

    def _attention(self, x: Features, graph: Graph) -> Features:
        """Returns what attention adds to the receivers."""
        graph = never_empty(graph)
        senders, own = Linear(self.irreps)(x), Linear(self.irreps)(x)
        row, spec = message_product(self.product, senders, graph)
        attention = MLPAttention(
            self.irreps,
            self.product,
            self.num_heads,
            self.num_logit_channels,
            self.smooth,
        )
        floats = message_floats(row.paths(spec), max(parse(self.irreps).values()))
        rows = receiver_feats(own, graph), graph.harmonics, graph.feats, graph.envelope
        sums = sum_edges(attention, floats, senders, graph, *rows)
        return Linear(self.irreps)(sums)

    def _feed_forward(self, x: Features, condition: Rows) -> Features:
        irreps = parse(self.irreps)
        factor = (self.num_hidden or 3 * irreps[SCALAR]) / irreps[SCALAR]
        hidden = {i: max(round(factor * n), 1) for i, n in irreps.items()}
        shift = 0.0
        if condition is not None:
            shift = nn.Dense(hidden[SCALAR], name="condition")(condition)
        activated, _ = _gated_linear(hidden, 0, x, shift)
        return Linear(self.irreps)(activated)


class MLPAttention(nn.Module):
    """Multi-head attention over the senders of some receivers.

    Attributes:
        irreps: irreps of the features.
        product: row of `common.nn.products.PRODUCTS` that makes the messages.
        num_heads: number of heads.
        num_logit_channels: invariants of each head that its logit is made of.
        smooth: true for weights that vanish smoothly with the envelope.
    """

    irreps: str
    product: str
    num_heads: int
    num_logit_channels: int
    smooth: bool

    @nn.compact
    def __call__(
        self,
        x: Features,
        own: Features,
        harmonics: Features,
        feats: Float[Array, "num_receivers num_senders num_feats"],
        envelope: Float[Array, "num_receivers num_senders"],
    ) -> Features:
        """Returns the sums at the receivers.

        Args:
            x: features of the senders, `[receivers, senders, ...]`.
            own: features of the receivers.
            harmonics: harmonics of the edges.
            feats: invariant features of the edges.
            envelope: weights of the edges.
        """
        irreps = parse(self.irreps)
        pairs = {i: own[i][:, None] + x[i] for i in irreps}
        row = PRODUCTS[self.product]
        spec = make_spec(irreps, irreps_of(harmonics), irreps)
        weights = MLP((irreps[SCALAR], row.num_weights(spec)))(feats)
        products = row.product(pairs, harmonics, weights, spec)
        num_logits = self.num_heads * self.num_logit_channels
        messages, logits = _gated_linear(irreps, num_logits, products)
        init = nn.initializers.normal(1.0)
        weights = self.param("weights", init, (row.num_weights(spec),))
        products = row.product(messages, harmonics, weights, spec)
        shared = {
            i: self.num_heads * -(-n // self.num_heads) for i, n in irreps.items()
        }
        values = Linear(format_irreps(shared))(products)
        logits = AttentionLogits(self.num_heads, normalize=False)(logits)
        return attend(attention_weights(logits, envelope, self.smooth), values)


def _gated_linear(
    irreps: Irreps, num_others: int, x: Features, shift: Array | float = 0.0
) -> tuple[Features, Array]:
    """Maps features to gated ones, and to other scalars.

    Args:
        irreps: irreps of the gated features.
        num_others: number of the other scalars.
        x: features.
        shift: number added to the scalars before their activation.
    """
    higher = sorted(irreps.keys() - {SCALAR})
    counts = [irreps[SCALAR], *(irreps[irrep] for irrep in higher), num_others]
    mixed = Linear(format_irreps({**irreps, SCALAR: sum(counts)}))(x)
    starts = [sum(counts[:k]) for k in range(1, len(counts))]
    scalars, *gates, others = jnp.split(scalars_of(mixed), starts, axis=-1)
    mixed[SCALAR] = (scalars + shift)[..., None, :]
    own = {i: part[..., None, :] for i, part in zip(higher, gates, strict=True)}
    return gate(mixed, own), others
