"""Tests of alignment: superposition, targets, the oracle."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.geometry import alignment, diagnostics, matrix_fisher, permutations


def random_rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.float32(q if np.linalg.det(q) > 0 else -q)


def center(points, mask):
    return np.asarray(alignment.center(jnp.asarray(points), jnp.asarray(mask))[0])


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


WATER = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]
LINE = [[-1.16, 0.0, 0.0], [0.0, 0.0, 0.0], [1.16, 0.0, 0.0]]
METHANE = 0.63 * np.array(
    [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float
)
CHIRAL = METHANE * np.array([1.0, 1.1, 1.2, 1.4, 1.7])[:, None]
CLOUDS = {
    "one atom": [[0.3, 0.1, -0.2]],
    "two atoms": LINE[:2],
    "line": LINE,
    "plane": WATER,
    "methane": METHANE,
    "chiral": CHIRAL,
}
ALL_CLOUDS = pytest.mark.parametrize("x", CLOUDS.values(), ids=CLOUDS.keys())


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def noised(x, sigma, seed, alpha=1.0):
    """Turns a cloud at random and adds noise."""
    x = np.asarray(x, float) - np.mean(x, axis=0)
    noise = np.random.default_rng(seed).normal(size=x.shape)
    y = alpha * x @ random_rotation(seed).T + sigma * noise
    return jnp.asarray(y), jnp.asarray(x)


def conformers(seed=0, count=3):
    moved = np.random.default_rng(seed).normal(size=(count, 5, 3))
    clouds = CHIRAL + 0.3 * moved
    return jnp.asarray(clouds - clouds.mean(axis=1, keepdims=True))


def test_no_gradient_flows_through_a_superposition(cloud):
    """That of the minimal distance is exact without it (the envelope theorem)."""
    mask = jnp.ones(7, bool)
    reference = jnp.asarray(center(cloud[::-1], mask))
    loss = lambda x: jnp.sum(
        jnp.square(alignment.superpose(x, reference, mask) - reference)
    )
    found = jax.grad(loss)(jnp.asarray(cloud))
    ahead = np.random.default_rng(2).normal(size=cloud.shape).astype(np.float32)
    step = 1e-2
    near = lambda by: float(loss(jnp.asarray(cloud + by * ahead)))
    rise = near(step) - near(-step)
    assert float(jnp.sum(found * ahead)) == pytest.approx(rise / (2 * step), rel=1e-2)


def test_weights_count_in_the_mean_and_in_the_rotation(cloud):
    """A point of weight 2 is two points."""
    weights = jnp.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    twice = np.concatenate([cloud, cloud[1:2]])
    other = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    other = np.array(alignment.center(jnp.asarray(other), None, weights)[0])
    found = alignment.superpose(*map(jnp.asarray, (cloud, other)), None, weights)
    due = alignment.superpose(
        jnp.asarray(twice), jnp.asarray(np.concatenate([other, other[1:2]]))
    )
    np.testing.assert_allclose(found, due[:7], atol=1e-5)


def test_the_distance_of_superposed_clouds_is_that_of_scipy(cloud):
    from scipy.spatial.transform import Rotation

    other = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    a, b = (x - x.mean(axis=0) for x in (cloud, other))
    _, total = Rotation.align_vectors(a, b)
    found = alignment.rmsd(jnp.asarray(cloud), jnp.asarray(other))
    assert float(found) == pytest.approx(total / np.sqrt(7), abs=1e-5)


def test_batches_and_single_clouds_agree(cloud):
    y, x = (jnp.asarray(np.stack([cloud, -cloud, cloud[::-1]])) + i for i in range(2))
    sigma = jnp.array([0.1, 1.0, 3.0])
    found = alignment.rotation_target(y, x, sigma)
    one = jax.vmap(alignment.rotation_target)(y, x, sigma)
    np.testing.assert_allclose(found, one, atol=1e-6)


@ALL_CLOUDS
def test_score_and_jacobian_are_those_of_the_log_density(double, x):
    """By finite differences; and the Jacobian is symmetric and positive."""
    y, x = noised(x, 0.6, 3, alpha=0.8)
    references = jnp.stack([x, 1.2 * x])
    at = lambda y: alignment.oracle_denoiser(y, references, 0.6, 0.8)
    step = 1e-5 * jnp.eye(y.size).reshape(-1, *y.shape)
    slope = lambda f: jax.vmap(lambda d: (f(y + d) - f(y - d)) / 2e-5)(step)
    found = slope(lambda y: at(y).log_density).reshape(y.shape)
    np.testing.assert_allclose(at(y).score, found, atol=1e-6)
    found = slope(lambda y: at(y).denoised)
    jacobian = alignment.oracle_jacobian(y, references, 0.6, 0.8)
    flat = np.array(jacobian).reshape(y.size, y.size)
    np.testing.assert_allclose(flat, found.reshape(y.size, y.size).T, atol=1e-7)
    np.testing.assert_allclose(flat, flat.T, atol=1e-10)
    assert np.linalg.eigvalsh(flat).min() > -1e-10
    assert np.linalg.matrix_rank(flat, 1e-8) <= 9 + 1


def test_the_log_density_is_the_mean_over_rotations(double):
    y, _ = noised(CHIRAL, 0.8, 5)
    references = conformers()
    q = np.random.default_rng(0).normal(size=(100_000, 4))
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    turns = matrix_fisher.from_quaternion(jnp.asarray(q))
    x, _ = alignment.center(references)
    squares = jax.vmap(lambda r: jnp.sum(jnp.square(y - x @ r.T), axis=(-2, -1)))(turns)
    exponents = np.array(-0.5 * squares / 0.64).ravel()
    values = np.exp(exponents) * (2.0 * np.pi * 0.64) ** (-1.5 * len(y))
    found = np.exp(alignment.oracle_denoiser(y, references, 0.8).log_density)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - found) < 4.0 * error
    assert error < 0.05 * found


def test_the_jacobian_is_the_posterior_covariance():
    """Of rotations that are drawn, of one cloud."""
    y, x = (jnp.float32(z) for z in noised(CHIRAL, 0.7, 1))
    f = alignment.concentration(y, x, 0.7)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: matrix_fisher.sample(key, f)))(keys)
    clouds = np.array(alignment.rotate(x, drawn)).reshape(len(keys), -1)
    found = np.cov(clouds.T) / 0.49
    jacobian = np.array(alignment.oracle_jacobian(y, x[None], 0.7))
    jacobian = jacobian.reshape(found.shape)
    np.testing.assert_allclose(found, jacobian, atol=0.03 * np.abs(jacobian).max())


@pytest.mark.parametrize(("x", "freedoms"), [(CHIRAL, 3), (LINE, 2)])
def test_the_exact_target_removes_the_noise_of_rotations(double, x, freedoms):
    """Of small noise sigma^2 for each degree of freedom."""
    sigma, seeds = 0.02, range(400)
    y, centred = map(jnp.stack, zip(*(noised(x, sigma, i) for i in seeds), strict=True))
    turns = jnp.stack([jnp.asarray(random_rotation(i), float) for i in seeds])
    error = alignment.rotate(centred, turns)
    error -= alignment.rotation_target(y, centred, sigma)
    removed = jnp.sum(jnp.square(error), axis=(-2, -1))
    assert np.mean(removed) / sigma**2 == pytest.approx(freedoms, rel=0.15)
    x = jnp.asarray(x, float) - jnp.mean(jnp.asarray(x, float), axis=0)
    f = x.T @ x / sigma**2
    d = jnp.diag(matrix_fisher.mean_rotation(jnp.diag(jnp.linalg.eigvalsh(f))))
    law = jnp.sum(jnp.linalg.eigvalsh(f) * sigma**2 * (1.0 - jnp.square(d)))
    assert float(law) / sigma**2 == pytest.approx(freedoms, rel=0.05)


@ALL_CLOUDS
@pytest.mark.parametrize("method", alignment.METHODS)
def test_targets_are_finite_and_padding_is_nothing(x, method):
    y, x = (jnp.float32(z) for z in noised(x, 0.5, 2))
    found = alignment.rotation_target(y, x, 0.5, method=method)
    assert np.all(np.isfinite(found))
    pad = lambda z: jnp.concatenate([z, jnp.full((2, 3), 7.0)])
    mask = jnp.arange(len(x) + 2) < len(x)
    padded = alignment.rotation_target(pad(y), pad(x), 0.5, mask=mask, method=method)
    np.testing.assert_allclose(padded[:-2], found, atol=1e-5)
    assert not np.any(padded[-2:])


@pytest.mark.parametrize("method", ["mode", "laplace1", "exact"])
def test_an_empty_row_is_zero(method):
    y, mask = jnp.ones((4, 3)), jnp.zeros(4, bool)
    found = alignment.rotation_target(y, y, 0.5, mask=mask, method=method)
    np.testing.assert_array_equal(found, 0.0)


@ALL_CLOUDS
def test_gradients_through_the_oracle_are_finite(x):
    y, x = (jnp.float32(z) for z in noised(x, 0.0, 0))
    found = jax.grad(lambda y: jnp.sum(alignment.oracle_denoiser(y, x[None], 1.0)[0]))(
        y
    )
    assert np.all(np.isfinite(found))
    found = jax.grad(
        lambda y: jnp.sum(alignment.kabsch_rotation(alignment.cross_covariance(y, x)))
    )(y)
    assert np.all(np.isfinite(found))
    mask = jnp.zeros(len(x), bool)
    oracle = lambda y: alignment.oracle_denoiser(y, x[None], 1.0, mask=mask).log_density
    np.testing.assert_array_equal(jax.grad(oracle)(y), 0.0)


def test_a_single_atom_that_is_centred_stays():
    y, x = jnp.array([[0.4, 0.0, 0.0]]), jnp.zeros((1, 3))
    np.testing.assert_array_equal(alignment.rotation_target(y, x, 0.1), x)
    found = alignment.oracle_denoiser(y, x[None], 0.1).denoised
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_a_single_vector_has_the_law_of_its_direction():
    """Of von Mises and Fisher; turns leave the origin alone."""
    y, x = jnp.array([[0.4, 0.0, 0.0]]), jnp.array([[0.0, 0.0, 2.0]])
    kappa = 0.8 / 0.25
    length = 2.0 * (1.0 / np.tanh(kappa) - 1.0 / kappa)
    found = alignment.rotation_target(y, x, 0.5)
    np.testing.assert_allclose(found, [[length, 0.0, 0.0]], atol=1e-5)


def test_the_oracle_turns_with_its_input():
    y, _ = (jnp.float32(z) for z in noised(CHIRAL, 0.7, 1))
    references = jnp.float32(conformers())
    turn = jnp.asarray(random_rotation(9))
    at = alignment.oracle_denoiser(y, references, 0.7)
    found = alignment.oracle_denoiser(y @ turn.T, references, 0.7)
    np.testing.assert_allclose(found.denoised, at.denoised @ turn.T, atol=1e-5)
    assert float(found.log_density) == pytest.approx(float(at.log_density), abs=1e-4)


def test_a_mirror_image_has_another_answer():
    y, x = (jnp.float32(z) for z in noised(CHIRAL, 0.3, 1))
    at = alignment.oracle_denoiser(y, x[None], 0.3)
    found = alignment.oracle_denoiser(-y, x[None], 0.3)
    assert float(found.log_density) < float(at.log_density) - 3.0
    assert float(jnp.abs(found.denoised + at.denoised).max()) > 0.1


def test_the_single_target_is_right_on_average(double):
    """Given y, the frame from which it was made has the exact target as its mean."""
    y, x = noised(CHIRAL, 0.7, 1)
    f = alignment.concentration(y, x, 0.7)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: matrix_fisher.sample(key, f)))(keys)
    frames = alignment.rotate(x, drawn)
    found = alignment.rotation_target(
        jnp.stack([y] * 8), frames[:8], 0.7, method="single"
    )
    np.testing.assert_array_equal(found, frames[:8])
    error = np.std(frames, axis=0) / np.sqrt(len(keys))
    exact = alignment.rotation_target(y, x, 0.7)
    assert np.all(np.abs(np.mean(frames, axis=0) - exact) < 4.5 * error)


def test_an_unknown_method_is_named(cloud):
    with pytest.raises(ValueError, match=r"expected one of .*single.*found 'best'"):
        alignment.rotation_target(
            jnp.asarray(cloud), jnp.asarray(cloud), 1.0, method="best"
        )


def test_the_distance_of_equal_clouds_has_a_gradient_of_zero(cloud):
    x = jnp.asarray(cloud)
    for y in (jnp.zeros_like(x), jnp.ones_like(x)):
        found = jax.grad(alignment.rmsd)(y, y)
        np.testing.assert_array_equal(found, 0.0)
    found = jax.grad(alignment.rmsd)(x, x[::-1])
    assert np.all(np.isfinite(found))
    assert np.max(np.abs(found)) > 0.01


def test_a_point_is_rotated_as_a_column(cloud):
    turn = random_rotation(3)
    found = alignment.rotate(jnp.asarray(cloud), jnp.asarray(turn))
    np.testing.assert_allclose(found, cloud @ turn.T, atol=1e-6)


def contractions(jaxpr):
    """Returns the precisions of all products of a program, of nested ones too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(equation.params["precision"])
        for value in jax.tree.leaves(equation.params):
            inner = getattr(value, "jaxpr", value)  # A closed one holds an open one.
            found += contractions(inner) if hasattr(inner, "eqns") else []
    return found


