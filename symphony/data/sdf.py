"""SDF, V2000 and V3000: the atoms, and data fields that are asked for; no bonds.

A V2000 atom has its coordinates in columns 0-29 and its symbol in 31-33; blocks of
the file are read as matrices of bytes, one row an atom, with no loop over atoms.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from common.errors import UsageError
from symphony.data.elements import ATOMIC_NUMBERS
from symphony.data.molecules import (
    MAX_NAME_LENGTH,
    Molecules,
    Records,
    concatenate,
    make_molecules,
)

_CHUNK_BYTES = 1 << 24
_END_OF_RECORD = b"$$$$"
_ATOM_COLUMNS = 34
_COUNTS_COLUMNS = 39
_HEADER_LINES = 4  # The fourth has the counts.
_SPACE, _NEWLINE, _RETURN = b" \n\r"


class _MalformedError(ValueError):
    """A record that does not follow the format."""


def _symbol_table() -> UInt8[np.ndarray, " codes"]:
    """Returns the atomic number for `first byte + 256 * second byte`, else 0."""
    table = np.zeros(1 << 16, np.uint8)
    for symbol, number in ATOMIC_NUMBERS.items():
        first, second = symbol.ljust(2).encode()
        table[first + 256 * second] = number
    return table


_NUMBER_OF_SYMBOL = _symbol_table()


def _columns(
    text: UInt8[np.ndarray, " num_bytes"],
    begins: Int64[np.ndarray, " num_lines"],
    ends: Int64[np.ndarray, " num_lines"],
    width: int,
) -> UInt8[np.ndarray, "num_lines width"]:
    """Returns the first bytes of each line, with spaces after a short line's end."""
    at = begins[:, None] + np.arange(width)
    inside = at < ends[:, None]
    characters = np.where(inside, text[np.minimum(at, len(text) - 1)], _SPACE)
    return np.where(characters == _RETURN, _SPACE, characters).astype(np.uint8)


def _fields(
    columns: UInt8[np.ndarray, "num_lines width"], begin: int, end: int
) -> Shaped[np.ndarray, " num_lines"]:
    return np.ascontiguousarray(columns[:, begin:end]).view(f"S{end - begin}")[:, 0]


def _atomic_numbers(
    columns: UInt8[np.ndarray, "num_lines width"],
) -> Int64[np.ndarray, " num_lines"]:
    symbols = columns[:, 31:34].astype(np.int64)
    is_short = symbols[:, 2] == _SPACE
    numbers = _NUMBER_OF_SYMBOL[symbols[:, 0] + 256 * symbols[:, 1]]
    return np.where(is_short, numbers, 0).astype(np.int64)


def _is_delimiter(
    text: UInt8[np.ndarray, " num_bytes"], begins: Int64[np.ndarray, " num_lines"]
) -> Bool[np.ndarray, " num_lines"]:
    starts = np.minimum(begins, len(text) - len(_END_OF_RECORD))
    columns = text[starts[:, None] + np.arange(len(_END_OF_RECORD))]
    return (begins == starts) & (columns == _END_OF_RECORD[0]).all(axis=1)


def _data_fields(
    records: Iterator[bytes], names: Sequence[str]
) -> dict[str, list[float]]:
    """Returns the numbers in the data fields of each record, NaN where it has none.

    Raises:
        _MalformedError: A field holds no number.
    """
    patterns = {
        name: re.compile(rb"^>.*<%s>.*\n(.*)$" % name.encode(), re.MULTILINE)
        for name in names
    }
    values: dict[str, list[float]] = {name: [] for name in names}
    for record in records if names else ():
        for name, pattern in patterns.items():
            match = pattern.search(record)
            try:
                text = match.group(1).strip() if match else b""
                values[name].append(float(text or b"nan"))
            except ValueError as error:
                raise _MalformedError from error
    return values


def _parse_v2000(
    text: UInt8[np.ndarray, " num_bytes"], fields: Sequence[str]
) -> Molecules:
    """Parses whole records, all of them V2000.

    Raises:
        _MalformedError: One of them is not; nothing says which.
    """
    ends = np.flatnonzero(text == _NEWLINE)
    begins = np.concatenate([[0], ends[:-1] + 1])
    delimiters = np.flatnonzero(_is_delimiter(text, begins))
    first_lines = np.concatenate([[0], delimiters[:-1] + 1])
    lines_of = lambda rows, width: _columns(text, begins[rows], ends[rows], width)
    num_atoms = _atom_counts(lines_of, first_lines, delimiters)
    begin = first_lines + _HEADER_LINES - (np.cumsum(num_atoms) - num_atoms)
    lines = np.arange(num_atoms.sum()) + np.repeat(begin, num_atoms)
    atoms = lines_of(lines, _ATOM_COLUMNS)
    try:
        axes = [_fields(atoms, b, b + 10).astype(np.float32) for b in (0, 10, 20)]
    except ValueError as error:
        raise _MalformedError from error
    width = MAX_NAME_LENGTH
    names = np.char.strip(_fields(lines_of(first_lines, width), 0, width))
    return make_molecules(
        num_atoms,
        _atomic_numbers(atoms),
        np.stack(axes, axis=1),
        np.char.decode(names, "utf-8", "replace"),
        _data_fields(_records(text.tobytes()), fields),
    )


