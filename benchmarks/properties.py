r"""How well molecules have the properties that they are asked for, by the same oracle.

    python -m benchmarks.properties --data=workdir/qm9_labelled.npz

Targets are the properties of one held-out molecule each, all together. What is drawn is
computed anew by `symphony.chemistry.oracles`; errors are those of molecules that are
valid (`xyz2mol_hueckel`). Beside them: targets in a shuffled order (naive), a predictor
from the composition alone, and the oracle itself after noise on the atoms (lower
bound). Each guidance is a row of `--output`; rows of earlier runs stay, so that
`--guidance=1.5` makes one anew. Of the last one, what was asked and what came is drawn.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingRegressor

import symphony
from benchmarks import report, timing
from common.commands import cli
from common.commands.report import Rows, print_tables
from common.errors import UsageError
from symphony import data, labelling
from symphony.chemistry import bonds, pool
from symphony.chemistry.oracles import GROUPS
from symphony.columns import Column
from symphony.sampler import Sampler

FIGURE = Path(__file__).resolve().parents[1] / "docs/figures/properties.png"
NOISE = 0.02  # Å
PRESET = "xyz2mol_hueckel"
FREE = "none"
"""Row without a condition."""

NAIVE, COMPOSITION = "naive (shuffled)", "composition alone"
Molecule = tuple[np.ndarray, np.ndarray]


class Drawn(NamedTuple):
    """Molecules of one guidance, as many as targets.

    Attributes:
        values: properties (columns) of each molecule; NaN where not valid.
        valid: true for valid molecules.
        finished: true for those that stopped.
        smiles: SMILES of the valid ones.
        seconds: CPU-seconds of a draw, without compilation and judgement.
    """

    values: np.ndarray
    valid: np.ndarray
    finished: np.ndarray
    smiles: list[str]
    seconds: float


def read(path: str, sampler: Sampler, split: str) -> data.Molecules:
    """Returns the molecules of a split that have all properties of the weights."""
    config, names = sampler.weights.config, _names(sampler)
    species = tuple(config.data.species)
    molecules, _ = data.read_molecules(
        path, species, config.data.max_atoms, split=split, columns=names
    )
    table = _table(molecules, names)
    return data.select(molecules, np.isfinite(table).all(axis=1))


def _names(sampler: Sampler) -> list[str]:
    return [one.name for one in sampler.weights.columns]


def _table(molecules: data.Molecules, names: Sequence[str]) -> np.ndarray:
    return np.stack([molecules.properties[name] for name in names], axis=1)


def _atoms(molecules: data.Molecules) -> list[Molecule]:
    ends = molecules.offsets[1:-1]
    parts = (
        np.split(molecules.atomic_numbers, ends),
        np.split(molecules.positions, ends),
    )
    return list(zip(*parts, strict=True))


def compute(
    molecules: Sequence[Molecule], names: Sequence[str], num_workers: int
) -> np.ndarray:
    """Returns the properties of molecules by the oracle, NaN where it has none."""
    groups = [group for group, row in GROUPS.items() if {*row.units} & {*names}]
    tasks = [
        {
            "groups": groups,
            "time_limit": labelling.SECONDS,
            "atomic_numbers": np.asarray(numbers).tolist(),
            "positions": np.asarray(positions, np.float64).tolist(),
        }
        for numbers, positions in molecules
    ]
    limit = labelling.CLOCK_FACTOR * labelling.SECONDS
    answers = pool.map_tasks(labelling.WORKER, tasks, num_workers, limit)
    found = [{} if isinstance(one, str) else one["values"] for one in answers]
    return np.array([[one.get(name, np.nan) for name in names] for one in found])


def draw(
    sampler: Sampler, targets: np.ndarray, guidance: str, flags: argparse.Namespace
) -> Drawn:
    """Returns what comes of targets at a guidance; without a condition where `FREE`."""
    names = _names(sampler)
    asked = [dict(zip(names, row, strict=True)) for row in targets.tolist()]
    options = {"basin": flags.basin, "temperature_focus": flags.temperature_focus}
    if guidance != FREE:
        options |= {"property": asked, "guidance": float(guidance)}
        options["candidates"] = flags.candidates
    sampler.sample_positions(1, flags.seed, **options)  # Compiles.
    drawn = []
    call = lambda: drawn.extend(
        sampler.sample_positions(len(targets), flags.seed, **options)
    )
    seconds = timing.cpu_seconds(call) / len(targets)
    molecules = [(one.atomic_numbers, one.positions) for one in drawn]
    found = bonds.perceive_all(molecules, PRESET, flags.num_workers)
    finished = np.array([one.stopped for one in drawn])
    valid = finished & [one.status == "valid" for one in found]
    values = np.full(targets.shape, np.nan)
    good = [molecules[index] for index in np.flatnonzero(valid)]
    values[valid] = compute(good, names, flags.num_workers)
    pairs = zip(found, valid, strict=True)
    smiles = [one.smiles for one, is_valid in pairs if is_valid]
    return Drawn(values, valid, finished, smiles, seconds)


def row_of(drawn: Drawn, targets: np.ndarray) -> dict[str, Any]:
    """Returns the figures of a guidance: mean absolute errors, shares, CPU time."""
    return {
        "errors": np.nanmean(np.abs(drawn.values - targets), axis=0).tolist(),
        "valid": float(drawn.valid.mean()),
        "unique of valid": len({*drawn.smiles}) / max(len(drawn.smiles), 1),
        "unfinished": float(1.0 - drawn.finished.mean()),
        "cpu_seconds": drawn.seconds,
    }


def compositions(molecules: data.Molecules, species: Sequence[int]) -> np.ndarray:
    """Returns how many atoms of each element the molecules have."""
    counts = [np.bincount(numbers, minlength=119) for numbers, _ in _atoms(molecules)]
    return np.array(counts)[:, list(species)]


def baselines(
    sampler: Sampler, train: data.Molecules, chosen: data.Molecules, num_workers: int
) -> dict[str, np.ndarray]:
    """Returns the mean absolute errors of what does not sample."""
    names, species = _names(sampler), tuple(sampler.weights.config.data.species)
    targets, known = _table(chosen, names), _table(train, names)
    rng = np.random.default_rng(0)
    inputs = compositions(train, species), compositions(chosen, species)
    guesses = []
    for column in known.T:
        fit = HistGradientBoostingRegressor(loss="absolute_error", random_state=0)
        guesses.append(fit.fit(inputs[0], column).predict(inputs[1]))
    atoms = _atoms(chosen)
    noisy = [(z, x + NOISE * rng.normal(size=x.shape)) for z, x in atoms]
    shaken = compute(noisy, names, num_workers) - compute(atoms, names, num_workers)
    return {
        NAIVE: np.abs(targets - rng.permutation(targets)).mean(axis=0),
        COMPOSITION: np.abs(np.array(guesses).T - targets).mean(axis=0),
        f"oracle after {NOISE} Å": np.nanmean(np.abs(shaken), axis=0),
    }


def tables(columns: Sequence[Column], found: Mapping[str, Any]) -> list[Rows]:
    """Returns the table of errors, and that of validity and CPU time.

    Args:
        columns: properties of the weights.
        found: contents of the file of results.
    """
    heads = [f"{c.name} ({c.unit})" if c.unit else c.name for c in columns]
    errors: Rows = [["mean absolute error (of naive)", *heads]]
    counts: Rows = [
        ["guidance", "valid %", "unique of valid %", "unfinished %", "CPU-s each"]
    ]
    naive = found["baselines"][NAIVE]
    for label, means in found["baselines"].items():
        errors.append([label, *_cells(means, naive)])
    for name, row in sorted(found["guidance"].items(), reverse=True):
        label = "no condition" if name == FREE else f"guidance {name}"
        errors.append([label, *_cells(row["errors"], naive)])
        shares = row["valid"], row["unique of valid"], row["unfinished"]
        cells = [f"{100 * share:.1f}" for share in shares]
        counts.append([label, *cells, f"{row['cpu_seconds']:.3f}"])
    return [errors, counts]


def _cells(means: Sequence[float], naive: Sequence[float]) -> list[str]:
    return [f"{m:.3g} ({100 * m / n:.0f} %)" for m, n in zip(means, naive, strict=True)]


def plot(
    columns: Sequence[Column], targets: np.ndarray, values: np.ndarray, title: str
) -> Figure:
    """Draws what was asked against what came, a panel for each property."""
    figure = Figure(figsize=(2.8 * len(columns), 2.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    rng = np.random.default_rng(0)
    for place, (panel, column) in enumerate(zip(panels, columns, strict=True)):
        pair = np.stack([targets[:, place], values[:, place]])
        if np.array_equal(targets[:, place], np.round(targets[:, place])):
            pair = pair + rng.uniform(-0.3, 0.3, pair.shape)  # Counts, apart.
        panel.plot(*pair, ".", markersize=2, alpha=0.5)
        low, high = np.nanpercentile(pair, [0.2, 99.8])
        panel.plot([low, high], [low, high], color="black", linewidth=0.8)
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        panel.set_title(f"{column.name} {column.unit}".strip(), fontsize=9)
        panel.set_xlabel("asked", fontsize=8)
    panels[0].set_ylabel("came", fontsize=8)
    return figure


def begin(
    path: Path, weights: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns what a file of results has of the same targets, and of these weights.

    Args:
        path: JSON file; there may be none.
        weights: checksum of the weights.
        settings: what decides the targets.
    """
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if found.get("settings") != settings:
        found = {}
    own = found.get("weights") == weights
    return {
        "settings": dict(settings),
        "weights": weights,
        "baselines": found.get("baselines", {}),
        "guidance": found.get("guidance", {}) if own else {},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    flags = _parser().parse_args(argv)
    sampler = symphony.load(flags.checkpoint)
    columns = sampler.weights.columns
    if not columns:
        raise UsageError(
            f"--checkpoint: expected weights with properties, found {flags.checkpoint}"
        )
    train, held_out = (read(flags.data, sampler, s) for s in ("train", "validation"))
    chosen = data.choose_molecules(held_out, flags.num_targets)
    settings = {
        "properties": _names(sampler),
        "targets": data.checksum(chosen),
        "num_targets": len(chosen.num_atoms),
    }
    found = begin(flags.output, sampler.weights.checksum, settings)
    if not found["baselines"]:
        means = baselines(sampler, train, chosen, flags.num_workers)
        found["baselines"] = {name: row.tolist() for name, row in means.items()}
        report.write(flags.output, **found)
    words = shlex.join(sys.argv[1:] if argv is None else argv)
    for guidance in flags.guidance:
        name = guidance
        if guidance != FREE and flags.candidates > 1:
            name += f", one of {flags.candidates}"
        targets = _table(chosen, _names(sampler))
        row = _measure(sampler, targets, guidance, name, flags)
        found["guidance"][name] = {**row, "command": words}
        report.write(flags.output, **found)
        print_tables(tables(columns, found), Console(width=160))
    return 0


def _measure(
    sampler: Sampler,
    targets: np.ndarray,
    guidance: str,
    name: str,
    flags: argparse.Namespace,
) -> dict[str, Any]:
    drawn = draw(sampler, targets, guidance, flags)
    if guidance != FREE:
        title = f"{len(targets)} targets, guidance {name}"
        figure = plot(sampler.weights.columns, targets, drawn.values, title)
        figure.savefig(flags.figure, dpi=110)
    return row_of(drawn, targets)


def _guidance(text: str) -> str:
    return text if text == FREE else f"{float(text):g}"


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "properties")
    add = parser.add_argument
    add("--checkpoint", default="qm9_properties", help="weights with properties")
    add("--data", required=True, help="labelled molecules, with their split")
    add("--num_targets", type=int, default=1000, help="held-out molecules")
    add(
        "--guidance", nargs="*", type=_guidance, default=[FREE, "1", "2", "3", "1.5"],
        help=f"strengths, and {FREE}: without a condition",
    )  # fmt: skip
    add("--candidates", type=int, default=1, help="as of symphony sample")
    add("--basin", action="store_true", help="as of symphony sample")
    add("--temperature_focus", type=float, default=1.0, help="as of symphony sample")
    add("--seed", type=int, default=0, help="of the draws")
    add("--num_workers", type=int, default=2, help="processes")
    add("--figure", type=Path, default=FIGURE, help="picture of the last guidance")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.properties", main))
