"""Densities integrate to one, and samplers draw from the densities they belong to."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial.transform import Rotation

from common.so3.grid import sphere_grid
from common.so3.harmonics import spherical_harmonics
from configs.symphony import qm9_cpu
from symphony import densities
from symphony.densities import FineMixture, RadialMixture

LOW, HIGH = 0.6, 2.6
MAX_DEGREE = 5
# A grid as coarse for this curvature as that of the configs is for theirs.
GRID, CURVATURE = sphere_grid(12, 23, MAX_DEGREE), 50.0
UP = np.array([0.0, 0.0, 1.0], np.float32)
# Weights by degree of signals with one peak.
SHARP, BLUNT = [0.0, *[0.16] * 5], [0.0, 0.7, 0.5, 0.2, 0.07, 0.0]

MIXTURES = {
    "narrow": ([0.0, -1.0], [1.09, 1.53], [0.002, 0.02]),
    "broad": ([0.0, 0.5], [0.9, 2.0], [0.3, 0.1]),
    "outside": ([0.0, 0.0], [0.55, 2.75], [0.03, 0.1]),
}


def mixture(name):
    return RadialMixture(*(jnp.array(values) for values in MIXTURES[name]))


def radii_and_density(parameters, temperature=1.0):
    """A fine grid, and the numeric density to a power, integrating to one."""
    radii = np.linspace(LOW, HIGH, 40_001)
    copies = RadialMixture(*(x[None] for x in parameters))
    logs = densities.radial_log_density(copies, jnp.asarray(radii), LOW, HIGH)
    tempered = np.exp(np.asarray(logs, np.float64) / temperature)
    return radii, tempered / integrate.trapezoid(tempered, radii)


def random_rotations(count):
    rotations = Rotation.random(count, random_state=0).as_matrix()
    return rotations.astype(np.float32)


def zonal(axis, weights):
    """Coefficients of a signal symmetric about an axis, by degree from zero."""
    harmonics = spherical_harmonics(jnp.asarray(axis, jnp.float32), len(weights) - 1)
    degrees = np.repeat(np.arange(len(weights)), 2 * np.arange(len(weights)) + 1)
    return np.asarray(harmonics) * np.array(weights, np.float32)[degrees]


def capped(coefficients, max_curvature=CURVATURE):
    return densities.cap_curvature(jnp.asarray(coefficients), max_curvature)


def two_modes():
    """Two channels, a peak each, 0.7 : 0.3 before the tails."""
    heights = np.full(MAX_DEGREE + 1, 50.0)
    first = np.array(capped(zonal(UP, heights)[:, None]))
    second = np.array(capped(zonal([0.0, -1.0, 0.0], heights)[:, None]))
    second[0] = first[0] + math.log(0.3 / 0.7)
    return jnp.asarray(np.concatenate([first, second], axis=1))


def midpoints(num_cosines=600, num_azimuths=600):
    """Points of equal area on the sphere, ordered by cosine and azimuth about y."""
    cosines = (np.arange(num_cosines) + 0.5) * 2 / num_cosines - 1
    azimuths = (np.arange(num_azimuths) + 0.5) * 2 * np.pi / num_azimuths
    cosine, azimuth = (x.ravel() for x in np.meshgrid(cosines, azimuths, indexing="ij"))
    sine = np.sqrt(1 - cosine**2)
    points = np.stack([sine * np.sin(azimuth), cosine, sine * np.cos(azimuth)], axis=-1)
    return points.astype(np.float32)


def cell_of(points):
    """Eight bands of equal height times twelve sectors about the axis y."""
    band = np.minimum((points[:, 1] + 1) / 2 * 8, 7.999).astype(int)
    azimuth = np.arctan2(points[:, 0], points[:, 2]) % (2 * np.pi)
    sector = np.minimum(azimuth / (2 * np.pi) * 12, 11.999).astype(int)
    return band * 12 + sector


def cell_masses(coefficients, temperature=1.0):
    points = midpoints()
    logits = np.asarray(all_logits(coefficients, points), np.float64) / temperature
    mass = np.exp(logits - logits.max())
    return np.bincount(cell_of(points), mass, 96) / mass.sum()


@jax.jit
def all_logits(coefficients, points):
    return jax.vmap(densities.coarse_logits, (None, 0))(coefficients, points)


@functools.partial(jax.jit, static_argnames="count")
def draw_coarse(key, coefficients, temperature, count):
    keys = jax.random.split(key, count)
    draw = lambda key: densities.sample_coarse(key, coefficients, GRID, temperature)
    return jax.vmap(draw)(keys)


def chi_square_pvalue(draws, masses):
    observed = np.bincount(cell_of(np.asarray(draws)), minlength=96)
    expected = masses * len(draws)
    kept = expected >= 5
    observed = np.append(observed[kept], observed[~kept].sum())
    expected = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
    if expected[-1] < 5:
        observed[-2:], expected[-2:] = observed[-2:].sum(), expected[-2:].sum()
        observed, expected = observed[:-1], expected[:-1]
    assert len(observed) > 8
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("name", MIXTURES)
def test_radial_density_integrates_to_one(name):
    radii = np.linspace(LOW, HIGH, 40_001)
    copies = RadialMixture(*(x[None] for x in mixture(name)))
    density = np.exp(
        densities.radial_log_density(copies, jnp.asarray(radii), LOW, HIGH)
    )
    total = integrate.trapezoid(np.asarray(density, np.float64), radii)
    assert total == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", MIXTURES)
def test_radii_follow_their_distribution_function(name):
    draw = lambda key: densities.sample_radius(key, mixture(name), LOW, HIGH)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 20_000))
    radii, density = radii_and_density(mixture(name))
    cumulative = integrate.cumulative_trapezoid(density, radii, initial=0.0)
    law = lambda r: np.interp(r, radii, cumulative)
    assert stats.kstest(np.asarray(draws, np.float64), law).pvalue > 1e-3
    assert len(np.unique(draws)) > 0.9 * len(draws)


@pytest.mark.parametrize("mean", [0.5, 2.75])
def test_a_component_far_outside_the_interval_is_drawn_at_its_end(mean):
    far = densities.RadialMixture(jnp.zeros(1), jnp.array([mean]), jnp.array([0.004]))
    keys = jax.random.split(jax.random.key(0), 2_000)
    draw = lambda key: densities.sample_radius(key, far, 0.6, 2.6)
    radii = np.asarray(jax.vmap(draw)(keys))
    # The tail of a logistic density is exponential, of length .004 Å.
    depth = np.abs(radii - (0.6 if mean < 1.0 else 2.6))
    assert np.mean(depth) == pytest.approx(0.004, rel=0.1)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_tempered_radii_follow_the_power_of_the_density(temperature):
    parameters = mixture("broad")
    draw = lambda key: densities.sample_radius_tempered(
        key, parameters, LOW, HIGH, temperature
    )
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 5_000))
    radii, density = radii_and_density(parameters, temperature)
    cumulative = integrate.cumulative_trapezoid(density, radii, initial=0.0)
    law = lambda r: np.interp(r, radii, cumulative)
    assert stats.kstest(np.asarray(draws, np.float64), law).pvalue > 1e-3


def test_basin_temperature_narrows_radii_and_keeps_their_weights():
    parameters = mixture("narrow")
    draw = lambda key: densities.sample_radius(key, parameters, LOW, HIGH, 0.1)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), 20_000))
    weight = float(jax.nn.softmax(parameters.logits)[0])
    near_first = np.abs(np.asarray(draws) - 1.09) < 0.1
    assert near_first.mean() == pytest.approx(weight, abs=0.015)
    spread = np.std(np.asarray(draws)[~near_first])
    assert spread == pytest.approx(0.02 * math.pi / math.sqrt(3 / 0.1), rel=0.05)


def test_curvature_is_capped_at_the_peak():
    weights = np.full(MAX_DEGREE + 1, 50.0)
    peak = np.asarray(capped(zonal(UP, weights)[:, None], 300.0))
    step = 0.02
    around = np.array([[0, 0, 1], [math.sin(step), 0, math.cos(step)]], np.float32)
    height, lower = np.asarray(all_logits(peak, around), np.float64)
    assert 2 * (height - lower) / step**2 == pytest.approx(300.0, rel=0.02)
    small = 1e-4 * zonal(UP, weights)[:, None]
    np.testing.assert_allclose(capped(small, 300.0), small, rtol=1e-3)


def test_cap_has_a_finite_gradient_where_there_is_no_signal():
    gradient = jax.grad(lambda x: jnp.sum(capped(x) ** 2))(jnp.zeros((36, 4)))
    assert np.all(np.isfinite(gradient))


def coarse_cases():
    rng = np.random.default_rng(0)
    uniform = np.full(MAX_DEGREE + 1, 1e3)
    of_degree_5 = np.array([0, 0, 0, 0, 0, 1e3])
    many = np.stack([zonal(axis, uniform) for axis in rng.normal(size=(4, 3))], axis=-1)
    return {
        "typical": rng.normal(size=(36, 4)),
        "random": 1e3 * rng.normal(size=(36, 4)),
        "peak": zonal([0.3, 0.5, 0.8], uniform)[:, None],
        "rings": zonal([0.3, 0.5, 0.8], of_degree_5)[:, None],
        "four peaks": many,
    }


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("typical", 1e-3),
        ("random", 0.02),
        ("peak", 0.02),
        ("rings", 0.02),
        ("four peaks", 0.02),
    ],
)
def test_grid_of_the_configs_normalises_in_every_orientation(name, tolerance):
    """The exact integral is that of an independent grid of 300 x 599 points."""
    model = qm9_cpu.get_config().model
    coefficients = capped(coarse_cases()[name].astype(np.float32), model.max_curvature)
    fine = sphere_grid(300, 599, model.head_max_degree)
    grid = sphere_grid(model.res_beta, model.res_alpha, model.head_max_degree)
    integral = jax.nn.logsumexp(
        all_logits(coefficients, jnp.asarray(fine.points)) + fine.log_weights
    )
    direct = densities.log_normaliser(coefficients, grid)
    assert float(direct) == pytest.approx(float(integral), abs=tolerance)
    for rotation in random_rotations(20):
        logits = all_logits(coefficients, jnp.asarray(grid.points @ rotation.T))
        turned = float(jax.nn.logsumexp(logits + grid.log_weights))
        assert turned == pytest.approx(float(integral), abs=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_coarse_directions_follow_the_tempered_density(temperature):
    """Two channels: the power of their sum is not the sum of their powers."""
    rng = np.random.default_rng(1)
    coefficients = capped(3.0 * rng.normal(size=(36, 2)).astype(np.float32))
    draws = draw_coarse(jax.random.key(0), coefficients, temperature, 5_000)
    pvalue = chi_square_pvalue(draws, cell_masses(coefficients, temperature))
    assert pvalue > 1e-3
    np.testing.assert_allclose(np.linalg.norm(draws, axis=-1), 1.0, atol=1e-5)
    assert len(np.unique(draws, axis=0)) > 4_950


def test_coarse_directions_are_not_bound_to_the_grid():
    """Distance to a peak between grid points, against the exact radial law."""
    between = np.asarray(GRID.points[140] + GRID.points[163], np.float64)
    between += np.asarray(GRID.points[141] + GRID.points[164])
    axis = between / np.linalg.norm(between)
    coefficients = capped(zonal(axis, np.full(6, 50.0))[:, None])
    draws = draw_coarse(jax.random.key(4), coefficients, 1.0, 5_000)
    points = midpoints()
    weights = np.exp(np.asarray(all_logits(coefficients, points), np.float64))
    cosines = points @ axis
    order = np.argsort(cosines)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    law = lambda c: np.interp(c, cosines[order], cumulative)
    assert stats.kstest(np.asarray(draws, np.float64) @ axis, law).pvalue > 1e-3


def test_a_vanishing_temperature_finds_the_mode():
    coefficients = two_modes()
    draws = np.asarray(draw_coarse(jax.random.key(5), coefficients, 1e-3, 200))
    assert np.all(draws @ UP > math.cos(0.15))
    parameters = mixture("narrow")
    draw = lambda key: densities.sample_radius_tempered(
        key, parameters, LOW, HIGH, 1e-3
    )
    radii = jax.vmap(draw)(jax.random.split(jax.random.key(6), 50))
    np.testing.assert_allclose(radii, 1.09, atol=1e-3)


def test_settling_keeps_the_weights_of_modes_and_narrows_them():
    coefficients = two_modes()
    points = midpoints()
    mass = np.exp(np.asarray(all_logits(coefficients, points), np.float64))
    nearer = lambda x: x @ UP > -x[:, 1]
    weight = mass[nearer(points)].sum() / mass.sum()

    def draw(key):
        key_start, key_settle = jax.random.split(key)
        start = densities.sample_coarse(key_start, coefficients, GRID)
        end = densities.settle_coarse(key_settle, coefficients, start, 0.1, 32, 0.1)
        return start, end

    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(7), 20_000))
    start, end = map(np.asarray, draws)
    assert nearer(start).mean() == pytest.approx(weight, abs=0.012)
    assert nearer(end).mean() == pytest.approx(weight, abs=0.02)
    peak = nearer(start) & (start @ UP > math.cos(0.6))
    deviation = lambda x: np.mean(1 - x[peak] @ UP)
    assert deviation(end) < 0.3 * deviation(start)


def test_low_temperature_weighs_peaks_by_their_tempered_mass():
    """Peaks narrower than a cell of the grid: one sharp and high, the other neither."""
    temperature = 0.15
    axes = np.array([[0.0, 1.0, 0.0], [0.6, -0.8, 0.0]], np.float32)
    sharp, blunt = (zonal(a, w) for a, w in zip(axes, (SHARP, BLUNT), strict=True))
    coefficients = jnp.asarray(np.stack([sharp, blunt], axis=1))
    fine = sphere_grid(200, 399, MAX_DEGREE)
    each = jnp.asarray(fine.harmonics) @ coefficients / temperature
    masses = jax.nn.logsumexp(each + jnp.asarray(fine.log_weights)[:, None], axis=0)
    coefficients = coefficients.at[0].add(-temperature * masses)

    @jax.jit
    @jax.vmap
    def draw(key):
        return densities.sample_coarse(key, coefficients, GRID, temperature, 64)

    draws = np.asarray(draw(jax.random.split(jax.random.key(1), 4_000)))
    near = draws @ axes.T > 0.8
    assert np.all(near.sum(axis=1) == 1)
    assert np.mean(near[:, 0]) == pytest.approx(0.5, abs=0.03)


def tangent_quadrature(axis):
    """Directions around an axis with the solid angle of each."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    theta = (nodes + 1) * np.pi / 2
    phi = np.arange(64) * 2 * np.pi / 64
    frame = np.linalg.svd(axis[None])[2]
    sine, cosine = np.sin(theta)[:, None], np.cos(theta)[:, None]
    local = [sine * np.cos(phi), sine * np.sin(phi), cosine + 0 * phi]
    basis = (frame[1], frame[2], axis)
    points = sum(x[..., None] * e for x, e in zip(local, basis, strict=True))
    area = (weights * np.pi / 2 * np.sin(theta))[:, None] * (2 * np.pi / 64)
    return points.reshape(-1, 3).astype(np.float32), (area + 0 * phi).ravel()


