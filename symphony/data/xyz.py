"""XYZ, plain and extended, by ASE; and the dialect of QM9's authors.

ASE is given each frame with symbols, exponents and columns in the form that it reads.
QM9 writes `1.2*^-6` for 1.2e-6 and follows the atoms with three lines of its own.
"""

import io
import itertools
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from typing import Any, NamedTuple

import numpy as np

from common.commands.reading import line_of
from common.errors import UsageError
from symphony.data.molecules import Records, Unreadable, make_molecules
from symphony.data.opening import LONGEST_LINE, as_text
from symphony.data.units import FIELD, parse_units
from symphony.data.words import (
    ISOTOPES,
    MAX_NAME_LENGTH,
    UnreadableError,
    no_element,
    not_kept,
    number_of,
    symbol_of,
    with_exponents,
)

# The key is a whole word; names of columns may hold colons themselves, as `a::b`.
_PROPERTIES = re.compile(r'(?<![\w.-])Properties\s*=\s*(?:"([^"]*)"|(\S+))')
_COLUMN = re.compile(r"([^\s]+?):([RISL]):(\d{1,3})(?::|$)")
_NAME = re.compile(r'(?:^|\s)name\s*=\s*(?:"([^"]*)"|(\S+))')
_UNITS = re.compile(rf'(?:^|\s){FIELD}\s*=\s*"([^"]*)"')
_BOX = re.compile(r"(?<![\w.-])Lattice\s*=")
_NO_BOX = re.compile(r'(?<![\w.-])pbc\s*=\s*"?\s*(?:F\w*\s*){3}', re.IGNORECASE)
_COUNT = re.compile(r"\s*(\d{1,9})(?:\s+[^\d\s.+-].*)?\s*", re.DOTALL | re.ASCII)
_QM9_COMMENT = re.compile(r"gdb\s+(\d{1,6})\s")
_PAIR = re.compile(r'(?:^|\s)([\w.-]+)\s*=\s*(?:"([^"]*)"|(\S+))')
_NO_FIELDS = ("Properties", "Lattice", "pbc", "name")
_QM9_LINES = 3
_SYMBOL_COLUMNS = ("species", "symbols", "element", "z", "numbers", "atomic_numbers")
_FRAMES_AT_ONCE = 256
_HINTS = (
    "write it and a line of comment before the atoms",
    "is the number of the frame before right?",
)
_ASE_ERRORS = (ValueError, KeyError, IndexError, TypeError, OSError, AssertionError)


class Frame(NamedTuple):
    """Text of one frame.

    Attributes:
        name: name of the molecule.
        comment: second line.
        rows: one line for each atom.
        line: number of the first row in the file, from 1.
    """

    name: str
    comment: str
    rows: list[str]
    line: int


class _Columns(NamedTuple):
    """Columns of a frame: of the symbol, of x, how many, and `Properties=` for ASE."""

    symbol: int
    x: int
    count: int
    properties: str


def _columns(frame: Frame) -> _Columns:
    """Returns the columns that the comment names, else those of plain XYZ.

    Raises:
        UnreadableError: There is no symbol or no position among them.
    """
    match = _PROPERTIES.search(frame.comment)
    if not match:
        return _Columns(0, 1, 4, "")
    text = match.group(1) or match.group(2) or ""
    found = list(_COLUMN.finditer(text.strip().rstrip(":")))
    names = [column.group(1).lower() for column in found]
    symbol = next((name for name in _SYMBOL_COLUMNS if name in names), None)
    position = next((name for name in ("pos", "positions") if name in names), None)
    if symbol is None or position is None:
        raise UnreadableError(
            f"line {frame.line - 1}: expected Properties= with the columns "
            f"species:S:1 and pos:R:3, found {text[:60]!r}"
        )
    # Other columns are text to ASE, so that none of them can spoil a frame.
    ours = {names.index(symbol): "species", names.index(position): "pos"}
    places, words = {}, []
    for index, column in enumerate(found):
        name, width = ours.get(index, f"other{index}"), int(column.group(3))
        kind = "R" if name == "pos" else "S"
        places[name] = sum(int(other.group(3)) for other in found[:index])
        words.append(f"{name}:{kind}:{width}")
    count = sum(int(column.group(3)) for column in found)
    return _Columns(places["species"], places["pos"], count, ":".join(words))


