"""Spherical harmonics against e3nn-jax; exactness of the grid on the sphere."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.so3 import harmonics


def reference(vectors, max_degree, normalize=True):
    irreps = e3nn.Irreps.spherical_harmonics(max_degree)
    array = e3nn.IrrepsArray("1o", vectors)
    return e3nn.spherical_harmonics(
        irreps, array, normalize, normalization="component"
    ).array


@pytest.fixture(scope="module")
def vectors():
    return jax.random.normal(jax.random.key(0), (40, 3))


@pytest.mark.parametrize("max_degree", [0, 1, 2, 3, 6])
def test_values_and_gradients_are_those_of_e3nn(vectors, max_degree):
    ours = harmonics.spherical_harmonics(vectors, max_degree)
    cotangent = jax.random.normal(jax.random.key(1), ours.shape)

    def pulled_back(function):
        return jax.jit(jax.grad(lambda v: jnp.vdot(function(v, max_degree), cotangent)))

    np.testing.assert_allclose(ours, reference(vectors, max_degree), atol=1e-5)
    # Gradients grow as one over the length of the vector; the tolerance is relative.
    expected = pulled_back(reference)(vectors)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        pulled_back(harmonics.spherical_harmonics)(vectors) / scale,
        expected / scale,
        atol=1e-5,
    )


def test_unnormalised_harmonics_are_homogeneous_polynomials(vectors):
    ours = harmonics.spherical_harmonics(vectors, 4, normalize=False)
    np.testing.assert_allclose(
        ours, reference(vectors, 4, normalize=False), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_zero_vector_has_finite_value_and_gradient(normalize):
    zero = jnp.zeros(3)
    value = harmonics.spherical_harmonics(zero, 6, normalize)
    jacobian = jax.jacobian(harmonics.spherical_harmonics)(zero, 6, normalize)
    np.testing.assert_array_equal(value, np.eye(49)[0])
    assert np.all(np.isfinite(jacobian))


def test_reflection_flips_odd_degrees_only(vectors):
    parity = np.repeat([1, -1, 1, -1, 1], [1, 3, 5, 7, 9])
    np.testing.assert_allclose(
        harmonics.spherical_harmonics(-vectors, 4),
        parity * harmonics.spherical_harmonics(vectors, 4),
        atol=1e-6,
    )


def test_quadrature_makes_the_harmonics_orthogonal():
    grid = harmonics.sphere_grid(8, 15, 6)
    weights = np.exp(grid.log_weights)
    gram = (grid.harmonics * weights[:, None]).T @ grid.harmonics
    np.testing.assert_allclose(weights.sum(), 4 * np.pi, rtol=1e-6)
    np.testing.assert_allclose(gram / (4 * np.pi), np.eye(49), atol=1e-5)


def test_grid_harmonics_are_evaluated_at_its_points():
    grid = harmonics.sphere_grid(5, 9, 4)
    np.testing.assert_allclose(
        grid.harmonics,
        harmonics.spherical_harmonics(jnp.asarray(grid.points), 4),
        atol=1e-5,
    )


def test_area_of_each_cell_is_its_quadrature_weight():
    grid = harmonics.sphere_grid(7, 11, 1)
    areas = np.repeat(np.diff(grid.cos_beta_edges) * 2 * np.pi / 11, 11)
    np.testing.assert_allclose(areas, np.exp(grid.log_weights), rtol=1e-5)
    cos_beta = grid.points[::11, 1]
    assert np.all(grid.cos_beta_edges[:-1] < cos_beta)
    assert np.all(cos_beta < grid.cos_beta_edges[1:])


def test_jitter_stays_in_its_cell_and_fills_it_evenly():
    grid = harmonics.sphere_grid(6, 9, 1)
    cells = jnp.repeat(jnp.arange(54), 400)
    drawn = harmonics.jitter_in_cell(jax.random.key(2), grid, cells)
    np.testing.assert_allclose(jnp.sum(drawn**2, axis=-1), 1.0, atol=1e-6)
    row = np.searchsorted(grid.cos_beta_edges, drawn[:, 1]) - 1
    alpha = np.arctan2(drawn[:, 0], drawn[:, 2])
    column = np.round(alpha / (2 * np.pi / 9)).astype(int) % 9
    np.testing.assert_array_equal(row * 9 + column, cells)
    inside = drawn[:, 1] - grid.cos_beta_edges[row]
    fraction = (inside / np.diff(grid.cos_beta_edges)[row]).reshape(54, 400)
    # The mean of 400 uniform numbers has a standard deviation of 0.0144.
    np.testing.assert_allclose(fraction.mean(axis=1), 0.5, atol=0.07)


def test_cells_drawn_by_weight_then_jittered_are_uniform_on_the_sphere():
    grid = harmonics.sphere_grid(5, 7, 1)
    cell_key, jitter_key = jax.random.split(jax.random.key(3))
    cells = jax.random.categorical(cell_key, grid.log_weights, shape=(20_000,))
    drawn = np.asarray(harmonics.jitter_in_cell(jitter_key, grid, cells))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), np.eye(3) / 3, atol=0.015)
