"""How long a peptide takes to forget its conformation, from its trajectories."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peptide_figures as figures
from benchmarks import peptides
from equijump.evaluate import inputs, residues

RELAXATION = 40.0  # ps, of pairs at 1/ps.


def decay_of(units: Sequence[residues.Unit], most: int) -> float:
    """Returns when 1/e of the correlation of alphaR among frames with phi < 0 is left.

    Args:
        units: phi and psi of each trajectory, in radians.
        most: largest lag, in frames.

    Returns:
        Time in frames, between two by their logarithms, and as of an exponential where
        it is longer than `most`; NaN where the state never changes.
    """
    before, scale = 0.0, float("nan")
    for lag in range(1, most + 1):
        scale = residues.helix_relaxation(units, lag)
        if np.isnan(scale):  # No change at all, or nothing left of a correlation.
            return float("nan") if lag == 1 else float(lag)
        logarithm = -lag / scale
        if logarithm <= -1.0:
            return lag - 1 + (1.0 + before) / (before - logarithm)
        before = logarithm
    return scale


def relaxation_of(lanes: figures.Lanes, system: Any, spacing: float) -> float | None:
    """Returns the median relaxation time of the residues of a peptide, in ps.

    Args:
        lanes: frames of each trajectory.
        system: system of all.
        spacing: ps between frames.
    """
    angles = figures.angles_of(lanes, system).folded
    most = min(map(len, lanes)) // 2
    found = [
        spacing * decay_of([lane[:, places] for lane in angles], most)
        for places in figures.phi_and_psi(system).values()
    ]
    known = [value for value in found if np.isfinite(value)]
    return float(np.median(known)) if known else None


def relaxation_in(sequence: str, paths: Sequence[Path]) -> float | None:
    """Returns the relaxation time of a packed peptide, None where there is none."""
    for path in paths:
        if path.stem == sequence:
            reference = peptides.read(path)
            return relaxation_of(
                list(reference.lanes), reference.system, reference.spacing
            )
    return None


@functools.cache
def ala2_relaxation() -> float:
    """Returns the relaxation time in the packaged trajectories, in ps."""
    paths = sorted(inputs.PACKAGED.glob("ala2_300K_*.xtc"))
    reference = inputs.read("--reference", paths, None, 0.0, finite=True)
    found = relaxation_of(reference.positions, reference.system, reference.spacing)
    return found or RELAXATION
