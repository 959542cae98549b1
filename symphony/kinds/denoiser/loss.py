r"""What the denoiser is trained on: noised molecules, in whatever orientation.

With $\log \sigma$ uniform and standard normal $\epsilon$,
$$ L = E\, \| D(x + \sigma \epsilon; \sigma) - x E[R]^\top \|^2
   / (3 n c_\mathrm{out}^2), $$
the clean molecule turned as is expected given the noised one (`alignment`).
In a share of the molecules some neighbouring atoms are known, as those of a user's
fragment will be.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from common.generative import diffusion
from common.nn.layers import safe_norm
from symphony.data import Batch
from symphony.kinds.denoiser.model import Denoiser, weights_of


class Settings(NamedTuple):
    """What the loss takes from the config.

    Attributes:
        min_noise: Å, least noise.
        max_noise: Å, largest one.
        fixed_share: Of molecules in which some atoms are known.
        alignment: A method of `alignment.rotation_target`.
    """

    min_noise: float
    max_noise: float
    fixed_share: float
    alignment: str


def draw_fixed(
    key: Key[Array, ""],
    positions: Float[Array, "num_nodes 3"],
    node_mask: Bool[Array, " num_nodes"],
    share: float,
) -> Bool[Array, " num_nodes"]:
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
    model: Denoiser, settings: Settings, batch: Batch, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Returns the loss of one molecule at one random noise.

    Args:
        model: Bound to its parameters.
        settings: See `Settings`.
        batch: One molecule.
        key: Draws the noise and what is known.
    """
    key_level, key_noise, key_fixed = jax.random.split(key, 3)
    low, high = math.log(settings.min_noise), math.log(settings.max_noise)
    sigma = jnp.exp(jax.random.uniform(key_level, minval=low, maxval=high))
    fixed = draw_fixed(
        key_fixed, batch.positions, batch.node_mask, settings.fixed_share
    )

    def denoise(
        y: Float[Array, "num_nodes 3"], level: diffusion.Level
    ) -> Float[Array, "num_nodes 3"]:
        return model(batch.species, y, level.sigma, batch.node_mask, fixed)

    return diffusion.denoising_loss(
        denoise,
        batch.positions,
        jax.random.normal(key_noise, batch.positions.shape),
        diffusion.variance_exploding(sigma),
        model.sigma_data,
        batch.node_mask,
        weights_of(fixed),
        settings.alignment,
    )


def batch_loss(
    model: Denoiser,
    settings: Settings,
    params: Any,
    batch: Batch,
    keys: Key[Array, " batch"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns the mean over molecules, and the same as a metric."""
    one = partial(molecule_loss, model.bind(params), settings)
    real = batch.node_mask[:, 0]
    total = jnp.sum(jnp.where(real, jax.vmap(one)(batch, keys), 0.0))
    mean = total / jnp.maximum(jnp.sum(real), 1)
    return mean, {"denoising": mean}
