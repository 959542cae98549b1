"""Scores molecules of a file: `symphony score`, by `symphony.likelihood`."""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from absl import logging

from common.commands import cli, shards
from common.errors import UsageError
from common.runs.weights import versions
from symphony import columns, data, relax
from symphony.acceptance import BOND_PRESET
from symphony.conditions import names_read
from symphony.data.elements import SYMBOLS
from symphony.inputs import add_input, input_of
from symphony.likelihood import Score, score_molecules
from symphony.weights import Weights, load_weights, warn_of_unseen

COMMAND = "symphony score"
WHOLE = "symphony merge joins scores, and a run without --shard relaxes the molecules"
FEW_ORDERS = 2.0
"""Effective orders below which the spread of the ratios says little."""

COLUMNS = (
    "index", "name", "num_atoms", "log_likelihood", "standard_error",
    "effective_orders", "mean_order_log_likelihood", "mean_stop", "num_orders",
    "num_direction_samples",
)  # fmt: skip
RELAXED_COLUMNS = ("relax_energy_change_eV", "relax_rmsd")
ATOM_COLUMNS = ("index", "atom", "element", "mean_log_likelihood")
MOST_DRAWS = 100_000
"""Orders or directions of a molecule, at most."""

MAX_ATOMS = 200
"""Largest molecule that is scored; it takes 2 GB."""


def check_connected(molecules: data.Molecules, cutoff: float, source: str) -> None:
    """Raises `UsageError` if the atoms of a molecule do not hang together.

    Args:
        molecules: molecules to be scored.
        cutoff: longest step from a placed atom to the next, in Å.
        source: name of the file, for the message.
    """
    is_disconnected = data.unreachable(molecules, 0.0, cutoff, heavy_first=False)
    if is_disconnected.any():
        index = int(np.argmax(is_disconnected))
        raise UsageError(
            f"{source}: expected atoms that hang together over steps below {cutoff} Å, "
            f"found molecule {index} ({molecules.names[index]}) in parts"
        )


def atoms_path_of(path: Path) -> Path:
    """Returns where the scores of atoms lie, beside those of molecules.

    >>> atoms_path_of(Path("scores.csv")).name
    'scores_atoms.csv'
    """
    return path.with_name(f"{path.stem}_atoms{path.suffix}")


def record_path_of(path: Path) -> Path:
    """Returns where it is told how the scores were made.

    >>> record_path_of(Path("scores.csv")).name
    'scores.json'
    """
    return path.with_suffix(".json")


def write_scores(
    path: Path,
    molecules: data.Molecules,
    scores: dict[int, Score],
    num_orders: int,
    num_draws: int,
    how: Mapping[str, Any] = MappingProxyType({}),
    relaxed: Sequence[Any] | None = None,
) -> Path:
    """Writes a row for each molecule, and beside it one for each atom.

    Args:
        path: CSV file to write; `<name>_atoms.csv` and `<name>.json` lie beside it.
        molecules: molecules that were scored.
        scores: scores by the index of the molecule.
        num_orders: number of orders of each.
        num_draws: number of coarse directions.
        how: what else decided the scores; JSON values.
        relaxed: what became of each molecule, see `symphony.relax.relax_each`, where
            they were relaxed.

    Returns:
        The path of the second file, `<name>_atoms.csv`.
    """
    text = "{:.4f}".format
    rows, atoms = [], []
    for index, score in sorted(scores.items()):
        numbers = (score.bound, score.standard_error, score.effective_orders)
        values = map(text, (*numbers, score.mean_order, score.stop))
        name, size = molecules.names[index], molecules.num_atoms[index]
        more = () if relaxed is None else _changes_of(relaxed[index])
        rows.append([index, name, size, *values, num_orders, num_draws, *more])
        own = molecules.atomic_numbers[molecules.offsets[index] :]
        for atom, value in enumerate(score.per_atom):
            atoms.append([index, atom, SYMBOLS[own[atom] - 1], text(value)])
    more = () if relaxed is None else RELAXED_COLUMNS
    tables = {
        path: _to_csv([(*COLUMNS, *more), *rows]),
        atoms_path_of(path): _to_csv([ATOM_COLUMNS, *atoms]),
    }
    cli.write_own(COMMAND, record_path_of(path), how, tables)
    return atoms_path_of(path)


def merge(path: Path, parts: Sequence[Path], overwrite: bool) -> None:
    """Puts the scores of parts together as one process would have written them.

    Args:
        path: CSV file to write; see `write_scores`.
        parts: CSV file of each part, in order.
        overwrite: true to replace what stands there.

    Raises:
        UsageError: The parts are not of one run, or were edited.
    """
    tables = [path, atoms_path_of(path)]
    cli.check_own(COMMAND, record_path_of(path), tables, overwrite)
    own = [[part, atoms_path_of(part)] for part in parts]
    pairs = zip(parts, own, strict=True)
    records = [cli.read_own(COMMAND, record_path_of(x), files) for x, files in pairs]
    shards.check(parts, records, frozenset({"checkpoint"}))
    joined = {}
    for place, table in enumerate(tables):
        texts = [files[place].read_text("utf-8") for files in own]
        head, _, _ = texts[0].partition("\n")
        rows = [text.partition("\n")[2] for text in texts]
        joined[table] = f"{head}\n{''.join(rows)}"
    total = records[0].pop(shards.RECORD)["total"]
    cli.write_own(COMMAND, record_path_of(path), records[0], joined)
    sys.stdout.write(f"{path}: {total} molecules, of {len(parts)} parts\n")


def _changes_of(relaxed: Any) -> tuple[str, str]:
    """Returns energy change (eV) and RMSD (Å) by relaxation; `nan` of a reason."""
    if isinstance(relaxed, str):
        return "nan", "nan"
    return f"{relaxed.energy_change:.5f}", f"{relaxed.rmsd:.4f}"


