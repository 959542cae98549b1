"""Attention weights: sums, limits, and derivatives where there is nobody."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.attention import (
    EPSILON,
    AttentionLogits,
    attend,
    attention_weights,
    by_head,
)
from common.so3.irreps import VECTOR
from tests.common.nn.random_inputs import applied, normal

MASK = jnp.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]], bool)
forms = pytest.mark.parametrize("smooth", [False, True])


def test_hard_weights_sum_to_one_over_the_edges_there_are():
    envelope = jnp.where(MASK, 0.3, 0.0)
    weights = attention_weights(5.0 * normal(3, 4, 2), envelope, smooth=False)
    np.testing.assert_allclose(jnp.sum(weights, 1), [[1, 1], [0, 0], [1, 1]], rtol=1e-6)
    np.testing.assert_array_equal(weights > 0.0, jnp.stack([MASK, MASK], -1))


def test_smooth_weights_are_the_formula():
    logits, envelope = normal(3, 4, 2), jnp.where(MASK, jnp.abs(normal(3, 4)), 0.0)
    u, z = np.asarray(envelope, np.float64)[..., None], np.asarray(logits, np.float64)
    shares = u * np.exp(z) / (EPSILON + np.sum(u * np.exp(z), axis=1, keepdims=True))
    found = attention_weights(logits, envelope, smooth=True)
    np.testing.assert_allclose(found, u * shares, rtol=1e-5)


@forms
def test_derivatives_are_finite_for_large_logits_and_lone_receivers(smooth):
    def total(logits, envelope):
        weights = attention_weights(logits, envelope, smooth)
        return jnp.sum(jnp.sin(3.0 * weights))

    first = jax.grad(total, argnums=(0, 1))
    size = lambda *a: jnp.sum(jnp.square(first(*a)[0]))
    both = jax.jit(lambda *a: (*first(*a), *jax.grad(size, argnums=(0, 1))(*a)))
    for logits in (jnp.zeros((3, 4, 2)), 1e3 * normal(3, 4, 2)):
        for least in (1e-3, 1e-22):
            for slope in both(logits, jnp.where(MASK, least, 0.0)):
                assert np.all(np.isfinite(slope))


@forms
def test_no_senders_are_no_weights(smooth):
    assert attention_weights(jnp.zeros((3, 0, 2)), jnp.zeros((3, 0)), smooth).size == 0


@pytest.mark.parametrize("normalize", [False, True])
def test_normalised_logits_do_not_see_the_size_of_the_invariants(normalize):
    scalars = normal(2, 3, 8)
    logits = applied(AttentionLogits(2, normalize), scalars)
    change = jnp.abs(logits(10.0 * scalars) - logits(scalars))
    assert logits(scalars).shape == (2, 3, 2)
    assert (float(jnp.max(change)) < 1e-3) == normalize


def test_each_head_weighs_its_channels():
    weights, values = normal(2, 3, 2), {VECTOR: normal(2, 3, 3, 4)}
    found = attend(weights, values)[VECTOR]
    heads = np.split(np.asarray(values[VECTOR]), 2, axis=-1)
    expected = [np.einsum("rs,rsdc->rdc", weights[..., h], heads[h]) for h in range(2)]
    np.testing.assert_allclose(found, np.concatenate(expected, -1), atol=1e-6)
    assert by_head(weights, 4).shape == (2, 3, 4)
