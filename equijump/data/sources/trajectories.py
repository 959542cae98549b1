"""Trajectories in files, and the packaged ones by their name."""

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import ml_collections

from common.errors import UsageError
from equijump.data import frames

PACKAGED = Path(__file__).parents[2] / "packaged"


def read(pattern: str, data: ml_collections.ConfigDict) -> Iterator[frames.Trajectory]:
    """Yields the trajectories of a packaged name or of a pattern of files.

    Args:
        pattern: as `ala2_300K` or `runs/*.xtc`.
        data: group `data` of a config: `topology` and `spacing` are read.
    """
    for path in find(pattern):
        topology = Path(data.topology) if data.topology else beside(path, ".pdb")
        (found,) = frames.read_trajectories([path], topology, data.spacing)
        yield found._replace(conditions=read_conditions(path))


def find(pattern: str) -> list[Path]:
    """Returns the files of a packaged name or of a pattern.

    >>> len(find("ala2_300K"))
    8

    Raises:
        UsageError: There are none.
    """
    is_name = Path(pattern).name == pattern
    packaged = sorted(PACKAGED.glob(f"{pattern}_*.xtc")) if is_name else []
    found = packaged or sorted(map(Path, glob.glob(pattern)))
    if not found:
        raise UsageError(
            f"config.data.trajectories: expected files, found none at {pattern}"
        )
    return found


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
    """Returns the numbers in `<name>.conditions.json` beside a trajectory, if any.

    Raises:
        UsageError: The file is no JSON object of numbers.
    """
    file = beside(path, ".conditions.json")
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
        return {name: float(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file}: expected a JSON object of numbers, found {error}"
        ) from error
