"""Sources of trajectories: one module and one row of `SOURCES` each.

An entry of `config.data.sources` begins with the name of a row: `name`, or
`name:argument` where the source takes one. Any other entry is a packaged name or a
pattern of files, which `trajectories` reads. To add a data set, write a module with
`read(argument, data)` that yields `equijump.data.frames.Trajectory`, and add its row.
What holds for all frames of a trajectory, as the temperature, is in its `conditions`.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping

import ml_collections
from absl import logging

from common.errors import UsageError
from common.nn.conditions import CONDITIONS, ROOM_TEMPERATURE
from equijump.data.frames import Trajectory
from equijump.data.sources import (
    atlas,
    bioemu,
    mdcath,
    mdgen,
    ornstein_uhlenbeck,
    peptides,
    timewarp,
    trajectories,
)

SOURCES: dict[str, Callable[[str, ml_collections.ConfigDict], Iterable[Trajectory]]] = {
    "files": trajectories.read,
    "atlas": atlas.read,
    "bioemu": bioemu.read,
    "mdcath": mdcath.read,
    "mdgen": mdgen.read,
    "ou": ornstein_uhlenbeck.read,
    "peptides": peptides.read,
    "timewarp": timewarp.read,
}


def read(data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields the trajectories of a config, each with its conditions.

    The temperature is that of `data.temperatures`, where it has one for the entry; else
    what the source states; else room temperature, which is told.

    Args:
        data: group `data` of a config.

    Raises:
        UsageError: A trajectory cannot be read, or a condition is out of range, or the
            temperature of the config is not that beside the trajectory.
    """
    unknown = []
    for trajectory in read_stated(data):
        known = trajectory.conditions
        if "temperature" not in known:
            unknown.append(trajectory.name)
            known = {"temperature": ROOM_TEMPERATURE, **known}
        yield trajectory._replace(conditions=known)
    if unknown:
        logging.info(
            "temperature unknown, taken as %g K, of %d trajectories (%s, ...); give "
            "--config.data.temperatures",
            ROOM_TEMPERATURE, len(unknown), unknown[0],
        )  # fmt: skip


def read_stated(data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields what `read` does, without a temperature where none is stated."""
    for index, entry in enumerate(data.sources):
        name, _, argument = entry.partition(":")
        if name not in SOURCES:
            _check_name(name, argument)
            name, argument = "files", entry
        for trajectory in SOURCES[name](argument, data):
            found = dict(trajectory.conditions)
            if data.temperatures:
                place = index % len(data.temperatures)
                given = float(data.temperatures[place])
                _check_temperature(trajectory.name, given, found)
                found["temperature"] = given
            _check(trajectory.name, found)
            yield trajectory._replace(conditions=found)


def _check_name(name: str, argument: str) -> None:
    """Raises `UsageError` for what looks like a mistyped name of a source."""
    near = difflib.get_close_matches(name, SOURCES, n=1)
    if argument and near:
        raise UsageError(
            f"config.data.sources: expected a source of {', '.join(SOURCES)}, found "
            f"{name}; did you mean {near[0]}:{argument}?"
        )


def _check_temperature(name: str, given: float, stated: Mapping[str, float]) -> None:
    """Raises `UsageError` for another temperature than is written beside the data."""
    known = stated.get("temperature", given)
    if abs(known - given) > 1e-3:
        raise UsageError(
            f"{name}: expected the {known:g} K that are written beside it, found "
            f"{given:g} K in --config.data.temperatures; leave that empty, or correct "
            "one of them"
        )


def _check(name: str, conditions: Mapping[str, float]) -> None:
    """Raises `UsageError` for a condition that the table does not have so."""
    known = {key: row for key, row in CONDITIONS.items() if row.is_read}
    for key, value in conditions.items():
        if key not in known:
            raise UsageError(
                f"{name}: expected conditions among {', '.join(known)}, found {key}"
            )
        low, high, unit = known[key].low, known[key].high, known[key].unit
        if not low <= value <= high:
            raise UsageError(
                f"{name}: expected a {key} of {low:g} to {high:g} {unit}, found "
                f"{value:g}"
            )