@pytest.mark.parametrize("degrees", [0.5, 2.0, 5.0])
def test_fine_density_integrates_to_one(degrees):
    axis = np.array([2.0, -1.0, 2.0]) / 3.0
    origin = jnp.asarray(axis, jnp.float32)
    across = jax.vmap(densities.tangent_part, (None, 0))(
        origin, jnp.array([[0.0, 0.02, 0.01], [0.1, 0.0, -0.05]])
    )
    scale = math.radians(degrees)
    squeezes = densities.tangent_part(origin, jnp.array([[0.0] * 3, [1.0, -2.0, 0.5]]))
    parameters = FineMixture(
        jnp.array([0.0, 0.7]), across, jnp.array([scale, 0.1]), squeezes, origin
    )
    if degrees < 2.0:
        parameters = parameters._replace(means=0.0 * across)
    points, areas = tangent_quadrature(axis)
    log_density = jax.vmap(densities.fine_log_density, (None, 0))(
        parameters, jnp.asarray(points)
    )
    total = np.sum(np.exp(np.asarray(log_density, np.float64)) * areas)
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("degrees", [1.0, 5.0])
def test_blur_integrates_to_one_and_draws_from_its_density(degrees):
    axis, scale = np.array([0.6, 0.0, 0.8]), math.radians(degrees)
    points, areas = tangent_quadrature(axis)
    origin = jnp.asarray(axis, jnp.float32)
    log_density = jax.vmap(densities.blur_log_density, (None, 0, None))(
        origin, jnp.asarray(points), scale
    )
    total = np.sum(np.exp(np.asarray(log_density, np.float64)) * areas)
    assert total == pytest.approx(1.0, abs=1e-3)
    many = jnp.broadcast_to(origin, (5_000, 3))
    draws = densities.blur(jax.random.key(8), many, scale)
    tangents = np.asarray(densities.logarithmic_map(many, draws), np.float64)
    assert np.abs(tangents @ axis).max() < 1e-5
    assert stats.kstest((tangents**2).sum(-1) / scale**2, "chi2", (2,)).pvalue > 1e-3