def _normal(frame: Frame) -> str:
    """Returns a frame as ASE reads it.

    Raises:
        UnreadableError: A row has no symbol or too few columns.
    """
    columns = _columns(frame)
    if not frame.rows:
        raise UnreadableError(f"line {frame.line - 2}: found a frame of no atoms")
    rows = []
    for index, row in enumerate(with_exponents("\n".join(frame.rows)).split("\n")):
        words, line = row.split(), frame.line + index
        if len(words) < max(columns.count, columns.x + 3):
            raise UnreadableError(
                f"line {line}: expected a symbol and three coordinates in "
                f"{columns.count} columns (atom {index + 1}), found "
                f"{row.strip()[:40]!r}"
            )
        symbol = symbol_of(words[columns.symbol])
        if symbol is None:
            raise no_element(words[columns.symbol], index + 1, line)
        if symbol != words[columns.symbol]:
            words[columns.symbol] = symbol
            row = " ".join(words)
        rows.append(row)
    head = f"Properties={columns.properties}" if columns.properties else ""
    return "\n".join([str(len(rows)), head, *rows, ""])


def _by_ase(texts: Sequence[str]) -> list[Any]:
    """Returns the atoms of frames as ASE reads them."""
    from ase.io.extxyz import read_xyz as ase_read

    return list(ase_read(io.StringIO("".join(texts)), slice(None)))


def _fault(frame: Frame, error: Exception) -> UnreadableError:
    """Returns why ASE could not read a frame, with the line if a number is to blame."""
    first = _columns(frame).x
    for index, row in enumerate(frame.rows):
        for word in row.split()[first : first + 3]:
            try:
                number_of(word)
            except ValueError:
                where = f"line {frame.line + index}"
                what = f"expected a coordinate in Å (atom {index + 1})"
                return UnreadableError(f"{where}: {what}, found {word[:20]!r}")
    return UnreadableError(
        f"line {frame.line}: expected a frame that ASE reads, found {line_of(error)}"
    )


def _read_frames(frames: Sequence[Frame]) -> Iterator[Any]:
    """Yields what ASE reads of each frame, or the error that tells why it cannot."""
    texts: list[str | UnreadableError] = []
    for frame in frames:
        try:
            texts.append(_normal(frame))
        except UnreadableError as error:
            texts.append(error)
    good = [text for text in texts if isinstance(text, str)]
    try:
        together = iter(_by_ase(good))
    except _ASE_ERRORS:
        together = None
    for frame, text in zip(frames, texts, strict=True):
        if not isinstance(text, str):
            yield text
        elif together is not None:
            yield next(together)
        else:
            yield _read_singly(frame, text)


def _read_singly(frame: Frame, text: str) -> Any:
    try:
        return _by_ase([text])[0]
    except _ASE_ERRORS as error:
        return _fault(frame, error)


def _value(frame: Frame, name: str) -> float:
    """Returns the number of `name=...` in a comment, NaN if it has none."""
    pattern = rf'(?:^|\s){re.escape(name)}\s*=\s*"?([^\s"]+)'
    match = re.search(pattern, frame.comment)
    try:
        return number_of(match.group(1)) if match else float("nan")
    except ValueError as error:
        raise UnreadableError(
            f"line {frame.line - 1}: expected {name} as a number, found "
            f"{match.group(1)[:20]!r}"
        ) from error


class _Parsed(NamedTuple):
    """Molecules read so far, one array for each field."""

    num_atoms: array
    numbers: array
    positions: array
    names: list[str]
    values: dict[str, list[float]]
    units: dict[str, str]


def _add(parsed: _Parsed, frame: Frame, atoms: Any) -> None:
    """Adds a frame; adds nothing where it raises."""
    values = {key: _value(frame, key) for key in parsed.values}
    parsed.num_atoms.append(len(atoms))
    parsed.numbers.extend(atoms.numbers.tolist())
    parsed.positions.extend(atoms.positions.ravel().tolist())
    parsed.names.append(frame.name)
    for key, value in values.items():
        parsed.values[key].append(value)
    stated = _UNITS.search(frame.comment) if values else None
    if stated:
        parsed.units.update(parse_units(stated.group(1)))


