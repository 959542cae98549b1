"""Tests of internal coordinates on structures that are made by hand."""

import numpy as np
import pytest

from equijump.data.residues import CAPS, RESIDUES, TOKENS
from equijump.evaluate import geometry
from tests.equijump.test_data_topology_order import make_system

DIPEPTIDE = ("ACE", "ALA", "NME")


def names_of(system, atoms):
    return [system.atom_names[atom] for atom in atoms]


def test_the_dipeptide_has_the_torsions_of_textbooks():
    system = make_system(DIPEPTIDE)
    found = geometry.find_torsions(system)
    listed = {
        (kind, residue): names_of(system, atoms)
        for kind, residue, atoms in zip(*found, strict=True)
    }
    assert listed == {
        ("omega", 1): ["CH3", "C", "N", "CA"],
        ("phi", 1): ["C", "N", "CA", "C"],
        ("psi", 1): ["N", "CA", "C", "N"],
        ("omega", 2): ["CA", "C", "N", "CH3"],
    }
    assert geometry.pairs_of_phi_and_psi(found) == {1: (1, 2)}


@pytest.mark.parametrize(
    ("name", "count"),
    [("GLY", 0), ("ALA", 0), ("SER", 1), ("VAL", 1), ("PRO", 2), ("PHE", 2),
     ("MET", 3), ("GLU", 3), ("LYS", 4), ("ARG", 5)],
)  # fmt: skip
def test_side_chains_have_their_number_of_chi(name, count):
    found = geometry.find_torsions(make_system([name]))
    assert found.kinds == tuple(f"chi{k}" for k in range(1, count + 1))
    assert found.atoms.shape == (count, 4)


def test_torsions_do_not_cross_from_chain_to_chain():
    whole = geometry.find_torsions(make_system(["GLY"] * 4))
    apart = geometry.find_torsions(make_system(["GLY"] * 4, chains=[0, 0, 1, 1]))
    assert sorted(whole.kinds) == ["omega"] * 3 + ["phi"] * 3 + ["psi"] * 3
    assert sorted(apart.kinds) == ["omega"] * 2 + ["phi"] * 2 + ["psi"] * 2
    assert geometry.pairs_of_phi_and_psi(apart) == {}
    assert sorted(geometry.pairs_of_phi_and_psi(whole)) == [1, 2]


def test_torsions_are_bonded_along_their_four_atoms():
    system = make_system(["TRP", "LYS", "ILE"])
    bonds = {frozenset(bond) for bond in system.bonds.tolist()}
    for atoms in geometry.find_torsions(system).atoms.tolist():
        assert all(frozenset(atoms[k : k + 2]) in bonds for k in range(3))


@pytest.mark.parametrize("residue", RESIDUES, ids=lambda r: r.name)
def test_angles_are_two_bonds_that_share_an_atom(residue):
    bonds = make_system([residue.name]).bonds
    found = geometry.find_angles(bonds)
    degrees = np.bincount(bonds.ravel())
    assert len(found) == np.sum(degrees * (degrees - 1) // 2)
    linked = {frozenset(bond) for bond in bonds.tolist()}
    for first, middle, last in found.tolist():
        assert {frozenset((first, middle)), frozenset((middle, last))} <= linked
        assert first < last
    assert len(np.unique(found, axis=0)) == len(found)


def test_distant_pairs_are_more_than_three_bonds_apart():
    line = np.stack([np.arange(6), np.arange(1, 7)], axis=1)
    found = geometry.find_distant_pairs(line, 7)
    expected = [(a, b) for a in range(7) for b in range(a + 4, 7)]
    assert found.tolist() == [list(pair) for pair in expected]


def test_centres_are_residues_with_a_beta_carbon():
    system = make_system(["ACE", "GLY", "ALA", "PRO", "NME"])
    residues, atoms = geometry.find_centres(system)
    assert residues == (2, 3)
    for row in atoms:
        assert names_of(system, row) == ["CA", "N", "C", "CB"]


def test_carbons_of_caps_are_no_alpha_carbons():
    system = make_system(DIPEPTIDE)
    assert names_of(system, geometry.alpha_carbons(system)) == ["CA"]


@pytest.mark.parametrize(("count", "expected"), [(9, False), (10, True)])
def test_a_protein_has_ten_amino_acids(count, expected):
    system = make_system(["ACE", *["GLY"] * count, "NME"])
    assert geometry.is_protein(system) == expected


def test_labels_count_from_one():
    system = make_system(DIPEPTIDE)
    labels = [geometry.residue_label(system, k) for k in range(3)]
    assert labels == ["ACE1", "ALA2", "NME3"]


def test_radii_are_those_of_bondi():
    system = make_system(["CYS"])
    found = dict(zip(system.atom_names, geometry.radii(system), strict=True))
    assert (found["CA"], found["N"], found["O"], found["SG"]) == (1.7, 1.55, 1.52, 1.8)
    assert TOKENS["CYS"] == system.tokens[0]


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.0, 0.5, 2.0, 3.1])
def test_a_torsion_has_the_sign_of_iupac(angle):
    """Seen along the middle bond, the far one is turned clockwise by the angle."""
    frame = np.array([
        [1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [np.cos(angle), np.sin(angle), 1.0],
    ])  # fmt: skip
    found = geometry.torsions_of(frame[None], np.array([[0, 1, 2, 3]]))
    assert found[0, 0] == pytest.approx(angle, abs=1e-5)


@pytest.mark.parametrize("degrees", [10.0, 90.0, 109.5, 170.0])
def test_angles_are_in_degrees(degrees):
    radians = np.radians(degrees)
    frame = 1.5 * np.array(
        [[1.0, 0, 0], [0, 0, 0], [np.cos(radians), np.sin(radians), 0]]
    )
    found = geometry.angles_of(frame[None], np.array([[0, 1, 2]]))
    assert found[0, 0] == pytest.approx(degrees, abs=1e-3)


def test_distances_are_in_angstrom_and_a_permutation_of_frames_permutes_them():
    positions = np.random.default_rng(0).normal(scale=9.0, size=(4, 6, 3))
    pairs = geometry.all_pairs(6)
    found = geometry.distances_of(positions, pairs)
    expected = np.linalg.norm(
        positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=-1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        geometry.distances_of(positions[::-1], pairs), found[::-1], rtol=1e-6
    )


@pytest.mark.parametrize(("apart", "count"), [(1, 10), (2, 6), (3, 3), (5, 0)])
def test_pairs_are_apart_in_number(apart, count):
    found = geometry.all_pairs(5, apart)
    assert len(found) == count
    assert np.all(found[:, 1] - found[:, 0] >= apart)


def test_handedness_changes_in_the_mirror_and_not_by_a_rotation():
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(8, 4, 3))
    centres = np.array([[0, 1, 2, 3], [0, 2, 1, 3]])
    found = geometry.handedness(positions, centres)
    assert set(np.unique(found)) == {-1, 1}
    np.testing.assert_array_equal(found[:, 0], -found[:, 1])
    np.testing.assert_array_equal(geometry.handedness(-positions, centres), -found)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = positions @ turn.T + 5.0
    np.testing.assert_array_equal(geometry.handedness(turned, centres), found)


