"""The tables of an evaluation: rows of cells, for the terminal and for the page."""

from collections.abc import Iterator, Sequence
from typing import Any

from common.commands.report import Rows, number
from equijump.evaluate.sides import NAMES, there

_MOST_ROWS = 16
"""Rows of one kind on the terminal; beyond them their mean is shown."""


def _estimate(entry: dict[str, Any], digits: int, key: str = "value") -> str:
    """Returns a value with the ends of its interval."""
    if entry[key] is None or entry["low"] is None:
        return number(entry[key], digits)
    digits = digits if entry["high"] < 1000 else 0
    ends = f"{entry['low']:.{digits}f}–{entry['high']:.{digits}f}"
    return f"{entry[key]:.{digits}f} ({ends})"


_REST = ("floor", "root", "floor_root", "js_msm_reweighted")


def divergence_rows(report: dict[str, Any], whole: bool = True) -> Rows:
    """Returns a header and one row per quantity.

    Args:
        report: result of `measure.evaluate`.
        whole: true to list kinds of many rows; else their means.
    """
    is_alone = report["reference"] is None
    rows = [["", "JS, nats (95 %)", "floor", "√JS", "√floor", "MSM JS"]]
    if is_alone:
        rows = [["halves of the trajectories", "JS, nats", "√JS"]]
    kinds: dict[str, list[tuple[str, Any]]] = {}
    for name, entry in report["distributions"].items():
        kinds.setdefault(entry["kind"], []).append((name, entry))
    for kind, entries in kinds.items():
        if not whole and len(entries) > _MOST_ROWS:
            columns = {c: [entry[c] for _, entry in entries] for c in ("js", *_REST)}
            mean = {column: _mean(values) for column, values in columns.items()}
            name = f"{len(entries)} of {kind}, mean"
            entries = [(name, {**mean, "low": None})]
        make = _halves_row if is_alone else _divergence_row
        rows += [make(*entry) for entry in entries]
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _divergence_row(name: str, entry: dict[str, Any]) -> list[str]:
    digits = dict(zip(_REST, (4, 3, 3, 4), strict=True))
    rest = [number(entry[column], digits[column]) for column in _REST]
    return [name, _estimate(entry, 4, "js"), *rest]


def _halves_row(name: str, entry: dict[str, Any]) -> list[str]:
    return [name, number(entry["floor"], 4), number(entry["floor_root"], 3)]


def time_rows(report: dict[str, Any], whole: bool = True) -> Rows:
    """Returns a header and one row per time, weight or mean, of both sides.

    Args:
        report: result of `measure.evaluate`.
        whole: true to list the basins of more than two residues.
    """
    found = [*_model_times(report["models"])]
    for signal, entry in report["correlations"].items():
        pair = {n: entry[n]["decay_time"] for n in there(entry)}
        found.append((f"decay of {signal} to 1/e, ps", pair, 1))
    if whole or len(report["basins"]) <= 2:
        found += _basin_entries(report["basins"])
    models, names = report["models"], there(report)
    for basin in models[names[-1]]["weights"]:
        pair = {n: models[n]["weights"][basin] for n in names}
        found.append((f"{basin}, MSM-reweighted", pair, 3))
    for name, entry in report["distributions"].items():
        if entry["means"]:
            found.append((f"mean {name} {entry['unit']}".strip(), entry["means"], 3))
    rows = [["estimate (95 %)", *names]]
    for name, sides, digits in found:
        pair = [sides[side] for side in names]
        if any(entry["value"] is not None for entry in pair):
            rows.append([name, *(_estimate(entry, digits) for entry in pair)])
    return rows


Entry = tuple[str, dict[str, Any], int]
"""Name of a row, estimates of both sides, digits."""


def _model_times(models: dict[str, Any]) -> Iterator[Entry]:
    names = there(models)
    for index, lag in enumerate(models["lags"]):
        for place in range(len(models[names[-1]]["time_scales"][index])):
            if place == 0 or index == 0:
                pair = {n: models[n]["time_scales"][index][place] for n in names}
                yield f"time-scale {place + 1}, lag {lag:g}, ps", pair, 1
    for passage in models[names[-1]]["passage_times"]:
        pair = {n: models[n]["passage_times"][passage] for n in names}
        yield f"passage {passage}, ps", pair, 1


def _basin_entries(basins: dict[str, Any]) -> Iterator[Entry]:
    for label, sides in basins.items():
        names = there(sides)
        for basin in sides[names[-1]]["weights"]:
            pair = {n: sides[n]["weights"][basin] for n in names}
            yield f"{label} in {basin}", pair, 3
        pair = {n: sides[n]["crossings_per_ns"] for n in names}
        yield f"{label} crossings per ns", pair, 2


