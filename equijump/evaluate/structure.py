"""What a frame looks like as a protein: fold, contacts, secondary structure, motion.

Lengths are in Å. Rollouts have heavy atoms only: hydrogens of backbone hydrogen bonds
are placed by MDTraj from N, C and O, as DSSP does.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from jaxtyping import Bool, Float, Int

from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.residues import RESIDUES
from equijump.data.topology import System, to_topology
from equijump.evaluate import geometry
from equijump.evaluate.sides import NAMES, Prepared, Show, Watched, silent

UNITS = {
    "rmsd": "Å", "gdt_ts": "", "rg": "Å", "native_contacts": "", "q": "",
    "end_to_end": "Å", "hydrogen_bonds": "", "helix": "", "strand": "",
}  # fmt: skip
"""Every measure of a frame that there may be, and its unit."""

OF_NATIVE = frozenset(("rmsd", "gdt_ts", "native_contacts", "q"))
NATIVE_DISTANCE, APART = 4.5, 3
"""Å, and residues, within and beyond which two heavy atoms are a native contact."""

BETA, LAMBDA = 5.0, 1.8  # 1/Å and a factor (Best, Hummer and Eaton 2013).
FOLDED, CORES = 0.5, (0.35, 0.65)
"""Q from which a frame is folded, and the cores between which a fold is counted."""

LEAST_SIZE, LEAST_SECONDARY = 2, 4
"""Amino acids from which a structure, and a secondary structure, is measured."""

MOST_SERIES, MOST_POINTS = 3, 300
"""Trajectories of either side, and points of each, whose time course is kept."""

_BONDED = -0.5  # kcal/mol (Kabsch and Sander 1983).
Positions = geometry.Positions


class Probes(NamedTuple):
    """Atoms of what is measured of a system.

    Attributes:
        carbons: CA of each amino acid.
        fitted: atoms that are superposed: CA of a protein, N, CA and C of a peptide.
        ends: first and last CA of the first chain.
        sized: atoms of the radius of gyration: CA of a protein, all of a peptide.
        pairs: pairs of CA, by their place among them.
        native: positions of the native structure; None where there is none.
        mean: structure that frames are superposed on.
        near: which pairs are nearer than 8 Å in the native structure, more than two
            residues apart.
        contacts: pairs of atoms that touch in the native structure.
        lengths: their distances there.
        topology: topology of MDTraj, for the secondary structure.
    """

    carbons: Int[np.ndarray, " num_amino_acids"]
    fitted: Int[np.ndarray, " num_fitted"]
    ends: Int[np.ndarray, " 2"]
    sized: Int[np.ndarray, " num_sized"]
    pairs: Int[np.ndarray, "num_pairs 2"]
    native: Float[np.ndarray, "num_atoms 3"] | None
    mean: Float[np.ndarray, "num_atoms 3"]
    near: Bool[np.ndarray, " num_pairs"]
    contacts: Int[np.ndarray, "num_contacts 2"]
    lengths: Float[np.ndarray, " num_contacts"]
    topology: mdtraj.Topology


class Structure(NamedTuple):
    """What was measured of both sides.

    Attributes:
        names: measures of each frame, of `UNITS`.
        values: measures of each frame, by side and unit.
        labels: names of the amino acids.
        contacts: share of frames in which two CA are nearer than 8 Å, by side.
        rmsf: fluctuation of each CA about its mean, by side.
        helix: share of frames in which a residue is in a helix, by side; None of a
            peptide too short to have one.
        strand: the same of strands.
    """

    names: tuple[str, ...]
    values: dict[str, list[Float[np.ndarray, "_ num_measures"]]]
    labels: tuple[str, ...]
    contacts: dict[str, Float[np.ndarray, " num_pairs"]]
    rmsf: dict[str, Float[np.ndarray, " num_amino_acids"]]
    helix: dict[str, Float[np.ndarray, " num_amino_acids"]] | None
    strand: dict[str, Float[np.ndarray, " num_amino_acids"]] | None


def size_of(system: System) -> int:
    """Returns the number of amino acids."""
    return len(geometry.alpha_carbons(system))


def find_probes(
    system: System,
    native: Float[np.ndarray, "num_atoms 3"] | None,
    first: Float[np.ndarray, "num_atoms 3"],
) -> Probes:
    """Finds the atoms of what is measured.

    Args:
        system: system with atoms in the order of slots.
        native: native structure.
        first: frame on which others are superposed where there is no native one.
    """
    carbons = geometry.alpha_carbons(system)
    whole = np.all(system.slot_atoms[:, :3] >= 0, axis=1)
    is_protein = geometry.is_protein(system)
    contacts = np.zeros((0, 2), np.int32)
    if native is not None:
        contacts = native_contacts(system, native)
    given = first if native is None else native
    pairs = geometry.all_pairs(len(carbons))
    apart = geometry.distances_of(given[carbons][None], pairs)[0]
    chains = system.chains[whole]
    return Probes(
        carbons=carbons,
        fitted=carbons if is_protein else system.slot_atoms[whole, :3].ravel(),
        ends=carbons[chains == chains[0]][[0, -1]],
        sized=carbons if is_protein else np.arange(len(system.kept)),
        pairs=pairs,
        native=native,
        mean=given,
        near=(apart < geometry.CONTACT_DISTANCE) & (pairs[:, 1] - pairs[:, 0] >= 3),
        contacts=contacts,
        lengths=geometry.distances_of(given[None], contacts)[0],
        topology=named_topology(system),
    )


def named_topology(system: System) -> mdtraj.Topology:
    """Returns a topology with the names of the table, whatever the file has."""
    residues = [RESIDUES[token - 1] for token in system.tokens]
    names = [""] * len(system.kept)
    for residue, row in zip(residues, system.slot_atoms, strict=True):
        for name, atom in zip(residue.slots, row.tolist(), strict=False):
            if name:
                names[atom] = name
    known = tuple(residue.name for residue in residues)
    return to_topology(system._replace(residue_names=known, atom_names=tuple(names)))


def native_contacts(
    system: System, native: Float[np.ndarray, "num_atoms 3"]
) -> Int[np.ndarray, "num_contacts 2"]:
    """Lists heavy atoms of amino acids that touch in the native structure.

    They are nearer than 4.5 Å, and of residues more than three apart or of two chains
    (Best, Hummer and Eaton 2013).
    """
    from scipy.spatial import cKDTree

    residue = np.full(len(system.kept), -1)
    amino = np.all(system.slot_atoms[:, :3] >= 0, axis=1)
    for index in np.flatnonzero(amino):
        row = system.slot_atoms[index]
        residue[row[row >= 0]] = index
    pairs = cKDTree(native).query_pairs(NATIVE_DISTANCE, output_type="ndarray")
    first, second = residue[pairs].T
    far = np.abs(first - second) > APART
    far |= system.chains[first] != system.chains[second]
    found = pairs[far & (first >= 0) & (second >= 0)]
    return found.astype(np.int32).reshape(-1, 2)


def native_share(
    distances: Float[np.ndarray, "num_frames num_contacts"],
    lengths: Float[np.ndarray, " num_contacts"],
) -> Float[np.ndarray, " num_frames"]:
    r"""Returns Best, Hummer and Eaton's Q of each frame, NaN without a contact.

    $$ Q = \langle 1 / (1 + e^{\beta (r - \lambda r_0)}) \rangle $$

    >>> native_share(np.array([[4.0, 4.0], [4.0, 40.0]]), np.array([4.0, 4.0])).round(3)
    array([1. , 0.5])
    """
    if not len(lengths):
        return np.full(len(distances), np.nan)
    stretch = np.clip(BETA * (distances - LAMBDA * lengths), -50.0, 50.0)
    return np.mean(1.0 / (1.0 + np.exp(stretch)), axis=1)


def measure(
    prepared: Prepared,
    native: Float[np.ndarray, "num_atoms 3"] | None,
    show: Show = silent,
) -> Structure | None:
    """Measures all frames of both sides, chunk by chunk; None of a single residue.

    Args:
        prepared: both sides.
        native: structure in Å that frames are compared with, if any.
        show: function that shows the progress of a stage, see `sides.Show`.
    """
    system = prepared.system
    if size_of(system) < LEAST_SIZE:
        return None
    first = np.asarray(prepared.sides["reference"].positions[0][0], np.float64)
    probes = find_probes(system, native, first)
    names, values, totals = names_of(probes), {}, {}
    units = {name: prepared.sides[name].positions for name in NAMES}
    frames = sum(len(x) for side in units.values() for x in side)
    with show(frames, "structure", "frames") as advance:
        for name, side in units.items():
            total = _Total(probes)
            watched = Watched(side, advance)
            values[name] = [_measure_unit(x, probes, names, total) for x in watched]
            totals[name] = total
    residues = np.flatnonzero(np.all(system.slot_atoms[:, :3] >= 0, axis=1)).tolist()
    each = partial(_shares, totals)
    has_secondary = "helix" in names
    return Structure(
        names=names,
        values=values,
        labels=tuple(geometry.residue_label(system, index) for index in residues),
        contacts=each("contacts"),
        rmsf={name: total.rmsf() for name, total in totals.items()},
        helix=each("helix") if has_secondary else None,
        strand=each("strand") if has_secondary else None,
    )


def names_of(probes: Probes) -> tuple[str, ...]:
    """Returns the measures that a system allows."""
    names = ["rg", "end_to_end", "hydrogen_bonds"]
    if probes.native is not None:
        names += ["rmsd", "gdt_ts"]
        if len(probes.contacts):
            names.append("q")
        if probes.near.any():
            names.append("native_contacts")
    if len(probes.carbons) >= LEAST_SECONDARY:
        names += ["helix", "strand"]
    return tuple(name for name in UNITS if name in names)


class _Total:
    """Sums over all frames of a side."""

    def __init__(self, probes: Probes) -> None:
        size = len(probes.carbons)
        self.frames = 0
        self.contacts = np.zeros(len(probes.pairs))
        self.helix, self.strand = np.zeros(size), np.zeros(size)
        self.places, self.squares = np.zeros((size, 3)), np.zeros(size)

    def rmsf(self) -> Float[np.ndarray, " num_amino_acids"]:
        mean = self.places / self.frames
        spread = self.squares / self.frames - np.sum(np.square(mean), axis=1)
        return np.sqrt(np.maximum(spread, 0.0))


def _shares(totals: dict[str, _Total], what: str) -> dict[str, Any]:
    return {name: getattr(total, what) / total.frames for name, total in totals.items()}


def _measure_unit(
    positions: Positions, probes: Probes, names: Sequence[str], total: _Total
) -> Float[np.ndarray, "num_frames num_measures"]:
    measured = partial(_measure, probes=probes, names=names, total=total)
    return geometry.over_frames(measured, positions)


def _measure(
    frames: Positions, probes: Probes, names: Sequence[str], total: _Total
) -> Float[np.ndarray, "num_frames num_measures"]:
    """Measures some frames, and adds what is summed over all of them."""
    carbons = frames[:, probes.carbons]
    sized = frames[:, probes.sized]
    centred = sized - sized.mean(axis=1, keepdims=True)
    found = {
        "rg": np.sqrt(np.mean(np.sum(centred**2, axis=-1), axis=-1)),
        "end_to_end": geometry.distances_of(frames, probes.ends[None])[:, 0],
    }
    near = geometry.distances_of(carbons, probes.pairs) < geometry.CONTACT_DISTANCE
    total.contacts += near.sum(axis=0)
    total.frames += len(frames)
    found |= _against_native(frames, probes, near, names, total)
    found |= _backbone(frames, probes, names, total)
    return np.stack([found[name] for name in names], axis=1).astype(np.float32)


def _against_native(
    frames: Positions, probes: Probes, near: Any, names: Sequence[str], total: _Total
) -> dict[str, Float[np.ndarray, " num_frames"]]:
    """Superposes frames; returns what compares them with the native structure."""
    target = probes.mean[probes.fitted]
    turned = geometry.superposed(frames[:, probes.fitted], target)
    carbons = turned[:, np.isin(probes.fitted, probes.carbons)]
    total.places += carbons.sum(axis=0, dtype=np.float64)
    total.squares += np.sum(np.square(carbons), axis=(0, 2), dtype=np.float64)
    if probes.native is None:
        return {}
    found = geometry.deviations(turned, target)
    if "q" in names:
        apart = geometry.distances_of(frames, probes.contacts)
        found["q"] = native_share(apart, probes.lengths)
    if "native_contacts" in names:
        found["native_contacts"] = near[:, probes.near].mean(axis=1)
    return found


def _backbone(
    frames: Positions, probes: Probes, names: Sequence[str], total: _Total
) -> dict[str, Float[np.ndarray, " num_frames"]]:
    """Returns backbone hydrogen bonds, and the shares of helix and strand."""
    trajectory = mdtraj.Trajectory(frames / ANGSTROM_PER_NM, probes.topology)
    energies = mdtraj.kabsch_sander(trajectory)
    bonds = [np.count_nonzero(matrix.data < _BONDED) for matrix in energies]
    found = {"hydrogen_bonds": np.array(bonds, float)}
    if "helix" in names:
        letters = _letters(trajectory)
        for name, letter in (("helix", "H"), ("strand", "E")):
            inside = letters == letter
            setattr(total, name, getattr(total, name) + inside.sum(axis=0))
            found[name] = inside.mean(axis=1)
    return found


def _letters(trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Returns H, E or C of each frame and amino acid."""
    letters = mdtraj.compute_dssp(trajectory, simplified=True)
    return letters[:, np.any(letters != "NA", axis=0)]


