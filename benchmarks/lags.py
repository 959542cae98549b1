"""EquiJump at lags of a range by one network: its error against the lag.

Run: `python -m benchmarks.lags --checkpoint=workdir/ala2_lags`. At each lag replicas
are rolled out for as many jumps and judged by `equijump.evaluate`, with Markov models
at one lag for all. Then, from the same frames, the ends of two jumps of half a lag and
of one whole jump are compared in phi and psi: two-sample tests of Kolmogorov and
Smirnov, and the distance between the distribution functions that they are of, beside
that of two sets of single jumps.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import mdtraj
import numpy as np
import scipy.stats
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from benchmarks import ala2, timing
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import to_topology
from equijump.evaluate import geometry, inputs, measure
from equijump.weights import Weights, load_weights


class Comparison(NamedTuple):
    """Two jumps of half the lag against one jump.

    Attributes:
        lag: ps, of the one jump.
        distances: Between distribution functions, of phi and of psi; of angles in
            radians from the middle of their least visited gap.
        p_values: Of the two-sample tests.
        floors: Distances between two sets of single jumps.
    """

    lag: float
    distances: tuple[float, ...]
    p_values: tuple[float, ...]
    floors: tuple[float, ...]


def spread(reference: inputs.Replicas, count: int) -> mdtraj.Trajectory:
    """Returns frames spaced evenly over the last two trajectories."""
    frames = np.concatenate(reference.positions[-ala2.HELD_OUT :])
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    return mdtraj.Trajectory(chosen / ANGSTROM_PER_NM, to_topology(reference.system))


def backbone(
    frames: Float[np.ndarray, "num_frames num_atoms 3"], reference: inputs.Replicas
) -> Float[np.ndarray, "num_frames 2"]:
    """Returns phi and psi in radians, each cut open where it is seldom."""
    torsions = geometry.find_torsions(reference.system)
    ((phi, psi),) = geometry.pairs_of_phi_and_psi(torsions).values()
    angles = geometry.torsions_of(frames, torsions.atoms)[:, [phi, psi]]
    opened = np.array([np.pi / 3, -2.5])  # Seldom visited at 300 K.
    return (angles - opened) % (2 * np.pi)


def compare(
    weights: Weights, lag: float, starts: mdtraj.Trajectory, reference: inputs.Replicas
) -> Comparison:
    """Jumps twice by half a lag, and once by the lag, from the same frames."""
    ends = []
    for seed, one, count in ((1, lag / 2, 2), (2, lag, 1), (3, lag, 1)):
        contestant = ala2.network(weights, None, starts, one, seed)
        ends.append(backbone(contestant.run(count).frames[-1], reference))
    twice, once, again = (x.T for x in ends)
    pairs = zip(twice, once, again, strict=True)
    tests = [
        (scipy.stats.ks_2samp(a, b), scipy.stats.ks_2samp(b, c)) for a, b, c in pairs
    ]
    return Comparison(
        lag=lag,
        distances=tuple(float(test.statistic) for test, _ in tests),
        p_values=tuple(float(test.pvalue) for test, _ in tests),
        floors=tuple(float(floor.statistic) for _, floor in tests),
    )


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Plots divergence, time-scale and bonds against the lag."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lags = [line["lag"] for line in lines]
    shown = (
        ("ramachandran_js", "Ramachandran JS, nats", "floor"),
        ("slowest_time_scale", "slowest time-scale, ps", None),
        ("bond_rms", "bond RMS, Å", None),
    )
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (name, label, floor) in zip(axes, shown, strict=True):
        values = [line[name] for line in lines]
        if isinstance(values[0], dict):
            middle, low, high = (
                np.array([value[key] for value in values])
                for key in ("value", "low", "high")
            )
            axis.errorbar(lags, middle, (middle - low, high - middle), fmt="o-")
        else:
            axis.plot(lags, values, "o-")
        if floor:
            axis.plot(lags, [line[floor] for line in lines], "--", label="floor")
            axis.legend()
        if name != "ramachandran_js":
            of_reference = lines[0][f"reference_{name}"]
            if isinstance(of_reference, dict):
                axis.axhspan(of_reference["low"], of_reference["high"], alpha=0.2)
                of_reference = of_reference["value"]
            axis.axhline(of_reference, linestyle="--", label="reference")
            axis.legend()
        axis.set(xscale="log", xlabel="lag, ps", ylabel=label)
        axis.set_ylim(bottom=0.0)
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    packaged = str(inputs.PACKAGED / "ala2_300K_*.xtc")
    add("--checkpoint", required=True, help="a run, or packaged weights")
    add("--reference", nargs="+", default=[packaged], help="files or patterns of MD")
    add("--lags", nargs="+", type=float, default=[2.0, 5.0, 10.0, 20.0, 50.0, 100.0])
    add("--compared", nargs="+", type=float, default=[20.0, 100.0], help="lags, ps")
    add("--model_lag", type=float, default=100.0, help="ps, of Markov models")
    add("--gate", action="store_true", help="draw broken jumps again")
    add("--length", type=float, default=4_000.0, help="ps of each replica")
    add("--replicas", type=int, default=100, help="trajectories side by side")
    add("--num_starts", type=int, default=4_000, help="frames for two-sample tests")
    default = Path(__file__).parent / "results" / "lags.json"
    add("--output", type=Path, default=default, help="JSON file, and a plot beside it")
    return parser.parse_args()


def main() -> None:
    """Measures, prints tables and writes the figures with the machine."""
    asked = parse()
    console = Console(width=160)
    weights = load_weights(asked.checkpoint)
    found = inputs.find_files("--reference", asked.reference)
    reference = inputs.read("--reference", found, None, 0.0, finite=True)
    settings = measure.Settings(lag=asked.model_lag)
    lines, table = (
        [],
        Table(title=f"{asked.replicas} replicas of {asked.length:g} ps"),
    )
    for head in ("lag, ps", "JS", "floor", "slowest, ps", "alphaR", "bonds, Å", "lost"):
        table.add_column(head, justify="right", no_wrap=True)
    for lag in asked.lags:
        console.print(f"{lag:g} ps")
        contestant = ala2.network(
            weights, None, spread(reference, asked.replicas), lag, gate=asked.gate
        )
        num_jumps = round(asked.length / lag)
        result, report = ala2.judge(contestant, reference, num_jumps, settings, lag)
        if report is None:
            raise SystemExit(f"{lag:g} ps: every replica was lost")
        figures = ala2.figures_of(report, "trajectory")
        of_reference = ala2.figures_of(report, "reference")
        named = {f"reference_{name}": value for name, value in of_reference.items()}
        lines.append({"lag": lag, **result._asdict(), **figures, **named})
        table.add_row(
            f"{lag:g}",
            ala2.estimate(figures["ramachandran_js"], 4),
            ala2.number(figures["floor"], 4),
            ala2.estimate(figures["slowest_time_scale"], 0),
            ala2.estimate(figures["alphaR"], 3),
            ala2.number(figures["bond_rms"], 4),
            ala2.number(result.lost, 0),
        )
    console.print(table)
    scale = ala2.estimate(lines[0]["reference_slowest_time_scale"], 0)
    console.print(f"reference: slowest {scale} ps")
    starts = spread(reference, asked.num_starts)
    compared = [compare(weights, lag, starts, reference) for lag in asked.compared]
    for comparison in compared:
        console.print(comparison)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(lines, asked.output.with_suffix(".png"))
    written = {
        "machine": timing.machine(),
        "versions": measure.versions(),
        "checkpoint": asked.checkpoint,
        "model_lag": asked.model_lag,
        "replicas": asked.replicas,
        "length": asked.length,
        "lines": lines,
        "comparisons": [comparison._asdict() for comparison in compared],
    }
    asked.output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
