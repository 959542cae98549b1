"""QM9 as published: where the files are, the molecules left out, the split.

Ramakrishnan, Dral, Rupp, von Lilienfeld, Sci. Data 1, 140022 (2014). Molecules are
counted from 1 to 133,885, as in the files.
"""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Int8, Int64, Integer, Shaped

from common.errors import UsageError
from common.runs.cache import cache_folder
from symphony.data.molecules import Records, select
from symphony.download import Remote, fetch_remote

PACKAGED = Path(__file__).resolve().parents[2] / "packaged"
EXCLUDED_NAME = "uncharacterized.txt"
NUM_MOLECULES = 133_885
NUM_UNCHARACTERIZED = 3_054
NUM_TRAIN = 100_000
NUM_VALIDATION = 17_748  # and 13,083, a tenth, for the test

_FIGSHARE = "https://ndownloader.figshare.com/files"
TAR = Remote(
    f"{_FIGSHARE}/3195389",
    "dsgdb9nsd.xyz.tar.bz2",
    "ad1ebd51ee7f5b3a6e32e974e5d54012",
    86_144_227,
)
EXCLUDED = Remote(
    f"{_FIGSHARE}/3195404", EXCLUDED_NAME, "a361887bacb427b8a0ce7903d92a53b4", 486_752
)
# The publisher of this one states no checksum: ours is noted at the first download.
ZIP = Remote(
    "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/molnet_publish/qm9.zip",
    "qm9.zip",
    None,
    None,
)


def download() -> Path:
    """Downloads the archive by QM9's authors, unless it is in the user's cache."""
    return _download(TAR)


def download_moleculenet() -> Path:
    """Downloads MoleculeNet's `gdb9.sdf`, unless it is in the user's cache."""
    return _download(ZIP)


def _download(archive: Remote) -> Path:
    folder = cache_folder(archive.name)
    fetch_remote(EXCLUDED, folder)
    return fetch_remote(archive, folder)


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


def curate(records: Records, path: Path) -> Records:
    """Returns the records without uncharacterized molecules, with the split of EDM.

    The table beside the data is used, else the packaged one. The two agree where the
    table is the published one.
    """
    table = path.parent / EXCLUDED_NAME
    excluded = read_excluded(table) if table.is_file() else packaged_excluded()
    split = edm_split(gdb_index_of(records.molecules.names, str(path)), excluded)
    kept = split >= 0
    return Records(select(records.molecules, kept), split[kept], records.unreadable)


def gdb_index_of(
    names: Shaped[np.ndarray, " num_molecules"], source: str
) -> Int64[np.ndarray, " num_molecules"]:
    """Returns the number in each name of the form `gdb_17`.

    Raises:
        UsageError: A name has another form, or a number that QM9 has not.
    """
    indices = np.zeros(len(names), np.int64)
    for row, name in enumerate(names.tolist()):
        prefix, _, number = name.partition("_")
        if prefix != "gdb" or not number.isdigit():
            raise UsageError(
                f"{source}: expected every molecule to be named gdb_<number>, "
                f"found {name!r}"
            )
        indices[row] = int(number)
    if np.any((indices < 1) | (indices > NUM_MOLECULES)):
        raise UsageError(
            f"{source}: expected numbers from 1 to {NUM_MOLECULES}, "
            f"found {indices.min()} to {indices.max()}"
        )
    return indices
