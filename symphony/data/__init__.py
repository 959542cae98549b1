"""Molecules from files, and fixed-size batches of them."""

from symphony.data.batches import (
    Batch,
    batch_at,
    batches_in_order,
    choose_buckets,
    fill_ratio,
    num_molecules,
    pack,
    steps_per_epoch,
)
from symphony.data.molecules import (
    Molecules,
    Records,
    SkipReport,
    checksum,
    choose_molecules,
    concatenate,
    make_molecules,
    select,
    to_species,
)
from symphony.data.neighbours import coincident, unreachable
from symphony.data.npz import read_npz, write_npz
from symphony.data.readers import SPLITS, read_molecules
from symphony.data.screening import MAX_BAD_FRACTION, describe, screen
from symphony.data.sources import locate
from symphony.data.sources.solids import platonic_solids, tetris

__all__ = [
    "MAX_BAD_FRACTION",
    "SPLITS",
    "Batch",
    "Molecules",
    "Records",
    "SkipReport",
    "batch_at",
    "batches_in_order",
    "checksum",
    "choose_buckets",
    "choose_molecules",
    "coincident",
    "concatenate",
    "describe",
    "fill_ratio",
    "locate",
    "make_molecules",
    "num_molecules",
    "pack",
    "platonic_solids",
    "read_molecules",
    "read_npz",
    "screen",
    "select",
    "steps_per_epoch",
    "tetris",
    "to_species",
    "unreachable",
    "write_npz",
]
