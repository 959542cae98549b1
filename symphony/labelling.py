"""Properties of the molecules of a file: computed in processes, kept as they come.

The journal has a line for each molecule that was computed, with its values and why some
are missing. A command that was interrupted goes on behind its last whole line; the
output is written from input and journal, whole, at the end.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from common.commands import cli
from common.commands.reading import read_arrays
from common.errors import UsageError
from symphony import data, molfile
from symphony.chemistry import pool
from symphony.data import sdf
from symphony.data.npz import WHAT
from symphony.data.opening import as_text, open_bytes
from symphony.data.readers import read_file, suffix_of
from symphony.data.sources.qm9_files import is_official
from symphony.data.units import FIELD, format_units, parse_units

WORKER = "symphony.chemistry.labels"
SECONDS, CLOCK_FACTOR = 120.0, 10
"""CPU time for one molecule; the clock may show a multiple of it."""

OUTPUTS = (".sdf", ".extxyz", ".npz")
Values = Mapping[str, float]


class Input(NamedTuple):
    """Molecules of a file.

    Attributes:
        path: the file.
        records: its molecules, none left out.
        texts: records of an SDF as they stand there; None of other files.
    """

    path: Path
    records: data.Records
    texts: list[str] | None


def read_input(path: Path) -> Input:
    """Reads a file of molecules.

    Raises:
        UsageError: It cannot be read, or one of its records cannot.
    """
    records = read_file(path)  # Of QM9's own files, what training reads, divided.
    if records.unreadable:
        name, reason = records.unreadable[0]
        raise UsageError(
            f"{path}: expected records that can be read, found "
            f"{len(records.unreadable)} that cannot, the first {name} ({reason}); "
            "take them out"
        )
    if not _has_bonds(path):
        return Input(path, records, None)
    with open_bytes(path) as file, as_text(file) as text:
        texts = [part for part in sdf.texts(text, str(path)) if part.strip()]
    if len(texts) != len(records.molecules.num_atoms):
        raise UsageError(
            f"{path}: expected $$$$ after each record, found {len(texts)} parts with "
            f"{len(records.molecules.num_atoms)} molecules"
        )
    return Input(path, records, texts)


def _has_bonds(path: Path) -> bool:
    return suffix_of(path) == ".sdf" and not is_official(path)


def check_form(given: Path, output: Path) -> None:
    """Raises `UsageError` for an output that a file of molecules cannot become."""
    has_bonds = _has_bonds(given)
    forms = OUTPUTS if has_bonds else OUTPUTS[1:]
    if output.suffix.lower() not in forms:
        why = "" if has_bonds else " (an input without bonds makes no SDF)"
        raise UsageError(
            f"--output: expected a name that ends in {', '.join(forms)}{why}, found "
            f"{output}"
        )


def choose(num_molecules: int, wanted: int | None) -> np.ndarray:
    """Returns the molecules to label: all, or some drawn at random, always the same.

    >>> len(choose(10, 3))
    3

    Raises:
        UsageError: They are fewer than what is wanted.
    """
    if wanted is None:
        return np.arange(num_molecules)
    if wanted > num_molecules:
        raise UsageError(
            f"--num_molecules: expected at most the {num_molecules} of the file, found "
            f"{wanted}"
        )
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(num_molecules, wanted, replace=False))


def task_of(given: Input, index: int, groups: Sequence[str]) -> dict[str, Any]:
    """Returns what a worker is told of a molecule; see `symphony.chemistry.labels`."""
    molecules = given.records.molecules
    atoms = slice(*molecules.offsets[index : index + 2])
    task = {
        "groups": list(groups),
        "time_limit": SECONDS,
        "atomic_numbers": molecules.atomic_numbers[atoms].tolist(),
        "positions": molecules.positions[atoms].tolist(),
    }
    return task if given.texts is None else {**task, "sdf": given.texts[index]}


def compute(
    given: Input, indices: Sequence[int], groups: Sequence[str], num_workers: int
) -> Iterator[dict[str, Any]]:
    """Yields the line of the journal for each molecule, in order."""
    names = given.records.molecules.names
    waiting = iter(indices)

    def line(answer: dict[str, Any] | str) -> dict[str, Any]:
        index = int(next(waiting))
        if isinstance(answer, str):
            answer = {"values": {}, "failures": dict.fromkeys(groups, answer)}
        return {"index": index, "name": str(names[index]), **answer}

    with pool.Stream(WORKER, num_workers, CLOCK_FACTOR * SECONDS) as stream:
        for index in indices:
            stream.submit(task_of(given, int(index), groups))
            yield from map(line, stream.ready())
        yield from map(line, stream.rest())


def read_journal(path: Path, header: Mapping[str, Any]) -> tuple[list[dict], int]:
    """Returns the lines of an earlier command, and the bytes of what is whole of it.

    Raises:
        UsageError: The file is another's, or was begun with another header.
    """
    contents = path.read_bytes() if path.exists() else b""
    whole = contents[: contents.rfind(b"\n") + 1]
    if not contents:
        return [], 0
    try:
        first, *lines = [json.loads(line) for line in whole.splitlines()]
        same = first == json.loads(json.dumps(header))
        good = all(set(line) == _KEYS for line in lines)
    except (ValueError, TypeError, RecursionError):
        same = good = False
    if not (same and good):
        raise UsageError(
            f"{path}: expected no file, or the values of the same molecules by the "
            "same program, found another; give --overwrite or another --output"
        )
    return lines, len(whole)


_KEYS = {"index", "name", "values", "failures"}


def append(file: IO[bytes], line: Mapping[str, Any]) -> None:
    """Adds a line to the journal, at once."""
    file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    file.flush()


def columns_of(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str], num_molecules: int
) -> dict[str, np.ndarray]:
    """Returns the columns, NaN where a molecule has no value.

    >>> columns_of([{"index": 1, "values": {"gap": 5.0}}], ["gap"], 2)["gap"].tolist()
    [nan, 5.0]
    """
    columns = {name: np.full(num_molecules, np.nan, np.float32) for name in names}
    for line in lines:
        for name, value in line["values"].items():
            columns[name][line["index"]] = value
    return columns


def failures_of(lines: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Returns how often each group failed for each reason."""
    return Counter(
        f"{group}: {reason}"
        for line in lines
        for group, reason in line["failures"].items()
    )


