"""Tests of the geometry that the gate asks for, and of what it does to a rollout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equijump import rejection, rollout
from equijump.data.frames import read_structures
from tests.equijump.test_data_topology import tripeptide


@pytest.fixture(scope="module")
def plan(loaded):
    molecule = loaded.molecules["ala2"]
    starts = molecule.starts[:2]
    return rollout.Plan(
        molecule.system, starts, {"lag": 10.0}, 0, chunk=40, max_redraws=10
    )


@pytest.fixture(scope="module")
def judged(plan):
    """Says whether a changed start passes the gate."""
    graph = rejection.graph_of(plan.system)
    start = jnp.asarray(plan.starts[0])
    reference = rejection.reference_of(graph, start)
    return start, lambda atoms: bool(
        rejection.is_intact(graph, reference, rejection.GATE, jnp.asarray(atoms))
    )


def index(plan, residue, name):
    slots = plan.system.slot_atoms[residue].tolist()
    return next(i for i in slots if i >= 0 and plan.system.atom_names[i] == name)


def test_a_start_passes_turned_and_moved(judged):
    start, passes = judged
    turn = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert passes(start)
    assert passes(start @ turn.T + 7.0)


def test_a_mirror_image_does_not_pass(judged):
    start, passes = judged
    assert not passes(start * jnp.array([1.0, 1.0, -1.0]))


@pytest.mark.parametrize(("factor", "expected"), [(1.2, True), (1.3, False)])
def test_a_stretched_bond_does_not_pass(factor, expected, judged, plan):
    start, passes = judged
    alpha, beta = index(plan, 1, "CA"), index(plan, 1, "CB")
    moved = start[alpha] + factor * (start[beta] - start[alpha])
    assert passes(start.at[beta].set(moved)) == expected


def test_frames_that_are_not_finite_do_not_pass(judged):
    start, passes = judged
    assert not passes(start.at[0, 0].set(jnp.nan))


def test_a_padded_graph_asks_the_same(plan):
    graph = rejection.graph_of(plan.system)
    sizes = rejection.Sizes(*(1 + 2 * size for size in rejection.sizes_of(graph)))
    padded = rejection.padded(graph, sizes)
    assert rejection.sizes_of(padded) == sizes
    start = np.asarray(plan.starts[0])
    grown = lambda atoms: jnp.pad(atoms, ((0, sizes.atoms - len(atoms)), (0, 0)))
    reference = rejection.reference_of(padded, grown(start))
    passes = lambda atoms: bool(
        rejection.is_intact(padded, reference, rejection.GATE, grown(atoms))
    )
    assert passes(start)
    assert not passes(-start)
    for bond in plan.system.bonds:
        moved = start.copy()
        moved[bond[1]] += 0.3 * (start[bond[1]] - start[bond[0]])
        assert not passes(moved)
    clash = start.copy()
    first, last = index(plan, 0, "CH3"), index(plan, 2, "C")
    clash[first] = clash[last]
    assert not passes(clash)


def test_only_atoms_more_than_three_bonds_apart_are_distant(plan):
    graph = rejection.graph_of(plan.system)
    alpha, cap = index(plan, 1, "CA"), index(plan, 0, "CH3")
    assert not graph.is_far[alpha, cap]  # CH3-C-N-CA
    assert graph.is_far[index(plan, 1, "CB"), cap]
    np.testing.assert_array_equal(graph.is_far, graph.is_far.T)


@pytest.mark.parametrize(
    ("name", "num_centres"),
    [("GLY", 0), ("ALA", 1), ("THR", 2), ("ILE", 2), ("VAL", 1)],
)
def test_centres_with_a_hand_are_found(name, num_centres, tmp_path):
    path = tmp_path / "peptide.pdb"
    path.write_text(tripeptide(name))
    system, positions = read_structures(path, None, at_most=1)
    graph = rejection.graph_of(system)
    assert len(graph.centres) == num_centres
    hands = rejection.reference_of(graph, jnp.asarray(positions[0])).chirality
    # N, C and CB run clockwise seen from the side of HA, in every L amino acid.
    np.testing.assert_array_equal(np.unique(hands[:1]), [1.0][: min(num_centres, 1)])


@functools.cache
def corrupting(share):
    """Shakes, and with some probability mirrors the molecule or stretches it."""

    def jump(params, cloud, chain, key):
        noise, which, how = jax.random.split(key, 3)
        mask = chain.slot_mask[..., None]
        moved = cloud + 0.01 * jax.random.normal(noise, cloud.shape) * mask
        bad = jnp.where(jax.random.bernoulli(how), -1.0, 1.6)
        return jnp.where(jax.random.uniform(which) < share, bad * moved, moved)

    return jump


@pytest.mark.parametrize(("share", "low", "high"), [(0.5, 0.4, 0.6), (0.0, 0.95, 1.0)])
def test_the_gate_keeps_the_geometry(share, low, high, plan):
    state = rollout.begin(plan).state
    (chunk,) = rollout.rollout(corrupting(share), None, plan, state, 0, 40)
    graph = rejection.graph_of(plan.system)
    for replica, start in enumerate(plan.starts):
        reference = rejection.reference_of(graph, jnp.asarray(start))
        check = lambda x, r=reference: rejection.is_intact(graph, r, rejection.GATE, x)
        assert bool(jax.vmap(check)(chunk.frames[:, replica]).all())
    acceptance = np.sum(chunk.state.num_accepted) / np.sum(chunk.state.num_draws)
    assert low <= acceptance <= high
    assert not np.any(chunk.state.broken_at)


def test_without_the_gate_the_same_jumps_break_it(plan):
    plan = plan._replace(max_redraws=None)
    state = rollout.begin(plan).state
    (chunk,) = rollout.rollout(corrupting(0.5), None, plan, state, 0, 40)
    assert np.all(chunk.state.broken_at > 0)


def test_a_replica_stays_where_no_draw_passes(plan):
    plan = plan._replace(max_redraws=2)
    first = rollout.begin(plan)
    (chunk,) = rollout.rollout(corrupting(1.0), None, plan, first.state, 0, 3)
    np.testing.assert_array_equal(chunk.frames, np.tile(first.frames, (3, 1, 1, 1)))
    np.testing.assert_array_equal(chunk.state.num_draws, 9)
    np.testing.assert_array_equal(chunk.state.num_accepted, 0)


def test_a_gate_that_lets_all_pass_changes_nothing(plan):
    state = rollout.begin(plan).state
    gated, free = (
        next(rollout.rollout(corrupting(0.0), None, p, state, 0, 40)).frames
        for p in (plan, plan._replace(max_redraws=None))
    )
    np.testing.assert_array_equal(gated, free)
