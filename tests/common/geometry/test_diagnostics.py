"""Tests of diagnostics, on data and functions whose symmetry is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.geometry import alignment, diagnostics, matrix_fisher
from tests.common.geometry.test_alignment import CHIRAL, random_rotation

# Bayes accuracy where orientations have the matrix Fisher law of k times the identity:
# one half of one plus the total variation, by an integral over the angle of rotation.
NUM_CLOUDS = 16_000
POINTS = np.array(CHIRAL - CHIRAL.mean(axis=0))
SPECIES = np.broadcast_to(np.arange(5), (NUM_CLOUDS, 5))


def bayes_accuracy(k):
    """Of p(angle) = (1 - cos angle) / pi, weighed by exp(2 k cos angle)."""
    angle = np.linspace(0.0, np.pi, 20_001)
    haar = (1.0 - np.cos(angle)) / np.pi
    law = np.exp(2.0 * k * (np.cos(angle) - 1.0)) * haar
    law /= np.trapezoid(law, angle)
    return 0.5 + 0.25 * np.trapezoid(np.abs(law - haar), angle)


def clouds(k):
    """The molecule in orientations of that law."""
    keys = jax.random.split(jax.random.key(1), NUM_CLOUDS)
    f = k * jnp.eye(3)
    turns = jax.jit(jax.vmap(lambda key: matrix_fisher.sample(key, f)))(keys)
    return np.einsum("bij,nj->bni", np.asarray(turns), POINTS)


def test_the_accuracies_of_theory():
    found = [bayes_accuracy(k) for k in (0.1, 0.5, 1.0, 2.0, 5.0)]
    np.testing.assert_allclose(found, [0.521, 0.617, 0.738, 0.877, 0.961], atol=1e-3)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 5.0])
def test_the_classifier_is_as_good_as_the_best(k):
    found = diagnostics.orientation_test(clouds(k), species=SPECIES)
    assert found.num_tested == NUM_CLOUDS // 2
    assert found.accuracy == pytest.approx(bayes_accuracy(k), abs=0.03)
    assert found.band == pytest.approx(0.98 / np.sqrt(8_000))
    if k > 0.0:
        assert found.is_broken


def test_turning_a_set_at_random_heals_it():
    """Of one orientation for all, nearly every cloud is told; turned, none is."""
    noise = 0.05 * np.random.default_rng(0).normal(size=(4_000, 5, 3))
    fixed = POINTS + noise
    species = SPECIES[:4_000]
    assert diagnostics.orientation_test(fixed, species=species).accuracy > 0.98
    turns = np.asarray(matrix_fisher.uniform(jax.random.key(5), 4_000))
    healed = diagnostics.orientation_test(
        np.einsum("bij,bnj->bni", turns, fixed), species=species
    )
    assert abs(healed.accuracy - 0.5) < 2.0 * healed.band


def test_where_a_cloud_lies_and_its_padding_are_nothing():
    rng = np.random.default_rng(0)
    turns = np.asarray(matrix_fisher.uniform(jax.random.key(5), 2_000))
    x = np.einsum("bij,nj->bni", turns, POINTS)
    padded = np.pad(x, ((0, 0), (0, 2), (0, 0)), constant_values=7.0)
    mask = np.broadcast_to(np.arange(7) < 5, (2_000, 7))
    moved = padded + 9.0 * rng.normal(size=(2_000, 1, 3))
    found = diagnostics.orientation_test(moved, mask)
    assert abs(found.accuracy - 0.5) < 2.0 * found.band


def test_few_clouds_are_refused():
    with pytest.raises(ValueError, match="at least 40 clouds, found 3"):
        diagnostics.orientation_test(np.zeros((3, 2, 3)))


def test_a_linear_map_has_the_asymmetry_of_its_matrix():
    matrix = np.random.default_rng(0).normal(size=(15, 15))
    matrix += matrix.T + 0.3 * np.random.default_rng(1).normal(size=(15, 15))
    denoise = lambda y: (jnp.asarray(matrix, jnp.float32) @ y.ravel()).reshape(y.shape)
    exact = np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix)
    y = jnp.zeros((5, 3))
    found = diagnostics.jacobian_asymmetry(denoise, y, jax.random.key(0), 2_000)
    assert float(found) == pytest.approx(exact, rel=0.05)


def test_the_optimal_denoiser_is_a_gradient():
    x = jnp.asarray(POINTS, jnp.float32)
    y = x + 0.5 * jax.random.normal(jax.random.key(0), x.shape)
    oracle = lambda y: alignment.oracle_denoiser(y, x[None], 0.5).denoised
    found = diagnostics.jacobian_asymmetry(oracle, y, jax.random.key(1))
    assert float(found) < 1e-4
    # Superposed alone it is one too: of half the squared size of what is superposed.
    mode = lambda y: alignment.rotate(
        x, alignment.kabsch_rotation(alignment.cross_covariance(y, x))
    )
    assert float(diagnostics.jacobian_asymmetry(mode, y, jax.random.key(1))) < 1e-3
    twisted = lambda y: oracle(y) @ jnp.asarray(random_rotation(4))
    assert float(diagnostics.jacobian_asymmetry(twisted, y, jax.random.key(1))) > 0.3


@pytest.mark.parametrize(("kind", "expected"), [("even", 0.0), ("odd", 2.0)])
def test_the_asymmetry_of_symmetric_and_skew_maps(kind, expected):
    matrix = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    matrix = jnp.asarray(matrix + matrix.T if kind == "even" else matrix - matrix.T)
    denoise = lambda y: jnp.sum(matrix * y.ravel(), axis=1).reshape(y.shape)
    found = diagnostics.jacobian_asymmetry(denoise, jnp.ones((2, 3)), jax.random.key(0))
    assert float(found) == pytest.approx(expected, abs=1e-5)
