"""How far rollouts of peptides are to be trusted: fits a calibration, and judges it.

Run: `python -m benchmarks.confidence --measured benchmarks/results/peptides.json
--checkpoint=peptides`, on what `python -m benchmarks.peptides` has measured with the
same weights. Writes `calibration.json` beside the weights, from where `equijump sample`
reads it, and `docs/figures/confidence.png`: the error of each peptide against the
estimate of a calibration that left it out, with its interval.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import report
from common.commands import cli
from common.commands.reading import read_json, refusing
from common.errors import UsageError
from common.runs.weights import locate
from equijump import builder, confidence
from equijump.confidence import Estimate, Measured
from equijump.weights import PRETRAINED, Weights, load_weights

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/confidence.png"
_LABELS = {
    "js": "JS of phi and psi, nats",
    "time_factor": "factor of the slowest time-scales",
}


def measured_of(line: Mapping[str, Any], weights: Weights) -> Measured | None:
    """Returns features and errors of a peptide as `benchmarks.peptides` writes them.

    Args:
        line: figures of one peptide.
        weights: weights that made its rollout.

    Returns:
        None where all replicas of it were lost.
    """
    if "js" not in line:
        return None
    sequence = "-".join(("ACE", *builder.parse(line["name"]), "NME"))
    features = confidence.features_of(line["passed"], sequence, weights.transferable)
    errors = {"js": float(line["js"])}
    offs = [
        abs(math.log(one["slowest"] / one["reference_slowest"]))
        for one in line["residues"].values()
        if one.get("slowest") and one.get("reference_slowest")
    ]
    if offs:
        errors["time"] = float(np.median(offs))
    return Measured(features, errors)


def read(paths: Sequence[Path], weights: Weights) -> tuple[dict[str, Measured], float]:
    """Returns the peptides of files of `benchmarks.peptides`, by sequence, and the lag.

    Raises:
        UsageError: A file is damaged, or they differ in the lag, or are without gate.
    """
    found, lags = {}, set()
    for path in paths:
        what = "figures of benchmarks.peptides"
        record = read_json(path, what)
        with refusing(path, what):
            flags = record["flags"]
            lags.add(float(flags["lag"]))
            if flags["gate"] != "True":
                raise ValueError("rollouts without the gate")
            for line in record["peptides"]:
                one = measured_of(line, weights)
                if one is not None:
                    found[str(line["name"])] = one
    if len(lags) != 1:
        raise UsageError(f"--measured: expected rollouts of one lag, found {lags}")
    return found, lags.pop()


def judge(
    measured: Mapping[str, Measured], estimates: Sequence[Estimate | None]
) -> dict[str, Any]:
    """Returns how estimates of peptides that were left out compare with their errors.

    Of each error: the share of peptides inside the interval, the correlation of the
    logarithms, and the typical factor between estimate and error.
    """
    found = {}
    for error, name in {"js": "js", "time": "time_factor"}.items():
        rows = [
            (getattr(estimate, name), _shown(name, one.errors[error]))
            for one, estimate in zip(measured.values(), estimates, strict=True)
            if estimate is not None and error in one.errors and getattr(estimate, name)
        ]
        if len(rows) < 3:
            continue
        middles = np.array([np.log(interval[0]) for interval, _ in rows])
        errors = np.array([np.log(value) for _, value in rows])
        inside = [low <= value <= high for (_, low, high), value in rows]
        found[name] = {
            "peptides": len(rows),
            "inside": float(np.mean(inside)),
            "correlation": float(np.corrcoef(middles, errors)[0, 1]),
            "factor": float(np.exp(np.median(np.abs(middles - errors)))),
        }
    return found


def _shown(name: str, error: float) -> float:
    return math.exp(error) if name == "time_factor" else error


def plot(
    measured: Mapping[str, Measured],
    estimates: Sequence[Estimate | None],
    path: Path,
) -> None:
    """Draws errors against estimates, one point a peptide, colours by length."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    errors = {"js": "js", "time_factor": "time"}
    for axis, (name, label) in zip(axes, _LABELS.items(), strict=True):
        for (sequence, one), estimate in zip(measured.items(), estimates, strict=True):
            interval = None if estimate is None else getattr(estimate, name)
            if interval is None or errors[name] not in one.errors:
                continue
            middle, low, high = interval
            value = _shown(name, one.errors[errors[name]])
            colour = f"C{(len(sequence) - 2) % 10}"
            axis.plot([low, high], [value, value], color=colour, alpha=0.35)
            axis.plot(middle, value, "o", color=colour, markersize=4)
        ends = axis.get_xlim()
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel=f"estimate: {label}")
        axis.set_ylabel("measured")
    sizes = sorted({len(sequence) for sequence in measured})
    marks = [
        matplotlib.lines.Line2D([], [], color=f"C{(n - 2) % 10}", marker="o", ls="")
        for n in sizes
    ]
    axes[0].legend(marks, [f"{n} residues" for n in sizes], frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Fits, judges, and writes the calibration and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--measured", nargs="+", type=Path, required=True, help="of benchmarks.peptides"
    )
    add("--checkpoint", default="peptides", help="packaged weights, or their folder")
    add("--output", type=Path, help="calibration; beside the weights where not given")
    add("--figure", type=Path, default=FIGURE, help="plot to write")
    flags = parser.parse_args()
    weights = load_weights(flags.checkpoint)
    if weights.transferable is None:
        raise UsageError(f"{flags.checkpoint}: expected a network of several peptides")
    measured, lag = read(flags.measured, weights)
    calibration = confidence.fit(list(measured.values()), lag)
    estimates = confidence.leave_one_out(list(measured.values()))
    rows = [
        (name, *(f"{value:.3g}" for value in found.values()))
        for name, found in judge(measured, estimates).items()
    ]
    heads = ("", "peptides", "inside", "correlation", "typical factor")
    title = (
        f"estimates of peptides left out; {confidence.COVERAGE:.0%} should be inside"
    )
    report.show(title, heads, rows, left=("",))
    folder = locate(flags.checkpoint, PRETRAINED)
    output = flags.output or folder / confidence.FILE
    with cli.atomic_path(output) as path:
        record = confidence.write(calibration, weights.checksum)
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    plot(measured, estimates, flags.figure)
    slopes = [
        (name, *(f"{slope:+.2f}" for slope in line.slopes))
        for name, line in calibration.errors.items()
    ]
    title = "slopes of logarithms, a standard deviation of the feature"
    report.show(title, ("", *calibration.features), slopes, left=("",))
    Console().print(f"{output} and {flags.figure}")


if __name__ == "__main__":
    main()
