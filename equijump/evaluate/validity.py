"""Whether frames are molecules: bonds, angles, peptide bonds, clashes, handedness.

Every quantity is judged against the reference's own mean or quantile.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from equijump.data.topology import System
from equijump.evaluate import geometry

BROKEN = 1.8
"""A bond that differs from its mean length by more than this factor is broken."""

CLASH = 0.8
"""Largest share of the sum of van der Waals radii at which two atoms may clash."""

CLASH_ALONE = 0.65
"""The same without a reference: 2.0 Å for N and O, which molecular dynamics avoids."""

CLASH_QUANTILE = 0.001
"""Share of the reference's frames that may clash at most."""

_MAX_DISTANCES = 2_000_000
"""Distances in memory at once."""

_MOST_PAIRS = 20_000
"""Pairs of atoms up to which the distances of all of them are computed."""

Units = Sequence[Float[np.ndarray, "_ num_atoms 3"]]
Closest = Sequence[Float[np.ndarray, " _"]]


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


class _Probes(NamedTuple):
    """Atoms of what is measured of a system: bonds, angles, peptide bonds, centres."""

    bonds: Int[np.ndarray, "num_bonds 2"]
    angles: Int[np.ndarray, "num_angles 3"]
    omegas: Int[np.ndarray, "num_omegas 4"]
    centres: Int[np.ndarray, "num_centres 4"]


def _probes(system: System) -> _Probes:
    torsions = geometry.find_torsions(system)
    return _Probes(
        bonds=system.bonds,
        angles=geometry.find_angles(system.bonds),
        omegas=torsions.atoms[[kind == "omega" for kind in torsions.kinds]],
        centres=geometry.find_centres(system)[1],
    )


def mean_lengths(
    positions: Units, bonds: Int[np.ndarray, "num_bonds 2"]
) -> Float[np.ndarray, " num_bonds"]:
    """Returns the mean length of each bond over all frames in Å.

    >>> unit = np.float64([[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [2, 0, 0]]])
    >>> mean_lengths([unit], np.array([[0, 1]])).round(3).tolist()
    [1.5]
    """
    return _mean(positions, geometry.distances_of, bonds)


def _mean(
    positions: Units, function: Callable[..., Shaped[np.ndarray, "_ dims"]], *rest: Any
) -> Float[np.ndarray, " dims"]:
    """Returns the mean over all frames of what a function makes of each."""
    total, count = 0.0, 0
    for unit in positions:
        for chunk in geometry.chunks(unit):
            total = total + np.sum(function(chunk, *rest), axis=0, dtype=np.float64)
            count += len(chunk)
    return total / count


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
    before = 0
    for chunk in geometry.chunks(positions):
        loss = _find_loss(name, chunk, system, lengths)
        if loss is not None:
            return loss._replace(frame=before + loss.frame)
        before += len(chunk)
    return None


