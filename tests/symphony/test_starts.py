"""Tests of the atoms that molecules start from."""

import numpy as np
import pytest

from symphony import starts
from symphony.weights import Weights
from tests.symphony import small

NUMBERS = np.array([6, 8, 7], np.uint8)
POSITIONS = np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [0.0, 1.4, 0.0]]) + 30.0
CORE = (NUMBERS, POSITIONS.astype(np.float32))


@pytest.fixture(scope="module")
def weights():
    model, params = small.model_and_params()
    return Weights("small", small.make_config(), model, params, "", "")


def test_without_a_fragment_a_molecule_starts_from_nothing(weights):
    order_of = starts.orders(weights, None, 0)
    start = starts.start(None, order_of, weights.config, 3)
    assert start.positions.shape == (0, 3)
    assert start.species.shape == order_of(3).shape == (0,)


def test_an_order_is_a_function_of_seed_and_index(weights):
    first, again = (starts.orders(weights, CORE, 1) for _ in range(2))
    orders = [first(index).tolist() for index in range(20)]
    assert orders == [again(index).tolist() for index in range(20)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len({*map(tuple, orders)}) > 1
    other = starts.orders(weights, CORE, 2)
    assert orders != [other(index).tolist() for index in range(20)]


def test_a_start_is_centred_and_in_its_order(weights):
    order = np.array([2, 0, 1])
    start = starts.start(CORE, lambda index: order, weights.config, 0)
    np.testing.assert_allclose(start.positions.mean(axis=0), 0.0, atol=1e-5)
    distances = np.linalg.norm(start.positions[0] - start.positions[1:], axis=1)
    np.testing.assert_allclose(distances, [1.4, 1.4 * np.sqrt(2.0)], atol=1e-5)
    table = np.array(weights.config.data.species)
    np.testing.assert_array_equal(table[start.species], NUMBERS[order])


def test_a_molecule_comes_back_into_the_frame_of_its_fragment():
    grown = np.concatenate([np.zeros((3, 3)), [[0.0, 0.0, 1.0]]]).astype(np.float32)
    numbers = np.array([7, 6, 8, 1], np.uint8)
    found, positions = starts.put_back(CORE, numbers, grown)
    np.testing.assert_array_equal(found, [6, 8, 7, 1])
    np.testing.assert_array_equal(positions[:3], CORE[1])
    moved = positions[3] - POSITIONS.mean(axis=0)
    np.testing.assert_allclose(moved, [0.0, 0.0, 1.0], atol=1e-5)


def test_without_a_fragment_a_molecule_stays_where_it_is():
    positions = np.ones((2, 3), np.float32)
    numbers = np.array([6, 1], np.uint8)
    found = starts.put_back(None, numbers, positions)
    assert found[0] is numbers
    assert found[1] is positions
