"""The page of `equijump view`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from common.commands.report import html_page
from common.pages import embed
from common.runs.weights import versions
from equijump.evaluate import inputs, viewer
from equijump.view import gate, traces

_FOLDER = Path(__file__).parent
_WIDE = "<style>body { max-width: 1240px; margin: 1em auto; }</style>"


def choose(paths: Sequence[Path], most: int) -> list[Path]:
    """Returns the first files; the others are told of."""
    if len(paths) > most:
        logging.warning(
            "only the first %d of %d trajectories are shown; raise --max_trajectories",
            most, len(paths),
        )  # fmt: skip
    return list(paths[:most])


def make(
    replicas: inputs.Replicas,
    paths: Sequence[Path],
    max_frames: int,
    advance: Callable[..., None],
) -> str:
    """Returns a page with trajectories of one system.

    Args:
        replicas: trajectories.
        paths: file of each.
        max_frames: largest number of frames of each.
        advance: function that is called after each.

    Raises:
        UsageError: No frame has finite positions.
    """
    count = traces.num_shown(replicas, max_frames)
    bonds = traces.bonds_of(replicas, count)
    made, counts = [], 0
    for index, path in enumerate(paths):
        trace = traces.make(replicas, index, path, bonds, count)
        made.append(trace.values)
        counts = counts + trace.counts
        advance()
    data = {
        **viewer.describe_system(replicas.system),
        "residues": list(traces.residues_of(replicas.system)),
        "num_bins": traces.NUM_BINS,
        "counts": [embed.pack(_logarithm(one)) for one in counts],
        "trajectories": made,
    }
    title, caption = "Trajectories", _caption(replicas, paths, made)
    return html_page(title, caption, _parts(data), versions("equijump", "mdtraj"))


def _logarithm(counts: np.ndarray) -> np.ndarray:
    """Returns the logarithms of counts; NaN where nothing was counted."""
    found = np.full(counts.shape, np.nan)
    return np.log(counts, out=found, where=counts > 0)


def _parts(data: dict[str, Any]) -> list[str]:
    scripts = (embed.SHARED, viewer.SCRIPT, _FOLDER / "view.js")
    return [
        _WIDE,
        embed.style(_FOLDER / "view.css"),
        embed.block("trajectories", data),
        '<section class="trajectories" data-of="trajectories"></section>',
        embed.library(),
        *map(embed.script, scripts),
    ]


def _caption(
    replicas: inputs.Replicas, paths: Sequence[Path], made: Sequence[dict[str, Any]]
) -> str:
    total = sum(map(len, replicas.positions)) * replicas.spacing
    shown = max(one.get("spacing", 0.0) for one in made)
    folders = {path.parent: path for path in paths}
    told = [gate.read(path) for path in folders.values()]
    words = [
        f"{inputs.describe(replicas.system)}: {len(paths)} "
        f"{'trajectory' if len(paths) == 1 else 'trajectories'}, "
        f"{total / 1000:.4g} ns in all, a frame each {replicas.spacing:g} ps",
        *([f"shown each {shown:g} ps"] if shown > replicas.spacing else []),
        *(gate.describe(header) for header in told if header is not None),
    ]
    return ". ".join(f"{one[0].upper()}{one[1:]}" for one in words) + "."
