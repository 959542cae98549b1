"""The published model: its constants, symmetries, density and draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.stats import ortho_group

from common.so3.grid import sphere_grid
from common.so3.harmonics import spherical_harmonics
from configs.symphony import qm9_paper, solids
from symphony import build, densities
from symphony.generate import generate
from symphony.kinds.paper import decisions
from symphony.kinds.paper import loss as paper_loss
from symphony.kinds.paper.model import JointDensity, PaperSymphony
from symphony.slots import Fragment, Settings, Start
from tests.symphony import small

ENTROPY = -3.3575  # Nats, of the angular target at inverse temperature 20, degree 5.
LOG_SPHERE = math.log(4.0 * math.pi)


def make_config():
    config = solids.get_config()
    config.data.species = (1, 6, 7, 8, 9)
    config.model.update(factorised=False, num_radii=5, min_radius=0.9, max_radius=1.7)
    config.model.update(focus_channels=4, focus_filters=4, focus_layers=2)
    config.model.update(position_channels=4, position_max_degree=3)
    config.model.update(target_max_degree=3, target_inverse_temperature=5.0)
    config.model.update(head_channels=2, res_beta=16, res_alpha=31)
    return config


@functools.cache
def model_and_params():
    config = make_config()
    params = build.init_params(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    moved = [x + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return build.make_model(config), jax.tree.unflatten(tree, moved)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(model, function, params, *arguments):
    return function(model.bind(params), *arguments)


def run(function, *arguments):
    """Applies a function of the small model, bound to its parameters, compiled."""
    model, params = model_and_params()
    return _run(model, function, params, *arguments)


def one_step(model: PaperSymphony, species, positions, placed, focus, directions):
    """Logits of focus and species, and of the density at directions on every shell."""
    pairs = model.pairs(positions, placed)
    logits = model.focus_species(species, positions, placed, pairs)
    density = model.density(model.focus_feats(species, pairs, focus), species[0])
    at = jax.vmap(densities.coarse_logits, (0, None))
    values = jax.vmap(at, (None, 0))(density.signals, directions)
    return logits, density.radial + values


def test_size_is_that_of_the_published_model():
    config = qm9_paper.get_config()
    shapes = jax.eval_shape(
        functools.partial(build.init_params, config), jax.random.key(0)
    )
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    assert sum(sizes) == 2_223_365
    signals = [leaf.shape for leaf in shapes["params"]["signal_linear"].values()]
    assert signals == 6 * [(64, 64 * 2)]


def test_target_has_the_published_peak_entropy_and_curvature():
    grid = sphere_grid(90, 179, 5)
    direction = np.array([0.48, -0.6, 0.64], np.float32)
    log_density = paper_loss.target_log_density(jnp.asarray(direction), grid, 20.0)
    weights = np.exp(np.asarray(log_density, np.float64) + grid.log_weights)
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    # Negative entropy: the divergence of a lone atom is log 4 pi less the entropy.
    assert np.sum(weights * log_density) == pytest.approx(-ENTROPY, abs=1e-3)

    def logit(angle):
        tilted = jnp.array([jnp.sin(angle), jnp.cos(angle), 0.0])
        at = spherical_harmonics(tilted, 5)
        up = spherical_harmonics(jnp.array([0.0, 1.0, 0.0]), 5)
        return 20.0 * jnp.vdot(at, up) / (4.0 * jnp.pi)

    assert float(logit(0.0)) == pytest.approx(57.30, abs=5e-3)
    step = 0.01
    bend = (logit(step) + logit(-step) - 2 * logit(0.0)) / step**2
    assert -float(bend) == pytest.approx(501.0, rel=5e-3)


def test_divergence_of_a_uniform_density_is_the_floor_of_a_lone_atom():
    model = build.make_model(qm9_paper.get_config())
    vector = jnp.array([0.9, 0.7, -0.5])
    squared = (jnp.asarray(model.radii) - jnp.linalg.norm(vector)) ** 2
    radial = -squared / (2 * model.radial_variance)
    signals = jnp.zeros((model.num_radii, 36, 2))
    density = JointDensity(radial, signals)
    found = jax.jit(paper_loss.position_divergence, static_argnums=0)
    # The grid of the paper gives 5.8856.
    assert float(found(model, density, vector)) == pytest.approx(5.8885, abs=4e-3)
    # The same shells elsewhere cost more, and nothing costs less than the target.
    moved = density._replace(radial=jnp.roll(radial, 1))
    assert float(found(model, moved, vector)) > 6.5
    at_target = spherical_harmonics(vector / jnp.linalg.norm(vector), 5)
    aimed = jnp.zeros_like(signals).at[:, :, 0].set(20.0 / (4 * jnp.pi) * at_target)
    aimed = aimed.at[:, 0, 1].set(-1e3)
    exact = density._replace(signals=aimed)
    assert float(found(model, exact, vector)) == pytest.approx(0.0, abs=1e-3)


def test_divergence_of_the_focus_vanishes_at_the_shares_alone():
    shares = jnp.array([[0.5, 0.0], [0.2, 0.3]])
    placed = jnp.log(jnp.maximum(shares, 1e-12))
    no, yes = jnp.array(False), jnp.array(True)
    # The logit of stopping is 0, so logits far above it leave stopping nothing.
    good = paper_loss.focus_divergence(placed + 30.0, shares, no)
    assert float(good) == pytest.approx(0.0, abs=1e-5)
    even = paper_loss.focus_divergence(jnp.full((2, 2), 30.0), shares, no)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.2, 0.3))
    assert float(even) == pytest.approx(math.log(4.0) - entropy, abs=1e-5)
    stop = paper_loss.focus_divergence(jnp.zeros((2, 2)), shares, yes)
    assert float(stop) == pytest.approx(math.log(5.0), abs=1e-6)


def test_outputs_turn_with_the_fragment_and_ignore_padding_and_order():
    positions, species = small.chain(3, 5)
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(7, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def outputs(positions, species, focus, directions, num_nodes=5):
        missing = num_nodes - len(species)
        return run(
            one_step,
            jnp.asarray(np.pad(species, (0, missing))),
            jnp.asarray(np.pad(positions, [(0, missing), (0, 0)]), jnp.float32),
            jnp.arange(num_nodes) < len(species),
            jnp.asarray(focus),
            jnp.asarray(directions, jnp.float32),
        )

    logits, density = outputs(positions, species, 2, directions)
    assert np.ptp(density) > 0.05
    for rotation in ortho_group.rvs(3, size=4, random_state=2):
        moved = outputs(
            positions @ rotation.T + 2.0, species, 2, directions @ rotation.T
        )
        np.testing.assert_allclose(moved[0], logits, atol=2e-4)
        np.testing.assert_allclose(moved[1], density, atol=1e-3)
    padded = outputs(positions, species, 2, directions, num_nodes=8)
    np.testing.assert_allclose(padded[0][:5], logits, atol=1e-5)
    np.testing.assert_allclose(padded[1], density, atol=1e-4)
    assert np.all(padded[0][5:] == -np.inf)
    order = np.array([0, 4, 2, 1, 3])
    permuted = outputs(positions[order], species[order], 2, directions)
    np.testing.assert_allclose(permuted[0], logits[order], atol=1e-5)
    np.testing.assert_allclose(permuted[1], density, atol=1e-4)


def test_gradients_are_finite_for_a_lone_atom_and_at_the_stop():
    model, params = model_and_params()

    @jax.jit
    def gradient(params, drawn, step):
        def total(params):
            bound = model.bind(params)
            noise = jnp.zeros_like(drawn.positions)
            terms = paper_loss.step_divergences(bound, drawn, step, noise)
            return terms.focus + terms.position

        return jax.value_and_grad(total)(params)

    for num_atoms, step in ((1, 0), (4, 0), (4, 3)):
        drawn = small.cut_of(*small.chain(4, num_atoms), small.NUM_NODES)
        value, gradients = gradient(params, drawn, jnp.asarray(step))
        assert np.isfinite(value)
        norms = [float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradients)]
        assert np.all(np.isfinite(norms))
        assert max(norms) > 0


def some_density(model):
    """A density whose shells differ; drawn once, it stands for what a network says."""
    rng = np.random.default_rng(7)
    components = (model.position_max_degree + 1) ** 2
    signals = rng.normal(size=(model.num_radii, components, 2))
    return JointDensity(
        jnp.asarray(rng.normal(size=model.num_radii), jnp.float32),
        jnp.asarray(signals, jnp.float32),
    )


def test_density_integrates_to_one_over_space():
    model, _ = model_and_params()
    density = some_density(model)
    grid = sphere_grid(60, 119, 3)
    step = (model.max_radius - model.min_radius) / (model.num_radii - 1)
    nodes, weights = np.polynomial.legendre.leggauss(6)

    @jax.jit
    def total(radius, weight):
        at = functools.partial(paper_loss.position_log_density, model, density)
        logs = jax.vmap(at)(radius * jnp.asarray(grid.points))
        return weight * radius**2 * jnp.sum(jnp.exp(logs + grid.log_weights))

    mass = sum(
        float(total(shell + 0.5 * step * node * 0.999, 0.5 * step * weight))
        for shell in model.radii
        for node, weight in zip(nodes, weights, strict=True)
    )
    assert mass == pytest.approx(1.0, abs=5e-3)
    outside = jnp.array([0.0, model.max_radius + step, 0.0])
    assert paper_loss.position_log_density(model, density, outside) == -jnp.inf


def asked(max_atoms=6, temperature=1.0):
    one = jnp.float32(1.0)
    return Settings(
        one, jnp.float32(temperature), jnp.float32(0.1),
        small.NO_NOISE, jnp.int32(max_atoms),
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_density_and_leave_the_grid(temperature):
    model, _ = model_and_params()
    density = some_density(model)
    mode = "exact" if temperature == 1.0 else "tempered"
    settings = asked(temperature=temperature)

    @jax.jit
    @jax.vmap
    def draw(key):
        return decisions.draw_vector(model, density, key, settings, mode)

    vectors = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    radii = np.linalg.norm(vectors, axis=1)
    assert len(np.unique(radii)) > 19_000
    shells = np.argmin(np.abs(radii[:, None] - model.radii), axis=1)
    logits = densities.grid_logits(density.signals, model.grid) / temperature
    masses = np.exp(np.asarray(logits, np.float64) + model.grid.log_weights)
    masses *= np.exp(np.asarray(density.radial, np.float64) / temperature)[:, None]
    masses /= masses.sum()
    counts = np.bincount(shells, minlength=model.num_radii)
    assert stats.chisquare(counts, masses.sum(1) * len(vectors)).pvalue > 1e-3
    # The mean of every harmonic, shells together, against the quadrature.
    units = jnp.asarray(vectors / radii[:, None], jnp.float32)
    found = np.asarray(spherical_harmonics(units, 3), np.float64)
    expected = masses.sum(0) @ model.grid.harmonics
    errors = (found.mean(0) - expected)[1:] / found.std(0)[1:] * math.sqrt(len(found))
    assert np.abs(errors).max() < 4.5


def test_generation_does_not_depend_on_batch_or_padding():
    model, params = model_and_params()
    decoder = build.KINDS["paper"].decoder
    nothing = Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))

    def molecules(num_slots, capacity):
        finished = generate(
            decoder, model, params, iter(range(4)), 3, asked(), lambda index: nothing,
            mode="exact", num_slots=num_slots, capacity=capacity, steps_per_call=3,
        )  # fmt: skip
        return sorted(finished, key=lambda molecule: molecule.index)

    for one, other in zip(molecules(2, 6), molecules(4, 8), strict=True):
        np.testing.assert_array_equal(one.species, other.species)
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-3)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-2)


def test_a_step_keeps_the_likelihood_of_what_it_draws():
    positions, species = small.chain(5, 3)
    fragment = Fragment(
        jnp.asarray(np.pad(positions, [(0, 3), (0, 0)])),
        jnp.asarray(np.pad(species, (0, 3)), jnp.int32),
        jnp.int32(3),
    )

    def draw(model, fragment, key):
        settings = asked()
        return decisions.decide(model, (), fragment, key, settings, "exact")

    def evaluate(model, fragment, drawn):
        placed = jnp.arange(6) < 3
        pairs = model.pairs(fragment.positions, placed)
        logits = model.focus_species(
            fragment.species, fragment.positions, placed, pairs
        )
        log_total = jnp.logaddexp(jax.nn.logsumexp(logits), 0.0)

        def of_focus(focus):
            feats = model.focus_feats(fragment.species, pairs, focus)
            density = model.density(feats, drawn.species)
            vector = drawn.position - fragment.positions[focus]
            log_density = paper_loss.position_log_density(model, density, vector)
            return logits[focus, drawn.species] - log_total + log_density

        return jax.vmap(of_focus)(jnp.arange(3)), -log_total

    stops = 0
    for seed in range(12):
        drawn = run(draw, fragment, jax.random.key(seed))
        of_focus, stop = run(evaluate, fragment, drawn)
        candidates = np.array([stop]) if drawn.stop else np.asarray(of_focus)
        stops += bool(drawn.stop)
        distance = np.abs(candidates - float(drawn.log_likelihood)).min()
        assert distance < 2e-3
    assert stops < 12
