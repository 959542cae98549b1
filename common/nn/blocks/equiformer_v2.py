r"""The block of EquiformerV2: attention in the frames of edges, activations on grids.

$$ x_i \leftarrow x_i + \mathrm{attention}(\mathrm{norm}(x)), \quad
   x_i \leftarrow x_i + W P[\mathrm{MLP}(f_{U \mathrm{norm}(x_i)})] $$
with the attention of `frame_attention`, an MLP that acts on the values of signals point
by point, and scalars with a branch of their own in every activation and norm (Liao et
al. 2023, arXiv:2306.12059, section 4). SiLU on a grid is not exactly equivariant; the
error falls as the resolution grows, and half as many polar angles as azimuths are as
exact as the published square. As published the weights jump where a neighbour crosses
the cutoff.
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
    coefficients,
    degree_rows,
    sphere,
    stack,
    unstack,
    values,
)
from common.so3.irreps import SCALAR, parse


class EquiformerV2Block(nn.Module):
    """A transformer block.

    Attributes:
        irreps: irreps of the features: each degree from 0 once, of one number of
            channels, parities all natural or all even.
        product: not used; the messages are made in frames.
        avg_num_neighbors: not used; attention averages.
        num_hidden: channels inside the feed-forward network; those of the features if
            zero.
        num_heads: number of heads.
        num_logit_channels: invariants of each head that its logit is made of.
        max_order: largest |m| that the maps in frames see.
        resolution: azimuths of the grids, an even number for O(3); the polar angles are
            half as many.
        smooth: true for weights that vanish smoothly with the envelope.
    """

    irreps: str
    product: str = ""
    avg_num_neighbors: float = 1.0
    num_hidden: int = 0
    num_heads: int = 4
    num_logit_channels: int = 8
    max_order: int = 2
    resolution: int = 28
    smooth: bool = False
    uses_product: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: Features, graph: Graph, condition: Rows = None) -> Features:
        own = receiver_feats(x, graph)
        attention = FrameAttention(
            self.num_heads,
            self.num_logit_channels,
            self.max_order,
            self.resolution,
            self.smooth,
        )
        own = add(own, attend_in_frames(attention, LayerNorm("separable")(x), graph))
        return add(own, self._feed_forward(LayerNorm("separable")(own), condition))

    def _feed_forward(self, x: Features, condition: Rows) -> Features:
        irreps = irreps_of(x)
        width = self.num_hidden or parse(self.irreps)[SCALAR]
        rows = tuple(degree_rows(len(irreps) - 1))
        on = sphere(rows, self.resolution // 2, self.resolution)
        points = values(stack(Linear(width)(x)), on)
        dense = lambda: nn.Dense(width, use_bias=False)
        points = dense()(nn.silu(dense()(nn.silu(dense()(points)))))
        hidden = unstack(coefficients(points, on), irreps)
        scalars = nn.Dense(width, name="scalars")(scalars_of(x))
        if condition is not None:
            scalars += nn.Dense(width, name="condition")(condition)
        hidden[SCALAR] = nn.silu(scalars)[:, None]
        return Linear(self.irreps)(hidden)
