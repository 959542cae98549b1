"""Inputs of Symphony's network for properties, which change nothing at the start.

The last layers are zero, so that weights without properties give the same numbers.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.conditions import Conditions
from common.nn.radial import gaussian_basis

LIMIT = 4.0
"""Standard scores beyond are taken for this one."""

NUM_BASIS = 16


class PropertyInputs(nn.Module):
    """Maps standard scores of properties, some hidden, to terms of three layers.

    Attributes:
        names: names of the properties.
        features: width of the network.
        num_species: size of the species table.
    """

    names: tuple[str, ...]
    features: int
    num_species: int

    @nn.compact
    def __call__(self, conditions: Conditions) -> dict[str, Float[Array, " _"]]:
        """Returns what is added to the scalars of each atom (`nodes`).

        And to the features of the whole fragment (`pooled`), before its activation,
        and to the logits of the first species (`first`).
        """
        parts = []
        for name in self.names:
            value, mask = conditions[name]
            score = jnp.clip(jnp.where(mask, value, 0.0), -LIMIT, LIMIT)
            basis = gaussian_basis(score, -LIMIT, LIMIT, NUM_BASIS)
            seen = jnp.concatenate([basis, score[None], jnp.ones(1)])
            parts.append(jnp.where(mask, seen, 0.0))
        hidden = nn.silu(nn.Dense(self.features, name="inputs")(jnp.concatenate(parts)))
        hidden = nn.silu(nn.Dense(self.features, name="mixed")(hidden))
        widths = {
            "nodes": self.features, "pooled": self.features, "first": self.num_species
        }  # fmt: skip
        zeros = nn.initializers.zeros
        return {
            name: nn.Dense(width, use_bias=False, kernel_init=zeros, name=name)(hidden)
            for name, width in widths.items()
        }
