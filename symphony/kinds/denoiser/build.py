"""Builds the denoiser from a config, and evaluates it on one molecule."""

import jax.numpy as jnp
import ml_collections

from symphony.arrays import Positions, RandomKey, Scalar
from symphony.data import Batch
from symphony.kinds.denoiser import loss
from symphony.kinds.denoiser.model import Denoiser


def make_model(config: ml_collections.ConfigDict) -> Denoiser:
    """Returns the network that a config describes."""
    return Denoiser(
        atomic_numbers=tuple(config.data.species),
        min_noise=config.loss.min_noise,
        max_noise=config.loss.max_noise,
        **config.model,
    )


def run(config: ml_collections.ConfigDict, model: Denoiser) -> Positions:
    """Evaluates four atoms, so that every parameter is made."""
    del config
    size = 4
    species, mask = jnp.zeros(size, jnp.int32), jnp.ones(size, bool)
    return model(species, jnp.eye(size, 3), jnp.full((), 0.1), mask, ~mask)


def molecule_totals(
    config: ml_collections.ConfigDict,
    model: Denoiser,
    batch: Batch,
    key: RandomKey,
    train: bool,
) -> dict[str, Scalar]:
    """Returns the loss of one molecule at one noise: one step, in validation too."""
    del train
    value = loss.molecule_loss(model, loss.Settings(**config.loss), batch, key)
    return {"denoising": value, "num_steps": jnp.ones(())}
