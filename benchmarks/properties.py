"""How well molecules have the properties that they are asked for, by the same oracle.

Run: `python -m benchmarks.properties --checkpoint=workdir/qm9_properties
--data=workdir/qm9_labelled.npz --output=properties.txt`. Targets are the properties of
one held-out molecule each, all together. What is drawn is computed anew by
`symphony.chemistry.oracles`; errors are those of the molecules that are valid
(`xyz2mol_hueckel`). Beside them: targets in a shuffled order (naive), a predictor from
the composition alone, and the oracle itself after noise on the atoms (lower bound).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingRegressor

import symphony
from common.commands import cli
from common.commands.report import Rows, print_tables
from common.errors import UsageError
from symphony import data, labelling
from symphony.chemistry import bonds, pool
from symphony.chemistry.oracles import GROUPS
from symphony.sampler import Sampler

NOISE = 0.02  # Å
PRESET = "xyz2mol_hueckel"
Molecule = tuple[np.ndarray, np.ndarray]


class Drawn(NamedTuple):
    """Molecules of one guidance, as many as targets.

    Attributes:
        errors: absolute error of each property (columns); NaN where not valid.
        valid: true for valid molecules.
        finished: true for those that stopped.
        smiles: SMILES of the valid ones.
    """

    errors: np.ndarray
    valid: np.ndarray
    finished: np.ndarray
    smiles: list[str]


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
    sampler: Sampler,
    targets: np.ndarray,
    guidance: float | None,
    flags: argparse.Namespace,
) -> Drawn:
    """Returns what comes of targets at a guidance; without a condition where None."""
    names = _names(sampler)
    asked = [dict(zip(names, row, strict=True)) for row in targets.tolist()]
    options = {} if guidance is None else {"property": asked, "guidance": guidance}
    options |= {"basin": flags.basin}
    drawn = sampler.sample_positions(len(targets), flags.seed, **options)
    molecules = [(one.atomic_numbers, one.positions) for one in drawn]
    found = bonds.perceive_all(molecules, PRESET, flags.num_workers)
    finished = np.array([one.stopped for one in drawn])
    valid = finished & [one.status == "valid" for one in found]
    values = np.full(targets.shape, np.nan)
    good = [molecules[index] for index in np.flatnonzero(valid)]
    values[valid] = compute(good, names, flags.num_workers)
    smiles = [
        one.smiles for one, is_valid in zip(found, valid, strict=True) if is_valid
    ]
    return Drawn(np.abs(values - targets), valid, finished, smiles)


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
        "naive (shuffled)": np.abs(targets - rng.permutation(targets)).mean(axis=0),
        "composition alone": np.abs(np.array(guesses).T - targets).mean(axis=0),
        f"oracle after {NOISE} Å": np.nanmean(np.abs(shaken), axis=0),
    }


def tables(sampler: Sampler, flags: argparse.Namespace) -> list[Rows]:
    """Returns the table of errors and that of validity."""
    train, held_out = (read(flags.data, sampler, s) for s in ("train", "validation"))
    chosen = data.choose_molecules(held_out, flags.num_targets)
    targets = _table(chosen, _names(sampler))
    floor = baselines(sampler, train, chosen, flags.num_workers)
    naive = floor["naive (shuffled)"]
    heads = [
        f"{c.name} ({c.unit})" if c.unit else c.name for c in sampler.weights.columns
    ]
    errors: Rows = [["mean absolute error (of naive)", *heads]]
    counts: Rows = [["guidance", "valid %", "unique of valid %", "unfinished %"]]
    for label, means in floor.items():
        errors.append([label, *_cells(means, naive)])
    for guidance in (None, *flags.guidance):
        drawn = draw(sampler, targets, guidance, flags)
        label = "no condition" if guidance is None else f"guidance {guidance:g}"
        errors.append([label, *_cells(np.nanmean(drawn.errors, axis=0), naive)])
        unique = len({*drawn.smiles}) / max(len(drawn.smiles), 1)
        shares = drawn.valid.mean(), unique, 1.0 - drawn.finished.mean()
        counts.append([label, *(f"{100 * share:.1f}" for share in shares)])
    return [errors, counts]


def _cells(means: np.ndarray, naive: np.ndarray) -> list[Any]:
    return [f"{m:.3g} ({100 * m / n:.0f} %)" for m, n in zip(means, naive, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    flags = _parser().parse_args(argv)
    sampler = symphony.load(flags.checkpoint)
    if not sampler.weights.columns:
        raise UsageError(
            f"--checkpoint: expected weights with properties, found {flags.checkpoint}"
        )
    found = tables(sampler, flags)
    print_tables(found, Console())
    with Path(flags.output).open("w") as file:
        print_tables(found, Console(file=file, width=160))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "benchmarks.properties", "Measures how well properties are met."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="weights with properties")
    add("--data", required=True, help="labelled molecules, with their split")
    add("--num_targets", type=int, default=1000, help="held-out molecules")
    add("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0], help="all")
    add("--basin", action="store_true", help="as of symphony sample")
    add("--seed", type=int, default=0, help="of the draws")
    add("--num_workers", type=int, default=2, help="processes")
    add("--output", default="properties.txt", help="file of the tables")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.properties", main))
