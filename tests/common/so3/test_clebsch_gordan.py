"""Clebsch-Gordan tables against e3nn-jax, and that nothing here needs it."""

import subprocess
import sys

import e3nn_jax as e3nn
import numpy as np
import pytest

from common.so3.clebsch_gordan import clebsch_gordan


@pytest.mark.parametrize("degree_1", range(4))
@pytest.mark.parametrize("degree_2", range(4))
def test_coefficients_are_those_of_e3nn(degree_1, degree_2):
    for degree_3 in range(7):
        ours = clebsch_gordan(degree_1, degree_2, degree_3)
        expected = e3nn.clebsch_gordan(degree_1, degree_2, degree_3)
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        allowed = abs(degree_1 - degree_2) <= degree_3 <= degree_1 + degree_2
        np.testing.assert_allclose(np.sum(ours**2), float(allowed), atol=1e-12)


def test_coefficients_hold_at_degree_six():
    expected = e3nn.clebsch_gordan(6, 5, 6)
    np.testing.assert_allclose(clebsch_gordan(6, 5, 6), expected, atol=1e-12)


def test_importing_the_core_does_not_import_e3nn():
    modules = "common.nn.blocks, common.nn.products, common.nn.features"
    code = f"import sys, {modules}; sys.exit('e3nn_jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
