"""Molecules in NumPy archives, never unpickled.

Two forms: `positions` in Å as floats, or `positions_1e4` (`_1e3`, ...) as integers
in units of 1e-4 Å. Beside them `num_atoms` and `atomic_numbers`, and as the file
likes `names`, `gdb_index`, `split` (0 training, 1 validation, 2 test), and properties
under the names of their conditions.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer, Shaped

from common.commands.cli import atomic_path
from common.errors import UsageError
from symphony.data.molecules import Molecules, Records, make_molecules

Arrays = Mapping[str, np.ndarray]
_SCALED = re.compile(r"positions_1e(\d)")


def gdb_names(
    gdb_index: Integer[np.ndarray, " num_molecules"],
) -> Shaped[np.ndarray, " num_molecules"]:
    """Returns `gdb_000017` for the molecule 17 of GDB-9 (counted from 1).

    >>> gdb_names(np.array([17])).tolist()
    ['gdb_000017']
    """
    return np.char.add("gdb_", np.char.zfill(gdb_index.astype("U6"), 6))


def _positions(arrays: Arrays, path: Path) -> Float32[np.ndarray, "total_atoms 3"]:
    scaled = [match for match in map(_SCALED.fullmatch, arrays) if match]
    if "positions" in arrays:
        positions = arrays["positions"]
        if positions.dtype.kind != "f":
            raise UsageError(
                f"{path}: expected positions as floats in Å, found {positions.dtype}"
            )
        # A value beyond float32 becomes infinite, and is refused as such.
        with np.errstate(over="ignore"):
            return positions.astype(np.float32)
    if scaled:
        unit = 10.0 ** -int(scaled[0].group(1))
        return (arrays[scaled[0].group(0)] * unit).astype(np.float32)
    raise UsageError(
        f"{path}: expected an array positions (or positions_1e4), "
        f"found {', '.join(sorted(arrays))}"
    )


def _check_counts(arrays: Arrays, path: Path) -> None:
    for name in ("num_atoms", "atomic_numbers"):
        if name not in arrays:
            raise UsageError(
                f"{path}: expected an array {name}, found {', '.join(sorted(arrays))}"
            )
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind not in "iu" or np.any(array < 0):
            raise UsageError(
                f"{path}: expected {name} as a vector of non-negative integers, "
                f"found {array.dtype} of shape {array.shape}"
            )
    if np.any(arrays["atomic_numbers"] > 255):
        raise UsageError(
            f"{path}: expected atomic numbers up to 118, "
            f"found {arrays['atomic_numbers'].max()}"
        )


def _check_shapes(arrays: Arrays, path: Path, properties: Sequence[str]) -> None:
    _check_counts(arrays, path)
    num_molecules = len(arrays["num_atoms"])
    total = int(arrays["num_atoms"].sum(dtype=np.int64))
    shapes = {"atomic_numbers": (total,), "names": (num_molecules,)}
    shapes |= dict.fromkeys(("split", "gdb_index", *properties), (num_molecules,))
    for name, array in arrays.items():
        expected = (total, 3) if name.startswith("positions") else shapes.get(name)
        if expected is not None and array.shape != expected:
            raise UsageError(
                f"{path}: expected {name} of shape {expected} "
                f"(num_atoms adds up to {total}), found {array.shape}"
            )


def _properties(
    arrays: Arrays, path: Path, names: Sequence[str]
) -> dict[str, np.ndarray]:
    unknown = np.full(len(arrays["num_atoms"]), np.nan, np.float32)
    for name in names:
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            raise UsageError(
                f"{path}: expected {name} as numbers, found {arrays[name].dtype}"
            )
    return {name: arrays.get(name, unknown) for name in names}


def _load(path: Path, properties: Sequence[str]) -> dict[str, np.ndarray]:
    wanted = {"num_atoms", "atomic_numbers", "names", "gdb_index", "split", *properties}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {
                name: archive[name]
                for name in archive.files
                if name in wanted or name.startswith("positions")
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, AttributeError) as e:
        # np.load gives a bare array, without `files`, for an .npy under this name.
        raise UsageError(
            f"{path}: expected a complete NumPy archive without pickled objects, "
            f"found none ({e})"
        ) from e
    return arrays


def read_npz(path: Path, properties: Sequence[str] = ()) -> Records:
    """Reads an archive of either form.

    Args:
        path: path of the archive.
        properties: names of the properties to read; unknown where it has none.

    Raises:
        UsageError: The file is no complete archive, or its arrays do not fit together.
    """
    arrays = _load(path, properties)
    _check_shapes(arrays, path, properties)
    if "names" in arrays:
        names = arrays["names"].astype(str)
    else:
        names = gdb_names(arrays["gdb_index"]) if "gdb_index" in arrays else None
    molecules = make_molecules(
        arrays["num_atoms"],
        arrays["atomic_numbers"],
        _positions(arrays, path),
        names,
        _properties(arrays, path, properties),
    )
    split = arrays["split"].astype(np.int8) if "split" in arrays else None
    return Records(molecules, split, ())


def write_npz(molecules: Molecules, path: Path, compress: bool = True) -> None:
    """Writes the form in Å; the file has its final name only once it is complete."""
    save = np.savez_compressed if compress else np.savez
    with atomic_path(path) as partial, partial.open("wb") as file:
        save(
            file,
            num_atoms=molecules.num_atoms,
            atomic_numbers=molecules.atomic_numbers,
            positions=molecules.positions,
            names=molecules.names,
            **molecules.properties,
        )
