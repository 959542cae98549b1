"""Arrays that are read when they are asked for.

At most `MOST_OPEN` files are open: thousands of trajectories need few descriptors, and
those that are read at every step are not opened anew.
"""

import functools
import math
import mmap
import os
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

MOST_OPEN = 32
"""Packed files, or parts of them, that are open at a time; each takes a descriptor."""


@functools.lru_cache(maxsize=MOST_OPEN)
def _map(path: Path, offset: int, shape: tuple[int, int, int]) -> np.memmap:
    return np.memmap(path, np.float32, "r", offset, shape)


@functools.lru_cache(maxsize=MOST_OPEN)
def _file(path: Path) -> FileIO:
    return FileIO(path)


class PackedFrames:
    """Positions in a packed file, opened when they are read; `MOST_OPEN` stay open.

    It is indexed as an array and returns arrays. Single frames are read without a map,
    whose pages would stay in memory.

    Attributes:
        path: file of float32 numbers.
        offset: bytes of the file before these numbers.
        shape: frames, atoms, 3.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, path: Path, num_frames: int, num_atoms: int, offset: int = 0
    ) -> None:
        self.path, self.offset = path, offset
        self.shape = (num_frames, num_atoms, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        is_list = isinstance(index, np.ndarray) and index.ndim == 1
        if is_list and index.dtype.kind in "iu":
            return self._rows(index)
        return np.array(self.open()[index])

    def _rows(
        self, frames: Int[np.ndarray, " batch"]
    ) -> Float32[np.ndarray, "batch num_atoms 3"]:
        """Reads frames by their numbers, negative ones from the end."""
        found = np.empty((len(frames), *self.shape[1:]), np.float32)
        file, size = _file(self.path), 4 * math.prod(self.shape[1:])
        for row, frame in zip(found, frames.tolist(), strict=True):
            place = self.offset + size * range(len(self))[frame]
            if os.preadv(file.fileno(), [row.reshape(-1).data.cast("B")], place) < size:
                raise EOFError(f"{self.path}: frame {frame} is cut off")
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return self[:] if dtype is None else self[:].astype(dtype)

    def open(self) -> Float32[np.ndarray, "num_frames num_atoms 3"]:
        """Returns a memory map, whose file is open as long as it is referred to."""
        return _map(self.path, self.offset, self.shape)


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
