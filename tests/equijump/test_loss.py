"""Tests of the terms of EquiJump's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.conditions import known
from configs.equijump import tiny
from equijump import build, loss
from equijump.data import pairs
from equijump.transport import ddpm

FRAME = jnp.asarray(
    [[0, 0, 0], [1.5, 0, 0], [2.1, 1.4, 0], [3.6, 1.5, 0.3], [9, 9, 9]], jnp.float32
)
MASK = jnp.asarray([True, True, True, True, False])


def turned(x):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    return x @ jnp.asarray(rotation, jnp.float32)


def test_the_vector_map_is_the_hubers_loss_of_the_errors_of_all_vectors():
    """One atom is moved by .3 Å and one by 3: of six pairs five change."""
    found = FRAME.at[0, 2].add(0.3).at[3, 2].add(3.0)
    small, large, both = 0.5 * 0.3**2, 3.0 - 0.5, 2.7 - 0.5
    expected = (2 * small + 2 * large + both) / 6
    error = loss.vector_map_error(found, FRAME, MASK)
    assert float(error) == pytest.approx(expected, rel=1e-5)
    same = loss.vector_map_error(turned(found), turned(FRAME), MASK)
    assert float(same) == pytest.approx(expected, rel=1e-4)
    far = loss.vector_map_error(found.at[0, 0].add(1e3), FRAME, MASK)
    assert float(far) < loss.VECTOR_MAP_CLIP


def test_gradients_are_finite_where_atoms_meet():
    error = lambda found: loss.vector_map_error(found, FRAME, MASK)
    for found in (FRAME, jnp.zeros_like(FRAME)):
        assert np.all(np.isfinite(jax.grad(error)(found)))


def test_all_that_a_pair_draws_comes_from_keys_of_its_own():
    keys = jax.random.key_data(jnp.stack(loss.split_key(jax.random.key(5))))
    assert len(np.unique(keys, axis=0)) == len(loss.Keys._fields)


def test_the_random_rotation_is_independent_of_the_noise(monkeypatch):
    """No two draws of a pair share a key, and none has that of the pair itself."""
    seen = []

    def record(function):
        def draw(key, *arguments, **named):
            seen.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return function(key, *arguments, **named)

        return draw

    monkeypatch.setattr(jax.random, "normal", record(jax.random.normal))
    monkeypatch.setattr(
        loss.matrix_fisher, "uniform", record(lambda key, count: jnp.eye(3)[None])
    )
    key = jax.random.key(11)
    noise_one_pair(key)
    assert len(seen) == len(set(seen)) == 3  # Source, rotation and noise.
    parts = {tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in split(key)}
    assert set(seen) <= parts


def split(key):
    return jax.random.split(key, 5)


def noise_one_pair(key):
    """Puts one residue on a path of random frames."""
    mask = jnp.arange(14)[None] < 4
    atoms = jnp.where(mask[..., None], jax.random.uniform(key, (1, 14, 3)), 0.0)
    batch = pairs.Batch(
        source=atoms, target=atoms, tokens=jnp.ones(1, jnp.int32), slot_mask=mask,
        chains=jnp.zeros(1, jnp.int32), numbers=jnp.zeros(1, jnp.int32),
        conditions=known({"lag": jnp.float32(10.0)}),
        before=jnp.zeros((0, 1, 14, 3)),
    )  # fmt: skip
    statistics = build.Statistics(*np.ones((3, 1)), ensemble=np.ones(2))
    settings = loss.Settings(ddpm, statistics, 4.0, 0.1, True, random_frames=True)
    model = build.make_model(tiny.get_config())
    keys = loss.split_key(key)
    return loss.noise_pair(model, settings, batch, keys)


def test_random_frames_start_from_noise():
    pair = noise_one_pair(jax.random.key(0))
    assert not pair.has_source
    assert not pair.origin.any()
    np.testing.assert_allclose(pair.scales.displacement, 1.0)
