"""What constrained sampling reaches: formulas, lost hydrogens, grown cores, and speed.

Run: `python -m benchmarks.constraints --checkpoint=qm9 --draws=100`. It prints five
tables and writes them to `--output`; `--only=formulas` makes one of them anew and keeps
the others. Validity is `strict`: one fragment, no charges, no radicals, by xyz2mol with
Hückel charges.
"""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem
from rich.console import Console
from rich.markup import escape

import symphony
from benchmarks import report
from common.commands import cli
from common.commands.report import Rows, print_tables
from common.errors import UsageError
from symphony import data, editing, formula, options
from symphony.chemistry import bonds
from symphony.manifest import Sample
from symphony.sampler import Sampler

FORMULAS = (
    "C7H10O2", "C6H6", "CH4", "C5H9NO2", "C2H6O", "C9H20", "C8H8", "C7H12O2",
    "C6H10N2O", "C8H14O", "C5H8N2O2", "C7H11NO", "C4H6O3", "C6H9NO2", "C7H6O2",
    "C3H4N4O2", "C8H12O", "C5H5N3O", "H2O", "C9H12",
)  # fmt: skip
REFUSED = ("C2H9", "CH3", "C2H5F", "Xx2", "C99H2", "NH4+")
CORES = (
    ("c1ccncc1", (0,)), ("c1ccccc1", (0, 3)), ("C1CCNCC1", (3,)), ("C1COCCN1", (5,)),
    ("C1CNCCN1", (2, 5)), ("c1cnc[nH]1", (0,)), ("c1ccoc1", (1,)), ("c1ncncc1", (5,)),
    ("O=C1CCCN1", (2,)), ("NC(=O)C1CC1", (3,)),
)  # fmt: skip
"""Cores of drugs with at most seven heavy atoms, and the atoms that may grow."""


def judge(drawn: Sequence[Sample]) -> list[str | None]:
    """Returns the SMILES of each molecule; None where invalid or unfinished."""
    stopped = [one for one in drawn if one.stopped]
    pairs = [(one.atomic_numbers, one.positions) for one in stopped]
    found = iter(bonds.perceive_all(pairs, "strict"))
    told = [next(found) if one.stopped else None for one in drawn]
    return [
        None if one is None or one.status != "valid" else one.graph_smiles
        for one in told
    ]


def per_cent(values: Sequence[Any]) -> str:
    """Returns the share of true values in per cent.

    >>> per_cent([True, False, None, "C"])
    '50.0'
    """
    return f"{100 * np.mean([bool(value) for value in values]):.1f}"


def formulas(sampler: Sampler, draws: int) -> Rows:
    """Returns how many draws meet a formula, and how many of these are valid."""
    header = ["formula", "finished, %", "at once, %", "valid of finished, %"]
    rows = [[*header, "distinct", "CPU-s for each finished", "reasons"]]
    sampler.sample_positions(1, formula=FORMULAS[0])
    for text in FORMULAS:
        begin = time.process_time()
        drawn = sampler.sample_positions(draws, formula=text)
        spent = time.process_time() - begin
        finished = [one for one in drawn if one.stopped]
        counts = [Counter(one.atomic_numbers.tolist()) for one in finished]
        if wrong := [one for one in counts if formula.write(one) != text]:
            raise AssertionError(f"{text}: found {formula.write(wrong[0])}")
        smiles = judge(finished)
        valid = [one for one in smiles if one]
        reasons = Counter(one.reason for one in drawn if not one.stopped)
        told = "; ".join(f"{count} {name}" for name, count in reasons.items())
        share = per_cent(smiles) if smiles else "–"
        done = per_cent([one.stopped for one in drawn])
        once = per_cent([one.stopped and not one.num_redrawn for one in drawn])
        each = f"{spent / len(finished):.3f}" if finished else "–"
        rows.append([text, done, once, share, len({*valid}), each, told])
    return rows


def hydrogens(sampler: Sampler, count: int) -> Rows:
    """Returns how many held-out molecules that lost a hydrogen are restored."""
    species = tuple(sampler.weights.config.data.species)
    held_out, _ = data.read_molecules("qm9-sample", species, 29, split="validation")
    molecules = data.choose_molecules(held_out, count)
    rng = np.random.default_rng(0)
    whole, changes = [], []
    for begin, end in zip(molecules.offsets[:-1], molecules.offsets[1:], strict=True):
        numbers = molecules.atomic_numbers[begin:end]
        positions = molecules.positions[begin:end]
        lost = rng.choice(np.flatnonzero(numbers == 1)) if 1 in numbers else 0
        stays = np.arange(len(numbers)) != lost
        whole.append((numbers, positions))
        core = (numbers[stays], positions[stays])
        changes.append(editing.with_hydrogens(core, species, "molecule"))
    chosen = options.choose(sampler.weights, basin=True)
    names = [str(name) for name in molecules.names]
    job = editing.Job(sampler.weights, chosen, changes, names, 1, 0, None)
    drawn = list(editing.draw_all(job))
    before = [
        one.graph_smiles if one.status == "valid" else None
        for one in bonds.perceive_all(whole, "strict")
    ]
    after = judge(drawn)
    same = [a == b for a, b in zip(before, after, strict=True) if b is not None]
    known = [one for one in before if one is not None]
    return [
        ["molecules", "strictly valid before, %", "restored of these, %"],
        [len(before), per_cent(before), per_cent(same) if known else "–"],
    ]