def write(
    given: Input,
    output: Path,
    lines: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
) -> None:
    """Writes the molecules with their columns, in the form that the name tells."""
    form = output.suffix.lower()
    if form == ".npz":
        _write_npz(given, output, lines, units)
        return
    by_index = {line["index"]: line["values"] for line in lines}
    one = _sdf_record if form == ".sdf" else _frame
    with cli.atomic_path(output) as path, path.open("w", encoding="utf-8") as file:
        for index in range(len(given.records.molecules.num_atoms)):
            file.write(one(given, index, by_index.get(index, {}), units))


def _sdf_record(
    given: Input, index: int, values: Values, units: Mapping[str, str]
) -> str:
    """Returns a record with the values as data fields; old ones of a name go."""
    lines, kept, stated = given.texts[index].rstrip("\n").split("\n"), [], {}
    dropped = False
    for place, line in enumerate(lines):
        name = sdf.field_name(line)
        if name is not None:
            dropped = name in values or (name == FIELD and bool(values))
            if name == FIELD:
                stated = parse_units("".join(lines[place + 1 : place + 2]))
        if not dropped:
            kept.append(line)
    stated |= {name: units.get(name, "") for name in values}
    fields = {**values, FIELD: format_units(stated)} if values else {}
    body = "\n".join(kept).rstrip("\n")
    body += "\n\n" if any(map(sdf.field_name, kept)) else "\n"
    parts = (f">  <{k}>\n{v}\n\n" for k, v in fields.items() if v != "")
    return f"{body}{''.join(parts)}$$$$\n"


def _frame(given: Input, index: int, values: Values, units: Mapping[str, str]) -> str:
    molecules = given.records.molecules
    atoms = slice(*molecules.offsets[index : index + 2])
    stated = format_units({name: units.get(name, "") for name in values})
    return molfile.to_extxyz(
        molecules.atomic_numbers[atoms],
        molecules.positions[atoms],
        {
            "name": str(molecules.names[index]).replace('"', "'"),
            **values,
            # A text with a space is quoted, which the reader looks for.
            **({FIELD: f"{stated} "} if stated else {}),
        },
    )


def _write_npz(
    given: Input,
    output: Path,
    lines: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
) -> None:
    """Writes all arrays that an archive had, or those of the molecules, and columns."""
    molecules, split, *_ = given.records
    columns = columns_of(lines, list(units), len(molecules.num_atoms))
    if given.path.suffix.lower() == ".npz":
        arrays = read_arrays(given.path, WHAT)
        text = arrays.get(FIELD)
        old = parse_units(str(text)) if text is not None and text.shape == () else {}
        arrays = {**arrays, **columns, FIELD: np.array(format_units({**old, **units}))}
        with cli.atomic_path(output) as path, path.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return
    made = molecules._replace(properties=columns, units=dict(units))
    data.write_npz(made, output, split=split)
