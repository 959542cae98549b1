"""The parsed form of files that are slow to read, kept in the user's folder."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from common.errors import UsageError
from common.runs.cache import cache_folder
from symphony.data.molecules import Records
from symphony.data.npz import read_npz, write_npz

_VERSION = 1  # of the parsers: a change that alters what they return raises it


def parsed_once(
    path: Path, parse: Callable[[Path], Records], properties: Sequence[str] = ()
) -> Records:
    """Returns `parse(path)`, from the user's cache if these contents were read before.

    What is kept is found by the SHA-256 of the file. A cache that cannot be read or
    written costs time only; a file with unreadable records is not kept.

    Args:
        path: path of the file.
        parse: its parser.
        properties: names of the properties that it reads.
    """
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()
    name = "-".join((f"parsed-{_VERSION}-{key}", *properties))
    kept = cache_folder(f"{name}.npz") / f"{name}.npz"
    if kept.is_file():
        try:
            return read_npz(kept, properties)
        except UsageError as error:
            logging.info("the cache is not used: %s", error)
    records = parse(path)
    if not records.unreadable:
        try:
            write_npz(records.molecules, kept, compress=False)
        except (UsageError, OSError) as error:
            logging.info("the cache is not written: %s", error)
    return records
