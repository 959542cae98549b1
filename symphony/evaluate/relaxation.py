"""Relaxation of valid molecules by GFN2-xTB, where the extra `eval` is installed."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from symphony.chemistry import deformation, pool

PACKAGE = "tblite"
NUM_MOLECULES = 50  # A third of a second each.
_CLOCK_FACTOR = 10.0  # Clock time allowed for each second of CPU time.


class Relaxation(NamedTuple):
    """Figures of the revised GEOM-Drugs evaluation; None where nothing was relaxed.

    Means of lengths, angles and torsions are over all of all molecules.

    Attributes:
        version: version of `tblite`.
        num_molecules: molecules that were relaxed.
        num_failed: molecules that were not.
        failures: their number by reason.
        bonds: mean change of a length, in Å.
        angles: mean change of an angle, in degrees.
        torsions: mean change of a torsion, in degrees.
        energy_median: median of the energy gained, in kcal/mol.
        energy_mean: mean of it.
        rmsd_median: median RMSD of all atoms, in Å.
    """

    version: str
    num_molecules: int
    num_failed: int
    failures: dict[str, int]
    bonds: float | None = None
    angles: float | None = None
    torsions: float | None = None
    energy_median: float | None = None
    energy_mean: float | None = None
    rmsd_median: float | None = None


def is_installed() -> bool:
    """Returns true if GFN2-xTB can be computed."""
    return importlib.util.find_spec(PACKAGE) is not None


def measure(
    mols: Sequence[Chem.Mol],
    num_workers: int = 1,
    time_limit: float = 10.0,
    on_done: pool.OnDone | None = None,
) -> Relaxation | None:
    """Relaxes molecules; None if `tblite` is not installed or there are none.

    Args:
        mols: sanitized molecules, with explicit hydrogens and one conformer in Å.
        num_workers: number of worker processes.
        time_limit: CPU seconds for one molecule.
        on_done: callback after every molecule, for progress bars.
    """
    if not is_installed() or not mols:
        return None
    tasks = [{"sdf": Chem.MolToMolBlock(m), "time_limit": time_limit} for m in mols]
    by_clock = _CLOCK_FACTOR * time_limit
    answers = pool.map_tasks(deformation.WORKER, tasks, num_workers, by_clock, on_done)
    failures: dict[str, int] = {}
    found = []
    for answer in answers:
        reason = answer if isinstance(answer, str) else answer.get("failure")
        if reason is None:
            found.append(deformation.Deformation(**answer))
        else:
            failures[reason] = failures.get(reason, 0) + 1
    return summarize(found, failures)


def summarize(
    found: Sequence[deformation.Deformation], failures: dict[str, int]
) -> Relaxation:
    """Returns the figures of some molecules that were relaxed, and of the others."""
    result = Relaxation(
        version=importlib.metadata.version(PACKAGE),
        num_molecules=len(found),
        num_failed=sum(failures.values()),
        failures=failures,
    )
    if not found:
        return result
    energies = np.array([one.energy for one in found])
    return result._replace(
        bonds=_mean([one.bonds for one in found]),
        angles=_mean([one.angles for one in found]),
        torsions=_mean([one.torsions for one in found]),
        energy_median=float(np.median(energies)),
        energy_mean=float(energies.mean()),
        rmsd_median=float(np.median([one.rmsd for one in found])),
    )


def _mean(values: Sequence[Sequence[float]]) -> float | None:
    together = [value for some in values for value in some]
    return float(np.mean(together)) if together else None
