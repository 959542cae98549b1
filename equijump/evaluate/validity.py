"""Whether frames are molecules: bonds, angles, peptide bonds, clashes, handedness.

Every quantity is judged against the reference's own mean or quantile.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from equijump.data.topology import System
from equijump.evaluate import geometry

BROKEN = 1.8
"""A bond that differs from its mean length by more than this factor is broken."""

CLASH = 0.8
"""Largest share of the sum of van der Waals radii at which two atoms may clash."""

CLASH_QUANTILE = 0.001
"""Share of the reference's frames that may clash at most."""

_MAX_DISTANCES = 20_000_000
"""Distances in memory at once."""

Units = Sequence[Float[np.ndarray, "_ num_atoms 3"]]


class Lost(NamedTuple):
    """Why a replica does not count.

    Attributes:
        name: name of its file.
        frame: first bad frame, counted from 0.
        reason: reason in words.
    """

    name: str
    frame: int
    reason: str


class Norm(NamedTuple):
    """What the reference says is right.

    Attributes:
        lengths: mean length of each bond, in Å.
        angles: mean of each angle, in degrees.
        clash: threshold; see `clash_threshold`.
        signs: handedness of each centre in most frames.
    """

    lengths: Float[np.ndarray, " num_bonds"]
    angles: Float[np.ndarray, " num_angles"]
    clash: float
    signs: Int[np.ndarray, " num_centres"]


def mean_lengths(
    positions: Units, bonds: Int[np.ndarray, "num_bonds 2"]
) -> Float[np.ndarray, " num_bonds"]:
    """Returns the mean length of each bond over all frames in Å.

    >>> unit = np.float64([[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [2, 0, 0]]])
    >>> mean_lengths([unit], np.array([[0, 1]])).round(3).tolist()
    [1.5]
    """
    return _mean([geometry.distances_of(unit, bonds) for unit in positions])


def _mean(units: Sequence[Shaped[np.ndarray, "_ dims"]]) -> Float[np.ndarray, " dims"]:
    return np.mean(np.concatenate(units), axis=0, dtype=np.float64)


def find_loss(
    name: str,
    positions: Float[np.ndarray, "num_frames num_atoms 3"],
    system: System,
    lengths: Float[np.ndarray, " num_bonds"],
) -> Lost | None:
    """Returns where a replica first stops to be the molecule, None if nowhere.

    Args:
        name: name of its file.
        positions: positions of all its frames, in Å.
        system: system that has the bonds.
        lengths: mean lengths in the reference, in Å.
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    found = geometry.distances_of(np.nan_to_num(positions), system.bonds)
    broken = (found > BROKEN * lengths) | (found < lengths / BROKEN)
    bad = ~finite | broken.any(axis=1)
    if not bad.any():
        return None
    frame = int(np.argmax(bad))
    if not finite[frame]:
        return Lost(name, frame, "a position that is not finite")
    bond = int(np.argmax(broken[frame]))
    first, second = (system.atom_names[atom] for atom in system.bonds[bond])
    length = f"{found[frame, bond]:.2f} Å, not {lengths[bond]:.2f} Å"
    return Lost(name, frame, f"a bond {first}-{second} of {length}")


def closeness(
    positions: Float[np.ndarray, "num_frames num_atoms 3"],
    pairs: Int[np.ndarray, "num_pairs 2"],
    radii: Float[np.ndarray, " num_atoms"],
) -> Float[np.ndarray, " num_frames"]:
    """Returns the least distance over sum of radii among the pairs of each frame.

    >>> unit = np.float64([[[0, 0, 0], [3.4, 0, 0]], [[0, 0, 0], [1.7, 0, 0]]])
    >>> closeness(unit, np.array([[0, 1]]), np.array([1.7, 1.7])).round(3).tolist()
    [1.0, 0.5]
    """
    if len(pairs) == 0:
        return np.full(len(positions), np.inf)
    touching = radii[pairs].sum(axis=1)
    size = max(1, _MAX_DISTANCES // len(pairs))
    return np.concatenate(
        [
            np.min(geometry.distances_of(chunk, pairs) / touching, axis=1)
            for chunk in np.split(positions, range(size, len(positions), size))
        ]
    )


def norm_of(positions: Units, system: System) -> Norm:
    """Measures the reference."""
    _, centres = geometry.find_centres(system)
    angles = geometry.find_angles(system.bonds)
    pairs = geometry.find_distant_pairs(system.bonds, len(system.kept))
    close = [closeness(x, pairs, geometry.radii(system)) for x in positions]
    signs = [geometry.handedness(x, centres) for x in positions]
    return Norm(
        lengths=mean_lengths(positions, system.bonds),
        angles=_mean([geometry.angles_of(x, angles) for x in positions]),
        clash=clash_threshold(np.concatenate(close)),
        signs=np.where(_mean(signs) > 0.0, 1, -1),
    )


def clash_threshold(reference: Float[np.ndarray, " num_frames"]) -> float:
    """Returns 0.8, or less where more than 0.1 % of the reference would clash."""
    quantile = np.quantile(reference, CLASH_QUANTILE, method="lower")
    return float(min(CLASH, quantile))


def measure(
    positions: Units, system: System, norm: Norm, spacing: float, every: int = 1
) -> dict[str, Any]:
    """Measures one side; see the docs for every entry.

    Args:
        positions: positions of each unit, in Å.
        system: system that it is of.
        norm: norm of the reference.
        spacing: time of a step, over which flips are counted, in ps.
        every: number of frames in a step.
    """
    residues, centres = geometry.find_centres(system)
    torsions = geometry.find_torsions(system)
    omegas = torsions.atoms[[kind == "omega" for kind in torsions.kinds]]
    angles = geometry.find_angles(system.bonds)
    pairs = geometry.find_distant_pairs(system.bonds, len(system.kept))
    radii = geometry.radii(system)
    each = lambda function, *rest: [function(x, *rest) for x in positions]

    lengths = np.concatenate(each(geometry.distances_of, system.bonds)) - norm.lengths
    bends = np.concatenate(each(geometry.angles_of, angles)) - norm.angles
    turns = np.concatenate(each(geometry.torsions_of, omegas))
    close = np.concatenate(each(closeness, pairs, radii))
    signs = each(geometry.handedness, centres)
    wrong = np.concatenate(signs) != norm.signs
    flips = sum(np.sum(unit[every:] != unit[:-every], axis=0) for unit in signs)
    time = sum(len(unit) - every for unit in signs) * spacing / 1000.0  # ns
    labels = [geometry.residue_label(system, residue) for residue in residues]
    return {
        "bond_rms": _rms(lengths),
        "worst_bond": float(np.max(np.abs(lengths))),
        "angle_rms": _rms(bends),
        "cis_fraction": _share(np.abs(turns) < np.pi / 2),
        "clash_fraction": _share(close < norm.clash),
        "wrong_hand_fraction": _share(wrong),
        "wrong_hand_frames": dict(zip(labels, wrong.sum(axis=0).tolist(), strict=True)),
        "flips_per_ns": dict(zip(labels, (flips / time).tolist(), strict=True)),
    }


def _rms(values: Float[np.ndarray, "num_frames _"]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _share(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if values.size else None
