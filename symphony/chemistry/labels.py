"""The worker process of `symphony properties`: a molecule in, its properties out.

A task has an SDF record (`sdf`), or `atomic_numbers` and `positions` in Å; the groups
of `symphony.chemistry.oracles` to compute; and a limit of CPU time. See
`symphony.chemistry.worker` for how tasks come and answers go.
"""

from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from symphony.arrays import AtomicNumbers, HostPositions
from symphony.chemistry import bonds, worker
from symphony.chemistry.oracles import GROUPS, NoValueError

PRESET = "xyz2mol_hueckel"
"""Convention of bonds where a file has none."""


class Molecule(NamedTuple):
    """A molecule of a file, with its bonds where the file has them."""

    atomic_numbers: AtomicNumbers
    positions: HostPositions
    bonded: Chem.Mol | None


def label(task: dict[str, Any]) -> dict[str, Any]:
    """Returns the properties of a molecule, and why some have no value.

    Returns:
        `values`: numbers by name; `failures`: reasons by group.
    """
    molecule = _molecule_of(task)
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name in task["groups"]:
        try:
            values |= _compute(name, molecule)
        except NoValueError as error:
            failures[name] = str(error)
    rounded = {key: float(f"{value:.6g}") for key, value in values.items()}
    return {"values": rounded, "failures": failures}


def _molecule_of(task: dict[str, Any]) -> Molecule:
    """Returns the atoms of a task, and its bonds if it has a record with some."""
    numbers = np.asarray(task["atomic_numbers"], np.uint8)
    positions = np.asarray(task["positions"], np.float64).reshape(-1, 3)
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(task.get("sdf", ""), removeHs=False)
    has_bonds = mol is not None and (mol.GetNumBonds() > 0 or len(numbers) == 1)
    return Molecule(numbers, positions, mol if has_bonds else None)


def _compute(name: str, molecule: Molecule) -> dict[str, float]:
    group, (numbers, positions, mol) = GROUPS[name], molecule
    fault = bonds.find_fault(numbers, positions)
    if fault is not None:
        raise NoValueError(fault)
    if mol is not None and any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        raise NoValueError("hydrogens are missing")
    charge = 0 if mol is None else Chem.GetFormalCharge(mol)
    if group.needs_bonds and mol is None:
        mol = bonds.perceive(numbers, positions, PRESET)
        if mol is None:
            raise NoValueError(f"no bonds by {PRESET}")
    with rdBase.BlockLogs():
        found = group.compute(mol, numbers, positions, charge)
    bad = [key for key, value in found.items() if not np.isfinite(value)]
    if bad:
        raise NoValueError(f"{bad[0]} is not finite")
    return found


if __name__ == "__main__":
    worker.run(label)
