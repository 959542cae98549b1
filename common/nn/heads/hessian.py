r"""The head of Hessians: blocks of vectors with vectors, that obey the sum rule.

$$ 1 \otimes 1 = 0 \oplus 1 \oplus 2, \qquad H_{ii} = -\sum_{j \ne i} H_{ij} : $$
a translation of all nodes costs no energy, so the rows of blocks add up to zero. For
the sum to be symmetric the antisymmetric parts $A_{ij} = -A_{ji}$ of a row must cancel:
they lose $U_i - U_j$, $U_i = n^{-1} \sum_j A_{ij}$. A covariance of positions, which
obeys no such rule, is a `BlockHead` of degree one.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from common.nn.features import Features
from common.nn.heads.blocks import BlockHead
from common.so3.irreps import Group


class HessianHead(nn.Module):
    """Blocks of a Hessian in Cartesian coordinates.

    Attributes:
        group: group whose parities the features have.
    """

    group: Group = "O3"

    @nn.compact
    def __call__(
        self, x: Features, pairs: Features, node_mask: Bool[Array, " num_nodes"]
    ) -> Float[Array, "num_nodes num_nodes 3 3"]:
        """Returns the blocks, zero where a node is padding; see `BlockHead`."""
        blocks = BlockHead((1,), self.group)(x, pairs, node_mask)
        is_off = node_mask[:, None] & node_mask & ~jnp.eye(len(node_mask), dtype=bool)
        off = jnp.where(is_off[..., None, None], blocks, 0.0)
        twist = 0.5 * (off - jnp.swapaxes(off, -1, -2))
        mean = jnp.sum(twist, axis=1) / jnp.maximum(jnp.sum(node_mask), 1)
        shift = mean[:, None] - mean[None]
        off = jnp.where(is_off[..., None, None], off - shift, 0.0)
        is_own = jnp.eye(len(node_mask))[..., None, None]
        return off - is_own * jnp.sum(off, axis=1, keepdims=True)
