"""Distances between the atoms of each molecule: the nearest ones, and what they reach.

Positions are in Å. Molecules of one size are looked at together; of a large one, a tree
of its atoms takes the place of all pairs.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64

from symphony.data.molecules import Molecules

MIN_DISTANCE = 0.1  # Å; two atoms nearer than this are taken for one written twice
_LARGE = 512  # atoms
_PAIRS_PER_CHUNK = 2_000_000  # bounds the memory of the search for coincident atoms


def any_of_molecule(
    molecules: Molecules, atom_mask: Bool[np.ndarray, " total_atoms"]
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules have an atom in the mask."""
    count = np.concatenate([[0], np.cumsum(atom_mask, dtype=np.int64)])
    return count[molecules.offsets[1:]] > count[molecules.offsets[:-1]]


def _squared_distances(
    molecules: Molecules, largest: int | None = None
) -> Iterator[
    tuple[
        Int64[np.ndarray, " rows"],
        Int64[np.ndarray, "rows size"],
        Float32[np.ndarray, "rows size size"],
    ]
]:
    """Yields molecules of one size: their indices, their atoms, and Å² of all pairs.

    Molecules above the largest size are passed over.
    """
    for size in np.unique(molecules.num_atoms):
        if size == 0 or (largest is not None and size > largest):
            continue
        same_size = np.flatnonzero(molecules.num_atoms == size)
        chunk = max(1, _PAIRS_PER_CHUNK // int(size) ** 2)
        for begin in range(0, len(same_size), chunk):
            rows = same_size[begin : begin + chunk]
            atoms = molecules.offsets[rows][:, None] + np.arange(size)
            squared = np.zeros((len(rows), size, size), np.float32)
            for axis in range(3):
                along = molecules.positions[atoms, axis]
                with np.errstate(invalid="ignore", over="ignore"):
                    squared += np.square(along[:, :, None] - along[:, None])
            yield rows, atoms, squared


def nearest(molecules: Molecules) -> Float32[np.ndarray, " total_atoms"]:
    """Returns the distance (Å) of each atom to its nearest one; infinite of a lone one.

    Positions must be finite.

    >>> from symphony.data.molecules import make_molecules
    >>> line = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    >>> nearest(make_molecules(np.array([3]), np.array([6, 6, 6]), line)).tolist()
    [1.0, 1.0, 2.0]
    """
    found = np.full(len(molecules.positions), np.inf, np.float32)
    is_large = molecules.num_atoms > _LARGE
    for index in np.flatnonzero(is_large):
        from scipy.spatial import cKDTree

        atoms = slice(*molecules.offsets[index : index + 2])
        points = molecules.positions[atoms]
        found[atoms] = cKDTree(points).query(points, k=2)[0][:, 1]
    for _, atoms, squared in _squared_distances(molecules, largest=_LARGE):
        size = atoms.shape[1]
        squared[:, np.arange(size), np.arange(size)] = np.inf
        found[atoms] = np.sqrt(squared.min(axis=2))
    return found


def coincident(
    molecules: Molecules, distance: float = MIN_DISTANCE
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules have two atoms less than a distance (Å) apart."""
    return any_of_molecule(molecules, nearest(molecules) < distance)


def unreachable(
    molecules: Molecules, low: float, high: float, heavy_first: bool
) -> Bool[np.ndarray, " num_molecules"]:
    """Returns which molecules steps of `low` to `high` Å cannot build in every order.

    No nearest neighbour is further than the longest edge of the shortest tree that
    spans the molecule, so it suffices that atoms within `high` hang together: the heavy
    atoms among themselves where they come first, then all.
    """
    is_unreachable = coincident(molecules, low)
    for rows, atoms, squared in _squared_distances(molecules):
        near = squared <= high**2
        size = atoms.shape[1]
        heavy = molecules.atomic_numbers[atoms] > 1
        reached = np.arange(size) == np.argmax(heavy, axis=1)[:, None]
        for allowed in (heavy, np.ones_like(heavy)) if heavy_first else (True,):
            # A walk over n atoms has at most n - 1 steps.
            for _ in range(size):
                before = reached.sum()
                reached |= (near & reached[:, None]).any(axis=2) & allowed
                if reached.sum() == before:
                    break
            is_unreachable[rows] |= np.any(~reached & allowed, axis=1)
    return is_unreachable
