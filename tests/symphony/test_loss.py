"""The loss in cases solved by hand, its decomposition, and where it has no meaning."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import logsumexp

from symphony import build, data, loss
from tests.symphony import small
from tests.symphony.small import NOISE, chain, cut_of, model_and_params

NUM_ATOMS = 5


@pytest.fixture(scope="module")
def evaluate():
    """The causal loss with its gradients, coarse directions displaced by `NOISE`."""
    return small.value_and_gradients(model_and_params()[0])


def with_zero(params, *names):
    """Sets weights and biases of some layers to zero."""
    layers = dict(params["params"])
    for name in names:
        layers[name] = jax.tree.map(jnp.zeros_like, layers[name])
    return {"params": layers}


def test_terms_add_up(evaluate):
    drawn = cut_of(*chain(3, 5), NUM_ATOMS)
    (nll, terms), _ = evaluate(model_and_params()[1], drawn)
    sums = loss.totals(terms)
    names = ("focus", "radial", "coarse", "fine")
    for name in names:
        assert float(sums[name]) == pytest.approx(float(getattr(terms, name).sum()))
    total = terms.first + sum(sums[name] for name in names)
    assert float(nll) == pytest.approx(float(total), rel=1e-5)
    assert float(sums["num_steps"]) == 5
    assert terms.place_mask.tolist() == [True] * 4 + [False]
    first = model_and_params()[1]["params"]["first_species"]
    expected = -jax.nn.log_softmax(first)[drawn.species[0]]
    assert float(terms.first) == pytest.approx(float(expected), abs=1e-5)


def test_without_evidence_every_choice_and_stopping_are_alike(evaluate):
    """Five species at each of t + 1 atoms, and the stop."""
    params = with_zero(model_and_params()[1], "focus_logits", "stop_logit")
    (_, terms), _ = evaluate(params, cut_of(*chain(3, 5), NUM_ATOMS))
    expected = [math.log(5 * (t + 1) + 1) for t in range(5)]
    np.testing.assert_allclose(terms.focus, expected, atol=1e-5)


def test_around_a_single_atom_no_coarse_direction_is_preferred(evaluate):
    for seed in range(3):
        drawn = cut_of(*chain(seed, 5), NUM_ATOMS)
        (_, terms), _ = evaluate(model_and_params()[1], drawn)
        assert float(terms.coarse[0]) == pytest.approx(math.log(4 * math.pi), abs=1e-4)
        assert abs(float(terms.coarse[3]) - math.log(4 * math.pi)) > 1e-3


def test_radial_term_is_that_of_truncated_logistics(evaluate):
    """With no output of the head: equal weights, even spacing, scale 0.052 Å."""
    model, params = model_and_params()
    drawn = cut_of(*chain(3, 5), NUM_ATOMS)
    (_, terms), _ = evaluate(with_zero(params, "radial_outputs"), drawn)
    low, high = model.min_radius, model.max_radius
    means = low + np.linspace(0.05, 0.95, model.num_radial_components) * (high - low)
    laws = stats.logistic(means, 0.052)
    mass = laws.cdf(high) - laws.cdf(low)
    focus = np.asarray(drawn.focus)[:4]
    radii = np.linalg.norm(drawn.positions[1:5] - drawn.positions[focus], axis=1)
    expected = [-np.log(np.mean(laws.pdf(radius) / mass)) for radius in radii]
    np.testing.assert_allclose(terms.radial[:4], expected, atol=1e-3)
    assert float(terms.radial[4]) == 0.0


def test_fine_term_is_the_ratio_of_two_gaussians(evaluate):
    """With no output of the head the means vanish, and the scales are the constants."""
    model, params = model_and_params()
    drawn = cut_of(*chain(3, 5), NUM_ATOMS)
    (_, terms), _ = evaluate(
        with_zero(params, "fine_outputs", "fine_probe", "approaches_0"), drawn
    )
    focus = np.asarray(drawn.focus)[:4]
    vectors = np.asarray(drawn.positions[1:5] - drawn.positions[focus], np.float64)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    along = np.sum(NOISE[:4] * directions, axis=1, keepdims=True)
    angle = model.blur * np.linalg.norm(NOISE[:4] - along * directions, axis=1)

    def log_gaussian(scale):
        return -0.5 * (angle / scale) ** 2 - np.log(2 * np.pi * scale**2)

    factors = np.exp(-0.7 * np.arange(model.num_fine_components))
    each = [log_gaussian(0.001 + model.blur * factor) for factor in factors]
    log_fine = logsumexp(each, axis=0) - np.log(len(factors))
    expected = log_gaussian(model.blur) - log_fine
    np.testing.assert_allclose(terms.fine[:4], expected, atol=5e-3)


def test_a_molecule_without_a_complete_order_counts_for_nothing(evaluate):
    positions, species = chain(3, 5)
    positions[4] += 20.0
    drawn = cut_of(positions, species, NUM_ATOMS)
    (nll, terms), gradients = evaluate(model_and_params()[1], drawn)
    assert not bool(drawn.complete)
    assert float(nll) == pytest.approx(float(terms.first))
    assert not terms.step_mask.any()
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


CYCLOPROPANE = np.array(
    [
        [0.870, 0.000, 0.000],
        [-0.435, 0.753, 0.000],
        [-0.435, -0.753, 0.000],
        [1.457, 0.000, 0.911],
        [1.457, 0.000, -0.911],
        [-0.729, 1.262, 0.911],
        [-0.729, 1.262, -0.911],
        [-0.729, -1.262, 0.911],
        [-0.729, -1.262, -0.911],
    ],
    np.float32,
)


def angular_nll(head_max_degree, num_steps=400):
    """Trains on cyclopropane alone; returns nats per placed atom, at the end."""
    config = small.make_config()
    config.data.heavy_first = True
    config.data.noise_std = 0.0
    config.model.num_channels = 16
    config.model.head_max_degree = head_max_degree
    config.model.head_channels = 1
    config.model.max_curvature = 100.0
    config.model.res_beta, config.model.res_alpha = 20, 39
    species = np.array([1] * 3 + [0] * 6, np.int32)
    one = data.Batch(CYCLOPROPANE, species, np.ones(9, bool), {})
    batch = jax.tree.map(lambda x: jnp.stack([x] * 8), one)
    loss_fn = build.make_loss(config, 9.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, num_steps))

    @jax.jit
    def update(params, state, key):
        keys = jax.random.split(key, 8)
        gradient = jax.grad(loss_fn, has_aux=True)
        gradient, totals = gradient(params, batch, keys)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, totals

    params = build.init_params(config, jax.random.key(0))
    state, angular = optimizer.init(params), []
    for step in range(num_steps):
        params, state, totals = update(params, state, jax.random.key(step))
        angular.append(float(totals["coarse"] + totals["fine"]) / 8)
    return np.mean(angular[-50:])


@pytest.mark.slow
def test_higher_degrees_of_the_head_are_used_on_rings():
    assert angular_nll(3) < angular_nll(1) - 0.5
