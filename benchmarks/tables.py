"""Every table of molecules that packaged weights give, and the tables of trainings.

    python -m benchmarks.tables --num_molecules=10000 --reference=qm9

It draws and judges molecules of each set of weights, at temperature 1 and in basin
mode, for each seed; judges molecules of the data in the same way; writes the figures to
`--output`; and prints tables in Markdown, with the figures that others published. What
is drawn and judged stays in `--workdir`: a run that was stopped goes on, and a larger
`--num_molecules` adds to it. `--print` prints what is known, with the other tables of
`benchmarks/results` and the command that made each; `--docs README.md docs/results.md`
puts the tables of molecules between their marks in these pages.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from benchmarks import markdown, molecules, report
from benchmarks.molecules import FIRST_ONLY, MODES, PARTS, Case
from common.commands import cli
from common.errors import UsageError
from symphony.evaluate import measure, samples
from symphony.weights import PRETRAINED

DATA = "data"
QUETZAL = report.RESULTS / "quetzal.json"
Item = tuple[str, str, Path, Callable[[], samples.Samples]]
"""A set, a seed, the folder of its parts, and what gives its molecules."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    arguments = _parser().parse_args(argv)
    path = arguments.output
    if not arguments.print:
        measure_all(arguments)
    if not path.exists():
        raise UsageError(
            f"{path}: expected figures, found none; run without --print first"
        )
    found = json.loads(path.read_text("utf-8"))
    blocks = markdown.blocks(found, markdown.read(QUETZAL))
    for page in arguments.docs:
        markdown.put(page, blocks)
    tables = list(blocks.values())
    if arguments.print:
        tables += markdown.others(report.RESULTS, leave_out=path.stem)
    sys.stdout.write("\n".join(tables))
    return 0


def measure_all(arguments: argparse.Namespace) -> None:
    """Measures every part of every case, and writes the figures after each.

    Sets of the file that are not asked for stay as they are.
    """
    folder, workers = Path(arguments.workdir), arguments.num_workers
    data = molecules.read_data(arguments.reference, folder / "reference", workers)
    known = markdown.read(arguments.output)
    sets = {} if known is None else dict(known["sets"])
    for part in arguments.parts:
        for name, seed, own, draw in cases(arguments):
            if part in FIRST_ONLY and seed not in ("", f"{arguments.seeds[0]}"):
                continue
            logging.info("%s of %s, seed %s", part, name, seed)
            judged = molecules.judge(draw(), data, own, workers)
            add(sets, name, seed, molecules.PARTS[part](judged))
            report.write(arguments.output, versions=measure.versions(), sets=sets)


def add(sets: dict[str, Any], name: str, seed: str, found: dict[str, Any]) -> None:
    """Adds figures of a seed to its set, with the command; others of the seed stay."""
    own = sets.setdefault(name, {"seeds": {}})
    own["command"] = report.command()
    own["seeds"].setdefault(seed, {}).update(found)


def cases(arguments: argparse.Namespace) -> Iterator[Item]:
    """Yields what is to be judged: the data, then the molecules of each seed."""
    folder = Path(arguments.workdir)
    yield DATA, "", folder / DATA, partial(held_out, arguments)
    for weights in arguments.weights:
        for mode in arguments.modes:
            for seed in arguments.seeds:
                case = Case(weights, mode, seed)
                draw = partial(molecules.draw, case, arguments.num_molecules, folder)
                yield f"{weights} {mode}", f"{seed}", folder / case.path.stem, draw


def held_out(arguments: argparse.Namespace) -> samples.Samples:
    """Returns molecules of the data that trained nothing, as if they were drawn."""
    whole = samples.read_reference(arguments.reference, "validation").molecules
    # More molecules begin with the same ones.
    order = np.random.default_rng(0).permutation(len(whole))[: arguments.num_data]
    some = [whole[place] for place in order]
    return samples.Samples(some, [None] * len(some), arguments.reference)


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "tables")
    add = parser.add_argument
    known = sorted(path.name for path in PRETRAINED.iterdir())
    add("--weights", nargs="*", default=["qm9", "qm9_cpu"], choices=known)
    add("--modes", nargs="+", default=[*MODES], choices=[*MODES])
    add("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    add("--num_molecules", type=int, default=10_000, help="of each seed")
    add("--num_data", type=int, default=10_000, help="held-out ones of the data")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--reference", default="qm9", help="data: a file or a name")
    add("--workdir", default="workdir/tables", help="molecules and what is known")
    add("--num_workers", type=int, default=1, help="processes for bond perception")
    add("--print", action="store_true", help="measure nothing, print all tables")
    add("--docs", nargs="*", type=Path, default=[], help="pages with marks of tables")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.tables", main))
