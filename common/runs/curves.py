"""Curves of a run, `curves.png` in its folder: losses, their terms, and speed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from common.commands import cli
from common.errors import UsageError
from common.runs import metrics

FILE_NAME = "curves.png"
VALIDATION = "validation_"
SOFTWARE = "symphony-equijump"
"""What a picture of ours says of itself."""
COLUMNS = 3
_CLOCKS = "step", "cpu_seconds", "wall_seconds"

Curve = tuple[list[int], list[float]]


def draw(workdir: Path, loss_name: str, unit: str) -> None:
    """Draws the curves of a run; tells where that cannot be done, and goes on.

    Matplotlib is imported here, so that a run that does not validate starts without it.

    Args:
        workdir: folder of the run.
        loss_name: name of the loss that is minimised; its panel is the first.
        unit: unit of that loss.
    """
    try:
        from matplotlib.figure import Figure

        panels = panels_of(metrics.read_metrics(workdir), loss_name)
        rows = -(-len(panels) // COLUMNS)
        figure = Figure((4 * COLUMNS, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for place, (name, curves) in zip(axes, panels.items(), strict=False):
            for label, (steps, values) in curves.items():
                few = "." if len(steps) < 30 else ""
                place.plot(steps, values, label=label, marker=few, linewidth=1.2)
            place.set_title(f"{name}, {unit}" if name == loss_name else name)
            place.set_xlabel("step")
            if len(curves) > 1:
                place.legend()
        for place in axes[len(panels) :]:
            place.set_axis_off()
        _write(figure, workdir / FILE_NAME)
    except (ImportError, OSError, ValueError, RuntimeError, UsageError) as error:
        logging.warning("%s is not drawn: %s", workdir / FILE_NAME, error)


def _write(figure: Any, path: Path) -> None:
    """Writes a picture, unless there is one that no run drew."""
    if path.is_file() and SOFTWARE.encode() not in path.read_bytes()[:1000]:
        raise UsageError("there is a picture that no run drew; move it away")
    with cli.atomic_path(path) as partial_path:
        figure.savefig(
            partial_path, format="png", dpi=100, metadata={"Software": SOFTWARE}
        )


def panels_of(
    records: Sequence[Mapping[str, Any]], loss_name: str
) -> dict[str, dict[str, Curve]]:
    """Returns the curves of each panel, of training and of validation, by name.

    Numbers that were not finite are left out.

    >>> records = [{"step": 1, "cpu_seconds": 1.0, "nll": 3.0}]
    >>> records.append({"step": 3, "cpu_seconds": 2.0, "nll": 2.0, "validation_nll": 4})
    >>> for name, curves in panels_of(records, "nll").items():
    ...     print(name, curves)
    nll {'training': ([1, 3], [3.0, 2.0]), 'validation': ([3], [4.0])}
    steps per CPU-second {'': ([3], [2.0])}
    """
    names: dict[str, None] = {loss_name: None}
    for record in records:
        found = (name.removeprefix(VALIDATION) for name in record)
        names |= dict.fromkeys(name for name in found if name not in _CLOCKS)
    panels = {}
    for name in names:
        both = {"training": name, "validation": VALIDATION + name}
        curves = {label: _curve(records, key) for label, key in both.items()}
        panels[name] = {label: curve for label, curve in curves.items() if curve[0]}
    panels["steps per CPU-second"] = {"": _speed(records, loss_name)}
    return {name: curves for name, curves in panels.items() if curves}


def _curve(records: Sequence[Mapping[str, Any]], name: str) -> Curve:
    known = [(r["step"], r[name]) for r in records if _is_number(r.get(name))]
    return [step for step, _ in known], [float(value) for _, value in known]


def _speed(records: Sequence[Mapping[str, Any]], loss_name: str) -> Curve:
    """Returns the speed between two records of training; validation lies in between."""
    timed = [r for r in records if loss_name in r and _is_number(r.get("cpu_seconds"))]
    steps, speeds = [], []
    for before, after in itertools.pairwise(timed):
        passed = after["cpu_seconds"] - before["cpu_seconds"]
        if passed > 0:
            steps.append(after["step"])
            speeds.append((after["step"] - before["step"]) / passed)
    return steps, speeds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
