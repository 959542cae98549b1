"""Files that may be damaged, cut or hand-made: read whole or refused in one line.

Nothing is unpickled. The header of an array is compared with the bytes behind it before
any of them is read.
"""

import contextlib
import json
import lzma
import math
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import UsageError

DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    OSError, RuntimeError, SyntaxError, TypeError, ValueError, lzma.LZMAError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What readers raise at damage: `RuntimeError` has deep nesting and unknown methods."""


AGAIN = "get it again, or give another"
"""What to do with a damaged file where nothing else is known."""

_ENTRY = re.compile(r"<ZipInfo filename='([^']*)'[^>]*>")


class Header(NamedTuple):
    """Head of an array in a file: its shape, its type, and the bytes of its data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    num_bytes: int


def line_of(error: BaseException) -> str:
    r"""Returns an error in one line of readable length.

    >>> line_of(ValueError("no number here\nand more"))
    'no number here'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"no {error}"
    if isinstance(error, RecursionError):
        return "text that is nested too deeply"
    lines = _ENTRY.sub(r"\1", str(error)).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


@contextlib.contextmanager
def refusing(
    path: str | os.PathLike[str], what: str, remedy: str = AGAIN
) -> Iterator[None]:
    """Turns what a reader raises at damage into one line; use it as a `with` block.

    >>> with refusing("state.json", "a state"):
    ...     raise ValueError("no frames")
    Traceback (most recent call last):
    ...
    common.errors.UsageError: state.json: expected a state, found no frames; get it \
again, or give another

    Args:
        path: file or folder that is read.
        what: contents that are expected, in words.
        remedy: advice for the user, in words that follow a semicolon.

    Raises:
        UsageError: The block has raised one of `DAMAGE`.
    """
    try:
        yield
    except DAMAGE as error:
        line = f"{path}: expected {what}, found {line_of(error)}"
        raise UsageError(f"{line}; {remedy}") from error


def read_json(path: str | os.PathLike[str], what: str = "a JSON object") -> dict:
    """Returns the JSON object in a file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "state.json")
    ...     _ = path.write_text('{"num_frames": 3}')
    ...     read_json(path)
    {'num_frames': 3}

    Args:
        path: file in UTF-8.
        what: contents that are expected, in words for the message.

    Raises:
        UsageError: The file is missing, damaged or holds something else.
    """
    with refusing(path, what):
        return parse_json(Path(path).read_bytes())


def differences(
    one: dict[str, Any], other: dict[str, Any], free: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any, Any]]:
    """Yields name and both values of what differs, deep inside too.

    >>> list(differences({"seed": 1, "settings": {"lag": 5}}, {"settings": {"lag": 9}}))
    [('seed', 1, None), ('lag', 5, 9)]

    Args:
        one: JSON values.
        other: JSON values to compare them with.
        free: names that may differ.
    """
    for name in [name for name in {**one, **other} if name not in free]:
        was, now = one.get(name), other.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from differences(was, now, free)
        elif was != now:
            yield name, was, now


def parse_json(text: str | bytes) -> dict:
    """Returns the JSON object that a text holds.

    >>> parse_json('{"index": 0}')
    {'index': 0}

    Raises:
        ValueError: The text is none, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} in the place of a JSON object")
    return found


def read_arrays(
    path: str | os.PathLike[str],
    what: str,
    choose: Callable[[Mapping[str, Header]], Iterable[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Returns arrays of a NumPy archive.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "state.npz"), cloud=np.zeros(2))
    ...     arrays = read_arrays(Path(folder, "state.npz"), "the state of a rollout")
    >>> arrays["cloud"].tolist()
    [0.0, 0.0]

    Args:
        path: archive, as `np.savez` writes it.
        what: contents that are expected, in words for the message.
        choose: function of the headers of all arrays that returns the names of those
            to read, and raises `UsageError` where shapes do not fit together; all are
            read where None.

    Raises:
        UsageError: The file is missing, damaged, or none of NumPy's; a header promises
            more than the file holds.
    """
    with refusing(path, what), zipfile.ZipFile(path) as archive:
        headers = _headers(archive)
        names = list(headers if choose is None else choose(headers))
        return {name: _read_array(archive, name, headers[name]) for name in names}


def _headers(archive: zipfile.ZipFile) -> dict[str, Header]:
    """Returns the headers of all members by their names, without `.npy`."""
    headers = {}
    for entry in archive.infolist():
        name = entry.filename.removesuffix(".npy")
        if name in headers:
            raise ValueError(f"two arrays of the name {name}")
        with archive.open(entry) as file:
            headers[name] = _header(file, name, entry.file_size)
    return headers


def _header(file: Any, name: str, size: int) -> Header:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"{name} in version {version} of NumPy's form")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:  # It may be that nobody asks for it.
        return Header(shape, dtype, size - file.tell())
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != size - file.tell():
        raise ValueError(
            f"{name} of {num_bytes} bytes by its header and {size - file.tell()} in "
            "the file"
        )
    return Header(shape, dtype, num_bytes)


def _read_array(archive: zipfile.ZipFile, name: str, header: Header) -> np.ndarray:
    if header.dtype.hasobject:
        raise ValueError(f"{name} with Python objects, which are never unpickled")
    members = archive.namelist()
    member = name if name in members else f"{name}.npy"
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.shape != header.shape:
        raise ValueError(f"{name} of shape {array.shape}, not {header.shape}")
    return array
