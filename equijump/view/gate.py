"""What `sample.json` beside a trajectory says of the gate and of broken geometry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.commands.reading import DAMAGE, read_json
from common.errors import UsageError
from equijump import trajfile


def read(path: Path) -> Mapping[str, Any] | None:
    """Returns `sample.json` beside a trajectory that its rollout wrote, else None."""
    try:
        header = read_json(path.with_name("sample.json"))
        written = trajfile.paths_of(path.parent, header)
        header["result"]["num_draws"] + header["result"]["num_accepted"]
    except (UsageError, *DAMAGE):
        return None
    return header if path.name in {one.name for one in written} else None


def broken_at(header: Mapping[str, Any] | None, path: Path) -> float | None:
    """Returns the time in ps at which a replica broke, by its own rollout."""
    if header is None:
        return None
    names = [one.name for one in trajfile.paths_of(path.parent, header)]
    time = header["result"].get("broken", {}).get(str(names.index(path.name)))
    return time if isinstance(time, int | float) else None


def describe(header: Mapping[str, Any]) -> str:
    """Returns in words what the gate did in a rollout.

    >>> header = {
    ...     "settings": {"max_redraws": None},
    ...     "result": {"num_draws": 9, "num_accepted": 9, "num_replicas": 2},
    ... }
    >>> describe(header)
    'no gate: 9 draws of 2 replicas'
    """
    result = header["result"]
    draws, passed = result["num_draws"], result["num_accepted"]
    most = header["settings"].get("max_redraws")
    if most is None:
        return f"no gate: {draws} draws of {result['num_replicas']} replicas"
    return (
        f"the gate refused {draws - passed} of {draws} draws (a jump is drawn again up "
        f"to {most} times, then the frame repeats)"
    )
