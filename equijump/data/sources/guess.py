"""Which source reads a file or a folder, by its name and by what is in it."""

import re
from pathlib import Path

from common.errors import RunError, UsageError
from equijump.data import child, foreign
from equijump.data.sources import SOURCES, bioemu, trajectories

_HDF5 = frozenset((".h5", ".hdf5"))
_REPLICA = re.compile(r".+_R\d+(_fit)?\.xtc")
_ARRAYS = (".npz", ".npy", ".h5", ".hdf5")


def entry_of(given: str) -> str:
    """Returns the entry of `config.data.sources` that reads what is given.

    >>> entry_of("ou:2"), entry_of("ala2_300K")
    ('ou:2', 'ala2_300K')

    Args:
        given: file, folder, pattern, packaged name, or an entry as it is.
    """
    if given.partition(":")[0] in SOURCES:
        return given
    row = row_of(Path(given))
    return f"{row}:{given}" if row else given


def row_of(path: Path) -> str:
    """Returns the row of a file or folder, empty for trajectories that MDTraj reads.

    A pattern is judged by the first file that it finds.
    """
    if path.is_dir():
        return _row_of_folder(path)
    if not path.is_file():
        try:
            path = trajectories.find(str(path))[0]
        except UsageError:
            return ""
    if path.suffix.lower() in _HDF5:
        return _row_of_hdf5(path)
    return foreign.source_of(foreign.describe(path))


def _row_of_folder(folder: Path) -> str:
    if any(folder.rglob(bioemu.RECORD)):
        return "bioemu"
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    if any(_REPLICA.fullmatch(path.name) for path in files):
        return "atlas"
    arrays = [path for path in files if path.suffix.lower() in _ARRAYS]
    return row_of(arrays[0]) if arrays else ""


def _row_of_hdf5(path: Path) -> str:
    if path.name.startswith("mdcath_dataset_"):
        return "mdcath"
    try:
        ((answer, _),) = list(child.ask(path, task="names"))
    except (RunError, UsageError):
        return ""
    return foreign.source_of(foreign.describe_names(answer["names"]))
