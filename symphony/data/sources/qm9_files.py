"""QM9's official files: the archive of its authors, and MoleculeNet's `gdb9.sdf`."""

import bz2
import concurrent.futures
import csv
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from common.commands.reading import DAMAGE, line_of
from common.errors import UsageError
from symphony.data.cache import parsed_once
from symphony.data.molecules import Properties, Records, select
from symphony.data.npz import gdb_names
from symphony.data.opening import limited
from symphony.data.sdf import read_sdf
from symphony.data.sources.qm9 import gdb_index_of
from symphony.data.words import shown
from symphony.data.xyz import Frame, collect

HARTREE = 27.211386  # eV
UNITS = dict.fromkeys(
    ["homo", "lumo", "gap", "zpve", "u0", "u298", "h298", "g298"], HARTREE
)
STATED = {
    **dict.fromkeys(UNITS, "eV"), **dict.fromkeys("ABC", "GHz"), "mu": "D",
    "alpha": "bohr^3", "r2": "bohr^2", "cv": "cal/mol/K",
    **dict.fromkeys(["u0_atom", "u298_atom", "h298_atom", "g298_atom"], "kcal/mol"),
}  # fmt: skip
"""Units of the columns as they are read."""

COMMENT = (
    "A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298",
    "h298", "g298", "cv",
)  # fmt: skip
_TAR_BLOCK = 512
_LARGEST_MEMBER, _LARGEST_TABLE = 1 << 20, 1 << 28  # bytes; no file of QM9 has more
_READ_BYTES = 1 << 21
_MEMBER = re.compile(r"dsgdb9nsd_(\d{6})\.xyz$")


def is_official(path: Path) -> bool:
    """Returns whether a file is one of QM9's own, by its name."""
    name = path.name.lower()
    return path.name == "gdb9.sdf" or name.endswith((".tar.bz2", ".zip"))


def read_official(path: Path, properties: Sequence[str] = ()) -> Records:
    """Reads the archive of QM9's authors, or MoleculeNet's `gdb9.sdf`, zipped or not.

    Args:
        path: path of the file; a `gdb9.sdf.csv` beside an SDF is read with it.
        properties: names of columns of the csv, as `gap`; units are in `STATED`.
    """
    records = _read(path, properties)
    units = {name: STATED[name] for name in properties if name in STATED}
    return records._replace(molecules=records.molecules._replace(units=units))


def _read(path: Path, properties: Sequence[str]) -> Records:
    if path.suffix.lower() == ".zip":
        return _read_zip(path, properties)
    if path.suffix.lower() == ".sdf":
        table = path.with_name(path.name + ".csv")
        contents = table.read_bytes() if table.is_file() else None
        records = parsed_once(path, _read_records)
        return _name_gdb9(records, contents, str(path), properties)
    return parsed_once(path, partial(read_dsgdb9nsd, properties=properties), properties)


def _read_records(path: Path) -> Records:
    with path.open("rb") as file:
        return read_sdf(file, str(path))


def _read_zip(path: Path, properties: Sequence[str]) -> Records:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(one.filename).name: one for one in archive.infolist()}
            if "gdb9.sdf" not in members:
                found = shown(members, most=5)
                raise UsageError(f"{path}: expected gdb9.sdf inside, found {found}")
            contents = _table_of(archive, members.get("gdb9.sdf.csv"), path)
            read = partial(_read_member, member=members["gdb9.sdf"])
            records = parsed_once(path, read)
            return _name_gdb9(records, contents, str(path), properties)
    except DAMAGE as error:
        raise UsageError(
            f"{path}: expected a whole zip archive, found it damaged ({line_of(error)})"
        ) from error


def _table_of(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo | None, path: Path
) -> bytes | None:
    if member is None:
        return None
    if member.file_size > _LARGEST_TABLE:
        raise UsageError(
            f"{path}: expected a gdb9.sdf.csv of at most {_LARGEST_TABLE} bytes, found "
            f"{member.file_size}"
        )
    return archive.read(member)


def _read_member(path: Path, member: zipfile.ZipInfo) -> Records:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        return read_sdf(limited(file, path.stat().st_size, str(path)), str(path))


