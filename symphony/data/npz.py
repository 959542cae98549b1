"""Molecules in NumPy archives, never unpickled.

Two forms: `positions` in Å as floats, or `positions_1e4` (`_1e3`, ...) as integers
in units of 1e-4 Å. Beside them `num_atoms` and `atomic_numbers`, and as the file
likes `names`, `gdb_index`, `split` (0 training, 1 validation, 2 test), `molecule_id`
(one number for all conformers of a molecule), and properties under the names of their
conditions; the charge also as `total_charge` or `formal_charge`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Float32, Integer, Shaped

from common.commands.cli import atomic_path
from common.commands.reading import Header, read_arrays
from common.errors import UsageError
from symphony.data.molecules import Molecules, Records, make_molecules
from symphony.data.units import FIELD, format_units, parse_units
from symphony.data.words import shown

Arrays = Mapping[str, np.ndarray]
WHAT = "a complete NumPy archive without pickled objects"
MAX_ATOMS = 100_000
"""Largest molecule that may be in a file; a larger number is taken for damage."""

_SCALED = re.compile(r"positions_1e(\d)")
_LONGEST_TEXT = 4096  # bytes of one name
_KINDS = {
    "num_atoms": "iu", "atomic_numbers": "iu", "positions": "f", "names": "US",
    "gdb_index": "iu", "split": "iub", "molecule_id": "iu", FIELD: "U",
}  # fmt: skip
"""Kinds of NumPy types that the arrays may have; properties are numbers."""

_OF_MOLECULES = ("names", "gdb_index", "split", "molecule_id")
_CHARGES = ("charge", "total_charge", "formal_charge")

_IN_WORDS = {
    "iu": "integers", "iub": "integers", "f": "floats in Å", "US": "text",
    "U": "text", "fiu": "numbers",
}  # fmt: skip


def gdb_names(
    gdb_index: Integer[np.ndarray, " num_molecules"],
) -> Shaped[np.ndarray, " num_molecules"]:
    """Returns `gdb_000017` for the molecule 17 of GDB-9 (counted from 1).

    >>> gdb_names(np.array([17])).tolist()
    ['gdb_000017']
    """
    return np.char.add("gdb_", np.char.zfill(gdb_index.astype("U20"), 6))


def _positions(arrays: Arrays) -> Float32[np.ndarray, "total_atoms 3"]:
    name = next(name for name in arrays if name.startswith("positions"))
    scaled = _SCALED.fullmatch(name)
    if scaled:
        unit = 10.0 ** -int(scaled.group(1))
        return (arrays[name] * unit).astype(np.float32)
    # A value beyond float32 becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return arrays[name].astype(np.float32)


def _position_name(headers: Mapping[str, Header], path: Path) -> str:
    """Returns the name of the array of positions."""
    scaled = sorted(name for name in headers if _SCALED.fullmatch(name))
    names = ["positions"] if "positions" in headers else scaled
    if not names:
        raise UsageError(
            f"{path}: expected an array positions (or positions_1e4), "
            f"found {shown(headers)}"
        )
    return names[0]


def _check_kind(name: str, header: Header, kinds: str, path: Path) -> None:
    dtype = header.dtype
    if dtype.hasobject:
        raise UsageError(f"{path}: expected {WHAT}, found {name} of Python objects")
    is_long = dtype.kind in "US" and dtype.itemsize > _LONGEST_TEXT
    if dtype.kind not in kinds or is_long:
        raise UsageError(
            f"{path}: expected {name} as {_IN_WORDS[kinds]}, found {dtype.str} of "
            f"shape {header.shape}"
        )


def _counts(path: Path) -> np.ndarray:
    """Returns the numbers of atoms, read before any other array.

    Raises:
        UsageError: They are none, or more molecules than the file has atoms.
    """

    def choose(headers: Mapping[str, Header]) -> Iterable[str]:
        for name in ("num_atoms", "atomic_numbers"):
            if name not in headers:
                raise UsageError(
                    f"{path}: expected an array {name}, found {shown(headers)}"
                )
            is_vector = len(headers[name].shape) == 1
            if headers[name].dtype.kind not in "iu" or not is_vector:
                raise UsageError(
                    f"{path}: expected {name} as a vector of non-negative integers, "
                    f"found {headers[name].dtype} of shape {headers[name].shape}"
                )
        num_molecules = headers["num_atoms"].shape[0]
        total = headers["atomic_numbers"].shape[0]
        if num_molecules > 2 * total + 100:
            raise UsageError(
                f"{path}: expected molecules with atoms, found num_atoms of "
                f"{num_molecules} molecules and {total} atomic_numbers"
            )
        return ["num_atoms"]

    counts = read_arrays(path, WHAT, choose)["num_atoms"]
    if np.any(counts < 0) or np.any(counts > MAX_ATOMS):
        raise UsageError(
            f"{path}: expected num_atoms as a vector of non-negative integers up to "
            f"{MAX_ATOMS}, found {counts.min()} to {counts.max()}"
        )
    return counts


def _chooser(
    path: Path, counts: np.ndarray, properties: Sequence[str]
) -> Callable[[Mapping[str, Header]], Iterable[str]]:
    """Returns the function that checks the other arrays by their headers alone."""
    num_molecules, total = len(counts), int(counts.sum(dtype=np.int64))

    def choose(headers: Mapping[str, Header]) -> Iterable[str]:
        position = _position_name(headers, path)
        kinds = {**_KINDS, **dict.fromkeys(properties, "fiu")}
        kinds |= {position: "f" if position == "positions" else "iu"}
        ours = ("atomic_numbers", position, *_OF_MOLECULES)
        ours += (FIELD,) if properties and _states_units(headers) else ()
        wanted = dict.fromkeys((*ours, *properties))
        chosen = [name for name in wanted if name in headers]
        for name in chosen:
            _check_kind(name, headers[name], kinds[name], path)
            shapes = {"atomic_numbers": (total,), position: (total, 3), FIELD: ()}
            expected = shapes.get(name, (num_molecules,))
            if headers[name].shape != expected:
                raise UsageError(
                    f"{path}: expected {name} of shape {expected} "
                    f"(num_atoms adds up to {total}), found {headers[name].shape}"
                )
        return chosen

    return choose


def _states_units(headers: Mapping[str, Header]) -> bool:
    """Returns whether there is a text of units, which no other array is taken for."""
    return FIELD in headers and headers[FIELD].dtype.kind == "U"


def _check_numbers(arrays: Arrays, path: Path) -> None:
    numbers = arrays["atomic_numbers"]
    if np.any(numbers < 0) or np.any(numbers > 118):
        raise UsageError(
            f"{path}: expected atomic numbers up to 118, found {numbers.min()} to "
            f"{numbers.max()}"
        )


def _text_of(names: np.ndarray) -> np.ndarray:
    return (
        np.char.decode(names, "utf-8", "replace") if names.dtype.kind == "S" else names
    )


def read_npz(path: Path, properties: Sequence[str] = ()) -> Records:
    """Reads an archive of either form.

    Args:
        path: path of the archive.
        properties: names of the properties to read; unknown where it has none.

    Raises:
        UsageError: The file is no complete archive, or its arrays do not fit together.
    """
    counts = _counts(path)
    asked = (*properties, *(_CHARGES if "charge" in properties else ()))
    arrays = dict(read_arrays(path, WHAT, _chooser(path, counts, asked)))
    if stated := [name for name in _CHARGES if name in arrays]:
        arrays["charge"] = arrays[stated[0]]
    _check_numbers(arrays, path)
    names = None
    if "names" in arrays:
        names = _text_of(arrays["names"])
    elif "gdb_index" in arrays:
        names = gdb_names(arrays["gdb_index"])
    unknown = np.full(len(counts), np.nan, np.float32)
    molecules = make_molecules(
        counts,
        arrays["atomic_numbers"],
        _positions(arrays),
        names,
        {name: arrays.get(name, unknown) for name in properties},
        parse_units(str(arrays.get(FIELD, ""))),
    )
    if "molecule_id" in arrays:
        _, ids = np.unique(arrays["molecule_id"], return_inverse=True)
        molecules = molecules._replace(molecule_id=ids.astype(np.int32))
    return Records(molecules, _split(arrays, path), ())


def _split(arrays: Arrays, path: Path) -> np.ndarray | None:
    """Returns the part of each molecule, -1 where it is in none."""
    if "split" not in arrays:
        return None
    split = arrays["split"].astype(np.int64)
    outside = (split < 0) | (split > 2)
    if outside.any():
        logging.warning(
            "%s: %d molecules are in no part: their split is none of 0 (training), 1 "
            "(validation) and 2 (test)",
            path, int(outside.sum()),
        )  # fmt: skip
    return np.where(outside, -1, split).astype(np.int8)


def write_npz(
    molecules: Molecules,
    path: Path,
    compress: bool = True,
    split: np.ndarray | None = None,
) -> None:
    """Writes the form in Å; the file has its final name only once it is complete.

    Args:
        molecules: molecules with their properties.
        path: path of the archive.
        compress: true to compress the arrays.
        split: part of each molecule, see `Records`; none is written where None.
    """
    more = {} if split is None else {"split": split}
    if molecules.molecule_id is not None:
        more["molecule_id"] = molecules.molecule_id
    if molecules.units:
        more[FIELD] = np.array(format_units(molecules.units))
    save = np.savez_compressed if compress else np.savez
    with atomic_path(path) as partial, partial.open("wb") as file:
        save(
            file,
            num_atoms=molecules.num_atoms,
            atomic_numbers=molecules.atomic_numbers,
            positions=molecules.positions,
            names=molecules.names,
            **molecules.properties,
            **more,
        )
