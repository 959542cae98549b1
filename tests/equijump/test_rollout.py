"""Tests of rollouts: what each replica is a function of, and going on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equijump import rejection, rollout
from equijump.jump import atoms_of, chain_of
from equijump.transport import paths


@pytest.fixture(scope="module")
def plan(loaded):
    molecule = loaded.molecules["ala2"]
    return rollout.Plan(
        molecule.system, molecule.starts[:3], {"lag": 10.0}, seed=3, chunk=4
    )


@pytest.fixture(scope="module")
def roll(jump, loaded):
    def run(plan, num_jumps, state=None, first=0):
        state = rollout.begin(plan).state if state is None else state
        chunks = rollout.rollout(jump, loaded.params, plan, state, first, num_jumps)
        chunks = list(chunks)
        return np.concatenate([chunk.frames for chunk in chunks]), chunks[-1]

    return run


@pytest.fixture(scope="module")
def six(roll, plan):
    """Six jumps of three replicas."""
    return roll(plan, 6)


def test_a_rollout_is_a_loop_over_jumps(six, jump, plan, loaded):
    chain = chain_of(plan.system, plan.conditions)
    root = jax.random.key(plan.seed)
    one = jax.jit(jax.vmap(jump, (None, 0, None, 0)))
    clouds = rollout.begin(plan).state.cloud
    for number, frame in enumerate(six[0]):
        keys = jnp.stack(
            [
                jax.random.fold_in(jax.random.fold_in(root, replica), number)
                for replica in range(3)
            ]
        )
        clouds = one(loaded.params, clouds, chain, keys)
        found = jax.vmap(atoms_of, (0, None))(clouds, chain)
        np.testing.assert_array_equal(found, frame)


def test_replicas_do_not_depend_on_each_other(six, roll, plan):
    alone, _ = roll(plan._replace(starts=plan.starts[:1]), 6)
    np.testing.assert_allclose(alone[:, 0], six[0][:, 0], atol=1e-4)
    assert np.abs(six[0][:, 0] - six[0][:, 1]).max() > 0.01


def test_another_seed_gives_another_rollout(six, roll, plan):
    other, _ = roll(plan._replace(seed=4), 6)
    assert np.abs(other - six[0]).max() > 0.01


@pytest.mark.parametrize("stop", [2, 4, 5])
def test_a_rollout_goes_on_bit_for_bit(stop, six, roll, plan):
    before, chunk = roll(plan, stop)
    state = jax.tree.map(np.asarray, chunk.state)
    rest, _ = roll(plan, 6, state, stop)
    np.testing.assert_array_equal(np.concatenate([before, rest]), six[0])


def test_frames_are_kept_as_often_as_asked(six, roll, plan):
    found, last = roll(plan._replace(every=3), 6)
    np.testing.assert_array_equal(found, six[0][2::3])
    assert last.num_jumps == 6


def test_padding_changes_nothing(plan):
    def jump(params, cloud, chain, key):
        noise = paths.draw_noise(key, chain.slot_mask, chain.places)
        return cloud + 0.03 * jnp.where(jnp.abs(noise) < 2.0, noise, 10.0)

    def roll(sizes):
        padded = plan._replace(max_redraws=2, sizes=sizes)
        state = rollout.begin(padded).state
        chunks = list(rollout.rollout(jump, None, padded, state, 0, 8))
        return np.concatenate([chunk.frames for chunk in chunks]), chunks[-1].state

    own = rejection.sizes_of(rejection.graph_of(plan.system))
    (frames, state), (padded, other) = (
        roll(sizes) for sizes in (None, own._replace(atoms=21, bonds=30, centres=3))
    )
    np.testing.assert_allclose(padded, frames, atol=1e-5)
    np.testing.assert_array_equal(other.num_draws, state.num_draws)
    assert state.num_draws.sum() > state.num_accepted.sum() > 0


def test_atoms_come_back_in_the_order_of_the_file(plan):
    first = rollout.begin(plan)
    apart = lambda x: np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    np.testing.assert_allclose(apart(first.frames[0]), apart(plan.starts), atol=1e-5)


def test_a_bond_that_breaks_is_dated(plan, loaded):
    """A jump that stretches everything by a fifth breaks bonds with the third."""
    stretch = lambda params, cloud, chain, key: 1.2 * cloud
    state = rollout.begin(plan).state
    (chunk,) = rollout.rollout(stretch, loaded.params, plan, state, 0, 4)
    np.testing.assert_array_equal(chunk.state.broken_at, 3)
