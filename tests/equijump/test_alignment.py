"""Tests of targets aligned to what is noised, where a path has no source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.geometry import matrix_fisher
from configs.equijump import tiny
from equijump import build, loss, train
from equijump.cloud import to_cloud
from equijump.data import pairs
from equijump.jump import chain_of, make_jump
from equijump.transport import paths

FROM_NOISE = ("one_sided", "flow_matching", "ddpm")


def make_config(kind, alignment, share=0.0):
    config = tiny.get_config()
    config.transport.kind = kind
    config.loss.alignment = alignment
    config.data.ensemble_share = share
    return config


@pytest.mark.parametrize("kind", ["foellmer", "two_sided", "noised_linear"])
def test_a_shared_frame_leaves_nothing_to_align(kind):
    message = rf"alignment: expected single with {kind}: source and target share a"
    with pytest.raises(UsageError, match=message):
        train.check_config(make_config(kind, "exact"))
    train.check_config(make_config(kind, "single"))
    train.check_config(make_config(kind, "exact", share=0.3))


@pytest.mark.parametrize("kind", FROM_NOISE)
@pytest.mark.parametrize("alignment", ["single", "mode", "laplace1", "exact"])
def test_transports_from_noise_take_every_alignment(kind, alignment):
    config = make_config(kind, alignment)
    train.check_config(config)
    assert build.has_random_frames(config) == (alignment != "single")


def test_other_alignments_are_refused():
    with pytest.raises(UsageError, match=r"single, mode, laplace1, exact, found best"):
        train.check_config(make_config("ddpm", "best"))
    config = make_config("noised_linear", "exact", share=0.3)
    config.loss.kind = "vector_map"
    with pytest.raises(UsageError, match=r"loss\.kind vector_map, which compares"):
        train.check_config(config)


@pytest.fixture(scope="module")
def frame(segments):
    """A frame and its mask; positions are noised four times as much as vectors."""
    batch = pairs.batch_at(segments.training, segments.lags, 1, 3, seed=0, step=0)
    mask = jnp.asarray(batch.slot_mask[0])
    return to_cloud(jnp.asarray(batch.source[0]), mask), mask


def noised(frame, seed, at, scales):
    cloud, mask = frame
    key = jax.random.key(seed)
    x_1 = loss.random_rotation(key, cloud)
    z = paths.draw_noise(jax.random.fold_in(key, 1), mask)
    return x_1, z, paths.noised(at, scales, jnp.zeros_like(cloud), x_1, z)


def test_what_is_expected_is_the_mean_over_orientations(frame):
    """By weighing many of them with the likelihood of what is seen."""
    cloud, mask = frame
    at = paths.Path(jnp.zeros(()), jnp.float32(0.7), jnp.float32(0.5))
    deviation = jnp.where(jnp.arange(mask.shape[1])[:, None] == 1, 6.0, 1.5)
    scales = paths.Scales(deviation, deviation)
    x_1, z, x_t = noised(frame, 0, at, scales)
    found = loss.expected(at, scales, x_t, x_1, mask, "exact")
    np.testing.assert_allclose(
        paths.noised(at, scales, x_1, found.clean, found.noise), x_t, atol=1e-4
    )
    q = np.random.default_rng(0).normal(size=(200_000, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    turns = np.asarray(matrix_fisher.from_quaternion(jnp.float32(q)))
    ends = np.einsum("rij,nsj->rnsi", turns, np.asarray(cloud))
    error = np.where(mask[..., None], (x_t - 0.7 * ends) / (0.5 * deviation), 0.0)
    energy = 0.5 * np.sum(np.square(error), axis=(1, 2, 3))
    weights = np.exp(energy.min() - energy)
    weights /= weights.sum()
    assert 1.0 / np.sum(weights**2) > 1_000
    mean = np.einsum("r,rnsi->nsi", weights, ends)
    np.testing.assert_allclose(found.clean, mean, atol=0.05)
    assert np.max(np.abs(mean - x_1)) > 0.3
    single = loss.expected(at, scales, x_t, x_1, mask, "single")
    np.testing.assert_allclose(single.clean, x_1, atol=1e-6)
    np.testing.assert_allclose(single.noise, z, atol=1e-4)


def test_where_nothing_is_seen_nothing_is_expected(frame):
    cloud, mask = frame
    at = paths.Path(*jnp.zeros(3))
    ones = jnp.ones((mask.shape[1], 1))
    zero = jnp.zeros_like(cloud)
    found = loss.expected(at, paths.Scales(ones, ones), zero, cloud, mask, "exact")
    np.testing.assert_allclose(found.clean, 0.0, atol=1e-6)
    assert np.all(np.isfinite(found.noise))


@pytest.fixture(scope="module")
def statistics(segments):
    return train.measure(segments, align=True, ensemble=True)


def gradient(config, statistics, batch):
    loss_fn = train.make_loss(config, statistics)
    params = build.init_params(config, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(batch.source))
    run = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, batch, keys)[0]))
    return run(params)


@pytest.mark.parametrize("alignment", ["single", "exact"])
def test_random_frames_have_a_finite_loss(segments, statistics, alignment):
    batch = pairs.batch_at(segments.training, segments.lags, 64, 3, seed=0, step=0)
    error, grads = gradient(make_config("ddpm", alignment), statistics, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert 0.0 < float(error) < 3.0


def test_only_pairs_without_a_source_are_aligned(segments, statistics):
    batch = pairs.batch_at(segments.training, segments.lags, 32, 3, seed=0, step=0)
    hidden = pairs.hide_sources(jax.tree.map(np.copy, batch), 1.0, seed=0, step=0)
    errors = {
        (alignment, name): float(
            gradient(make_config("foellmer", alignment, 0.5), statistics, given)[0]
        )
        for alignment in ("single", "exact")
        for name, given in (("seen", batch), ("hidden", hidden))
    }
    assert errors["single", "seen"] == errors["exact", "seen"]
    assert errors["exact", "hidden"] < 0.95 * errors["single", "hidden"]


@pytest.mark.parametrize("kind", FROM_NOISE)
def test_a_jump_of_random_frames_ends_anywhere(segments, statistics, kind):
    """It turns with its noise, not with its source."""
    config = make_config(kind, "exact")
    params = build.init_params(config, jax.random.key(0))
    system = segments.training[0].trajectory.system
    chain = chain_of(system, {"lag": 5.0})
    batch = pairs.batch_at(segments.training, segments.lags, 1, 3, seed=0, step=0)
    jump = jax.jit(
        make_jump(
            build.make_model(config), build.TRANSPORTS[kind], statistics,
            config.transport.noise_factor, 4,
            random_frames=build.has_random_frames(config),
        )
    )  # fmt: skip
    cloud = to_cloud(jnp.asarray(batch.source[0]), chain.slot_mask)
    at = lambda x: jump(params, x, chain, jax.random.key(3))
    found, far = at(cloud), at(0.0 * cloud)
    size = float(jnp.sqrt(jnp.mean(jnp.square(found))))
    assert np.all(np.isfinite(found))
    # Of an untrained network the source is a condition, not a place to start from.
    assert float(jnp.sqrt(jnp.mean(jnp.square(found - far)))) < size
