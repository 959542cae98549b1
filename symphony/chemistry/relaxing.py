"""Relaxes single molecules by a force field, by GFN2-xTB or by an energy model. Å, eV.

`METHODS` names what relaxes, and the module that must be installed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers, rdMolAlign
from scipy import optimize

from common.errors import UsageError
from symphony import potential
from symphony.arrays import HostPositions
from symphony.chemistry.oracles import BOHR, HARTREE, NoValueError

KILOCALORIE = 0.0433641153  # eV, of one mole
MAX_STEPS = 500
FORCE = 0.01
"""Largest component of a force in eV/Å at which a molecule counts as relaxed."""


class Relaxed(NamedTuple):
    """A relaxed molecule.

    Attributes:
        mol: molecule with bonds, at the relaxed positions.
        energy: energy after, in eV; of MMFF94 only conformers can be compared.
        energy_change: energy after less that before, in eV; never positive.
        rmsd: root mean square distance of all atoms after alignment, in Å.
        force: root mean square force of an atom before, in eV/Å.
        is_converged: false if it was not relaxed after `MAX_STEPS`.
    """

    mol: Chem.Mol
    energy: float
    energy_change: float
    rmsd: float
    force: float
    is_converged: bool


Energy = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""From positions in Å, flat, to the energy in eV and its gradient in eV/Å."""


def by_mmff(mol: Chem.Mol) -> Energy:
    """Returns the energy of MMFF94.

    Raises:
        NoValueError: It has no parameters for an atom.
    """
    known = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    if known is None:
        raise NoValueError("MMFF94 has no parameters for an atom")
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, known)
    field.Initialize()

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        places = flat.tolist()
        # In this order: the gradient takes the distances of the energy before.
        value = field.CalcEnergy(places)
        return KILOCALORIE * value, KILOCALORIE * np.array(field.CalcGrad(places))

    return energy


def by_gfn2(mol: Chem.Mol) -> Energy:
    """Returns the energy of GFN2-xTB, which needs `tblite`."""
    from tblite.interface import Calculator  # An optional dependency.

    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.int32)
    charge = float(Chem.GetFormalCharge(mol))
    places = mol.GetConformer().GetPositions() / BOHR
    calculator = Calculator("GFN2-xTB", numbers, places, charge=charge)
    calculator.set("verbosity", 0)
    last: list[Any] = [None]

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        calculator.update(flat.reshape(-1, 3) / BOHR)
        # It starts from the charges of the geometry before.
        last[0] = calculator.singlepoint(last[0])
        gradient = np.asarray(last[0].get("gradient")).ravel()
        return HARTREE * float(last[0].get("energy")), HARTREE / BOHR * gradient

    return energy


@functools.cache
def _packaged() -> potential.Potential:
    return potential.load_potential("qm9_energy")


def by_model(mol: Chem.Mol) -> Energy:
    """Returns the energy of the packaged energy model.

    Raises:
        NoValueError: It has a charge or an element that the model does not know.
    """
    if charge := Chem.GetFormalCharge(mol):
        raise NoValueError(
            f"expected no charge for the energy model, found {charge:+d}"
        )
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            found = potential.answer(_packaged(), numbers, flat.reshape(-1, 3))
        except UsageError as error:
            raise NoValueError(str(error)) from error
        return found.energy, -np.asarray(found.forces, np.float64).ravel()

    return energy


METHODS = {
    "mmff": (by_mmff, "rdkit"),
    "gfn2": (by_gfn2, "tblite"),
    "energy": (by_model, "jax"),
}


def relax(mol: Chem.Mol, method: str) -> Relaxed:
    """Relaxes a molecule with explicit hydrogens from its only conformer.

    >>> from rdkit.Chem import rdDistGeom
    >>> water = Chem.AddHs(Chem.MolFromSmiles("O"))
    >>> rdDistGeom.EmbedMolecule(water, randomSeed=1)
    0
    >>> relax(water, "mmff").energy_change < 0.0
    True

    Args:
        mol: molecule with bonds.
        method: key of `METHODS`.

    Raises:
        NoValueError: The method has no energy for it.
    """
    start: HostPositions = mol.GetConformer().GetPositions()
    try:
        energy = METHODS[method][0](mol)
        before, gradient = energy(start.ravel())
        found = optimize.minimize(
            energy, start.ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": MAX_STEPS, "gtol": FORCE, "ftol": 1e-12},
        )  # fmt: skip
    except RuntimeError as error:  # That of tblite is one.
        raise NoValueError(str(error).strip() or f"{method} failed") from error
    relaxed = Chem.Mol(mol)
    relaxed.GetConformer().SetPositions(found.x.reshape(-1, 3))
    pairs = [(i, i) for i in range(mol.GetNumAtoms())]
    return Relaxed(
        mol=relaxed,
        energy=float(found.fun),
        energy_change=float(found.fun - before),
        rmsd=float(rdMolAlign.AlignMol(relaxed, mol, atomMap=pairs)),
        force=float(np.sqrt(np.mean(np.sum(gradient.reshape(-1, 3) ** 2, axis=1)))),
        is_converged=bool(np.abs(found.jac).max() < 2.0 * FORCE),
    )
