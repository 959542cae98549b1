"""The network's symmetries, what it may see, and its indifference to padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ortho_group

from common.nn.blocks.messages import edge_feats
from common.nn.conditions import known
from common.nn.features import from_scalars
from symphony import build
from symphony.model import Surroundings
from tests.symphony import small
from tests.symphony.small import NUM_NODES, chain, cut_of, model_and_params

UP = np.array([0.0, 0.0, 1.0], np.float32)


def orthogonal_matrices(count):
    """Rotations and reflections, both certainly among them."""
    matrices = ortho_group.rvs(3, size=count, random_state=0).astype(np.float32)
    signs = np.linalg.det(matrices)
    assert signs.min() < 0 < signs.max()
    return matrices


def outputs(model, params, drawn, step, direction=UP):
    """What the network says at one step, for a focus, a species and a radius."""
    num_nodes = drawn.species.shape[0]
    bound = model.bind(params)
    placed = ((jnp.arange(num_nodes) <= step) & drawn.node_mask)[None]
    node_feats, next_atom = bound.embed_steps(
        drawn.species, drawn.positions, drawn.node_mask, placed, small.NO_NOISE
    )
    focus = drawn.focus[step][None]
    condition = bound.position_condition(node_feats, next_atom, focus, jnp.array([1]))
    around = Surroundings(node_feats, drawn.positions, focus, placed)
    radius = jnp.array([1.4])
    return {
        "stop": next_atom.stop[0],
        "focus_species": next_atom.focus_species[0],
        "radial": bound.radial(condition),
        "coarse": bound.coarse(condition, radius, around),
        "fine": bound.fine(condition, radius, jnp.asarray(direction)[None], around),
    }


def outputs_of_many(drawn, steps, directions):
    model, params = model_and_params()
    return _outputs_of_many(model, params, drawn, steps, directions)


@functools.partial(jax.jit, static_argnums=0)
def _outputs_of_many(model, params, drawn, steps, directions):
    one = functools.partial(outputs, model, params)
    return jax.vmap(one)(drawn, steps, directions)


def stacked(cuts):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cuts)


def largest_difference(a, b):
    leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in (a, b))
    pairs = zip(*leaves, strict=True)
    finite = [(x[np.isfinite(x)], y[np.isfinite(x)]) for x, y in pairs]
    return max(float(np.max(np.abs(x - y), initial=0.0)) for x, y in finite)


def test_terms_ignore_rotation_reflection_and_translation():
    model, params = model_and_params()
    drawn = cut_of(*chain(0, 5), NUM_NODES)

    @jax.jit
    @jax.vmap
    def terms_and_logits(rotation, shift):
        moved = drawn._replace(positions=drawn.positions @ rotation.T + shift)
        terms = small.step_terms(model, params, moved, rotation, 0.03)
        result = outputs(model, params, moved, 2)
        return terms, result["stop"], result["focus_species"]

    rotations = np.concatenate([np.eye(3)[None], orthogonal_matrices(20)])
    shifts = np.random.default_rng(1).normal(size=(21, 3)) * 3.0
    results = terms_and_logits(jnp.asarray(rotations, jnp.float32), jnp.asarray(shifts))
    assert results[0].forecast is None  # No properties.
    for name, leaf in results[0]._replace(forecast=results[0].first)._asdict().items():
        np.testing.assert_allclose(
            leaf[1:], leaf[:1].repeat(20, 0), rtol=1e-5, atol=1e-3
        )
        assert np.any(leaf != 0), name
    for logits in results[1:]:
        np.testing.assert_allclose(logits[1:], logits[:1].repeat(20, 0), atol=2e-4)


def test_a_causal_step_is_the_same_whatever_comes_later():
    drawn = cut_of(*chain(2, 6), NUM_NODES)
    present = np.arange(NUM_NODES) <= np.arange(NUM_NODES)[:, None]
    fragments = [
        drawn._replace(
            positions=jnp.where(mask[:, None], drawn.positions, 0.0),
            species=jnp.where(mask, drawn.species, 0),
            node_mask=jnp.asarray(mask),
        )
        for mask in present
    ]
    steps, directions = jnp.arange(NUM_NODES), jnp.stack([UP] * NUM_NODES)
    whole = outputs_of_many(stacked([drawn] * NUM_NODES), steps, directions)
    cut_off = outputs_of_many(stacked(fragments), steps, directions)
    assert largest_difference(whole, cut_off) <= 1e-6
    # What is already there does count.
    moved = drawn._replace(positions=drawn.positions.at[0].add(0.1))
    other = outputs_of_many(stacked([moved] * NUM_NODES), steps, directions)
    assert np.all(np.abs(whole["stop"] - other["stop"])[1:] > 1e-5)


def test_padding_changes_nothing_and_receives_no_gradient():
    model, params = model_and_params()
    drawn = cut_of(*chain(3, 5), 5)
    function = small.value_and_gradients(model)
    (value, terms), (by_params, by_positions) = function(params, drawn)
    padded = small.pad_cut(drawn, 8, filler=0.7)
    (value_8, terms_8), (by_params_8, by_positions_8) = function(params, padded)
    np.testing.assert_allclose(value_8, value, rtol=1e-5)
    for name in ("focus", "radial", "coarse", "fine"):
        large, tight = getattr(terms_8, name), getattr(terms, name)
        np.testing.assert_allclose(large[:5], tight, rtol=1e-5, atol=2e-5, err_msg=name)
        assert np.all(large[5:] == 0)
    assert np.all(np.asarray(by_positions_8[5:]) == 0)
    np.testing.assert_allclose(by_positions_8[:5], by_positions, rtol=1e-3, atol=1e-3)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(by_params))
    assert largest_difference(by_params, by_params_8) < 1e-4 * scale


DEGENERATE = {
    "one atom": ([[0, 0, 0]], [3]),
    "two atoms": ([[0, 0, 0], [0, 0, 0.96]], [3, 0]),
    "along x": ([[-1.16, 0, 0], [0, 0, 0], [1.16, 0, 0]], [3, 1, 3]),
    "along the axis of the grid": (
        [[0, -1.66, 0], [0, -0.6, 0], [0, 0.6, 0], [0, 1.66, 0]],
        [0, 1, 1, 0],
    ),
}


def test_degenerate_molecules_have_finite_values_and_gradients():
    model, params = model_and_params()
    cuts = [
        cut_of(np.array(positions, np.float32), np.array(species), 4)
        for positions, species in DEGENERATE.values()
    ]
    function = jax.vmap(small.value_and_gradients(model), (None, 0))
    results = function(params, stacked(cuts))
    for index, name in enumerate(DEGENERATE):
        for leaf in jax.tree.leaves(results):
            assert np.all(np.isfinite(leaf[index])), name


def test_probabilities_of_stop_focus_and_species_cover_placed_atoms_only():
    drawn = cut_of(*chain(4, 5), NUM_NODES)
    many = stacked([drawn] * 3)
    results = outputs_of_many(many, jnp.array([0, 2, 4]), jnp.stack([UP] * 3))
    finite = np.isfinite(results["focus_species"]).all(axis=-1)
    assert finite.sum(axis=-1).tolist() == [1, 3, 5]
    assert np.all(np.diff(finite.astype(int), axis=-1) <= 0)


def test_parity_of_the_electrons_is_told_and_that_of_atoms_to_come_is_not():
    model, params = model_and_params()
    drawn = cut_of(*chain(4, 5), NUM_NODES)
    others = drawn.node_mask[:, None] & drawn.node_mask
    others &= ~jnp.eye(NUM_NODES, dtype=bool)
    placed = (np.arange(NUM_NODES) <= np.array([[2], [4]])) & drawn.node_mask
    rng = np.random.default_rng(1)
    scalars = rng.normal(size=(NUM_NODES, model.num_channels)).astype(np.float32)
    messages = rng.normal(size=(2, NUM_NODES, 2 * model.num_channels))

    @jax.jit
    def stop(species):
        bound = model.bind(params)
        graph = bound.graph(drawn.positions, drawn.positions, others)
        arrays = from_scalars(jnp.asarray(scalars)), jnp.asarray(messages, jnp.float32)
        arrays = drawn.positions, *arrays, placed
        exchange = bound.exchange_weights(edge_feats(graph))
        return bound.next_atom(species, *arrays, exchange, small.NO_NOISE).stop

    carbon, nitrogen = 1, 2  # Six electrons, and seven.
    even = jnp.full(NUM_NODES, carbon)
    of_even = stop(even)
    one_early = stop(even.at[1].set(nitrogen))
    one_late = stop(even.at[4].set(nitrogen))
    two = stop(even.at[0].set(nitrogen).at[4].set(nitrogen))
    assert np.all(np.abs(one_early - of_even) > 1e-4)
    np.testing.assert_allclose(one_late, [of_even[0], one_early[1]], atol=1e-6)
    np.testing.assert_allclose(two, [one_early[0], of_even[1]], atol=1e-6)


def test_a_network_of_few_neighbours_is_that_of_all_where_no_more_are_in_reach():
    model, params = model_and_params()
    line = np.zeros((12, 3), np.float32)
    line[:, 0] = 1.3 * np.arange(12)
    drawn = cut_of(line, np.arange(12) % 5, 12)
    reach = {"cutoff": 2.7}  # Four atoms, or five of a point between two.
    terms_of = jax.jit(small.step_terms, static_argnums=0)
    terms = [
        terms_of(model.clone(num_neighbors=count, **reach), params, drawn)
        for count in (0, 5, 1)
    ]
    every, few, fewer = ((x.focus, x.radial, x.coarse, x.fine) for x in terms)
    assert largest_difference(every, few) < 1e-5
    assert largest_difference(every, fewer) > 1e-3


def test_an_odd_charge_turns_the_parity_of_the_electrons():
    config = small.make_config()
    config.model.conditions = ("noise_std", "charge")
    model = build.make_model(config)
    params = build.init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    # What is left of the charge is its parity.
    embedding = params["params"]["embed_conditions"]["charge"]
    embedding.update(jax.tree.map(jnp.zeros_like, embedding))
    drawn = cut_of(*chain(4, 5), NUM_NODES)
    placed = (jnp.arange(NUM_NODES) <= 3)[None] & drawn.node_mask

    @jax.jit
    @jax.vmap
    def stop(charge, species):
        conditions = {**small.NO_NOISE, **known({"charge": charge})}
        arrays = species, drawn.positions, drawn.node_mask, placed, conditions
        return model.bind(params).embed_steps(*arrays)[1].stop[0]

    charges = jnp.array([0.0, 1.0, -1.0, 2.0])
    neutral, cation, anion, twice = stop(charges, jnp.stack([drawn.species] * 4))
    assert abs(cation - neutral) > 1e-4
    np.testing.assert_allclose([anion, twice], [cation, neutral], atol=1e-6)
