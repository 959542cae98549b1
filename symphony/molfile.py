"""Files of sampled molecules: SDF, extended XYZ, and a manifest in JSON lines.

The three grow together, a whole record at a time, and the manifest is their commit
log: a molecule is there once its line in the manifest is, which has the CRC-32 of all
three. Where an earlier command was killed, the one molecule that its files hold beyond
the last line of the manifest is cut off, and the next molecule follows. The molecules
of a part of a run have the numbers that they have in the whole. Positions are in Å.
"""

import contextlib
import json
import re
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from common.commands import cli, shards
from common.errors import RunError, UsageError
from common.runs.weights import check_same
from symphony.arrays import AtomicNumbers, HostPositions
from symphony.data.elements import SYMBOLS

FORMAT_VERSION = 1
FREE = frozenset({"checkpoint"})
"""What of a header may differ: it may be spelt otherwise, its checksum decides."""

OUTPUT_HELP = "an SDF; .extxyz and .jsonl beside"

ATOMS, LIST_WIDTH = "atom.dprop.", 190
"""How an SDF names RDKit's lists of numbers of atoms, and their longest line."""


class Paths(NamedTuple):
    """Where the three files of one output lie."""

    sdf: Path
    extxyz: Path
    manifest: Path


class Output(NamedTuple):
    """The open files of one output, and how many molecules stood there before.

    `records` are the lines of the manifest about these.
    """

    sdf: FileIO
    extxyz: FileIO
    manifest: FileIO
    num_done: int
    records: list[dict[str, Any]]


class Earlier(NamedTuple):
    """Output of an earlier command: header, records, and bytes of the manifest."""

    header: dict[str, Any]
    records: list[dict[str, Any]]
    num_bytes: int


class Entry(NamedTuple):
    """A molecule of an output: its record, and its part of SDF and extended XYZ."""

    record: dict[str, Any]
    sdf: str
    extxyz: str


def formula(atomic_numbers: AtomicNumbers) -> str:
    """Returns the formula in Hill's order: C, H, then the others by the alphabet.

    >>> formula(np.array([8, 6, 1, 1], np.uint8))
    'CH2O'
    """
    counts = Counter(SYMBOLS[number - 1] for number in atomic_numbers.tolist())
    first = ("C", "H") if "C" in counts else ()
    names = [name for name in first if name in counts]
    names += sorted(counts.keys() - set(first))
    return "".join(f"{n}{counts[n]}" if counts[n] > 1 else n for n in names)