def secondary_of(frames: Positions, system: System) -> list[str]:
    """Returns a letter for each residue of each frame: H, E or C, - of a cap.

    Args:
        frames: positions in Å.
        system: system with atoms in the order of slots.
    """
    amino = np.all(system.slot_atoms[:, :3] >= 0, axis=1)
    letters = np.full((len(frames), len(amino)), "-")
    letters[:, amino] = "C"
    if amino.sum() >= LEAST_SECONDARY:
        named = named_topology(system)
        letters[:, amino] = _letters(mdtraj.Trajectory(frames / ANGSTROM_PER_NM, named))
    return ["".join(row) for row in letters.tolist()]


def to_json(structure: Structure, prepared: Prepared, native: str) -> dict[str, Any]:
    """Returns maps and time courses as `report.json` has them.

    Args:
        structure: what was measured.
        prepared: both sides.
        native: native structure in words; empty where there is none.
    """
    rounded = lambda values: np.round(values, 4).tolist()
    each = lambda sides: {name: rounded(values) for name, values in sides.items()}
    return {
        "native": native,
        "residues": list(structure.labels),
        "contacts": each(structure.contacts),
        "rmsf": each(structure.rmsf),
        "helix": None if structure.helix is None else each(structure.helix),
        "strand": None if structure.strand is None else each(structure.strand),
        "series": {name: _series(structure, prepared, name) for name in NAMES},
    }


def _series(structure: Structure, prepared: Prepared, name: str) -> list[dict]:
    """Returns the course of the first trajectories of a side, in ps."""
    values = structure.values[name]
    if prepared.num_runs[name] == 1:  # Its blocks follow one another.
        values = [np.concatenate(values)]
    spacing, found = prepared.spacing / prepared.sides[name].every, []
    for unit in values[:MOST_SERIES]:
        shown = np.unique(np.linspace(0, len(unit) - 1, MOST_POINTS).astype(int))
        columns = np.round(unit[shown].T, 4).tolist()
        course = dict(zip(structure.names, columns, strict=True))
        found.append({"times": (shown * spacing).tolist(), **course})
    return found
