"""Shows an evaluation: tables on the terminal, a JSON file, a page with plots."""

import base64
import html
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from common.commands.files import write_own

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto;
  padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th.text, td.text { text-align: left; font-size: 90%; }
img { max-width: 100%; }
"""

Rows = list[list[str]]
"""A header and the rows of a table."""


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number for a table, a dash where there is none.

    >>> number(0.5, digits=2), number(None)
    ('0.50', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"


def print_tables(tables: Iterable[Rows], console: Console) -> None:
    """Prints the tables that have rows; no number is ever cut.

    Where the terminal is too narrow, headers are broken at their spaces, and then a
    table in several, each with the first column. Files and pipes have any width.

    >>> console = Console(file=io.StringIO())
    >>> print_tables([[["measure", "share"], ["valid", "0.95"]]], console)
    >>> console.file.getvalue().split()[-2:]
    ['valid', '0.95']
    """
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    for rows in filter(None, tables):
        for part in _fit(rows, console.width):
            _print_table(part, console)


_ANY_WIDTH = 10_000
_GAP = 2  # Between columns.


def _fit(rows: Rows, width: int) -> list[Rows]:
    """Returns a table in parts that are no wider than so many letters, if they can."""
    rows = [[*map(str, row)] for row in rows]
    if sum(_widths(rows)) > width:
        narrow = [max(map(cell_len, column)) for column in zip(*rows[1:], strict=True)]
        header = [
            "\n".join(textwrap.wrap(name, max(size, 1), break_long_words=False))
            for name, size in zip(rows[0], narrow, strict=True)
        ]
        rows = [header, *rows[1:]]
    first, *widths = _widths(rows)
    parts: list[list[int]] = [[]]
    for index, size in enumerate(widths, start=1):
        taken = first + sum(widths[other - 1] for other in parts[-1])
        if parts[-1] and taken + size > width:
            parts.append([])
        parts[-1].append(index)
    return [[[row[0], *(row[i] for i in part)] for row in rows] for part in parts]


def _widths(rows: Rows) -> list[int]:
    """Returns the letters that each column takes, with the space behind it."""
    columns = zip(*rows, strict=True)
    lines = ([line for cell in cells for line in cell.split("\n")] for cells in columns)
    return [_GAP + max(map(cell_len, column)) for column in lines]


def _print_table(rows: Rows, console: Console) -> None:
    table = Table(
        header_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    widths, width = _widths(rows), console.width
    for index, (name, size) in enumerate(zip(rows[0], widths, strict=True)):
        justify = "right" if index else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=size - _GAP)
    for row in rows[1:]:
        table.add_row(*row)
    console.width = max(width, sum(widths))
    console.print(table)
    console.width = width


def html_table(rows: Sequence[Sequence[str]], text: bool = False) -> str:
    """Returns a table; cells of `text` are set as prose.

    >>> html_table([["name"], ["a<b"]]).splitlines()[1]
    '<tr><td>a&lt;b</td>'
    """
    header, *body = rows
    kind = ' class="text"' if text else ""
    heads = (f"<th{kind}>{html.escape(head)}</th>" for head in header)
    lines = ["<table><tr>" + "".join(heads)]
    for row in body:
        cells = (f"<td{kind}>{html.escape(cell)}</td>" for cell in row)
        lines.append("<tr>" + "".join(cells))
    return "\n".join([*lines, "</table>"])


def html_figure(figure: Any, title: str) -> str:
    """Returns a figure of Matplotlib under its title, the image inside.

    >>> from matplotlib.figure import Figure
    >>> html_figure(Figure((1.0, 1.0)), "Energies").splitlines()[0]
    '<h2>Energies</h2>'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = html.escape(title)
    return f'<h2>{alt}</h2>\n<img alt="{alt}" src="data:image/png;base64,{data}">'


def html_page(
    title: str, caption: str, parts: Sequence[str], versions: dict[str, str]
) -> str:
    """Returns one page that needs nothing beside it.

    >>> html_page("Report", "Molecules.", [], {"numpy": "2.0"}).splitlines()[-1]
    '<p>numpy 2.0</body></html>'
    """
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>",
            f"<body><h1>{html.escape(title)}</h1><p>{html.escape(caption)}",
            *parts,
            f"<p>{html.escape(listed)}</body></html>\n",
        ]
    )


def show(
    report: dict[str, Any],
    page: str,
    print_report: Callable[[dict[str, Any], Console], None],
    folder: Path,
    command: str = "",
) -> None:
    """Writes a report into a folder and prints its tables.

    >>> import contextlib, tempfile
    >>> line = lambda report, console: console.print("valid", report["valid"])
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    ...     show({"valid": 0.95}, "<p>valid 0.95", line, Path("mine"))
    valid 0.95
    mine/report.html and report.json

    Args:
        report: numbers measured; JSON values.
        page: report as HTML.
        print_report: function that prints the tables of the report.
        folder: folder to write, made if needed.
        command: name of the command, which may replace the report later.
    """
    write(report, page, folder, command)
    console = Console()
    print_report(report, console)
    written = f"{folder / 'report.html'} and report.json"
    console.print(written, highlight=False, soft_wrap=True)


def write(report: dict[str, Any], page: str, folder: Path, command: str = "") -> None:
    """Writes `report.json` and `report.html` into a folder, which is made if needed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write({"valid": 0.95}, "<p>valid 0.95", Path(folder))
    ...     print(Path(folder, "report.html").read_text())
    <p>valid 0.95

    Args:
        report: numbers measured; JSON values.
        page: report as HTML.
        folder: folder to write.
        command: name of the command, by which it knows the report as its own; see
            `common.commands.files`.
    """
    write_own(command, folder / "report.json", report, {folder / "report.html": page})
