"""Folding and unfolding in trajectories, measured alike in a reference and a rollout.

Run: `python -m benchmarks.fast_folder --reference='workdir/cln025/*.xtc'
--rollout='workdir/folding/*.xtc'`. A trajectory is unfolded from where the fraction of
native contacts falls below the first of `--thresholds`, folded from where it rises
above the second, and remains so between. The folding time is the time spent unfolded
over the number of foldings; its interval is that of a Poisson count. That of the folded
share draws parts of the trajectories again.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2

from benchmarks import report
from common.errors import UsageError
from equijump import replicas

FARTHEST, STRETCH, STEEPNESS = 0.45, 1.2, 50.0  # nm, of a native length, 1/nm
RESIDUES_APART = 3
NATIVE = replicas.pdb_path("cln025")
_PARTS = 10  # Of a trajectory, for the interval of the folded share


class Passages(NamedTuple):
    """What one trajectory shows of folding.

    Attributes:
        is_folded: of each frame from the first that is folded or unfolded.
        foldings: number of them.
        unfoldings: number of them.
        spacing: time between frames, ps.
        first: time of the first folded frame, ps; NaN if there is none.
    """

    is_folded: Bool[np.ndarray, " num_frames"]
    foldings: int
    unfoldings: int
    spacing: float
    first: float


def contacts_of(native: mdtraj.Trajectory) -> dict[tuple[Any, Any], float]:
    """Returns the native contacts, by residue and name of atoms, and their lengths."""
    atoms = [
        a for a in native.topology.atoms if a.element.symbol != "H" and a.name != "OXT"
    ]
    found = {}
    for place, one in enumerate(atoms):
        for other in atoms[place + 1 :]:
            apart = np.linalg.norm(
                native.xyz[0, one.index] - native.xyz[0, other.index]
            )
            far = abs(one.residue.index - other.residue.index) >= RESIDUES_APART
            if far and apart < FARTHEST:
                found[_key(one), _key(other)] = float(apart)
    return found


def _key(atom: Any) -> tuple[int, str]:
    return atom.residue.index, atom.name


def fraction_native(
    frames: mdtraj.Trajectory, contacts: dict[tuple[Any, Any], float]
) -> Float[np.ndarray, " num_frames"]:
    """Returns the fraction of native contacts of each frame (Best et al. 2013)."""
    places = {_key(atom): atom.index for atom in frames.topology.atoms}
    pairs = np.array([[places[one], places[other]] for one, other in contacts])
    lengths = np.linalg.norm(
        frames.xyz[:, pairs[:, 0]] - frames.xyz[:, pairs[:, 1]], axis=-1
    )
    stretch = STEEPNESS * (lengths - STRETCH * np.array(list(contacts.values())))
    return (1.0 / (1.0 + np.exp(np.minimum(stretch, 50.0)))).mean(axis=1)


def passages(
    fractions: Float[np.ndarray, " num_frames"], spacing: float, low: float, high: float
) -> Passages:
    """Returns when a trajectory was folded, and how often it changed.

    >>> found = passages(np.array([0.9, 0.5, 0.0, 0.5, 0.7]), 2.0, 0.1, 0.6)
    >>> found.is_folded.tolist(), found.foldings, found.unfoldings, found.first
    ([True, True, False, False, True], 1, 1, 0.0)
    """
    marks = np.select([fractions > high, fractions < low], [1, -1], default=0)
    known = np.flatnonzero(marks)
    if not len(known):
        return Passages(np.zeros(0, bool), 0, 0, spacing, np.nan)
    last = np.maximum.accumulate(np.where(marks != 0, np.arange(len(marks)), 0))
    is_folded = marks[last[known[0] :]] == 1
    change = np.diff(is_folded.astype(int))
    folded = np.flatnonzero(marks == 1)
    first = float(folded[0] * spacing) if len(folded) else np.nan
    return Passages(
        is_folded, int((change == 1).sum()), int((change == -1).sum()), spacing, first
    )


def summarise(found: Sequence[Passages]) -> dict[str, Any]:
    """Returns the folded share and both times, with intervals, of trajectories."""
    folded = sum(p.is_folded.sum() * p.spacing for p in found)
    unfolded = sum((~p.is_folded).sum() * p.spacing for p in found)
    foldings, unfoldings = (sum(p[i] for p in found) for i in (1, 2))
    return {
        "time": float(folded + unfolded),
        "folded": float(folded / max(folded + unfolded, 1e-12)),
        "folded_interval_95": _interval_of_share(found),
        "foldings": foldings,
        "unfoldings": unfoldings,
        "folding_time": _time(unfolded, foldings),
        "unfolding_time": _time(folded, unfoldings),
        "first_folded": [p.first for p in found],
    }


def _time(spent: float, count: int) -> dict[str, Any]:
    """Returns the mean time of an event, ps, and its 95 % interval."""
    if count == 0:
        return {"mean": None, "interval_95": None}
    bounds = [
        2 * spent / chi2.ppf(p, 2 * n) for p, n in ((0.975, count + 1), (0.025, count))
    ]
    return {"mean": float(spent / count), "interval_95": [float(b) for b in bounds]}


def _interval_of_share(found: Sequence[Passages]) -> list[float]:
    parts = [
        np.array([part.sum(), len(part)])
        for p in found
        for part in np.array_split(p.is_folded, _PARTS)
    ]
    rng = np.random.default_rng(0)
    drawn: Int[np.ndarray, "draws parts"] = rng.integers(
        0, len(parts), (1_000, len(parts))
    )
    sums = np.array(parts)[drawn].sum(axis=1)
    shares = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return np.quantile(shares, (0.025, 0.975)).tolist()


def measure(
    pattern: str,
    topology: str | None,
    native: mdtraj.Trajectory,
    low: float,
    high: float,
) -> dict[str, Any]:
    """Returns what all trajectories of a pattern show.

    Args:
        pattern: pattern of paths.
        topology: PDB file; the only one beside the trajectories if None.
        native: native structure.
        low: fraction of native contacts below which a frame is unfolded.
        high: fraction above which it is folded.
    """
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise UsageError(f"expected trajectories, found none at {pattern}")
    beside = topology or str(next(Path(paths[0]).parent.glob("*.pdb")))
    contacts, found = contacts_of(native), []
    for path in paths:
        frames = mdtraj.load(path, top=beside)
        fractions = fraction_native(frames, contacts)
        spacing = float(np.median(np.diff(frames.time)))
        found.append(passages(fractions, spacing, low, high))
    return summarise(found)


def compare(rollout: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the difference of folded shares and the ratios of both times."""
    ratio = lambda name: (
        rollout[name]["mean"] / reference[name]["mean"]
        if rollout[name]["mean"] and reference[name]["mean"]
        else float("nan")
    )
    return {
        "folded_difference": rollout["folded"] - reference["folded"],
        "folding_time_ratio": ratio("folding_time"),
        "unfolding_time_ratio": ratio("unfolding_time"),
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = report.parser(__doc__, "fast_folder")
    parser.add_argument("--native", default=NATIVE, help="PDB file; CLN025 by default")
    parser.add_argument("--reference", required=True, help="pattern of trajectories")
    parser.add_argument("--rollout", help="pattern of trajectories")
    parser.add_argument(
        "--thresholds", type=float, nargs=2, default=(0.1, 0.5),
        help="fractions of native contacts, unfolded below, folded above",
    )  # fmt: skip
    arguments = parser.parse_args()
    native = mdtraj.load(str(arguments.native))
    results = {}
    for name in ("reference", "rollout"):
        if getattr(arguments, name):
            pattern = getattr(arguments, name)
            results[name] = measure(pattern, None, native, *arguments.thresholds)
    rows = [_row(name, found) for name, found in results.items()]
    report.show("Folding", _HEADINGS, rows)
    if len(results) == 2:
        results["comparison"] = compare(results["rollout"], results["reference"])
    results["thresholds"] = list(arguments.thresholds)
    report.write(arguments.output, **results)


_HEADINGS = (
    "",
    "time, ps",
    "folded",
    "foldings",
    "folding time, ps",
    "unfolding time, ps",
)


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    low, high = found["folded_interval_95"]
    return (
        name,
        f"{found['time']:.0f}",
        f"{found['folded']:.3f} ({low:.3f} to {high:.3f})",
        f"{found['foldings']}",
        *(_told(found[key]) for key in ("folding_time", "unfolding_time")),
    )


def _told(time: dict[str, Any]) -> str:
    if time["mean"] is None:
        return "none seen"
    low, high = time["interval_95"]
    return f"{time['mean']:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
