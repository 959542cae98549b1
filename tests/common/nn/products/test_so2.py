"""The product in frames: against Clebsch-Gordan, and smooth at the pole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import harmonics, irreps_of
from common.nn.products import clebsch_gordan, so2
from common.nn.products.spec import make_spec
from common.so3.irreps import harmonic_irreps, uniform
from common.so3.wigner import wigner_matrices
from tests.common.nn.random_inputs import assert_close, features, positions


def test_rows_are_columns_of_wigner_matrices():
    alpha, beta = 0.7, 1.1
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(beta), -np.sin(beta)], [0, np.sin(beta), np.cos(beta)]]
    )
    about_y = np.array(
        [
            [np.cos(alpha), 0, np.sin(alpha)],
            [0, 1, 0],
            [-np.sin(alpha), 0, np.cos(alpha)],
        ]
    )
    turn = jnp.asarray(about_y @ about_x, jnp.float32)
    frames = so2.edge_frames(turn @ jnp.array([0.0, 2.0, 0.0]), 3)
    matrices = wigner_matrices(turn, 3)
    for l, frame in enumerate(frames):
        columns = [l + m for m in so2.frame_orders(l)]
        np.testing.assert_allclose(frame, matrices[l][:, columns].T, atol=2e-6)


def test_lower_orders_are_the_first_rows():
    few, whole = (so2.edge_frames(positions(4), 3, order) for order in (1, None))
    for l, frame in enumerate(few):
        assert frame.shape[1] == min(3, 2 * l + 1)
        np.testing.assert_allclose(frame, whole[l][:, : frame.shape[1]], atol=1e-6)


@pytest.mark.parametrize("direction", [[0, 1, 0], [0, -1, 0], [0, 0, 0], [1e-12, 1, 0]])
def test_gradient_is_finite_at_the_poles(direction):
    slope = jax.jacobian(lambda v: so2.edge_frames(v, 3))(jnp.array(direction, float))
    assert all(np.all(np.isfinite(part)) for part in slope)


def spread(values):
    """Returns frames' weights `[l_in, l_out, |m|]` in the order that the row wants."""
    count_in, count_out, _ = values.shape
    order = [
        values[i, o, m]
        for m in range(count_in)
        for o in range(m, count_out)
        for i in range(m, count_in)
    ]
    return jnp.array(order)


def test_every_path_is_a_choice_of_frame_weights():
    """Fits frames' weights to each path of the Clebsch-Gordan product: none is left."""
    x = features("1x0e+1x1o+1x2e", 1)
    y = harmonics(jnp.array([[0.3, -0.5, 0.8]]), 4)
    kept = harmonic_irreps(2)
    spec = make_spec(irreps_of(x), irreps_of(y), kept)
    count = so2.num_weights(spec)
    inputs = [features("1x0e+1x1o+1x2e", 1, seed=seed) for seed in range(12)]
    flat = lambda z: jnp.concatenate([z[i].reshape(-1) for i in sorted(z)])

    def in_frames(weights, x):
        out = so2.product(x, y, weights[None], spec)
        return flat({i: jnp.sum(a, axis=-1) for i, a in out.items()})

    basis = np.concatenate(
        [jax.jacobian(in_frames)(jnp.zeros(count), one) for one in inputs]
    )
    paths = clebsch_gordan.num_weights(spec)

    def by_paths(weights, x):
        out = clebsch_gordan.product(x, y, weights[None], spec)
        return flat({i: jnp.sum(a, axis=-1) for i, a in out.items()})

    target = np.concatenate(
        [jax.jacobian(by_paths)(jnp.zeros(paths), one) for one in inputs]
    )
    fitted = basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    np.testing.assert_allclose(fitted, target, atol=1e-4)
    assert np.linalg.matrix_rank(basis, 1e-4) == np.linalg.matrix_rank(target, 1e-4)


def test_a_weight_acts_on_its_orders_alone():
    """Along the pole a frame is the identity: a weight of |m| scales m and -m."""
    x = features("1x0e+1x1o+1x2e", 1)
    y = harmonics(jnp.array([[0.0, 1.0, 0.0]]), 2)
    spec = make_spec(irreps_of(x), irreps_of(y), irreps_of(x))
    values = np.zeros((3, 3, 3))
    values[1, 2, 1] = 1.0
    out = so2.product(x, y, spread(values)[None], spec)
    vector, tensor = sorted(x)[1:]
    scale = np.sqrt(5 / 3)
    expected = np.zeros(5)
    expected[[1, 3]] = scale * np.asarray(x[vector])[0, [0, 2], 0]
    np.testing.assert_allclose(out[tensor][0, :, 1], expected, atol=1e-5)


def test_outputs_must_reach_the_degree_of_the_input():
    spec = make_spec(uniform(2, 1), uniform(2, 1), uniform(1, 1))
    with pytest.raises(ValueError, match="outputs up to degree 2"):
        so2.num_weights(spec)


def test_batches_of_products_are_products():
    x = features("2x0e+2x1o", 2, 3)
    y = harmonics(jax.random.normal(jax.random.key(1), (2, 3, 3)), 1)
    spec = make_spec(irreps_of(x), irreps_of(y), irreps_of(x))
    weights = jax.random.normal(jax.random.key(2), (2, 3, so2.num_weights(spec)))
    found = so2.product(x, y, weights, spec)
    one = lambda tree: jax.tree.map(lambda a: a[1, 2], tree)
    assert_close(one(found), so2.product(*map(one, (x, y, weights)), spec))
