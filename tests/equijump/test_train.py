"""Tests of training on the packaged trajectories."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.errors import UsageError
from common.nn.conditions import known
from common.runs import checkpoints, parallel
from configs.equijump import tiny
from equijump import build, loss, train
from equijump.cloud import to_cloud
from equijump.data import pairs, splits
from tests.equijump.test_data_pairs import MIXED


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_stopped_half_way_ends_as_one_that_was_not(
    finished, tmp_path, monkeypatch
):
    draw = pairs.draw

    def stop_at(*arguments, **named):
        if arguments[4:5] == (4,):  # The step, where the run asks.
            raise KeyboardInterrupt
        return draw(*arguments, **named)

    monkeypatch.setattr(pairs, "draw", stop_at)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny.get_config(), tmp_path)
    monkeypatch.setattr(pairs, "draw", draw)
    assert_same(train.train(tiny.get_config(), tmp_path).params, finished[1].params)


def test_two_of_eight_trajectories_validate(segments):
    names = [s.trajectory.name for s in segments.validation]
    assert names == ["ala2_300K_6.xtc", "ala2_300K_7.xtc"]
    assert len(segments.training) == 6
    assert segments.num_nodes == 3


def test_the_only_trajectory_of_a_system_is_held_out_by_blocks():
    config = tiny.get_config()
    config.data.sources = ("equijump/packaged/ala2_300K_0.xtc",)
    config.data.topology = "equijump/packaged/ala2_300K.pdb"
    found = splits.load_segments(config)
    (training,), (held,) = found.training, found.validation
    assert (held.start, held.stop) == (1599, 1999)
    assert training.stop <= held.start - 2


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("sources", ("nowhere/*.xtc",), "expected files, found none at nowhere"),
        ("lags", (7.0,), "expected multiples of 5 ps"),
        ("lags", (5_000.0,), "expected more than 2000 frames for lags up to 5000 ps"),
    ],
)
def test_data_that_cannot_be_used_is_told(name, value, told):
    config = tiny.get_config()
    config.data[name] = value
    with pytest.raises(UsageError, match=told):
        splits.load_segments(config)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("data.held_out", 3, "expected the training data that this run was begun with"),
        ("data.align", False, r"expected config\.data\.align = True"),
        (
            "transport.noise_factor",
            2.0,
            r"expected .*noise_factor = 4",
        ),
        ("model.num_hidden", 32, "as the config says"),
    ],
)
def test_a_run_goes_on_with_the_same_division_only(
    finished, tmp_path, name, value, told
):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    config = tiny.get_config()
    config.sample.num_steps = 3
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UsageError, match=told):
        train.train(config, workdir)


def test_checksums_and_names_of_what_validates_are_kept(finished, segments):
    _, _, meta = checkpoints.load_stored(finished[0])[:3]
    assert meta["held_out"] == ["ala2_300K_6.xtc", "ala2_300K_7.xtc"]
    assert meta.items() >= splits.describe(segments).items()
    # Runs of version 0.1.0 have only this one, and go on with it.
    assert meta["data_checksum"] == (
        "f00c965c9fac1cc18681451e1c6b68749a9147fda39205fdcc510b12787b7954"
    )


def count_pairs(params, batch, keys):
    """Stands for the errors of a network: other for each pair and key."""
    noise = jax.vmap(jax.random.uniform)(keys)
    return params * jnp.sum(jnp.square(batch.target), axis=(1, 2, 3)) + noise


@pytest.mark.parametrize("count", [5, 8, 13])
def test_validation_in_parts_is_the_mean_over_all_pairs(segments, monkeypatch, count):
    config = tiny.get_config()
    config.train.num_validation = count
    whole = train.make_validate(config, segments, count_pairs)(jnp.float32(0.1))
    monkeypatch.setattr(train, "VALIDATION_BATCH", 4)
    traced = []

    def errors(params, batch, keys):
        traced.append(batch.tokens.shape[0])
        return count_pairs(params, batch, keys)

    mesh = parallel.make_mesh(1) if count == 8 else None
    validate = train.make_validate(config, segments, errors, mesh)
    parts = validate(jnp.float32(0.1))
    assert parts["validation_error"] == pytest.approx(whole["validation_error"], 1e-6)
    assert validate(jnp.float32(0.1)) == parts
    assert traced == [4]  # One program, for batches of one size.
    batch = pairs.batch_at(
        segments.validation, segments.lags, count, segments.num_nodes, seed=0, step=0
    )
    keys = jax.random.split(jax.random.key(0), count)
    expected = float(np.mean(count_pairs(jnp.float32(0.1), batch, keys)))
    assert parts["validation_error"] == pytest.approx(expected, rel=1e-5)


def test_validation_of_several_sizes_is_the_mean_over_all_pairs(segments, monkeypatch):
    lags = pairs.Lags((2.0,), is_range=False)
    mixed = segments._replace(
        training=tuple(MIXED), validation=tuple(MIXED), lags=lags, num_nodes=80
    )
    config = tiny.get_config()
    config.train.num_validation = 50
    traced = []

    def errors(params, batch, keys):
        traced.append(batch.tokens.shape)
        return count_pairs(params, batch, keys)

    monkeypatch.setattr(train, "VALIDATION_BATCH", 8)
    found = train.make_validate(config, mixed, errors)(jnp.float32(0.1))
    assert {shape[1] for shape in traced} == {80, 12, 3, 1}
    batch = pairs.batch_at(mixed.validation, lags, 50, 80, seed=0, step=0)
    keys = jax.random.split(jax.random.key(0), 50)
    expected = float(np.mean(count_pairs(jnp.float32(0.1), batch, keys)))
    assert found["validation_error"] == pytest.approx(expected, rel=1e-5)


def test_the_spread_of_the_displacement_grows_with_the_lag(segments):
    ranged = segments._replace(lags=pairs.Lags((5.0, 500.0), is_range=True))
    measured = train.measure(ranged, align=True)
    assert (measured.lags[0], measured.lags[-1]) == (5.0, 500.0)
    assert np.all(np.diff(measured.vectors) > 0)
    at = lambda lag: build.scales_at(
        measured, known({"lag": jnp.float32(lag)})["lag"], 4.0
    )
    np.testing.assert_allclose(at(5.0).displacement[0, 0], measured.vectors[0], 1e-5)
    np.testing.assert_allclose(at(5.0).displacement[1, 0], measured.positions[0], 1e-5)
    np.testing.assert_allclose(at(50.0).noise, 4.0 * at(50.0).displacement, 1e-5)
    assert np.all(at(7.0).displacement > at(5.0).displacement)


def test_the_target_is_superposed_where_asked(segments):
    batch = pairs.batch_at(segments.training, segments.lags, 64, 3, seed=0, step=0)
    both = {
        align: jax.vmap(lambda b, a=align: loss.centred_pair(b, a))(
            jax.tree.map(jnp.asarray, batch)
        )
        for align in (True, False)
    }
    moved = {
        align: float(np.sqrt(np.mean(np.square(np.subtract(*pair)))))
        for align, pair in both.items()
    }
    assert moved[True] < 0.7 * moved[False]


def test_a_batch_of_padding_has_no_loss_and_no_gradient(segments):
    config = tiny.get_config()
    batch = pairs.batch_at(segments.training, segments.lags, 2, 3, seed=0, step=0)
    empty = jax.tree.map(np.zeros_like, batch)._replace(conditions=batch.conditions)
    loss_fn = train.make_loss(config, train.measure(segments, align=True))
    params = build.init_params(config, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 2)
    run = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, empty, keys)[0]))
    error, gradient = run(params)
    assert error == 0.0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.slow
def test_one_pair_with_one_noise_is_learnt_by_heart(segments):
    config = tiny.get_config()
    batch = pairs.batch_at(segments.training, segments.lags, 1, 3, seed=0, step=0)
    loss_fn = train.make_loss(config, train.measure(segments, align=True))
    keys = jax.random.split(jax.random.key(3), 1)
    errors = fit(lambda p, step: loss_fn(p, batch, keys)[0], config, num_steps=500)
    assert errors[-1] < 1e-3 * errors[0]


@pytest.mark.slow
def test_left_and_right_are_learnt_apart(segments):
    """The vector to the nitrogen is asked for, and its opposite of a mirror image."""
    config = tiny.get_config()
    model = build.make_model(config)
    mirror = lambda batch, sign: batch._replace(
        source=sign[:, None, None, None] * batch.source
    )
    draw = lambda source, step: mirror(
        pairs.batch_at(source, segments.lags, 32, 3, seed=0, step=step),
        np.float32(np.random.default_rng(step).choice([-1, 1], 32)),
    )
    sign_of = lambda batch: jnp.sign(hand(batch.source[1]))

    def answer(params, batch):
        cloud = to_cloud(batch.source, batch.slot_mask)
        found = model.apply(
            params, build.scene_of(model, batch.source[:, 1], batch), cloud
        )[0]
        return found[1, 0], cloud[1, 0]  # Of alanine's nitrogen.

    def error(params, batch):
        found, nitrogen = answer(params, batch)
        return jnp.sum(jnp.square(found - sign_of(batch) * nitrogen))

    def right(params, batch):
        found, nitrogen = answer(params, batch)
        return jnp.sign(found @ nitrogen) == sign_of(batch)

    found: list = []
    fit(
        lambda p, batch: jnp.mean(jax.vmap(lambda b: error(p, b))(batch)),
        config,
        num_steps=200,
        inputs=lambda step: draw(segments.training, step),
        found=found,
    )
    check = jax.jit(lambda batch: jax.vmap(lambda b: right(found[0], b))(batch))
    share = np.mean([check(draw(segments.validation, 1_000 + k)) for k in range(30)])
    assert share > 0.99


@pytest.mark.slow
def test_sources_of_its_own_are_near_those_of_the_trajectory(segments):
    """Of a network that has learnt nothing: atoms move by what it is asked to draw."""
    config = tiny.get_config()
    statistics = train.measure(segments, align=True)
    batch = pairs.batch_at(
        segments.training, segments.lags, 32, 3, seed=0, step=0, num_before=2
    )
    settings = loss.Settings(
        build.TRANSPORTS["foellmer"], statistics, config.transport.noise_factor, 0.0,
        align=True, unroll=2,
    )  # fmt: skip
    params = build.init_params(config, jax.random.key(0))
    model = build.make_model(config).bind(params)

    @jax.jit
    @jax.vmap
    def both(one, key):
        made = loss.self_rollout(model, settings, one, key)
        return loss.centred_pair(one._replace(target=made.source), align=True)

    given = jax.tree.map(jnp.asarray, batch)
    true, made = both(given, jax.random.split(jax.random.key(0), 32))
    moved = np.sqrt(np.mean(np.square(made - true)[batch.slot_mask]))
    level = 4.0 * statistics.vectors[0] * build.TRANSPORTS["foellmer"].REMADE
    assert 0.2 * level < moved < level
    config.loss.unroll = 1
    loss_fn = train.make_loss(config, statistics)
    run = jax.jit(
        jax.grad(
            lambda p: loss_fn(p, batch, jax.random.split(jax.random.key(0), 32))[0]
        )
    )
    for leaf in jax.tree.leaves(run(params)):
        assert np.isfinite(leaf).all()


def hand(atoms):
    """Positive for one hand of the alpha carbon: N, C and CB seen from it."""
    n, carbon, beta = (atoms[slot] - atoms[1] for slot in (0, 2, 4))
    return jnp.dot(jnp.cross(n, carbon), beta)


def fit(loss_of, config, num_steps, inputs=lambda step: step, found=None):
    """Fits fresh parameters; returns the losses."""
    params = build.init_params(config, jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))
    state = optimizer.init(params)

    @jax.jit
    def step_fn(params, state, given):
        error, gradient = jax.value_and_grad(loss_of)(params, given)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, error

    errors = []
    for step in range(num_steps):
        params, state, error = step_fn(params, state, inputs(step))
        errors.append(float(error))
    if found is not None:
        found.append(params)
    return errors
