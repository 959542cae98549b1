"""Several molecules kept together over the periodic box.

Each molecule is in one piece already. It is moved as a whole to the image that is
nearest to the first molecule, and from then on to the one nearest to where it was.
Positions are in Å.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from equijump.data.whole import is_box

Frames = Float32[np.ndarray, "num_frames num_atoms 3"]
Boxes = Float[np.ndarray, "num_frames 3 3"]
Places = Float64[np.ndarray, "num_molecules 3"]


def molecules_of(
    bonds: Int[np.ndarray, "num_bonds 2"], num_atoms: int
) -> Int[np.ndarray, " num_atoms"]:
    """Returns the number of the molecule of each atom.

    >>> molecules_of(np.array([[0, 2]]), 4).tolist()
    [0, 1, 0, 2]
    """
    from scipy.sparse import csgraph, csr_array

    ones = np.ones(len(bonds), bool)
    graph = csr_array((ones, (bonds[:, 0], bonds[:, 1])), (num_atoms, num_atoms))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int32)


def together(
    positions: Frames,
    boxes: Boxes | None,
    molecules: Int[np.ndarray, " num_atoms"],
    last: Places | None = None,
) -> tuple[Frames, Places | None]:
    """Returns frames that follow each other, and where the molecules are in the last.

    Args:
        positions: positions, in Å.
        boxes: edges of the periodic boxes, in Å; None where there are none.
        molecules: number of the molecule of each atom.
        last: places of the frame before, in edges of its box from the first molecule.
    """
    if boxes is None or molecules.max(initial=0) == 0 or not is_box(boxes).all():
        return positions, last
    places = _places(positions, boxes, molecules)
    steps = np.round(np.diff(places, axis=0))
    first = -np.round(places[:1]) if last is None else np.round(last - places[:1])
    moves = np.concatenate([first, first - np.cumsum(steps, axis=0)])
    return _moved(positions, boxes, molecules, moves), places[-1] + moves[-1]


def nearest(
    positions: Frames, boxes: Boxes | None, molecules: Int[np.ndarray, " num_atoms"]
) -> Frames:
    """Returns frames that do not follow each other; see `together`."""
    if boxes is None or molecules.max(initial=0) == 0 or not is_box(boxes).all():
        return positions
    moves = -np.round(_places(positions, boxes, molecules))
    return _moved(positions, boxes, molecules, moves)


def _places(
    positions: Frames, boxes: Boxes, molecules: Int[np.ndarray, " num_atoms"]
) -> Float64[np.ndarray, "num_frames num_molecules 3"]:
    """Returns centres of molecules from that of the first, in edges of the box."""
    weights = np.eye(molecules.max() + 1)[molecules].T
    weights /= weights.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        centres = np.nan_to_num(np.einsum("ma,fai->fmi", weights, positions))
    inverse = np.linalg.inv(boxes.astype(np.float64))
    return np.einsum("fmi,fij->fmj", centres - centres[:, :1], inverse)


def _moved(
    positions: Frames,
    boxes: Boxes,
    molecules: Int[np.ndarray, " num_atoms"],
    moves: Float64[np.ndarray, "num_frames num_molecules 3"],
) -> Frames:
    if not moves.any():
        return positions
    shifts = np.einsum("fmi,fij->fmj", moves, boxes.astype(np.float64))
    return (positions + shifts[:, molecules]).astype(np.float32)
