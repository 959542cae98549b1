"""Root-mean-square normalisation of features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from common.nn.features import Features, irreps_of

EPSILON = 1e-6
"""Number added under the root, so that an empty node stays at zero."""


class RMSNorm(nn.Module):
    r"""Divides features by the root of their mean square, then scales each channel.

    The mean is over the channels and components of one node, each irrep counting the
    same whatever its size:
    $y = \gamma x / \sqrt{\epsilon + n^{-1} \sum_i \mathrm{mean}(x_i^2)}$ for n irreps.
    """

    @nn.compact
    def __call__(self, x: Features) -> Features:
        channels = irreps_of(x)
        # One array for all irreps; a narrow one uses the front of its row.
        shape = (len(channels), max(channels.values()))
        scale = self.param("scale", nn.initializers.ones, shape)
        squares = [jnp.mean(jnp.square(x[i]), axis=(-2, -1)) for i in channels]
        mean_square = jnp.mean(jnp.stack(squares, axis=-1), axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(mean_square + EPSILON)
        factor = lambda row: (inverse * row.astype(inverse.dtype))[..., None, :]
        return {
            irrep: x[irrep] * factor(scale[k, :count])
            for k, (irrep, count) in enumerate(channels.items())
        }
