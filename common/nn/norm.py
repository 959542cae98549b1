"""Normalisation of features: by their root mean square, and as layers do."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from common.nn.features import Features, irreps_of
from common.so3.irreps import SCALAR, Irrep

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


class LayerNorm(nn.Module):
    r"""Layer normalisation: scalars are centred, and groups of irreps divided.

    $y_i = \gamma_i x_i / \sqrt{\epsilon + \mathrm{mean}_{k \in g(i)}
    \mathrm{mean}(x_k^2)} + \beta_i$, where g(i) is the group of the irrep i, $x_0$ less
    its mean over the channels takes the place of $x_0$, and only scalars have a
    $\beta$. Inside a group each irrep counts the same whatever its size.

    Attributes:
        groups: `"each"` for an irrep a group (Equiformer, arXiv:2206.11990),
            `"separable"` for the scalars and all others (version 2, arXiv:2306.12059),
            `"merged"` for a single group (version 3, arXiv:2604.09130).
    """

    groups: str

    @nn.compact
    def __call__(self, x: Features) -> Features:
        channels = irreps_of(x)
        scale = self.param(
            "scale", nn.initializers.ones, (len(channels), max(channels.values()))
        )
        bias = self.param("bias", nn.initializers.zeros, (channels[SCALAR],))
        mean = jnp.mean(x[SCALAR], axis=-1, keepdims=True)
        x = {**x, SCALAR: x[SCALAR] - mean}
        squares = {i: jnp.mean(jnp.square(x[i]), axis=(-2, -1)) for i in channels}
        normed = {}
        for group in _groups(self.groups, tuple(channels)):
            mean_square = jnp.mean(jnp.stack([squares[i] for i in group], -1), axis=-1)
            inverse = jax.lax.rsqrt(mean_square + EPSILON)
            normed |= {i: x[i] * inverse[..., None, None] for i in group}
        normed = {
            irrep: normed[irrep] * scale[k, :count].astype(normed[irrep].dtype)
            for k, (irrep, count) in enumerate(channels.items())
        }
        return {**normed, SCALAR: normed[SCALAR] + bias.astype(mean.dtype)}


def _groups(name: str, irreps: tuple[Irrep, ...]) -> tuple[tuple[Irrep, ...], ...]:
    """Returns the groups of irreps that are divided by one number."""
    others = tuple(irrep for irrep in irreps if irrep != SCALAR)
    return {
        "each": tuple((irrep,) for irrep in irreps),
        "separable": ((SCALAR,), others) if others else ((SCALAR,),),
        "merged": (irreps,),
    }[name]
