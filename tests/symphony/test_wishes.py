"""Tests of what may be asked of molecules."""

import numpy as np
import pytest

from common.errors import UsageError
from symphony import options, wishes
from symphony.weights import Weights
from tests.symphony import small

ETHANOL = np.array(
    [
        [0.01, 0.0, 0.0], [1.52, 0.0, 0.0], [2.0, 1.34, 0.0], [-0.36, 1.02, 0.0],
        [-0.37, -0.52, 0.88], [-0.37, -0.52, -0.88], [1.89, -0.53, 0.88],
        [1.89, -0.53, -0.88], [2.96, 1.3, 0.0],
    ]
)  # fmt: skip
NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])


@pytest.fixture(scope="module")
def weights():
    model, params = small.model_and_params()
    config = small.make_config()
    config.data.heavy_first = True
    config.sample.max_atoms = 35
    return Weights("small", config, model, params, "", "", unseen=(9,))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"formula": "C2H9"}, "--formula=C2H9: .* at most 6"),
        ({"formula": "CH3"}, "odd number of electrons"),
        ({"formula": "Xx2"}, "found 'Xx'"),
        ({"formula": "C2H5F"}, "found F, which they never saw"),
        ({"formula": "C2H5Cl"}, "found Cl, which they do not know"),
        ({"formula": "C99H2"}, "at most 35 atoms, found 101; raise --max_atoms"),
        ({"formula": "H2"}, "heavier than hydrogen"),
        ({"formula": "C7H10O2", "num_atoms": 18}, "18 to 18 atoms"),
        ({"formula": "C7H10O2", "max_heavy": 8}, "at most 8 heavy atoms"),
        ({"formula": "C7H10O2", "elements": "C,H"}, "of --elements, found O"),
        ({"num_atoms": "12-40"}, "--num_atoms: expected at most 35, found 40"),
        ({"num_atoms": "20-12"}, "a number or a range"),
        ({"num_atoms": 20, "max_heavy": 3}, "at most 11 atoms"),
        ({"max_heavy": 0}, "--max_heavy: expected 1 to 10000, found 0"),
        ({"max_heavy": 2**70}, "--max_heavy: expected 1 to"),
        ({"num_atoms": "9" * 5000}, "a number or a range"),
        ({"elements": "C,Q"}, "found 'Q'"),
        ({"elements": ["F"]}, "--elements=F: .* never saw"),
        ({"attach": [3]}, "--attach: expected --fragment"),
        ({"keep_hydrogens": True}, "--keep_hydrogens: expected --attach"),
    ],
)
def test_what_cannot_be_is_refused(weights, asked, told):
    with pytest.raises(UsageError, match=told):
        options.choose(weights, **asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"attach": "9"}, r"atoms from 0 \(C\) to 8 \(H\), found 9"),
        ({"attach": "1,4"}, r"heavier than hydrogen, found atom 4 \(H\)"),
        ({"attach": "x"}, "numbers of atoms from 0"),
        ({"attach": "1", "formula": "C3H4"}, "found fewer of O"),
        ({"attach": "1", "formula": "C3H2O"}, "found fewer of H"),
        ({"formula": "C3H8O"}, "name by --attach"),
        ({"attach": "1", "max_heavy": 2}, "at least the 3 heavy atoms"),
        ({"attach": "1", "num_atoms": "6"}, "at least the 7 atoms"),
    ],
)
def test_what_a_core_forbids_is_refused(weights, asked, told):
    with pytest.raises(UsageError, match=told):
        options.choose(weights, fragment=(NUMBERS, ETHANOL), **asked)


def test_an_atom_without_a_hydrogen_cannot_grow(weights):
    acetonitrile = np.array([[0, 0, 0], [1.46, 0, 0], [2.62, 0, 0]])
    with pytest.raises(UsageError, match=r"found atom 1 \(C\), whose bonds"):
        options.choose(
            weights, fragment=(np.array([6, 6, 7]), acetonitrile), attach=[1]
        )


def test_wishes_are_freely_combined(weights):
    chosen = options.choose(
        weights, formula="O2C7H10", num_atoms="12-20", max_heavy=9, elements="C,N,O,H"
    )
    assert chosen.wishes.formula == {6: 7, 1: 10, 8: 2}
    assert chosen.wishes.num_atoms == (12, 20)
    assert chosen.wishes.elements == (6, 7, 8, 1)
    assert not options.choose(weights).wishes


def test_a_core_says_which_hydrogens_its_atoms_bear():
    spare = wishes.open_valences(NUMBERS, ETHANOL, (1, 6, 7, 8, 9))
    assert spare.tolist() == [3, 2, 1, 0, 0, 0, 0, 0, 0]
    without = wishes.open_valences(NUMBERS[:3], ETHANOL[:3], (1, 6, 7, 8, 9))
    assert without.tolist() == [3, 2, 1]
