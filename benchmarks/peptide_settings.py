"""EquiJump on peptides at several lags, or with several numbers of evaluations.

Run: `python -m benchmarks.peptide_settings --checkpoint=peptides --reference=FOLDER
--lags 10 20 50 100 200 500`, or with `--num_steps 2 3 4 6 10 20`: one table, a row for
each pair of the two. Rollouts and figures are those of `benchmarks.peptides`, medians
over all peptides. Replicas are equally long, so at long lags there are fewer frames:
the reference is thinned to the lag, for a divergence and its floor alike. Markov models
have the lag of the jumps, or `--model_lag` where that is longer; a residue's time
counts where it is three lags or longer in the reference.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import peptide_figures as figures
from benchmarks import peptides, report, trajectories
from equijump.weights import load_weights

COLUMNS = {
    "lag": ("lag,\nps", 0),
    "num_steps": ("evalu-\nations", 0),
    "ratio": ("ratio", 2),
    "js": ("JS", 4),
    "floor": ("floor", 4),
    "energy_apart": ("alphaR off,\nkcal/mol", 2),
    "chi_within": ("chi\nwithin", 2),
    "times_inside": ("times\ninside", 2),
    "time_ratio": ("time\nratio", 2),
    "times": ("times", 0),
    "bonds": ("bonds", 4),
    "flips": ("flips", 0),
    "lost": ("lost", 0),
    "passed": ("passed", 3),
    "cpu_seconds_per_ns": ("CPU s\nper ns", 3),
}
"""Heading and digits of each figure."""

LAGS_OF_TIME = 3
"""Lags that a time-scale must last to count."""


def setting_of(
    flags: argparse.Namespace, lag: float, num_steps: int
) -> argparse.Namespace:
    """Returns the flags of `benchmarks.peptides` for a row of the table."""
    return argparse.Namespace(
        lag=lag,
        num_steps=num_steps,
        jumps=max(1, round(flags.length / lag)),
        model_lag=max(lag, flags.model_lag),
        replicas_per_lane=flags.replicas_per_lane,
        gate=flags.gate,
        seed=flags.seed,
        long=False,
        rollouts=flags.rollouts / f"{lag:g}_ps_{num_steps}_steps",
    )


def counted(line: Mapping[str, Any], lag: float) -> dict[str, Any]:
    """Returns the figures of a peptide, times of less than `LAGS_OF_TIME` apart."""

    def lasts(entry: Mapping[str, Any]) -> bool:
        slowest = entry["reference_slowest"]
        return slowest is not None and slowest >= LAGS_OF_TIME * lag

    found = {
        label: {**entry, "connects": bool(entry["connects"] and lasts(entry))}
        for label, entry in line["residues"].items()
    }
    return {**line, "residues": found}


def energies_apart(
    rolled: peptides.Rolled, reference: peptides.Reference
) -> list[float]:
    """Returns how far alphaR over beta of each residue is off, in kcal/mol.

    Residues in which either side lacks a state are left out.
    """
    whole, _ = figures.whole_of(
        list(rolled.frames), list(reference.lanes), reference.system
    )
    if not whole:
        return []
    states = figures.compare_long(
        whole, list(reference.lanes), reference.system, reference.spacing,
        reference.temperature,
    )  # fmt: skip
    key = "alphaR_over_beta"
    off = [
        abs(one["trajectory"][key] - one["reference"][key]) for one in states.values()
    ]
    return [value for value in off if np.isfinite(value)]


def row_of(lines: Sequence[Mapping[str, Any]], lag: float) -> dict[str, Any]:
    """Returns the figures of a row, medians and shares over peptides."""
    judged = [counted(line, lag) for line in lines if "js" in line]
    off = [value for line in lines for value in line["energies_apart"]]
    found = figures.summary_of(judged)
    found["lost"] = sum(len(line["lost"]) for line in lines)
    found["energy_apart"] = float(np.median(off)) if off else None
    return found


def measure(
    network: peptides.Network, paths: Sequence[Path], setting: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rolls out all peptides at one setting, and judges each."""
    lines = []
    for path in paths:
        reference = peptides.read(path)
        rolled = peptides.rolled_of(network, reference, setting)
        line = peptides.judge(rolled, reference, setting)
        lines.append({**line, "energies_apart": energies_apart(rolled, reference)})
    return lines


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = report.parser(__doc__, "peptide_settings")
    add = parser.add_argument
    add("--checkpoint", required=True, help="a run, or packaged weights")
    add("--lags", nargs="+", type=float, default=[10.0], help="ps, of a jump")
    add("--num_steps", nargs="+", type=int, help="evaluations; its config's by default")
    add("--length", type=float, default=3_000.0, help="ps of each replica")
    add("--peptides", type=int, help="of the reference, the first ones; all by default")
    return peptides.parse_rollouts(parser)


def main() -> None:
    """Measures setting by setting, prints the table, and writes the figures."""
    flags = parse()
    console = Console()
    weights = load_weights(flags.checkpoint)
    paths = peptides.find(flags.reference)[: flags.peptides]
    asked = {name: str(value) for name, value in vars(flags).items()}
    rows = []
    for num_steps in flags.num_steps or [weights.config.sample.num_steps]:
        network = peptides.network_of(weights, num_steps, paths)
        for lag in flags.lags:
            console.print(f"{lag:g} ps, {num_steps} evaluations")
            lines = measure(network, paths, setting_of(flags, lag, num_steps))
            setting = {"lag": lag, "num_steps": num_steps}
            rows.append({**setting, **row_of(lines, lag), "lines": lines})
            report.write(flags.output, flags=asked, rows=rows)
    heads = [heading for heading, _ in COLUMNS.values()]
    columns = COLUMNS.items()
    cells = [
        [trajectories.cell(row[name], digits) for name, (_, digits) in columns]
        for row in rows
    ]
    title = f"{len(paths)} peptides, {flags.length:g} ps of each replica"
    report.show(title, heads, cells, width=180)


if __name__ == "__main__":
    main()
