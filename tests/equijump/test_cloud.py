"""Tests of clouds: what their vectors are, and that they add up to the positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from equijump import cloud as clouds
from equijump.data.residues import NUM_TYPES, RESIDUES, TOKENS

CHAINS = ("ACE LYS TRP PRO GLY NME", "ALA ARG PHE")
NAMES = " ".join(CHAINS).split()


def molecule(seed=0):
    """Atoms of two chains, each residue with random positions, and a row of padding."""
    size = len(NAMES) + 1
    tokens = np.array([TOKENS[name] for name in NAMES] + [0])
    chains = np.array([0] * 6 + [1] * 3 + [-1])
    numbers = np.array([*range(6), *range(3), 0])
    mask = np.zeros((size, 14), bool)
    for row, name in enumerate(NAMES):
        slots = RESIDUES[TOKENS[name] - 1].slots
        mask[row, : len(slots)] = [slot is not None for slot in slots]
    atoms = 3.0 * np.random.default_rng(seed).normal(size=(size, 14, 3))
    atoms = np.float32(atoms * mask[..., None])
    return [jnp.asarray(x) for x in (atoms, mask, tokens, chains, numbers)]


def cloud_of(kind, atoms, mask, *names):
    tree = clouds.tree_of(kind, NUM_TYPES, *names)
    return clouds.to_cloud(atoms, mask, tree), tree


def atom(atoms, chain, residue, name):
    row = NAMES.index(residue) if chain == 0 else 6 + CHAINS[1].split().index(residue)
    return np.asarray(atoms)[row, RESIDUES[TOKENS[residue] - 1].slots.index(name)]


@pytest.mark.parametrize("kind", clouds.KINDS)
def test_clouds_and_positions_are_each_others_inverse(kind):
    atoms, mask, *names = molecule()
    cloud, tree = cloud_of(kind, atoms, mask, *names)
    real = np.asarray(mask)
    apart = (np.asarray(clouds.from_cloud(cloud, tree)) - np.asarray(atoms))[real]
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-4)
    np.testing.assert_allclose(clouds.recentred(cloud, mask, tree), cloud, atol=1e-6)
    assert not np.asarray(cloud)[~real].any()


@pytest.mark.parametrize(
    ("kind", "residue", "name", "before"),
    [
        ("ca", "LYS", "NZ", "CA"),
        ("parent", "LYS", "NZ", "CE"),
        ("parent", "LYS", "N", "CA"),
        ("chain", "LYS", "NZ", "CE"),
        ("chain", "LYS", "CA", "N"),
        ("chain", "TRP", "CZ2", "CE2"),
        ("chain", "PRO", "CD", "N"),
        ("chain", "NME", "CH3", "N"),
    ],
)
def test_a_vector_leads_from_the_atom_before(kind, residue, name, before):
    atoms, mask, *names = molecule()
    cloud, _ = cloud_of(kind, atoms, mask, *names)
    expected = atom(atoms, 0, residue, name) - atom(atoms, 0, residue, before)
    np.testing.assert_allclose(atom(cloud, 0, residue, name), expected, atol=1e-5)


def test_bonds_go_on_along_the_chain_and_not_from_one_to_another():
    atoms, mask, *names = molecule()
    cloud, tree = cloud_of("chain", atoms, mask, *names)
    link = atom(atoms, 0, "TRP", "N") - atom(atoms, 0, "LYS", "C")
    np.testing.assert_allclose(atom(cloud, 0, "TRP", "N"), link, atol=1e-5)
    own = atom(atoms, 1, "ALA", "N") - atom(atoms, 1, "ALA", "CA")
    np.testing.assert_allclose(atom(cloud, 1, "ALA", "N"), own, atol=1e-5)
    roots = np.asarray(clouds.roots_of(mask, tree))
    np.testing.assert_array_equal(np.flatnonzero(roots), [0, 6])


def test_a_gap_in_the_numbers_begins_a_segment():
    atoms, mask, tokens, chains, numbers = molecule()
    numbers = numbers.at[3:6].add(2)
    _, tree = cloud_of("chain", atoms, mask, tokens, chains, numbers)
    roots = np.asarray(clouds.roots_of(mask, tree))
    np.testing.assert_array_equal(np.flatnonzero(roots), [0, 3, 6])


def test_the_bond_before_is_found_in_the_residue_before():
    atoms, mask, *names = molecule()
    cloud, tree = cloud_of("chain", atoms, mask, *names)
    before = clouds.previous_of(cloud, tree)
    for residue, name, vector in [
        ("LYS", "NZ", ("LYS", "CE")), ("LYS", "CB", ("LYS", "CA")),
        ("LYS", "CA", ("LYS", "N")), ("TRP", "N", ("LYS", "C")),
        ("LYS", "O", ("LYS", "C")),
    ]:  # fmt: skip
        expected = atom(cloud, 0, *vector)
        np.testing.assert_allclose(atom(before, 0, residue, name), expected, atol=1e-6)
    none = atom(before, 0, "ACE", "C")
    np.testing.assert_array_equal(none, 0.0)


@pytest.mark.parametrize(
    ("residue", "bonds"),
    [("PRO", {"CG-CD"}), ("TRP", {"NE1-CE2", "CZ2-CH2"}), ("PHE", {"CZ-CE2"})],
)
def test_bonds_that_close_rings_are_seen(residue, bonds):
    atoms, mask, *names = molecule()
    cloud, tree = cloud_of("chain", atoms, mask, *names)
    row = NAMES.index(residue)
    slots = RESIDUES[TOKENS[residue] - 1].slots
    closures = np.asarray(tree.closures)[row].tolist()
    found = {frozenset((slots[a], slots[b])) for a, b in closures if a != b}
    assert found == {frozenset(bond.split("-")) for bond in bonds}
    vectors = np.asarray(clouds.closing(cloud, tree))[row]
    place = np.asarray(atoms)[row]
    for vector, (a, b) in zip(vectors, closures, strict=True):
        np.testing.assert_allclose(vector, place[b] - place[a], atol=1e-4)


def test_geometry_turns_with_nothing_and_axes_with_the_molecule():
    atoms, mask, *names = molecule()
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    q = jnp.asarray(q * np.linalg.det(q), jnp.float32)
    (ours, tree), (turned, _) = (
        cloud_of("chain", x, mask, *names) for x in (atoms, atoms @ q.T)
    )
    feats = [clouds.shape_of(x, tree) for x in (ours, turned)]
    np.testing.assert_allclose(*feats, atol=1e-4)
    axes = [clouds.local_axes(x, tree) for x in (ours, turned)]
    np.testing.assert_allclose(axes[0] @ q.T, axes[1], atol=1e-4)
    mirrored = clouds.shape_of(-ours, tree)
    assert np.abs(np.asarray(mirrored - feats[0])).max() > 0.1