def chapman_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per set and time of the Chapman-Kolmogorov test.

    A cell has the probability to be in the same set as predicted by the model of the
    first lag, and as estimated by that of a longer one.
    """
    models, names = report["models"], there(report)
    rows = [["in the same set: predicted, estimated", *names]]
    for index, step in enumerate(models[names[-1]]["chapman_kolmogorov"]):
        for name in step["predicted"]:
            tests = [models[side]["chapman_kolmogorov"][index] for side in names]
            pairs = [(t["predicted"][name], t["estimated"][name]) for t in tests]
            if any(None not in pair for pair in pairs):
                cells = [", ".join(map(number, pair)) for pair in pairs]
                rows.append([f"{name}, after {step['time']:g} ps", *cells])
    return rows if len(rows) > 1 else []


def coverage_rows(report: dict[str, Any]) -> Rows:
    """Returns a header, and what the Markov models of the first lag cover."""
    models, names = report["models"], there(report)
    states = [
        f"{models[n]['connected_states']} of {models['num_states']}" for n in names
    ]
    frames = [_percent(models[name]["covered_frames"], 1) for name in names]
    return [
        ["covered by the Markov model", *names],
        ["states that connect", *states],
        ["frames in them, %", *frames],
    ]


def validity_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and one row per test of validity, of both sides."""
    found = report["validity"]
    mean = lambda values: _mean(list(values.values()))
    lines = {
        "bond lengths, RMS deviation, Å": lambda v: number(v["bond_rms"]),
        "largest deviation of a bond, Å": lambda v: number(v["worst_bond"], 3),
        "angles, RMS deviation, degrees": lambda v: number(v["angle_rms"], 3),
        "cis omega, %": lambda v: _percent(v["cis_fraction"]),
        "frames with a clash, %": lambda v: _percent(v["clash_fraction"]),
        "wrong handedness, %": lambda v: _percent(v["wrong_hand_fraction"]),
        "flips per residue and ns": lambda v: number(mean(v["flips_per_ns"])),
        "frames like the one before, %": lambda v: _percent(v["repeated_fraction"]),
    }
    names = there(report)
    num_lost, num_all = len(report["trajectory"]["lost"]), num_replicas(report)
    lost = [f"{num_lost} of {num_all}", "–"][: len(names)]
    return [
        ["validity", *names],
        ["replicas lost", *lost],
        *([name, *(line(found[n]) for n in names)] for name, line in lines.items()),
    ]


def _percent(fraction: float | None, digits: int = 3) -> str:
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def num_replicas(report: dict[str, Any]) -> int:
    """Returns the number of replicas of the rollout, lost ones too."""
    return report["trajectory"]["num_replicas"]


def stationarity_rows(report: dict[str, Any], whole: bool = True) -> Rows:
    """Returns a header and the divergence between first and last third of each side."""
    names = there(report)
    rows = [["first third against last, JS, nats", *names, "floor"]]
    for name, entry in report["distributions"].items():
        if whole or entry["kind"] in ("ramachandran", "tic", "tics"):
            cells = [number(entry["thirds"][side]) for side in names]
            rows.append([name, *cells, number(entry["floor"])])
    return rows if whole or len(rows) <= _MOST_ROWS else []


def lost_rows(report: dict[str, Any], whole: bool = True) -> Rows:
    """Returns a header and one row per lost replica; none where none is lost.

    Args:
        report: result of `measure.evaluate`.
        whole: true to list all of them, however many.
    """
    lost = report["trajectory"]["lost"]
    shown = lost if whole else lost[:_MOST_ROWS]
    rows = [["lost", "frame", "because of"]]
    rows += [[loss["name"], str(loss["frame"]), loss["reason"]] for loss in shown]
    if len(shown) < len(lost):
        rows.append([f"and {len(lost) - len(shown)} more", "", ""])
    return rows if lost else []


def glance_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and what a protein is judged by first; none of a residue.

    A row has the means of both sides, and the divergence of their distributions.
    """
    if report["structure"] is None:
        return []
    names = there(report)
    rows = [["at a glance (95 %)", *names, "JS, nats", "floor"]]
    folded = report["folding"]
    if folded:
        share = [_estimate(folded[side]["folded"], 3) for side in names]
        rows.append(["folded (Q of .5 or more)", *share, "–", "–"])
        for name in ("folding_time", "unfolding_time"):
            if any(folded[side][name]["value"] is not None for side in names):
                cells = [_estimate(folded[side][name], 1) for side in names]
                rows.append([f"{name.replace('_', ' ')}, ps", *cells, "–", "–"])
        counts = [f"{folded[n]['foldings']}, {folded[n]['unfoldings']}" for n in names]
        rows.append(["foldings, unfoldings", *counts, "–", "–"])
    for kind, label in _GLANCES.items():
        entry = report["distributions"].get(kind)
        if entry:
            means = [_estimate(entry["means"][side], 3) for side in names]
            rows.append([label, *means, number(entry["js"]), number(entry["floor"])])
    return [row[:-2] for row in rows] if report["reference"] is None else rows


_GLANCES = {
    "rmsd": "RMSD to native, Å", "q": "native contacts, Q", "rg": "Rg, Å",
    "end_to_end": "end to end, Å", "helix": "share in helices",
    "strand": "share in strands", "hydrogen_bonds": "backbone hydrogen bonds",
}  # fmt: skip


def mdgen_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and MDGen's figures beside their floor, where asked for."""
    found = report["mdgen"]
    if found is None:
        return []
    rows = [["MDGen's figures, JS distances", "trajectory", "floor"]]
    for name in MDGEN_NAMES:
        cells = [number(found[side][name], 3) for side in ("trajectory", "floor")]
        rows.append([MDGEN_NAMES[name], *cells])
    return rows


MDGEN_NAMES = {
    "backbone": "backbone torsions", "side_chain": "side-chain torsions",
    "all_torsions": "all torsions", "ramachandran": "phi and psi together",
    "tica_0": "TICA-0", "tica_01": "TICA-0,1", "msm_states": "states of the MSM",
}  # fmt: skip


def decorrelation_rows(report: dict[str, Any]) -> Rows:
    """Returns a header and MDGen's times of decorrelation, where asked for."""
    found = report["mdgen"]
    if found is None:
        return []
    rows = [["median decorrelation to 1/e, ps", *NAMES]]
    for name in ("backbone", "side_chain"):
        cells = [number(found["decorrelation"][side][name], 1) for side in NAMES]
        rows.append([MDGEN_NAMES[name], *cells])
    return rows
