"""What the report of an evaluation shows: a caption, warnings, tables, an HTML page."""

from collections.abc import Sequence
from html import escape
from typing import Any

from rich.console import Console

from common.commands.report import html_figure, html_page, html_table, print_tables
from equijump.evaluate import origin, pictures, plots, tables, viewer
from equijump.evaluate.sides import there

MANY_REPEATED, FEW_COVERED = 0.5, 0.5
"""Shares of frames that repeat the one before, and that a Markov model covers, from
which a report warns."""


def warnings(report: dict[str, Any]) -> list[str]:
    """Returns in words what makes figures of a report mean little, with the remedy."""
    found = []
    for name in there(report):
        repeated = report["validity"][name]["repeated_fraction"]
        if repeated is not None and repeated > MANY_REPEATED:
            found.append(
                f"--{name}: {repeated:.1%} of frames repeat the one before; figures "
                "are of a molecule that stands still: leave repeated frames out, or "
                "sample with a smaller --lag or from weights trained for longer"
            )
        covered = report["models"][name]["covered_frames"]
        if covered < FEW_COVERED:
            found.append(
                f"--{name}: the Markov model covers {covered:.1%} of frames; times and "
                "reweighted figures leave the rest out: give longer trajectories or a "
                "smaller --lag"
            )
    return found


def _caption(report: dict[str, Any]) -> str:
    sides = [
        f"{side['nanoseconds']:.4g} ns in {side['units']}"
        for side in (report[name] for name in there(report))
    ]
    lost = len(report["trajectory"]["lost"])
    left_out = (
        f" ({lost} of {tables.num_replicas(report)} replicas lost)" if lost else ""
    )
    against = f"against {sides[1]}" if len(sides) > 1 else "without a reference"
    return ". ".join([
        f"{report['system']}: {sides[0]}{left_out} {against}, every "
        f"{report['spacing']:g} ps; states: {report['models']['states']}",
        *_native(report),
        *_words(report),
        *(f"Warning: {line}" for line in warnings(report)),
    ])  # fmt: skip


def _native(report: dict[str, Any]) -> list[str]:
    """Returns what is taken for the native structure, in words."""
    native = report["structure"] and report["structure"]["native"]
    return [f"Native is {native}"] if native else []


def _words(report: dict[str, Any]) -> list[str]:
    """Returns what data of either side do not allow, in words."""
    found = [(name, report["models"][name]["word"]) for name in there(report)]
    return [f"Of the {name}, {word}" for name, word in found if word]


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints the tables of a report."""
    for line in (_caption(report), *origin.lines_of(report.get("origin"))):
        console.print(line, highlight=False)
    shown = [
        tables.glance_rows(report),
        tables.divergence_rows(report, whole=False),
        tables.mdgen_rows(report),
        tables.decorrelation_rows(report),
        tables.time_rows(report, whole=False),
        tables.coverage_rows(report),
        tables.chapman_rows(report),
        tables.validity_rows(report),
        tables.lost_rows(report, whole=False),
        tables.stationarity_rows(report, whole=False),
    ]
    print_tables(shown, console)
    for name in ("divergence", "floor", "basins", "lost"):
        console.print(f"{name}: {report['definitions'][name]}", highlight=False)


def _worst_first(report: dict[str, Any]) -> dict[str, Any]:
    """Returns a report whose distributions are in falling order of divergence."""
    found = sorted(report["distributions"].items(), key=plots.fall)
    return {**report, "distributions": dict(found)}


def _of(report: dict[str, Any], *kinds: str) -> dict[str, Any]:
    """Returns a report with the distributions of some kinds."""
    found = report["distributions"].items()
    kept = {name: entry for name, entry in found if entry["kind"] in kinds}
    return {**report, "distributions": kept}


_ANGLES = ("ramachandran", "torsion")


def to_html(report: dict[str, Any]) -> str:
    """Returns one page that needs nothing beside it.

    That of a protein begins with its structure, and torsions come last, folded away;
    that of one residue begins with its torsions.
    """
    torsions = [
        html_table(tables.divergence_rows(_worst_first(_of(report, *_ANGLES)))),
        *plots.make_torsions(report),
    ]
    has_structure = report["structure"] is not None
    seen = [html_table(rows) for rows in (tables.glance_rows(report),) if rows]
    drawn = [
        html_figure(figure, title)
        for title, figure in pictures.make_pictures(report).items()
    ]
    told = [escape(line) for line in origin.lines_of(report.get("origin"))]
    parts = [
        *([f"<p>{'<br>'.join(told)}</p>"] if told else []),
        *seen,
        *([] if has_structure else torsions),
        viewer.to_html(report["viewer"]),
        *drawn,
        *plots.make_plots(report),
        *_tables(report),
    ]
    if has_structure:
        parts.append(_fold("Torsions, worst first", torsions))
    meanings = [["word", "meaning"], *map(list, report["definitions"].items())]
    parts.append(_fold("Definitions", [html_table(meanings, text=True)]))
    title, caption = "Evaluation of trajectories", _caption(report)
    return html_page(title, caption, parts, report["versions"])


def _tables(report: dict[str, Any]) -> list[str]:
    """Returns the tables of times and tests."""
    shown = [
        tables.divergence_rows(_of(report, "tic", "tics", "fold")),
        tables.mdgen_rows(report),
        tables.decorrelation_rows(report),
        tables.time_rows(report),
        tables.coverage_rows(report),
        tables.chapman_rows(report),
        tables.validity_rows(report),
        tables.stationarity_rows(report),
        tables.lost_rows(report),
    ]
    told = [html_table(rows) for rows in shown if len(rows) > 1]
    return ["<h2>Times, weights and tests</h2>", *told]


def _fold(title: str, parts: Sequence[str]) -> str:
    """Returns parts of a page that open where they are asked for."""
    head = f"<details><summary><b>{title}</b></summary>"
    return "\n".join([head, *parts, "</details>"])
