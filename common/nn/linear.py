"""A linear map of features: for each irrep a matrix that mixes its channels."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from common.nn.features import Features, irreps_of
from common.so3.irreps import Irrep, Irreps, parse


class Linear(nn.Module):
    """Mixes the channels of each irrep by a matrix `[channels_in, channels_out]`.

    Attributes:
        irreps: output, in e3nn's notation as `"128x0e+64x1o"`; irreps that the input
            lacks come out as zero, and others are dropped. A number keeps the irreps of
            the input and gives each so many channels.
        kernel_init: initialiser of every matrix; unit variance in, unit variance out
            by default.
    """

    irreps: str | int
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Features) -> Features:
        irreps_in = irreps_of(x)
        out: Irreps
        if isinstance(self.irreps, int):
            out = dict.fromkeys(irreps_in, self.irreps)
        else:
            out = parse(self.irreps)
        batch = next(iter(x.values())).shape[:-2]
        return {
            irrep: self._mix(x[irrep], irrep, channels, irreps_in)
            if irrep in x
            else jnp.zeros((*batch, irrep.dim, channels))
            for irrep, channels in out.items()
        }

    def _mix(self, x: Array, irrep: Irrep, channels: int, irreps_in: Irreps) -> Array:
        name = kernel_name(irrep, irreps_in)
        kernel = self.param(name, self.kernel_init, (x.shape[-1], channels))
        # One 2-D product per irrep: XLA's batched products are far slower.
        mixed = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
        return mixed.reshape(*x.shape[:-1], channels)


def kernel_name(irrep: Irrep, irreps: Irreps) -> str:
    """Returns the name of the matrix of an irrep.

    >>> kernel_name(Irrep(1, -1), {Irrep(1, -1): 8})
    'kernel_1'
    >>> kernel_name(Irrep(1, -1), {Irrep(1, -1): 8, Irrep(1, 1): 8})
    'kernel_1o'
    """
    has_both = Irrep(irrep.degree, -irrep.parity) in irreps
    return f"kernel_{irrep}" if has_both else f"kernel_{irrep.degree}"
