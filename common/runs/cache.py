"""Where downloaded and parsed data and compiled programs are kept between commands."""

import functools
import os
import tempfile
from pathlib import Path

from absl import logging

from common.folders import user_folder


def is_writable(folder: Path) -> bool:
    """Returns whether files can be made in a folder, which may not exist yet.

    >>> is_writable(Path(tempfile.gettempdir(), "new"))
    True
    """
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, StopIteration):
        return False
    return nearest.is_dir() and may(os.W_OK | os.X_OK, nearest)


def may(mode: int, path: Path) -> bool:
    """Returns whether this process may use a path, by its user and its capabilities.

    >>> may(os.R_OK, Path(tempfile.gettempdir()))
    True

    Args:
        mode: use, as for `os.access`.
        path: file or folder.
    """
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def cache_folder(entry: str = "") -> Path:
    """Returns the folder of downloaded and parsed data; it may not exist.

    It is the user's. Where that cannot be written and lacks the entry, it is a
    temporary folder of this process.

    >>> cache_folder().parts[-2:]
    ('symphony-equijump', 'data')

    Args:
        entry: file in the folder that is asked for.
    """
    folder = user_folder()
    if folder is not None:
        folder /= "data"
        if is_writable(folder) or (entry and (folder / entry).is_file()):
            return folder
    return _temporary(folder)


@functools.cache
def _temporary(folder: Path | None) -> Path:
    where = "there is no home folder" if folder is None else f"{folder} is not writable"
    logging.warning(
        "%s: what is downloaded or packed is kept for this command only; set "
        "XDG_CACHE_HOME to a folder of yours",
        where,
    )
    _kept.append(tempfile.TemporaryDirectory(prefix="symphony-equijump-"))
    return Path(_kept[-1].name)


_kept: list[tempfile.TemporaryDirectory] = []
"""Temporary folders, which are removed when the process ends."""
