"""What relaxation changes in samples: `symphony evaluate --relax`. Å, eV."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.commands.report import Rows, number
from symphony import relax
from symphony.acceptance import BOND_PRESET
from symphony.chemistry import bonds

TITLES = {
    "energy_change_eV": "energy change, eV",
    "rmsd": "RMSD, Å",
    "force_eV_per_A": "force before, eV/Å",
}


def measure(molecules: Sequence[bonds.Molecule], method: str) -> dict[str, Any]:
    """Relaxes molecules; returns means and medians of what changes.

    Args:
        molecules: generated molecules that are valid, perceived within their time.
        method: one of `symphony.relax.NAMES`.
    """
    mols = [bonds.perceive(*molecule, BOND_PRESET) for molecule in molecules]
    named = [(str(index), mol) for index, mol in enumerate(mols)]
    found = [one for _, one in relax.relax_each(named, method)]
    done = [one for one in found if not isinstance(one, str)]
    values = {
        "energy_change_eV": [one.energy_change for one in done],
        "rmsd": [one.rmsd for one in done],
        "force_eV_per_A": [one.force for one in done],
    }
    return {
        "method": method,
        "bonds_perceived_by": BOND_PRESET,
        "num_molecules": len(found),
        "num_relaxed": len(done),
        "num_converged": sum(one.is_converged for one in done),
        **{name: _describe(numbers) for name, numbers in values.items()},
    }


def _describe(numbers: Sequence[float]) -> dict[str, float] | None:
    if not numbers:
        return None
    return {"mean": float(np.mean(numbers)), "median": float(np.median(numbers))}


def rows(found: dict[str, Any] | None) -> Rows:
    """Returns a header and a row for each number; none where nothing was relaxed.

    Args:
        found: what `measure` returned; None where nothing was asked.
    """
    if found is None:
        return []
    title = f"relaxation by {found['method']}, {found['num_relaxed']} valid molecules"
    table: Rows = [[title, "mean", "median"]]
    for name, title in TITLES.items():
        values = found[name] or {}
        table.append([title, *(number(values.get(x)) for x in ("mean", "median"))])
    return [*table, ["converged", str(found["num_converged"]), ""]]
