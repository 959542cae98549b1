"""Computes properties of molecules: `symphony properties`, by `symphony.labelling`."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from common.commands import cli, outcome
from common.commands.files import digest
from common.errors import UsageError
from common.runs.weights import versions
from symphony import data, labelling
from symphony.chemistry.oracles import GROUPS, Group
from symphony.inputs import add_input, input_of

COMMAND = "symphony properties"
MAX_WORKERS = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony properties` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    flags = _parser().parse_args(argv)
    groups = _groups(flags.groups)
    path, output = data.locate(input_of(flags)), Path(flags.output)
    _check(flags, path, output)
    given = labelling.read_input(path)
    chosen = labelling.choose(len(given.records.molecules.num_atoms), flags.number)
    header = {
        "record": "header",
        "command": COMMAND,
        "molecules_sha256": digest(path),
        "groups": list(groups),
        "num_molecules": len(chosen),
        "versions": versions("symphony", *(row.module for row in groups.values())),
    }
    lines = _label(flags, given, chosen, header)
    units = {name: unit for row in groups.values() for name, unit in row.units.items()}
    labelling.write(given, output, lines, units)
    _tell(output, lines, units)
    return 0


def _groups(text: str) -> dict[str, Group]:
    """Returns the groups that `--with` names.

    Raises:
        UsageError: A name is none.
        ModuleNotFoundError: What computes it is not installed.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in GROUPS:
            raise UsageError(
                f"--with: expected some of {','.join(GROUPS)}, found {name!r}"
            )
        module = GROUPS[name].module
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return {name: GROUPS[name] for name in names}


def _check(flags: argparse.Namespace, path: Path, output: Path) -> None:
    """Refuses, before any work, numbers and files that cannot be used."""
    if flags.number is not None and flags.number < 1:
        raise UsageError(f"--num_molecules: expected at least 1, found {flags.number}")
    if not 1 <= flags.num_workers <= MAX_WORKERS:
        raise UsageError(
            f"--num_workers: expected 1 to {MAX_WORKERS}, found {flags.num_workers}"
        )
    labelling.check_form(path, output)
    journal = _journal_of(output)
    for file in (output, journal):
        cli.check_apart(file, path)
        cli.check_output(file)
    if output.exists() and not (journal.exists() or flags.overwrite):
        raise UsageError(
            f"{output}: expected no file, or one with its {journal.name}; give "
            "--overwrite or another --output"
        )


def _journal_of(output: Path) -> Path:
    return output.with_suffix(".jsonl")


def _label(
    flags: argparse.Namespace,
    given: labelling.Input,
    chosen: np.ndarray,
    header: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns the lines of the journal, those of an earlier command among them."""
    path = _journal_of(Path(flags.output))
    lines, size = [], 0
    if not flags.overwrite:
        lines, size = labelling.read_journal(path, header)
    with cli.made_folder(path.parent), path.open("ab") as file, cli.locked(path):
        file.truncate(size)
        if not size:
            labelling.append(file, header)
        rest = chosen[len(lines) :]
        work = labelling.compute(given, rest, header["groups"], flags.num_workers)
        doing = ("computing", "molecules")
        with cli.progress(len(chosen), *doing, completed=len(lines)) as advance:
            for line in work if len(rest) else ():
                labelling.append(file, line)
                lines.append(line)
                advance()
    return lines


def _tell(
    output: Path, lines: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> None:
    """Prints what was computed; see `common.commands.outcome`."""
    columns = labelling.columns_of(lines, list(units), 1 + lines[-1]["index"])
    text = [f"{output}: {len(lines)} molecules\n"]
    for name, column in columns.items():
        known = column[np.isfinite(column)]
        unit = f" ({units[name]})" if units[name] else ""
        row = f"  {name}{unit}: of {len(known)}"
        if len(known):
            low, high = np.percentile(known, [1, 99])
            row += f", mean {known.mean():.4g}, 1 to 99 % {low:.4g} to {high:.4g}"
        text.append(row + "\n")
    sys.stdout.write("".join(text))
    for reason, count in labelling.failures_of(lines).most_common(5):
        logging.warning("%d molecules have no value (%s)", count, reason)
    done = sum(not line["failures"] for line in lines)
    outcome.judge(done, len(lines), "molecules have all values")


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND,
        "Computes properties of the molecules of a file, and writes the file with them "
        "and their units. Run again after an interruption, it goes on.",
    )
    add = parser.add_argument
    told = "; ".join(f"{name}: {', '.join(row.units)}" for name, row in GROUPS.items())
    forms = "an SDF (of an SDF alone), .extxyz or .npz; .jsonl with reasons beside"
    processors = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    add_input(parser, told="file (.sdf, .xyz, .extxyz, .npz), or a data set")
    add("--with", dest="groups", default="rdkit", help=f"groups of columns. {told}")
    add("-o", "--output", required=True, help=forms)
    add(
        "--num_molecules", dest="number", type=int, default=None,
        help="that many alone, drawn at random; the others are written without values",
    )  # fmt: skip
    add("--num_workers", type=int, default=processors, help="processes")
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(COMMAND, main))
