"""Flags, tables and JSON files of the benchmarks."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import timing

RESULTS = Path(__file__).parent / "results"


def parser(head: str, name: str) -> argparse.ArgumentParser:
    """Returns a parser with `--output`.

    Args:
        head: docstring of the script, whose first line describes it.
        name: name of the file of results.
    """
    found = argparse.ArgumentParser(description=head.splitlines()[0])
    default = RESULTS / f"{name}.json"
    found.add_argument("--output", type=Path, default=default, help="JSON file")
    return found


def show(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Sequence[str] = (),
    width: int = 160,
) -> None:
    """Prints a table.

    Args:
        title: title of the table.
        headings: headings of the columns.
        rows: cells of each row.
        left: headings of columns of words; numbers stand to the right.
        width: columns of the terminal.
    """
    table = Table(title=title)
    for heading in headings:
        justify = "left" if heading in left else "right"
        table.add_column(heading, justify=justify, no_wrap=heading not in left)
    for row in rows:
        table.add_row(*row)
    Console(width=width).print(table)


def command() -> str:
    """Returns the command that this process runs."""
    script = Path(sys.argv[0])
    name = f"{script.parent.name}.{script.stem}"
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def write(path: Path, **figures: Any) -> None:
    """Writes figures, the machine that they were measured on, and the command."""
    head = {"machine": timing.machine(), "command": command()}
    text = json.dumps({**head, **figures}, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
