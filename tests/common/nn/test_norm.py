"""Layer norms: what each divides by what, symmetry, and nodes without anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.norm import LayerNorm
from common.so3.irreps import SCALAR
from tests.common.nn.random_inputs import (
    applied,
    assert_close,
    features,
    rotate,
    rotation,
)

IRREPS = "6x0e+4x1o+2x2e"
kinds = pytest.mark.parametrize("groups", ["each", "separable", "merged"])


def fresh(groups, x):
    return jax.jit(LayerNorm(groups).init_with_output)(jax.random.key(0), x)[0]


@kinds
@pytest.mark.parametrize("sign", [1, -1])
def test_layer_norms_rotate_and_reflect_with_the_features(groups, sign):
    x, turn = features(IRREPS, 5), rotation(sign)
    norm = applied(LayerNorm(groups), x)
    assert_close(norm(rotate(x, turn)), rotate(norm(x), turn))


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [("each", (1, 1, 1)), ("separable", (1, 2)), ("merged", (3,))],
)
def test_the_mean_square_of_every_group_is_one(groups, sizes):
    scales = iter((1.0, 3.0, 9.0))
    x = {i: a * next(scales) for i, a in features(IRREPS, 5).items()}
    out = fresh(groups, x)
    np.testing.assert_allclose(jnp.mean(out[SCALAR], -1), 0.0, atol=1e-6)
    squares = np.stack([jnp.mean(out[i] ** 2, axis=(1, 2)) for i in sorted(out)])
    for group in np.split(squares, np.cumsum(sizes)[:-1]):
        np.testing.assert_allclose(np.mean(group, axis=0), 1.0, rtol=1e-4)


@kinds
def test_the_norm_of_an_empty_node_is_zero_with_finite_derivatives(groups):
    x = jax.tree.map(lambda a: a.at[1].set(0.0), features(IRREPS, 3))
    for part in fresh(groups, x).values():
        np.testing.assert_array_equal(part[1], 0.0)
    total = lambda x: sum(jnp.sum(jnp.sin(a)) for a in fresh(groups, x).values())
    size = lambda x: sum(jnp.sum(a**2) for a in jax.grad(total)(x).values())
    both = jax.jit(lambda x: (jax.grad(total)(x), jax.grad(size)(x)))
    for slope in jax.tree.leaves(both(x)):
        assert np.all(np.isfinite(slope))
