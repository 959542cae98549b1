"""Tests of heavy atoms that are built where a file lacks them."""

import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump import builder, rejection, repair
from equijump.data import frames
from equijump.data.topology import is_same, nearby, to_topology


def peptide(sequence, count=2, caps=True):
    """A built peptide as a trajectory of MDTraj, and its system."""
    names = builder.parse(sequence)
    names = ("ACE", *names, "NME") if caps else names
    found = builder.build(names, count, seed=5)
    return mdtraj.Trajectory(found.positions / 10.0, to_topology(found.system)), found


def without(trajectory, *left_out):
    """The same without some atoms, named as `LYS3-CG`."""
    kept = [a.index for a in trajectory.topology.atoms if str(a) not in left_out]
    assert len(kept) == trajectory.n_atoms - len(left_out)
    return trajectory.atom_slice(kept)


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(repair.logging, "warning", lambda t, *a: lines.append(t % a))
    return lines


def read(trajectory, select=""):
    return frames.from_mdtraj(trajectory, "mine.pdb", 9, select, repair.complete)


def least(system, positions):
    far = ~nearby(system.bonds, len(system.kept))
    apart = [np.linalg.norm(x[:, None] - x, axis=-1)[far] for x in positions]
    return float(np.min(apart))


def by_name(system, positions):
    rows, slots = np.nonzero(system.slot_atoms >= 0)
    atoms = system.slot_atoms[rows, slots]
    return {(r, s): positions[:, a] for r, s, a in zip(rows, slots, atoms, strict=True)}


def test_a_whole_file_stays_as_it_is(told):
    trajectory, built = peptide("GKW")
    system, positions = read(trajectory)
    assert is_same(system, built.system)
    np.testing.assert_allclose(positions, built.positions, atol=1e-4)
    assert told == []


@pytest.mark.parametrize(
    ("sequence", "left_out"),
    [
        ("GKW", ("LYS3-CE", "LYS3-NZ")),
        ("GKW", ("LYS3-CB", "LYS3-CG", "LYS3-CD", "LYS3-CE", "LYS3-NZ")),
        ("AVA", ("VAL3-CG1",)),
        ("AIT", ("ILE3-CG2", "THR4-OG1")),
        ("AFA", ("PHE3-CD1", "PHE3-CZ")),
        ("APA", ("PRO3-CG",)),
        ("ARH", ("ARG3-CZ", "HIS4-ND1", "HIS4-CE1")),
        ("GG", ("GLY2-O",)),
        ("AA", ("ALA3-O", "ALA3-CB")),
    ],
)
def test_missing_atoms_are_built_where_they_belong(sequence, left_out, told):
    trajectory, built = peptide(sequence)
    system, positions = read(without(trajectory, *left_out))
    assert is_same(system, built.system)
    assert least(system, positions) > 2.0
    graph = rejection.graph_of(system)
    hands = [rejection.reference_of(graph, jnp.asarray(x)) for x in positions]
    assert all((hand.chirality == 1.0).all() for hand in hands)
    lengths = lambda s, x: np.sort(
        np.linalg.norm(x[:, s.bonds[:, 0]] - x[:, s.bonds[:, 1]], axis=-1)
    )
    np.testing.assert_allclose(
        lengths(system, positions), lengths(built.system, built.positions), atol=0.15
    )
    (line,) = told
    assert line.startswith("mine.pdb: heavy atoms were missing and are built: ")
    assert all(name.split("-")[1] in line for name in left_out)


def test_what_is_there_does_not_move(told):
    trajectory, built = peptide("GKW")
    system, positions = read(without(trajectory, "LYS3-CE", "LYS3-NZ"))
    ours, theirs = by_name(system, positions), by_name(built.system, built.positions)
    moved = {
        place for place in ours if np.abs(ours[place] - theirs[place]).max() > 1e-4
    }
    assert moved == {(2, 7), (2, 8)}


def test_the_oxygen_lies_opposite_to_the_next_nitrogen(told):
    trajectory, built = peptide("GG")
    system, positions = read(without(trajectory, "GLY2-O"))
    ours, theirs = by_name(system, positions), by_name(built.system, built.positions)
    np.testing.assert_allclose(ours[1, 3], theirs[1, 3], atol=0.05)


@pytest.mark.parametrize("name", ["LYS3-N", "LYS3-CA", "LYS3-C", "ACE1-CH3"])
def test_a_backbone_that_is_not_whole_is_refused_by_name(name, told):
    trajectory, _ = peptide("GKW")
    with pytest.raises(UsageError, match=rf"mine\.pdb: .* in {name.split('-')[0]} of "):
        read(without(trajectory, name))


def test_residues_that_are_not_read_need_no_atoms(told):
    trajectory, _ = peptide("GKW")
    system, _ = read(without(trajectory, "LYS3-NZ"), "not resname LYS")
    assert system.residue_names == ("ACE", "GLY", "TRP", "NME")
    assert told == []


def test_other_names_of_atoms_are_no_missing_ones(told):
    trajectory, built = peptide("GI")
    for atom in trajectory.topology.atoms:
        atom.name = {"CD1": "CD", "CH3": "C1"}.get(atom.name, atom.name)
    assert is_same(read(trajectory)[0], built.system)
    assert told == []


def test_all_side_chains_are_built_without_a_clash(told):
    trajectory, built = peptide("LYRWFKEQMIHT", count=1)
    whole = {"ACE", "NME"}
    side = [
        str(a)
        for a in trajectory.topology.atoms
        if a.residue.name not in whole and a.name not in ("N", "CA", "C", "O")
    ]
    system, positions = read(without(trajectory, *side))
    assert is_same(system, built.system)
    assert least(system, positions) > 2.2
    (line,) = told
    assert line.count(" of ") == 7
    assert "and of 6 more" in line
