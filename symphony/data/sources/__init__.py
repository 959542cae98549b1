"""Data sets known by name: one file and one row of `SOURCES` for each."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from symphony.data.molecules import Molecules
from symphony.data.sources import qm9, solids


class Source(NamedTuple):
    """A row of the table, with a file or with molecules made by a function.

    Attributes:
        file: finds or downloads the file.
        make: makes the molecules.
    """

    file: Callable[[], Path] | None = None
    make: Callable[[], Molecules] | None = None


SOURCES = {
    "qm9": Source(file=qm9.download),
    "qm9-moleculenet": Source(file=qm9.download_moleculenet),
    "qm9-sample": Source(file=partial(qm9.PACKAGED.joinpath, "qm9_sample.npz")),
    "ethanol": Source(file=partial(qm9.PACKAGED.joinpath, "ethanol.xyz")),
    "platonic-solids": Source(make=solids.platonic_solids),
    "tetris": Source(make=solids.tetris),
}


def locate(path: str | Path) -> Path:
    """Returns the file of a data set known by name, else the path itself.

    >>> locate("qm9-sample").name
    'qm9_sample.npz'
    """
    source = SOURCES.get(str(path), Source())
    return Path(path) if source.file is None else source.file()
