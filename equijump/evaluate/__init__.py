"""Judges trajectories against reference trajectories of the same system.

`equijump evaluate` is `main`; from Python, see `measure.evaluate`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from common.commands import cli
from common.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump evaluate` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    _check(arguments)

    # Imported late, so that --help and mistakes on the command line are quick.
    from common.commands.report import show
    from equijump.evaluate import inputs, measure, origin, report

    sides = _read(arguments)
    settings = measure.Settings(
        arguments.lag, arguments.num_resamples, arguments.seed, arguments.suite
    )
    result = measure.evaluate(*sides[:2], settings, sides[2], cli.progress)
    paths = inputs.find_files("--trajectory", arguments.trajectory)
    result["origin"] = origin.read(paths)
    page = report.to_html(result)
    folder = Path(arguments.output)
    show(result, page, report.print_report, folder, "equijump evaluate")
    for line in report.warnings(result):
        logging.warning("%s", line)
    return 0


def _read(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Returns the trajectory, its reference, and the native structure.

    The first two are `inputs.Replicas` of the same system. The last two are None where
    there are none.
    """
    from equijump.evaluate import inputs

    trajectory = inputs.read(
        "--trajectory",
        inputs.find_files("--trajectory", arguments.trajectory),
        arguments.topology,
        arguments.spacing,
        finite=False,
        select=arguments.select,
    )
    if arguments.reference:
        found = inputs.find_files("--reference", arguments.reference)
    else:
        found = inputs.packaged_reference(trajectory.system)
    reference = _read_reference(arguments, found) if found else None
    if reference is not None:
        inputs.check_same(
            reference.system, trajectory.system, "--trajectory", trajectory.names[0]
        )
    native = None
    if arguments.native:
        system = (reference or trajectory).system
        native = inputs.read_native(Path(arguments.native), system)
    return trajectory, reference, native


def _read_reference(arguments: argparse.Namespace, found: Sequence[Path]) -> Any:
    from equijump.evaluate import inputs

    is_given = bool(arguments.reference)
    return inputs.read(
        "--reference",
        found,
        arguments.reference_topology if is_given else None,
        arguments.reference_spacing,
        finite=True,
        select=arguments.select if is_given else "",
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "equijump evaluate", "Judges trajectories against reference trajectories."
    )
    add = parser.add_argument
    add(
        "--trajectory",
        required=True,
        nargs="+",
        action="extend",
        help="files or patterns to judge, one replica in each",
    )
    add(
        "--topology", help="file that names their atoms; by default the one beside them"
    )
    add(
        "--select",
        default="",
        help="atoms of both sides, in MDTraj's language; by default all of the protein",
    )
    add(
        "--reference",
        nargs="+",
        action="extend",
        help="files or patterns to compare with; by default what is packaged of the "
        "same system, or nothing",
    )
    add(
        "--reference_topology",
        help="file that names their atoms; by default beside them",
    )
    add(
        "-o", "--output", default="report", help="folder of report.json and report.html"
    )
    add("--overwrite", action="store_true", help="replace what --output has")
    add(
        "--lag",
        type=float,
        default=0.0,
        help="ps, of TICA and Markov models; 0 is the least multiple of the spacing "
        "from 10 ps on",
    )
    add("--spacing", type=float, default=0.0, help="ps, for formats without times")
    add("--reference_spacing", type=float, default=0.0, help="the same")
    add("--native", help="PDB to compare with; of a protein else the first frame")
    add(
        "--suite",
        choices=("mdgen",),
        default="",
        help="figures by the definitions of MDGen besides: distances",
    )
    add("--num_resamples", type=int, default=100, help="for intervals and floors")
    add("--seed", type=int, default=0, help="of resamples and clusters")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    for name in ("lag", "spacing", "reference_spacing", "seed"):
        value = getattr(arguments, name)
        if not 0 <= value < 1e9:
            raise UsageError(f"--{name}: expected 0 or more, found {value}")
    if arguments.num_resamples < 2:
        raise UsageError(
            f"--num_resamples: expected 2 or more, found {arguments.num_resamples}"
        )
    for name in ("reference_topology", "reference_spacing", "suite"):
        if getattr(arguments, name) and not arguments.reference:
            raise UsageError(f"--{name}: expected --reference beside it, found none")
    folder, overwrite = Path(arguments.output), arguments.overwrite
    cli.check_report(folder, "equijump evaluate", overwrite)
