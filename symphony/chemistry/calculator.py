"""Energy models as calculators of ASE: relaxation, dynamics, vibrations.

    >>> from ase.build import molecule
    >>> from ase.optimize import BFGS
    >>> atoms = molecule("H2O")
    >>> atoms.calc = EnergyCalculator("workdir/energy_qm9")  # doctest: +SKIP
    >>> BFGS(atoms).run(fmax=0.01)                           # doctest: +SKIP

Å, eV, as in ASE.
"""

import os
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from ase.vibrations.data import VibrationsData
from jaxtyping import Float

from common.errors import UsageError
from symphony import potential as potentials


class EnergyCalculator(Calculator):
    """A calculator of energies, forces, and stress where the cell is periodic.

    Attributes:
        potential: energy model.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self, weights: str | os.PathLike[str] | potentials.Potential, **kwargs: Any
    ) -> None:
        """Loads weights.

        Args:
            weights: packaged name, folder of weights, or loaded weights.
            **kwargs: those of ASE's calculators.

        Raises:
            UsageError: There are no such weights.
        """
        super().__init__(**kwargs)
        is_loaded = isinstance(weights, potentials.Potential)
        self.potential = weights if is_loaded else potentials.load_potential(weights)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = None,
        system_changes: Any = all_changes,
    ) -> None:
        """Computes what the model has, whatever was asked for.

        Raises:
            UsageError: Elements are unknown, or some directions alone are periodic.
        """
        super().calculate(atoms, properties, system_changes)
        found = potentials.answer(self.potential, *_given(self.atoms))
        self.results = {
            "energy": float(found.energy),
            "free_energy": float(found.energy),
            "forces": np.asarray(found.forces, np.float64),
        }
        if found.stress is not None:
            stress = np.asarray(found.stress, np.float64)
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def get_hessian(
        self, atoms: Atoms
    ) -> Float[np.ndarray, "num_coordinates num_coordinates"]:
        """Returns the second derivatives of the energy, in eV/Å²."""
        return potentials.curvature(self.potential, *_given(atoms))

    def vibrations(self, atoms: Atoms) -> VibrationsData:
        """Returns the normal modes; of a crystal those of its cell as it is."""
        return VibrationsData.from_2d(atoms, self.get_hessian(atoms))


def _given(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if atoms.pbc.any() and not atoms.pbc.all():
        raise UsageError(
            "expected atoms that are periodic in all directions or in none, found "
            f"pbc = {atoms.pbc.tolist()}"
        )
    cell = atoms.cell.array if atoms.pbc.all() else None
    return atoms.numbers, atoms.positions, cell
