"""Everything that is measured of a set of samples, as one nested dictionary.

The dictionary holds numbers, strings, lists and None only; it is `report.json`.
"""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rdkit import Chem

from common import __version__
from symphony.chemistry import bonds, geom_drugs, pool
from symphony.evaluate import conventions, distributions, poses, relaxation, samples
from symphony.view import cards

BOND_PRESET = conventions.BOND_PRESET


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    names = ("rdkit", "numpy", "scipy")
    libraries = {name: importlib.metadata.version(name) for name in names}
    return {
        "symphony": __version__,
        "python": platform.python_version(),
        **libraries,
        "posebusters": _version_of("posebusters"),
        "tblite": _version_of("tblite"),
    }


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def first_valid(
    molecules: Sequence[bonds.Molecule], perceptions: Sequence[bonds.Perception]
) -> tuple[list[bonds.Molecule], list[bonds.Perception]]:
    """Returns the first valid molecules, those that enter the distributions."""
    valid = [
        pair
        for pair in zip(molecules, perceptions, strict=True)
        if pair[1].status == "valid"
    ][: distributions.NUM_MOLECULES]
    return [molecule for molecule, _ in valid], [found for _, found in valid]


def measure_geometry(
    molecules: Sequence[bonds.Molecule],
    perceptions: Sequence[bonds.Perception],
    reference: Sequence[bonds.Molecule],
    reference_perceptions: Sequence[bonds.Perception],
) -> dict[str, Any]:
    """Compares bond lengths, angles, species, environments and rings with data.

    Only valid molecules enter, at most `distributions.NUM_MOLECULES` of either side.
    """
    ours = first_valid(molecules, perceptions)
    data = first_valid(reference, reference_perceptions)
    lengths, data_lengths = (distributions.bond_lengths(*side) for side in (ours, data))
    around, data_around = (distributions.environments(*side) for side in (ours, data))
    lengths_compared = distributions.compare(
        lengths, data_lengths, distributions.commonest(data_lengths)
    )
    bispectra = _compare_bispectra(around, data_around)
    rings, data_rings = (distributions.ring_counts(side[1]) for side in (ours, data))
    counts = [distributions.species_counts(side[0]) for side in (ours, data)]
    sides = {"samples": lengths, "reference": data_lengths}
    plotted = lambda kind: {name: _rounded(x.get(kind)) for name, x in sides.items()}
    return {
        "bonds_perceived_by": BOND_PRESET,
        "num_molecules": len(ours[0]),
        "num_reference": len(data[0]),
        "bond_length_mmd": {k: v._asdict() for k, v in lengths_compared.items()},
        "bispectrum_mmd": {k: v._asdict() for k, v in bispectra.items()},
        "jensen_shannon_species": distributions.jensen_shannon(*counts),
        "jensen_shannon_environments": distributions.jensen_shannon(
            distributions.group_counts(around), distributions.group_counts(data_around)
        ),
        "rings_per_molecule": {
            "samples": _per(rings, len(ours[0])),
            "reference": _per(data_rings, len(data[0])),
        },
        "bond_lengths": {kind: plotted(kind) for kind in lengths_compared},
    }


def _compare_bispectra(
    around: dict[str, Any], data_around: dict[str, Any]
) -> dict[str, distributions.Discrepancy]:
    """Compares angles in the commonest environments with neighbours of two kinds."""
    # A single kind of neighbour says little about angles between kinds.
    mixed = {kind: group for kind, group in data_around.items() if "," in kind}
    listed = distributions.commonest(mixed)
    return distributions.compare(
        distributions.bispectra(around, listed),
        distributions.bispectra(data_around, listed),
        listed,
    )


def _per(counts: Counter[int], total: int) -> dict[str, float] | None:
    """Returns the counts for each molecule, None where there are no molecules."""
    if not total:
        return None
    return {str(size): counts[size] / total for size in sorted(counts)}


def _rounded(lengths: Any) -> list[float]:
    return [] if lengths is None else [round(float(x), 4) for x in lengths[:1000, 0]]


def measure_sizes(
    molecules: Sequence[bonds.Molecule], reference: Sequence[bonds.Molecule]
) -> dict[str, Any]:
    """Compares the numbers of atoms, of valid and invalid molecules alike."""
    ours, data = (distributions.size_counts(side) for side in (molecules, reference))
    return {
        "samples": {str(size): ours[size] for size in sorted(ours)},
        "reference": {str(size): data[size] for size in sorted(data)},
        "jensen_shannon": distributions.jensen_shannon(ours, data),
    }


def measure_poses(
    molecules: Sequence[bonds.Molecule], perceptions: Sequence[bonds.Perception]
) -> dict[str, Any] | None:
    """Runs PoseBusters on the first valid molecules, if it is installed."""
    if not poses.is_installed():
        return None
    mols = _first_mols(molecules, perceptions, poses.MAX_MOLECULES)
    checks = poses.check(mols)
    return None if checks is None else checks._asdict()