def test_an_l_amino_acid_has_a_positive_hand():
    """Seen from the hydrogen, CO, R and N are clockwise (the CORN rule)."""
    angles = np.radians([0.0, -120.0, -240.0])  # Clockwise from above.
    carbonyl, beta, nitrogen = np.stack(
        [np.cos(angles), np.sin(angles), np.full(3, -0.3)], axis=1
    )
    frame = np.stack([np.zeros(3), nitrogen, carbonyl, beta])
    assert geometry.handedness(frame[None], np.array([[0, 1, 2, 3]])) == 1


def helix(count=12):
    turns = np.radians(100.0) * np.arange(count)
    return np.stack(
        [2.3 * np.cos(turns), 2.3 * np.sin(turns), 1.5 * np.arange(count)], 1
    )


def test_the_native_structure_has_all_contacts_and_no_deviation():
    native = helix()
    found = geometry.fold_measures(native[None] + 3.0, native)
    assert found["rmsd"][0] == pytest.approx(0.0, abs=1e-3)
    assert found["gdt_ts"][0] == found["native_contacts"][0] == 1.0
    rg = np.sqrt(np.mean(np.sum((native - native.mean(0)) ** 2, axis=1)))
    assert found["rg"][0] == pytest.approx(rg, rel=1e-6)


def test_a_stretched_helix_loses_its_contacts():
    native = helix()
    stretched = np.stack([native, native * [1, 1, 2.5]])
    found = geometry.fold_measures(stretched, native)
    assert found["native_contacts"][1] < 0.5
    assert found["rg"][1] > 2 * found["rg"][0]
    assert found["gdt_ts"][1] < found["gdt_ts"][0]


def test_caps_of_one_atom_end_torsions():
    amide = geometry.find_torsions(make_system(["ACE", "ALA", "NH2"]))
    assert list(zip(amide.kinds, amide.residues, strict=True)) == [
        ("omega", 1), ("phi", 1), ("psi", 1),
    ]  # fmt: skip
    assert amide.atoms[2].tolist() == [3, 4, 5, 8]
    formyl = geometry.find_torsions(make_system(["FOR", "ALA", "NME"]))
    assert list(zip(formyl.kinds, formyl.residues, strict=True)) == [
        ("phi", 1), ("psi", 1), ("omega", 2),
    ]  # fmt: skip
    assert (amide.atoms >= 0).all()
    assert (formyl.atoms >= 0).all()


def test_every_type_has_radii_and_torsions():
    names = [residue.name for residue in RESIDUES if residue.name not in CAPS]
    system = make_system(["ACE", *names, "NH2"])
    assert (geometry.radii(system) > 1.5).all()
    found = geometry.find_torsions(system)
    assert (found.atoms >= 0).all()
    assert found.kinds.count("psi") == len(names)
