"""Trajectories in files, and the packaged ones by their name."""

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from common.commands.reading import DAMAGE, parse_json, read_json
from common.errors import UsageError
from equijump.data import files, frames
from equijump.replicas import stem_of

PACKAGED = Path(__file__).parents[2] / "packaged"

BINARY = (".xtc", ".trr", ".dcd", ".nc", ".netcdf", ".h5", ".lh5", ".hdf5")
"""Ends of the files of a folder that are read; others may be topologies."""


def read(pattern: str, data: ml_collections.ConfigDict) -> Iterator[frames.Trajectory]:
    """Yields the trajectories of a packaged name, of a pattern of files or of a folder.

    Args:
        pattern: as `ala2_300K`, `runs/*.xtc` or `runs`.
        data: group `data` of a config: `topology`, `spacing` and `select` are read.
    """
    listed = functools.cache(lambda folder: frozenset(os.listdir(folder)))
    for path in find(pattern):
        topology = Path(
            data.topology
            or files.find_topology("--config.data.topology", path, listed(path.parent))
        )
        (found,) = frames.read_trajectories(
            [path], topology, data.spacing, select=data.select
        )
        yield found._replace(conditions=read_conditions(path))


def find(pattern: str) -> list[Path]:
    """Returns the files of a packaged name, of a pattern, or below a folder.

    >>> len(find("ala2_300K"))
    8

    Raises:
        UsageError: There are none.
    """
    is_name = Path(pattern).name == pattern
    packaged = sorted(PACKAGED.glob(f"{pattern}_*.xtc")) if is_name else []
    return packaged or files.found("config.data.sources", pattern, BINARY)


def beside(path: Path, suffix: str) -> Path:
    """Returns the file of a trajectory with another suffix, or that of its replicas.

    >>> beside(Path("run_3.xtc"), ".pdb")
    PosixPath('run.pdb')
    """
    stem, _, number = path.stem.rpartition("_")
    own = path.with_name(f"{path.stem}{suffix}")
    shared = path.with_name(f"{stem}{suffix}")
    return shared if number.isdigit() and not own.is_file() else own


def read_conditions(path: Path) -> dict[str, float]:
    """Returns the numbers that are written beside a trajectory, if any.

    They are those in `<name>.conditions.json`, and the temperature in the record of the
    command that made the trajectory.

    Raises:
        UsageError: A file is no JSON object of numbers, or two of them disagree.
    """
    file = beside(path, ".conditions.json")
    found: dict[str, float] = {}
    if file.is_file():
        record = read_json(file, "a JSON object of numbers")
        try:
            found = {name: float(value) for name, value in record.items()}
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{file}: expected a JSON object of numbers, found {error}"
            ) from error
    made = _made_at(path)
    for name, value in made.items():
        if name in found and found[name] != value:
            raise UsageError(
                f"{file}: expected the {name} of simulate.json or sample.json beside "
                f"it, {value:g}, found {found[name]:g}; correct or remove one of them"
            )
    return {**made, **found}


def _made_at(path: Path) -> dict[str, float]:
    """Returns the temperature in `simulate.json` or `sample.json`, if it made a file.

    Other records, and damaged ones, say nothing.
    """
    for name, group in (("simulate.json", "flags"), ("sample.json", "settings")):
        try:
            record = parse_json(path.with_name(name).read_bytes())
            values = record[group]
            kelvin = record.get("temperature_kelvin", values["temperature"])
            temperature, stem = float(kelvin), _stem(values)
        except DAMAGE:
            continue
        number = path.stem.removeprefix(f"{stem}_")
        if number.isdigit():
            return {"temperature": temperature}
    return {}


def _stem(values: Mapping[str, Any]) -> str:
    """Returns the stem of the files that a command wrote, by its record."""
    if "system" in values:
        return values["system"]
    return stem_of(values["sequence"], values["pdb"], values["caps"])
