"""Validity and uniqueness by Quetzal's convention: RDKit 2023.03.3, xyz2mol's defaults.

    python -m benchmarks.quetzal --samples workdir/tables/qm9_*.sdf

Later versions of RDKit refuse strained cages that QM9 has, so figures published with
that version need it: `uv` makes an environment with it in `--environment`, once. A
molecule is valid if `DetermineBonds(charge=0)` succeeds and there is a bond; unique are
distinct canonical SMILES among the valid ones. All generated molecules are in the
denominator, also those that were never finished.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from common.commands import cli
from common.commands.report import print_tables
from common.errors import RunError, UsageError
from symphony.chemistry.bonds import Molecule, find_fault
from symphony.data.elements import SYMBOLS
from symphony.evaluate import samples

PYTHON = "3.11"
"""The last version of Python that this RDKit has wheels for."""
PACKAGES = ("rdkit==2023.3.3", "numpy<2")
WORKER = Path(__file__).with_name("quetzal_worker.py")
UNJUDGED = "unjudged"

Run = Callable[[Sequence[str]], None]


def run(words: Sequence[str]) -> None:
    """Runs a program.

    Raises:
        RunError: It is not there, or it failed.
    """
    try:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"{words[0]}: {error}; install uv, or see above") from error


def make_environment(folder: Path, run: Run = run) -> Path:
    """Makes an environment with the old RDKit, if it is not there; returns its Python.

    Args:
        folder: where it lies.
        run: function that runs a program.
    """
    python, done = folder / "bin" / "python", folder / "packages.json"
    if done.exists() and json.loads(done.read_text("utf-8")) == [*PACKAGES]:
        return python
    run(["uv", "venv", "--quiet", "--clear", f"--python={PYTHON}", str(folder)])
    run(["uv", "pip", "install", "--quiet", f"--python={python}", *PACKAGES])
    done.write_text(json.dumps(PACKAGES), "utf-8")
    return python


def xyz_block(molecule: Molecule) -> str:
    """Returns a molecule as XYZ, without exponents, which RDKit does not read.

    >>> import numpy as np
    >>> print(xyz_block((np.array([8], np.uint8), np.array([[0.0, 2e-6, 1.0]]))))
    1
    <BLANKLINE>
    O 0.000000 0.000002 1.000000
    """
    numbers, positions = molecule
    lines = [
        f"{SYMBOLS[int(n) - 1]} {x:.6f} {y:.6f} {z:.6f}"
        for n, (x, y, z) in zip(numbers, positions, strict=True)
    ]
    return "\n".join([str(len(lines)), "", *lines])


def perceive(
    python: Path, molecules: Sequence[Molecule], time_limit: float
) -> tuple[list[str | None], str]:
    """Returns the SMILES of each molecule, and the version of RDKit.

    A molecule that ends its process or takes too long is `UNJUDGED`.

    Args:
        python: interpreter of the environment.
        molecules: pairs of atomic numbers and positions in Å.
        time_limit: CPU seconds for one molecule.

    Raises:
        RunError: The process does not start.
    """
    found: list[str | None] = []
    version = ""
    while len(found) < len(molecules):
        answers = _answers(python, molecules[len(found) :], time_limit)
        if not answers or "rdkit" not in answers[0]:
            raise RunError(f"{python}: expected it to import RDKit, found no answer")
        version = answers[0]["rdkit"]
        found += [answer["smiles"] for answer in answers[1:]]
        if len(found) < len(molecules):
            found.append(UNJUDGED)
    return found, version


def _answers(
    python: Path, molecules: Sequence[Molecule], time_limit: float
) -> list[dict[str, Any]]:
    """Returns what one process answers before it ends."""
    tasks = [{"xyz": xyz_block(m), "time_limit": time_limit} for m in molecules]
    text = "".join(json.dumps(task) + "\n" for task in tasks)
    done = subprocess.run(
        [str(python), str(WORKER)], input=text, capture_output=True, text=True
    )
    lines = done.stdout.splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def judge(
    python: Path, drawn: samples.Samples, time_limit: float = 10.0
) -> dict[str, Any]:
    """Returns counts and shares of a set of samples."""
    whole = [
        molecule
        for molecule, fault in zip(drawn.molecules, drawn.faults, strict=True)
        if fault is None and find_fault(*molecule) is None
    ]
    smiles, version = perceive(python, whole, time_limit)
    valid = [one for one in smiles if one not in (None, UNJUDGED)]
    total, unique = len(drawn.molecules), len({*valid})
    return {
        "rdkit": version,
        "num_molecules": total,
        "num_unjudged": smiles.count(UNJUDGED),
        "valid": len(valid) / total,
        "unique": unique / len(valid) if valid else None,
        "valid_and_unique": unique / total,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.max_molecules is not None and arguments.max_molecules < 1:
        raise UsageError(
            f"expected --max_molecules of at least 1, found {arguments.max_molecules}"
        )
    python = make_environment(arguments.environment)
    rows = [["samples", "molecules", "valid, %", "unique, %", "valid and unique, %"]]
    found = {}
    for path in arguments.samples:
        drawn = samples.read_samples(path, arguments.max_molecules)
        own = found[Path(path).stem] = judge(python, drawn, arguments.time_limit)
        shares = [own[name] for name in ("valid", "unique", "valid_and_unique")]
        cells = ["–" if share is None else f"{100 * share:.1f}" for share in shares]
        rows.append([Path(path).stem, str(own["num_molecules"]), *cells])
    print_tables([rows], Console())
    report.write(arguments.output, samples=found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "quetzal")
    add = parser.add_argument
    add("--samples", nargs="+", required=True, help="molecules: .sdf, .xyz or .npz")
    add("--max_molecules", type=int, default=None, help="judge only the first ones")
    add("--environment", type=Path, default=Path("workdir/rdkit-2023.03.3"))
    add("--time_limit", type=float, default=10.0, help="CPU seconds for one molecule")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("benchmarks.quetzal", main))
