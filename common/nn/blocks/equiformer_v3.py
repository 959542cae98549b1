r"""The block of EquiformerV3: smooth attention, and products on the sphere.

$$ x_i \leftarrow x_i + \mathrm{attention}(\mathrm{norm}(x)), \quad
   x_i \leftarrow x_i + W\, \mathrm{SwiGLU}(U \mathrm{norm}(x_i)) $$
with the attention of `frame_attention` and the SwiGLU of `common.nn.sphere`, whose
products on the sphere are exact, so that the block is equivariant to rounding. Norms
divide all degrees by one number. The weights vanish smoothly with the envelope (Liao et
al. 2026, arXiv:2604.09130).
"""

from typing import ClassVar

import flax.linen as nn

from common.nn.blocks.frame_attention import FrameAttention, attend_in_frames
from common.nn.blocks.messages import Rows
from common.nn.features import Features, add, irreps_of, scalars_of
from common.nn.graph import Graph, receiver_feats
from common.nn.linear import Linear
from common.nn.norm import LayerNorm
from common.nn.sphere import (
    degree_rows,
    product_resolution,
    sphere,
    stack,
    swiglu,
    unstack,
)
from common.so3.irreps import SCALAR, parse


class EquiformerV3Block(nn.Module):
    """A transformer block.

    Attributes:
        irreps: irreps of the features: each degree from 0 once, of one number of
            channels, parities all natural or all even.
        product: not used; the messages are made in frames.
        avg_num_neighbors: not used; attention averages.
        num_hidden: channels inside the feed-forward network; four times those of the
            features if zero.
        num_heads: number of heads.
        num_logit_channels: invariants of each head that its logit is made of.
        max_order: largest |m| that the maps in frames see.
    """

    irreps: str
    product: str = ""
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    num_heads: int = 4
    num_logit_channels: int = 8
    max_order: int = 2
    uses_product: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        own = receiver_feats(x, graph)
        attention = FrameAttention(
            self.num_heads,
            self.num_logit_channels,
            self.max_order,
            resolution=0,
            smooth=True,
        )
        own = add(own, attend_in_frames(attention, LayerNorm("merged")(x), graph))
        return add(own, self._feed_forward(LayerNorm("merged")(own), condition))

    def _feed_forward(self, x: Features, condition: Rows) -> Features:
        irreps = irreps_of(x)
        width = self.num_hidden or 4 * parse(self.irreps)[SCALAR]
        max_degree = len(irreps) - 1
        scalars = nn.Dense(3 * width, name="scalars")(scalars_of(x))
        if condition is not None:
            scalars += nn.Dense(3 * width, name="condition")(condition)
        on = sphere(
            tuple(degree_rows(max_degree)), *product_resolution(max_degree, max_degree)
        )
        hidden = swiglu(stack(Linear(2 * width)(x)), scalars, on)
        return Linear(self.irreps)(unstack(hidden, irreps))
