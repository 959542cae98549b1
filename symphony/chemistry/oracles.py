"""Properties of single molecules: by GFN2-xTB from positions, by RDKit from bonds.

A group of `GROUPS` computes some columns, each with a unit. Positions are in Å.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import QED, Crippen, RDConfig, rdMolDescriptors

from symphony.arrays import AtomicNumbers, HostPositions

BOHR = 0.529177210903  # Å
HARTREE = 27.211386245988  # eV
DEBYE = 2.541746473  # of one atomic unit of dipole moment
FIELD = 1e-3
"""Electric field in atomic units, in steps of which the polarizability is taken."""

RING_SIZES = (3, 4, 5, 6)


class Group(NamedTuple):
    """Columns that are computed together.

    Attributes:
        units: unit of each column by its name; empty for a pure number.
        compute: function `(bonded molecule or None, numbers, positions, charge)` that
            returns the columns.
        needs_bonds: true if it takes a molecule with bonds.
        module: module that must be installed.
    """

    units: Mapping[str, str]
    compute: Callable[..., dict[str, float]]
    needs_bonds: bool
    module: str


class NoValueError(Exception):
    """The reason why a molecule has no value."""


def gfn2(
    mol: Chem.Mol | None,
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    charge: int,
) -> dict[str, float]:
    r"""Returns gap, HOMO, LUMO, dipole moment and mean polarizability by GFN2-xTB.

    The polarizability is a third of the trace of $\partial\mu/\partial E$, by central
    differences of the dipole moment in six weak fields.

    Raises:
        NoValueError: The number of electrons is odd, or the charges do not converge.
    """
    del mol
    from tblite.exceptions import TBLiteRuntimeError  # An optional dependency.

    if (int(np.sum(atomic_numbers, dtype=np.int64)) - charge) % 2:
        raise NoValueError("an odd number of electrons")
    run = functools.partial(_single_point, atomic_numbers, positions, charge)
    try:
        ground = run(np.zeros(3))
        fields = FIELD * np.concatenate([np.eye(3), -np.eye(3)])
        dipoles = np.array([run(field).get("dipole") for field in fields])
    except TBLiteRuntimeError as error:
        raise NoValueError(str(error).strip() or "GFN2-xTB failed") from error
    energies = HARTREE * np.asarray(ground.get("orbital-energies"))
    is_filled = np.asarray(ground.get("orbital-occupations")) > 1.0
    if is_filled.all() or not is_filled.any():
        raise NoValueError("no orbital above or below the gap")
    homo, lumo = energies[is_filled].max(), energies[~is_filled].min()
    response = np.diagonal(dipoles[:3] - dipoles[3:]) / (2.0 * FIELD)
    return {
        "gap": float(lumo - homo),
        "homo": float(homo),
        "lumo": float(lumo),
        "dipole": DEBYE * float(np.linalg.norm(ground.get("dipole"))),
        "polarizability": float(response.mean()),
    }


def _single_point(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    charge: int,
    field: np.ndarray,
) -> Any:
    """Returns the results of tblite in an electric field, in atomic units."""
    from tblite.interface import Calculator
    from tblite.library import ffi

    numbers = np.asarray(atomic_numbers, np.int32)
    places = np.asarray(positions, np.float64) / BOHR
    calculator = Calculator("GFN2-xTB", numbers, places, charge=float(charge))
    calculator.set("verbosity", 0)
    if field.any():
        # Its own wrapper hands arrays on as they are, which C does not take.
        calculator.add("electric-field", ffi.from_buffer("double[]", field))
    return calculator.singlepoint()


def by_rdkit(
    mol: Chem.Mol | None,
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    charge: int,
) -> dict[str, float]:
    """Returns logP, TPSA, QED, the SA score and numbers of rings of a graph."""
    del atomic_numbers, positions, charge
    # The descriptors are made for implicit hydrogens; logP is the same with either.
    graph = Chem.RemoveHs(mol)
    sizes = [len(ring) for ring in Chem.GetSSSR(mol)]
    return {
        "logP": Crippen.MolLogP(graph),
        "TPSA": rdMolDescriptors.CalcTPSA(graph),
        "QED": QED.qed(graph),
        "SA_score": _sa_scorer().calculateScore(graph),
        "num_rings": len(sizes),
        "num_aromatic_rings": rdMolDescriptors.CalcNumAromaticRings(mol),
        **{f"num_rings_{size}": sizes.count(size) for size in RING_SIZES},
    }


@functools.cache
def _sa_scorer() -> Any:
    """Returns the module of Ertl and Schuffenhauer's score, of RDKit's `Contrib`."""
    folder = str(Path(RDConfig.RDContribDir, "SA_Score"))
    sys.path.append(folder)
    try:
        return importlib.import_module("sascorer")
    finally:
        sys.path.remove(folder)


GROUPS = {
    "gfn2": Group(
        {
            "gap": "eV", "homo": "eV", "lumo": "eV", "dipole": "D",
            "polarizability": "bohr^3",
        },
        gfn2, needs_bonds=False, module="tblite",
    ),
    "rdkit": Group(
        {
            "logP": "", "TPSA": "Å^2", "QED": "", "SA_score": "", "num_rings": "",
            "num_aromatic_rings": "",
            **{f"num_rings_{size}": "" for size in RING_SIZES},
        },
        by_rdkit, needs_bonds=True, module="rdkit",
    ),
}  # fmt: skip
