"""EquiJump on all capped amino acids by one network: each beside its reference.

Run: `python -m benchmarks.capped --checkpoint=workdir/capped \
--reference 'md/capped/*.xtc'`, one trajectory of each amino acid with its PDB beside
it. The Ramachandran divergence (30 x 30 bins, nats; glycine and proline alike) stands
beside its floor, the mean over random halves of the reference, cut into ten blocks.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import trajectories
from equijump.evaluate import inputs, measure
from equijump.weights import Weights, load_weights

COLUMNS = (
    "ramachandran_js", "floor", "ratio", "torsions_js", "torsions_floor",
    "slowest_time_scale", "reference_slowest_time_scale", "bond_rms",
    "reference_bond_rms", "flips_per_ns", "lost", "cpu_seconds_per_ns", "passed",
)  # fmt: skip


def measure_one(
    weights: Weights, path: Path, flags: argparse.Namespace
) -> dict[str, Any]:
    """Rolls out one amino acid from frames of its reference, and judges it.

    Returns:
        Divergences in nats, times in ps, lengths in Å: those of
        `trajectories.figures_of`, the same of the reference, and the largest divergence
        of a torsion of the side chain with its floor.
    """
    reference = inputs.read("--reference", [path], None, 0.0, finite=True)
    _, starts = trajectories.spread(
        reference.positions[0], flags.replicas, reference.system
    )
    contestant = trajectories.network(
        weights, flags.num_steps, starts, flags.lag, gate=flags.gate
    )
    settings = measure.Settings(lag=flags.lag)
    result, found = trajectories.judge_or_stop(
        contestant, reference, flags.num_jumps, settings, flags.lag
    )
    torsions = [
        (entry["js"], entry["floor"])
        for name, entry in found["distributions"].items()
        if entry["kind"] == "torsion" and "chi" in name
    ]
    worst, floor = max(torsions, default=(None, None))
    line = trajectories.line_of(path.stem, result, found)
    ratio = line["ramachandran_js"]["value"] / line["floor"]
    return {**line, "ratio": ratio, "torsions_js": worst, "torsions_floor": floor}


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = trajectories.parser(__doc__, "capped")
    add = parser.add_argument
    add("--checkpoint", required=True, help="a run, or packaged weights")
    add("--reference", nargs="+", required=True, help="files or patterns of MD")
    add("--lag", type=float, default=10.0, help="ps, of a jump")
    add("--num_steps", type=int, help="evaluations of the network in a jump")
    add("--num_jumps", type=int, default=500, help="of each replica")
    return parser.parse_args()


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    flags = parse()
    console = Console()
    weights = load_weights(flags.checkpoint)
    lines = []
    for path in inputs.find_files("--reference", flags.reference):
        console.print(path.stem)
        lines.append(measure_one(weights, path, flags))
    median = lambda values: float(np.median(list(values)))
    summary = {
        "median_js": median(line["ramachandran_js"]["value"] for line in lines),
        "median_floor": median(line["floor"] for line in lines),
        "median_ratio": median(line["ratio"] for line in lines),
    }
    title = f"{flags.replicas} replicas of {flags.num_jumps} jumps of {flags.lag:g} ps"
    trajectories.show(title, COLUMNS, lines, first="amino acid")
    console.print(summary)
    trajectories.write(flags, **summary, lines=lines)


if __name__ == "__main__":
    main()
