"""Root-mean-square normalisation of features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from common.nn.features import Features, irreps_of


class RMSNorm(nn.Module):
    r"""Divides features by the root of their mean square, then scales each channel.

    The mean is over the channels and components of one node. With `joint`, one mean
    serves all irreps, each irrep counting the same whatever its size:
    $y = \gamma x / \sqrt{\epsilon + n^{-1} \sum_i \mathrm{mean}(x_i^2)}$ for n irreps.

    Attributes:
        epsilon: number added under the root, so that an empty node stays at zero.
        joint: true if all irreps share the mean; each has its own otherwise.
    """

    epsilon: float = 1e-6
    joint: bool = True

    @nn.compact
    def __call__(
        self, x: Features, node_mask: Bool[Array, "*batch"] | None = None
    ) -> Features:
        """Normalises each node.

        Args:
            x: features.
            node_mask: true where real; other nodes are set to zero, in the value and
                in the gradient, whatever they held.
        """
        if node_mask is not None:
            clear = lambda part: jnp.where(node_mask[..., None, None], part, 0.0)
            x = jax.tree.map(clear, x)
        channels = irreps_of(x)
        # One array for all irreps; a narrow one uses the front of its row.
        shape = (len(channels), max(channels.values()))
        scale = self.param("scale", nn.initializers.ones, shape)
        squares = [jnp.mean(jnp.square(x[i]), axis=(-2, -1)) for i in channels]
        mean_square = jnp.stack(squares, axis=-1)
        if self.joint:
            mean_square = jnp.mean(mean_square, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(mean_square + self.epsilon)
        inverse = jnp.broadcast_to(inverse, (*inverse.shape[:-1], len(channels)))
        return {
            irrep: x[irrep]
            * (inverse[..., k, None] * scale[k, :count].astype(inverse.dtype))[
                ..., None, :
            ]
            for k, (irrep, count) in enumerate(channels.items())
        }
