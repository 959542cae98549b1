"""Quadrature on the sphere, and draws from its cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.so3.grid import (
    exact_resolution,
    jitter_in_cell,
    quadrature,
    sphere_grid,
)
from common.so3.harmonics import solid_harmonics, spherical_harmonics


def test_quadrature_makes_the_harmonics_orthogonal():
    grid = sphere_grid(8, 15, 6)
    weights = np.exp(grid.log_weights)
    gram = (grid.harmonics * weights[:, None]).T @ grid.harmonics
    np.testing.assert_allclose(weights.sum(), 4 * np.pi, rtol=1e-6)
    np.testing.assert_allclose(gram / (4 * np.pi), np.eye(49), atol=1e-5)


def test_grid_harmonics_are_evaluated_at_its_points():
    grid = sphere_grid(5, 9, 4)
    np.testing.assert_allclose(
        grid.harmonics,
        spherical_harmonics(jnp.asarray(grid.points), 4),
        atol=1e-5,
    )


def test_area_of_each_cell_is_its_quadrature_weight():
    grid = sphere_grid(7, 11, 1)
    areas = np.repeat(np.diff(grid.cos_beta_edges) * 2 * np.pi / 11, 11)
    np.testing.assert_allclose(areas, np.exp(grid.log_weights), rtol=1e-5)
    cos_beta = grid.points[::11, 1]
    assert np.all(grid.cos_beta_edges[:-1] < cos_beta)
    assert np.all(cos_beta < grid.cos_beta_edges[1:])


def test_jitter_stays_in_its_cell_and_fills_it_evenly():
    grid = sphere_grid(6, 9, 1)
    cells = jnp.repeat(jnp.arange(54), 400)
    drawn = jitter_in_cell(jax.random.key(2), grid, cells)
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
    grid = sphere_grid(5, 7, 1)
    cell_key, jitter_key = jax.random.split(jax.random.key(3))
    cells = jax.random.categorical(cell_key, grid.log_weights, shape=(20_000,))
    drawn = np.asarray(jitter_in_cell(jitter_key, grid, cells))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), np.eye(3) / 3, atol=0.015)


@pytest.mark.parametrize("degree", [3, 4, 12])
def test_the_exact_grid_is_the_smallest(degree):
    def error(res_beta, res_alpha):
        points, areas = quadrature(res_beta, res_alpha)
        harmonics = np.stack(solid_harmonics(*points.T, degree), axis=-1)
        return np.abs(areas @ harmonics[:, 1:]).max()

    res_beta, res_alpha = exact_resolution(degree)
    assert error(res_beta, res_alpha) < 1e-11
    assert error(res_beta - 1, res_alpha) > 0.1
    assert error(res_beta, res_alpha - 1) > 0.1
