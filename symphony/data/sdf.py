"""SDF and mol files, V2000 and V3000, by RDKit: the atoms, and data fields asked for.

RDKit is given each record with symbols, columns and exponents as it reads them. What
it refuses is looked at again, for the line that is to blame. Bonds are not kept.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from io import BufferedIOBase, TextIOWrapper
from typing import Any, NamedTuple

import numpy as np

from common.errors import UsageError
from symphony.data.elements import ATOMIC_NUMBERS
from symphony.data.molecules import Molecules, Records, Unreadable, make_molecules
from symphony.data.opening import as_text
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

_CHUNK_CHARACTERS = 1 << 22
_LONGEST_RECORD = 1 << 26  # characters
_DELIMITER = re.compile(r"^\$\$\$\$[^\n]*\n", re.MULTILINE)
_HEADER_LINES = 4  # The fourth has the counts.
_COUNTS = "{:3d}{:3d}  0  0  0  0  0  0  0  0999 V2000"
_VERSION = re.compile(r"V(\d000)\s*$", re.IGNORECASE)
_NUMBERS = re.compile(r"(?: *-?\d+\.\d+){3}")
_PLAIN_ATOM = re.compile(_NUMBERS.pattern + r" ([A-Z][a-z]?) {1,2}[ \d-]{2}")
_SYMBOL_COLUMN = 31
_V3000_ATOM = re.compile(r"(M  V30 +\d+ +)(\S+)( .*)")
_CONTINUED = re.compile(r"-[ \t]*\nM  V30 ")
_FIELD = re.compile(r">[^<]*<([^>]+)>")
_END = "M  END"
_FIELD = re.compile(r">[^<]*<([^>]*)>")
_LARGEST = 99_999.0  # Å; no larger number has place in its columns


class _Record(NamedTuple):
    """Lines of one record; `line` is the number of the first in the file, from 1."""

    lines: list[str]
    line: int


class _Parsed(NamedTuple):
    """Molecules read so far, one array for each field.

    `marks` counts those with charge or unpaired electrons, and those with isotopes.
    """

    num_atoms: array
    numbers: array
    positions: array
    names: list[str]
    tags: array
    marks: list[int]
    values: dict[str, list[float]]
    units: dict[str, str]


def _add(parsed: _Parsed, record: _Record, mol: Any) -> None:
    """Adds a molecule of RDKit and its record; adds nothing where it raises."""
    fields = {name: _field(record, name) for name in parsed.values}
    if "charge" in fields:
        fields["charge"] = _charge(mol)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    # RDKit has no positions of a record without atoms.
    positions = mol.GetConformer().GetPositions() if numbers else np.zeros((0, 3))
    parsed.num_atoms.append(len(numbers))
    parsed.numbers.extend(numbers)
    parsed.positions.extend(positions.ravel().tolist())
    parsed.names.append(_title(record) or str(len(parsed.names)))
    is_lost = "charge" not in fields and _charge(mol) != 0.0
    parsed.marks[0] += is_lost or _has_radicals(mol)
    parsed.marks[1] += any(atom.GetIsotope() for atom in mol.GetAtoms())
    parsed.tags.append({"2D": 2, "3D": 3}.get(record.lines[1][20:22], 0))
    for name, value in fields.items():
        parsed.values[name].append(value)
    if fields:
        parsed.units.update(parse_units(_text_of(record, FIELD)))


def _charge(mol: Any) -> float:
    """Returns the sum of the formal charges."""
    return float(sum(atom.GetFormalCharge() for atom in mol.GetAtoms()))


def _has_radicals(mol: Any) -> bool:
    """Returns whether there are radicals that the file marks."""
    return any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def _molecules(parsed: _Parsed) -> Molecules:
    with np.errstate(over="ignore"):  # Becomes infinite, and is refused as such.
        positions = np.array(parsed.positions, np.float64).astype(np.float32)
    return make_molecules(
        np.array(parsed.num_atoms, np.int64),
        np.array(parsed.numbers, np.uint8),
        positions.reshape(-1, 3),
        parsed.names,
        parsed.values,
        parsed.units,
    )


def _title(record: _Record) -> str:
    return record.lines[0].strip()[:MAX_NAME_LENGTH] if record.lines else ""


def field_name(line: str) -> str | None:
    """Returns the name in the head of a data field; None for another line.

    >>> field_name(">  <gap>  (1)")
    'gap'
    """
    head = _FIELD.match(line)
    return head and head.group(1)


def _text_of(record: _Record, name: str) -> str:
    """Returns the first line of a data field, empty where there is none."""
    for index, line in enumerate(record.lines[:-1]):
        if line.startswith(">") and field_name(line) == name:
            return record.lines[index + 1].strip()
    return ""


def _field(record: _Record, name: str) -> float:
    """Returns the number in a data field, NaN where there is none."""
    for index, line in enumerate(record.lines[:-1]):
        if line.startswith(">") and f"<{name}>" in line:
            text = record.lines[index + 1].strip()
            try:
                return number_of(text or "nan")
            except ValueError as error:
                raise UnreadableError(
                    f"line {record.line + index + 1}: expected {name} as a number, "
                    f"found {text[:20]!r}"
                ) from error
    return float("nan")


def _atom(line: str, index: int, number: int, trusted: bool) -> str:
    """Returns the line of an atom in the columns that RDKit reads.

    Args:
        line: line as it is in the file.
        index: number of the atom, from 1.
        number: number of the line, for messages.
        trusted: true to leave a line as it is where it looks right.

    Raises:
        UnreadableError: It has no element, or no three coordinates.
    """
    plain = _PLAIN_ATOM.match(line) if trusted else None
    if plain and plain.start(1) == _SYMBOL_COLUMN and plain.group(1) in ATOMIC_NUMBERS:
        return line
    try:
        axes, rest = [number_of(line[at : at + 10]) for at in (0, 10, 20)], line[30:]
    except ValueError:
        axes, rest = _free_coordinates(line, index, number)
    if not all(abs(axis) < _LARGEST for axis in axes):
        raise UnreadableError(
            f"line {number}: expected coordinates in Å (atom {index}), found a "
            f"position that is not finite or too far away, {line[:30].strip()!r}"
        )
    word = (rest.split() or [""])[0]
    symbol = symbol_of(word)
    if symbol is None:
        raise no_element(word, index, number)
    kept = _NUMBERS.fullmatch(line[:30].rstrip())
    symbol = word.upper() if word.upper() in ISOTOPES else symbol
    columns = f"{line[:30]:<30}" if kept else "".join(f"{axis:10.4f}" for axis in axes)
    return f"{columns} {symbol:<3} 0  0"


def _free_coordinates(line: str, index: int, number: int) -> tuple[list[float], str]:
    """Returns three coordinates that stand in no columns, and the rest of the line."""
    words = line.split()
    try:
        return [number_of(word) for word in words[:3]], " ".join(words[3:])
    except ValueError as error:
        raise UnreadableError(
            f"line {number}: expected three coordinates in Å and a symbol (atom "
            f"{index}), found {line.strip()[:40]!r}"
        ) from error


def _counts(record: _Record) -> tuple[int, int]:
    """Returns the numbers of atoms and bonds that a V2000 record states."""
    line, number = record.lines[_HEADER_LINES - 1], record.line + _HEADER_LINES - 1
    for words in ((line[:3], line[3:6]), [*line.split(), "", ""][:2]):
        try:
            atoms, bonds = int(words[0]), int(words[1] or 0)
        except ValueError:
            continue
        if atoms >= 0 and bonds >= 0:
            return atoms, bonds
    raise UnreadableError(
        f"line {number}: expected the numbers of atoms and bonds, found "
        f"{line.strip()[:40]!r}"
    )


def _normal(record: _Record, trusted: bool = True) -> _Record:
    """Returns a record as RDKit reads it.

    Args:
        record: record as it is in the file.
        trusted: true to leave a line of an atom as it is where it looks right.

    Raises:
        UnreadableError: It has another version or form, or an atom that is none.
    """
    lines, line = list(record.lines), record.line
    # Remarks and empty lines may stand before the three lines of the header.
    head = next((i for i, text in enumerate(lines[:12]) if _VERSION.search(text)), 3)
    begin = max(0, head - _HEADER_LINES + 1)
    if any(text.strip() and text[0] != "#" for text in lines[:begin]):
        begin = 0
    lines, line = lines[begin:], line + begin
    if len(lines) < _HEADER_LINES or head - begin != _HEADER_LINES - 1:
        raise UnreadableError(
            f"line {line}: expected a header of three lines and the counts in the "
            f"fourth, found {len(lines)} lines and the counts elsewhere"
        )
    version = re.search(r"V\d{4}", lines[3].upper())
    if version and version.group() not in ("V2000", "V3000"):
        raise UnreadableError(
            f"line {line + 3}: expected V2000 or V3000, found {version.group()}"
        )
    if version and version.group() == "V3000":
        return _Record(_normal_v3000(lines, line), line)
    return _normal_v2000(_Record(lines, line), trusted)


def _normal_v2000(record: _Record, trusted: bool) -> _Record:
    lines, line = record
    num_atoms, num_bonds = _counts(record)
    if lines[3][34:39] != "V2000":
        lines[3] = _COUNTS.format(num_atoms, num_bonds)
    atoms = lines[_HEADER_LINES : _HEADER_LINES + num_atoms]
    ends = [index for index, text in enumerate(atoms) if text.startswith(_END)]
    found = ends[0] if ends else len(atoms)
    if found < num_atoms:
        raise UnreadableError(
            f"line {line + 3}: expected {num_atoms} atoms, as the counts say, found "
            f"{found}"
        )
    lines[_HEADER_LINES : _HEADER_LINES + num_atoms] = [
        _atom(text, index + 1, line + _HEADER_LINES + index, trusted)
        for index, text in enumerate(atoms)
    ]
    return record


def _normal_v3000(lines: list[str], line: int) -> list[str]:
    lines = _CONTINUED.sub("", "\n".join(lines)).split("\n")
    inside, count = False, 0
    for index, text in enumerate(lines):
        if text.rstrip().endswith(("BEGIN ATOM", "END ATOM")):
            inside = "BEGIN" in text
        elif inside:
            atom, count = _V3000_ATOM.fullmatch(text), count + 1
            symbol = symbol_of(atom.group(2)) if atom else None
            if symbol is None:
                word = atom.group(2) if atom else text.strip()
                raise no_element(word, count, line + index)
            symbol = atom.group(2) if atom.group(2) in ISOTOPES else symbol
            lines[index] = atom.group(1) + symbol + with_exponents(atom.group(3))
    return lines


def _fault(record: _Record) -> UnreadableError:
    """Returns why RDKit may have refused a record that is in order up to its bonds."""
    lines, line = record
    if _END not in (text.rstrip() for text in lines):
        return UnreadableError(
            f"line {line}: expected M  END in the record, found none"
        )
    if "V3000" not in lines[3]:
        num_atoms, num_bonds = _counts(record)
        begin = _HEADER_LINES + num_atoms
        for index, text in enumerate(lines[begin : begin + num_bonds], start=begin):
            try:
                ends = int(text[:3]), int(text[3:6]), int(text[6:9])
            except ValueError:
                ends = (0, 0, 0)
            if not (1 <= min(ends[:2]) <= max(ends[:2]) <= num_atoms):
                return UnreadableError(
                    f"line {line + index}: expected a bond between two of {num_atoms} "
                    f"atoms, found {text.strip()[:40]!r}"
                )
    return UnreadableError(
        f"line {line}: expected a record that RDKit reads, found none in "
        f"{len(lines)} lines; are its counts right?"
    )


def _read_record(record: _Record) -> tuple[_Record, Any]:
    """Returns the record as RDKit was given it, and the molecule that it read.

    Raises:
        UnreadableError: There is none.
    """
    from rdkit import Chem

    for trusted in (True, False):
        normal = _normal(record, trusted)
        text = "\n".join(normal.lines) + "\n"
        mol = Chem.MolFromMolBlock(
            text, sanitize=False, removeHs=False, strictParsing=False
        )
        if mol is not None:
            return normal, mol
    raise _fault(normal)


def texts(text: TextIOWrapper, source: str) -> Iterator[str]:
    """Yields the text of each record of an SDF, without its delimiter.

    Args:
        text: the file.
        source: name of the file in messages.

    Raises:
        UsageError: The file ends within a record.
    """
    rest = ""
    while block := text.read(_CHUNK_CHARACTERS):
        rest, begin = rest + block, 0
        for match in _DELIMITER.finditer(rest):
            yield rest[begin : match.start()]
            begin = match.end()
        rest = rest[begin:]
        if len(rest) > _LONGEST_RECORD:
            raise UsageError(f"{source}: expected an SDF, found no $$$$ in 64 MB of it")
    if rest.strip().startswith("$$$$") or "\n$$$$" in rest:  # Without its newline.
        rest = rest[: rest.rfind("$$$$")]
    elif rest.strip() and not re.search(r"^M  END", rest, re.MULTILINE):
        head = "the file truncated" if "V2000" in rest or "V3000" in rest else "none"
        raise UsageError(
            f"{source}: expected the last record to be complete (M  END, then $$$$), "
            f"found {head} in its last {rest.count(chr(10)) + 1} lines"
        )
    if rest.strip():
        yield rest


def _records(text: TextIOWrapper, source: str) -> Iterator[tuple[_Record, bool]]:
    """Yields the records, and whether one follows another without a delimiter."""
    line = 1
    for record in texts(text, source):
        lines = record.split("\n")
        for index, part in enumerate(_divide(_Record(lines, line))):
            yield part, index > 0
        line += len(lines)


def _divide(record: _Record) -> Iterator[_Record]:
    """Yields the mol blocks of a record, which is one unless delimiters are missing."""
    lines, begin, ended, in_field = record.lines, 0, False, False
    for index, text in enumerate(lines):
        in_field = bool(text.strip()) and (in_field or text.startswith(">"))
        if text.startswith(_END):
            ended, in_field = True, False
        elif ended and not in_field and _VERSION.search(text):
            head = max(begin, index - _HEADER_LINES + 1)
            yield _Record(lines[begin:head], record.line + begin)
            begin, ended = head, False
    yield _Record(lines[begin:], record.line + begin)


def _leftover(record: _Record) -> int:
    """Returns the line with text behind `M  END` that is no data field, else 0."""
    end = next((i for i, t in enumerate(record.lines) if t.startswith(_END)), None)
    for index, text in enumerate(record.lines[end + 1 :] if end is not None else ()):
        if text.startswith(">"):
            return 0
        if text.strip():
            return record.line + end + 1 + index
    return 0


def _notes(
    num_undivided: int, leftovers: list[int], marks: list[int]
) -> tuple[str, ...]:
    notes = [
        *not_kept("a net charge or unpaired electrons", marks[0]),
        *not_kept("isotopes", marks[1], ": each atom is one of its element"),
    ]
    if num_undivided:
        notes.append(
            f"{num_undivided} molecules follow another one without $$$$; each is read "
            "as a record of its own"
        )
    if leftovers:
        notes.append(
            f"text behind M  END of {len(leftovers)} records is no data field and is "
            f"not read (first in line {leftovers[0]}); is a $$$$ missing?"
        )
    return tuple(notes)


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
    from rdkit import rdBase

    values: dict[str, list[float]] = {name: [] for name in properties}
    atoms = array("l"), array("B"), array("d")
    parsed = _Parsed(*atoms, [], array("b"), [0, 0], values, {})
    unreadable, leftovers, num_undivided = [], [], 0
    with rdBase.BlockLogs(), as_text(file) as text:
        for record, follows in _records(text, source):
            if not any(map(str.strip, record.lines)):
                continue
            num_undivided += follows
            line = _leftover(record)
            leftovers += [line] if line else []
            try:
                _add(parsed, *_read_record(record))
            except UnreadableError as error:
                name = _title(record) or str(len(parsed.names) + len(unreadable))
                unreadable.append(Unreadable(name, str(error)))
    return Records(
        _molecules(parsed),
        None,
        tuple(unreadable),
        tags=np.array(parsed.tags, np.int8),
        notes=_notes(num_undivided, leftovers, parsed.marks),
    )


def read_fields(file: BufferedIOBase, source: str) -> Iterator[dict[str, str]]:
    """Yields the data fields of each record that `read_sdf` reads, as text.

    Args:
        file: file opened for bytes.
        source: name of the file in messages.

    Raises:
        UsageError: The file ends within a record.
    """
    from rdkit import rdBase

    with rdBase.BlockLogs(), as_text(file) as text:
        for record, _ in _records(text, source):
            if not any(map(str.strip, record.lines)):
                continue
            try:
                _read_record(record)
            except UnreadableError:
                continue
            yield _fields(record.lines)


def _fields(lines: list[str]) -> dict[str, str]:
    """Returns the data fields of a record; lines of a field become one."""
    found: dict[str, list[str]] = {}
    values: list[str] | None = None
    for line in lines:
        head = _FIELD.match(line)
        if head:
            values = found.setdefault(head.group(1), [])
        elif not line.strip():
            values = None
        elif values is not None:
            values.append(line.strip())
    return {name: " ".join(values) for name, values in found.items()}
