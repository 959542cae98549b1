r"""Attention whose values are made in the frames of edges: of EquiformerV2 and V3.

$$ f_{ij}, s_{ij} = \mathrm{SO2Linear}(w(r_{ij}) \odot D_{ij}^\top [h_j, h_i]), \quad
   v_{ij} = \mathrm{SO2Linear}(\mathrm{act}(f_{ij}, s_{ij})), \quad
   y_i = W \sum_j D_{ij}\, a_{ij} v_{ij}, $$
$D_{ij}$ the turn into the frame of an edge, a the weights of `common.nn.attention` from
other invariants of the first map (Liao et al. 2023, arXiv:2306.12059, section 4). The
radial weights w are one a degree and channel, as in version 3. Edges are handled a
block of receivers at a time.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.attention import AttentionLogits, attention_weights, by_head
from common.nn.blocks.messages import sum_edges
from common.nn.features import Features, irreps_of
from common.nn.graph import Graph, never_empty, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products.kernels import spread
from common.nn.products.so2 import edge_frames
from common.nn.products.so2_linear import (
    SO2Linear,
    into_frames,
    mixes_signs,
    out_of_frames,
    rows_up_to,
)
from common.nn.sphere import (
    Sphere,
    product_resolution,
    separable_silu,
    signal_degree,
    sphere,
    swiglu,
)
from common.so3.irreps import Irreps


class FrameAttention(nn.Module):
    """Multi-head attention over the senders of some receivers.

    Attributes:
        num_heads: number of heads.
        num_logit_channels: invariants of each head that its logit is made of.
        max_order: largest |m| that the maps in frames see.
        resolution: azimuths of the grid for SiLU, twice the polar angles; with 0 the
            activation is SwiGLU, on the smallest exact grid.
        smooth: true for the smooth form of the weights.
    """

    num_heads: int
    num_logit_channels: int
    max_order: int
    resolution: int
    smooth: bool

    @nn.compact
    def __call__(
        self,
        x: Features,
        own: Features,
        vectors: Float[Array, "num_receivers num_senders 3"],
        feats: Float[Array, "num_receivers num_senders num_feats"],
        envelope: Float[Array, "num_receivers num_senders"],
    ) -> Features:
        """Returns the sums at the receivers.

        Args:
            x: features of the senders, `[receivers, senders, ...]`.
            own: features of the receivers.
            vectors: vectors of the edges.
            feats: invariant features of the edges.
            envelope: weights of the edges.
        """
        irreps = irreps_of(x)
        on, width = self.grid(irreps), next(iter(irreps.values()))
        shape = max_degree, _ = self._orders(irreps)
        frames = edge_frames(vectors, *shape)
        far = into_frames(frames, {i: part[:, None] for i, part in own.items()})
        near = into_frames(frames, x)
        both = jnp.concatenate([near, far], axis=-1)
        radial = MLP((width, (max_degree + 1) * 2 * width))(feats)
        radial = jnp.stack(jnp.split(radial, max_degree + 1, axis=-1))
        num_logits = self.num_heads * self.num_logit_channels
        halves, thirds = (1, 1) if self.resolution else (2, 3)
        mixes, num_scalars = mixes_signs(irreps), num_logits + thirds * width
        first = SO2Linear(halves * width, *shape, mixes, num_scalars)
        hidden, scalars = first(both, radial)
        logits, scalars = jnp.split(scalars, [num_logits], axis=-1)
        activate = separable_silu if self.resolution else swiglu
        hidden = activate(hidden, scalars, on)
        logits = AttentionLogits(self.num_heads, normalize=True)(logits)
        weights = attention_weights(logits, envelope, self.smooth)
        num_values = self.num_heads * -(-width // self.num_heads)
        values, _ = SO2Linear(num_values, *shape, mixes)(hidden)
        values *= spread(by_head(weights, num_values), len(values), axis=-values.ndim)
        return out_of_frames(frames, values, irreps)

    def grid(self, irreps: Irreps) -> Sphere:
        """Returns the grid of the activation for features of these irreps."""
        orders = self._orders(irreps)
        own = self.resolution // 2, self.resolution
        grid = own if self.resolution else product_resolution(*orders)
        return sphere(rows_up_to(*orders), *grid)

    def _orders(self, irreps: Irreps) -> tuple[int, int]:
        """Returns the largest degree and the largest |m|."""
        max_degree = signal_degree(irreps)
        return max_degree, min(self.max_order, max_degree)


def attend_in_frames(attention: FrameAttention, x: Features, graph: Graph) -> Features:
    """Returns what attention adds to the receivers, by a map of the block at hand."""
    irreps, graph = irreps_of(x), never_empty(graph)
    width = next(iter(irreps.values()))
    floats = width * len(attention.grid(irreps).to_grid)
    rows = receiver_feats(x, graph), graph.vectors, graph.feats, graph.envelope
    return Linear(width)(sum_edges(attention, floats, x, graph, *rows))
