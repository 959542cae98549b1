"""Bonds from coordinates, by RDKit's xyz2mol, and what they say of a molecule.

A preset names the flags of one convention. Perception runs in worker processes that
can be killed (`symphony.chemistry.pool`), since RDKit can neither be interrupted nor
kept from writing to the C level standard output. Positions are in Å.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from symphony.arrays import AtomicNumbers, HostPositions
from symphony.chemistry import pool
from symphony.molfile import ATOMS

# Atomic numbers and positions in Å. The axes have no name, which would have to mean
# one size throughout a sequence of molecules.
Molecule = tuple[UInt8[np.ndarray, " _"], Float[np.ndarray, "_ 3"]]

COINCIDENCE_DISTANCE = 0.05  # Å; two atoms nearer than this are one by mistake.
# The search over bond orders grows exponentially on wrong geometries. Molecules of
# QM9 need fewer than a hundred combinations.
MAX_ITERATIONS = 10_000
_CLOCK_FACTOR = 10.0  # Clock time allowed for each second of CPU time.

WORKER = "symphony.chemistry.worker"
PRESETS = {
    "xyz2mol": {"useHueckel": False, "allowChargedFragments": True},
    "xyz2mol_hueckel": {"useHueckel": True, "allowChargedFragments": True},
}
# Judged on the molecule that "xyz2mol_hueckel" perceives.
STRICT = "strict"
STRICT_PARENT = "xyz2mol_hueckel"
EDM = "edm"


class Perception(NamedTuple):
    """Result of one convention for one molecule.

    `status` is `"valid"` or the reason of failure; the rest is empty if no molecule
    was perceived at all.
    """

    status: str
    smiles: str = ""  # Canonical, with explicit hydrogens and stereochemistry.
    graph_smiles: str = ""  # Canonical, hydrogens implicit, no stereochemistry.
    bonds: tuple[tuple[int, int, float], ...] = ()  # Atom, atom, order (aromatic 1.5).
    ring_sizes: tuple[int, ...] = ()  # Smallest set of smallest rings.
    num_fragments: int = 0
    num_charged_atoms: int = 0
    num_radical_electrons: int = 0
    charges: tuple[int, ...] = ()  # Formal charge of each atom.


class SdfRecord(NamedTuple):
    """A molecule as text; both are empty where the convention finds no bonds."""

    smiles: str | None  # Canonical, hydrogens implicit.
    sdf: str


class Validity(NamedTuple):
    """Counts of one convention over a set of molecules; fractions in [0, 1]."""

    num_molecules: int
    num_valid: int
    num_unique: int  # Distinct canonical SMILES among the valid.
    valid: float  # Of all molecules, the bad and unfinished among them.
    unique: float  # Of the valid ones.
    failures: dict[str, int]  # Number of molecules by reason.
    perceptions: list[Perception]


def find_fault(atomic_numbers: AtomicNumbers, positions: HostPositions) -> str | None:
    """Returns why the molecule cannot be judged by any convention, or None.

    >>> find_fault(np.array([6, 1], np.uint8), np.array([[0.0, 0, 0], [0, 0, 0.01]]))
    'coincident atoms'
    """
    if len(atomic_numbers) == 0:
        return "no atoms"
    if not np.all(np.isfinite(positions)):
        return "positions not finite"
    if np.any(atomic_numbers == 0) or np.any(atomic_numbers > 118):
        return "unknown element"
    differences = positions[:, None] - positions[None, :]
    distances = np.sqrt(np.sum(differences.astype(np.float64) ** 2, axis=-1))
    if np.any(distances[np.triu_indices(len(distances), 1)] < COINCIDENCE_DISTANCE):
        return "coincident atoms"
    return None


@contextlib.contextmanager
def _output_silenced() -> Iterator[None]:
    """Sends descriptors 1 and 2 to nowhere: the Hückel code writes there from C."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C keeps back what goes to a pipe or a file.
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def to_mol(atomic_numbers: AtomicNumbers, positions: HostPositions) -> Chem.RWMol:
    """Returns a molecule without bonds and with one conformer, in Å."""
    mol = Chem.RWMol()
    for number in atomic_numbers:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    conformer = Chem.Conformer(len(atomic_numbers))
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    mol.AddConformer(conformer, assignId=True)
    return mol


