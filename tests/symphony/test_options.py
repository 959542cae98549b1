"""Tests of what may be asked of a sampler."""

import numpy as np
import pytest

from common.errors import UsageError
from symphony import options
from symphony.weights import Weights
from tests.symphony import small


@pytest.fixture(scope="module")
def weights():
    model, params = small.model_and_params()
    return Weights("small", small.make_config(), model, params, "", "")


def test_nothing_asked_is_what_was_trained(weights):
    chosen = options.choose(weights)
    assert chosen[:3] == (1.0, 1.0, 1.0)
    assert chosen.max_atoms == weights.config.sample.max_atoms
    assert chosen.core is None
    assert chosen.conditions == {}


def test_basin_is_a_word_for_a_temperature(weights):
    assert options.choose(weights, basin=True).basin_temperature == 0.1
    own = options.choose(weights, basin=True, basin_temperature=0.3)
    assert own.basin_temperature == 0.3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temperature_focus": 0.0}, "--temperature_focus: expected 1e-6 to 1e6"),
        ({"temperature_position": 2e6}, "--temperature_position: expected 1e-6"),
        ({"basin_temperature": float("nan")}, "--basin_temperature: expected 1e-6"),
        ({"temperature_position": 0.5, "basin": True}, "found both"),
        ({"max_atoms": 0}, "--max_atoms: expected 1 to 500, found 0"),
        ({"max_atoms": 501}, "--max_atoms: expected 1 to 500, found 501"),
        ({"start": "Xx"}, "--start: expected one of"),
        ({"start": "C", "fragment": "core.sdf"}, "--start and --fragment, found both"),
    ],
)
def test_what_cannot_be_done_is_refused(weights, asked, message):
    with pytest.raises(UsageError, match=message):
        options.choose(weights, **asked)


def test_a_start_is_one_atom_at_the_origin(weights):
    numbers, positions = options.choose(weights, start="o").core
    np.testing.assert_array_equal(numbers, [8])
    np.testing.assert_array_equal(positions, np.zeros((1, 3)))


def test_no_molecule_starts_from_hydrogen_where_heavy_atoms_come_first():
    config = small.make_config()
    config.data.heavy_first = True
    model, params = small.model_and_params()
    weights = Weights("small", config, model, params, "", "")
    with pytest.raises(UsageError, match="expected one of C, N, O, F; found 'H'"):
        options.choose(weights, start="H")


def test_a_fragment_leaves_room_for_an_atom(weights):
    positions = np.arange(12.0).reshape(4, 3) * [1.2, 0.0, 0.0] / 3.0
    numbers = np.full(4, 6)
    chosen = options.choose(weights, fragment=(numbers, positions), max_atoms=5)
    np.testing.assert_allclose(chosen.core[1], positions, rtol=1e-6)
    with pytest.raises(UsageError, match="more than 3 atoms"):
        options.choose(weights, fragment=(numbers, positions), max_atoms=4)
