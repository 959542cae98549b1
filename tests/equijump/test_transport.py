"""Tests of all transports with the exact heads of solvable targets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.radial import gaussian_basis
from equijump.transport import TRANSPORTS, ddpm, heads, paths, solvers, two_sided
from tests.equijump.solvable import (
    double_well,
    draw_noise,
    expected_end,
    make_jump,
    normal,
    predict_exactly,
    two_basins,
)

USUAL_STEPS = {"foellmer": 10, "noised_linear": 30, "flow_matching": 30, "ddpm": 200}
NUM_STEPS = {kind: USUAL_STEPS.get(kind, 500) for kind in TRANSPORTS}
"""Evaluations a jump, with which each keeps the limits below."""

NOISE = {"foellmer": 1.3}
"""In the place of 1, where a target has a spread of about 1."""

SHAPE = 500, 1, 14, 3
ALL = pytest.mark.parametrize("kind", TRANSPORTS)


def cloud(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(1, 14, 3)), jnp.float32)


@ALL
def test_paths_begin_and_end_where_they_must(kind):
    scales = paths.Scales(jnp.ones((14, 1)), jnp.full((14, 1), 3.0))
    x_0, x_1, z = cloud(0), cloud(1), cloud(2)
    at = lambda t: TRANSPORTS[kind].path(jnp.float32(t))
    found = paths.noised(at(1.0), scales, x_0, x_1, z)
    np.testing.assert_allclose(found, x_1, atol=1e-6)
    # The source, the noise or both, whole, and nothing of the target.
    begin = tuple(map(float, at(0.0)))
    assert begin in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0))


@ALL
def test_the_drift_is_the_derivative_of_the_path(kind):
    path, t, h = TRANSPORTS[kind].path, jnp.float32(0.37), 1e-2
    scales = paths.Scales(jnp.ones((14, 1)), jnp.full((14, 1), 0.7))
    x_0, x_1, z = cloud(0), cloud(1), cloud(2)
    at = lambda t: paths.noised(path(t), scales, x_0, x_1, z)
    found = heads.truth("drift", path, t, scales, x_0, x_1, z)
    np.testing.assert_allclose(found, (at(t + h) - at(t - h)) / (2 * h), atol=2e-3)


@ALL
def test_training_draws_times_that_have_noise(kind):
    keys = jax.random.split(jax.random.key(0), 5_000)
    times = jax.vmap(TRANSPORTS[kind].draw_time)(keys)
    assert float(times.min()) >= 0.0
    assert float(times.max()) < 1.0
    gamma = jax.vmap(TRANSPORTS[kind].path)(times).gamma
    assert np.all(gamma[times > 0] > 0.0)


@ALL
@pytest.mark.parametrize("head", ["end", "drift", "noise"])
def test_what_a_head_is_beyond_its_prior_has_unit_variance_at_most(kind, head):
    """For a normal jump: of the end and the noise that is exact at every time."""
    path = TRANSPORTS[kind].path
    scales = paths.Scales(jnp.full((14, 1), 0.4), jnp.full((14, 1), 1.5))
    moves, noises = jax.random.normal(jax.random.key(0), (2, 2_000, 1, 14, 3))
    x_0 = cloud()
    for t in (0.05, 0.5, 0.95):

        @partial(jax.vmap, in_axes=(0, 0, None))
        def beyond(move, z, t):
            x_1 = x_0 + 0.4 * move
            x_t = paths.noised(path(t), scales, x_0, x_1, z)
            prior = heads.prior(head, path, t, scales, x_0, x_t)
            return prior.to_unit(heads.truth(head, path, t, scales, x_0, x_1, z))

        assert np.std(beyond(moves, noises, jnp.float32(t))) == pytest.approx(
            1.0, abs=0.02
        )


def bonds(kappa, count):
    """Bonds whose directions follow a von Mises-Fisher law around the first axis."""
    rng = np.random.default_rng(0)
    low = np.exp(-2.0 * kappa)
    cosine = 1.0 + np.log(low + (1.0 - low) * rng.random(count)) / kappa
    angle = 2.0 * np.pi * rng.random(count)
    sine = np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
    units = np.stack([cosine, sine * np.cos(angle), sine * np.sin(angle)], -1)
    lengths = 1.5 + paths.BOND_SPREAD * rng.normal(size=count)
    return jnp.asarray(units * lengths[:, None], jnp.float32)


@pytest.mark.parametrize("kappa", [0.5, 4.0, 60.0])
@pytest.mark.parametrize("level", [4.0, 1.0, 0.3, 0.05, 0.01])
def test_what_a_bond_is_beyond_its_prior_has_unit_variance(kappa, level):
    """Along the bond and across it, for the law that the prior is exact for."""
    count, path = 20_000, TRANSPORTS["foellmer"].path
    t = TRANSPORTS["foellmer"].time_of(jnp.float32(level))
    order = 1.0 / np.tanh(kappa) - 1.0 / kappa
    spread = 1.5 * np.sqrt(2.0 / 3.0 * (1.0 - order))
    ones = jnp.ones((1, 1, 1))
    scales = paths.Scales(spread * ones, 2.0 * ones, 1.5 * ones)
    x_0 = jnp.zeros((1, 1, 3)).at[0, 0, 0].set(1.5)
    ends = bonds(kappa, count)[:, None, None]
    noises = jax.random.normal(jax.random.key(1), ends.shape)

    @jax.vmap
    def beyond(x_1, z):
        x_t = paths.noised(path(t), scales, x_0, x_1, z)
        prior = heads.prior("end", path, t, scales, x_0, x_t)
        unit = prior.to_unit(x_1)
        along = jnp.sum(unit * prior.mean) / jnp.linalg.norm(prior.mean)
        back = jnp.max(jnp.abs(prior.from_unit(unit) - x_1))
        return along, jnp.sum(unit**2) - along**2, back

    along, across, back = map(np.asarray, beyond(ends, noises))
    assert back.max() < 1e-4
    assert along.mean() == pytest.approx(0.0, abs=0.12)
    assert np.mean(along**2) == pytest.approx(1.0, abs=0.25)
    assert np.mean(across) / 2.0 == pytest.approx(1.0, abs=0.25)


@ALL
def test_the_noise_gives_the_score(kind):
    """The gradient of log p(x_t | x_0) is less the noise over gamma sigma."""
    path, noise, x_0, x_t = TRANSPORTS[kind].path, 0.7, cloud(0), cloud(1)
    modes = [(0.85, 0.8, 0.3), (0.15, -1.0, 0.2)]
    t = jnp.float32(0.6)
    at = path(t)

    def log_density(x_t):
        terms = []
        for weight, mean, std in modes:
            variance = (at.beta * std) ** 2 + (at.gamma * noise) ** 2
            beyond = x_t - at.alpha * x_0 - at.beta * mean
            terms.append(
                jnp.log(weight) - 0.5 * jnp.log(variance) - 0.5 * beyond**2 / variance
            )
        return jnp.sum(jax.nn.logsumexp(jnp.stack(terms), axis=0))

    end = expected_end(path, t, noise, modes, x_0, x_t)
    z = (x_t - at.alpha * x_0 - at.beta * end) / (at.gamma * noise)
    score = jax.grad(log_density)(x_t)
    np.testing.assert_allclose(-z / (at.gamma * noise), score, rtol=1e-3, atol=1e-3)


def jump_of(kind, modes_of):
    return make_jump(TRANSPORTS[kind], modes_of, NUM_STEPS[kind])


@ALL
@pytest.mark.parametrize("std", [1.0, 0.028])
def test_wide_and_narrow_targets_keep_their_spread(kind, std):
    found = jump_of(kind, normal)(np.zeros(SHAPE), std, 1.0, law=(0.0, std))
    assert np.std(found) == pytest.approx(std, rel=0.05)
    assert np.mean(found) == pytest.approx(0.0, abs=0.03 * std)


@ALL
@pytest.mark.parametrize("a", [0.5, 0.9, 0.99])
def test_a_rollout_of_ornstein_uhlenbeck_stays_stationary(kind, a):
    std = np.sqrt(1.0 - a**2)
    spread = np.sqrt((1.0 - a) ** 2 + std**2)  # Of the displacement.
    noise = NOISE.get(kind, 1.0) * spread
    x = np.random.default_rng(0).normal(size=SHAPE)
    x /= np.std(x)
    variances, correlations = [], []
    for number in range(20 if NUM_STEPS[kind] <= 30 else 5):
        before = x
        x = jump_of(kind, normal)(x, spread, noise, law=(a, std), seed=number)
        variances.append(np.var(x))
        correlations.append(np.mean(x * before) / np.sqrt(np.var(x) * np.var(before)))
    assert np.mean(variances[-4:]) == pytest.approx(1.0, rel=0.03)
    assert np.mean(correlations) == pytest.approx(a, abs=0.01)


def basins(kind, num_steps, method=""):
    """Share of the first of two basins, and the distance W1 to the exact law."""
    jump = make_jump(TRANSPORTS[kind], two_basins, num_steps, method)
    found = jump(np.full(SHAPE, 0.6), 0.65, NOISE.get(kind, 1.0)).ravel()
    rng = np.random.default_rng(1)
    first = rng.random(found.size) < 0.85
    numbers = rng.normal(size=found.size)
    exact = np.where(first, 0.8 + 0.1 * numbers, -1.0 + 0.15 * numbers)
    distance = np.mean(np.abs(np.sort(found) - np.sort(exact)))
    return np.mean(found > 0), distance


@ALL
def test_two_basins_have_their_weights(kind):
    share, distance = basins(kind, NUM_STEPS[kind])
    assert share == pytest.approx(0.85, abs=0.01)
    assert distance < 0.02


def test_the_paper_s_sampler_fails_at_few_steps():
    share, distance = basins("two_sided", 20)
    assert distance > 0.2
    assert share < 0.8


def test_the_first_step_of_the_plain_method_decides_too_little():
    """Ten equal steps lose what ten steps of the bridge keep."""
    assert basins("foellmer", 10, "euler_maruyama")[1] > 2 * basins("foellmer", 10)[1]


def test_without_diffusion_all_ends_of_a_two_sided_jump_are_one(monkeypatch):
    monkeypatch.setattr(two_sided, "WINDOW", (2.0, 2.0))
    jump = make_jump(two_sided, normal, 100)
    assert np.std(jump(np.ones((50, 1, 14, 3)), 0.8, 1.0, law=(0.5, 0.8))) < 1e-3


@pytest.mark.parametrize("kind", ["noised_linear", "flow_matching"])
def test_heun_is_better_than_euler_at_equal_evaluations(kind):
    assert basins(kind, 20, "heun")[1] < 0.5 * basins(kind, 20, "euler")[1]


@pytest.mark.parametrize(
    ("method", "num_evaluations", "expected"),
    [("euler", 20, 20), ("heun", 20, 19), ("heun", 21, 21)],
)
def test_steps_count_evaluations(method, num_evaluations, expected):
    calls = []

    def velocity(x, t):
        jax.debug.callback(lambda _: calls.append(1), t)
        return -x

    solvers.follow(method, velocity, cloud(), num_evaluations)
    jax.effects_barrier()
    assert len(calls) == expected


def test_a_double_well_is_crossed_both_ways_at_its_rate():
    """Detailed balance, and the mean number of jumps until the other side."""
    x = np.where(np.arange(np.prod(SHAPE)) % 2 == 0, 1.0, -1.0).reshape(SHAPE)
    sides = [x > 0]
    for number in range(12):
        x = jump_of("foellmer", double_well)(x, 0.65, 1.3, seed=number)
        sides.append(x > 0)
    before, after = np.array(sides[:-1]), np.array(sides[1:])
    there, back = np.sum(before & ~after), np.sum(~before & after)
    assert abs(there - back) < 3 * np.sqrt(there + back)
    assert before.size / (there + back) == pytest.approx(10.0, rel=0.1)


def test_masked_slots_stay_void():
    mask = jnp.asarray(np.arange(14)[None] < np.array([[5], [2], [0]]))
    noise = np.asarray(paths.draw_noise(jax.random.key(0), mask))
    assert not noise[~np.asarray(mask)].any()
    np.testing.assert_allclose(noise[:2, 1].sum(axis=0), 0.0, atol=1e-6)
    assert np.all(noise[0, :5] != 0.0)


def test_exact_heads_are_those_of_the_pairs():
    """What stands in for the network is the regression of truth on the noised frame."""
    transport, noise, x_0 = two_sided, 0.5, jnp.full((1, 14, 3), 0.3)
    scales = paths.Scales(jnp.full((14, 1), 0.8), jnp.full((14, 1), noise))
    t = jnp.float32(0.4)
    moves, noises = jax.random.normal(jax.random.key(0), (2, 4_000, 1, 14, 3))
    x_1 = 0.2 + 0.8 * moves
    noised = jax.vmap(partial(paths.noised, transport.path(t), scales, x_0))
    x_t = noised(x_1, noises)
    predict = predict_exactly(transport, noise, [(1.0, 0.2, 0.8)], x_0)
    exact = jax.vmap(predict, (0, None))(x_t, t)
    truth_of = lambda head, x_1, z: heads.truth(
        head, transport.path, t, scales, x_0, x_1, z
    )
    for head, line in zip(transport.HEADS, exact, strict=True):
        truth = jax.vmap(partial(truth_of, head))(x_1, noises)
        design = np.stack([np.ones(x_t.size), np.ravel(x_t)], axis=1)
        fit = np.linalg.lstsq(design, np.ravel(truth), rcond=None)[0]
        known = np.linalg.lstsq(design, np.ravel(line), rcond=None)[0]
        np.testing.assert_allclose(fit, known, atol=0.02)


def told(level, noise=1.0):
    """The logarithm that the network is told, of a ratio of noise to signal."""
    path = paths.Path(jnp.zeros(()), jnp.ones(()), jnp.float32(level))
    scales = paths.Scales(jnp.ones((14, 1)), jnp.full((14, 1), noise))
    return float(paths.estimate(path, scales, cloud(), cloud(1)).log_level)


def test_levels_up_to_the_ceiling_are_told_as_they_are():
    for level in (1e-3, 0.1, 1.0, 19.9):
        assert told(level) == pytest.approx(np.log(level), abs=1e-5)
        assert told(0.5 * level, 2.0) == pytest.approx(np.log(level), abs=1e-5)
    assert told(1e-5) == told(1e-3)


def test_levels_beyond_the_ceiling_are_told_apart():
    """As those of large proteins, by the encoding that the network has."""
    levels = [20.0, 30.0, 60.0, 200.0, 1_000.0]
    found = np.array([told(level) for level in levels])
    assert np.all(np.diff(found) > 0.05)
    encoded = gaussian_basis(jnp.asarray(found), -6.0, 3.0, 24)
    assert np.all(np.abs(np.diff(np.asarray(encoded)[:, -1])) > 0.02)
    slopes = jax.vmap(jax.grad(paths.compressed))(jnp.log(jnp.array(levels)))
    assert np.all(slopes > 0.0)


@ALL
def test_every_transport_has_the_names_of_the_table(kind):
    transport = TRANSPORTS[kind]
    assert transport.METHODS
    assert set(transport.HEADS) <= {"end", "drift", "noise"}
    assert hasattr(transport, "remake") == (kind == "foellmer")


@ALL
@pytest.mark.parametrize("num_steps", [2, 5])
def test_few_steps_end_at_a_known_end(kind, num_steps):
    """The same end for every start, where the last step adds no noise."""
    x_1 = cloud(3)
    transport = TRANSPORTS[kind]

    def predict(x_t, t):
        at, rate = transport.path(t), heads.rates(transport.path, t)
        z = (x_t - at.alpha * 0.0 - at.beta * x_1) / jnp.maximum(at.gamma, 1e-9)
        found = {"end": x_1, "noise": z, "drift": rate.beta * x_1 + rate.gamma * z}
        return tuple(found[head] for head in transport.HEADS)

    scales = paths.Scales(jnp.ones((14, 1)), jnp.ones((14, 1)))
    request = paths.Request(
        predict, draw_noise, jax.random.key(0), jnp.zeros((1, 14, 3)), scales,
        num_steps, transport.METHODS[0],
    )  # fmt: skip
    found = jax.jit(lambda: transport.jump(request))()
    assert found.shape == x_1.shape
    if kind in ("foellmer", "noised_linear", "flow_matching", "ddpm"):
        np.testing.assert_allclose(found, x_1, atol=1e-4)
    assert np.all(np.isfinite(found))


@ALL
def test_the_estimate_is_the_law_of_the_end_given_the_noised_frame(kind):
    """By regression on pairs: the mean is linear, and its residual has the spread."""
    path = TRANSPORTS[kind].path(jnp.float32(0.6))
    scales = paths.Scales(jnp.full((14, 1), 0.4), jnp.full((14, 1), 1.5))
    moves, noises = jax.random.normal(jax.random.key(1), (2, 5_000, 1, 14, 3))
    x_0 = cloud()
    x_1 = x_0 + 0.4 * moves
    x_t = jax.vmap(lambda x, z: paths.noised(path, scales, x_0, x, z))(x_1, noises)
    found = jax.vmap(lambda x: paths.estimate(path, scales, x_0, x))(x_t)
    residual = np.asarray(x_1 - found.mean)
    assert np.mean(residual) == pytest.approx(0.0, abs=5e-3)
    assert np.std(residual) == pytest.approx(float(found.std[0, 0, 0]), rel=0.01)
    assert np.std(found.displacement) == pytest.approx(1.0, rel=0.01)
    seen = np.ravel(found.displacement)
    assert np.corrcoef(np.ravel(residual), seen)[0, 1] == pytest.approx(0.0, abs=0.01)


def test_numbers_drawn_for_known_places_fill_them_alone():
    mask = np.arange(14)[None] < np.array([[5], [2], [0]])
    places = jnp.asarray(np.flatnonzero(mask.ravel()), jnp.int32)
    noise = paths.draw_noise(jax.random.key(0), jnp.asarray(mask), places)
    noise = np.asarray(noise)
    assert not noise[~mask].any()
    assert np.all(noise[mask] != 0.0)
    np.testing.assert_allclose(noise[:2, 1].sum(axis=0), 0.0, atol=1e-6)
    again = paths.draw_noise(jax.random.key(0), jnp.asarray(mask), places)
    np.testing.assert_array_equal(again, noise)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 30])
def test_times_rise_from_zero_to_one(num_steps):
    times = np.asarray(solvers.times_of(num_steps))
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, num_steps + 1)
    assert np.all(np.diff(times) > 0.0)
    if num_steps > 1:
        assert 1.0 - times[-2] == pytest.approx(solvers.SMALLEST, rel=1e-3)


def test_the_steps_of_ddpm_are_those_of_its_posterior():
    """The mean at u given x_t and a known end, by Bayes's rule on the path."""
    x_1, x_t = cloud(1), cloud(2)
    scales = paths.Scales(jnp.ones((14, 1)), jnp.full((14, 1), 0.8))
    t, u = jnp.float32(0.3), jnp.float32(0.45)
    at_t, at_u = ddpm.path(t), ddpm.path(u)
    z = (x_t - at_t.beta * x_1) / (at_t.gamma * 0.8)
    request = paths.Request(lambda x, t: (z,), None, None, cloud(), scales, 10)
    mean, std = ddpm.transition(request, x_t, t, u)
    # x_u ~ N(beta_u x_1, gamma_u^2 s^2), and x_t = r x_u + noise of the variance left.
    r = at_t.beta / at_u.beta
    own = (0.8 * at_u.gamma) ** 2
    added = (0.8 * at_t.gamma) ** 2 - r**2 * own
    gain = r * own / (r**2 * own + added)
    expected = at_u.beta * x_1 + gain * (x_t - r * at_u.beta * x_1)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    least, largest = jnp.sqrt(own * (1.0 - gain * r)), jnp.sqrt(added)
    assert np.all((least < std) & (std < largest))
