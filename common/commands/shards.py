"""Parts of a run for several processes or machines: `--shard=i/n`, and their merge.

Part `i` of `n` has the `i`-th of `n` runs of consecutive pieces of work, molecules or
replicas. Numbers and seeds are those of the whole, so that a piece is the same in
whatever part. A part has an output of its own, `out.0-of-4.sdf` of `out.sdf`.
"""

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands.reading import differences
from common.errors import UsageError

RECORD = "shard"
"""Entry of what a part says of itself: its place, and its pieces of all."""

HELP = "part of the run, from 0, as 0/4; the output is named by it; merge joins all"


class Shard(NamedTuple):
    """A part of a run.

    Attributes:
        index: number of the part, from 0.
        count: number of parts.
    """

    index: int
    count: int


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--shard`."""
    parser.add_argument("--shard", metavar="I/N", help=HELP)


def read(text: str | None) -> Shard | None:
    """Returns the part that a flag names; None where it names none.

    >>> read("1/4")
    Shard(index=1, count=4)

    Raises:
        UsageError: It is no part.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    shard = found and Shard(*map(int, found.groups()))
    if shard is None or shard.index >= shard.count:
        raise UsageError(
            f"--shard: expected i/n with i from 0 to n - 1, as 0/4, found {text!r}"
        )
    return shard


def span(
    shard: Shard | None, total: int, unit: int = 1, what: str = "molecules"
) -> range:
    """Returns the pieces of a part; all of them where it is None.

    >>> [span(Shard(index, 3), 8) for index in range(3)]
    [range(0, 3), range(3, 6), range(6, 8)]

    Args:
        shard: part.
        total: number of pieces of all parts.
        unit: pieces that stay together.
        what: pieces in words, for the message.

    Raises:
        UsageError: There are more parts than units.
    """
    if shard is None:
        return range(total)
    num_units = -(-total // unit)
    if shard.count > num_units:
        together = f", of which {unit} stay together" if unit > 1 else ""
        raise UsageError(
            f"--shard: expected at most {num_units} parts of {total} {what}{together}, "
            f"found {shard.count}"
        )
    least, more = divmod(num_units, shard.count)
    bound = lambda index: unit * (least * index + min(index, more))
    return range(bound(shard.index), min(bound(shard.index + 1), total))


def path_of(path: Path, shard: Shard | None) -> Path:
    """Returns where a part writes, beside the output of the whole.

    >>> path_of(Path("runs/out.sdf"), Shard(0, 4)).name
    'out.0-of-4.sdf'

    Raises:
        UsageError: The whole has no name of its own.
    """
    if shard is None:
        return path
    check_name(path)
    return path.with_name(f"{path.stem}.{shard.index}-of-{shard.count}{path.suffix}")


def check_name(path: Path) -> None:
    """Raises `UsageError` for an output by which parts cannot be named.

    >>> check_name(Path("runs/out"))
    """
    if path.name in ("", ".."):
        raise UsageError(f"expected an output with a name of its own, found {path}")


def describe(shard: Shard | None, part: range, total: int) -> dict[str, Any]:
    """Returns what a part says of itself, for the head of its files.

    >>> describe(Shard(1, 2), range(4, 8), 8)["shard"]
    {'index': 1, 'count': 2, 'first': 4, 'end': 8, 'total': 8}
    """
    if shard is None:
        return {}
    pieces = {"first": part.start, "end": part.stop, "total": total}
    return {RECORD: {**shard._asdict(), **pieces}}


def part_of(header: Mapping[str, Any], total: int = 0) -> range:
    """Returns the pieces that files have by what their head says.

    >>> part_of({"shard": {"first": 4, "end": 8}}), part_of({"seed": 3}, total=5)
    (range(4, 8), range(0, 5))

    Args:
        header: head of the files.
        total: number of pieces where it is of no part.
    """
    own = header.get(RECORD)
    return range(total) if own is None else range(own["first"], own["end"])


def refuse(arguments: argparse.Namespace, names: Collection[str], merge: str) -> None:
    """Raises `UsageError` for flags that need all parts together.

    Args:
        arguments: flags of the command.
        names: names of these flags.
        merge: what to do in place of them, with the name of the command that joins.
    """
    given = [name for name in names if getattr(arguments, name)]
    if arguments.shard is not None and given:
        raise UsageError(
            f"--{given[0]}: expected no --shard beside it, since it needs all parts "
            f"together, found {arguments.shard}; {merge}"
        )


def find(path: Path) -> list[Path]:
    """Returns the outputs of all parts, in order, by the name of the whole; or none.

    Raises:
        UsageError: Some are missing, or there are those of two numbers of parts.
    """
    check_name(path)
    pattern = re.compile(
        rf"{re.escape(path.stem)}\.(0|[1-9]\d*)-of-([1-9]\d*){re.escape(path.suffix)}"
    )
    entries = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    matches = [pattern.fullmatch(entry.name) for entry in entries]
    found = {Shard(*map(int, match.groups())) for match in matches if match}
    counts = sorted({shard.count for shard in found})
    if not counts:
        return []
    if len(counts) > 1:
        listed = " and ".join(map(str, counts))
        raise UsageError(
            f"{path}: expected parts of one number beside it, found parts of {listed}; "
            "move those of another run away"
        )
    (count,) = counts
    wanted = [Shard(index, count) for index in range(count)]
    missing = [path_of(path, shard).name for shard in wanted if shard not in found]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise UsageError(
            f"{path}: expected {count} parts beside it, found {count - len(missing)}; "
            f"missing: {', '.join(missing[:8])}{more}"
        )
    return [path_of(path, shard) for shard in wanted]


def found(path: Path) -> list[Path]:
    """Returns the outputs of all parts; see `find`.

    Raises:
        UsageError: There is none, or some are missing.
    """
    paths = find(path)
    if not paths:
        raise UsageError(
            f"{path}: expected parts beside it, as {path_of(path, Shard(0, 4)).name}, "
            "found none; --shard makes them"
        )
    return paths


def check(
    paths: Sequence[Path],
    headers: Sequence[Mapping[str, Any]],
    free: frozenset[str] = frozenset(),
) -> None:
    """Raises `UsageError` for parts that are not all parts of one run.

    Args:
        paths: outputs of the parts, see `find`.
        headers: what each says of itself, see `describe`, and of its run.
        free: names in which the parts of a run may differ.
    """
    first, end = dict(headers[0]), 0
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        own = header.get(RECORD)
        if not _is_whole(own):
            raise UsageError(
                f"{path}: expected a part of a run, found none in what it says of "
                "itself"
            )
        total = first[RECORD]["total"]
        place = {"index": index, "count": len(paths), "first": end, "total": total}
        if index + 1 == len(paths):
            place["end"] = total
        wanted = {**first, RECORD: {**own, **place}}
        for name, expected, found in differences(wanted, dict(header), free):
            raise UsageError(
                f"{path}: expected a part of the run of {paths[0].name}, with {name} = "
                f"{expected}, found {found}"
            )
        end = own["end"]


def _is_whole(own: Any) -> bool:
    """Returns whether the entry of a part is as `describe` makes it."""
    names = (*Shard._fields, "first", "end", "total")
    return isinstance(own, dict) and all(type(own.get(x)) is int for x in names)
