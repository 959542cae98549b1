"""The table of neighbours against sums over images, and its vectors."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.neighbours import displacements, find_neighbours

CELL = np.array([[2.0, 0.1, 0.0], [0.0, 2.5, 0.3], [0.4, 0.0, 3.0]])
CUTOFF = 3.2


def as_jax(array):
    return None if array is None else jnp.asarray(array, jnp.float32)


def points(count=3):
    return np.random.default_rng(0).uniform(0.0, 2.0, (count, 3))


@pytest.mark.parametrize("periodic", [False, True])
def test_vectors_are_those_of_all_images_within_the_cutoff(periodic):
    where, cell = points(), CELL if periodic else None
    table = find_neighbours(where, CUTOFF, cell)
    vectors = np.asarray(displacements(as_jax(where), table, as_jax(cell)))
    steps = np.arange(-3, 4) if periodic else np.zeros(1)
    images = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3) @ CELL
    for receiver, row in enumerate(where):
        every = (row - where[:, None] - images).reshape(-1, 3)
        distances = np.linalg.norm(every, axis=-1)
        expected = every[(distances < CUTOFF) & (distances > 1e-9)]
        found = vectors[receiver][table.mask[receiver]]
        order = lambda rows: rows[np.lexsort(rows.round(3).T)]
        np.testing.assert_allclose(order(found), order(expected), atol=1e-5)
    assert not vectors[~table.mask].any()


def test_rows_have_the_length_that_was_asked_for():
    table = find_neighbours(points(), CUTOFF, multiple=8)
    assert table.senders.shape == (3, 8)
    assert find_neighbours(points(1), CUTOFF, multiple=8).senders.shape == (1, 0)
