"""Reads what is to be judged, so that everything that was generated counts.

A record that cannot be parsed, a molecule that was never finished, or one that the
file of molecules lacks but its manifest has, stays in the denominator. Units: Å.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from rdkit import Chem, rdBase

from common.commands.reading import Header, line_of, parse_json, read_arrays
from common.errors import UsageError
from symphony import data
from symphony.chemistry.bonds import Molecule
from symphony.data import Molecules, Records, screening
from symphony.data.plausibility import warn_without_hydrogens
from symphony.data.readers import PLAIN_FORMS, read_file

_FORMS = ".sdf, .extxyz, .xyz (each also with .gz) or .npz"
_ALL_ELEMENTS = tuple(range(1, 119))
MAX_ATOMS = 2000
"""Largest molecule that is judged; perception takes more than its square."""

UNREADABLE, NO_ELEMENT, TOO_LARGE = (
    "unreadable record",
    "unknown element",
    f"more than {MAX_ATOMS} atoms",
)
_MOST_IMPLAUSIBLE = 0.5
"""Share beyond which molecules are taken for drawings, or for those of another unit."""

_SIZES = {".sdf": "sdf_bytes", ".extxyz": "extxyz_bytes"}


class Samples(NamedTuple):
    """Generated molecules and, for those that have no geometry to judge, why.

    Attributes:
        molecules: molecules to judge, without atoms where there is a fault.
        faults: why a molecule has nothing to judge; None where it has.
        source: file that was read.
        shown: molecules as they were read, those with a fault among them; behind them
            `molecules` may have others that the file lacks.
        names: names of these.
        manifest: a record for each of these, where Symphony wrote the file; else None.
        num_accepted: molecules that the gate of the sampler accepted; None without one.
        charges: charge of each molecule, in e.
    """

    molecules: list[Molecule]
    faults: list[str | None]
    source: str
    shown: Sequence[Molecule] = ()
    names: Sequence[str] = ()
    manifest: Sequence[dict] | None = None
    num_accepted: int | None = None
    charges: Sequence[int] | None = None


class Reference(NamedTuple):
    """Molecules of the data; `smiles` is empty where the file has none."""

    molecules: list[Molecule]
    smiles: list[str]
    source: str
    charges: Sequence[int] | None = None


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
            record = parse_json(line)
        except ValueError as error:
            raise UsageError(
                f"{path}: expected a JSON object in line {number}, found "
                f"{line_of(error)}"
            ) from error
        if "index" in record:  # The first line says how all were made.
            records.append(record)
    return records or None


def _matches(records: list[dict] | None, *paths: Path) -> bool | None:
    """Returns whether files are as long as a manifest of Symphony says.

    None where the manifest states no lengths, as one that another program wrote.
    """
    last = records[-1] if records else {}
    sizes = [(path, last.get(_SIZES.get(path.suffix.lower(), ""))) for path in paths]
    if any(not isinstance(size, int) for _, size in sizes):
        return None
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes)


def _choose_files(path: Path) -> tuple[Path, list[dict] | None]:
    """Returns the file to judge, and the records of its manifest if they belong to it.

    Beside an SDF that Symphony wrote, and nobody changed since, lies everything that
    was generated, and that is judged. Any other file is judged as it is.
    """
    everything, beside = path.with_suffix(".extxyz"), path.with_suffix(".jsonl")
    records = _read_manifest(beside)
    is_sdf = path.suffix.lower() == ".sdf"
    if is_sdf and _matches(records, path, everything):
        return everything, records
    same = _matches(records, path)
    if is_sdf and everything.is_file():
        logging.warning(
            "%s: it is judged as it is; %s is passed over, since %s does not say that "
            "Symphony wrote both; give --samples=%s to judge that",
            path, everything, beside, everything,
        )  # fmt: skip
    if same is False:
        logging.warning(
            "%s: it was changed since %s was written, which is not read; if the "
            "sampler was interrupted, run it again",
            path, beside,
        )  # fmt: skip
    return path, None if same is False else records


def _empty_molecule() -> Molecule:
    return np.zeros(0, np.uint8), np.zeros((0, 3), np.float32)


def _faults(
    path: Path, num_read: int, num_unreadable: int, manifest: list[dict] | None
) -> tuple[list[str | None], list[str]]:
    """Returns the fault of each molecule read, and the faults of those that are not."""
    faults: list[str | None] = [None] * num_read
    if manifest is None:
        return faults, [UNREADABLE] * num_unreadable
    if len(manifest) < num_read + num_unreadable:
        raise UsageError(
            f"{path}: expected at most {len(manifest)} molecules, the number of "
            f"records in its manifest; found {num_read + num_unreadable}. If the "
            "sampler was interrupted, run it again"
        )
    read = _records_of(manifest, num_read)
    for index, record in enumerate(read):
        if record.get("stopped") is False:
            faults[index] = "never finished"
    if read is manifest:
        return faults, [UNREADABLE] * num_unreadable
    return faults, ["not in the file"] * (len(manifest) - num_read)


def _records_of(manifest: list[dict], num_read: int) -> list[dict]:
    """Returns the records of the molecules that were read; none where none fit.

    An SDF alone has the molecules with bonds, in the order of the manifest, but for
    those that a gate rejected.
    """
    kept = [record for record in manifest if record.get("accepted", True)]
    with_bonds = [record for record in kept if record.get("smiles") is not None]
    return next((some for some in (manifest, with_bonds) if len(some) == num_read), [])


def read_samples(path: str | Path, max_molecules: int | None = None) -> Samples:
    """Reads generated molecules, the failed ones among them.

    Beside `name.sdf`, `name.extxyz` is read in its place where the manifest
    `name.jsonl` is Symphony's and both files are as long as it says, since it holds
    also the molecules without bonds. The manifest, one JSON object per generated
    molecule, tells which were never finished (`"stopped": false`) and how many there
    were.

    Args:
        path: SDF, extxyz, xyz or npz.
        max_molecules: largest number of molecules; the first ones are kept.

    Raises:
        UsageError: The file cannot be read, holds nothing that can be judged, or has
            more molecules than its manifest has records.
    """
    path, manifest = _choose_files(Path(path))
    records = read_file(path, ("charge",), PLAIN_FORMS, _FORMS)
    is_ours = _matches(manifest, path) is True
    drawn = () if is_ours else _find_drawings(records, str(path))
    _tell(records, str(path))
    molecules = shown = to_pairs(records.molecules)
    faults, lost = _faults(path, len(molecules), len(records.unreadable), manifest)
    for index, molecule in enumerate(molecules):
        drawing = screening.DRAWING if index in drawn else None
        faults[index] = faults[index] or drawing or _fault_of(*molecule)
    molecules = [
        molecule if fault is None else _empty_molecule()
        for molecule, fault in zip(molecules, faults, strict=True)
    ]
    molecules += [_empty_molecule() for _ in lost]
    faults += lost
    charges = [*_charges(records.molecules), *[0] * len(lost)]
    _check_some(records, faults, str(path))
    return Samples(
        molecules[:max_molecules],
        faults[:max_molecules],
        str(path),
        shown[:max_molecules],
        records.molecules.names[:max_molecules].tolist(),
        _records_of(manifest, len(shown))[:max_molecules] if is_ours else None,
        _count_accepted(manifest, max_molecules),
        charges[:max_molecules],
    )


def _charges(molecules: Molecules) -> list[int]:
    """Returns the charges in e; what states none is neutral."""
    return np.nan_to_num(molecules.properties["charge"]).astype(int).tolist()


def _count_accepted(
    manifest: list[dict] | None, max_molecules: int | None
) -> int | None:
    """Returns how many of the draws a gate accepted; None where there was none."""
    verdicts = [record.get("accepted") for record in (manifest or [])[:max_molecules]]
    return sum(verdicts) if verdicts and None not in verdicts else None


def _fault_of(numbers: np.ndarray, positions: np.ndarray) -> str | None:
    """Returns why a molecule cannot be judged at all."""
    if len(numbers) > MAX_ATOMS:
        return TOO_LARGE
    is_known = (numbers > 0) & (numbers <= len(_ALL_ELEMENTS))
    return None if is_known.all() else NO_ELEMENT


def _find_drawings(records: Records, source: str) -> set[int]:
    """Returns which molecules are drawings.

    Raises:
        UsageError: Most are, or seem to have lengths in another unit than Å.
    """
    molecules = records.molecules
    found = screening.faults(records, _ALL_ELEMENTS, MAX_ATOMS)
    skipped = {
        reason: tuple(molecules.names[bad].tolist())
        for reason, bad in found.items()
        if reason in screening.ADVICE and bad.any()
    }
    num_bad = sum(map(len, skipped.values()))
    total = len(molecules.num_atoms)
    report = data.SkipReport(total, skipped)
    if num_bad > _MOST_IMPLAUSIBLE * total:
        screening.check_share(report, total - num_bad, source, strict=False)
    drawn = found[screening.DRAWING]
    if drawn.any():
        logging.warning(
            "%s: %d of %d molecules are drawings (2D) and count as invalid",
            source, int(drawn.sum()), total,
        )  # fmt: skip
    return {*np.flatnonzero(drawn).tolist()}


def _tell(records: Records, source: str) -> None:
    """Warns of records that cannot be read, and of molecules without hydrogens."""
    unreadable = screening.unreadable_by_reason(records)
    if unreadable:
        total = len(records.molecules.num_atoms) + len(records.unreadable)
        line = data.describe(data.SkipReport(total, unreadable))
        logging.warning("%s: %s", source, line.replace("skipped", "cannot read"))
    for note in records.notes:
        logging.warning("%s: %s", source, note)
    warn_without_hydrogens(records.molecules, source)


def _check_some(records: Records, faults: list[str | None], source: str) -> None:
    """Raises `UsageError` where there is nothing, or nothing with known elements."""
    if not faults:
        raise UsageError(f"{source}: expected at least one molecule, found none")
    if {*faults} <= {UNREADABLE, NO_ELEMENT, TOO_LARGE, screening.DRAWING}:
        reasons = [f"the first: {one.reason}" for one in records.unreadable[:1]]
        counts = [f"{faults.count(fault)} {fault}" for fault in sorted({*faults})]
        raise UsageError(
            f"{source}: expected a molecule that can be judged, found none of "
            f"{len(faults)} ({', '.join(counts + reasons)})"
        )


def _smiles_of(path: Path, split: str | None) -> list[str]:
    """Returns the SMILES of a split in an archive; none where it has none."""

    def choose(headers: Mapping[str, Header]) -> Iterable[str]:
        header = headers.get("smiles")
        if header is None:
            return []
        if header.dtype.kind not in "SU" or len(header.shape) != 1:
            raise UsageError(
                f"{path}: expected smiles as a vector of text, found {header.dtype} of "
                f"shape {header.shape}"
            )
        return [name for name in ("smiles", "split") if name in headers]

    arrays = read_arrays(path, "molecules of the data", choose)
    texts = arrays.get("smiles", np.zeros(0, "U1"))
    if texts.dtype.kind == "S":
        texts = np.char.decode(texts, "utf-8", "replace")
    if split is not None and "split" in arrays:
        if arrays["split"].shape != texts.shape:
            return []
        texts = texts[arrays["split"] == data.SPLITS.index(split)]
    return texts.tolist()


def read_reference(path: str, split: str | None = None) -> Reference:
    """Reads the data that samples are compared with.

    Args:
        path: file, or the name of a data set.
        split: `train`, `validation` or `test`; all of it where None.

    Raises:
        UsageError: See `symphony.data.read_molecules`.
    """
    molecules, report = data.read_molecules(
        path, _ALL_ELEMENTS, MAX_ATOMS, split=split, properties=("charge",)
    )
    pairs = to_pairs(molecules)
    smiles: list[str] = []
    file = data.locate(path)
    if file.suffix.lower() == ".npz" and not report.skipped:
        smiles = _smiles_of(file, split)
        smiles = smiles if len(smiles) == len(pairs) else []
    return Reference(pairs, smiles, path, _charges(molecules))


def choose(items: Sequence[Any], count: int) -> Sequence[Any]:
    """Draws that many items without replacement, always the same places."""
    if count >= len(items):
        return items
    chosen = np.random.default_rng(0).choice(len(items), count, replace=False)
    return [items[i] for i in np.sort(chosen)]


def canonical_graphs(smiles: list[str]) -> set[str]:
    """Returns canonical SMILES without stereochemistry; unreadable ones drop out."""
    graphs = set()
    with rdBase.BlockLogs():
        for text in smiles:
            mol = Chem.MolFromSmiles(text)
            if mol is not None:
                graphs.add(Chem.MolToSmiles(mol, isomericSmiles=False))
    return graphs
