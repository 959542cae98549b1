"""Molecules made whole over the periodic box, and the lengths of their bonds.

Positions are in Å. A box is three edges as rows. A bond that is too long is looked at
again with the nearest image of its atoms; others stay where they are.
"""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from common.errors import UsageError
from equijump.data.residues import RESIDUES, element_of
from equijump.data.topology import System

RADII = {"C": 0.76, "N": 0.71, "O": 0.66, "S": 1.05, "Se": 1.20, "P": 1.07}
"""Covalent radii in Å."""

_LONGEST, _SHORTEST = 1.6, 0.4
"""Limits of a bond over the sum of covalent radii, for hot and for rounded frames."""

_LEAST_EDGE = 5.0
"""Å, of a box that a molecule may be in; formats keep smaller ones for none."""

ABSURD = 1e6
"""Å, beyond which no position is."""

_BOHR = 0.529177
_UNITS = {
    10.0: "Å where nm belong",
    0.1: "nm where Å belong",
    1.0 / _BOHR: "bohr where Å belong",
    10.0 / _BOHR: "bohr where nm belong",
    _BOHR: "Å where bohr belong",
}
"""Lengths in a wrong unit, by how many times too long they seem."""

Positions = Float[np.ndarray, "*#batch 3"]
Box = Float[np.ndarray, "3 3"]
Lengths = Float[np.ndarray, "num_frames num_bonds"]


def apart(first: Positions, second: Positions, box: Box | None) -> Any:
    """Returns distances in Å, those of the nearest image where there is a box.

    >>> float(apart(np.zeros(3), np.array([9.0, 0, 0]), 10.0 * np.eye(3)))
    1.0
    """
    vectors = np.asarray(second, np.float64) - first
    if box is not None and is_box(box[None])[0]:
        edges = np.asarray(box, np.float64)
        vectors -= np.round(vectors @ np.linalg.inv(edges)) @ edges
    return np.linalg.norm(vectors, axis=-1)


def is_box(boxes: Float[np.ndarray, "num_frames 3 3"]) -> Bool[np.ndarray, " _"]:
    """Returns which boxes are large enough to hold a molecule."""
    edges = np.linalg.norm(np.nan_to_num(boxes), axis=-1).min(axis=-1)
    volumes = np.abs(np.linalg.det(np.nan_to_num(boxes)))
    return (edges > _LEAST_EDGE) & (volumes > _LEAST_EDGE**3) & (volumes < 1e12)


class Bonds(NamedTuple):
    """Bonds of a system, and how long they may be.

    Attributes:
        pairs: atoms of each bond.
        shortest: least lengths, in Å.
        longest: greatest lengths, in Å.
    """

    pairs: Int[np.ndarray, "num_bonds 2"]
    shortest: Float[np.ndarray, " num_bonds"]
    longest: Float[np.ndarray, " num_bonds"]


def bonds_of(system: System) -> Bonds:
    """Returns the bonds of a system with their limits."""
    radii = np.zeros(len(system.kept))
    for token, row in zip(system.tokens, system.slot_atoms, strict=True):
        names = RESIDUES[token - 1].slots
        for name, atom in zip(names, row, strict=False):
            if name:
                radii[atom] = RADII[element_of(name)]
    usual = radii[system.bonds].sum(axis=1)
    return Bonds(system.bonds, _SHORTEST * usual, _LONGEST * usual)


def lengths_of(positions: np.ndarray, bonds: Bonds) -> Lengths:
    """Returns the lengths of bonds in frames, in Å."""
    first, second = bonds.pairs.T
    with np.errstate(all="ignore"):
        vectors = positions[:, first] - positions[:, second]
        return np.sqrt(np.einsum("fbi,fbi->fb", vectors, vectors))


def make_whole(
    positions: Float32[np.ndarray, "num_frames num_atoms 3"],
    boxes: Float[np.ndarray, "num_frames 3 3"] | None,
    bonds: Bonds,
) -> Float32[np.ndarray, "num_frames num_atoms 3"]:
    """Returns frames in which each molecule is in one piece, as far as its box tells.

    Args:
        positions: positions of the kept atoms, in Å.
        boxes: edges of the periodic boxes, in Å; None where there are none.
        bonds: bonds with their limits.
    """
    if boxes is None or not len(bonds.pairs):
        return positions
    split = np.any(lengths_of(positions, bonds) > bonds.longest, axis=1)
    frames = np.flatnonzero(split & is_box(boxes))
    if not len(frames):
        return positions
    whole = positions.copy()
    tree = _tree(bonds.pairs, positions.shape[1])
    edges = boxes[frames].astype(np.float64)
    part = positions[frames].astype(np.float64)
    inverse = np.linalg.inv(edges)
    for before, atom in tree:
        vectors = part[:, atom] - part[:, before]
        images = np.round(np.einsum("fi,fij->fj", np.nan_to_num(vectors), inverse))
        part[:, atom] -= np.einsum("fi,fij->fj", images, edges)
    whole[frames] = part.astype(np.float32)
    return whole


def _tree(
    pairs: Int[np.ndarray, "num_bonds 2"], num_atoms: int
) -> list[tuple[int, int]]:
    """Returns bonds that reach all atoms of each molecule, from its first one on."""
    partners: list[list[int]] = [[] for _ in range(num_atoms)]
    for first, second in pairs.tolist():
        partners[first].append(second)
        partners[second].append(first)
    seen, found = set(), []
    for start in range(num_atoms):
        waiting = deque() if start in seen else deque([start])
        seen.add(start)
        while waiting:
            atom = waiting.popleft()
            for other in partners[atom]:
                if other not in seen:
                    seen.add(other)
                    found.append((atom, other))
                    waiting.append(other)
    return found


