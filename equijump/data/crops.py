"""Crops of long proteins: some residues of a frame, the same of source and target.

A residue is drawn evenly, and those around it are taken: along its chain, or nearest in
space in the source frame. A cap stays with the residue that it closes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equijump.data.residues import CA_SLOT, CAPS, RESIDUES
from equijump.data.topology import System

KINDS = ("sequence", "space")

_CAPS = np.array([False, *(residue.name in CAPS for residue in RESIDUES)])
_ASIDE = 1e-3
"""Å by which a cap counts as farther than its residue."""


class Crop(NamedTuple):
    """How residues are chosen.

    Attributes:
        size: number of residues, at most.
        in_space: true for the nearest in space, false for a stretch of a chain.
    """

    size: int
    in_space: bool


def choose(
    system: System,
    crop: Crop,
    frames: Float[np.ndarray, "batch num_nodes num_slots 3"],
    draws: Float[np.ndarray, " batch"],
) -> Int[np.ndarray, "batch size"]:
    """Returns the residues of each pair, rising; -1 where its chain has no more.

    Args:
        system: system, of more residues than the crop has.
        crop: how residues are chosen.
        frames: atoms of the source frames in their slots, in Å.
        draws: uniform numbers from 0 to 1, which decide the residue in the middle.
    """
    count = len(system.tokens)
    middles = np.minimum((draws * count).astype(int), count - 1)
    if crop.in_space:
        return _near(system, crop.size, frames[:, :, CA_SLOT], middles)
    return np.stack(
        [_stretch(system, crop.size, middle) for middle in middles.tolist()]
    )


def _stretch(system: System, size: int, middle: int) -> Int[np.ndarray, " size"]:
    """Returns residues of one chain, `middle` among them."""
    members = np.flatnonzero(system.chains == system.chains[middle])
    is_cap = _CAPS[system.tokens[members]]
    last = max(0, len(members) - size)
    place = int(np.searchsorted(members, middle))
    first = min(max(0, place - size // 2), last)
    if first > 0 and is_cap[first - 1]:
        first -= 1
    elif first < last and is_cap[first + size]:
        first += 1
    found = members[first : first + size]
    return np.append(found, np.full(size - len(found), -1))


def _near(
    system: System,
    size: int,
    positions: Float[np.ndarray, "batch num_nodes 3"],
    middles: Int[np.ndarray, " batch"],
) -> Int[np.ndarray, "batch size"]:
    """Returns the residues nearest to the middle ones."""
    centres = positions[np.arange(len(middles)), middles]
    distances = np.linalg.norm(positions - centres[:, None], axis=-1)
    is_cap = _CAPS[system.tokens]
    closed = _closed_by(system, is_cap)
    distances[:, is_cap] = distances[:, closed[is_cap]] + _ASIDE
    return np.sort(np.argsort(distances, axis=1, kind="stable")[:, :size], axis=1)


def _closed_by(
    system: System, is_cap: Bool[np.ndarray, " num_nodes"]
) -> Int[np.ndarray, " num_nodes"]:
    """Returns the residue beside each cap in its chain; itself for all others."""
    closed = np.arange(len(is_cap))
    for index in np.flatnonzero(is_cap).tolist():
        for other in (index + 1, index - 1):
            inside = 0 <= other < len(is_cap)
            if inside and system.chains[other] == system.chains[index]:
                closed[index] = other
                break
    return closed


def take(
    placed: Float[np.ndarray, "batch num_nodes num_slots 3"],
    rows: Int[np.ndarray, "batch size"],
    num_nodes: int,
) -> Float[np.ndarray, "batch padded num_slots 3"]:
    """Returns the chosen residues of frames, zero where there are none.

    >>> take(np.ones((1, 5, 2, 3)), np.array([[1, 2, -1]]), 4)[0, :, 0, 0]
    array([1., 1., 0., 0.])
    """
    found = np.zeros((len(rows), num_nodes, *placed.shape[2:]), placed.dtype)
    chosen = placed[np.arange(len(rows))[:, None], rows]
    found[:, : rows.shape[1]] = np.where((rows >= 0)[:, :, None, None], chosen, 0.0)
    return found
