"""Plots of a report as HTML with the images inside."""

from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

from common.commands.report import html_figure
from equijump.evaluate.sides import there

COLOURS = {"trajectory": "tab:blue", "reference": "0.35"}
_MOST_MAPS = 12
"""Residues whose Ramachandran maps are drawn, those that differ most; also curves."""


def array(values: Any) -> np.ndarray:
    """Returns an array in which None is NaN."""
    return np.array(values, dtype=float)


def fall(pair: tuple[str, dict[str, Any]]) -> float:
    """Returns what sorts distributions: the most different first."""
    entry = pair[1]
    return -(entry["floor"] if entry["js"] is None else entry["js"])


def plot_ramachandran(report: dict[str, Any]) -> matplotlib.figure.Figure | None:
    """Draws free energies over phi and psi, of both sides on one scale of colours."""
    found = report["distributions"].items()
    entries = [pair for pair in found if pair[1]["kind"] == "ramachandran"]
    if not entries:
        return None
    entries, names = sorted(entries, key=fall)[:_MOST_MAPS], there(report)
    size = (4.0 * len(names), 3.6 * len(entries))
    figure = matplotlib.figure.Figure(size, layout="constrained")
    panels = figure.subplots(
        len(entries), len(names), squeeze=False, sharex=True, sharey=True
    )
    for row, (name, entry) in zip(panels, entries, strict=True):
        edges = np.degrees(entry["edges"][0])
        for axes, side in zip(row, names, strict=True):
            energy = free_energy(entry["counts"][side]).reshape(len(edges) - 1, -1)
            image = axes.pcolormesh(edges, edges, energy.T, vmin=0, vmax=8)
            axes.set_title(f"{name}, {side}", fontsize=9)
            axes.set_aspect("equal")
        row[0].set_ylabel("psi (°)")
    panels[0, 0].set(xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
    for axes in panels[-1]:
        axes.set_xlabel("phi (°)")
    figure.colorbar(image, ax=panels[0], shrink=0.8, label="free energy (kT)")
    return figure


def free_energy(counts: Any) -> np.ndarray:
    r"""Returns $-\ln p$ in kT, zero at the least; NaN where nothing was counted.

    >>> free_energy([1, 2, 0]).round(3).tolist()
    [0.693, 0.0, nan]
    """
    shares = array(counts) / np.sum(counts)
    energy = -np.log(shares, out=np.full_like(shares, np.nan), where=shares > 0)
    return energy - np.nanmin(energy)


def _plot_free_energy(
    axes: matplotlib.axes.Axes, entry: dict[str, Any], side: str
) -> None:
    """Draws the free energy of one side, with its band."""
    edges, counts = array(entry["edges"][0]), array(entry["counts"][side])
    middles, colour = (edges[1:] + edges[:-1]) / 2, COLOURS[side]
    low, high = (
        -np.log(np.where(band > 0, band, np.nan))
        + np.log(np.max(counts / counts.sum()))
        for band in array(entry["bands"][side])
    )
    axes.plot(middles, free_energy(counts), ".-", ms=3, color=colour, label=side)
    axes.fill_between(middles, low, high, color=colour, alpha=0.2, lw=0)


def plot_free_energies(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws free energies along measures of the fold and slow coordinates."""
    found = report["distributions"].items()
    entries = [pair for pair in found if pair[1]["kind"] == "fold"]
    entries += [pair for pair in found if pair[1]["kind"] == "tic"]
    return _curves(entries[:_MOST_MAPS])


def plot_side_chains(report: dict[str, Any]) -> matplotlib.figure.Figure | None:
    """Draws free energies of torsions of side chains, those that differ most."""
    found = report["distributions"].items()
    entries = [pair for pair in found if " chi" in pair[0]]
    entries = sorted(entries, key=fall)[:_MOST_MAPS]
    return _curves(entries) if entries else None


def _curves(entries: list[tuple[str, dict[str, Any]]]) -> matplotlib.figure.Figure:
    num_rows = (len(entries) + 2) // 3
    figure = matplotlib.figure.Figure(figsize=(10, 2.8 * num_rows))
    for index, (name, entry) in enumerate(entries):
        axes = figure.add_subplot(num_rows, 3, index + 1)
        for side in there(entry["counts"]):
            _plot_free_energy(axes, entry, side)
        axes.set_xlabel(f"{name} ({entry['unit']})" if entry["unit"] else name)
        axes.set_ylabel("free energy (kT)")
    figure.axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def plot_time_scales(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws implied time-scales against the lag, with bands of resamples."""
    models = report["models"]
    figure = matplotlib.figure.Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    lags = array(models["lags"])
    for side in there(models):
        scales = models[side]["time_scales"]
        for place in range(len(scales[0])):
            value, low, high = (
                array([of_lag[place][key] for of_lag in scales])
                for key in ("value", "low", "high")
            )
            colour, label = COLOURS[side], side if place == 0 else None
            axes.plot(lags, value, "o-", color=colour, label=label)
            axes.fill_between(lags, low, high, color=colour, alpha=0.2, lw=0)
    shaded = np.linspace(lags[0], lags[-1], 100)  # Faster than the lag can tell.
    axes.fill_between(shaded, 1e-9, shaded, color="0.92", lw=0, zorder=0)
    axes.set(yscale="log", xlabel="lag (ps)", ylabel="implied time-scale (ps)")
    axes.set_ylim(bottom=0.5 * lags[0])
    axes.legend()
    return figure


def plot_correlations(report: dict[str, Any]) -> matplotlib.figure.Figure:
    """Draws autocorrelations against time, with bands of resamples."""
    found = report["correlations"]
    figure = matplotlib.figure.Figure(figsize=(9, 3.4))
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (signal, entry) in zip(panels, found.items(), strict=True):
        for side in there(entry):
            colour = COLOURS[side]
            low, high = array(entry[side]["band"])
            axes.plot(entry["times"], entry[side]["values"], color=colour, label=side)
            axes.fill_between(entry["times"], low, high, color=colour, alpha=0.2, lw=0)
        axes.axhline(0.0, color="0.7", lw=0.8)
        axes.set_xlabel("time (ps)")
        axes.set_ylabel(f"autocorrelation of {signal}")
    panels[0].legend()
    figure.tight_layout()
    return figure


def make_plots(report: dict[str, Any]) -> list[str]:
    """Returns the plots of populations and times as HTML with the images inside."""
    return _drawn({
        "Free energies": plot_free_energies(report),
        "Implied time-scales": plot_time_scales(report),
        "Autocorrelations": plot_correlations(report),
    })  # fmt: skip


def make_torsions(report: dict[str, Any]) -> list[str]:
    """Returns the plots of torsions, those that differ most first."""
    return _drawn({
        "Ramachandran maps": plot_ramachandran(report),
        "Side chains": plot_side_chains(report),
    })  # fmt: skip


def _drawn(figures: dict[str, matplotlib.figure.Figure | None]) -> list[str]:
    return [
        html_figure(figure, title)
        for title, figure in figures.items()
        if figure is not None
    ]
