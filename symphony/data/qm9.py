"""QM9 as published: the ids left out, the split, and where the files are.

Ramakrishnan, Dral, Rupp, von Lilienfeld, Sci. Data 1, 140022 (2014). Molecules are
counted from 1 to 133,885, as in the files.
"""

import bz2
import concurrent.futures
import functools
import re
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Int8, Int64, Integer, Shaped

from common.errors import UsageError
from symphony.data.molecules import Records, select
from symphony.data.npz import gdb_names
from symphony.data.sdf import read_sdf
from symphony.data.xyz import collect

PACKAGED = Path(__file__).resolve().parent.parent / "packaged"
NUM_MOLECULES = 133_885
NUM_UNCHARACTERIZED = 3_054
NUM_TRAIN = 100_000
NUM_VALIDATION = 17_748  # and 13,083, a tenth, for the test
_TAR_BLOCK = 512
_READ_BYTES = 1 << 21
_MEMBER = re.compile(r"dsgdb9nsd_(\d{6})\.xyz$")


def read_excluded(path: Path) -> Int64[np.ndarray, " num_excluded"]:
    """Reads the published table of molecules whose geometry is in doubt.

    A row opens with the molecule's number; the title, the header, the rules and the
    empty lines do not. A plain list of numbers is read as well.

    Raises:
        UsageError: The table has not its 3,054 rows.
    """
    rows = (line.split() for line in path.read_text(errors="replace").splitlines())
    numbers = [int(row[0]) for row in rows if row and row[0].isdigit()]
    # The text that introduces the table may itself break before a number.
    excluded = np.unique([n for n in numbers if 1 <= n <= NUM_MOLECULES])
    if len(excluded) != NUM_UNCHARACTERIZED:
        raise UsageError(
            f"{path}: expected {NUM_UNCHARACTERIZED} uncharacterized molecules, "
            f"found {len(excluded)}"
        )
    return excluded.astype(np.int64)


@functools.cache
def packaged_excluded() -> Int64[np.ndarray, " num_excluded"]:
    """Returns the numbers of the uncharacterized molecules that come with Symphony."""
    return read_excluded(PACKAGED / "qm9_uncharacterized.txt")


def edm_split(
    gdb_index: Integer[np.ndarray, " num_molecules"],
    excluded: Integer[np.ndarray, " num_excluded"],
) -> Int8[np.ndarray, " num_molecules"]:
    """Returns 0 (training), 1 (validation), 2 (test), or -1 where excluded.

    The split of Hoogeboom et al. (EDM, arXiv 2203.17003): of the molecules that are
    not excluded, in rising order, NumPy's old generator with seed 0 draws a
    permutation; the first 100,000 are for training, the last tenth for the test.
    """
    split = np.full(NUM_MOLECULES + 1, -1, np.int8)
    kept = np.setdiff1d(np.arange(1, NUM_MOLECULES + 1), excluded)
    # The published split is what this generator draws, and no other.
    order = kept[np.random.RandomState(0).permutation(len(kept))]
    split[order] = 2
    split[order[: NUM_TRAIN + NUM_VALIDATION]] = 1
    split[order[:NUM_TRAIN]] = 0
    return split[gdb_index]


def apply_conventions(
    records: Records,
    gdb_index: Integer[np.ndarray, " num_molecules"],
    excluded: Integer[np.ndarray, " num_excluded"],
) -> Records:
    """Returns the records without the excluded molecules, with the split of EDM."""
    split = edm_split(gdb_index, excluded)
    kept = split >= 0
    return Records(select(records.molecules, kept), split[kept], records.unreadable)


def gdb_index_of(
    names: Shaped[np.ndarray, " num_molecules"], source: str
) -> Int64[np.ndarray, " num_molecules"]:
    """Returns the number in each name of the form `gdb_17`.

    Raises:
        UsageError: A name has another form, or a number that QM9 has not.
    """
    found = np.zeros(len(names), np.int64)
    for row, name in enumerate(names.tolist()):
        prefix, _, number = name.partition("_")
        if prefix != "gdb" or not number.isdigit():
            raise UsageError(
                f"{source}: expected every molecule to be named gdb_<number>, "
                f"found {name!r}"
            )
        found[row] = int(number)
    if np.any((found < 1) | (found > NUM_MOLECULES)):
        raise UsageError(
            f"{source}: expected numbers from 1 to {NUM_MOLECULES}, "
            f"found {found.min()} to {found.max()}"
        )
    return found


def read_gdb9_sdf(file: BufferedIOBase, table: bytes | None, source: str) -> Records:
    """Reads `gdb9.sdf`.

    Args:
        file: Opened for bytes.
        table: The contents of `gdb9.sdf.csv`, whose rows are the records of the SDF
            in their order: it tells a file that lost its end.
        source: What to call the file in messages.
    """
    records = read_sdf(file, source)
    names = records.molecules.names
    if table is not None:
        ids = [line.split(b",", 1)[0].decode() for line in table.splitlines()[1:]]
        num_records = len(names) + len(records.unreadable)
        if len(ids) != num_records:
            raise UsageError(
                f"{source}: expected {len(ids)} molecules, as its csv has, "
                f"found {num_records}"
            )
        if not records.unreadable:
            names = np.array(ids)
    names = gdb_names(gdb_index_of(names, source))
    return records._replace(molecules=records.molecules._replace(names=names))


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
            after = begin + _TAR_BLOCK - (-size // _TAR_BLOCK) * _TAR_BLOCK
            if after > len(buffer):
                break
            if header[156:157] in (b"0", b"\0"):  # A regular file.
                path = header[:100].rstrip(b"\0").decode("latin-1")
                first = begin + _TAR_BLOCK
                yield path, buffer[first : first + size]
            begin = after
    raise UsageError(f"{source}: expected a whole tar archive, found it truncated")


def _tar_frames(
    members: Iterator[tuple[str, bytes]],
) -> Iterator[tuple[str, bytes, list[bytes]]]:
    """Yields name, comment and lines of atoms of the molecules among the members."""
    for path, text in members:
        match = _MEMBER.search(path)
        if not match:
            continue
        head, *lines = text.split(b"\n")
        num_atoms = int(head) if head.strip().isdigit() else len(lines)
        if num_atoms > len(lines) - 1:
            lines, num_atoms = [b"", b""], 1  # No molecule: counted as unreadable.
        # The comment holds properties of the molecule, and names no columns.
        yield f"gdb_{match.group(1)}", b"", lines[1 : num_atoms + 1]


def read_dsgdb9nsd(path: Path) -> Records:
    """Reads `dsgdb9nsd.xyz.tar.bz2`: one file a molecule, compressed together.

    Raises:
        UsageError: The archive is truncated, or none.
    """
    try:
        with bz2.open(path) as stream:
            members = _tar_members(_read_ahead(stream), str(path))
            records = collect(_tar_frames(members))
    except (EOFError, OSError) as error:
        raise UsageError(
            f"{path}: expected a whole tar.bz2, found it damaged ({error})"
        ) from error
    order = np.argsort(records.molecules.names, kind="stable")
    return records._replace(molecules=select(records.molecules, order))
