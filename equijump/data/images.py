"""Several molecules kept together over the periodic box.

Each molecule is in one piece already. In the first frame it is moved as a whole to the
image that touches the others, and from then on to the one nearest to where it was.
Positions are in Å.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from equijump.data.whole import is_box

MOST_POINTS = 600
"""Atoms of which the distances tell contacts, at most."""

HARDLY = 2.0
"""Å by which another image is nearer, up to which a molecule stays."""

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
    if last is None:
        first = _in_contact(positions[0], boxes[0], molecules)[None]
    else:
        first = np.round(last - places[:1])
    moves = np.concatenate([first, first - np.cumsum(steps, axis=0)])
    return _moved(positions, boxes, molecules, moves), places[-1] + moves[-1]


def in_contact(
    positions: Frames, boxes: Boxes | None, molecules: Int[np.ndarray, " num_atoms"]
) -> Frames:
    """Returns frames that do not follow each other; see `together`."""
    if boxes is None or molecules.max(initial=0) == 0 or not is_box(boxes).all():
        return positions
    moves = [
        _in_contact(frame, box, molecules)
        for frame, box in zip(positions, boxes, strict=True)
    ]
    return _moved(positions, boxes, molecules, np.stack(moves))


def _in_contact(
    frame: Float32[np.ndarray, "num_atoms 3"],
    box: Float[np.ndarray, "3 3"],
    molecules: Int[np.ndarray, " num_atoms"],
) -> Places:
    """Returns the edges by which molecules move to those that are placed already.

    The nearest one comes next. It stays where it is if another image is hardly nearer.
    """
    stride = 1 + len(frame) // MOST_POINTS
    places = np.nan_to_num(frame[::stride].astype(np.float64))
    labels, edges = molecules[::stride], box.astype(np.float64)
    inverse = np.linalg.inv(edges)
    moves = np.zeros((molecules.max() + 1, 3))
    placed, rest = places[labels == labels[0]], set(labels.tolist()) - {int(labels[0])}
    while rest:
        found = {}
        for one in sorted(rest):
            vectors = places[labels == one][:, None] - placed
            away = np.round(vectors @ inverse)
            near = np.linalg.norm(vectors - away @ edges, axis=-1)
            best = np.unravel_index(np.argmin(near), near.shape)
            stays = np.linalg.norm(vectors, axis=-1).min() <= near[best] + HARDLY
            found[one] = near[best], np.zeros(3) if stays else -away[best]
        one = min(found, key=lambda name: found[name][0])
        moves[one] = found[one][1]
        placed = np.concatenate([placed, places[labels == one] + moves[one] @ edges])
        rest.remove(one)
    return moves


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
