"""Signals on the sphere: products are exact on the smallest grid, SiLU is not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import block_diag

from common.nn import sphere as sp
from common.nn.products.so2_linear import rows_up_to
from common.so3.irreps import parse, uniform
from common.so3.wigner import wigner_matrices
from tests.common.nn.random_inputs import features, rotation

L = 4
ROWS = tuple(sp.degree_rows(L))
EXACT = sp.product_resolution(L, L)


def error(activation, size=1.0):
    """The relative error of equivariance of a function of rows and scalars."""
    # A rotation of single precision is one of double precision after this.
    left, _, right = np.linalg.svd(np.asarray(rotation(), np.float64))
    turn = block_diag(*map(np.asarray, jax.jit(matrices)(jnp.asarray(left @ right))))
    rng, activation = np.random.default_rng(0), jax.jit(activation)
    rows, scalars = size * rng.normal(size=(len(ROWS), 20, 6)), rng.normal(size=(20, 9))
    turned = lambda rows: np.tensordot(turn, rows, 1)
    before = turned(activation(rows, scalars))
    after = np.asarray(activation(turned(rows), scalars))
    return np.linalg.norm(after - before) / np.linalg.norm(before)


def matrices(turn):
    return wigner_matrices(turn, L)


def test_swiglu_is_exact_on_the_smallest_grid_and_on_no_smaller_one():
    swiglu = lambda on: lambda x, scalars: sp.swiglu(x, scalars, on)
    with jax.enable_x64(True):
        at = lambda *grid: error(swiglu(sp.sphere(ROWS, *grid)))
        assert at(*EXACT) < 1e-12
        assert at(EXACT[0] - 1, EXACT[1]) > 1e-3
        assert at(EXACT[0], EXACT[1] - 1) > 1e-3


def test_silu_on_that_grid_is_not_equivariant():
    silu = lambda on: lambda x, _: sp.coefficients(nn.silu(sp.values(x, on)), on)
    with jax.enable_x64(True):
        at = lambda *grid: error(silu(sp.sphere(ROWS, *grid)), size=3.0)
        assert at(*EXACT) > 0.03
        assert at(16, 32) < 0.003


def test_signals_have_the_variance_of_their_components():
    rows = np.random.default_rng(1).normal(size=(len(ROWS), 2000, 1))
    points = sp.values(jnp.asarray(rows, jnp.float32), sp.sphere(ROWS, *EXACT))
    np.testing.assert_allclose(jnp.var(points), 1.0, rtol=0.02)


def test_few_orders_need_few_azimuths():
    rows = rows_up_to(3, 1)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(len(rows), 4)), jnp.float32)
    scalars = jnp.ones(6)
    few = sp.swiglu(x, scalars, sp.sphere(rows, *sp.product_resolution(3, 1)))
    many = sp.swiglu(x, scalars, sp.sphere(rows, 12, 24))
    np.testing.assert_allclose(few, many, atol=2e-5)


def test_products_of_few_terms_are_those_of_the_grid(monkeypatch):
    rows, rng = rows_up_to(2, 2), np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(len(rows), 3, 4)), jnp.float32)
    scalars, on = jnp.ones((3, 6)), sp.sphere(rows, *sp.product_resolution(2, 2))
    size = lambda x: jnp.sum(jnp.square(sp.swiglu(x, scalars, on)))
    by_terms = jax.grad(size)(x)
    monkeypatch.setattr(sp, "MAX_TERMS", 0)
    np.testing.assert_allclose(by_terms, jax.grad(size)(x), rtol=1e-4, atol=1e-4)


def test_coefficients_are_found_again_from_values():
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(len(ROWS), 5, 2)))
    on = sp.sphere(ROWS, *EXACT)
    found = sp.coefficients(sp.values(rows, on), on)
    np.testing.assert_allclose(found, rows, atol=1e-5)


def test_scalars_have_a_branch_of_their_own():
    rows, scalars = jnp.ones((len(ROWS), 2, 3)), jnp.array([[1.0, -1.0, 0.0]] * 2)
    found = sp.separable_silu(rows, scalars, sp.sphere(ROWS, 8, 16))
    np.testing.assert_allclose(found[0], nn.silu(scalars), rtol=1e-6)
    other = sp.separable_silu(rows, 2.0 * scalars, sp.sphere(ROWS, 8, 16))
    np.testing.assert_array_equal(found[1:], other[1:])


def test_stacked_components_come_apart_as_they_were():
    x = features("2x0e+2x1o+2x2e", 5)
    again = sp.unstack(sp.stack(x), tuple(x))
    jax.tree.map(np.testing.assert_array_equal, again, x)


@pytest.mark.parametrize("irreps", ["2x0e+2x2e", "2x0e+2x1o+2x1e", "4x0e+2x1o"])
def test_features_that_are_no_signals_are_refused(irreps):
    with pytest.raises(ValueError, match="each degree from 0 once"):
        sp.signal_degree(parse(irreps))
    assert sp.signal_degree(uniform(3, 2)) == 3
