"""Products by tables: constants in closed form, reach, and grids that are exact."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sympy.physics.wigner import wigner_3j, wigner_6j, wigner_9j

from common.nn.features import irreps_of
from common.nn.products import (
    MESSAGE_PRODUCTS,
    PRODUCTS,
    bracket,
    complete,
    gaunt,
    gaunt_fourier,
    matrix,
    self_product,
    signals,
    vector_harmonics,
)
from common.nn.products.spec import make_spec
from common.so3.grid import exact_resolution
from common.so3.irreps import harmonic_irreps, uniform
from tests.common.nn.random_inputs import features, normal, rotate, rotation


def all_paths(max_degree):
    """The spec of one channel with products up to twice the degree, none missing."""
    irreps = uniform(max_degree, 1, "SO3")
    return make_spec(irreps, irreps, harmonic_irreps(2 * max_degree, "SO3"))


def root_of_dims(*degrees):
    return math.sqrt(math.prod(2 * l + 1 for l in degrees))


def gaunt_formula(a, b, c):
    return root_of_dims(a, b, c) * wigner_3j(a, b, c, 0, 0, 0)


def bracket_formula(a, b, c):
    root = math.sqrt(a * (a + 1) * b * (b + 1)) * root_of_dims(a, b, c)
    return root * wigner_3j(a, b, c, 1, -1, 0)


def matrix_formula(a, b, c):
    spin = matrix.spin(matrix.paths(all_paths(2)))
    return root_of_dims(a, b, c) * wigner_6j(a, b, c, spin, spin, spin)


def vector_formula(a, b, c):
    if (a + b + c) % 2 == 0:
        return gaunt_formula(a, b, c)
    root = math.sqrt(3) * root_of_dims(a, a, b, b, c, c - 1)
    coupled = wigner_9j(a, b, c - 1, 0, 1, 1, a, b, c)
    return root * wigner_3j(a, b, c - 1, 0, 0, 0) * coupled


@pytest.mark.parametrize(
    ("module", "formula", "count"),
    [(gaunt, gaunt_formula, 14), (bracket, bracket_formula, 5),
     (matrix, matrix_formula, 19), (vector_harmonics, vector_formula, 19)],
)  # fmt: skip
def test_constants_are_those_of_the_closed_formulas(module, formula, count):
    constants = module.constants(all_paths(2))
    assert len(constants) == count
    for path, constant in constants.items():
        expected = formula(*(irrep.degree for irrep in path))
        ours = abs(constant) * math.sqrt(path[2].dim)
        np.testing.assert_allclose(ours, abs(float(expected)), rtol=1e-12)


@pytest.mark.parametrize("module", [complete, vector_harmonics])
def test_no_path_is_missing_at_degree_four(module):
    spec = all_paths(4)
    assert {*module.paths(spec)} == {*self_product.paths(spec)}
    assert len(module.paths(spec)) == 85
    parts = (gaunt, bracket) if module is complete else (module,)
    smallest = [min(map(abs, part.constants(spec).values())) for part in parts]
    assert min(smallest) > 0.1


@pytest.mark.parametrize("L", [1, 2, 3])
def test_reach_of_a_channel_grows_with_the_degree_and_not_with_the_paths(L):
    """Counts directions in the space of path weights, at random weights."""
    spec = all_paths(L)

    def reach(row):
        flat = lambda w: jnp.stack([*row.path_weights(w, spec).values()])[:, 0]
        slopes = jax.jacobian(flat)(normal(row.num_weights(spec)))
        return int(np.linalg.matrix_rank(np.asarray(slopes), 1e-4))

    every = len(self_product.paths(spec))
    expected = {
        "gaunt": 4 * L + 1, "matrix": 4 * L + 1, "bracket": 4 * L - 3,
        "complete": 8 * L - 2, "self_product": every, "vector_harmonics": every,
    }  # fmt: skip
    assert {name: reach(PRODUCTS[name]) for name in expected} == expected


@pytest.mark.parametrize(("module", "least"), [(gaunt, 1e-2), (bracket, 1e-3)])
@pytest.mark.parametrize("fewer", [(0, 0), (1, 0), (0, 1)])
def test_the_grid_is_the_smallest_that_is_equivariant(
    module, least, fewer, monkeypatch
):
    x, y = (features("1x0e+1x1e+1x2e", 3, seed=seed) for seed in (0, 1))
    spec, turn = make_spec(*[irreps_of(x)] * 3), rotation()
    weights = normal(module.num_weights(spec))
    module.constants(spec)
    smaller = lambda degree: tuple(
        size - less for size, less in zip(exact_resolution(degree), fewer, strict=True)
    )
    monkeypatch.setattr(module, "exact_resolution", smaller)
    monkeypatch.setattr(module, "_tables", module._tables.__wrapped__)
    expected = rotate(module.product(x, y, weights, spec), turn)
    turned = module.product(rotate(x, turn), rotate(y, turn), weights, spec)
    worst = max(np.abs(turned[i] - expected[i]).max() for i in expected)
    assert worst < 1e-5 if fewer == (0, 0) else worst > least


def test_series_on_the_torus_are_exact_to_rounding():
    x, y = (features("1x0e+1x0o+1x1o+1x2e+1x3o", 2, seed=seed) for seed in (0, 1))
    spec = make_spec(*[irreps_of(x)] * 3)
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, jnp.float64))
        floats = double((x, y, normal(gaunt.num_weights(spec))))
        found = gaunt_fourier.product(*floats, spec)
        expected = gaunt.product(*floats, spec)
        for irrep, part in expected.items():
            np.testing.assert_allclose(found[irrep], part, atol=1e-13)


def test_factors_may_have_different_axes():
    x, y = features("2x0e+2x1o", 4, 3), features("2x0e+2x1o", 3, seed=1)
    spec = make_spec(*[irreps_of(x)] * 3)
    for name in ("gaunt", "gaunt_fourier", "matrix", "vector_harmonics"):
        row = PRODUCTS[name]
        weights = normal(row.num_weights(spec))
        found = row.product(x, y, weights, spec)
        one = row.product({i: a[2] for i, a in x.items()}, y, weights, spec)
        for irrep, part in one.items():
            np.testing.assert_allclose(found[irrep][2], part, atol=1e-5)


def test_a_bracket_of_natural_parities_has_no_path():
    spec = make_spec(*[uniform(2, 4)] * 3)
    assert bracket.num_weights(spec) == 0
    assert bracket.irreps_out(spec) == {}
    assert "bracket" not in MESSAGE_PRODUCTS


def test_tangents_are_right_handed():
    points = np.random.default_rng(0).normal(size=(5, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    first, second = signals.tangents(points)
    np.testing.assert_allclose(np.cross(first, second), points, atol=1e-12)
