"""Clebsch-Gordan tables and layouts against e3nn-jax."""

import subprocess
import sys

import e3nn_jax as e3nn
import jax
import numpy as np
import pytest

from common.so3 import irreps


@pytest.mark.parametrize("degree_1", range(4))
@pytest.mark.parametrize("degree_2", range(4))
def test_clebsch_gordan_coefficients_are_those_of_e3nn(degree_1, degree_2):
    for degree_3 in range(7):
        ours = irreps.clebsch_gordan(degree_1, degree_2, degree_3)
        expected = e3nn.clebsch_gordan(degree_1, degree_2, degree_3)
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        allowed = abs(degree_1 - degree_2) <= degree_3 <= degree_1 + degree_2
        np.testing.assert_allclose(np.sum(ours**2), float(allowed), atol=1e-12)


def test_clebsch_gordan_coefficients_hold_at_degree_six():
    np.testing.assert_allclose(
        irreps.clebsch_gordan(6, 5, 6), e3nn.clebsch_gordan(6, 5, 6), atol=1e-12
    )


@pytest.mark.parametrize(("group", "count"), [("O3", 11), ("SO3", 15)])
def test_paths_of_degree_two_are_counted_by_hand(group, count):
    paths = irreps.tensor_product_paths(2, 2, 2, group)
    assert len(paths) == count
    assert (1, 1, 1) in irreps.tensor_product_paths(1, 1, 1, "SO3")
    assert (1, 1, 1) not in irreps.tensor_product_paths(1, 1, 1, "O3")
    assert [path[2] for path in paths] == sorted(path[2] for path in paths)


def test_unknown_group_is_refused():
    with pytest.raises(ValueError, match="'O3' or 'SO3', found 'O2'"):
        irreps.tensor_product_paths(1, 1, 1, "O2")


@pytest.mark.parametrize(("parity", "letter"), [("natural", "o"), ("even", "e")])
def test_conversion_to_e3nn_and_back_changes_nothing(parity, letter):
    features = jax.random.normal(jax.random.key(0), (2, 5, 9, 4))
    array = irreps.to_irreps_array(features, parity)
    assert array.irreps == e3nn.Irreps(f"4x0e+4x1{letter}+4x2e")
    np.testing.assert_array_equal(irreps.from_irreps_array(array), features)


def test_conversion_puts_each_component_where_e3nn_expects_it():
    features = jax.random.normal(jax.random.key(1), (9, 4))
    chunks = irreps.to_irreps_array(features).chunks
    for chunk, rows in zip(chunks, irreps.degree_slices(2), strict=True):
        np.testing.assert_array_equal(chunk, features[rows].T)


def test_irreps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="each degree from 0 once"):
        irreps.from_irreps_array(e3nn.normal("4x0e+2x1o", jax.random.key(0)))
    with pytest.raises(ValueError, match=r"\(max_degree \+ 1\)\*\*2 rows, found 8"):
        irreps.max_degree_of(8)


def test_importing_the_core_does_not_import_e3nn():
    modules = "common.nn.layers, common.nn.products.clebsch_gordan"
    code = f"import sys, {modules}; sys.exit('e3nn_jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
