"""Conditions: named numbers that a network is given beside its geometry.

One table serves readers, batches, models and samplers. A new property is one row of
`CONDITIONS`; a config names it in `config.model.conditions`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from common.nn.radial import gaussian_basis

ROOM_TEMPERATURE = 300.0
"""K; of trajectories that state no temperature."""


class Condition(NamedTuple):
    """A row of the table.

    Attributes:
        unit: unit of the number, for messages.
        encode: map from the number to the inputs of a linear layer.
        low: smallest number that is accepted.
        high: largest number that is accepted.
        is_read: true if readers take it from files; training makes the others.
    """

    unit: str
    encode: Callable[[Float[Array, "*batch"]], Float[Array, "*batch num_feats"]]
    low: float
    high: float
    is_read: bool = True


class Known(NamedTuple):
    """Numbers of one condition.

    Attributes:
        value: numbers; arbitrary where unknown.
        mask: true where known.
    """

    value: Float[Array, "*batch"]
    mask: Bool[Array, "*batch"]


Conditions = Mapping[str, Known]


def _encode_lag(lag: Float[Array, "*batch"]) -> Float[Array, "*batch num_feats"]:
    return gaussian_basis(jnp.log(lag), -5.0, 14.0, 32)  # .007 ps to 1 µs.


def _encode_temperature(
    temperature: Float[Array, "*batch"],
) -> Float[Array, "*batch num_feats"]:
    return gaussian_basis(ROOM_TEMPERATURE / temperature, 0.2, 1.4, 16)


def _encode_noise(noise_std: Float[Array, "*batch"]) -> Float[Array, "*batch 1"]:
    return 20.0 * noise_std[..., None]


def _encode_charge(charge: Float[Array, "*batch"]) -> Float[Array, "*batch 2"]:
    return jnp.stack([charge, jnp.abs(charge)], axis=-1)


def property_between(low: float, high: float, unit: str) -> Condition:
    """Returns the row of a molecular property, encoded by 16 Gaussians.

    >>> CONDITIONS["gap"].unit
    'eV'
    """
    encode = partial(gaussian_basis, low=low, high=high, num_basis=16)
    return Condition(unit, encode, low, high)


CONDITIONS: dict[str, Condition] = {
    "noise_std": Condition("Å", _encode_noise, 0.0, 10.0, is_read=False),
    "lag": Condition("ps", _encode_lag, 1e-3, 1e9, is_read=False),
    "temperature": Condition("K", _encode_temperature, 1.0, 1e5),
    "gap": property_between(0.0, 20.0, "eV"),
    "charge": Condition("e", _encode_charge, -20.0, 20.0),
}


class ConditionEmbedding(nn.Module):
    """Sum of linear maps of the encoded conditions; an unknown one adds nothing.

    Attributes:
        names: rows of `CONDITIONS`.
        features: width of the output.
    """

    names: tuple[str, ...]
    features: int

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "*batch features"]:
        """Returns the embedding.

        Args:
            conditions: numbers of all `names`, of one shape; others are ignored.
        """
        total = jnp.zeros(())
        for name in self.names:
            value, mask = conditions[name]
            encoded = CONDITIONS[name].encode(jnp.where(mask, value, 1.0))
            embedded = nn.Dense(self.features, name=name)(encoded)
            total = total + jnp.where(mask[..., None], embedded, 0.0)
        return total


def known(values: Mapping[str, Float[Array, "*batch"]]) -> dict[str, Known]:
    """Returns conditions that are all known.

    >>> known({"lag": jnp.array(10.0)})["lag"].mask
    Array(True, dtype=bool)
    """
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return {name: Known(v, jnp.ones(v.shape, bool)) for name, v in arrays.items()}
