"""XYZ: plain, extended (columns named by `Properties=`), and QM9's own dialect.

QM9 writes `1.2*^-6` for 1.2e-6 and follows the atoms with three lines of its own.
"""

import itertools
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np

from common.errors import UsageError
from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS
from symphony.data.molecules import MAX_NAME_LENGTH, Records, make_molecules

_PROPERTIES = re.compile(rb'Properties\s*=\s*"?([^\s"]+)', re.IGNORECASE)
_NAME = re.compile(rb'(?:^|\s)name\s*=\s*(?:"([^"]*)"|(\S+))')
_SYMBOL_COLUMNS = (b"species", b"symbols", b"element")
_NUMBER_COLUMNS = (b"z", b"numbers", b"atomic_numbers")
_NUMBER_OF_SYMBOL = {s.encode(): n for s, n in ATOMIC_NUMBERS.items()}


Frame = tuple[str, bytes, list[bytes]]
"""Name, comment, and one line for each atom."""


def _columns(comment: bytes) -> tuple[int, int]:
    """Returns the columns of the symbol and of x.

    Raises:
        KeyError, ValueError: The comment names columns, and these are not among them.
    """
    match = _PROPERTIES.search(comment)
    if not match:
        return 0, 1
    words = match.group(1).split(b":")
    columns, at = {}, 0
    for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=True):
        columns[name.lower()] = (at, kind, int(width))
        at += int(width)
    standard = (*_SYMBOL_COLUMNS, *_NUMBER_COLUMNS)
    symbol = next((name for name in standard if name in columns), b"species")
    return columns[symbol][0], columns[b"pos"][0]


def _atomic_number(word: bytes) -> int:
    if word.isdigit():
        return int(word) if int(word) <= len(SYMBOLS) else 0
    return _NUMBER_OF_SYMBOL.get(word, 0)


def _coordinates(words: list[bytes]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        return [float(word.replace(b"*^", b"e")) for word in words]


def _value(comment: bytes, name: str) -> float:
    """Returns the number of `name=...` in a comment, NaN if it has none."""
    pattern = rb'(?:^|\s)%s\s*=\s*"?([^\s"]+)' % re.escape(name).encode()
    match = re.search(pattern, comment)
    return float(match.group(1)) if match else float("nan")


class _Columns(NamedTuple):
    """Molecules parsed so far, one array for each field."""

    num_atoms: array
    numbers: array
    positions: array
    names: list[str]
    values: dict[str, list[float]]


def _add(columns: _Columns, frame: Frame) -> None:
    """Parses a frame and adds it; adds nothing where it raises.

    Raises:
        KeyError, IndexError, ValueError: The frame cannot be parsed.
    """
    name, comment, lines = frame
    symbol, x = _columns(comment)
    rows = [line.split() for line in lines]
    numbers = [_atomic_number(row[symbol]) for row in rows]
    positions = _coordinates([word for row in rows for word in row[x : x + 3]])
    if len(positions) != 3 * len(rows):
        raise ValueError("a line has too few columns")
    values = {key: _value(comment, key) for key in columns.values}
    columns.num_atoms.append(len(rows))
    columns.numbers.extend(numbers)
    columns.positions.extend(positions)
    columns.names.append(name)
    for key, value in values.items():
        columns.values[key].append(value)


def collect(frames: Iterable[Frame], properties: Sequence[str] = ()) -> Records:
    """Parses frames one after another.

    Args:
        frames: name, comment and lines of the atoms of each.
        properties: names of the numbers to read from the comments.
    """
    values: dict[str, list[float]] = {name: [] for name in properties}
    columns = _Columns(array("l"), array("B"), array("d"), [], values)
    unreadable = []
    for frame in frames:
        try:
            _add(columns, frame)
        except (ValueError, KeyError, IndexError):
            unreadable.append(frame[0])
    with np.errstate(over="ignore"):  # Becomes infinite, and is refused as such.
        molecules = make_molecules(
            np.array(columns.num_atoms, np.int64),
            np.array(columns.numbers, np.uint8),
            np.array(columns.positions, np.float64).reshape(-1, 3).astype(np.float32),
            columns.names,
            values,
        )
    return Records(molecules, None, tuple(unreadable))


def _name(comment: bytes) -> str:
    named = _NAME.search(comment)
    text = (named.group(1) or named.group(2) or b"") if named else b""
    return text.decode("utf-8", "replace")[:MAX_NAME_LENGTH]


def _skip_empty(file: BufferedIOBase) -> tuple[bytes, int]:
    """Returns the next line that is not empty, and how many were before it."""
    line, count = file.readline(), 0
    while line and not line.strip():
        line, count = file.readline(), count + 1
    return line, count


def _frames(file: BufferedIOBase, source: str) -> Iterator[Frame]:
    line_number = 0
    for index in itertools.count():
        head, num_empty = _skip_empty(file)
        line_number += num_empty
        if not head:
            return
        if not head.strip().isdigit():
            where = f"frame {index}, line {line_number + 1}"
            found = repr(head[:40].decode(errors="replace"))
            what = f"expected a number of atoms ({where})"
            raise UsageError(f"{source}: {what}, found {found}")
        num_atoms, comment = int(head), file.readline()
        lines = list(itertools.islice(file, num_atoms))
        if len(lines) < num_atoms:
            raise UsageError(
                f"{source}: expected {num_atoms} atoms in frame {index}, found the "
                f"file truncated after {len(lines)}"
            )
        line_number += 2 + num_atoms
        yield _name(comment) or str(index), comment, lines


def read_xyz(
    file: BufferedIOBase, source: str, properties: Sequence[str] = ()
) -> Records:
    """Reads frames of plain or extended XYZ, in Å.

    Args:
        file: file opened for bytes.
        source: name of the file in messages.
        properties: names of the numbers to read from the comments, as `gap=6.8`.

    Raises:
        UsageError: A frame has no number of atoms, or the file ends within it.
    """
    return collect(_frames(file, source), properties)