def _to_csv(rows: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony score` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    arguments.molecules = input_of(arguments)
    shard = shards.read(arguments.shard)
    shards.refuse(arguments, ("relax",), WHOLE)
    arguments.output = str(shards.path_of(Path(arguments.output), shard))
    _check(arguments)
    weights = load_weights(arguments.checkpoint)
    molecules, _ = data.read_molecules(
        arguments.molecules,
        tuple(weights.config.data.species),
        MAX_ATOMS,
        strict=True,
        properties=names_read(weights.config),
        columns=[one.name for one in weights.columns],
    )
    molecules = columns.standardise(molecules, weights.columns)
    warn_of_unseen(weights, molecules.atomic_numbers, arguments.molecules)
    total = len(molecules.num_atoms)
    part = shards.span(shard, total)
    cli.announce_device()
    check_connected(molecules, float(weights.config.data.cutoff), arguments.molecules)
    draws = (arguments.num_orders, arguments.num_direction_samples)
    scores, seed = {}, arguments.seed
    with cli.progress(len(part), "scoring", "molecules") as advance:
        for index, score in score_molecules(weights, molecules, *draws, seed, part):
            scores[index] = score
            advance()
    how = _describe(arguments, weights, molecules)
    how |= shards.describe(shard, part, total)
    output, relaxed = Path(arguments.output), None
    if arguments.relax is not None:
        found = relax.relax_each(_with_bonds(molecules), arguments.relax)
        relaxed = [one for _, one in found]
    atoms = write_scores(output, molecules, scores, *draws, how, relaxed)
    _warn_of_few(scores, arguments.num_orders)
    sys.stdout.write(
        f"{arguments.output}: {len(scores)} molecules, mean log-likelihood "
        f"{_mean(scores)} ({draws[0]} orders, {draws[1]} directions); by atoms in "
        f"{atoms}\n"
    )
    if arguments.relax is not None:
        line = relax.write(output, arguments.relax, found, COMMAND)
        sys.stdout.write(f"{line}\n")
    return 0


def _with_bonds(molecules: data.Molecules) -> list[tuple[str, Any]]:
    """Returns names and RDKit molecules; None of one whose bonds are not perceived."""
    from symphony.chemistry import bonds

    found = []
    for index, name in enumerate(molecules.names):
        rows = slice(*molecules.offsets[index : index + 2])
        atoms = molecules.atomic_numbers[rows], molecules.positions[rows]
        mol = bonds.perceive(*atoms, BOND_PRESET)
        if mol is not None:
            mol.SetProp("_Name", str(name))
        found.append((str(name), mol))
    return found


def _check(arguments: argparse.Namespace) -> None:
    num_orders, num_draws = arguments.num_orders, arguments.num_direction_samples
    if not (1 <= num_orders <= MOST_DRAWS and 1 <= num_draws <= MOST_DRAWS):
        raise UsageError(
            "expected --num_orders and --num_direction_samples of at least 1 and at "
            f"most {MOST_DRAWS}, found {num_orders} and {num_draws}"
        )
    output = Path(arguments.output)
    cli.check_output(output)
    if output.suffix == ".json":
        raise UsageError(f"--output: expected a name as scores.csv, found {output}")
    tables, record = [output, atoms_path_of(output)], record_path_of(output)
    for path in (*tables, record):
        cli.check_apart(path, arguments.molecules)
    cli.check_own(COMMAND, record, tables, arguments.overwrite)
    relax.check(output, arguments.relax, arguments.overwrite, COMMAND)
    cli.check_seed(arguments.seed)


def _describe(
    arguments: argparse.Namespace, weights: Weights, molecules: data.Molecules
) -> dict[str, Any]:
    """Returns what decides the scores."""
    names = ("checkpoint", "seed", "num_orders", "num_direction_samples")
    return {
        **{name: getattr(arguments, name) for name in names},
        "weights_sha256": weights.checksum,
        "config_sha256": weights.config_checksum,
        "molecules_sha256": data.checksum(molecules),
        "versions": versions("symphony", "jax", "numpy"),
    }


def _mean(scores: dict[int, Score]) -> str:
    """Returns the mean log-likelihood in words."""
    bounds = np.array([score.bound for score in scores.values()])
    possible = bounds[np.isfinite(bounds)]
    mean = f"{possible.mean():.2f} nats" if len(possible) else "minus infinity"
    out_of_reach = len(bounds) - len(possible)
    but = f" but for {out_of_reach} of density zero" if out_of_reach else ""
    return f"{mean}{but}"


def _warn_of_few(scores: dict[int, Score], num_orders: int) -> None:
    few = sum(score.effective_orders < FEW_ORDERS for score in scores.values())
    if few and num_orders > 1:
        logging.warning(
            "fewer than %g of %d orders decide the score of %d of %d molecules: their "
            "standard errors are too small; raise --num_orders",
            FEW_ORDERS, num_orders, few, len(scores),
        )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND, "Log-likelihoods of molecules in nats, positions per Å³."
    )
    add = parser.add_argument
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add_input(parser)
    add(
        "-o",
        "--output",
        default="scores.csv",
        help="a row a molecule; _atoms.csv, .json beside",
    )
    add("--num_orders", type=int, default=16, help="random orders of the atoms, K")
    add(
        "--num_direction_samples",
        type=int,
        default=32,
        help="precision of the integral over directions, in independent ones, M",
    )
    add("--seed", type=int, default=0, help="of orders and directions")
    add("--relax", help=relax.HELP)
    shards.add_flag(parser)
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("symphony score", main))
