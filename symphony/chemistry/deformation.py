"""How far relaxation by GFN2-xTB deforms a molecule; also a worker process.

The revised evaluation of GEOM-Drugs (see `symphony.chemistry.geom_drugs`): bonds,
angles and torsions before and after, the energy that is gained, and the RMSD. A task of
the worker has an SDF record and a limit of CPU time; see `symphony.chemistry.worker`.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolTransforms

from symphony.chemistry import relaxing, worker
from symphony.chemistry.oracles import NoValueError

WORKER = "symphony.chemistry.deformation"
_TURNING = Chem.MolFromSmarts("[!$(*#*)&!D1]~[!$(*#*)&!D1]")
"""Bonds with torsions: neither atom ends a chain or has a triple bond; rings count."""


class Deformation(NamedTuple):
    """What relaxation changes.

    Attributes:
        bonds: change of each length, in Å.
        angles: change of each angle between bonds, in degrees.
        torsions: change of each torsion, in degrees.
        energy: energy that is gained, in kcal/mol; not negative.
        rmsd: of all atoms after alignment, in Å.
    """

    bonds: list[float]
    angles: list[float]
    torsions: list[float]
    energy: float
    rmsd: float


def measure(mol: Chem.Mol) -> Deformation:
    """Relaxes a molecule with explicit hydrogens and measures what changes.

    Raises:
        NoValueError: GFN2-xTB has no energy for it, or it does not come to rest.
    """
    relaxed = relaxing.relax(mol, "gfn2")
    if not relaxed.is_converged:
        raise NoValueError("not relaxed")
    sides = mol, relaxed.mol
    return Deformation(
        bonds=_change([lengths(side) for side in sides]),
        angles=_change([angles(side) for side in sides]),
        torsions=_change([torsions(side) for side in sides], period=360.0),
        energy=-relaxed.energy_change / relaxing.KILOCALORIE,
        rmsd=relaxed.rmsd,
    )


def _change(sides: list[list[float]], period: float | None = None) -> list[float]:
    before, after = (np.asarray(side, np.float64) for side in sides)
    change = np.abs(after - before)
    if period is not None:
        change = np.minimum(change, period - change)
    return change.tolist()


def lengths(mol: Chem.Mol) -> list[float]:
    """Returns the length of each bond in Å."""
    places = mol.GetConformer()
    return [
        rdMolTransforms.GetBondLength(
            places, bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        )
        for bond in mol.GetBonds()
    ]


def angles(mol: Chem.Mol) -> list[float]:
    """Returns the angle of every two bonds of an atom, in degrees."""
    places = mol.GetConformer()
    found = []
    for atom in mol.GetAtoms():
        beside = [other.GetIdx() for other in atom.GetNeighbors()]
        for i, k in itertools.combinations(beside, 2):
            found.append(rdMolTransforms.GetAngleDeg(places, i, atom.GetIdx(), k))
    return found


def torsions(mol: Chem.Mol) -> list[float]:
    """Returns every torsion about every bond that `_TURNING` names, in degrees."""
    places = mol.GetConformer()
    found = []
    for j, k in mol.GetSubstructMatches(_TURNING, maxMatches=mol.GetNumBonds() + 1):
        first, second = (
            [n.GetIdx() for n in mol.GetAtomWithIdx(at).GetNeighbors()] for at in (j, k)
        )
        for i, end in itertools.product(first, second):
            if i != k and end not in (i, j):
                found.append(rdMolTransforms.GetDihedralDeg(places, i, j, k, end))
    return found


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `Deformation`; `failure` where there is none."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(task["sdf"], removeHs=False)
    if mol is None:
        return {"failure": "unreadable record"}
    try:
        return measure(mol)._asdict()
    except NoValueError as error:
        return {"failure": str(error)}


if __name__ == "__main__":
    worker.run(answer)
