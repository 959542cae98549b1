"""Arrays that are read when they are asked for, and files whose checksum is known.

At most `MOST_OPEN` files are open: thousands of trajectories need few descriptors, and
those that are read at every step are not opened anew.
"""

import functools
import hashlib
import json
import mmap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from common.commands import cli
from common.runs import cache

_SETTLED = 2.0
"""Seconds after a change from which another one shows in the time of change."""

MOST_OPEN = 32
"""Packed files that are open at a time; each takes a descriptor."""


@functools.lru_cache(maxsize=MOST_OPEN)
def _map(path: Path, shape: tuple[int, int, int]) -> np.memmap:
    return np.memmap(path, np.float32, "r", shape=shape)


class PackedFrames:
    """Positions in a packed file, opened when they are read; `MOST_OPEN` stay open.

    It is indexed as an array and returns arrays.

    Attributes:
        path: file of float32 numbers.
        shape: frames, atoms, 3.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, num_frames: int, num_atoms: int) -> None:
        self.path, self.shape = path, (num_frames, num_atoms, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(self.open()[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return self[:] if dtype is None else self[:].astype(dtype)

    def open(self) -> Float32[np.ndarray, "num_frames num_atoms 3"]:
        """Returns a memory map, whose file is open as long as it is referred to."""
        return _map(self.path, self.shape)


def view(
    positions: "PackedFrames | np.ndarray", start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Returns frames of an array or of a packed file, without reading them yet.

    >>> view(np.arange(5), 1, 3)
    array([1, 2])
    """
    whole = positions.open() if isinstance(positions, PackedFrames) else positions
    return whole[start:stop]


def let_go(positions: Any) -> None:
    """Gives the memory of a mapped file back; it is read anew where it is asked for.

    >>> let_go(np.zeros(3))
    """
    mapped = getattr(positions, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


class Lazy(Sequence):
    """A sequence of `function(item)`, computed at each access and not kept.

    >>> squares = Lazy(lambda x: x**2, [1, 2, 3])
    >>> squares[1], list(squares[1:])
    (4, [4, 9])
    """

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._function, self._items = function, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Lazy(self._function, self._items[index])
        return self._function(self._items[index])


def checksum_of(path: Path) -> str:
    """Returns the SHA-256 of a file, of an unchanged one without reading it again.

    It is kept in the user's cache under the file's absolute path, with size and time of
    change.
    """
    status = path.stat()
    known = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    entry = Path("checksums", f"{name}.json")
    entry = cache.cache_folder(str(entry)) / entry
    found = _read_entry(entry)
    if {key: found.get(key) for key in known} == known and "sha256" in found:
        return found["sha256"]
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time() - status.st_mtime > _SETTLED:
        with cli.atomic_path(entry) as partial:
            partial.write_text(json.dumps(known | {"sha256": digest}), "utf-8")
    return digest


def _read_entry(entry: Path) -> dict[str, Any]:
    """Returns what the cache holds, nothing of a damaged entry."""
    try:
        found = json.loads(entry.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
