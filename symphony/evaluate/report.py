"""Report of an evaluation: tables, plots, an HTML page."""

from typing import Any

import matplotlib.figure
import numpy as np
from rich.console import Console

from common.commands.report import (
    Rows,
    html_figure,
    html_page,
    html_table,
    number,
    print_tables,
)
from symphony.evaluate import conventions, relaxation
from symphony.view import cards


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def convention_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per convention, in per cent."""
    header = "convention, %", "valid", "±", "unique", "novel", "valid and unique"
    rows = [[*header, "stable atoms", "stable molecules"]]
    for name, score in report["conventions"].items():
        rows.append(
            [
                name,
                _percent(score["valid"]),
                _percent(score["valid_standard_error"]),
                _percent(score["unique"]),
                _percent(score["novel"]),
                _percent(score["valid_and_unique"]),
                _percent(score["atom_stability"]),
                _percent(score["molecule_stability"]),
            ]
        )
    return rows


def distribution_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per distance from the data."""
    rows = [["distance from the data", "samples", "data against data"]]
    rows.append(["sizes, JS (nats)", number(report["sizes"]["jensen_shannon"]), ""])
    geometry = report["geometry"]
    if geometry is None:
        return rows
    for key, label in (("species", "atom types"), ("environments", "environments")):
        value = geometry[f"jensen_shannon_{key}"]
        rows.append([f"{label}, JS (nats)", number(value), ""])
    for key, label in (("bond_length_mmd", "bond"), ("bispectrum_mmd", "angles")):
        for kind, entry in geometry[key].items():
            rows.append(
                [f"{label} {kind}, MMD", number(entry["mmd"]), number(entry["floor"])]
            )
    return rows


def ring_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per ring size, rings in a hundred molecules."""
    if report["geometry"] is None:
        return []
    rings = report["geometry"]["rings_per_molecule"]
    sides = [rings["samples"], rings["reference"]]
    sizes = sorted({size for side in sides for size in side or ()}, key=int)
    rows = [["ring size", "per 100 samples", "per 100 of the data"]]
    for size in sizes:
        # A side without molecules has no figure, one without such rings has zero.
        values = [None if side is None else 100 * side.get(size, 0.0) for side in sides]
        rows.append([size, *(number(value, digits=1) for value in values)])
    return rows


def pose_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per test of PoseBusters, in per cent."""
    poses = report["poses"]
    if poses is None:
        return []
    title = f"PoseBusters {poses['version']} {poses['config']}"
    rows = [[f"{title}, {poses['num_molecules']} valid molecules", "passed %"]]
    rows += [[name, _percent(value)] for name, value in poses["passed"].items()]
    return [*rows, ["all tests", _percent(poses["all_passed"])]]


def reasons(report: dict[str, Any]) -> list[str]:
    """Returns a line for each convention: why molecules are invalid, commonest first.

    Molecules that crashed a process or took too long are not invalid: they are told
    apart from the others.
    """
    lines, total = [], report["samples"]["num_molecules"]
    for name, score in report["conventions"].items():
        ordered = sorted(
            score["failures"].items(), key=lambda item: (-item[1], item[0])
        )
        invalid = [item for item in ordered if item[0] not in conventions.UNJUDGED]
        unjudged = [item for item in ordered if item[0] in conventions.UNJUDGED]
        for word, items in (("invalid", invalid), ("not judged", unjudged)):
            count = sum(number for _, number in items)
            words = ", ".join(f"{reason} {number}" for reason, number in items)
            if items:
                lines.append(f"{name}: {word} {count} of {total}: {words}")
    return lines


