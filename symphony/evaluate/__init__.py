"""Judges sampled molecules: validity by several conventions, and distributions.

`symphony evaluate` is `main`; from Python, see `measure.evaluate`.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, outcome
from common.errors import UsageError
from symphony.inputs import add_input, input_of

_CONVENTIONS = "edm,xyz2mol,xyz2mol_hueckel,strict,geom_drugs"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony evaluate` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    arguments.samples = input_of(arguments, "samples")
    names = _choose_conventions(arguments.conventions)
    _check(arguments)

    # Imported late, so that --help and mistakes on the command line are quick.
    from common.commands.report import show
    from symphony.evaluate import measure, report, samples

    drawn = samples.read_samples(arguments.samples, arguments.max_molecules)
    reference = samples.read_reference(arguments.reference, arguments.reference_split)
    numbers = {
        "xyz2mol_hueckel": len(drawn.molecules),
        "reference": min(arguments.num_perceived, len(reference.molecules)),
        "known": 0 if reference.smiles else len(reference.molecules),
        "relaxed": arguments.num_relaxed if "geom_drugs" in names else 0,
    }
    with _shown(names, numbers) as advance:
        result = measure.evaluate(
            drawn,
            reference,
            names,
            arguments.num_workers,
            arguments.time_limit,
            arguments.num_perceived,
            advance,
            arguments.num_relaxed,
        )
    page = report.to_html(result)
    folder = Path(arguments.output)
    show(result, page, report.print_report, folder, "symphony evaluate")
    _check_judged(result)
    return 0


def _check_judged(result: dict[str, Any]) -> None:
    """Raises `RunError` if hardly any molecule could be judged by some convention."""
    for name, score in result["conventions"].items():
        outcome.judge(
            score["num_judged"],
            score["num_molecules"],
            f"molecules were judged by {name}",
            "the others crashed the process or took too long; raise --time_limit",
        )


def _check(arguments: argparse.Namespace) -> None:
    if arguments.num_workers < 1 or not 0 < arguments.time_limit < 1e6:
        raise UsageError(
            "expected --num_workers of at least 1 and --time_limit of 0 to 1e6 s, "
            f"found {arguments.num_workers} and {arguments.time_limit}"
        )
    largest = arguments.max_molecules
    numbers = arguments.num_perceived, arguments.num_relaxed
    if min(numbers) < 0 or (largest is not None and largest < 1):
        raise UsageError(
            "expected --num_perceived and --num_relaxed of at least 0 and "
            f"--max_molecules of at least 1, found {numbers[0]}, {numbers[1]} and "
            f"{largest}"
        )
    folder, overwrite = Path(arguments.output), arguments.overwrite
    cli.check_report(folder, "symphony evaluate", overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "symphony evaluate", "Judges molecules by several conventions, against data."
    )
    add = parser.add_argument
    add_input(parser, "samples")
    add("--reference", default="qm9-sample", help="data: a file or a packaged name")
    add(
        "--reference_split",
        choices=("train", "validation", "test"),
        default=None,
        help="part of the data to compare with; all of it by default",
    )
    add(
        "-o", "--output", default="report", help="folder of report.json and report.html"
    )
    add("--overwrite", action="store_true", help="replace what --output has")
    add("--conventions", default=_CONVENTIONS, help="names, divided by commas")
    add("--max_molecules", type=int, default=None, help="judge only the first ones")
    add(
        "--num_perceived",
        type=int,
        default=1000,
        help="molecules of the data whose bonds are perceived to compare geometry, "
        "about 5 ms each; 0 leaves geometry out",
    )
    add(
        "--num_relaxed",
        type=int,
        default=50,
        help="molecules that GFN2-xTB relaxes for geom_drugs where the extra eval is "
        "installed, .3 s each for nine heavy atoms; 0: none",
    )
    add(
        "--num_workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes for bond perception",
    )
    add("--time_limit", type=float, default=10.0, help="CPU seconds for one molecule")
    return parser


def _choose_conventions(text: str) -> tuple[str, ...]:
    known = _CONVENTIONS.split(",")
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or any(name not in known for name in names):
        raise UsageError(
            f"--conventions: expected one or more of {', '.join(known)}, found {text!r}"
        )
    return names


@contextlib.contextmanager
def _shown(
    names: Sequence[str], numbers: Mapping[str, int]
) -> Iterator[Callable[[str, int], None]]:
    """Shows the progress of the slow parts, bonds above all.

    Args:
        names: conventions.
        numbers: molecules of each part: those to judge by `xyz2mol_hueckel`, those of
            the data whose geometry is compared (`reference`) and whose SMILES must be
            perceived (`known`), and those that GFN2-xTB relaxes (`relaxed`).
    """
    if not {"xyz2mol_hueckel", "strict", "geom_drugs"} & set(names):
        yield lambda name, num_done: None
        return
    done = dict.fromkeys(numbers, 0)
    total = sum(numbers.values())
    with cli.progress(total, "perceiving bonds", "molecules") as advance:

        def tell(name: str, num_done: int) -> None:
            if num_done > done.get(name, num_done):
                advance(num_done - done[name])
                done[name] = num_done

        yield tell