def perceive(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    preset: str,
    charge: int = 0,
) -> Chem.Mol | None:
    """Finds the bonds of a molecule in this process, without a time limit.

    Args:
        atomic_numbers: nuclear charges.
        positions: coordinates in Å.
        preset: key of `PRESETS`, or `"strict"`: one fragment, no radical and no more
            atoms with a formal charge than the charge asks for in what
            `"xyz2mol_hueckel"` perceives; or `"edm"`: bonds by EDM's table of lengths.
        charge: charge of the molecule, in e; EDM's table knows none.

    Returns:
        The sanitized molecule with explicit hydrogens, or None if the convention
        calls it invalid.
    """
    if preset == EDM:
        from symphony.chemistry import edm  # It judges by this module.

        return edm.to_mol(atomic_numbers, positions)
    molecule = atomic_numbers, positions, preset, charge
    mol, status = _perceive_with_status(*molecule)
    return mol if status == "valid" else None


def _perceive_with_status(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    preset: str,
    charge: int,
) -> tuple[Chem.Mol | None, str]:
    fault = find_fault(atomic_numbers, positions)
    if fault is not None:
        return None, fault
    mol = to_mol(atomic_numbers, positions)
    flags = PRESETS[STRICT_PARENT if preset == STRICT else preset]
    with rdBase.BlockLogs(), _output_silenced():
        try:
            rdDetermineBonds.DetermineBonds(
                mol, charge=charge, maxIterations=MAX_ITERATIONS, **flags
            )
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError) as error:
            return None, _name_failure(error)
    if mol.GetNumBonds() == 0:
        return None, "no bonds"
    mol = mol.GetMol()
    if preset == STRICT:
        return mol, judge_strictly(describe(mol)).status
    return mol, "valid"


def _name_failure(error: Exception) -> str:
    text = str(error)
    if "charge" in text and "match" in text:
        return "net charge"
    if "iterations" in text.lower() or "Iters" in text:
        return "too many bond orders to try"
    if isinstance(error, Chem.MolSanitizeException):
        return "valence"
    return "no bond orders fit"


def describe(mol: Chem.Mol) -> Perception:
    """Reduces a sanitized molecule to what the metrics need."""
    graph = Chem.RemoveHs(mol, sanitize=False)
    charges = tuple(atom.GetFormalCharge() for atom in mol.GetAtoms())
    return Perception(
        status="valid",
        smiles=Chem.MolToSmiles(mol),
        graph_smiles=Chem.MolToSmiles(graph, isomericSmiles=False),
        bonds=tuple(
            (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble())
            for bond in mol.GetBonds()
        ),
        ring_sizes=tuple(len(ring) for ring in Chem.GetSSSR(mol)),
        num_fragments=len(Chem.GetMolFrags(mol)),
        num_charged_atoms=sum(charge != 0 for charge in charges),
        num_radical_electrons=sum(
            atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()
        ),
        charges=charges,
    )


def judge_strictly(perception: Perception) -> Perception:
    """Turns a perception of `"xyz2mol_hueckel"` into one of `"strict"`."""
    if perception.status != "valid":
        return perception
    if perception.num_fragments != 1:
        return perception._replace(status="disconnected")
    if perception.num_charged_atoms > abs(sum(perception.charges)):
        return perception._replace(status="formal charges")
    if perception.num_radical_electrons:
        return perception._replace(status="radical")
    return perception


def describe_molecule(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    preset: str,
    charge: int = 0,
) -> Perception:
    """Perceives one molecule in this process; failures are statuses."""
    molecule = atomic_numbers, positions, preset, charge
    mol, status = _perceive_with_status(*molecule)
    if mol is None:
        return Perception(status)
    return describe(mol)._replace(status=status)


def to_sdf(
    atomic_numbers: AtomicNumbers,
    positions: HostPositions,
    preset: str,
    name: str,
    properties: Mapping[str, Any],
    charge: int = 0,
) -> SdfRecord:
    """Perceives one molecule in this process and writes it as a record of an SDF.

    Args:
        atomic_numbers: nuclear charges.
        positions: coordinates in Å.
        preset: convention; see `perceive`.
        name: title of the record.
        properties: further fields; `smiles` is added.
        charge: charge of the molecule, in e.
    """
    mol = perceive(atomic_numbers, positions, preset, charge)
    if mol is None:
        return SdfRecord(None, "")
    smiles = write_smiles(mol)
    set_properties(mol, name, {**properties, "smiles": smiles})
    return SdfRecord(smiles, Chem.SDWriter.GetText(mol))


