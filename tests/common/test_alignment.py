"""Tests of superposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import alignment


def random_rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.float32(q if np.linalg.det(q) > 0 else -q)


def center(points, mask):
    return np.asarray(alignment.center(jnp.asarray(points), jnp.asarray(mask)))


def superpose(points, reference, mask):
    arrays = map(jnp.asarray, (points, reference, mask))
    return np.asarray(alignment.superpose(*arrays))


@pytest.fixture
def cloud():
    return np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_turned_and_moved_cloud_comes_back(cloud, seed):
    mask = np.arange(7) < 6
    reference = center(cloud, mask)
    moved = cloud @ random_rotation(seed).T + np.float32([1.0, -2.0, 3.0])
    found = superpose(moved, reference, mask)
    np.testing.assert_allclose(found, reference, atol=1e-5)
    assert not np.any(found[6])


def test_the_rotation_is_the_best_of_many(cloud):
    other = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    mask = np.ones(7, bool)
    reference = center(other, mask)
    best = np.sum((superpose(cloud, reference, mask) - reference) ** 2)
    centred = center(cloud, mask)
    tried = [
        np.sum((centred @ random_rotation(s).T - reference) ** 2) for s in range(2_000)
    ]
    assert best <= min(tried)
    assert best > 0.8 * min(tried)


def test_a_mirror_image_is_not_superposed(cloud):
    mask = np.ones(7, bool)
    reference = center(cloud, mask)
    found = superpose(-cloud, reference, mask)
    assert np.sqrt(np.mean(np.sum((found - reference) ** 2, axis=-1))) > 0.3


@pytest.mark.parametrize(
    "covariance",
    [np.zeros((3, 3)), np.diag([1.0, 0.0, 0.0]), np.diag([1.0, 1.0, -1.0]), -np.eye(3)],
    ids=["nothing", "line", "plane, mirrored", "inverted"],
)
def test_degenerate_clouds_get_a_proper_rotation(covariance):
    rotation = np.asarray(alignment.kabsch_rotation(jnp.float32(covariance)))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)


def test_no_gradient_flows_through_the_rotation(cloud):
    gradient = jax.grad(lambda m: jnp.sum(alignment.kabsch_rotation(m)))(jnp.eye(3))
    np.testing.assert_array_equal(gradient, 0.0)
