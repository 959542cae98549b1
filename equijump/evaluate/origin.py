"""What made trajectories: the record of `equijump sample` beside them, in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands.reading import DAMAGE, parse_json
from equijump import confidence

RECORD = "sample.json"


def read(paths: Sequence[Path]) -> dict[str, Any] | None:
    """Returns the record of the rollout that all trajectories are of.

    None where there is none beside them, or where it is not of them.

    Args:
        paths: trajectories.
    """
    folders = {path.parent for path in paths}
    if len(folders) != 1:
        return None
    try:
        record = parse_json((folders.pop() / RECORD).read_bytes())
        system = str(record["settings"]["system"])
        lines_of(record)  # Whatever is not as it should be is told by its error.
    except DAMAGE:
        return None
    made = all(path.stem.rpartition("_")[0] == system for path in paths)
    return record if made else None


def lines_of(record: Mapping[str, Any] | None) -> list[str]:
    """Returns in words which network made a rollout, and how far to trust it.

    >>> lines_of({"checkpoint": "mine", "settings": {"lag": 10.0}, "dynamics": None})
    ['rollout by mine, jumps of 10 ps']

    Args:
        record: what `sample.json` has; None of other trajectories.
    """
    if record is None:
        return []
    lag = record["settings"]["lag"]
    jumps = "frames drawn one by one" if lag is None else f"jumps of {lag:g} ps"
    lines = [f"rollout by {record['checkpoint']}, {jumps}"]
    if record.get("dynamics"):
        lines.append(f"times and weights are those of {record['dynamics']}")
    if record.get("outside_training"):
        lines.append(f"outside the training: {'; '.join(record['outside_training'])}")
    result = record.get("result") or {}
    if record["settings"].get("max_redraws") is not None and result.get("num_draws"):
        share = result["num_accepted"] / result["num_draws"]
        lines.append(f"the gate let {share:.1%} of draws pass")
    if record.get("confidence"):
        lines.append(confidence.describe(confidence.of_json(record["confidence"])))
    return lines