def _atom_counts(
    lines_of: Callable[..., UInt8[np.ndarray, "num_lines width"]],
    first_lines: Int64[np.ndarray, " num_records"],
    delimiters: Int64[np.ndarray, " num_records"],
) -> Int64[np.ndarray, " num_records"]:
    """Returns the number of atoms that the counts line of each record states.

    Raises:
        _MalformedError: A record is shorter than its counts, or not V2000.
    """
    counts = first_lines + _HEADER_LINES - 1
    if np.any(counts >= delimiters):
        raise _MalformedError
    heads = lines_of(counts, _COUNTS_COLUMNS)
    try:
        num_atoms = _fields(heads, 0, 3).astype(np.int64)
    except ValueError as error:
        raise _MalformedError from error
    if np.any(_fields(heads, 34, 39) != b"V2000") or np.any(num_atoms < 0):
        raise _MalformedError
    if np.any(counts + num_atoms >= delimiters):
        raise _MalformedError
    return num_atoms


def _title(record: bytes) -> str:
    text = record.split(b"\n", 1)[0].strip().decode("utf-8", "replace")
    return text[:MAX_NAME_LENGTH]


def _v3000_lines(record: bytes) -> Iterator[list[bytes]]:
    """Yields the words of each `M  V30` line, continued lines joined."""
    begun = b""
    for line in record.splitlines():
        if line.startswith(b"M  V30 "):
            words = begun + line[len(b"M  V30 ") :].rstrip()
            begun = words[:-1] if words.endswith(b"-") else b""
            if not begun:
                yield words.split()


def _v3000_atoms(record: bytes) -> tuple[int | None, list[int], list[list[float]]]:
    """Returns the number of atoms that is declared, and elements and positions."""
    numbers, positions, declared, inside = [], [], None, False
    for words in _v3000_lines(record):
        if words[:1] == [b"COUNTS"]:
            declared = int(words[1])
        elif words[1:] == [b"ATOM"]:
            inside = words[0] == b"BEGIN"
        elif inside:
            numbers.append(ATOMIC_NUMBERS.get(words[1].decode("latin-1"), 0))
            positions.append([float(word) for word in words[2:5]])
    return declared, numbers, positions


def _parse_v3000(record: bytes, fields: Sequence[str]) -> Molecules:
    """Parses one V3000 record.

    Raises:
        _MalformedError: The record does not follow the format.
    """
    try:
        declared, numbers, positions = _v3000_atoms(record)
    except (ValueError, IndexError) as error:
        raise _MalformedError from error
    if declared != len(numbers) or any(len(position) != 3 for position in positions):
        raise _MalformedError
    return make_molecules(
        np.array([len(numbers)]),
        np.array(numbers, np.int64),
        np.array(positions, np.float64).reshape(-1, 3),
        [_title(record)],
        _data_fields(iter([record]), fields),
    )


def _parse_singly(
    text: bytes, fields: Sequence[str]
) -> tuple[list[Molecules], list[str]]:
    """Parses record by record; returns also the titles of those that cannot be."""
    parsed, unreadable = [], []
    for record in _records(text):
        try:
            if b"V3000" in b"".join(record.split(b"\n", 4)[3:4]):
                parsed.append(_parse_v3000(record, fields))
            else:
                parsed.append(_parse_v2000(np.frombuffer(record, np.uint8), fields))
        except _MalformedError:
            unreadable.append(_title(record))
    return parsed, unreadable


def _records(text: bytes) -> Iterator[bytes]:
    """Yields each record of a block with the line that ends it."""
    begin = 0
    while begin < len(text):
        at = text.find(b"\n" + _END_OF_RECORD, begin)
        end = text.find(b"\n", at + 1) + 1
        yield text[begin:end]
        begin = end


def _whole_records(file: BufferedIOBase, source: str) -> Iterator[bytes]:
    """Yields blocks that end where a record does."""
    rest = b""
    while block := file.read(_CHUNK_BYTES):
        rest += block
        last = rest.rfind(b"\n" + _END_OF_RECORD)
        end = rest.find(b"\n", last + 1) + 1 if last >= 0 else 0
        if end:
            yield rest[:end]
            rest = rest[end:]
    if not rest.strip():
        return
    # The last delimiter may lack its newline, or be missing after a whole molecule.
    lines = [line.strip() for line in rest.splitlines() if line.strip()]
    if lines[-1] != _END_OF_RECORD and b"M  END" not in lines:
        raise UsageError(
            f"{source}: expected the last record to be complete (M  END, then $$$$), "
            "found the file truncated"
        )
    tail = b"" if lines[-1] == _END_OF_RECORD else b"\n" + _END_OF_RECORD
    yield rest.rstrip() + tail + b"\n"


def read_sdf(
    file: BufferedIOBase, source: str, properties: Sequence[str] = ()
) -> Records:
    """Reads an SDF or a single mol block.

    Args:
        file: file opened for bytes.
        source: name of the file in messages.
        properties: names of the data fields to read, numbers.

    Raises:
        UsageError: The file ends within a record.
    """
    parsed: list[Molecules] = []
    unreadable: list[str] = []
    for block in _whole_records(file, source):
        try:
            parsed.append(_parse_v2000(np.frombuffer(block, np.uint8), properties))
        except _MalformedError:
            good, bad = _parse_singly(block, properties)
            parsed += good
            unreadable += bad
    if not parsed:
        none = np.zeros(0, int)
        unknown = dict.fromkeys(properties, none)
        parsed = [make_molecules(none, none, np.zeros((0, 3)), None, unknown)]
    molecules = concatenate(parsed)
    index = np.arange(len(molecules.names)).astype(str)
    names = np.where(molecules.names == "", index, molecules.names)
    return Records(molecules._replace(names=names), None, tuple(unreadable))