def _find_loss(
    name: str,
    positions: Float[np.ndarray, "num_frames num_atoms 3"],
    system: System,
    lengths: Float[np.ndarray, " num_bonds"],
) -> Lost | None:
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

    Where pairs are many, neighbours are looked for up to the distance of a clash; it is
    infinite where none is that near.

    >>> unit = np.float64([[[0, 0, 0], [3.4, 0, 0]], [[0, 0, 0], [1.7, 0, 0]]])
    >>> closeness(unit, np.array([[0, 1]]), np.array([1.7, 1.7])).round(3).tolist()
    [1.0, 0.5]
    """
    if len(pairs) == 0:
        return np.full(len(positions), np.inf)
    if len(pairs) > _MOST_PAIRS:
        return _closeness_of_neighbours(positions, pairs, radii)
    touching = radii[pairs].sum(axis=1)
    size = max(1, _MAX_DISTANCES // len(pairs))
    return np.concatenate(
        [
            np.min(geometry.distances_of(chunk, pairs) / touching, axis=1)
            for chunk in np.split(positions, range(size, len(positions), size))
        ]
    )


def _closeness_of_neighbours(
    positions: Float[np.ndarray, "num_frames num_atoms 3"],
    pairs: Int[np.ndarray, "num_pairs 2"],
    radii: Float[np.ndarray, " num_atoms"],
) -> Float[np.ndarray, " num_frames"]:
    from scipy.spatial import cKDTree

    counts = np.zeros((len(radii), len(radii)), bool)
    counts[pairs[:, 0], pairs[:, 1]] = True
    farthest = 2.0 * CLASH * float(radii.max())
    found = np.full(len(positions), np.inf)
    for number, frame in enumerate(positions):
        tree = cKDTree(frame, balanced_tree=False, compact_nodes=False)
        first, second = tree.query_pairs(farthest, output_type="ndarray").T
        near = counts[first, second]
        first, second = first[near], second[near]
        apart = np.linalg.norm(np.float64(frame[first]) - frame[second], axis=1)
        shares = apart / (radii[first] + radii[second])
        found[number] = np.min(shares, initial=np.inf, where=shares < CLASH)
    return found


def closest_atoms(positions: Units, system: System) -> Closest:
    """Returns the closeness of all frames of each unit, see `closeness`."""
    pairs = geometry.find_distant_pairs(system.bonds, len(system.kept))
    radii = geometry.radii(system)
    return [geometry.over_frames(closeness, x, pairs, radii) for x in positions]


def norm_of(positions: Units, system: System, close: Closest | None = None) -> Norm:
    """Measures the reference.

    Args:
        positions: positions of each unit, in Å.
        system: system that it is of.
        close: closest atoms of each frame where they are known, see `closest_atoms`.
    """
    probes = _probes(system)
    close = closest_atoms(positions, system) if close is None else close
    signs = _mean(positions, geometry.handedness, probes.centres)
    return Norm(
        lengths=mean_lengths(positions, system.bonds),
        angles=_mean(positions, geometry.angles_of, probes.angles),
        clash=clash_threshold(np.concatenate(close)),
        signs=np.where(signs > 0.0, 1, -1),
    )


def clash_threshold(reference: Float[np.ndarray, " num_frames"]) -> float:
    """Returns 0.8, or less where more than 0.1 % of the reference would clash."""
    quantile = np.quantile(reference, CLASH_QUANTILE, method="lower")
    return float(min(CLASH, quantile))


def measure(
    positions: Units,
    system: System,
    norm: Norm,
    spacing: float,
    every: int = 1,
    close: Closest | None = None,
) -> dict[str, Any]:
    """Measures one side; see the docs for every entry.

    Args:
        positions: positions of each unit, in Å.
        system: system that it is of.
        norm: norm of the reference.
        spacing: time of a step, over which flips are counted, in ps.
        every: number of frames in a step.
        close: closest atoms of each frame where they are known, see `closest_atoms`.
    """
    probes = _probes(system)
    close = closest_atoms(positions, system) if close is None else close
    residues, _ = geometry.find_centres(system)
    labels = [geometry.residue_label(system, residue) for residue in residues]
    parts, flips, time = [], np.zeros(len(labels), int), 0.0
    for unit in positions:
        found, hands = _measure_unit(unit, probes, norm)
        parts += found
        flips += np.sum(hands[every:] != hands[:-every], axis=0)
        time += (len(unit) - every) * spacing / 1000.0  # ns
    total = _Part(*(sum(column) for column in zip(*parts, strict=True)))
    count, wrong = total.num_frames, total.num_wrong
    return {
        "bond_rms": _root(total.bonds, count * len(probes.bonds)),
        "worst_bond": max(part.worst_bond for part in parts),
        "angle_rms": _root(total.angles, count * len(probes.angles)),
        "cis_fraction": _share(total.num_cis, count * len(probes.omegas)),
        "clash_fraction": float(np.mean(np.concatenate(close) < norm.clash)),
        "wrong_hand_fraction": _share(int(wrong.sum()), count * len(labels)),
        "wrong_hand_frames": dict(zip(labels, wrong.tolist(), strict=True)),
        "flips_per_ns": dict(zip(labels, (flips / time).tolist(), strict=True)),
        "repeated_fraction": _share(total.num_repeated, count - len(positions)),
    }


class _Part(NamedTuple):
    """Sums over some frames of one unit.

    Attributes:
        num_frames: number of these frames.
        bonds: squared deviations of lengths, in Å^2.
        worst_bond: largest deviation of a length, in Å.
        angles: squared deviations of angles, in degrees squared.
        num_cis: peptide bonds that are cis.
        num_wrong: frames of the wrong hand, of each centre.
        num_repeated: frames like the one before, bit for bit.
    """

    num_frames: int
    bonds: float
    worst_bond: float
    angles: float
    num_cis: int
    num_wrong: Int[np.ndarray, " num_centres"]
    num_repeated: int


def _measure_unit(
    positions: Float[np.ndarray, "num_frames num_atoms 3"], probes: _Probes, norm: Norm
) -> tuple[list[_Part], Int[np.ndarray, "num_frames num_centres"]]:
    """Returns the sums of a unit chunk by chunk, and the hands of its centres."""
    parts, signs, before = [], [], positions[:0]
    for chunk in geometry.chunks(positions):
        hands = geometry.handedness(chunk, probes.centres).astype(np.int8)
        lengths = geometry.distances_of(chunk, probes.bonds) - norm.lengths
        bends = geometry.angles_of(chunk, probes.angles) - norm.angles
        turns = geometry.torsions_of(chunk, probes.omegas)
        joined = np.concatenate([before, chunk])
        part = _Part(
            num_frames=len(chunk),
            bonds=float(np.sum(np.square(lengths))),
            worst_bond=float(np.max(np.abs(lengths))),
            angles=float(np.sum(np.square(bends))),
            num_cis=int(np.sum(np.abs(turns) < np.pi / 2)),
            num_wrong=np.sum(hands != norm.signs, axis=0),
            num_repeated=int(np.sum(np.all(joined[1:] == joined[:-1], axis=(1, 2)))),
        )
        parts.append(part)
        signs.append(hands)
        before = chunk[-1:]
    return parts, np.concatenate(signs)


def _root(squares: float, count: int) -> float | None:
    return (squares / count) ** 0.5 if count else None


def _share(count: int, total: int) -> float | None:
    return float(count / total) if total else None
