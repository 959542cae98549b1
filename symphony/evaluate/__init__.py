"""Judges sampled molecules: validity by several conventions, and distributions.

`symphony evaluate` is `main`; from Python, see `measure.evaluate`.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.commands import cli, outcome, shards
from common.errors import UsageError
from symphony.inputs import add_input, input_of

if TYPE_CHECKING:
    from symphony.evaluate.parts import Perceived
    from symphony.evaluate.samples import Samples

COMMAND = "symphony evaluate"
_CONVENTIONS = "edm,xyz2mol,xyz2mol_hueckel,strict,geom_drugs"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony evaluate` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    arguments.samples = input_of(arguments, "samples")
    shard = shards.read(arguments.shard)
    _choose_conventions(arguments.conventions)
    _check(arguments)
    if shard is not None:
        return _judge_part(arguments, shard)

    # Imported late, so that --help and mistakes on the command line are quick.
    from symphony.evaluate import samples

    drawn = samples.read_samples(arguments.samples, arguments.max_molecules)
    return _report(arguments, drawn, None)


def whole_of(folder: Path) -> Path:
    """Returns the name that those of parts are made from, beside the report.

    >>> shards.path_of(whole_of(Path("report")), shards.Shard(0, 4)).name
    'report.0-of-4.json'
    """
    shards.check_name(folder)
    return folder.with_name(f"{folder.name}.json")


def merge(folder: Path, paths: Sequence[Path], overwrite: bool) -> int:
    """Makes the report of molecules that were judged in parts; returns the status.

    Args:
        folder: folder of the report.
        paths: what was judged of each part, in order; see `symphony.evaluate.parts`.
        overwrite: true to replace what stands there.

    Raises:
        UsageError: The parts are not of one run, or the molecules are others.
    """
    from symphony.evaluate import parts, samples

    cli.check_report(folder, COMMAND, overwrite)
    arguments, sha256, perceived = parts.read(paths)
    arguments.output, arguments.num_workers = folder, os.cpu_count() or 1
    drawn = samples.read_samples(arguments.samples, arguments.max_molecules)
    parts.check_samples(drawn, sha256, paths[0])
    return _report(arguments, drawn, perceived)


def _judge_part(arguments: argparse.Namespace, shard: shards.Shard) -> int:
    """Judges the molecules of a part, and keeps what was perceived for `merge`."""
    from symphony.evaluate import conventions, parts, samples

    path = shards.path_of(whole_of(Path(arguments.output)), shard)
    cli.check_own(COMMAND, path, [], arguments.overwrite)
    names = _choose_conventions(arguments.conventions)
    drawn = samples.read_samples(arguments.samples, arguments.max_molecules)
    # It is needed in the end only, but a mistake shall be told now.
    samples.read_reference(arguments.reference, arguments.reference_split)
    total = len(drawn.molecules)
    part = shards.span(shard, total)
    own = slice(part.start, part.stop)
    with _shown(names, {"xyz2mol_hueckel": len(part)}) as advance:
        perceived = conventions.perceive(
            drawn.molecules[own],
            names,
            drawn.faults[own],
            arguments.num_workers,
            arguments.time_limit,
            advance,
            drawn.charges[own],
        )
    place = shards.describe(shard, part, total)
    parts.write(path, arguments, drawn, place, perceived)
    sys.stdout.write(f"{path}: {len(part)} of {total} molecules judged\n")
    return 0


def _report(
    arguments: argparse.Namespace, drawn: "Samples", perceived: "Perceived | None"
) -> int:
    """Measures molecules and shows the report; returns the exit status.

    Args:
        arguments: flags.
        drawn: molecules.
        perceived: what was perceived of them before; None to do that now.
    """
    from common.commands.report import show
    from symphony.evaluate import measure, report, samples

    names = _choose_conventions(arguments.conventions)
    reference = samples.read_reference(arguments.reference, arguments.reference_split)
    numbers = {
        "xyz2mol_hueckel": len(drawn.molecules) if perceived is None else 0,
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
            perceived,
        )
    page = report.to_html(result)
    folder = Path(arguments.output)
    show(result, page, report.print_report, folder, COMMAND)
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
    if arguments.shard is None:
        cli.check_report(Path(arguments.output), COMMAND, arguments.overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        COMMAND, "Judges molecules by several conventions, against data."
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
    shards.add_flag(parser)
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