def write_smiles(mol: Chem.Mol) -> str:
    """Returns canonical SMILES, hydrogens implicit."""
    with rdBase.BlockLogs():  # RDKit tells of every hydrogen that it leaves.
        return Chem.MolToSmiles(Chem.RemoveHs(mol, sanitize=False))


def set_properties(mol: Chem.Mol, name: str, properties: Mapping[str, Any]) -> None:
    """Gives a molecule its title and the fields of its record, as text.

    Atoms get the numbers of RDKit's lists, as `atom.dprop.log_likelihood`.
    """
    mol.SetProp("_Name", name)
    for key, value in properties.items():
        mol.SetProp(key, str(value))
        if key.startswith(ATOMS):
            _set_of_atoms(mol, key.removeprefix(ATOMS), str(value).split())


def _set_of_atoms(mol: Chem.Mol, name: str, words: Sequence[str]) -> None:
    for atom, word in zip(mol.GetAtoms(), words, strict=True):
        if word != "n/a":
            atom.SetDoubleProp(name, float(word))


def perceive_all(
    molecules: Sequence[Molecule],
    preset: str,
    num_workers: int = 1,
    time_limit: float = 10.0,
    on_done: pool.OnDone | None = None,
    charges: Sequence[int] | None = None,
) -> list[Perception]:
    """Perceives many molecules in worker processes.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        preset: key of `PRESETS`, or `"strict"`.
        num_workers: number of processes.
        time_limit: CPU time for one molecule in s, or ten times as long by the clock;
            then its process is ended and its status is `"timeout"`. CPU time
            makes the figures independent of what else the machine does.
        on_done: callback after every molecule, for progress bars.
        charges: charge of each molecule, in e; all are neutral where None.

    Returns:
        One perception per molecule, in the given order. A process that dies makes
        the status `"crash"`.
    """
    parent = STRICT_PARENT if preset == STRICT else preset
    charges = [0] * len(molecules) if charges is None else list(map(int, charges))
    tasks = [
        {
            "preset": parent,
            "time_limit": time_limit,
            "atomic_numbers": np.asarray(numbers).tolist(),
            "positions": np.asarray(positions, np.float64).tolist(),
            "charge": charge,
        }
        for (numbers, positions), charge in zip(molecules, charges, strict=True)
    ]
    by_clock = _CLOCK_FACTOR * time_limit
    answers = pool.map_tasks(WORKER, tasks, num_workers, by_clock, on_done)
    perceptions = [_from_answer(answer) for answer in answers]
    if preset == STRICT:
        return [judge_strictly(perception) for perception in perceptions]
    return perceptions


def _from_answer(answer: dict | str) -> Perception:
    if isinstance(answer, str):
        return Perception(answer)
    return from_json(answer)


def from_json(values: Mapping[str, Any]) -> Perception:
    """Returns a perception whose fields went through JSON.

    >>> from_json({"status": "valid", "ring_sizes": [6]}).ring_sizes
    (6,)
    """
    found = dict(values)
    found["bonds"] = tuple((i, j, order) for i, j, order in found.get("bonds", ()))
    for name in ("ring_sizes", "charges"):
        found[name] = tuple(found.get(name, ()))
    return Perception(**found)


def summarize(perceptions: Sequence[Perception]) -> Validity:
    """Counts the valid and, among them, the distinct molecules."""
    valid = [p for p in perceptions if p.status == "valid"]
    unique = {p.smiles for p in valid}
    failures: dict[str, int] = {}
    for perception in perceptions:
        if perception.status != "valid":
            failures[perception.status] = failures.get(perception.status, 0) + 1
    return Validity(
        num_molecules=len(perceptions),
        num_valid=len(valid),
        num_unique=len(unique),
        valid=len(valid) / max(len(perceptions), 1),
        unique=len(unique) / max(len(valid), 1),
        failures=dict(sorted(failures.items())),
        perceptions=list(perceptions),
    )


def validity(
    molecules: Sequence[Molecule],
    preset: str = "xyz2mol_hueckel",
    num_workers: int = 1,
    time_limit: float = 10.0,
) -> Validity:
    """Returns the validity and uniqueness of molecules under a preset.

    See `perceive_all` for the arguments.
    """
    return summarize(perceive_all(molecules, preset, num_workers, time_limit))