KEY = jax.random.key(0)
EYE, FIVE = jnp.eye(3), jnp.asarray(CHIRAL, jnp.float32)
PROGRAMS = {
    "mode": (matrix_fisher.mode, EYE),
    "log_normaliser": (matrix_fisher.log_normaliser, EYE),
    "sample": (partial(matrix_fisher.sample, KEY), EYE),
    "superpose": (partial(alignment.superpose, reference=FIVE), FIVE),
    "rmsd": (partial(alignment.rmsd, FIVE), FIVE),
    "oracle": (lambda y: alignment.oracle_denoiser(y, FIVE[None], 1.0), FIVE),
    "jacobian": (lambda y: alignment.oracle_jacobian(y, FIVE[None], 1.0), FIVE),
    "permutation": (
        lambda x: permutations.permutation_align(FIVE, x, jnp.zeros(5, jnp.int32)).x,
        FIVE,
    ),
    "automorphism": (
        lambda x: permutations.automorphism_align(FIVE, x, jnp.arange(5)[None]).x,
        FIVE,
    ),
    "asymmetry": (
        lambda y: diagnostics.jacobian_asymmetry(jnp.sin, y, KEY), FIVE,
    ),
    **{
        f"target, {method}": (
            partial(alignment.rotation_target, x=FIVE, sigma=1.0, method=method), FIVE
        )
        for method in alignment.METHODS
    },
    **{
        f"mean, {method}": (partial(matrix_fisher.mean_rotation, method=method), EYE)
        for method in matrix_fisher.METHODS
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_accelerators_keep_every_product_in_single_precision(name):
    """By default they round factors to fewer bits."""
    function, x = PROGRAMS[name]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    programs = [function]
    if name not in ("sample", "permutation", "automorphism", "asymmetry"):
        programs.append(lambda x: jax.vjp(function, x)[0])
        programs.append(lambda x: jax.jvp(function, (x,), (x,)))
        programs.append(jax.jacrev(function))
    for program in programs:
        found = contractions(jax.make_jaxpr(program)(x).jaxpr)
        assert all(precision == highest for precision in found), found


def test_products_are_found_where_there_are_some():
    found = contractions(jax.make_jaxpr(matrix_fisher.mode)(EYE).jaxpr)
    assert len(found) == 1
    loose = jax.jit(lambda x: x @ x)
    assert contractions(jax.make_jaxpr(loose)(EYE).jaxpr) == [None]


def test_the_centre_is_the_weighted_mean_of_real_points(cloud):
    rng = np.random.default_rng(1)
    weights, mask = rng.uniform(0.5, 2.0, 7), np.arange(7) < 5
    arrays = map(jnp.float32, (cloud, weights))
    x, weights = arrays
    found, mean = alignment.center(x, jnp.asarray(mask), weights)
    expected = np.average(cloud[:5], axis=0, weights=weights[:5])
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(found[:5], cloud[:5] - expected, atol=1e-6)
    np.testing.assert_array_equal(found[5:], 0.0)
    again, nothing = alignment.center(found, jnp.asarray(mask), weights)
    np.testing.assert_allclose(again, found, atol=1e-6)
    np.testing.assert_allclose(nothing, 0.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_rotation_is_that_of_scipy(seed):
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    y, x = rng.normal(size=(2, 6, 3))
    weights = rng.uniform(0.1, 3.0, 6)
    expected, _ = Rotation.align_vectors(y, x, weights)
    y, x, weights = map(jnp.float32, (y, x, weights))
    covariance = alignment.cross_covariance(y, x, None, weights)
    found = alignment.kabsch_rotation(covariance)
    np.testing.assert_allclose(found, expected.as_matrix(), atol=2e-5)


def test_rotations_follow_one_another(cloud):
    first, second = (jnp.asarray(random_rotation(seed)) for seed in (1, 2))
    x = jnp.asarray(cloud)
    found = alignment.rotate(alignment.rotate(x, first), second)
    np.testing.assert_allclose(found, alignment.rotate(x, second @ first), atol=1e-5)
    back = alignment.rotate(alignment.rotate(x, first), first.T)
    np.testing.assert_allclose(back, x, atol=1e-5)
    both = alignment.rotate(x, jnp.stack([first, second]))
    np.testing.assert_allclose(both[1], alignment.rotate(x, second), atol=1e-6)


def test_the_distance_is_blind_to_rigid_motions_and_to_padding(cloud):
    other = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    y, x = jnp.asarray(cloud), jnp.asarray(other)
    due = float(alignment.rmsd(y, x))
    moved = alignment.rotate(x, jnp.asarray(random_rotation(1))) + 4.0
    assert float(alignment.rmsd(y, moved)) == pytest.approx(due, abs=1e-5)
    assert float(alignment.rmsd(x, y)) == pytest.approx(due, abs=1e-5)
    pad = lambda z: jnp.concatenate([z, jnp.full((2, 3), 9.0)])
    found = alignment.rmsd(pad(y), pad(x), jnp.arange(9) < 7)
    assert float(found) == pytest.approx(due, abs=1e-5)
    assert float(alignment.rmsd(y, -y)) > 0.3  # A mirror image.


def test_knowledge_of_a_rotation_adds_up_and_falls_with_the_noise(cloud):
    y, x = jnp.asarray(cloud), jnp.asarray(cloud[::-1])
    whole = alignment.concentration(y, x, 0.5, 0.8)
    masks = jnp.arange(7) < 3, jnp.arange(7) >= 3
    parts = [alignment.concentration(y, x, 0.5, 0.8, mask) for mask in masks]
    np.testing.assert_allclose(sum(parts), whole, atol=1e-4)
    wider = alignment.concentration(y, x, 1.0, 0.8)
    np.testing.assert_allclose(4.0 * wider, whole, rtol=1e-5, atol=1e-5)
    heavier = alignment.concentration(y, x, 0.5, 0.8, None, jnp.full(7, 3.0))
    np.testing.assert_allclose(heavier, 3.0 * whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", ["mode", "laplace1", "exact"])
def test_targets_rotate_with_what_is_noised_and_not_with_what_is_clean(method):
    y, x = (jnp.float32(z) for z in noised(CHIRAL, 0.3, 2))
    turn = jnp.asarray(random_rotation(8))
    target = partial(alignment.rotation_target, sigma=0.3, method=method)
    due = target(y, x)
    np.testing.assert_allclose(target(y, alignment.rotate(x, turn)), due, atol=1e-4)
    found = target(alignment.rotate(y, turn), x)
    np.testing.assert_allclose(found, alignment.rotate(due, turn), atol=1e-4)


def test_small_noise_leaves_the_superposition_and_large_noise_nothing():
    y, x = (jnp.float32(z) for z in noised(CHIRAL, 0.01, 2))
    mode = alignment.rotation_target(y, x, 0.01, method="mode")
    exact = alignment.rotation_target(y, x, 0.01)
    np.testing.assert_allclose(exact, mode, atol=1e-3)
    lost = alignment.rotation_target(y, x, 100.0)
    np.testing.assert_allclose(lost, 0.0, atol=1e-3)
