"""Linear maps in frames: against the full product with the harmonics of an edge."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import harmonics
from common.nn.products import so2_linear
from common.nn.products.so2 import edge_frames
from common.nn.products.so2_linear import SO2Linear
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import harmonic_irreps, parse, product_paths, uniform
from tests.common.nn.random_inputs import assert_close, features, positions

WIDTH = 2


def paths_of(max_degree, group):
    kept = harmonic_irreps(max_degree, group)
    return product_paths(kept, harmonic_irreps(2 * max_degree, group), kept)


def by_paths(x, y, weights):
    """The sum of all paths with the harmonics of each edge, in double precision."""
    total = {}
    for (i, j, k), w in weights.items():
        table = clebsch_gordan(i.degree, j.degree, k.degree)
        term = np.einsum("abk,eac,eb,cd->ekd", table, x[i], y[j][..., 0], w)
        total[k] = total.get(k, 0.0) + term
    return total


def mapped(weights, max_degree, mixes):
    """The same weights for the map in frames: a kernel for every order."""
    kernels = {}
    for m in range(max_degree + 1):
        size = max_degree + 1 - m
        own, other = np.zeros((2, size, WIDTH, size, WIDTH))
        for (i, j, k), w in weights.items():
            a, b, c = i.degree, j.degree, k.degree
            if min(a, c) < m:
                continue
            table = clebsch_gordan(a, b, c)[:, b] * math.sqrt(2 * b + 1)
            own[a - m, :, c - m] += table[a + m, c + m] * w
            other[a - m, :, c - m] += table[a + m, c - m] * w if m else 0.0
        parts = [part.reshape(size * WIDTH, -1) for part in (own, other)]
        if m == 0 or not mixes:
            np.testing.assert_allclose(parts[1], 0.0, atol=1e-12)
        joined = np.concatenate(parts[: 2 if m and mixes else 1], axis=1)
        kernels[f"order_{m}"] = {"kernel": jnp.asarray(joined, jnp.float32)}
    kernels["order_0"]["bias"] = jnp.zeros((max_degree + 1) * WIDTH)
    return {"params": kernels}


@pytest.mark.parametrize(
    ("max_degree", "group"),
    [(1, "SO3"), (2, "SO3"), (3, "SO3"), (4, "SO3"), (3, "O3")],
)
def test_the_map_is_the_full_product_with_mapped_weights(max_degree, group):
    rng, irreps = np.random.default_rng(0), uniform(max_degree, WIDTH, group)
    paths = paths_of(max_degree, group)
    weights = {path: rng.normal(size=(WIDTH, WIDTH)) for path in paths}
    vectors = jnp.asarray(rng.normal(size=(3, 1, 3)), jnp.float32)
    x = {i: jnp.asarray(rng.normal(size=(3, i.dim, n))) for i, n in irreps.items()}
    mixes = so2_linear.mixes_signs(irreps)
    module = SO2Linear(WIDTH, max_degree, max_degree, mixes)

    @jax.jit
    def in_frames(vectors, x, parameters):
        frames = edge_frames(vectors, max_degree)
        rows = so2_linear.into_frames(frames, {i: a[:, None] for i, a in x.items()})
        messages, _ = module.apply(parameters, rows)
        return so2_linear.out_of_frames(frames, messages, tuple(irreps))

    found = in_frames(vectors, x, mapped(weights, max_degree, mixes))
    y = harmonics(vectors[:, 0], 2 * max_degree, group)
    expected = by_paths(x, y, weights)
    assert_close(found, expected, atol=1e-5)


def test_weights_scale_the_degrees_and_channels_of_the_input():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(9, 5, 2)), rng.normal(size=(3, 5, 2))
    module = SO2Linear(3, 2, 2, mixes_signs=True, num_scalars=4)
    parameters = jax.jit(module.init)(jax.random.key(0), jnp.asarray(x))
    degrees = [l for l, _ in so2_linear.rows_up_to(2, 2)]
    apply = jax.jit(module.apply)
    scaled = apply(parameters, jnp.asarray(x * weights[degrees]))
    found = apply(parameters, jnp.asarray(x), jnp.asarray(weights))
    assert_close(found, scaled)
    assert [part.shape for part in found] == [(9, 5, 3), (5, 4)]


def test_features_come_out_of_frames_as_they_went_in():
    x, vectors = features("2x0e+2x1o+2x2e", 4), positions(12).reshape(4, 3, 3)
    others = jax.tree.map(lambda a: jnp.stack([a, 2.0 * a, a], axis=1), x)

    @jax.jit
    def total(near):
        frames = edge_frames(vectors, 2)
        rows = so2_linear.into_frames(frames, near)
        return so2_linear.out_of_frames(frames, rows, tuple(x))

    assert_close(total(others), jax.tree.map(lambda a: 4.0 * a, x), atol=1e-5)
    alone = total(jax.tree.map(lambda a: a[:, None], x))
    assert_close(alone, jax.tree.map(lambda a: 3.0 * a, x), atol=1e-5)


def test_parities_that_are_neither_natural_nor_all_even_are_refused():
    with pytest.raises(ValueError, match="all natural or all even, found 0e, 1o, 2o"):
        so2_linear.mixes_signs(parse("2x0e+2x1o+2x2o"))
