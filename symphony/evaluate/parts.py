"""What conventions perceive of a part of the molecules: `symphony evaluate --shard`.

Perception is the slow part of an evaluation. It is kept in a JSON file for each part,
with the flags of the command, and `symphony merge` makes the report of all.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, files, shards
from common.errors import UsageError
from symphony.chemistry.bonds import Perception
from symphony.evaluate import COMMAND
from symphony.evaluate.measure import versions
from symphony.evaluate.samples import Samples

FLAGS = (
    "samples", "reference", "reference_split", "conventions", "max_molecules",
    "num_perceived", "num_relaxed", "time_limit",
)  # fmt: skip
"""What decides a report."""

Perceived = dict[str, list[Perception]]
"""What conventions perceive of molecules, see `conventions.perceive`."""


def write(
    path: Path,
    arguments: argparse.Namespace,
    drawn: Samples,
    place: dict[str, Any],
    perceived: Perceived,
) -> None:
    """Writes what was perceived of a part.

    Args:
        path: JSON file to write.
        arguments: flags of the command.
        drawn: all molecules.
        place: place of the part, see `common.commands.shards.describe`.
        perceived: perceptions of the part.
    """
    values = {
        **place,
        "flags": {name: getattr(arguments, name) for name in FLAGS},
        "samples_sha256": files.digest(Path(drawn.source)),
        "versions": versions(),
        "perceived": perceived,
    }
    cli.write_own(COMMAND, path, values, {})


def read(paths: Sequence[Path]) -> tuple[argparse.Namespace, str, Perceived]:
    """Returns flags, SHA-256 of the molecules, and what was perceived of all.

    Raises:
        UsageError: The parts are not of one run, or were edited.
    """
    records = [cli.read_own(COMMAND, path, []) for path in paths]
    perceived: Perceived = {}
    for record in records:
        for name, rows in record.pop("perceived").items():
            perceived.setdefault(name, []).extend(map(_to_perception, rows))
    shards.check(paths, records)
    first = records[0]
    return argparse.Namespace(**first["flags"]), first["samples_sha256"], perceived


def check_samples(drawn: Samples, sha256: str, path: Path) -> None:
    """Raises `UsageError` for molecules that are not those that were judged."""
    if files.digest(Path(drawn.source)) != sha256:
        raise UsageError(
            f"{drawn.source}: expected the molecules that {path} is of, found others; "
            "judge them anew"
        )


def _to_perception(values: Sequence[Any]) -> Perception:
    """Returns a perception from its JSON values, lists made tuples."""
    found = Perception(*values)
    return found._replace(
        bonds=tuple(map(tuple, found.bonds)),
        ring_sizes=tuple(found.ring_sizes),
        charges=tuple(found.charges),
    )