def test_fine_directions_follow_their_density():
    scale = math.radians(3.0)
    mean = jnp.array([0.05, -0.02, 0.0])
    squeeze = jnp.array([3.0, 4.0, 0.0])
    parameters = FineMixture(
        jnp.array([0.0, -30.0]),
        jnp.stack([mean, -mean]),
        jnp.array([scale, 0.1]),
        jnp.stack([squeeze, 0.0 * squeeze]),
        jnp.asarray(UP),
    )
    draw = lambda key: densities.sample_fine(key, parameters)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(9), 5_000))
    many = jnp.broadcast_to(jnp.asarray(UP), draws.shape)
    tangents = densities.logarithmic_map(many, draws)
    offsets = np.asarray(tangents - mean, np.float64) / scale
    squared = np.sum(offsets**2, axis=-1) + (offsets @ np.asarray(squeeze)) ** 2
    assert stats.kstest(squared, "chi2", (2,)).pvalue > 1e-3


def test_maps_to_and_from_the_tangent_plane_are_inverse():
    rng = np.random.default_rng(2)
    axes = rng.normal(size=(50, 3))
    axes = jnp.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True), jnp.float32)
    tangents = densities.tangent_part(axes, jnp.asarray(0.5 * rng.normal(size=(50, 3))))
    ends = densities.exponential_map(axes, tangents)
    np.testing.assert_allclose(
        densities.logarithmic_map(axes, ends), tangents, atol=1e-4
    )
    zero = jnp.zeros(3)
    gradient = jax.grad(
        lambda x: densities.logarithmic_map(
            axes[0], densities.exponential_map(axes[0], x)
        )[0]
    )(zero)
    assert np.all(np.isfinite(gradient))