def _name_gdb9(
    records: Records, table: bytes | None, source: str, properties: Sequence[str]
) -> Records:
    """Returns the records of `gdb9.sdf` with their names and properties.

    Args:
        records: records of the SDF.
        table: contents of `gdb9.sdf.csv`, whose rows are the records of the SDF
            in their order: it tells a file that lost its end.
        source: name of the file in messages.
        properties: names of columns of the table.
    """
    names = records.molecules.names
    values = {name: np.full(len(names), np.nan, np.float32) for name in properties}
    if table is not None:
        rows = list(csv.DictReader(table.decode("latin-1").splitlines()))
        num_records = len(names) + len(records.unreadable)
        if len(rows) != num_records:
            what = f"{len(rows)} molecules, as its csv has"
            raise UsageError(f"{source}: expected {what}, found {num_records}")
        if not records.unreadable:
            names = np.array([row["mol_id"] for row in rows])
            for name in properties:
                values[name] = _column(rows, name, source)
    names = gdb_names(gdb_index_of(names, source))
    return records._replace(
        molecules=records.molecules._replace(
            names=names, properties=_in_our_units(values)
        )
    )


def _column(rows: Sequence[dict], name: str, source: str) -> np.ndarray:
    """Returns a column of the table, NaN where a row has none."""
    try:
        return np.float32([row.get(name) or "nan" for row in rows])
    except ValueError as error:
        raise UsageError(
            f"{source}: expected numbers in the column {name} of its csv, found "
            f"{line_of(error)}"
        ) from error


def _in_our_units(values: Properties) -> Properties:
    return {name: values[name] * np.float32(UNITS.get(name, 1.0)) for name in values}


def _read_ahead(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yields the stream's blocks, the next one being read while this one is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        pending = thread.submit(stream.read, _READ_BYTES)
        while block := pending.result():
            pending = thread.submit(stream.read, _READ_BYTES)
            yield block


def _tar_members(blocks: Iterator[bytes], source: str) -> Iterator[tuple[str, bytes]]:
    """Yields path and contents of the files in a tar archive.

    The library's tarfile takes longer for as many files than it takes to parse them.
    """
    buffer, begin = b"", 0
    for block in blocks:
        buffer, begin = buffer[begin:] + block, 0
        while len(buffer) - begin >= _TAR_BLOCK:
            header = buffer[begin : begin + _TAR_BLOCK]
            if not header.strip(b"\0"):
                return  # An empty header ends an archive.
            try:
                size = int(header[124:136].strip(b"\0 "), 8)
            except ValueError as error:
                raise UsageError(f"{source}: expected a tar, found none") from error
            if not 0 <= size <= _LARGEST_MEMBER:
                raise UsageError(
                    f"{source}: expected members of at most {_LARGEST_MEMBER} bytes in "
                    f"the tar, found one of {size}"
                )
            after = begin + _TAR_BLOCK - (-size // _TAR_BLOCK) * _TAR_BLOCK
            if after > len(buffer):
                break
            if header[156:157] in (b"0", b"\0"):  # A regular file.
                path = header[:100].rstrip(b"\0").decode("latin-1")
                first = begin + _TAR_BLOCK
                yield path, buffer[first : first + size]
            begin = after
    raise UsageError(f"{source}: expected a whole tar archive, found it truncated")


def _tar_frames(members: Iterator[tuple[str, bytes]]) -> Iterator[Frame]:
    """Yields the molecules among the members."""
    for path, text in members:
        match = _MEMBER.search(path)
        if not match:
            continue
        head, *lines = text.decode("latin-1").split("\n")
        num_atoms = int(head) if head.strip().isdecimal() else len(lines)
        if num_atoms > len(lines) - 1:
            lines, num_atoms = ["", ""], 1  # No molecule: counted as unreadable.
        # The comment holds properties of the molecule, without their names.
        named = zip(COMMENT, lines[0].split()[2:], strict=False)
        comment = " ".join(f"{name}={value}" for name, value in named)
        yield Frame(f"gdb_{match.group(1)}", comment, lines[1 : num_atoms + 1], 3)


def read_dsgdb9nsd(path: Path, properties: Sequence[str] = ()) -> Records:
    """Reads `dsgdb9nsd.xyz.tar.bz2`: one file a molecule, compressed together.

    Args:
        path: path of the archive.
        properties: names of the properties to read, see `read_official`.

    Raises:
        UsageError: The archive is truncated, or none.
    """
    try:
        with bz2.open(path) as stream:
            members = _tar_members(_read_ahead(stream), str(path))
            records = collect(_tar_frames(members), properties)
    except DAMAGE as error:
        raise UsageError(
            f"{path}: expected a whole tar.bz2, found it damaged ({line_of(error)})"
        ) from error
    molecules = records.molecules
    molecules = molecules._replace(properties=_in_our_units(molecules.properties))
    order = np.argsort(molecules.names, kind="stable")
    return records._replace(molecules=select(molecules, order))
