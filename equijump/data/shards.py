"""Few large files in the user's cache, to which is only appended, and their records.

A shard is a file of numbers, `NAME.pack`, and one of records, `NAME.log`. A record is a
line `kind key end JSON`, written once the numbers before `end` are on the disk. What a
process that was killed has appended without a record does not count: the next writer
cuts it off. A writer locks its shard; another one at the same time takes another shard.
"""

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from common.errors import RunError
from common.folders import user_folder
from common.runs import cache

MOST_BYTES = 8_000_000_000
"""Bytes from which a shard takes nothing more."""

_FOLDER = "store-1"
"""Folder of the shards; its number changes with their form."""

_TAIL = 10_000
"""Bytes at the end of a log in which its last record is looked for first."""

_ALIGNMENT = 64
"""Bytes at whose multiples arrays begin."""


class Record(NamedTuple):
    """What the log of a shard has of a key.

    Attributes:
        pack: file of numbers that the record speaks of.
        text: its JSON, not parsed yet.
    """

    pack: Path
    text: str

    @property
    def values(self) -> dict[str, Any]:
        """Returns the values of the record, none of a damaged one."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class _Index:
    """Records of all shards in some folders, read on where others have written.

    Attributes:
        records: records by kind and key.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self._seen: dict[Path, int] = {}

    def refresh(self, folders: tuple[Path, ...]) -> None:
        """Reads the lines that were added since the last time."""
        for folder in folders:
            for log in sorted(folder.glob("*.log")):
                with contextlib.suppress(OSError):
                    self._read(log)

    def _read(self, log: Path) -> None:
        with log.open("rb") as file:
            file.seek(self._seen.get(log, 0))
            lines, newline, _ = file.read().rpartition(b"\n")
        pack = log.with_suffix(".pack")
        size = pack.stat().st_size
        self._seen[log] = self._seen.get(log, 0) + len(lines) + len(newline)
        for line in lines.decode("utf-8", "replace").split("\n"):
            kind, key, end, text = (*line.split(" ", 3), "", "", "", "")[:4]
            if end.isdigit() and int(end) <= size:
                self.records[kind, key] = Record(pack, text)


_indices: dict[tuple[Path, ...], _Index] = {}
_temporary: list[Path] = []
"""Folder that this process writes to where the user's cannot be written."""


def _folders() -> tuple[Path, ...]:
    """Returns the folders in which shards are looked for."""
    places = (os.environ.get(name) for name in ("XDG_CACHE_HOME", "HOME"))
    return (*_of_user(*places), *_temporary)


@functools.lru_cache(maxsize=1)
def _of_user(*_: str | None) -> tuple[Path, ...]:
    """Returns the user's folder, if any, which the environment decides."""
    user = user_folder()
    return () if user is None else (user / "data" / _FOLDER,)


def find(kind: str, key: str, again: bool = False) -> Record | None:
    """Returns the record of a key, None where there is none.

    Args:
        kind: what the key is of; one word.
        key: key, without a space.
        again: true to look for what other processes have written since.
    """
    folders = _folders()
    index = _indices.get(folders)
    if index is None:
        index = _indices[folders] = _Index()
        index.refresh(folders)
    elif again:
        index.refresh(folders)
    return index.records.get((kind, key))


class Appender:
    """A shard that this process writes to, while it has the lock.

    Attributes:
        pack: file of numbers.
        place: bytes that it has.
    """

    def __init__(self, pack: Path, file: BinaryIO, log: BinaryIO) -> None:
        self.pack, self._file, self._log = pack, file, log
        self.place = self._synced = file.seek(0, os.SEEK_END)

    def align(self) -> int:
        """Fills up with zeros to where an array may begin, and returns this place."""
        self._write(bytes(-self.place % _ALIGNMENT))
        return self.place

    def write(self, array: np.ndarray) -> None:
        """Appends the numbers of an array."""
        self._write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")

    def _write(self, data: Any) -> None:
        self._file.write(data)
        self.place += len(data)

    def record(self, kind: str, key: str, values: dict[str, Any]) -> None:
        """Writes the record of what was appended, after the numbers themselves."""
        if self.place > self._synced:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = self.place
        line = f"{kind} {key} {self.place} {json.dumps(values)}\n"
        self._log.write(line.encode())
        self._log.flush()


@contextlib.contextmanager
def appending() -> Iterator[Appender]:
    """Yields a shard that no other process writes to.

    Raises:
        RunError: There is no space left, or another failure of the file system.
    """
    folder = cache.cache_folder() / _FOLDER
    if folder not in _folders():
        _temporary.append(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as (log, path), path.open("r+b") as file:
            _cut(file, log)
            yield Appender(path, file, log)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); what was packed before "
            "stays; make space, or set XDG_CACHE_HOME to a folder with more"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yields the log of a shard that has space and no writer, and its other file."""
    known = (log.with_suffix(".pack") for log in sorted(folder.glob("*.log")))
    for pack in itertools.chain(filter(_has_space, known), _new(folder)):
        with pack.with_suffix(".log").open("a+b") as log:
            if _lock(log):
                yield log, pack
                return


def _has_space(pack: Path) -> bool:
    is_ours = pack.is_file() and cache.may(os.W_OK, pack)
    return is_ours and pack.stat().st_size < MOST_BYTES


def _new(folder: Path) -> Iterator[Path]:
    """Yields new shards; where nothing can be locked, nobody else takes them."""
    while True:
        pack = folder / f"{secrets.token_hex(6)}.pack"
        pack.touch(exist_ok=False)
        _own.add(pack.with_suffix(".log"))
        yield pack


_own: set[Path] = set()
"""Logs of the shards that this process has made."""


def _lock(log: BinaryIO) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # The file system has no locks.
        return Path(log.name) in _own
    return True


def _cut(file: BinaryIO, log: BinaryIO) -> None:
    """Cuts off what a killed writer has left behind the last whole record."""
    size = log.seek(0, os.SEEK_END)
    lines, start = b"", size
    while start and lines.count(b"\n") < 2:
        start = log.seek(max(0, 2 * start - size - _TAIL))
        lines = log.read()
    whole = lines.rfind(b"\n") + 1
    if whole < len(lines):
        log.truncate(start + whole)
    last = lines[:whole].splitlines()[-1:] or [b"- - 0"]
    end = (*last[0].split(b" ", 3), b"", b"", b"")[2]
    if end.isdigit() and int(end) < file.seek(0, os.SEEK_END):
        file.truncate(int(end))