def to_extxyz(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    properties: Mapping[str, Any],
    of_atoms: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> str:
    """Returns one frame; every coordinate (Å) reads back as the same float32.

    Args:
        atomic_numbers: nuclear charges.
        positions: positions of the atoms, in Å.
        properties: fields of the second line.
        of_atoms: further columns, a number an atom.
    """
    columns = "".join(f":{name}:R:1" for name in of_atoms)
    words = [f"Properties=species:S:1:pos:R:3{columns}"]
    for name, value in properties.items():
        if isinstance(value, bool):
            value = "T" if value else "F"
        words.append(f'{name}="{value}"' if " " in str(value) else f"{name}={value}")
    rows = [
        " ".join([f"{SYMBOLS[number - 1]:<2}", *map(_coordinate, position)])
        for number, position in zip(atomic_numbers.tolist(), positions, strict=True)
    ]
    for values in of_atoms.values():
        rows = [f"{row} {x:9.4f}" for row, x in zip(rows, values, strict=True)]
    return "\n".join([str(len(rows)), " ".join(words), *rows]) + "\n"


def renumber(sdf: str, index: int) -> str:
    r"""Returns a record of an SDF whose property `index` is another one.

    >>> renumber(">  <index>  (1) \n7\n\n>  <seed>  (1) \n7\n", 3)
    '>  <index>  (1) \n3\n\n>  <seed>  (1) \n7\n'
    """
    return re.sub(r"(>  <index>.*\n).*", rf"\g<1>{index}", sdf)


def to_list(numbers: Sequence[float]) -> str:
    """Returns numbers of atoms as the text of one of RDKit's lists.

    >>> to_list([-1.23456, float("nan")])
    '-1.2346 n/a'
    """
    words = ["n/a" if np.isnan(x) else f"{x:.4f}" for x in numbers]
    return textwrap.fill(" ".join(words), LIST_WIDTH)


def _coordinate(value: np.floating) -> str:
    text = np.format_float_positional(
        np.float32(value), unique=True, min_digits=6, trim="k"
    )
    return f"{text:>12}"


def paths_of(path: str | Path) -> Paths:
    """Returns the paths of an output that the user names by its SDF.

    >>> paths_of("out/mine.sdf").manifest.name
    'mine.jsonl'
    """
    path = Path(path)
    if path.suffix.lower() != ".sdf":
        raise UsageError(f"--output: expected a name that ends in .sdf, found {path}")
    return Paths(path, path.with_suffix(".extxyz"), path.with_suffix(".jsonl"))


def check(path: str | Path, *inputs: str | Path | None) -> None:
    """Asks, before any work, whether an output can be written; makes nothing.

    >>> check("out/mine.sdf", "core.sdf")

    Args:
        path: name of the SDF.
        inputs: files that are read, which must not be written.

    Raises:
        UsageError: A file is an input, a device, a pipe, or write-protected.
    """
    for file in paths_of(path):
        cli.check_apart(file, *inputs)
        cli.check_output(file)


@contextlib.contextmanager
def open_output(
    path: str | Path, header: Mapping[str, Any], overwrite: bool
) -> Iterator[Output]:
    """Opens an output to append to, behind what an earlier command completed.

    Args:
        path: name of the SDF; the other files lie beside it.
        header: JSON values that decide the molecules; the first line of the manifest.
        overwrite: true to replace existing files.

    Raises:
        UsageError: The files cannot be written, or what is there was not made with
            the same header.
    """
    paths = paths_of(path)
    header = _complete(header)
    check(path)
    if not overwrite:
        _find(paths, header)  # Before anything is made.
    with contextlib.ExitStack() as stack:
        stack.enter_context(cli.made_folder(paths.sdf.parent))
        stack.enter_context(_none_left_empty(paths))
        try:
            files = [stack.enter_context(FileIO(path, "a+")) for path in paths]
            stack.enter_context(cli.locked(paths.manifest))
            # Another command may have added to it before the lock.
            earlier = None if overwrite else _find(paths, header)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        records = [] if earlier is None else earlier.records
        output = Output(*files, len(records), records)
        _truncate(output, earlier)
        if earlier is None:
            _begin(output, header)
        yield output


@contextlib.contextmanager
def _none_left_empty(paths: Paths) -> Iterator[None]:
    """Removes the files that the block made, if it raises before the first molecule."""
    made = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException as error:
        if len(made) == len(paths) and not _has_molecules(paths, error):
            for path in made:
                path.unlink(missing_ok=True)
        raise


def _has_molecules(paths: Paths, error: BaseException) -> bool:
    """Returns whether files hold molecules, or are another command's."""
    if isinstance(error, UsageError):  # Such as a lock that another command has.
        return any(path.exists() and path.stat().st_size for path in paths)
    earlier = _read_manifest(paths.manifest)
    return earlier is not None and bool(earlier.records)


def _begin(output: Output, header: Mapping[str, Any]) -> None:
    try:
        _write(output.manifest, json.dumps(header) + "\n")
    except OSError as error:
        raise RunError(
            f"{output.manifest.name}: cannot be written ({error.strerror}); no "
            "molecule is there yet"
        ) from error


def append(output: Output, record: Mapping[str, Any], sdf: str, extxyz: str) -> None:
    """Adds one molecule; its line in the manifest comes last.

    Args:
        output: open files.
        record: JSON values of the molecule, `index` among them.
        sdf: record of an SDF, empty if the molecule has no bonds.
        extxyz: frame of an extended XYZ file.

    Raises:
        RunError: A file cannot be written. The molecules before are complete.
    """
    try:
        _write(output.extxyz, extxyz)
        _write(output.sdf, sdf)
        ends = {"sdf_bytes": _size(output.sdf), "extxyz_bytes": _size(output.extxyz)}
        record = {**record, **ends}
        sum_of_all = _crc32(record, sdf.encode(), extxyz.encode())
        _write(output.manifest, json.dumps({**record, "crc32": sum_of_all}) + "\n")
    except OSError as error:
        raise RunError(
            f"{output.manifest.name}: cannot be written ({error.strerror}); molecules "
            f"before {record['index']} are complete"
        ) from error


def _crc32(record: Mapping[str, Any], sdf: bytes, extxyz: bytes) -> int:
    """Returns the checksum of a molecule in all three files."""
    return zlib.crc32(b"\n".join((json.dumps(record).encode(), sdf, extxyz)))


def _write(file: FileIO, text: str) -> None:
    rest = memoryview(text.encode())
    while rest:
        rest = rest[file.write(rest) :]


def _size(file: FileIO) -> int:
    return file.seek(0, 2)


def read(path: str | Path) -> tuple[dict[str, Any], list[Entry]]:
    """Returns header and molecules of an output, as an earlier command left them.

    Raises:
        UsageError: There is none, or it was edited since.
    """
    paths = paths_of(path)
    earlier = _read_manifest(paths.manifest)
    if earlier is None:
        raise UsageError(f"{paths.manifest}: expected a manifest, found none")
    _check_sizes(paths, earlier)
    _check_unchanged(paths, earlier)
    contents = paths.sdf.read_bytes(), paths.extxyz.read_bytes()
    entries, ends = [], (0, 0)
    for record in earlier.records:
        starts = ends
        ends = tuple(record.pop(f"{name}_bytes", 0) for name in ("sdf", "extxyz"))
        pieces = zip(contents, starts, ends, strict=True)
        entries.append(Entry(record, *(x[a:b].decode() for x, a, b in pieces)))
        record.pop("crc32", None)
    return earlier.header, entries


@contextlib.contextmanager
def replaced(path: str | Path, header: Mapping[str, Any]) -> Iterator[Output]:
    """Opens an output that has its names once the block is done.

    Args:
        path: name of the SDF; the other files lie beside it.
        header: JSON values, see `open_output`.
    """
    with contextlib.ExitStack() as whole:
        # The manifest comes last: without it nothing is there.
        paths = [whole.enter_context(cli.atomic_path(x)) for x in paths_of(path)[::-1]]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(FileIO(x, "a+")) for x in paths[::-1]]
            output = Output(*files, 0, [])
            _begin(output, _complete(header))
            yield output


