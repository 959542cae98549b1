"""Relaxed weights: the identity at the start, joint symmetry, and what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import symmetry_tasks
from common.nn.relaxed import Relaxed, anisotropy, relax, theta_of, vector_map
from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR, Irrep
from tests.common.nn.random_inputs import assert_close, features, rotate, rotation

IRREPS = "2x0e+2x1o+2x2e"
TENSOR = Irrep(2, 1)
relaxed = jax.jit(relax)


def test_the_layer_is_the_identity_at_the_start():
    x, module = features(IRREPS, 3), Relaxed("1x0e+1x1o+1x1e+1x2e")
    parameters = module.init(jax.random.key(0), x)
    assert sorted(parameters["params"]) == [
        "theta_0e",
        "theta_1e",
        "theta_1o",
        "theta_2e",
    ]
    assert_close(module.apply(parameters, x), x, atol=1e-6)
    theta = theta_of(parameters["params"])
    assert all(float(size) == 0.0 for size in anisotropy(theta).values())


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_product_rotates_if_theta_does(channels, sign):
    x, turn = features(IRREPS, 3), rotation(sign)
    theta = features(
        "+".join(f"{channels}x{i}" for i in ("0e", "1o", "1e", "2e")), seed=3
    )
    both = relaxed(rotate(x, turn), rotate(theta, turn))
    assert_close(both, rotate(relaxed(x, theta), turn))
    # Alone it does not: that is what relaxed means.
    apart = relaxed(rotate(x, turn), theta)
    assert np.abs(apart[VECTOR] - both[VECTOR]).max() > 0.1


def test_the_map_of_vectors_is_that_of_the_layer():
    theta = features("1x0e+1x1e+1x2e", seed=4)
    x = features("1x1o", 5)
    expected = x[VECTOR][..., 0] @ vector_map(theta).T
    np.testing.assert_allclose(relax(x, theta)[VECTOR][..., 0], expected, atol=1e-5)


def test_one_step_of_training_moves_theta_along_the_preferred_axis():
    x = jax.random.normal(jax.random.key(0), (512, 3))
    z = jnp.array([0.6, 0.0, 0.8])
    y = x + 0.3 * z * (x @ z)[:, None]
    start = {SCALAR: jnp.ones((1, 1)), PSEUDOVECTOR: jnp.zeros((3, 1)),
             TENSOR: jnp.zeros((5, 1))}  # fmt: skip
    loss = lambda theta: jnp.mean(jnp.square(x @ vector_map(theta).T - y))
    slope = jax.jit(jax.grad(loss))(start)
    step = {irrep: part - slope[irrep] for irrep, part in start.items()}
    values, axes = np.linalg.eigh(vector_map(step))
    assert abs(axes[:, np.argmax(values)] @ z) > 0.99


def test_the_second_degree_is_the_anisotropy_of_the_data():
    figures = symmetry_tasks.relaxed()
    assert figures["error of the learned second degree"] < 1e-3
    assert figures["second degree of isotropic data, n = 6,400"] < 0.02
    assert figures["its power of n"] == pytest.approx(-0.5, abs=0.1)


def test_both_derivatives_are_finite_at_zero():
    x, theta = features(IRREPS, 2), features("1x0e+1x2e", seed=1)
    zero = jax.tree.map(jnp.zeros_like, x)
    total = lambda x, t: sum(jnp.sum(a**2) for a in relax(x, t).values())
    second = jax.jit(jax.grad(lambda t, x: sum(
        jnp.sum(a) for a in jax.tree.leaves(jax.grad(total)(x, t))
    )))  # fmt: skip
    for slope in jax.tree.leaves(second(theta, zero)):
        assert np.all(np.isfinite(slope))
