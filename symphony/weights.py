"""Trained weights by the name of a packaged model or by the folder of a run."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections
from absl import logging

from common.runs import weights
from symphony import build
from symphony.arrays import AtomicNumbers
from symphony.columns import Column, from_meta
from symphony.data.elements import SYMBOLS

PRETRAINED = Path(__file__).parent / "pretrained"


class Weights(NamedTuple):
    """A trained model.

    Attributes:
        name: name as the user gave it.
        config: config of the run.
        model: module that the config describes.
        params: averaged parameters.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
        unseen: elements of the species table that no training molecule had.
        columns: properties that molecules can be asked for; see `symphony.columns`.
    """

    name: str
    config: ml_collections.ConfigDict
    model: nn.Module
    params: Any
    checksum: str
    config_checksum: str
    unseen: tuple[int, ...] = ()
    columns: tuple[Column, ...] = ()


def load_weights(
    name_or_path: str | os.PathLike[str], flag: str = "--checkpoint"
) -> Weights:
    """Loads packaged weights by their name, or any by the path of their folder.

    Args:
        name_or_path: name as `qm9`, or path as `workdir/qm9`.
        flag: flag that the user gave it to, for the message of an error.

    Raises:
        UsageError: There is nothing of that name, or it cannot be used.
    """
    trained = weights.load(name_or_path, PRETRAINED, ("symphony", "paper"), flag)
    return Weights(
        name=trained.name,
        config=trained.config,
        model=weights.build(trained, lambda trained: build.make_model(trained.config)),
        params=trained.params,
        checksum=trained.checksum,
        config_checksum=trained.config_checksum,
        unseen=weights.build(trained, unseen_of),
        columns=weights.build(trained, lambda one: from_meta(one.meta, one.config)),
    )


def unseen_of(trained: weights.Trained) -> tuple[int, ...]:
    """Returns the elements of the species table that no training molecule had.

    Weights made by hand do not tell, and have none.
    """
    if "species_counts" not in trained.meta:
        return ()
    seen = trained.meta["species_counts"]
    return tuple(n for n in trained.config.data.species if not seen[str(n)])


def warn_of_unseen(
    weights: Weights, atomic_numbers: AtomicNumbers, source: str
) -> None:
    """Logs which of the elements the weights know by name only."""
    unseen = sorted({*atomic_numbers.tolist()} & {*weights.unseen})
    if unseen:
        logging.warning(
            "%s: no molecule that the weights %s were trained on has %s; what they do "
            "with it means little",
            source, weights.name, ", ".join(SYMBOLS[n - 1] for n in unseen),
        )  # fmt: skip
