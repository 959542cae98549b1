r"""Attention whose values are made in the frames of edges: of EquiformerV2 and V3.

$$ f_{ij}, s_{ij} = \mathrm{SO2Linear}(w(r_{ij}) \odot D_{ij}^\top [h_j, h_i]), \quad
   v_{ij} = \mathrm{SO2Linear}(\mathrm{act}(f_{ij}, s_{ij})), \quad
   y_i = W \sum_j D_{ij}\, a_{ij} v_{ij}, $$
$D_{ij}$ the turn into the frame of an edge, a the weights of `common.nn.attention` from
other invariants of the first map (Liao et al. 2023, arXiv:2306.12059, section 4). The
radial weights w are one a degree and channel, as in version 3.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.attention import AttentionLogits, attention_weights, by_head
from common.nn.features import Features, irreps_of
from common.nn.graph import Graph, never_empty, receiver_feats
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.products.so2_linear import (
    EdgeRows,
    SO2Linear,
    into_frames,
    mixes_signs,
    out_of_frames,
    rows_up_to,
    stacked_frames,
)
from common.nn.sphere import (
    product_resolution,
    separable_silu,
    signal_degree,
    sphere,
    stack,
    swiglu,
    unstack,
)


class FrameAttention(nn.Module):
    """Multi-head attention; the residual connection is around it.

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
    def __call__(self, x: Features, graph: Graph) -> Features:
        irreps, graph = irreps_of(x), never_empty(graph)
        max_degree, width = signal_degree(irreps), next(iter(irreps.values()))
        shape = (max_degree, min(self.max_order, max_degree), mixes_signs(irreps))
        frames = stacked_frames(graph.vectors, *shape[:2])
        rows = [
            into_frames(frames, stack(x), graph),
            jnp.einsum("rsnk,rkc->rsnc", frames, stack(receiver_feats(x, graph))),
        ]
        size = 2 * width
        radial = MLP((width, (max_degree + 1) * size))(graph.feats)
        radial = radial.reshape(*radial.shape[:2], max_degree + 1, size)
        num_logits = self.num_heads * self.num_logit_channels
        halves, thirds = (1, 1) if self.resolution else (2, 3)
        first = SO2Linear(halves * width, *shape, num_logits + thirds * width)
        hidden, scalars = first(jnp.concatenate(rows, axis=-1), radial)
        hidden = self._activate(hidden, scalars[..., num_logits:], shape[:2])
        logits = AttentionLogits(self.num_heads, normalize=True)(
            scalars[..., :num_logits]
        )
        weights = attention_weights(logits, graph.envelope, self.smooth)
        num_values = self.num_heads * -(-width // self.num_heads)
        values, _ = SO2Linear(num_values, *shape)(hidden)
        sums = out_of_frames(frames, values * by_head(weights, num_values))
        return Linear(width)(unstack(sums, tuple(irreps)))

    def _activate(
        self,
        hidden: EdgeRows,
        scalars: Float[Array, "num_receivers num_senders num_scalars"],
        orders: tuple[int, int],
    ) -> Float[Array, "num_receivers num_senders rows width"]:
        rows = rows_up_to(*orders)
        if self.resolution:
            on = sphere(rows, self.resolution // 2, self.resolution)
            return separable_silu(hidden, scalars, on)
        return swiglu(hidden, scalars, sphere(rows, *product_resolution(*orders)))
