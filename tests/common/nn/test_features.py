"""Features: conversions, rotations and small operations."""

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn import features as ft
from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR, Irrep, parse
from tests.common.nn.random_inputs import (
    assert_close,
    features,
    harmonics,
    normal,
    rotate,
    rotation,
)

BOTH = "4x0e+1x0o+3x1e+2x1o+2x2e"


def test_both_parities_and_unequal_widths_survive_a_trip_to_e3nn():
    x = features(BOTH, 2, 5)
    array = ft.to_irreps_array(x)
    assert array.irreps.regroup() == e3nn.Irreps(BOTH).regroup()
    assert_close(ft.from_irreps_array(array), x, atol=0.0)


def test_components_lie_where_e3nn_expects_them():
    x = features("4x0e+4x1o+4x2e")
    array = ft.to_irreps_array(x)
    for chunk, irrep in zip(array.chunks, sorted(x), strict=True):
        np.testing.assert_array_equal(chunk, x[irrep].T)


def test_an_irrep_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="each irrep once"):
        ft.from_irreps_array(e3nn.IrrepsArray("1x0e+1x1o+1x0e", jnp.ones(5)))


@pytest.mark.parametrize("sign", [1, -1])
def test_rotation_is_that_of_e3nn(sign):
    x, turn = features(BOTH, 3), rotation(sign)
    theirs = ft.to_irreps_array(x).transform_by_matrix(turn)
    assert_close(rotate(x, turn), ft.from_irreps_array(theirs))


def test_harmonics_rotate_with_their_vectors():
    vectors = normal(6, 3)
    turn = rotation(-1)
    assert_close(harmonics(vectors @ turn.T, 3), rotate(harmonics(vectors, 3), turn))


def test_even_harmonics_do_not_change_sign_under_inversion():
    names = ft.harmonics(jnp.ones((1, 3)), 2, "SO3")
    assert [str(irrep) for irrep in names] == ["0e", "1e", "2e"]


def test_addition_keeps_what_one_side_lacks():
    x, y = features("2x0e+2x1o", 3), features("2x0e+2x2e", 3, seed=1)
    total = ft.add(x, y)
    assert set(total) == {SCALAR, VECTOR, Irrep(2, 1)}
    np.testing.assert_array_equal(total[SCALAR], x[SCALAR] + y[SCALAR])
    np.testing.assert_array_equal(total[VECTOR], x[VECTOR])


def test_scalars_go_in_and_come_out():
    numbers = jnp.arange(6.0).reshape(2, 3)
    x = ft.from_scalars(numbers, parse("9x0e+2x1e"))
    np.testing.assert_array_equal(ft.scalars_of(x), numbers)
    np.testing.assert_array_equal(x[PSEUDOVECTOR], jnp.zeros((2, 3, 2)))


def test_selection_and_concatenation_act_on_every_irrep():
    x, y = features(BOTH, 4), features(BOTH, 4, seed=1)
    mask = jnp.array([True, False, True, False])
    chosen = ft.where(mask, x, y)
    for index, source in enumerate((x, y, x, y)):
        one = jnp.array([index])
        assert_close(ft.take(chosen, one), ft.take(source, one), atol=0.0)
    wide = ft.irreps_of(ft.concatenate(x, y))
    assert wide == {irrep: 2 * count for irrep, count in parse(BOTH).items()}
