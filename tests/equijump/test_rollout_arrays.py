"""Tests of the arrays of rollouts and of the gate, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equijump import rejection, rollout
from equijump.jump import chain_of
from tests.equijump.test_data_topology_order import make_system

SYSTEM = make_system(["ACE", "ALA", "NME"], np.random.default_rng(1).permutation(10))


def starts(count=2):
    return np.float32(np.random.default_rng(0).normal(scale=3.0, size=(count, 10, 3)))


def plan(**values):
    return rollout.Plan(
        **{"system": SYSTEM, "starts": starts(), "conditions": {"lag": 10.0}, "seed": 0}
        | values
    )


def test_a_chain_has_the_conditions_it_is_given():
    chain = chain_of(SYSTEM, {"lag": 5.0, "gap": 2.0})
    assert set(chain.conditions) == {"lag", "gap"}
    assert float(chain.conditions["gap"].value) == 2.0
    assert bool(chain.conditions["gap"].mask)
    assert bool(chain.conditions["lag"].mask)


def test_without_a_lag_it_is_unknown():
    chain = chain_of(SYSTEM, {"temperature": 300.0})
    assert not bool(chain.conditions["lag"].mask)
    assert float(chain.conditions["lag"].value) > 0.0


def test_a_lag_of_a_microsecond_is_known():
    chain = chain_of(SYSTEM, {"lag": 1e6})
    assert bool(chain.conditions["lag"].mask)


def test_places_are_those_of_the_atoms_in_their_order():
    chain = chain_of(SYSTEM, {})
    flat = SYSTEM.slot_atoms.ravel()
    np.testing.assert_array_equal(flat[np.asarray(chain.places)], np.arange(10))
    np.testing.assert_array_equal(chain.slot_mask, SYSTEM.slot_atoms >= 0)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [({"lag": 10.0}, 10.0), ({"lag": 1e6}, 1e6), ({"temperature": 300.0}, 1.0)],
)
def test_a_jump_takes_its_lag_and_a_frame_of_an_ensemble_a_ps(conditions, expected):
    assert plan(conditions=conditions).jump_time == expected


def test_the_first_frame_is_the_start_moved_to_the_middle():
    begun = rollout.begin(plan())
    assert begun.num_jumps == 0
    assert begun.frames.shape == (1, 2, 10, 3)
    moved = begun.frames[0] - starts()
    np.testing.assert_allclose(
        moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-5
    )
    carbons = SYSTEM.slot_atoms[:, 1]
    np.testing.assert_allclose(begun.frames[0][:, carbons].mean(axis=1), 0.0, atol=1e-5)


def test_nothing_is_counted_at_the_start():
    state = rollout.begin(plan(starts=starts(3))).state
    for counts in state[1:]:
        np.testing.assert_array_equal(counts, [0, 0, 0])


def add_one(params, cloud, chain, key):
    """Moves all residues by the lag along x."""
    return cloud.at[:, 1, 0].add(chain.conditions["lag"].value)


def add_noise(params, cloud, chain, key):
    return cloud + jax.random.normal(key, cloud.shape) * chain.slot_mask[..., None]


def roll(jump, num_jumps, **values):
    given = plan(**values)
    begun = rollout.begin(given)
    chunks = rollout.rollout(jump, None, given, begun.state, 0, num_jumps)
    return begun.frames, list(chunks)


def test_jumps_are_counted_over_chunks():
    first, chunks = roll(add_one, 7, chunk=3)
    assert [len(chunk.frames) for chunk in chunks] == [3, 3, 1]
    assert [chunk.num_jumps for chunk in chunks] == [3, 6, 7]
    frames = np.concatenate([chunk.frames for chunk in chunks])
    moved = frames[..., 0] - first[..., 0]
    expected = 10.0 * np.arange(1, 8)[:, None, None]
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=1e-3)
    np.testing.assert_array_equal(chunks[-1].state.num_draws, 7)
    np.testing.assert_array_equal(chunks[-1].state.num_accepted, 7)


def test_with_a_gate_the_first_chunk_is_short_and_later_ones_grow():
    given = {"starts": starts(50) * np.float32(10.0), "chunk": 16}
    _, chunks = roll(add_one, 40, **given, max_redraws=10)
    assert [len(chunk.frames) for chunk in chunks] == [2, 4, 8, 16, 10]
    assert [chunk.num_jumps for chunk in chunks] == [2, 6, 14, 30, 40]
    _, whole = roll(add_one, 40, **given)  # Without a gate, which lets these pass.
    joined = lambda parts: np.concatenate([part.frames for part in parts])
    passed = np.asarray(chunks[-1].state.num_accepted) == 40
    assert passed.sum() > 25
    np.testing.assert_allclose(
        joined(chunks)[:, passed], joined(whole)[:, passed], atol=1e-3
    )


def test_frames_that_are_kept_are_every_so_many_jumps():
    _, whole = roll(add_one, 6)
    _, some = roll(add_one, 6, every=2)
    np.testing.assert_allclose(some[0].frames, whole[0].frames[1::2], atol=1e-4)
    assert some[0].num_jumps == 6


def test_keys_of_replicas_and_jumps_all_differ():
    _, (chunk,) = roll(add_noise, 3, starts=np.repeat(starts(1), 3, axis=0))
    moves = np.diff(chunk.frames, axis=0).reshape(-1, 30)
    moves = np.concatenate([moves, chunk.frames[0].reshape(-1, 30)])
    assert len(np.unique(np.round(moves, 4), axis=0)) == len(moves)


def brute_least(graph, atoms):
    apart = np.linalg.norm(atoms[:, None] - atoms[None], axis=-1)
    return np.min(apart[np.asarray(graph.is_far)])


@pytest.mark.parametrize("block", [1, 3, 4, 10, 100])
def test_the_closest_atoms_are_found_in_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(rejection, "BLOCK", block)
    graph = rejection.graph_of(SYSTEM)
    for atoms in starts(3):
        found = rejection._least_square(graph, jnp.asarray(atoms))
        assert np.sqrt(found) == pytest.approx(brute_least(graph, atoms), rel=1e-5)


@pytest.mark.parametrize("block", [3, 100])
def test_numbers_that_are_not_finite_are_not_intact_in_any_block(monkeypatch, block):
    monkeypatch.setattr(rejection, "BLOCK", block)
    graph = rejection.graph_of(SYSTEM)
    atoms = jnp.asarray(starts(1)[0])
    reference = rejection.reference_of(graph, atoms)
    wide = rejection.Limits(9.0, 0.0, 0.0, keeps_chirality=False)
    assert rejection.is_intact(graph, reference, wide, atoms)
    for bad in (jnp.nan, jnp.inf):
        spoilt = atoms.at[4, 1].set(bad)
        assert not rejection.is_intact(graph, reference, wide, spoilt)


def test_a_molecule_without_distant_atoms_is_not_too_close():
    graph = rejection.graph_of(make_system(["GLY"]))
    assert not graph.is_far.any()
    assert rejection._least_square(graph, jnp.zeros((4, 3))) == jnp.inf


@pytest.mark.parametrize(
    ("names", "count"), [(["GLY"], 0), (["ALA"], 1), (["ILE"], 2), (["THR", "ALA"], 3)]
)
def test_centres_are_alpha_carbons_and_those_of_ile_and_thr(names, count):
    assert len(rejection.graph_of(make_system(names)).centres) == count


def repeat(propose, passes, key, max_redraws):
    """The last draw of a jump, and how many there were."""
    source = jnp.full((1, 14, 3), -1.0)
    for number in range(100):
        found = rejection.attempt(
            propose, passes, source, key, jnp.int32(number), max_redraws
        )
        if found.is_last:
            return found, number + 1
    raise AssertionError("expected a last draw")


def passes_from(number, seed=0):
    """A gate for uniform numbers, that lets those above this one pass."""
    propose = lambda key: jnp.full((1, 14, 3), jax.random.uniform(key))
    limit = lambda cloud: cloud[0, 0, 0] > number
    return repeat(propose, limit, jax.random.key(seed), max_redraws=50)


def test_a_draw_is_repeated_until_it_passes():
    found, numbers = zip(*(passes_from(0.8, seed) for seed in range(20)), strict=True)
    assert all(bool(one.accepted) for one in found)
    assert all(float(one.cloud[0, 0, 0]) > 0.8 for one in found)
    assert min(numbers) == 1
    assert 2 < np.mean(numbers) < 9  # Five on average.


def test_where_no_draw_passes_the_source_stays():
    found, number = passes_from(2.0)
    assert not bool(found.accepted)
    assert number == 51
    np.testing.assert_array_equal(found.cloud, -1.0)


def test_the_first_draw_has_the_key_itself():
    found, number = passes_from(-1.0)
    assert number == 1
    assert float(found.cloud[0, 0, 0]) == float(jax.random.uniform(jax.random.key(0)))


def test_an_end_that_is_not_finite_is_let_through():
    propose = lambda key: jnp.full((1, 14, 3), jnp.nan)
    refuse = lambda cloud: jnp.array(False)
    found, number = repeat(propose, refuse, jax.random.key(0), 5)
    assert number == 1
    assert np.isnan(found.cloud).all()


def sometimes_torn(params, cloud, chain, key):
    """Takes a step to the right, and in six of ten draws tears the molecule."""
    torn = jnp.where(jax.random.uniform(key) < 0.6, 5.0, 1.0)
    return (cloud * torn).at[:, 1, 0].add(1.0)


def test_a_replica_draws_the_same_whatever_others_must_draw_again():
    given = {"chunk": 5, "max_redraws": 8, "starts": starts(6) * np.float32(10.0)}
    begun, chunks = roll(sometimes_torn, 15, **given)
    all_frames = np.concatenate([chunk.frames for chunk in chunks])
    _, alone = roll(sometimes_torn, 15, **given | {"starts": given["starts"][:1]})
    frames = np.concatenate([chunk.frames for chunk in alone])
    np.testing.assert_allclose(frames[:, 0], all_frames[:, 0], atol=1e-4)
    state = chunks[-1].state
    assert len(np.unique(state.num_draws)) > 1
    moved = all_frames[-1, ..., 0].mean(-1) - begun[0, ..., 0].mean(-1)
    np.testing.assert_allclose(moved, state.num_accepted, atol=1e-3)