def _caption(report: dict[str, Any]) -> str:
    samples, reference = report["samples"], report["reference"]
    total, accepted = samples["num_molecules"], samples.get("num_accepted")
    gate = "" if accepted is None else f" (accepted: {_percent(accepted / total)} %)"
    return (
        f"{total} molecules of {samples['source']}{gate}, "
        f"{reference['num_molecules']} of the data {reference['source']}; "
        f"RDKit {report['versions']['rdkit']}"
    )


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints the tables of a report."""
    console.print(_caption(report), highlight=False)
    print_tables([convention_rows(report)], console)
    for line in reasons(report):
        console.print(line, highlight=False, soft_wrap=True)
    tables = [distribution_rows(report), ring_rows(report), pose_rows(report)]
    tables.append(relaxation.rows(report.get("relaxation")))
    print_tables(tables, console)


def _plot_validity(report: dict[str, Any]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(7, 3))
    axes = figure.add_subplot()
    judged = {k: v for k, v in report["conventions"].items() if v["valid"] is not None}
    scores = list(judged.values())
    axes.bar(
        list(judged),
        [100 * score["valid"] for score in scores],
        yerr=[100 * score["valid_standard_error"] for score in scores],
        color="tab:blue",
    )
    axes.set_ylabel("valid (%)")
    axes.set_ylim(0, 100)
    return figure


def _plot_bars(
    samples: dict[str, float], reference: dict[str, float], label: str, unit: str
) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(7, 3))
    axes = figure.add_subplot()
    keys = sorted({int(key) for key in (*samples, *reference)})
    places = np.array(keys, dtype=float)
    for counts, shift, name in ((samples, -0.2, "samples"), (reference, 0.2, "data")):
        values = [counts.get(str(key), 0) for key in keys]
        axes.bar(places + shift, values, width=0.4, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    axes.legend()
    return figure


def _normalized(counts: dict[str, int]) -> dict[str, float]:
    total = max(sum(counts.values()), 1)
    return {key: 100 * value / total for key, value in counts.items()}


def _plot_bond_lengths(lengths: dict[str, Any]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(11, 2.2 * ((len(lengths) + 4) // 5)))
    for index, (kind, sides) in enumerate(lengths.items()):
        axes = figure.add_subplot((len(lengths) + 4) // 5, 5, index + 1)
        low, high = np.quantile(sides["reference"], [0.005, 0.995])
        bins = np.linspace(low - 0.08, high + 0.08, 41)
        for name, side in (("samples", "samples"), ("data", "reference")):
            if sides[side]:
                axes.hist(sides[side], bins, density=True, alpha=0.55, label=name)
        axes.set_title(kind, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    if lengths:
        figure.axes[0].legend(fontsize=7)
        figure.supxlabel("length (Å)", fontsize=9)
    figure.tight_layout()
    return figure


def make_plots(report: dict[str, Any]) -> list[str]:
    """Returns the plots as HTML with the images inside."""
    sizes, geometry = report["sizes"], report["geometry"]
    shares = [_normalized(sizes[side]) for side in ("samples", "reference")]
    plots = [
        html_figure(_plot_validity(report), "Validity by convention"),
        html_figure(
            _plot_bars(*shares, "atoms in a molecule", "molecules (%)"), "Sizes"
        ),
    ]
    if geometry is not None and geometry["bond_lengths"]:
        lengths = _plot_bond_lengths(geometry["bond_lengths"])
        plots.append(html_figure(lengths, "Bond lengths"))
    if geometry is not None and any(geometry["rings_per_molecule"].values()):
        rings = geometry["rings_per_molecule"]
        sides = [rings[side] or {} for side in ("samples", "reference")]
        figure = _plot_bars(*sides, "ring size", "rings per molecule")
        plots.append(html_figure(figure, "Rings"))
    return plots


def _molecules(report: dict[str, Any]) -> list[str]:
    """Returns the grid of the molecules that the report has."""
    viewer = report["viewer"]
    if viewer is None:
        return []
    shown, total = len(viewer["molecules"]), viewer["num_molecules"]
    words = "" if shown == total else f": the first {shown} of {total}"
    return [f"<h2>Molecules{words}</h2>", cards.to_html(viewer)]


def to_html(report: dict[str, Any]) -> str:
    """Returns one page that needs nothing beside it."""
    definitions = [["convention", "definition", "invalid because"]]
    for name, score in report["conventions"].items():
        reasons = ", ".join(f"{why} {n}" for why, n in score["failures"].items())
        definitions.append([name, score["definition"], reasons or "–"])
    tables = [distribution_rows(report), ring_rows(report), pose_rows(report)]
    tables.append(relaxation.rows(report.get("relaxation")))
    parts = [
        html_table(convention_rows(report)),
        html_table(definitions, text=True),
        *_molecules(report),
        *make_plots(report),
        "<h2>Distances from the data</h2>",
        *(html_table(rows) for rows in tables if rows),
    ]
    title, caption = "Evaluation of molecules", _caption(report)
    return html_page(title, caption, parts, report["versions"])
