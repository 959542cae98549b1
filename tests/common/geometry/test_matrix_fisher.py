"""Tests of the matrix Fisher law of rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from common.geometry import matrix_fisher

HARD = {
    "nothing": (0.0, 0.0, 0.0),
    "line": (50.0, 0.0, 0.0),
    "sharp line": (2_000.0, 0.0, 0.0),
    "ball": (30.0, 30.0, 30.0),
    "mirrored ball": (30.0, 30.0, -30.0),
    "nearly mirrored": (1_000.0, 1_000.0, -999.9),
    "plane": (200.0, 100.0, 0.0),
    "sharp": (1e7, 5e6, 2e6),
    "any": (3.0, 1.5, -0.7),
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def rotations(seed, count):
    q = np.random.default_rng(seed).normal(size=(count, 4))
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    return np.array(matrix_fisher.from_quaternion(jnp.asarray(q)))


def matrix(seed, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=(3, 3))


def on_grid(f, size=64):
    """Averages over all rotations by a product rule in Euler angles, in numpy alone."""
    cosines, weights = np.polynomial.legendre.leggauss(size)
    angles = 2.0 * np.pi * np.arange(size) / size
    a, b, c = np.meshgrid(angles, np.arccos(cosines), angles, indexing="ij")
    about = lambda t: np.stack(
        [
            np.stack([np.cos(t), -np.sin(t), 0 * t], -1),
            np.stack([np.sin(t), np.cos(t), 0 * t], -1),
            np.stack([0 * t, 0 * t, 1 + 0 * t], -1),
        ],
        -2,
    )
    swap = np.float64([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    r = (about(a) @ swap @ about(b) @ swap.T @ about(c)).reshape(-1, 3, 3)
    w = np.broadcast_to(weights[None, :, None], a.shape).ravel() / (2.0 * size**2)
    w = w * np.exp(np.einsum("ij,nij->n", f, r))
    total = w.sum()
    flat, w = r.reshape(-1, 9), w / total
    mean = w @ flat
    covariance = (flat * w[:, None]).T @ flat - np.outer(mean, mean)
    return np.log(total), mean.reshape(3, 3), covariance


@pytest.mark.parametrize("f", [matrix(0), -matrix(1), np.eye(3), np.zeros((3, 3))])
def test_the_decomposition_is_of_rotations(double, f):
    u, s, v = (np.array(x) for x in matrix_fisher.proper_svd(jnp.asarray(f)))
    for factor in (u, v):
        np.testing.assert_allclose(factor @ factor.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(factor) == pytest.approx(1.0)
    np.testing.assert_allclose(u @ np.diag(s) @ v.T, f, atol=1e-12)
    assert s[0] >= s[1] >= abs(s[2])
    assert s[2] * np.linalg.det(f) >= 0.0


def test_its_singular_values_give_the_eigenvalues_of_davenport(double):
    f = matrix(3)
    z = np.array([f[2, 1] - f[1, 2], f[0, 2] - f[2, 0], f[1, 0] - f[0, 1]])
    k = np.block([[np.trace(f), z], [z[:, None], f + f.T - np.trace(f) * np.eye(3)]])
    a, b, c = np.array(matrix_fisher.proper_svd(jnp.asarray(f)).s)
    expected = [a + b + c, a - b - c, -a + b - c, -a - b + c]
    np.testing.assert_allclose(np.linalg.eigvalsh(k), np.sort(expected), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_normaliser_mean_and_covariance_are_those_of_a_grid(double, seed):
    f = matrix(seed)
    log_c, mean, covariance = on_grid(f)
    assert float(matrix_fisher.log_normaliser(jnp.asarray(f))) == pytest.approx(
        log_c, abs=1e-12
    )
    found = matrix_fisher.mean_rotation(jnp.asarray(f))
    np.testing.assert_allclose(found, mean, atol=1e-12)
    found = jax.jacfwd(matrix_fisher.mean_rotation)(jnp.asarray(f)).reshape(9, 9)
    np.testing.assert_allclose(found, covariance, atol=1e-12)
    found = jax.grad(matrix_fisher.log_normaliser)(jnp.asarray(f))
    np.testing.assert_allclose(found, mean, atol=1e-12)


@pytest.mark.parametrize("k", [1e-3, 0.5, 3.0, 40.0, 700.0])
def test_closed_forms(double, k):
    log_c = lambda *s: float(matrix_fisher.log_normaliser(jnp.diag(jnp.array(s))))
    scaled = ive(0, 2 * k), ive(1, 2 * k)
    if k < 100.0:  # Beyond, the difference of the two has no digits left.
        due = 3.0 * k + np.log(scaled[0] - scaled[1])
        assert log_c(k, k, k) == pytest.approx(due, abs=1e-10)
    due = k + np.log(scaled[0] + scaled[1])
    assert log_c(k, k, -k) == pytest.approx(due, abs=1e-12)
    due = k + np.log(-np.expm1(-2.0 * k) / (2.0 * k))
    assert log_c(k, 0.0, 0.0) == pytest.approx(due, abs=1e-12)
    langevin = 1.0 / np.tanh(k) - 1.0 / k
    found = matrix_fisher.mean_rotation(jnp.diag(jnp.array([k, 0.0, 0.0])))
    np.testing.assert_allclose(found, np.diag([langevin, 0.0, 0.0]), atol=1e-12)


@pytest.mark.parametrize("s", HARD.values(), ids=HARD.keys())
def test_single_precision_is_enough(s):
    turn = rotations(0, 2)
    f = turn[0] @ np.diag(s) @ turn[1].T
    with jax.enable_x64(True):
        exact = np.array(matrix_fisher.mean_rotation(jnp.float64(f)))
        slope = np.array(jax.jacfwd(matrix_fisher.mean_rotation)(jnp.float64(f)))
    found = matrix_fisher._mean_of(jnp.float32(s))
    with jax.enable_x64(True):
        due = np.array(matrix_fisher._mean_of(jnp.float64(np.float32(s))))
    np.testing.assert_allclose(found, due, atol=1e-6)
    # Of the whole matrix the rounding alone moves the mean as its slope says.
    found = matrix_fisher.mean_rotation(jnp.float32(f))
    largest = np.abs(slope).max()
    rounding = 4e-7 * s[0] * largest
    np.testing.assert_allclose(found, exact, atol=2e-6 + rounding)
    found = jax.jacfwd(matrix_fisher.mean_rotation)(jnp.float32(f))
    np.testing.assert_allclose(found, slope, atol=2e-6 + 2e-5 * largest + rounding)


@pytest.mark.parametrize("s", HARD.values(), ids=HARD.keys())
def test_nodes_are_enough(double, s, monkeypatch):
    values = jnp.array(s)
    found = matrix_fisher._mean_of(values)
    monkeypatch.setitem(matrix_fisher._NODES, 8, 200)
    matrix_fisher._rule.cache_clear()
    exact = matrix_fisher._mean_of(values)
    monkeypatch.undo()
    matrix_fisher._rule.cache_clear()
    np.testing.assert_allclose(found, exact, atol=1e-12)


@pytest.mark.parametrize("order", range(4))
def test_each_order_of_laplace_gains_two_powers_of_the_noise(double, order):
    """Errors fall as sigma to the 2, 4, 6 and 8, where F is that of no noise."""
    method = f"laplace{order}" if order else "mode"
    sigmas = np.array([0.06, 0.05, 0.04, 0.03])
    f = jnp.asarray(matrix(7, 1.0) / sigmas[:, None, None] ** 2)
    found = matrix_fisher.mean_rotation(f, method)
    errors = np.linalg.norm(found - matrix_fisher.mean_rotation(f), axis=(-2, -1))
    slope = np.polyfit(np.log(sigmas), np.log(errors), 1)[0]
    assert slope == pytest.approx(2 * order + 2, abs=0.1)


def test_laplace_is_kept_within_bounds_on_a_line():
    f = jnp.diag(jnp.array([40.0, 0.0, 0.0]))
    for order in range(1, 4):
        found = np.asarray(matrix_fisher.mean_rotation(f, f"laplace{order}"))
        assert np.all(np.isfinite(found))
        assert np.linalg.norm(found, 2) <= 1.0


def test_the_series_of_high_temperature(double):
    f = jnp.asarray(matrix(2, 1.0) / np.array([20.0, 40.0])[:, None, None])
    found = matrix_fisher.mean_rotation(f, "high_temperature")
    error = np.linalg.norm(found - matrix_fisher.mean_rotation(f), axis=(-2, -1))
    assert error[0] / error[1] == pytest.approx(8.0, rel=0.1)  # The third power.


@pytest.mark.parametrize("f", [matrix(0), matrix(1), np.diag([2.0, 2.0, 2.0])])
def test_the_derivative_of_the_mode(double, f):
    tangent = matrix(9)
    step = 1e-6
    near = lambda by: matrix_fisher.mode(jnp.asarray(f + by * tangent))
    ends = near(step), near(-step)
    _, found = jax.jvp(matrix_fisher.mode, (jnp.asarray(f),), (jnp.asarray(tangent),))
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("method", ["mode", "exact", "high_temperature"])
@pytest.mark.parametrize("s", HARD.values(), ids=HARD.keys())
def test_derivatives_are_finite_in_both_directions(method, s):
    f = jnp.diag(jnp.array(s, jnp.float32))
    mean = lambda f: matrix_fisher.mean_rotation(f, method)
    for jacobian in (jax.jacfwd(mean)(f), jax.jacrev(mean)(f)):
        assert np.all(np.isfinite(jacobian))


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0, 300.0])
def test_samples_have_the_mean_and_the_covariance(scale):
    f = jnp.float32(matrix(4, scale))
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda key: matrix_fisher.sample(key, f)))(keys)
    )
    np.testing.assert_allclose(np.linalg.det(drawn), 1.0, atol=1e-4)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    mean = matrix_fisher.mean_rotation(f)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 4.5 * error + 1e-5)
    found = np.cov(drawn.reshape(-1, 9).T)
    due = jax.jacfwd(matrix_fisher.mean_rotation)(f).reshape(9, 9)
    np.testing.assert_allclose(found, due, atol=0.05 * np.abs(due).max())


def test_the_mean_turns_with_its_argument():
    left, right = rotations(5, 2).astype(np.float32)
    f = np.float32(matrix(6))
    expected = left @ np.asarray(matrix_fisher.mean_rotation(jnp.asarray(f))) @ right
    found = matrix_fisher.mean_rotation(jnp.asarray(left @ f @ right))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"expected one of .*laplace3.*found 'kabsch'"):
        matrix_fisher.mean_rotation(jnp.eye(3), "kabsch")


def test_uniform_rotations_prefer_nothing():
    turns = np.asarray(matrix_fisher.uniform(jax.random.key(0), 20_000))
    np.testing.assert_allclose(
        turns @ turns.mT, np.broadcast_to(np.eye(3), turns.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-5)
    # Entries have mean 0 and mean square 1/3.
    np.testing.assert_allclose(turns.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(np.square(turns).mean(axis=0), 1 / 3, atol=0.01)


def test_determinants_are_those_of_numpy():
    f = np.random.default_rng(0).normal(size=(20, 3, 3)).astype(np.float32)
    found = matrix_fisher.determinant(jnp.asarray(f))
    np.testing.assert_allclose(found, np.linalg.det(f), atol=1e-5)


def test_quaternions_are_those_of_scipy():
    from scipy.spatial.transform import Rotation

    q = np.random.default_rng(0).normal(size=(20, 4))
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    found = matrix_fisher.from_quaternion(jnp.float32(q))
    due = Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix()  # The real part last.
    np.testing.assert_allclose(found, due, atol=1e-6)
    opposite = matrix_fisher.from_quaternion(jnp.float32(-q))
    np.testing.assert_array_equal(opposite, found)


def test_gaps_are_the_curvatures_at_the_mode(double):
    """Of tr(R^T F) along small angles about each axis."""
    s = jnp.array([3.0, 2.0, -0.5])

    def curvature(axis):
        about = lambda angle: jnp.append(
            jnp.cos(0.5 * angle), jnp.sin(0.5 * angle) * jnp.eye(3)[axis]
        )
        turn = lambda angle: matrix_fisher.from_quaternion(about(angle))
        overlap = lambda angle: jnp.sum(s * jnp.diag(turn(angle)))
        return -jax.grad(jax.grad(overlap))(0.0)

    found = [float(curvature(axis)) for axis in range(3)]
    np.testing.assert_allclose(found, matrix_fisher.gaps(s), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_normaliser_is_blind_to_rotations(double, seed):
    left, right = rotations(seed, 2)
    f = matrix(seed)
    due = float(matrix_fisher.log_normaliser(jnp.asarray(f)))
    found = float(matrix_fisher.log_normaliser(jnp.asarray(left @ f @ right)))
    assert found == pytest.approx(due, abs=1e-11)
    same = float(matrix_fisher.log_normaliser(jnp.asarray(f.T)))
    assert same == pytest.approx(due, abs=1e-11)


def test_batches_and_single_matrices_agree():
    f = jnp.float32(np.stack([matrix(seed) for seed in range(6)])).reshape(2, 3, 3, 3)
    for method in ("exact", "mode", "laplace2"):
        found = matrix_fisher.mean_rotation(f, method)
        one = [matrix_fisher.mean_rotation(x, method) for x in f.reshape(-1, 3, 3)]
        np.testing.assert_allclose(found.reshape(-1, 3, 3), one, atol=1e-6)
    log_c = matrix_fisher.log_normaliser(f)
    one = [matrix_fisher.log_normaliser(x) for x in f.reshape(-1, 3, 3)]
    np.testing.assert_allclose(log_c.ravel(), one, atol=1e-5)


def test_the_mean_shrinks_from_the_mode_to_nothing():
    scales = np.array([1e4, 30.0, 3.0, 0.3, 1e-3])
    f = jnp.float32(scales[:, None, None] * matrix(1, 1.0))
    sizes = np.linalg.norm(matrix_fisher.mean_rotation(f), axis=(-2, -1))
    assert np.all(np.diff(sizes) < 0.0)
    assert sizes[0] == pytest.approx(np.sqrt(3.0), abs=1e-2)
    assert sizes[-1] < 1e-2