def collect(frames: Iterable[Frame], properties: Sequence[str] = ()) -> Records:
    """Reads frames one after another.

    Args:
        frames: text of each.
        properties: names of the numbers to read from the comments.
    """
    values: dict[str, list[float]] = {name: [] for name in properties}
    parsed = _Parsed(array("l"), array("B"), array("d"), [], values, {})
    unreadable, num_boxes, num_isotopes = [], 0, 0
    source = iter(frames)
    while some := list(itertools.islice(source, _FRAMES_AT_ONCE)):
        for frame, atoms in zip(some, _read_frames(some), strict=True):
            num_boxes += _has_box(frame.comment)
            try:
                if isinstance(atoms, UnreadableError):
                    raise atoms
                _add(parsed, frame, atoms)
                num_isotopes += _has_isotopes(frame)
            except UnreadableError as error:
                unreadable.append(Unreadable(frame.name, str(error)))
    with np.errstate(over="ignore"):  # Becomes infinite, and is refused as such.
        molecules = make_molecules(
            np.array(parsed.num_atoms, np.int64),
            np.array(parsed.numbers, np.uint8),
            np.array(parsed.positions, np.float64).reshape(-1, 3).astype(np.float32),
            parsed.names,
            values,
            parsed.units,
        )
    box = f"the periodic box of {num_boxes} molecules is not read: each is taken as it "
    notes = (f"{box}stands, unwrap those that cross it",) if num_boxes else ()
    notes += not_kept("isotopes", num_isotopes, ": each atom is one of its element")
    return Records(molecules, None, tuple(unreadable), notes=notes)


def _has_isotopes(frame: Frame) -> bool:
    column = _columns(frame).symbol
    return any(row.split()[column].upper() in ISOTOPES for row in frame.rows)


def _has_box(comment: str) -> bool:
    return bool(_BOX.search(comment)) and not _NO_BOX.search(comment)


def _name(comment: str) -> str:
    named = _NAME.search(comment)
    text = (named.group(1) or named.group(2) or "") if named else ""
    qm9 = _QM9_COMMENT.match(comment)
    text = f"gdb_{int(qm9.group(1)):06d}" if qm9 else text
    return text[:MAX_NAME_LENGTH]


def _lines(file: BufferedIOBase, source: str) -> Iterator[tuple[int, str]]:
    """Yields the lines with their numbers."""
    with as_text(file) as text:
        for number in itertools.count(1):
            line = text.readline(LONGEST_LINE)
            if len(line) == LONGEST_LINE:
                raise UsageError(
                    f"{source}: expected lines of text, found one of more than "
                    f"{LONGEST_LINE} characters (line {number})"
                )
            if not line:
                return
            yield number, line


def _next_frame(lines: Iterator[tuple[int, str]]) -> tuple[int, str]:
    """Returns the next line that is neither empty nor a remark; empty at the end."""
    for number, line in lines:
        words = line.split()
        # ASE takes lines of VEC for the vectors of a box.
        if words and not words[0].startswith(("#", "VEC")):
            return number, line
    return 0, ""


def _rows(lines: Iterator[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    atoms = (line for line in lines if not line[1].lstrip().startswith("#"))
    return list(itertools.islice(atoms, count))


def _frames(file: BufferedIOBase, source: str) -> Iterator[Frame]:
    lines = _lines(file, source)
    for index in itertools.count():
        number, head = _next_frame(lines)
        if not head:
            return
        count = _COUNT.fullmatch(head)
        if not count:
            raise UsageError(
                f"{source}: expected a number of atoms (frame {index}, line {number}), "
                f"found {head.strip()[:40]!r}; {_HINTS[index > 0]}"
            )
        comment = next(lines, (0, ""))[1].strip()
        rows = _rows(lines, int(count.group(1)))
        if len(rows) < int(count.group(1)):
            raise UsageError(
                f"{source}: expected {count.group(1)} atoms in frame {index}, found "
                f"the file truncated after {len(rows)}; is its second line a comment?"
            )
        if _QM9_COMMENT.match(comment):
            list(itertools.islice(lines, _QM9_LINES))
        first = rows[0][0] if rows else number + 2
        atoms = [row.rstrip() for _, row in rows]
        yield Frame(_name(comment) or str(index), comment, atoms, first)


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


def read_fields(file: BufferedIOBase, source: str) -> Iterator[dict[str, str]]:
    """Yields what `name=value` says in the comment of each frame that is read.

    Args:
        file: file opened for bytes.
        source: name of the file in messages.

    Raises:
        UsageError: A frame has no number of atoms, or the file ends within it.
    """
    frames = _frames(file, source)
    while some := list(itertools.islice(frames, _FRAMES_AT_ONCE)):
        for frame, atoms in zip(some, _read_frames(some), strict=True):
            if not isinstance(atoms, UnreadableError):
                yield _fields(frame.comment)


def _fields(comment: str) -> dict[str, str]:
    """Returns the words of a comment but for the columns and the box."""
    pairs = {m.group(1): m.group(2) or m.group(3) for m in _PAIR.finditer(comment)}
    return {name: value for name, value in pairs.items() if name not in _NO_FIELDS}
