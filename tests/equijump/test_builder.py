"""Tests of peptides that are built from their sequence."""

import itertools
import time

import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump import builder, internal, rejection
from equijump.data import frames, whole
from equijump.data.topology import is_same, nearby, to_topology

ALL = "ARNDCQEGHILKMFPSTWYV"


def built(sequence, count=1, seed=0, caps=True):
    names = builder.parse(sequence)
    return builder.build(("ACE", *names, "NME") if caps else names, count, seed)


def least(found):
    """The least distance of atoms more than three bonds apart, in Å."""
    far = ~nearby(found.system.bonds, len(found.system.kept))
    apart = [np.linalg.norm(x[:, None] - x, axis=-1)[far] for x in found.positions]
    return float(np.min(apart))


def backbone(found, name, row):
    residue = builder.RESIDUES[found.system.tokens[row] - 1]
    return found.positions[:, found.system.slot_atoms[row, residue.slots.index(name)]]


def test_pairs_are_built_without_a_clash():
    """Every residue in either place; all 400 are, too, in ten seconds."""
    for shift in range(3):
        for first, second in zip(ALL, ALL[shift:] + ALL[:shift], strict=True):
            assert least(built(first + second)) > 2.6


def test_all_residues_pass_the_gate_and_have_the_hand_of_nature():
    found = built(ALL, 3)
    graph = rejection.graph_of(found.system)
    for positions in found.positions:
        atoms = jnp.asarray(positions)
        reference = rejection.reference_of(graph, atoms)
        assert rejection.is_intact(graph, reference, rejection.GATE, atoms)
        np.testing.assert_array_equal(reference.chirality, 1.0)


def test_the_hand_of_nature_is_that_of_simulations():
    system, starts = frames.read_structures("equijump/packaged/ala2_300K.pdb", None, 1)
    graph = rejection.graph_of(system)
    found = rejection.reference_of(graph, jnp.asarray(starts[0]))
    assert found.chirality.tolist() == [1.0]


def test_bonds_are_ideal_within_two_hundredths():
    found = built(ALL, 4)
    rows = {r for rows in internal.SIDE_CHAINS.values() for r in rows}
    ideal = {
        "C-N": [internal.C_N], "N-CA": [internal.N_CA], "CA-C": [internal.CA_C],
        "C-O": [internal.C_O], "CH3-C": [internal.CA_C], "N-CH3": [internal.N_CA],
        **{name: [length] for name, length in internal.CLOSURES.items()},
    }  # fmt: skip
    for row in rows:
        for name in (f"{row.bonded}-{row.atom}", f"{row.atom}-{row.bonded}"):
            ideal.setdefault(name, []).append(row.length)
    for first, second in found.system.bonds.tolist():
        names = [found.system.atom_names[i] for i in (first, second)]
        if set(names) == {"CZ", "CE2"}:
            names = ["CE1", "CZ"]  # Of a ring that is closed by symmetry.
        apart = found.positions[:, first] - found.positions[:, second]
        lengths = np.linalg.norm(apart, axis=-1)[:, None]
        off = np.abs(lengths - ideal["-".join(names)]).min(axis=1)
        assert off.max() < 0.02


def test_peptide_bonds_are_trans_and_phi_is_negative_but_for_glycine():
    found = built("AGPYV", 20)
    for row in range(1, 6):
        before, after = backbone(found, "C", row - 1), backbone(found, "N", row + 1)
        n, ca, c = (backbone(found, name, row) for name in ("N", "CA", "C"))
        beyond = backbone(found, "CH3" if row == 5 else "CA", row + 1)
        omega = internal.torsion(ca, c, after, beyond)
        np.testing.assert_allclose(np.abs(omega), 180.0, atol=1e-3)
        phi = internal.torsion(before, n, ca, c)
        is_glycine = row == 2
        assert (phi > 0.0).any() == is_glycine


def test_the_nitrogen_of_proline_is_flat():
    found = built("APPG", 20)
    for row in (2, 3):
        before, cd = backbone(found, "C", row - 1), backbone(found, "CD", row)
        n, ca = backbone(found, "N", row), backbone(found, "CA", row)
        ends = [end - n for end in (before, cd, ca)]
        one, two, three = (e / np.linalg.norm(e, axis=-1, keepdims=True) for e in ends)
        angle = lambda a, b: np.degrees(np.arccos(np.sum(a * b, axis=-1)))
        assert np.all(np.abs(angle(one, two) - 125.5) < 5.0)
        total = angle(one, two) + angle(two, three) + angle(three, one)
        assert total.min() > 350.0


def test_forty_residues_take_less_than_a_second():
    sequence = "".join(np.random.default_rng(3).permutation(list(2 * ALL)))
    built("GG")  # What is imported on the way.
    began = time.process_time()
    found = built(sequence)
    assert time.process_time() - began < 1.0
    assert least(found) > 2.6


def test_conformations_differ_and_each_is_the_same_in_any_company():
    found = built("GYDPETGTWG", 5, seed=7)
    apart = lambda x: np.linalg.norm(x[:, None] - x, axis=-1)
    for one, other in itertools.combinations(found.positions, 2):
        assert np.abs(apart(one) - apart(other)).max() > 1.0
    np.testing.assert_array_equal(
        built("GYDPETGTWG", 2, 7).positions, found.positions[:2]
    )
    assert np.abs(built("GYDPETGTWG", 1, 8).positions - found.positions[0]).max() > 1.0


@pytest.mark.parametrize("caps", [True, False])
def test_a_file_of_a_built_peptide_reads_as_the_same_system(caps):
    found = built("HWKP", caps=caps)
    made = mdtraj.Trajectory(found.positions / 10.0, to_topology(found.system))
    system, positions = frames.from_mdtraj(made, "made", 1)
    assert is_same(system, found.system)
    np.testing.assert_allclose(positions, found.positions, atol=1e-4)
    whole.check("made", positions, whole.bonds_of(system), system)


@pytest.mark.parametrize(
    ("sequence", "told"),
    [
        ("", "expected 1 to 500 letters, found 0"),
        ("GYX", "found 'X' at place 3"),
        ("gy", "found 'g' at place 1; write capital letters"),
        ("A-G", "found '-' at place 2"),
        (501 * "A", "expected 1 to 500 letters, found 501"),
    ],
)
def test_what_is_no_sequence_is_told(sequence, told):
    with pytest.raises(UsageError, match=told):
        builder.parse(sequence)
