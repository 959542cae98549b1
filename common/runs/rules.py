"""What values of `config` must be that every kind of model has."""

from collections.abc import Callable

import ml_collections

from common.errors import UsageError
from common.nn.blocks import BLOCKS
from common.nn.conditions import CONDITIONS
from common.nn.products import MESSAGE_PRODUCTS
from common.runs import loggers, training
from common.runs.config import Range

_COUNTS = (
    "num_steps", "batch_size", "num_microbatches", "num_devices", "num_validation",
    "log_every", "eval_every", "checkpoint_every",
)  # fmt: skip

VALUES: dict[str, Range | tuple[str, ...]] = {
    "seed": Range(0, 2**32 - 1),
    "model.block": tuple(BLOCKS),
    "model.product": MESSAGE_PRODUCTS,
    "model.conditions": tuple(CONDITIONS),
    **{f"train.{name}": Range(1) for name in _COUNTS},
    "train.loggers": tuple(loggers.LOGGERS),
    "train.optimizer": tuple(training.OPTIMIZERS),
    "train.learning_rate": Range(0.0, 1e3),
    "train.warmup_steps": Range(0),
    "train.final_factor": Range(0.0, 1.0),
    "train.weight_decay": Range(0.0, 1e3),
    "train.adam_b2": Range(0.0, 1.0),
    "train.clip_norm": Range(0.0),
    "train.ema_decay": Range(0.0, 1.0),
}
"""Ranges and choices by name, see `common.runs.config.check`."""


def check_train(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for values of `train` that do not serve together, or here.

    >>> counts = {"batch_size": 8, "num_devices": 2, "num_microbatches": 4}
    >>> check_train(ml_collections.ConfigDict({"train": counts | {"loggers": ()}}))
    """
    check_batch_size(config)
    loggers.check(config)


def check_batch_size(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` if devices and microbatches do not divide a batch.

    >>> counts = {"batch_size": 8, "num_devices": 2, "num_microbatches": 4}
    >>> check_batch_size(ml_collections.ConfigDict({"train": counts}))
    """
    settings = config.train
    num_devices = settings.num_devices
    pieces = num_devices * max(settings.num_microbatches // num_devices, 1)
    if settings.batch_size % pieces:
        raise UsageError(
            f"config.train.batch_size: expected a multiple of {pieces} "
            f"(num_devices {num_devices}, num_microbatches "
            f"{settings.num_microbatches}), found {settings.batch_size}"
        )


def needs_condition(name: str) -> Callable[[ml_collections.ConfigDict], None]:
    """Returns the rule that a network is given one condition that training makes.

    The others are those that readers take from files, each once.

    >>> config = ml_collections.ConfigDict({"model": {"conditions": ("lag",)}})
    >>> needs_condition("lag")(config)
    """

    def check(config: ml_collections.ConfigDict) -> None:
        if "conditions" not in config.model:
            return
        found = tuple(config.model.conditions)
        made = [other for other in found if not CONDITIONS[other].is_read]
        if made != [name] or len({*found}) < len(found):
            known = ", ".join(key for key, row in CONDITIONS.items() if row.is_read)
            raise UsageError(
                f"config.model.conditions: expected {name} among them, and none but "
                f"{known} beside it, each once, found {found}"
            )

    return check
