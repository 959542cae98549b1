"""Pictures of a protein: course of time, contacts, secondary structure, motion."""

from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

from equijump.evaluate.plots import COLOURS, array, free_energy
from equijump.evaluate.sides import there

_COURSES = {
    "rmsd": "RMSD to native (Å)", "q": "native contacts Q", "rg": "Rg (Å)",
    "end_to_end": "end to end (Å)",
}  # fmt: skip
_FEW_TICKS = 10  # Of a map.
_FAR = 0.6  # Opacity of trajectories after the first.


def plot_courses(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws RMSD, native contacts and size against time, both sides on one scale."""
    series = report["structure"]["series"]
    names = there(series)
    rows = [name for name in _COURSES if name in series[names[0]][0]][:3]
    figure = matplotlib.figure.Figure((10, 2.1 * len(rows)), layout="constrained")
    panels = figure.subplots(
        len(rows), len(names), squeeze=False, sharex="col", sharey="row"
    )
    for line, what in zip(panels, rows, strict=True):
        for axes, side in zip(line, names, strict=True):
            for place, course in enumerate(series[side]):
                times = array(course["times"]) / 1000.0
                width, alpha = (1.1, 1.0) if place == 0 else (0.7, _FAR)
                axes.plot(times, course[what], lw=width, alpha=alpha)
            axes.grid(alpha=0.25)
        line[0].set_ylabel(_COURSES[what])
    for axes, side in zip(panels[0], names, strict=True):
        axes.set_title(f"{side}, {len(series[side])} of them")
    for axes in panels[-1]:
        axes.set_xlabel("time (ns)")
    return figure


def _residue_ticks(
    axes: matplotlib.axes.Axes, labels: list[str], at_most: int = 36
) -> None:
    step = -(-len(labels) // at_most)
    places = np.arange(0, len(labels), step)
    axes.set_xticks(places, [labels[place] for place in places], rotation=90)
    axes.tick_params(axis="x", labelsize=8)


def plot_residues(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws helix and strand of each residue where there is some, and its RMSF."""
    found = report["structure"]
    seen = [name for name in ("helix", "strand") if _is_seen(found[name])]
    rows = [(name, f"share in a {name}") for name in seen]
    rows.append(("rmsf", "RMSF (Å)"))
    figure = matplotlib.figure.Figure((10, 2.1 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    places = np.arange(len(found["residues"]))
    for axes, (name, title) in zip(panels, rows, strict=True):
        for shift, side in zip((-0.2, 0.2), there(found["rmsf"]), strict=False):
            values, colour = array(found[name][side]), COLOURS[side]
            if name == "rmsf":
                axes.plot(places, values, "o-", ms=3, color=colour, label=side)
            else:
                axes.bar(places + shift, values, 0.4, color=colour, label=side)
                axes.set_ylim(0.0, 1.0)
        axes.set_ylabel(title)
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    _residue_ticks(panels[-1], found["residues"])
    return figure


def _is_seen(shares: dict[str, list[float]] | None) -> bool:
    """Returns whether a residue is in such a structure in 1 % of the frames."""
    return shares is not None and max(map(max, shares.values())) >= 0.01


def contact_map(shares: list[float], size: int) -> np.ndarray:
    """Returns a symmetric matrix of what is kept of pairs, NaN along its diagonal.

    >>> contact_map([0.5, 1.0, 0.25], size=3)[0].tolist()
    [nan, 0.5, 1.0]
    """
    matrix = np.full((size, size), np.nan)
    upper = np.triu_indices(size, 1)
    matrix[upper] = shares
    matrix.T[upper] = shares
    return matrix


def plot_contacts(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws how often two CA are within 8 Å on both sides, and the difference."""
    found = report["structure"]
    size, names = len(found["residues"]), there(found["contacts"])
    maps = [contact_map(found["contacts"][side], size) for side in names]
    count = len(maps) + (len(maps) > 1)
    figure = matplotlib.figure.Figure((3.7 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    for axes, title, values in zip(panels, names, maps, strict=False):
        image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower")
        axes.set_title(title)
    figure.colorbar(image, ax=panels[:2], shrink=0.8, label="share of frames")
    if len(maps) > 1:
        image = panels[2].imshow(
            maps[0] - maps[1], vmin=-1, vmax=1, cmap="RdBu_r", origin="lower"
        )
        panels[2].set_title("trajectory less reference")
        figure.colorbar(image, ax=panels[2], shrink=0.8)
    for axes in panels:
        _residue_ticks(axes, found["residues"], _FEW_TICKS)
    step = -(-size // _FEW_TICKS)
    panels[0].set_yticks(np.arange(0, size, step), found["residues"][::step])
    panels[0].tick_params(axis="y", labelsize=8)
    return figure


def plot_slow_map(report: dict[str, Any]) -> matplotlib.figure.Figure | None:
    """Draws free energies over the two slowest coordinates of the reference."""
    entry = report["distributions"].get("TIC1, TIC2")
    if entry is None:
        return None
    names = there(entry["counts"])
    figure = matplotlib.figure.Figure((4.5 * len(names), 3.8), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharex=True, sharey=True)[0]
    first, second = map(array, entry["edges"])
    for axes, side in zip(panels, names, strict=True):
        energy = free_energy(entry["counts"][side]).reshape(len(first) - 1, -1)
        image = axes.pcolormesh(first, second, energy.T, vmin=0, vmax=8)
        axes.set(title=side, xlabel="TIC1")
    panels[0].set_ylabel("TIC2")
    figure.colorbar(image, ax=panels, label="free energy (kT)")
    return figure


def make_pictures(report: dict[str, Any]) -> dict[str, matplotlib.figure.Figure]:
    """Returns the pictures of a structure by their titles, the first ones of a page."""
    slow = plot_slow_map(report)
    last = {} if slow is None else {"Slow coordinates": slow}
    if report["structure"] is None:
        return last
    pictures = {
        "Course of time": plot_courses(report),
        "Secondary structure and fluctuations": plot_residues(report),
    }
    if len(report["structure"]["residues"]) > 3:
        pictures["Contacts of CA within 8 Å"] = plot_contacts(report)
    return pictures | last
