r"""Neighbours within a cutoff, periodic images among them, as a table.

Each atom is a receiver with a row of senders. A sender may be an image of an atom, of
the receiver itself too: its *shift* counts the cells between them. Rows are as long as
the fullest one needs; what is empty has `mask` false.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num


class Neighbours(NamedTuple):
    """Senders of each receiver.

    Attributes:
        senders: index of the sender of each edge; 0 where there is none.
        shifts: cells from the atom to its image that sends, along each cell vector.
        mask: true where there is an edge.
    """

    senders: Int[np.ndarray | Array, "num_nodes num_senders"]
    shifts: Float[np.ndarray | Array, "num_nodes num_senders 3"]
    mask: Bool[np.ndarray | Array, "num_nodes num_senders"]


def find_neighbours(
    positions: Num[np.ndarray, "num_nodes 3"],
    cutoff: float,
    cell: Num[np.ndarray, "3 3"] | None = None,
    multiple: int = 1,
) -> Neighbours:
    """Finds all neighbours nearer than a cutoff, on the host.

    >>> find_neighbours(np.array([[0.0, 0, 0], [0, 0, 1.0]]), 2.0).senders.tolist()
    [[1], [0]]
    >>> find_neighbours(np.zeros((1, 3)), 1.5, np.eye(3)).mask.sum().item()
    18

    Args:
        positions: positions in Å.
        cutoff: largest distance in Å.
        cell: cell vectors as rows, in Å; None if nothing is periodic.
        multiple: number of which the length of the rows is a multiple, so that few
            programs serve many structures.
    """
    import vesin  # It loads ASE, which training does not need.

    search = vesin.NeighborList(cutoff=cutoff, full_list=True)
    points = np.asarray(positions, np.float64)
    box = np.zeros((3, 3)) if cell is None else np.asarray(cell, np.float64)
    found = search.compute(points, box, cell is not None, "ijS")
    receivers, senders, shifts = (array.astype(np.int64) for array in found)
    counts = np.bincount(receivers, minlength=len(positions))
    width = -(-int(counts.max(initial=0)) // multiple) * multiple
    order = np.argsort(receivers, kind="stable")
    # The place in a row: that among all edges, less that of the first of the row.
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    at, shape = (receivers[order], place), (len(positions), width)
    table = Neighbours(
        np.zeros(shape, np.int32),
        np.zeros((*shape, 3), np.float32),
        np.zeros(shape, bool),
    )
    table.senders[at], table.shifts[at] = senders[order], shifts[order]
    table.mask[at] = True
    return table


def displacements(
    positions: Float[Array, "num_nodes 3"],
    neighbours: Neighbours,
    cell: Float[Array, "3 3"] | None = None,
) -> Float[Array, "num_nodes num_senders 3"]:
    """Returns the vectors from senders to receivers, in Å; zero where no edge is.

    >>> positions = jnp.array([[0.0, 0, 0], [0, 0, 1.0]])
    >>> near = find_neighbours(np.asarray(positions), 2.0)
    >>> displacements(positions, near).tolist()
    [[[0.0, 0.0, -1.0]], [[0.0, 0.0, 1.0]]]

    Args:
        positions: positions in Å.
        neighbours: their table.
        cell: cell vectors as rows, in Å; None if nothing is periodic.
    """
    vectors = positions[:, None] - positions[neighbours.senders]
    if cell is not None:
        vectors -= jnp.einsum(
            "nsk,kx->nsx", neighbours.shifts, cell, precision="highest"
        )
    return jnp.where(neighbours.mask[..., None], vectors, 0.0)
