"""Trains the denoiser: `symphony train` with a config whose kind is "denoiser"."""

from functools import partial
from typing import Any

import jax
import ml_collections
import numpy as np

from common.errors import UsageError
from common.geometry import alignment
from common.runs import loop as run
from common.runs import training
from symphony import data
from symphony.kinds.denoiser import loss
from symphony.kinds.denoiser.model import Denoiser

KIND = "denoiser"
VALIDATION_BATCH = 32
FIELDS = {
    "": ("seed", "kind", "data", "model", "loss", "train", "refine"),
    "data": ("path", "species", "max_atoms", "num_buckets"),
    "loss": ("alignment", "min_noise", "max_noise", "fixed_share"),
    "refine": ("noise", "num_steps", "method", "num_final"),
}
FIXED = ("config.kind", "config.model.", "config.data.species")


def make_model(config: ml_collections.ConfigDict) -> Denoiser:
    """Returns the network that a config describes."""
    return Denoiser(
        atomic_numbers=tuple(config.data.species),
        min_noise=config.loss.min_noise,
        max_noise=config.loss.max_noise,
        **config.model,
    )


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values that only a denoiser has."""
    settings = config.loss
    if settings.alignment not in alignment.METHODS:
        raise UsageError(
            f"config.loss.alignment: expected one of {', '.join(alignment.METHODS)}, "
            f"found {settings.alignment}"
        )
    if not 0.0 < settings.min_noise < settings.max_noise <= 10.0:
        raise UsageError(
            "config.loss: expected 0 < min_noise < max_noise <= 10 Å, found "
            f"{settings.min_noise} and {settings.max_noise}"
        )
    if not 0.0 <= settings.fixed_share <= 1.0:
        raise UsageError(
            f"config.loss.fixed_share: expected 0 to 1, found {settings.fixed_share}"
        )


def init_params(config: ml_collections.ConfigDict, key: Any) -> training.Params:
    """Returns fresh parameters."""
    size = 4
    example = (
        np.zeros(size, np.int32), np.eye(size, 3, dtype=np.float32), np.float32(0.1),
        np.ones(size, bool), np.zeros(size, bool),
    )  # fmt: skip
    return jax.jit(make_model(config).init)(key, *example)


def parts(
    config: ml_collections.ConfigDict,
    packed: tuple[data.Batch, ...],
    held_out: tuple[data.Batch, ...],
) -> run.Parts:
    """Returns what the loop needs; see `common.runs.loop.Parts`."""
    loss_fn = partial(loss.batch_loss, make_model(config), loss.Settings(**config.loss))
    compiled = jax.jit(loss_fn)

    def validate(params: training.Params) -> dict[str, float]:
        total, count = 0.0, 0
        for index, batch in enumerate(
            data.batches_in_order(held_out, VALIDATION_BATCH)
        ):
            key = jax.random.fold_in(jax.random.key(0), index)
            keys = jax.random.split(key, VALIDATION_BATCH)
            real = int(np.sum(batch.node_mask[:, 0]))
            total += real * float(compiled(params, batch, keys)[0])
            count += real
        return {"validation_denoising": total / count}

    return run.Parts(
        loss_fn=loss_fn,
        batch_at=partial(data.batch_at, packed, config.train.batch_size, config.seed),
        validate=validate,
        average=run.average,
        loss_name="denoising",
        unit="of the variance of the noise",
        steps_per_epoch=data.steps_per_epoch(packed, config.train.batch_size),
        fixed=FIXED,
    )
