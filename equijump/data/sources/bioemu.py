"""Simulations that BioEmu was trained on: a folder for each system.

Lewis et al. 2025, doi:10.1126/science.adv9817. A folder has `topology.pdb`,
`trajs/*.xtc` and `dataset.json`, with temperature and time between frames. Clocks
restart inside a file: each stretch is a trajectory of its own, and the spacing is the
gap that is met most often. Some clocks are off by a factor of 1000: there the record is
right.
"""

import glob
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ml_collections

from common.commands.reading import read_json, refusing
from common.errors import UsageError
from equijump.data import divide, frames, store
from equijump.data.sources import packing
from equijump.data.times import stretches

RECORD, TOPOLOGY = "dataset.json", "topology.pdb"
PS_PER_NS = 1000.0

_OFF = (PS_PER_NS, 1.0 / PS_PER_NS)
"""Factors by which clocks are off."""


def read(argument: str, data: ml_collections.ConfigDict) -> Iterator[frames.Trajectory]:
    """Yields the trajectories of all systems.

    Args:
        argument: folder of a system, or above such folders, or a pattern of folders.
        data: group `data` of a config: `select` is read.
    """
    jobs = (
        job for folder in find(argument) for job in _jobs(folder, data.select)
    )  # fmt: skip
    yield from packing.trajectories("bioemu", jobs)


def find(argument: str) -> list[Path]:
    """Returns the folders of systems.

    Raises:
        UsageError: There is none.
    """
    roots = [argument] if Path(argument).is_dir() else sorted(glob.glob(argument))
    found = [p.parent for root in roots for p in sorted(Path(root).rglob(RECORD))]
    if not found:
        raise UsageError(
            f"{packing.FLAG}: expected folders of BioEmu, each with {RECORD}, "
            f"{TOPOLOGY} and trajs/*.xtc, found none at {argument}"
        )
    return found


def _jobs(folder: Path, select: str) -> Iterator[packing.Job]:
    record, topology = folder / RECORD, folder / TOPOLOGY
    values = read_json(record, "a record of BioEmu")
    with refusing(record, "a record of BioEmu", "correct it, or get it again"):
        known = {"temperature": float(values["temperature_K"])}
        expected = PS_PER_NS * float(values.get("save_traj_ns") or 0.0)
    paths = sorted((folder / "trajs").glob("*.xtc"))
    if not topology.is_file() or not paths:
        lacking = "trajs/*.xtc" if topology.is_file() else TOPOLOGY
        raise UsageError(f"{folder}: expected {lacking} beside {RECORD}, found none")
    for path in paths:
        request = frames.Request(
            path, topology, 0.0, True, False, select, frames.FLAG, divides=True
        )
        name = f"{folder.name}_{path.stem}"
        pack = partial(_pack, request, name, known, expected)
        yield packing.Job(path, (topology, record), f"{name} {select}", pack)


def _pack(
    request: frames.Request,
    name: str,
    known: dict[str, float],
    expected: float,
    writer: store.Writer,
) -> None:
    system, times, intact = frames.write_frames(request, writer)
    usual, found = stretches(times)
    spacing = _checked(usual, expected, writer)
    whole = [(start, stop) for start, stop in found if stop - start > 1]
    writer.skipped["files without a second frame at a later time"] += not found
    writer.skipped["single frames between two restarts of the clock"] += len(
        found
    ) - len(whole)
    whole = divide.divided(writer, whole, intact)
    writer.end(system, divide.pieces(name, spacing, whole, known))


def _checked(usual: float, expected: float, writer: store.Writer) -> float:
    """Returns the spacing in ps; that of the record where a clock is off by 1000."""
    near = lambda a, b: b > 0.0 and math.isclose(a, b, rel_tol=0.01)
    if any(near(usual, factor * expected) for factor in _OFF):
        writer.notes.append(
            f"clock of {usual:g} ps a frame, taken as the {expected:g} ps of {RECORD}"
        )
        return expected
    if expected and usual and not near(usual, expected):
        writer.notes.append(
            f"clock of {usual:g} ps a frame, which is taken, though {RECORD} says "
            f"{expected:g} ps"
        )
    return usual
