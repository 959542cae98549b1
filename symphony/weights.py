"""Trained weights by the name of a packaged model or by the folder of a run."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import UInt8

from common import checkpoints
from common.cli import UsageError
from symphony import build
from symphony.data.elements import SYMBOLS

PRETRAINED = Path(__file__).parent / "pretrained"


class Weights(NamedTuple):
    """A trained model, ready to be asked.

    Attributes:
        name: As the user gave it.
        config: The run's.
        model: The module that the config describes.
        params: Averaged parameters.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
        unseen: Elements of the species table that no training molecule had.
    """

    name: str
    config: ml_collections.ConfigDict
    model: nn.Module
    params: Any
    checksum: str
    config_checksum: str
    unseen: tuple[int, ...] = ()


def load_weights(
    name_or_path: str | os.PathLike[str], flag: str = "--checkpoint"
) -> Weights:
    """Loads packaged weights by their name, or any by the path of their folder.

    A name without a separator that is packaged means the packaged weights, even where
    a folder of that name lies in the current one.

    Args:
        name_or_path: As `qm9` or `workdir/qm9`.
        flag: What the user gave it to, for the message of an error.

    Raises:
        UsageError: There is nothing of that name, or it cannot be used.
    """
    path = locate(name_or_path, flag)
    config, params, meta = checkpoints.load_params(path)
    try:
        model = build.make_model(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: expected the config of a Symphony model, found {error}"
        ) from error
    text = json.dumps(config.to_dict(), sort_keys=True)
    seen = meta.get("species_counts")  # Of weights made by hand there are none.
    return Weights(
        name=str(name_or_path),
        config=config,
        model=model,
        params=jax.device_put(params),
        checksum=checkpoints.params_checksum(params),
        config_checksum=hashlib.sha256(text.encode()).hexdigest(),
        unseen=tuple(n for n in config.data.species if seen and not seen[str(n)]),
    )


def warn_of_unseen(
    weights: Weights, atomic_numbers: UInt8[np.ndarray, " num_atoms"], source: str
) -> None:
    """Logs which of the elements the weights know by name only."""
    unseen = sorted({*atomic_numbers.tolist()} & {*weights.unseen})
    if unseen:
        logging.warning(
            "%s: no molecule that the weights %s were trained on has %s; what they do "
            "with it means little",
            source, weights.name, ", ".join(SYMBOLS[n - 1] for n in unseen),
        )  # fmt: skip


def locate(name_or_path: str | os.PathLike[str], flag: str = "--checkpoint") -> Path:
    """Returns the folder of packaged weights or of a run."""
    text = os.fspath(name_or_path)
    packaged = PRETRAINED / text
    if Path(text).name == text and (packaged / "weights.npz").is_file():
        return packaged
    if Path(text).is_dir():
        return Path(text)
    names = sorted(path.parent.name for path in PRETRAINED.glob("*/weights.npz"))
    raise UsageError(
        f"{flag}: expected the folder of a training run or packaged weights "
        f"({', '.join(names) or 'none are packaged'}), found neither at {text}"
    )