def embed(smiles: str) -> Any:
    """Returns a molecule with hydrogens and a relaxed conformer."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=0)
    AllChem.MMFFOptimizeMolecule(mol)
    return mol


def cores(sampler: Sampler, draws: int) -> Rows:
    """Returns how many draws of a core are valid, and how many still contain it."""
    header = ["core", "attach", "finished, %", "valid, %", "grown of valid, %"]
    rows = [[*header, "distinct", "with the core, %"]]
    for smiles, attach in CORES:
        drawn = sampler.sample_positions(draws, fragment=embed(smiles), attach=attach)
        told = judge(drawn)
        valid = [one for one in told if one]
        pattern = Chem.MolFromSmiles(smiles)
        core = Chem.MolToSmiles(pattern)
        mols = [Chem.MolFromSmiles(one) for one in valid]
        kept = [mol is not None and mol.HasSubstructMatch(pattern) for mol in mols]
        rows.append(
            [
                smiles,
                ",".join(map(str, attach)),
                per_cent([one.stopped for one in drawn]),
                per_cent(told),
                per_cent([one != core for one in valid]) if valid else "–",
                len({*valid}),
                per_cent(kept) if kept else "–",
            ]
        )
    return rows


def speed(sampler: Sampler, draws: int) -> Rows:
    """Returns the CPU time of a draw and of a step, with and without limits.

    A step draws an atom or stops; draws that are taken back count as steps.
    """
    asked = {
        "nothing": {},
        "max_heavy=9": {"max_heavy": 9},
        "elements=C,N,O,H": {"elements": "C,N,O,H"},
        "num_atoms=12-20": {"num_atoms": "12-20"},
        "formula=C7H10O2": {"formula": "C7H10O2"},
    }
    header = ["asked", "CPU-s for each draw", "CPU-ms for each step"]
    rows = [[*header, "of that without", "steps for each draw"]]
    free = None
    for name, keywords in asked.items():
        sampler.sample_positions(2, **keywords)
        begin = time.process_time()
        drawn = sampler.sample_positions(draws, seed=1, **keywords)
        spent = time.process_time() - begin
        steps = [len(one.positions) + 1 + (one.num_redrawn or 0) for one in drawn]
        each = 1e3 * spent / sum(steps)
        free = free or each
        own = [f"{spent / draws:.3f}", f"{each:.2f}", f"{each / free:.2f}"]
        rows.append([name, *own, f"{np.mean(steps):.1f}"])
    return rows


def refused(sampler: Sampler, draws: int) -> Rows:
    """Returns what is said of formulas that are refused before any work."""
    rows = [["formula", "found"]]
    for text in REFUSED:
        try:
            sampler.sample_positions(1, formula=text)
        except UsageError as error:
            rows.append([text, str(error)])
        else:
            raise AssertionError(f"{text}: expected to be refused")
    return rows


TABLES: dict[str, Callable[[Sampler, int], Rows]] = {
    "formulas": formulas,
    "refused": refused,
    "hydrogens": hydrogens,
    "cores": cores,
    "speed": speed,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    arguments = _parser().parse_args(argv)
    sampler = symphony.load(arguments.checkpoint)
    words = sys.argv[1:] if argv is None else argv
    command = f"python -m benchmarks.constraints {shlex.join(words)}".strip()
    for name in [arguments.only] if arguments.only else [*TABLES]:
        begin = time.process_time()
        rows = TABLES[name](sampler, arguments.draws)
        print_tables([[[escape(str(x)) for x in row] for row in rows]], Console())
        spent = round(time.process_time() - begin, 1)
        keep(arguments.output, name, command, rows, spent)
    return 0


def keep(path: Path, name: str, command: str, rows: Rows, spent: float) -> None:
    """Writes a table beside those that a file has already.

    Args:
        path: JSON file.
        name: name of the table.
        command: what made it.
        rows: header and rows.
        spent: CPU-seconds that it took.
    """
    tables = json.loads(path.read_text("utf-8"))["tables"] if path.exists() else {}
    head, *lines = rows
    named = [dict(zip(head, line, strict=True)) for line in lines]
    tables[name] = {"command": command, "cpu_seconds": spent, "rows": named}
    report.write(path, tables=tables)


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "constraints")
    add = parser.add_argument
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--draws", type=int, default=100, help="of each formula, core; molecules")
    add("--only", choices=tuple(TABLES), default=None, help="one table")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.constraints", main))
