r"""Loss of the denoiser, on noised molecules in any orientation.

With $\log \sigma$ uniform and standard normal $\epsilon$,
$$ L = E\, \| D(x + \sigma \epsilon; \sigma) - x E[R]^\top \|^2
   / (3 n c_\mathrm{out}^2), $$
the clean molecule turned as is expected given the noised one (`alignment`).
In a share of the molecules some neighbouring atoms are known, as those of a user's
fragment will be.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from common.generative.denoising import denoising_loss
from common.generative.schedules import Level, variance_exploding
from common.so3.vectors import safe_norm
from symphony.arrays import NodeMask, Positions, RandomKey, Scalar
from symphony.data import Batch
from symphony.kinds.denoiser.model import Denoiser, precision_of


class Settings(NamedTuple):
    """Settings of the loss, from the config.

    Attributes:
        min_noise: least noise, in Å.
        max_noise: largest noise, in Å.
        fixed_share: share of molecules in which some atoms are known.
        alignment: method of `alignment.rotation_target`.
    """

    min_noise: float
    max_noise: float
    fixed_share: float
    alignment: str


def draw_fixed(
    key: RandomKey, positions: Positions, node_mask: NodeMask, share: float
) -> NodeMask:
    """Draws an atom and some of those next to it, or none; never all."""
    key_coin, key_centre, key_count = jax.random.split(key, 3)
    logits = jnp.where(node_mask, 0.0, -jnp.inf)
    centre = jax.random.categorical(key_centre, logits)
    distances = safe_norm(positions - positions[centre])
    rank = jnp.argsort(jnp.argsort(jnp.where(node_mask, distances, jnp.inf)))
    num_real = jnp.sum(node_mask)
    count = jnp.floor(jax.random.uniform(key_count) * num_real)
    count = jnp.where(jax.random.uniform(key_coin) < share, count, 0.0)
    return (rank < count) & node_mask


def molecule_loss(
    model: Denoiser, settings: Settings, batch: Batch, key: RandomKey
) -> Scalar:
    """Returns the loss of one molecule at one random noise.

    Args:
        model: network bound to its parameters.
        settings: values of the config, see `Settings`.
        batch: one molecule.
        key: key of the noise and of the atoms that are known.
    """
    key_level, key_noise, key_fixed = jax.random.split(key, 3)
    low, high = math.log(settings.min_noise), math.log(settings.max_noise)
    sigma = jnp.exp(jax.random.uniform(key_level, minval=low, maxval=high))
    fixed = draw_fixed(
        key_fixed, batch.positions, batch.node_mask, settings.fixed_share
    )

    def denoise(y: Positions, level: Level) -> Positions:
        return model(batch.species, y, level.sigma, batch.node_mask, fixed)

    return denoising_loss(
        denoise,
        batch.positions,
        jax.random.normal(key_noise, batch.positions.shape),
        variance_exploding(sigma),
        model.sigma_data,
        batch.node_mask,
        precision_of(fixed),
        settings.alignment,
    )
