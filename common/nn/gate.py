"""The gate: the nonlinearity of features with a direction."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from common.nn.features import Features
from common.so3.irreps import SCALAR, Irreps


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


def split_gates(gates: Float[Array, "*batch channels"], irreps: Irreps) -> Features:
    """Divides numbers among the irreps but the scalars, a gate for each channel.

    >>> import jax.numpy as jnp
    >>> from common.so3.irreps import parse
    >>> rows = split_gates(jnp.arange(5.0), parse("4x0e+2x1o+3x2e"))
    >>> [row.tolist() for row in rows.values()]
    [[0.0, 1.0], [2.0, 3.0, 4.0]]

    Args:
        gates: as many numbers as the irreps have channels, in their order.
        irreps: irreps that are to be scaled; scalars among them are left out.
    """
    rows, start = {}, 0
    for irrep in sorted(irreps.keys() - {SCALAR}):
        rows[irrep] = gates[..., start : start + irreps[irrep]]
        start += irreps[irrep]
    return rows
