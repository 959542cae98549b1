"""The dynamics that a network has learnt, in words: force field, solvent, friction."""

import glob
from pathlib import Path
from typing import Any

import ml_collections

from common.commands import reading
from common.errors import UsageError

_SOLVENTS = {"obc2": "OBC2", "gbn2": "GBn2", "none": "no solvent"}


def of_config(config: ml_collections.ConfigDict) -> str:
    """Returns the dynamics that the files beside a run's trajectories agree on.

    Those are the `simulate.json` of `equijump simulate`. Empty where there is none, or
    where they differ.
    """
    folders = {
        Path(path).parent
        for source in config.data.sources
        for path in glob.glob(str(source), recursive=True)
    }
    told = {_of_folder(folder) for folder in folders}
    return told.pop() if len(told) == 1 else ""


def _of_folder(folder: Path) -> str:
    try:
        record = reading.read_json(folder / "simulate.json", "a simulation")
        return of_flags(record["flags"])
    except (UsageError, LookupError, TypeError):
        return ""


def of_flags(flags: dict[str, Any]) -> str:
    """Returns the dynamics of a simulation's flags.

    >>> of_flags({"force_field": "ff14SB", "solvent": "obc2", "temperature": 300.0,
    ...              "friction": 1.0})
    'ff14SB, OBC2, 300 K, friction 1/ps, not water'
    """
    solvent = str(flags["solvent"])
    return (
        f"{flags['force_field']}, {_SOLVENTS.get(solvent, solvent)}, "
        f"{float(flags['temperature']):g} K, friction "
        f"{float(flags['friction']):g}/ps, not water"
    )
