"""EquiJump at lags of a range by one network: its error against the lag.

Run: `python -m benchmarks.lags --checkpoint=workdir/ala2_lags`. At each lag replicas
are rolled out for as many jumps and judged by `equijump.evaluate`, with Markov models
at one lag for all. Then, from the same frames, the ends of two jumps of half a lag and
of one whole jump are compared in phi and psi: two-sample tests of Kolmogorov and
Smirnov, and the distance between the distribution functions that they are of, beside
that of two sets of single jumps.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import mdtraj
import numpy as np
import scipy.stats
from jaxtyping import Float
from rich.console import Console

from benchmarks import ala2, trajectories
from equijump.evaluate import geometry, inputs, measure
from equijump.weights import Weights, load_weights

COLUMNS = (
    "ramachandran_js", "floor", "slowest_time_scale", "reference_slowest_time_scale",
    "alphaR", "bond_rms", "lost",
)  # fmt: skip


class Comparison(NamedTuple):
    """Two jumps of half the lag against one jump.

    Attributes:
        lag: lag of the one jump, ps.
        distances: distances between distribution functions, of phi and of psi; of
            angles in radians from the middle of their least visited gap.
        p_values: p values of the two-sample tests.
        floors: distances between two sets of single jumps.
    """

    lag: float
    distances: tuple[float, ...]
    p_values: tuple[float, ...]
    floors: tuple[float, ...]


def starts_of(reference: inputs.Replicas, count: int) -> mdtraj.Trajectory:
    """Returns frames spaced evenly over the last two trajectories."""
    frames = np.concatenate(reference.positions[-ala2.HELD_OUT :])
    return trajectories.spread(frames, count, reference.system)[1]


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
        contestant = trajectories.network(weights, None, starts, one, seed)
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

    shown = (
        ("ramachandran_js", "Ramachandran JS, nats"),
        ("slowest_time_scale", "slowest time-scale, ps"),
        ("bond_rms", "bond RMS, Å"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    lags = [line["lag"] for line in lines]
    for axis, (name, label) in zip(axes, shown, strict=True):
        draw_curve(axis, lags, [line[name] for line in lines])
        if name == "ramachandran_js":
            floors = [line["floor"] for line in lines]
            axis.plot(lags, floors, "--", label="floor")
        else:
            draw_reference(axis, lines[0][f"reference_{name}"])
        axis.legend()
        axis.set(xscale="log", xlabel="lag, ps", ylabel=label)
        axis.set_ylim(bottom=0.0)
    figure.savefig(path, dpi=110)


def draw_curve(axis: Any, lags: list[float], values: list[Any]) -> None:
    """Plots numbers, or values with their intervals."""
    if not isinstance(values[0], dict):
        axis.plot(lags, values, "o-")
        return
    middle, low, high = (
        np.array([value[key] for value in values]) for key in ("value", "low", "high")
    )
    axis.errorbar(lags, middle, (middle - low, high - middle), fmt="o-")


def draw_reference(axis: Any, value: float | dict[str, float]) -> None:
    """Draws a line, with a band where there is an interval."""
    if isinstance(value, dict):
        axis.axhspan(value["low"], value["high"], alpha=0.2)
        value = value["value"]
    axis.axhline(value, linestyle="--", label="reference")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = trajectories.parser(__doc__, "lags")
    trajectories.add_reference(parser)
    add = parser.add_argument
    add("--checkpoint", required=True, help="a run, or packaged weights")
    add("--lags", nargs="+", type=float, default=[2.0, 5.0, 10.0, 20.0, 50.0, 100.0])
    add("--compared", nargs="+", type=float, default=[20.0, 100.0], help="lags, ps")
    add("--model_lag", type=float, default=100.0, help="ps, of Markov models")
    add("--length", type=float, default=4_000.0, help="ps of each replica")
    add("--num_starts", type=int, default=4_000, help="frames for two-sample tests")
    return parser.parse_args()


def measure_one(
    weights: Weights,
    reference: inputs.Replicas,
    starts: mdtraj.Trajectory,
    lag: float,
    flags: argparse.Namespace,
) -> dict[str, Any]:
    """Rolls out at one lag, and returns the figures."""
    contestant = trajectories.network(weights, None, starts, lag, gate=flags.gate)
    settings = measure.Settings(lag=flags.model_lag)
    result, found = trajectories.judge_or_stop(
        contestant, reference, round(flags.length / lag), settings, lag
    )
    return {**trajectories.line_of(f"{lag:g} ps", result, found), "lag": lag}


def main() -> None:
    """Measures, prints tables and writes the figures with the machine."""
    flags = parse()
    console = Console()
    weights = load_weights(flags.checkpoint)
    found = inputs.find_files("--reference", flags.reference)
    reference = inputs.read("--reference", found, None, 0.0, finite=True)
    starts = starts_of(reference, flags.replicas)
    lines = []
    for lag in flags.lags:
        console.print(f"{lag:g} ps")
        lines.append(measure_one(weights, reference, starts, lag, flags))
    title = f"{flags.replicas} replicas of {flags.length:g} ps"
    trajectories.show(title, COLUMNS, lines, first="lag")
    starts = starts_of(reference, flags.num_starts)
    compared = [compare(weights, lag, starts, reference) for lag in flags.compared]
    for comparison in compared:
        console.print(comparison)
    comparisons = [comparison._asdict() for comparison in compared]
    trajectories.write(flags, lines=lines, comparisons=comparisons)
    draw_curves(lines, flags.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