def intact(
    positions: Float32[np.ndarray, "num_frames num_atoms 3"], bonds: Bonds
) -> Bool[np.ndarray, " num_frames"]:
    """Returns which frames have positions and bonds that can be; see `check`."""
    with np.errstate(invalid="ignore"):
        near = (np.abs(positions) <= ABSURD).all(axis=(1, 2))  # Not so if no number.
    lengths = lengths_of(positions, bonds)
    fits = (lengths >= bonds.shortest) & (lengths <= bonds.longest)
    return near & fits.all(axis=1)


def check(
    source: str,
    positions: Float32[np.ndarray, "num_frames num_atoms 3"],
    bonds: Bonds,
    system: System,
    before: int = 0,
    has_box: bool = False,
) -> None:
    """Raises `UsageError` for a frame with a position or a bond that cannot be.

    Args:
        source: file, for the message.
        positions: positions of the kept atoms, in Å, made whole.
        bonds: bonds with their limits.
        system: system that has the names.
        before: number of frames of the file before these.
        has_box: true if the file has boxes, by which they were made whole.
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    if not finite.all():
        raise UsageError(
            f"{source}: expected finite positions, found others in frame "
            f"{before + int(np.argmin(finite))}, counted from 0; leave this frame out"
        )
    far = np.abs(positions).max(axis=(1, 2), initial=0.0) > ABSURD
    if far.any():
        frame = int(np.argmax(far))
        largest = np.abs(positions[frame]).max()
        raise UsageError(
            f"{source}: expected positions of a molecule, found one of {largest:.3g} Å "
            f"in frame {before + frame}, counted from 0; the file is damaged: write it "
            "anew, or without this frame"
        )
    lengths = lengths_of(positions, bonds)
    wrong = (lengths < bonds.shortest) | (lengths > bonds.longest)
    if wrong.any():
        frame = int(np.argmax(wrong.any(axis=1)))
        raise UsageError(
            _describe(source, lengths[frame], wrong[frame], bonds, system, has_box)
            .replace("FRAME", str(before + frame))
        )  # fmt: skip


def _describe(
    source: str,
    lengths: Float[np.ndarray, " num_bonds"],
    wrong: Bool[np.ndarray, " num_bonds"],
    bonds: Bonds,
    system: System,
    has_box: bool,
) -> str:
    """Says which bond of a frame is wrong, and what may have come of it."""
    excess = np.where(wrong, np.abs(np.log(np.maximum(lengths, 1e-6) / 1.5)), -1.0)
    bond = int(np.argmax(excess))
    first, second = (_label(system, int(atom)) for atom in bonds.pairs[bond])
    start = (
        f"{source}: expected bonds of {bonds.shortest[bond]:.2f} to "
        f"{bonds.longest[bond]:.2f} Å, found {first}-{second} of {lengths[bond]:.2f} Å "
        "in frame FRAME, counted from 0"
    )
    unit = _unit_of(float(np.median(lengths / (bonds.longest / _LONGEST))))
    if unit:
        return f"{start}; {unit}"
    if lengths[bond] < bonds.shortest[bond]:
        return f"{start}; the file is damaged or no trajectory of this topology"
    if has_box:
        return (
            f"{start}, not split over its periodic box; write it anew, or without "
            "this frame"
        )
    return (
        f"{start}; split over the periodic box, which the file does not have? make it "
        "whole, e.g. by gmx trjconv -pbc whole"
    )


def _label(system: System, atom: int) -> str:
    row = int(np.argwhere(system.slot_atoms == atom)[0, 0])
    return f"{system.residue_names[row]}{row + 1}:{system.atom_names[atom]}"


def describe_unit(positions: Float[np.ndarray, "num_atoms 3"], box: Box | None) -> str:
    """Returns in which unit the atoms of a residue seem to be, empty if in Å."""
    if len(positions) < 3 or not np.isfinite(positions).all():
        return ""
    distances = apart(positions[:, None], positions[None], box)
    np.fill_diagonal(distances, np.inf)
    return _unit_of(float(np.median(distances.min(axis=1))) / 1.42, slack=0.25)


def _unit_of(ratio: float, slack: float = 0.1) -> str:
    """Says which unit makes bonds so many times too long, nothing if none does.

    >>> _unit_of(1.0), _unit_of(0.1)[:47]
    ('', 'bonds 0.1 times as long as they are, as of nm w')
    """
    for factor, what in _UNITS.items():
        if abs(np.log(max(ratio, 1e-9) / factor)) < slack:
            return (
                f"bonds {ratio:.2g} times as long as they are, as of {what}; divide "
                f"positions by {factor:.4g}, e.g. t = mdtraj.load(...); t.xyz /= "
                f"{factor:.4g}; t.save(...)"
            )
    return ""


def check_unit(source: str, positions: np.ndarray, bonds: Bonds) -> None:
    """Raises `UsageError` for a frame whose bonds are all of another unit.

    It is for frames that may be broken: nothing else of them is judged.
    """
    if not len(bonds.pairs) or not np.isfinite(positions).all():
        return
    ratios = lengths_of(positions[None], bonds)[0] / (bonds.longest / _LONGEST)
    low, high = np.quantile(ratios, (0.1, 0.9))
    unit = _unit_of(float(np.median(ratios)))
    if unit and high < 1.3 * low:
        raise UsageError(
            f"{source}: expected lengths in the format's unit, found {unit}"
        )
