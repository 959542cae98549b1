"""Energies, forces and the like of the molecules of a file, for a network to foresee.

They stand in a NumPy archive under their names, one number a molecule or three an atom,
or in an extended XYZ file as ASE writes them: `energy=` in the comment, `forces:R:3` in
the columns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.commands.reading import Header, read_arrays
from common.errors import UsageError
from symphony.data.molecules import Labels, Molecules
from symphony.data.npz import WHAT


def read_labels(
    path: Path,
    molecules: Molecules,
    of_molecules: Sequence[str],
    of_atoms: Sequence[str],
) -> Labels:
    """Reads labels of all molecules of a file.

    Args:
        path: file that the molecules were read from.
        molecules: all of them, in the order of the file.
        of_molecules: names of numbers of molecules.
        of_atoms: names of vectors of atoms.

    Raises:
        UsageError: The file has none of a name, or they do not fit the molecules.
    """
    if path.suffix.lower() == ".npz":
        arrays = read_arrays(path, WHAT, _chooser(path, (*of_molecules, *of_atoms)))
    else:
        arrays = _from_frames(path, of_molecules, of_atoms)
    shapes = dict.fromkeys(of_molecules, (len(molecules.num_atoms),))
    shapes |= dict.fromkeys(of_atoms, molecules.positions.shape)
    for name, shape in shapes.items():
        values = arrays[name]
        if values.shape != shape or values.dtype.kind not in "fiu":
            raise UsageError(
                f"{path}: expected {name} as numbers of shape {shape}, found "
                f"{values.dtype} of shape {values.shape}"
            )
    for name in of_atoms:
        if not np.isfinite(arrays[name]).all():
            raise UsageError(f"{path}: expected finite {name}, found others")
    return Labels(
        {name: arrays[name].astype(np.float64) for name in of_molecules},
        {name: arrays[name].astype(np.float32) for name in of_atoms},
    )


def _chooser(
    path: Path, names: Sequence[str]
) -> Callable[[Mapping[str, Header]], Iterable[str]]:
    def choose(headers: Mapping[str, Header]) -> Iterable[str]:
        for name in names:
            if name not in headers:
                raise UsageError(
                    f"{path}: expected an array {name}, found {', '.join(headers)}"
                )
        return names

    return choose


def _from_frames(
    path: Path, of_molecules: Sequence[str], of_atoms: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads what ASE finds in the frames of an extended XYZ file."""
    import ase.io

    found: dict[str, list[np.ndarray]] = {
        name: [] for name in (*of_molecules, *of_atoms)
    }
    for index, atoms in enumerate(ase.io.iread(path, format="extxyz")):
        results = {} if atoms.calc is None else atoms.calc.results
        known = {**atoms.info, **atoms.arrays, **results}
        for name, values in found.items():
            if name not in known:
                raise UsageError(
                    f"{path}: expected {name} of every frame, found none in frame "
                    f"{index + 1}"
                )
            values.append(np.asarray(known[name], np.float64))
    join = lambda name, values: (
        np.array(values) if name in of_molecules else np.concatenate(values)
    )
    return {name: join(name, values) for name, values in found.items()}
