"""What files tell of molecules besides their atoms: fields, and numbers of the atoms.

Fields come from the manifest that Symphony wrote, else from the data fields of an SDF,
the comments of extended XYZ or the arrays of an npz.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from common.commands.reading import DAMAGE, Header, read_arrays
from common.errors import UsageError
from symphony import molfile
from symphony.data import sdf, xyz
from symphony.data.opening import open_bytes
from symphony.data.readers import suffix_of
from symphony.evaluate.samples import Samples
from symphony.molfile import ATOMS as ATOMS

_INTERNAL = ("sdf_bytes", "extxyz_bytes", "crc32", "valid")
_NOT_FIELDS = ("names", "split", "num_atoms", "atomic_numbers")
_LONGEST = 200  # Characters of a field that is shown.
_READERS = {".sdf": sdf, ".mol": sdf, ".xyz": xyz, ".extxyz": xyz}


def read(drawn: Samples, count: int) -> list[dict[str, Any]]:
    """Returns the fields of the first molecules; each has those that it states.

    Fields of atoms, whose names begin with `ATOMS`, are text still; see `of_atoms`.

    Args:
        drawn: molecules; `shown` are those that the file has.
        count: largest number of molecules.
    """
    path = Path(drawn.source)
    if drawn.manifest is None:
        found = itertools.islice(_of_file(path), count)
        return [{k: to_value(v) for k, v in one.items()} for one in found]
    atoms = _atoms_beside(path.with_suffix(".sdf"))
    return [
        {**_of_record(record), **atoms.get(str(record["index"]), {})}
        for record in drawn.manifest[:count]
    ]


def _of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: record[name] for name in record if name not in _INTERNAL}
    missing = lambda value: float("nan") if value is None else value
    lists = {
        name: molfile.to_list([missing(x) for x in value])
        for name, value in known.items()
        if name.startswith(ATOMS) and isinstance(value, list)
    }
    return {**known, **lists}


def _atoms_beside(path: Path) -> dict[str, dict[str, str]]:
    """Returns the fields of atoms in Symphony's SDF, by the index of the molecule."""
    if not path.is_file():
        return {}
    return {
        fields["index"]: {k: v for k, v in fields.items() if k.startswith(ATOMS)}
        for fields in _of_file(path)
        if "index" in fields
    }


def _of_file(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the fields of each molecule that the file has, as text or numbers."""
    reader = _READERS.get(suffix_of(path))
    if reader is None:
        yield from _of_archive(path)
        return
    with open_bytes(path) as file:
        yield from reader.read_fields(file, str(path))


def _of_archive(path: Path) -> Iterator[dict[str, Any]]:
    def choose(headers: Mapping[str, Header]) -> Iterable[str]:
        count = headers["num_atoms"].shape
        return [
            name
            for name, header in headers.items()
            if header.shape == count
            and header.dtype.kind in "fiubSU"
            and name not in _NOT_FIELDS
        ]

    try:
        arrays = read_arrays(path, "molecules", choose)
    except (UsageError, *DAMAGE):  # It was read before: only its fields are missing.
        return
    columns = [array.tolist() for array in arrays.values()]
    for row in zip(*columns, strict=True):
        yield {k: _plain(v) for k, v in zip(arrays, row, strict=True)}


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def to_value(value: Any) -> Any:
    """Returns a value as JSON has it: text that is a number becomes one.

    >>> to_value("6.5"), to_value("inf"), to_value("CCO"), to_value("1_0")
    (6.5, 'inf', 'CCO', '1_0')
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str) and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not np.isfinite(number):
        return str(value)
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a molecule but for those of atoms, long text cut."""
    plain = {k: v for k, v in fields.items() if not k.startswith(ATOMS) and v != ""}
    cut = lambda value: value[:_LONGEST] if isinstance(value, str) else value
    return {name: cut(value) for name, value in plain.items() if value is not None}


def of_atoms(
    fields: Mapping[str, Any], num_atoms: int
) -> dict[str, Float[np.ndarray, " num_atoms"]]:
    """Returns the numbers of atoms by their names; NaN where one is missing.

    Lists of another length, or with words that are no numbers, are left out.

    >>> of_atoms({"atom.dprop.log_likelihood": "-1.5 n/a"}, 2)
    {'log_likelihood': array([-1.5,  nan])}
    """
    found = {}
    for name, text in fields.items():
        if name.startswith(ATOMS):
            numbers = _numbers(str(text).split())
            if numbers is not None and len(numbers) == num_atoms:
                found[name.removeprefix(ATOMS)] = np.array(numbers, np.float64)
    return found


def _numbers(words: list[str]) -> list[float] | None:
    """Returns the numbers of a list of RDKit, whose first word may name what misses."""
    missing = "n/a"
    if words and words[0].startswith("[") and words[0].endswith("]"):
        missing, words = words[0][1:-1], words[1:]
    try:
        return [float("nan") if word == missing else float(word) for word in words]
    except ValueError:
        return None
