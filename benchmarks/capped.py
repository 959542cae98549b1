"""EquiJump on all capped amino acids by one network: each beside its reference.

Run: `python -m benchmarks.capped --checkpoint=workdir/capped \
--reference 'md/capped/*.xtc'`, one trajectory of each amino acid with its PDB beside
it. The Ramachandran divergence (30 x 30 bins, nats; glycine and proline alike) stands
beside its floor, the mean over random halves of the reference, cut into ten blocks.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import ala2, timing
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import to_topology
from equijump.evaluate import inputs, measure
from equijump.weights import Weights, load_weights


class Line(NamedTuple):
    """One amino acid: divergences in nats, times in ps, lengths in Å.

    Attributes:
        name: Of its file.
        lost: Replicas that broke.
        js: Of phi and psi, with an interval.
        floor: See the module's head.
        torsions_js: The largest divergence of a torsion of the side chain.
        torsions_floor: Of the same torsion.
        time_scale: The slowest, with an interval.
        reference_time_scale: The same of the reference.
        bond_rms: Of bonds about their means in the reference.
        reference_bond_rms: The same of the reference.
        flips_per_ns: Of chirality.
        cpu_seconds_per_ns: Of the rollout.
        passed: Share of draws that the gate let pass, where it is asked for.
    """

    name: str
    lost: int
    js: dict[str, float]
    floor: float
    torsions_js: float | None
    torsions_floor: float | None
    time_scale: dict[str, float]
    reference_time_scale: dict[str, float]
    bond_rms: float
    reference_bond_rms: float
    flips_per_ns: float
    cpu_seconds_per_ns: float
    passed: float | None


def measure_one(weights: Weights, path: Path, asked: argparse.Namespace) -> Line:
    """Rolls out one amino acid from frames of its reference, and judges it."""
    reference = inputs.read("--reference", [path], None, 0.0, finite=True)
    frames = reference.positions[0]
    starts = frames[np.linspace(0, len(frames) - 1, asked.replicas).astype(int)]
    topology = to_topology(reference.system)
    first_frames = mdtraj.Trajectory(starts / ANGSTROM_PER_NM, topology)
    contestant = ala2.network(
        weights, asked.num_steps, first_frames, asked.lag, gate=asked.gate
    )
    settings = measure.Settings(lag=asked.lag)
    result, report = ala2.judge(
        contestant, reference, asked.num_jumps, settings, asked.lag
    )
    if report is None:
        raise SystemExit(f"{path}: every replica was lost")
    found, of_reference = (
        ala2.figures_of(report, side) for side in ("trajectory", "reference")
    )
    torsions = [
        (entry["js"], entry["floor"])
        for name, entry in report["distributions"].items()
        if entry["kind"] == "torsion" and "chi" in name
    ]
    worst = max(torsions, default=(None, None))
    return Line(
        name=path.stem,
        lost=result.lost,
        js=found["ramachandran_js"],
        floor=found["floor"],
        torsions_js=worst[0],
        torsions_floor=worst[1],
        time_scale=found["slowest_time_scale"],
        reference_time_scale=of_reference["slowest_time_scale"],
        bond_rms=found["bond_rms"],
        reference_bond_rms=of_reference["bond_rms"],
        flips_per_ns=found["flips_per_ns"],
        cpu_seconds_per_ns=result.cpu_seconds_per_ns,
        passed=result.passed,
    )


def make_table(lines: list[Line], title: str) -> Table:
    """Lists amino acids, one a row."""
    table = Table(title=title)
    table.add_column("amino acid")
    for head in (
        "Ramachandran JS", "floor", "ratio", "worst chi JS\n(floor)", "slowest, ps",
        "of reference", "bond RMS, Å\n(reference)", "flips\nper ns", "lost",
        "CPU s\nper ns", "passed\nthe gate",
    ):  # fmt: skip
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        number = ala2.number
        table.add_row(
            line.name,
            ala2.estimate(line.js, 4),
            number(line.floor, 4),
            number(line.js["value"] / line.floor, 1),
            f"{number(line.torsions_js, 4)} ({number(line.torsions_floor, 4)})",
            ala2.estimate(line.time_scale, 0),
            ala2.estimate(line.reference_time_scale, 0),
            f"{line.bond_rms:.4f} ({line.reference_bond_rms:.4f})",
            number(line.flips_per_ns, 3),
            str(line.lost),
            number(line.cpu_seconds_per_ns, 3),
            number(line.passed, 4),
        )
    return table


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="a run, or packaged weights")
    add("--reference", nargs="+", required=True, help="files or patterns of MD")
    add("--lag", type=float, default=10.0, help="ps, of a jump")
    add("--num_steps", type=int, help="evaluations of the network in a jump")
    add("--gate", action="store_true", help="draw broken jumps again")
    add("--num_jumps", type=int, default=500, help="of each replica")
    add("--replicas", type=int, default=100, help="trajectories side by side")
    default = Path(__file__).parent / "results" / "capped.json"
    add("--output", type=Path, default=default, help="JSON file")
    return parser.parse_args()


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    asked = parse()
    console = Console(width=180)
    weights = load_weights(asked.checkpoint)
    lines = []
    for path in inputs.find_files("--reference", asked.reference):
        console.print(path.stem)
        lines.append(measure_one(weights, path, asked))
        console.print(lines[-1], highlight=False)
    ratios = [line.js["value"] / line.floor for line in lines]
    summary: dict[str, Any] = {
        "median_js": float(np.median([line.js["value"] for line in lines])),
        "median_floor": float(np.median([line.floor for line in lines])),
        "median_ratio": float(np.median(ratios)),
    }
    title = f"{asked.replicas} replicas of {asked.num_jumps} jumps of {asked.lag:g} ps"
    console.print(make_table(lines, title))
    console.print(summary)
    written = {
        "machine": timing.machine(),
        "versions": measure.versions(),
        "checkpoint": asked.checkpoint,
        "replicas": asked.replicas,
        "num_jumps": asked.num_jumps,
        "lag": asked.lag,
        **summary,
        "lines": [line._asdict() for line in lines],
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
