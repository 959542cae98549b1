"""The gate: the nonlinearity of features with a direction."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array

from common.nn.features import Features
from common.so3.irreps import SCALAR


def gate(
    x: Features,
    gates: Features,
    activation: Callable[[Array], Array] = nn.silu,
    gate_activation: Callable[[Array], Array] = nn.sigmoid,
) -> Features:
    """Applies an activation to the scalars and scales every other irrep.

    >>> import jax.numpy as jnp
    >>> from common.so3.irreps import Irrep
    >>> x = {SCALAR: jnp.zeros((1, 2)), Irrep(1, -1): jnp.ones((3, 2))}
    >>> gate(x, {Irrep(1, -1): jnp.zeros((1, 2))})[Irrep(1, -1)][0].tolist()
    [0.5, 0.5]

    Args:
        x: features.
        gates: invariant numbers before their activation, `[..., 1, channels]` for each
            irrep but the scalars.
        activation: function of the scalars.
        gate_activation: function of the gates.
    """
    return {
        irrep: activation(part)
        if irrep == SCALAR
        else gate_activation(gates[irrep]) * part
        for irrep, part in x.items()
    }