def measure_relaxation(
    molecules: Sequence[bonds.Molecule],
    perceptions: Sequence[bonds.Perception],
    count: int,
    num_workers: int = 1,
    time_limit: float = 10.0,
    on_done: pool.OnDone | None = None,
) -> dict[str, Any] | None:
    """Relaxes the first connected ones by GFN2-xTB, if it is installed.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        perceptions: what `BOND_PRESET` perceives of each.
        count: how many to relax.
        num_workers: number of worker processes.
        time_limit: CPU seconds for one molecule.
        on_done: callback after every molecule, for progress bars.
    """
    if not relaxation.is_installed():
        return None
    judged = [geom_drugs.judge(perception) for perception in perceptions]
    mols = _first_mols(molecules, judged, count)
    found = relaxation.measure(mols, num_workers, time_limit, on_done)
    return None if found is None else found._asdict()


def _first_mols(
    molecules: Sequence[bonds.Molecule],
    perceptions: Sequence[bonds.Perception],
    count: int,
) -> list[Chem.Mol]:
    """Returns the first valid molecules with their bonds."""
    valid, perceived = first_valid(molecules, perceptions)
    # Each was perceived within the time limit before.
    mols = [
        bonds.perceive(*molecule, BOND_PRESET, sum(found.charges))
        for molecule, found in zip(valid[:count], perceived, strict=False)
    ]
    return [mol for mol in mols if mol is not None]


def evaluate(
    drawn: samples.Samples,
    reference: samples.Reference,
    names: Sequence[str] = conventions.NAMES,
    num_workers: int = 1,
    time_limit: float = 10.0,
    num_perceived: int = distributions.NUM_MOLECULES,
    advance: conventions.Advance | None = None,
    num_relaxed: int = relaxation.NUM_MOLECULES,
    perceived: Mapping[str, list[bonds.Perception]] | None = None,
) -> dict[str, Any]:
    """Measures samples against data; see the docs on metrics for every entry.

    Args:
        drawn: all generated molecules.
        reference: molecules of the data.
        names: conventions, of `conventions.NAMES`.
        num_workers: number of worker processes.
        time_limit: CPU seconds for one molecule.
        num_perceived: molecules of the reference whose bonds are perceived for the
            distributions, the slow part; 0 leaves the distributions out.
        advance: callback after every molecule done in a worker.
        num_relaxed: molecules that GFN2-xTB relaxes for `"geom_drugs"`, if it is
            installed.
        perceived: by `conventions.perceive`, where that was done before.
    """
    known = conventions.reference_graphs(
        reference, names, num_workers, time_limit, _progress_of("known", advance)
    )
    if perceived is None:
        perceived = conventions.perceive(
            drawn.molecules,
            names,
            drawn.faults,
            num_workers,
            time_limit,
            advance,
            drawn.charges,
        )
    judged = conventions.score(drawn.molecules, perceived, names, known)
    report = {
        "versions": versions(),
        "samples": _describe(drawn),
        "reference": {
            "source": reference.source,
            "num_molecules": len(reference.molecules),
            "smiles": "from the file" if reference.smiles else "perceived",
        },
        "conventions": {name: s._asdict() for name, s in judged.scores.items()},
        "sizes": measure_sizes(drawn.molecules, reference.molecules),
        "geometry": None,
        "poses": None,
        "relaxation": None,
        "viewer": cards.make(drawn, judged, cards.NUM_CARDS),
    }
    drawn_bonds = judged.perceptions.get(BOND_PRESET)
    if conventions.GEOM_DRUGS in names and num_relaxed:
        report["relaxation"] = measure_relaxation(
            drawn.molecules,
            drawn_bonds,
            num_relaxed,
            num_workers,
            time_limit,
            _progress_of("relaxed", advance),
        )
    if drawn_bonds is not None and num_perceived:
        data, charges = (
            samples.choose(some, num_perceived)
            for some in (reference.molecules, reference.charges)
        )
        data_bonds = bonds.perceive_all(
            data,
            BOND_PRESET,
            num_workers,
            time_limit,
            _progress_of("reference", advance),
            charges,
        )
        report["geometry"] = measure_geometry(
            drawn.molecules, drawn_bonds, data, data_bonds
        )
        report["poses"] = measure_poses(drawn.molecules, drawn_bonds)
    return report


def _progress_of(name: str, advance: conventions.Advance | None) -> pool.OnDone | None:
    return None if advance is None else partial(advance, name)


def _describe(drawn: samples.Samples) -> dict[str, Any]:
    """Returns what was judged, and how much of it a gate had accepted, if one did."""
    told = {"source": drawn.source, "num_molecules": len(drawn.molecules)}
    if drawn.num_accepted is not None:
        told["num_accepted"] = drawn.num_accepted
    return told
