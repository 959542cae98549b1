"""The page of `symphony view`: a grid of molecules, or the steps of one."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager

from absl import logging

from common.commands.cli import announce_device
from common.commands.report import html_page
from symphony.evaluate import conventions, measure, samples
from symphony.view import build_up, cards

Show = Callable[[int, str, str], AbstractContextManager[Callable[..., None]]]
"""Shows a stage of so many units of work: `common.commands.progress.progress`."""

ORDERS = {
    "file": "atoms in the order in which Symphony placed them",
    "drawn": "atoms in a drawn order, since symphony sample did not write the file",
}

_STYLE = "<style>body { max-width: 1240px; margin: 1em auto; }</style>"


def make_grid(arguments: argparse.Namespace, show: Show) -> str:
    """Returns a page with the molecules of a file.

    Args:
        arguments: flags of the command.
        show: function that shows the progress of the slow part.

    Raises:
        UsageError: The file cannot be read, or has nothing to show.
    """
    drawn = _first(arguments.molecules, arguments.max_molecules)
    with show(len(drawn.molecules), "perceiving bonds", "molecules") as advance:
        judged = conventions.judge(
            drawn.molecules,
            faults=drawn.faults,
            num_workers=arguments.num_workers,
            time_limit=arguments.time_limit,
            advance=_only_slow(advance),
            charges=drawn.charges,
        )
    made = cards.make(drawn, judged, len(drawn.molecules))
    parts = [_STYLE, cards.to_html(made)]
    return html_page("Molecules", _caption(drawn, judged), parts, measure.versions())


def _first(path: str, most: int) -> samples.Samples:
    """Returns the first molecules of a file; the others are told of."""
    drawn = samples.read_samples(path)
    total = len(drawn.molecules)
    if total <= most:
        return drawn
    logging.warning(
        "%s: only the first %d of %d molecules are shown; raise --max_molecules",
        drawn.source, most, total,
    )  # fmt: skip
    cut = {
        name: value[:most]
        for name, value in drawn._asdict().items()
        if name != "source" and value is not None
    }
    return drawn._replace(**cut)


def _only_slow(advance: Callable[..., None]) -> conventions.Advance:
    """Counts the molecules of the convention that takes the time."""
    done = 0

    def tell(name: str, num_done: int) -> None:
        nonlocal done
        if name == cards.PREFERRED[0] and num_done > done:
            advance(num_done - done)
            done = num_done

    return tell


def _caption(drawn: samples.Samples, judged: conventions.Judgement) -> str:
    parts = [f"{name} {score.num_valid}" for name, score in judged.scores.items()]
    total = len(drawn.molecules)
    return f"{drawn.source}: valid of {total} molecules: {', '.join(parts)}"


def make_build_up(arguments: argparse.Namespace) -> str:
    """Returns a page with one molecule step by step.

    Args:
        arguments: flags of the command.

    Raises:
        UsageError: There is no such molecule, or the network cannot build it.
    """
    drawn = samples.read_samples(arguments.molecules)
    origin = build_up.origin_of(drawn)
    weights = build_up.choose_weights(origin, arguments.checkpoint)
    announce_device()
    made = build_up.make(drawn, arguments.build_up, weights, origin, arguments.seed)
    words = [
        f"{made['name']}, molecule {arguments.build_up} of {drawn.source}",
        f"network {weights.name}",
        ORDERS[made["order"]],
        *(["its atoms were moved by refinement since"] if made["is_refined"] else []),
    ]
    parts = [_STYLE, build_up.to_html(made)]
    title = "A molecule step by step"
    return html_page(title, "; ".join(words), parts, measure.versions())
