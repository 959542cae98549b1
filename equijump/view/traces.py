"""Trajectories as a page has them: frames, torsions, bonds and events.

Few frames are shown, evenly chosen; what happened between two of them, a long bond or a
repeated frame, counts for the one before. Positions are in Å, times in ps, angles in
degrees.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from common.errors import UsageError
from common.pages import embed
from equijump.data.residues import RESIDUES
from equijump.data.topology import System
from equijump.evaluate import geometry, validity, viewer
from equijump.evaluate.inputs import Replicas
from equijump.view import gate

NUM_BINS = 60
"""Bins of phi and of psi behind the trace."""

NUM_BONDS = 8
"""Bonds of a trajectory that are listed, those that leave their length most."""

MOST_BYTES = 5_000_000
"""Bytes of positions in a page."""

_DEGREE = 0.01  # Unit of packed angles.
_LENGTH = 0.001  # Å, of packed deviations.


class Trace(NamedTuple):
    """One trajectory: what the page has of it, and counts of its torsions.

    Attributes:
        values: JSON values.
        counts: frames in each bin of phi (rows) and psi, for each residue.
    """

    values: dict[str, Any]
    counts: Int[np.ndarray, "num_residues num_bins num_bins"]


class Bonds(NamedTuple):
    """The bonds of a system and their usual lengths in Å."""

    names: list[str]
    lengths: Float[np.ndarray, " num_bonds"]


def num_shown(replicas: Replicas, most: int) -> int:
    """Returns how many frames of each trajectory a page can have."""
    num_atoms = len(replicas.system.kept)
    fitting = MOST_BYTES // (8 * num_atoms * len(replicas.names))
    return max(2, min(most, fitting))


def residues_of(system: System) -> dict[str, tuple[int, int]]:
    """Returns names of residues with phi and psi, and the places of both torsions."""
    pairs = geometry.pairs_of_phi_and_psi(geometry.find_torsions(system))
    return {geometry.residue_label(system, i): pair for i, pair in pairs.items()}


def bonds_of(replicas: Replicas, count: int) -> Bonds:
    """Returns the bonds, and the median of each length over frames of all.

    Raises:
        UsageError: No frame has finite positions.
    """
    system = replicas.system
    found = []
    for positions in replicas.positions:
        frames = np.asarray(positions[:: _every(len(positions), count)])
        finite = np.isfinite(frames).all(axis=(1, 2))
        found.append(geometry.distances_of(frames[finite], system.bonds))
    if not any(map(len, found)):
        raise UsageError(
            "--trajectory: expected frames of finite positions, found none in "
            f"{replicas.names[0]}"
        )
    names = _atom_names(system)
    pairs = [f"{names[i]} – {names[j]}" for i, j in system.bonds.tolist()]
    return Bonds(pairs, np.median(np.concatenate(found), axis=0))


def _atom_names(system: System) -> list[str]:
    """Returns names as `CA of ALA2`."""
    names = [""] * len(system.kept)
    for index, (token, row) in enumerate(
        zip(system.tokens, system.slot_atoms, strict=True)
    ):
        label = geometry.residue_label(system, index)
        for name, atom in zip(RESIDUES[token - 1].slots, row.tolist(), strict=False):
            if name:
                names[atom] = f"{name} of {label}"
    return names


def _every(num_frames: int, count: int) -> int:
    return max(1, -(-num_frames // count))


def make(replicas: Replicas, index: int, path: Path, bonds: Bonds, count: int) -> Trace:
    """Returns one trajectory as the page has it.

    Args:
        replicas: trajectories of one system.
        index: number of the trajectory.
        path: file of it.
        bonds: bonds and usual lengths.
        count: largest number of frames.
    """
    system, spacing = replicas.system, replicas.spacing
    positions = np.array(replicas.positions[index])
    total = len(positions)
    loss = validity.find_loss(path.name, positions, system, bonds.lengths)
    finite = np.isfinite(positions).all(axis=(1, 2))
    end = total if finite.all() else int(np.argmin(finite))
    if end == 0:
        values = {"name": path.name, "num_frames": 0, "events": [f"{loss.reason} at 0"]}
        return Trace(values, _count(np.zeros((0, len(residues_of(system)), 2))))
    positions, every = positions[:end], _every(end, count)
    angles = _angles(positions, system)
    away = np.abs(geometry.distances_of(positions, system.bonds) - bonds.lengths)
    scene = viewer.make_scene(positions[::every], system, every * spacing)
    repeated = np.append(False, np.all(positions[1:] == positions[:-1], axis=(1, 2)))
    values = {
        "name": path.name,
        "secondary": scene["secondary"],
        **{name: scene[name] for name in ("num_frames", "spacing", "positions")},
        "angles": embed.pack(angles[::every], _DEGREE),
        "away": embed.pack(_highest(away.max(axis=1), every), _LENGTH),
        "repeated": _highest(repeated, every, np.add).astype(int).tolist(),
        "bonds": _worst(away, bonds, spacing),
        "events": _events(path, spacing, loss, repeated, total - end),
    }
    return Trace(values, _count(angles))


def _angles(
    positions: geometry.Positions, system: System
) -> Float[np.ndarray, "num_frames num_residues 2"]:
    """Returns phi and psi of each residue that has both, in degrees."""
    pairs = np.array([*residues_of(system).values()], int).reshape(-1, 2)
    torsions = geometry.find_torsions(system)
    if not len(pairs):
        return np.zeros((len(positions), 0, 2))
    chosen = torsions.atoms[pairs.ravel()]
    found = np.degrees(geometry.torsions_of(positions, chosen))
    return found.reshape(len(positions), -1, 2)


def _count(
    angles: Float[np.ndarray, "num_frames num_residues 2"],
) -> Int[np.ndarray, "num_residues num_bins num_bins"]:
    sides = (NUM_BINS, NUM_BINS)
    limits = ((-180, 180), (-180, 180))
    found = [
        np.histogram2d(*angles[:, residue].T, sides, limits)[0]
        for residue in range(angles.shape[1])
    ]
    return np.array(found, int).reshape(-1, *sides)


def _highest(
    values: np.ndarray, every: int, combine: np.ufunc = np.maximum
) -> np.ndarray:
    """Returns one value for each shown frame and those up to the next."""
    return combine.reduceat(values.astype(float), np.arange(0, len(values), every))


def _worst(
    away: Float[np.ndarray, "num_frames num_bonds"], bonds: Bonds, spacing: float
) -> list[dict[str, Any]]:
    """Returns the bonds that leave their usual length most, and when."""
    order = np.argsort(-away.max(axis=0))[:NUM_BONDS]
    return [
        {
            "name": bonds.names[bond],
            "usual": round(float(bonds.lengths[bond]), 3),
            "away": round(float(away[:, bond].max()), 3),
            "time": float(away[:, bond].argmax() * spacing),
        }
        for bond in order.tolist()
    ]


def _events(
    path: Path,
    spacing: float,
    loss: validity.Lost | None,
    repeated: np.ndarray,
    num_cut: int,
) -> list[dict[str, Any]]:
    """Returns what happened, with its time in ps."""
    events = []
    time = gate.broken_at(gate.read(path), path)
    if time is not None:
        events.append({"time": time, "what": "geometry broke (sample.json)"})
    if loss is not None:
        events.append({"time": loss.frame * spacing, "what": loss.reason})
    if num_cut:
        words = (
            f"the last {num_cut} frames, from one that is not finite on, are left out"
        )
        events.append({"time": loss.frame * spacing, "what": words})
    count = int(repeated.sum())
    if count:
        words = f"{count} frames repeat the one before; this is the first"
        events.append({"time": float(repeated.argmax() * spacing), "what": words})
    return events