def _complete(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a header as it reads back."""
    header = {"record": "header", "format": FORMAT_VERSION, **header}
    return json.loads(json.dumps(header))


def _find(paths: Paths, header: dict[str, Any]) -> Earlier | None:
    """Returns what there is to go on with, None where nothing has been begun."""
    earlier = _read_manifest(paths.manifest)
    if earlier is not None:
        check_same(paths.sdf, earlier.header, header, FREE)
        _check_sizes(paths, earlier)
        _check_unchanged(paths, earlier)
        return earlier
    # A header alone may be torn; anything else has another origin.
    torn = paths.manifest.read_bytes() if paths.manifest.exists() else b""
    is_ours = (json.dumps(header) + "\n").encode().startswith(torn)
    for path, is_foreign in (
        (paths.manifest, not is_ours),
        (paths.sdf, paths.sdf.exists() and paths.sdf.stat().st_size > 0),
        (paths.extxyz, paths.extxyz.exists() and paths.extxyz.stat().st_size > 0),
    ):
        if is_foreign:
            raise UsageError(
                f"{path}: expected no file, or one with its {paths.manifest.name}; "
                "give --overwrite or another --output"
            )
    return None


def _truncate(output: Output, earlier: Earlier | None) -> None:
    """Cuts the files behind the last complete molecule."""
    ends = (0, 0, 0) if earlier is None else _ends(earlier)
    for file, end in zip(output[:3], ends, strict=True):
        file.truncate(end)


def _ends(earlier: Earlier) -> tuple[int, int, int]:
    """Returns the bytes of each file up to the last complete molecule."""
    last = earlier.records[-1] if earlier.records else {}
    return last.get("sdf_bytes", 0), last.get("extxyz_bytes", 0), earlier.num_bytes


def _check_sizes(paths: Paths, earlier: Earlier) -> None:
    for path, end in zip(paths, _ends(earlier), strict=True):
        size = path.stat().st_size if path.exists() else 0
        if size < end:
            raise UsageError(
                f"{path}: expected at least the {end} bytes that the manifest tells "
                f"of, found {size}; put it back, or give --overwrite to begin anew"
            )


def _check_unchanged(paths: Paths, earlier: Earlier) -> None:
    """Raises `UsageError` if something was edited since it was written.

    Molecules of version 0.2.0 and before have no checksum.
    """
    sdf, extxyz = paths.sdf.read_bytes(), paths.extxyz.read_bytes()
    ends = [(0, 0)]
    for record in earlier.records:
        found = record.get("sdf_bytes", 0), record.get("extxyz_bytes", 0)
        (sdf_start, start), (sdf_end, end) = ends[-1], found
        ends.append(found)
        rest = {name: value for name, value in record.items() if name != "crc32"}
        parts = sdf[sdf_start:sdf_end], extxyz[start:end]
        if "crc32" in record and record["crc32"] != _crc32(rest, *parts):
            _refuse_edited(paths.sdf, f"molecule {record['index']}")
    sdf_end, end = ends[-1]
    # A molecule that was being written: a frame, in whole before the SDF has any of it.
    torn = extxyz[end:].splitlines()
    next_one = f" index={_first(earlier.header) + len(earlier.records)}".encode()
    lines = int(torn[0]) + 2 if torn and torn[0].strip().isdigit() else len(torn)
    is_torn = len(torn) <= lines and (len(torn) < 3 or next_one in torn[1])
    if not is_torn or (
        len(sdf) > sdf_end and (not torn or b"$$$$\n" in sdf[sdf_end:-5])
    ):
        _refuse_edited(paths.sdf, "the end")


def _refuse_edited(path: Path, where: str) -> None:
    raise UsageError(
        f"{path}: expected the files of an earlier command as it left them, found "
        f"{where} edited since; give --overwrite or another --output"
    )


def _first(header: Mapping[str, Any]) -> int:
    """Returns the number of the first molecule."""
    return shards.part_of(header).start


def _read_manifest(path: Path) -> Earlier | None:
    """Returns what the complete lines say, None without any."""
    contents = path.read_bytes() if path.exists() else b""
    contents = contents[: contents.rfind(b"\n") + 1]
    if not contents:
        return None
    try:
        header, *records = [json.loads(line) for line in contents.splitlines()]
        indices = [record["index"] - _first(header) for record in records]
        sizes = [r.get(f"{n}_bytes", 0) for r in records for n in ("sdf", "extxyz")]
        if header["record"] != "header" or indices != list(range(len(indices))):
            raise ValueError("records out of order")
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("records without their bytes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path}: expected the manifest of an earlier command ({error}); give "
            "--overwrite or another --output"
        ) from error
    return Earlier(header, records, len(contents))