def test_importance_sampling_approaches_the_integral_over_coarse_directions():
    """Fine means depend on the coarse direction, so the integral has no short form."""
    rng = np.random.default_rng(3)
    coefficients = capped(2.0 * rng.normal(size=(36, 2)).astype(np.float32), 30.0)
    truth, width = jnp.array([0.6, 0.0, 0.8]), math.radians(5.0)

    @jax.jit
    @jax.vmap
    def log_joint(coarse):
        pull = densities.tangent_part(coarse, jnp.array([0.0, 0.1, 0.05]))
        squeeze = densities.tangent_part(coarse, jnp.array([1.0, -0.5, 0.0]))
        parameters = FineMixture(
            jnp.zeros(1), pull[None], jnp.array([0.7 * width]), squeeze[None], coarse
        )
        log_fine = densities.fine_log_density(parameters, truth)
        log_coarse = densities.coarse_logits(coefficients, coarse)
        return log_coarse - densities.log_normaliser(coefficients, GRID) + log_fine

    points, areas = tangent_quadrature(np.asarray(truth, np.float64))
    exact = np.log(np.sum(np.exp(np.asarray(log_joint(jnp.asarray(points)))) * areas))
    many = jnp.broadcast_to(truth, (40_000, 3))
    draws = densities.blur(jax.random.key(10), many, width)
    log_weights = log_joint(draws) - densities.blur_log_density(many, draws, width)
    estimate = float(jax.nn.logsumexp(log_weights)) - math.log(len(log_weights))
    assert estimate == pytest.approx(exact, abs=0.03)
    assert float(jnp.mean(log_weights)) < exact
