"""Every table of molecules that packaged weights give, and the tables of trainings.

    python -m benchmarks.tables --num_molecules=10000 --reference=qm9

It draws and judges molecules of each set of weights, at temperature 1 and in basin
mode, for each seed; judges molecules of the data in the same way; writes the figures to
`--output`; and prints tables in Markdown, with the figures that others published. What
is drawn and judged stays in `--workdir`: a run that was stopped goes on, and a larger
`--num_molecules` adds to it. `--print` prints what is known, with the other tables of
`benchmarks/results` and the command that made each; `--docs` puts the tables of
molecules between their marks in `docs/results.md`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from benchmarks import markdown, molecules, report
from benchmarks.molecules import MODES, Case, Data
from common.commands import cli
from common.errors import UsageError
from symphony.evaluate import measure, samples
from symphony.weights import PRETRAINED

DATA = "data"


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
    if arguments.docs is not None:
        markdown.put(arguments.docs, markdown.blocks(found))
    tables = list(markdown.blocks(found).values())
    if arguments.print:
        tables += markdown.others(report.RESULTS, leave_out=path.stem)
    sys.stdout.write("\n".join(tables))
    return 0


def measure_all(arguments: argparse.Namespace) -> None:
    """Measures every case, and writes the figures after each."""
    folder, workers = Path(arguments.workdir), arguments.num_workers
    data = molecules.read_data(arguments.reference, folder / "reference", workers)
    sets: dict[str, Any] = {DATA: {"seeds": {"": ceiling(arguments, data)}}}
    write(arguments.output, sets)
    for case in cases(arguments):
        logging.info("%s", case)
        drawn = molecules.draw(case, arguments.num_molecules, folder)
        slow = case.seed == arguments.seeds[0]
        own = folder / case.path.stem
        found = molecules.figures(drawn, data, own, workers, slow)
        name = f"{case.weights} {case.mode}"
        sets.setdefault(name, {"seeds": {}})["seeds"][str(case.seed)] = found
        write(arguments.output, sets)


def write(path: Path, sets: dict[str, Any]) -> None:
    """Writes the figures so far, with the versions that they depend on."""
    report.write(path, versions=measure.versions(), sets=sets)


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yields what is to be drawn."""
    for weights in arguments.weights:
        for mode in arguments.modes:
            for seed in arguments.seeds:
                yield Case(weights, mode, seed)


def ceiling(arguments: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Returns the figures of molecules of the data that did not train anything."""
    folder = Path(arguments.workdir) / DATA
    held_out = samples.read_reference(arguments.reference, "validation").molecules
    some = samples.choose(held_out, arguments.num_data)
    drawn = samples.Samples(some, [None] * len(some), arguments.reference)
    workers = arguments.num_workers
    return molecules.figures(drawn, data, folder, workers, slow=True)


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "tables")
    add = parser.add_argument
    known = sorted(path.name for path in PRETRAINED.iterdir())
    add("--weights", nargs="*", default=["qm9", "qm9_cpu"], choices=known)
    add("--modes", nargs="+", default=[*MODES], choices=[*MODES])
    add("--num_molecules", type=int, default=10_000, help="of each seed")
    add("--num_data", type=int, default=10_000, help="held-out ones of the data")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--reference", default="qm9", help="data: a file or a name")
    add("--workdir", default="workdir/tables", help="molecules and what is known")
    add("--num_workers", type=int, default=1, help="processes for bond perception")
    add("--print", action="store_true", help="measure nothing, print all tables")
    add("--docs", type=Path, default=None, help="page with marks, as docs/results.md")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.tables", main))
