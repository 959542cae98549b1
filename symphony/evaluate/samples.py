"""Reads what is to be judged, so that everything that was generated counts.

A record that cannot be parsed, a molecule that was never finished, or one that the
file of molecules lacks but its manifest has, stays in the denominator. Units: Å.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from common.errors import UsageError
from symphony import data
from symphony.chemistry.bonds import Molecule
from symphony.data import Molecules
from symphony.data.readers import PLAIN_FORMS, read_file

_FORMS = ".sdf, .extxyz, .xyz or .npz"
_ALL_ELEMENTS = tuple(range(1, 119))
_ANY_SIZE = 100_000  # Atoms.


class Samples(NamedTuple):
    """Generated molecules and, for those that have no geometry to judge, why."""

    molecules: list[Molecule]  # Without atoms where there is a fault.
    faults: list[str | None]
    source: str  # The file that was read.


class Reference(NamedTuple):
    """Molecules of the data; `smiles` is empty where the file has none."""

    molecules: list[Molecule]
    smiles: list[str]
    source: str


def to_pairs(molecules: Molecules) -> list[Molecule]:
    """Divides packed molecules into pairs of atomic numbers and positions in Å."""
    if len(molecules.num_atoms) == 0:
        return []
    bounds = molecules.offsets[1:-1]
    return list(
        zip(
            np.split(molecules.atomic_numbers, bounds),
            np.split(molecules.positions, bounds),
            strict=True,
        )
    )


def _read_manifest(path: Path) -> list[dict] | None:
    """Returns one record per generated molecule, or None without a manifest."""
    if not path.is_file():
        return None
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
            is_molecule = "index" in record  # The first line says how all were made.
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{path}: expected a JSON object in line {number}, found {line[:80]!r}"
            ) from error
        if is_molecule:
            records.append(record)
    return records or None


def _empty_molecule() -> Molecule:
    return np.zeros(0, np.uint8), np.zeros((0, 3), np.float32)


def _faults(
    path: Path, num_read: int, num_unreadable: int, manifest: list[dict] | None
) -> tuple[list[str | None], list[str]]:
    """Returns the fault of each molecule read, and the faults of those that are not."""
    faults: list[str | None] = [None] * num_read
    if manifest is None:
        return faults, ["unreadable record"] * num_unreadable
    if len(manifest) < num_read + num_unreadable:
        raise UsageError(
            f"{path}: expected at most {len(manifest)} molecules, the number of "
            f"records in its manifest; found {num_read + num_unreadable}. If the "
            "sampler was interrupted, run it again"
        )
    # An SDF alone has the molecules with bonds, in the order of the manifest.
    with_bonds = [record for record in manifest if record.get("smiles") is not None]
    read = next((some for some in (manifest, with_bonds) if len(some) == num_read), [])
    for index, record in enumerate(read):
        if record.get("stopped") is False:
            faults[index] = "never finished"
    if read is manifest:
        return faults, ["unreadable record"] * num_unreadable
    return faults, ["not in the file"] * (len(manifest) - num_read)


def read_samples(path: str | Path, max_molecules: int | None = None) -> Samples:
    """Reads generated molecules, the failed ones among them.

    Beside `name.sdf`, `name.extxyz` is read in its place if it exists, since it holds
    also the molecules without bonds; and `name.jsonl`, one JSON object per generated
    molecule, tells which were never finished (`"stopped": false`) and how many there
    were.

    Args:
        path: SDF, extxyz, xyz or npz.
        max_molecules: largest number of molecules; the first ones are kept.

    Raises:
        UsageError: The file cannot be read, holds nothing, or has more molecules than
            its manifest has records.
    """
    path = Path(path)
    everything = path.with_suffix(".extxyz")
    if path.suffix.lower() == ".sdf" and everything.is_file():
        path = everything
    records = read_file(path, (), PLAIN_FORMS, _FORMS)
    molecules = to_pairs(records.molecules)
    manifest = _read_manifest(path.with_suffix(".jsonl"))
    faults, lost = _faults(path, len(molecules), len(records.unreadable), manifest)
    molecules = [
        molecule if fault is None else _empty_molecule()
        for molecule, fault in zip(molecules, faults, strict=True)
    ]
    molecules += [_empty_molecule() for _ in lost]
    faults += lost
    if not molecules:
        raise UsageError(f"{path}: expected at least one molecule, found none")
    return Samples(molecules[:max_molecules], faults[:max_molecules], str(path))


def _texts(arrays: Any, path: Path) -> np.ndarray:
    try:
        found = arrays["smiles"]
    except ValueError as error:
        raise UsageError(
            f"{path}: expected smiles as an array of text, found one of Python objects"
        ) from error
    if found.dtype.kind not in "SU" or found.ndim != 1:
        raise UsageError(
            f"{path}: expected smiles as a vector of text, found {found.dtype} of "
            f"shape {found.shape}"
        )
    return found


def read_reference(path: str, split: str | None = None) -> Reference:
    """Reads the data that samples are compared with.

    Args:
        path: file, or the name of a data set.
        split: `train`, `validation` or `test`; all of it where None.

    Raises:
        UsageError: See `symphony.data.read_molecules`.
    """
    molecules, report = data.read_molecules(path, _ALL_ELEMENTS, _ANY_SIZE, split=split)
    pairs = to_pairs(molecules)
    smiles: list[str] = []
    file = data.locate(path)
    if file.suffix == ".npz" and not report.skipped:
        with np.load(file, allow_pickle=False) as arrays:
            if "smiles" in arrays.files:
                texts = _texts(arrays, file)
                if texts.dtype.kind == "S":
                    texts = np.char.decode(texts, "utf-8", "replace")
                if split is not None and "split" in arrays.files:
                    texts = texts[arrays["split"] == data.SPLITS.index(split)]
                smiles = texts.tolist() if len(texts) == len(pairs) else []
    return Reference(pairs, smiles, path)


def choose(molecules: list[Molecule], count: int) -> list[Molecule]:
    """Draws that many molecules without replacement, always the same ones."""
    if count >= len(molecules):
        return molecules
    chosen = np.random.default_rng(0).choice(len(molecules), count, replace=False)
    return [molecules[i] for i in np.sort(chosen)]


def canonical_graphs(smiles: list[str]) -> set[str]:
    """Returns canonical SMILES without stereochemistry; unreadable ones drop out."""
    graphs = set()
    with rdBase.BlockLogs():
        for text in smiles:
            mol = Chem.MolFromSmiles(text)
            if mol is not None:
                graphs.add(Chem.MolToSmiles(mol, isomericSmiles=False))
    return graphs
