"""Tests of the steering that keeps atoms apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.runs import config as configs
from equijump import options, rejection, steering
from equijump.cloud import to_cloud
from equijump.jump import atoms_of, chain_of
from equijump.rules import RULES
from tests.equijump.test_data_topology_order import make_system

SYSTEM = make_system(["ACE", "ALA", "ALA", "NME"])
CHAIN = chain_of(SYSTEM, {"lag": 10.0}, "chain")
IS_FAR = np.asarray(rejection.graph_of(SYSTEM).is_far)
CONTACTS = steering.contacts_of(SYSTEM, IS_FAR)
NAMES = [SYSTEM.atom_names[atom] for atom in range(len(SYSTEM.kept))]


def positions(cloud):
    return atoms_of(cloud, CHAIN)


def folded(gap):
    """A chain whose two ends are so far apart, in Å, and what its bonds measure."""
    angles = np.linspace(0.0, 5.2, len(NAMES))
    atoms = 4.0 * np.stack([np.cos(angles), np.sin(angles), 0.3 * angles], axis=-1)
    ends = np.argwhere(IS_FAR)[len(NAMES) // 2]
    atoms[ends[0]] = atoms[ends[1]] + [0.0, 0.0, gap]
    placed = np.zeros((*CHAIN.slot_mask.shape, 3), np.float32)
    rows, columns = np.nonzero(SYSTEM.slot_atoms >= 0)
    placed[rows, columns] = atoms[SYSTEM.slot_atoms[rows, columns]]
    cloud = to_cloud(jnp.asarray(placed), CHAIN.slot_mask, CHAIN.tree)
    return cloud, tuple(int(end) for end in ends)


@jax.jit
def steered(cloud, std=0.5, contacts=CONTACTS):
    bonds = jnp.linalg.norm(cloud, axis=-1, keepdims=True)
    std = jnp.full((*cloud.shape[:2], 1), std)
    return steering.apart(cloud, std, bonds, jnp.asarray(contacts), positions)


def only(pair):
    """Contacts of one pair alone."""
    found = np.zeros_like(CONTACTS)
    found[pair] = found[pair[::-1]] = 3.0
    return found


def apart(cloud, pair):
    first, second = (positions(cloud)[end] for end in pair)
    return float(jnp.linalg.norm(first - second))


def test_contacts_are_sums_of_radii_of_atoms_that_no_three_bonds_join():
    kinds = [name[0] for name in NAMES]
    for (a, b), found in np.ndenumerate(CONTACTS):
        radii = steering.RADII[kinds[a]] + steering.RADII[kinds[b]]
        assert found == pytest.approx(radii if IS_FAR[a, b] else 0.0)
    assert (CONTACTS > 0.0).any()


def test_what_does_not_overlap_stays():
    cloud, pair = folded(1.0)
    np.testing.assert_array_equal(steered(cloud, contacts=0.0 * CONTACTS), cloud)
    wide = np.where(only(pair) > 0.0, 0.5, 0.0)
    np.testing.assert_array_equal(steered(cloud, contacts=wide), cloud)


@pytest.mark.parametrize("gap", [0.8, 1.5, 2.5])
def test_atoms_that_overlap_come_apart_and_no_further_than_asked(gap):
    cloud, pair = folded(gap)
    before = apart(cloud, pair)
    after = apart(steered(cloud, contacts=only(pair)), pair)
    assert before + 0.5 * (3.0 - before) < after < 3.2


def test_bonds_turn_and_keep_their_lengths_to_second_order():
    cloud, pair = folded(1.5)
    after = steered(cloud, std=0.05, contacts=only(pair))
    moves, lengths = (np.linalg.norm(x, axis=-1) for x in (after - cloud, cloud))
    assert moves.max() > 1e-3
    is_bond = lengths > 0.5
    stretch = np.linalg.norm(after, axis=-1) - lengths
    assert np.all(
        np.abs(stretch)[is_bond]
        <= (moves**2 / np.maximum(lengths, 0.5) + 1e-5)[is_bond]
    )


def test_where_nothing_is_left_open_nothing_moves():
    cloud, _ = folded(1.5)
    np.testing.assert_array_equal(steered(cloud, std=0.0), cloud)


def test_it_turns_with_the_molecule():
    cloud, _ = folded(1.5)
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    turn = turn.astype(jnp.float32)
    np.testing.assert_allclose(
        steered(cloud @ turn.T), steered(cloud) @ turn.T, atol=1e-4
    )


def test_of_many_overlaps_little_is_left():
    def overlaps(cloud):
        atoms = np.asarray(positions(cloud))
        distances = np.linalg.norm(atoms[:, None] - atoms, axis=-1)
        return np.sum(np.maximum(CONTACTS - distances, 0.0) ** 2)

    cloud, _ = folded(0.8)
    assert overlaps(steered(cloud)) < 0.2 * overlaps(cloud)


def test_a_transport_that_tells_no_end_is_refused():
    default = configs.find("equijump", "ala2").get_config()
    config = configs.find("equijump", "ala2").get_config()
    config.transport.kind, config.sample.repulsion = "two_sided", 1.0
    with pytest.raises(UsageError, match="expected 0 with two_sided"):
        configs.check(config, default, RULES)


@pytest.mark.parametrize("repulsion", [-0.1, 1.6, float("nan")])
def test_a_repulsion_out_of_range_is_refused(repulsion, loaded):
    with pytest.raises(UsageError, match=r"--repulsion: expected 0 to 1\.5, found"):
        options.choose(loaded, repulsion=repulsion)


def test_gradients_are_finite_where_atoms_meet():
    cloud, pair = folded(0.0)
    moved = steered(cloud)
    assert np.isfinite(moved).all()
    assert apart(cloud, pair) < 1e-3
