"""Tests of what is told of the geometry of a start."""

import numpy as np

from equijump import builder, rejection, strain
from equijump.data import frames
from equijump.data.sources.trajectories import PACKAGED


def built(*names):
    found = builder.build(names, 2, 0)
    return found.system, found.positions.copy()


def atom_of(system, row, name):
    return int(
        system.slot_atoms[row][
            strain.RESIDUES[system.tokens[row] - 1].slots.index(name)
        ]
    )


def test_nothing_is_told_of_what_is_built_or_was_measured():
    names = [
        "ACE",
        "ALA",
        "PRO",
        "GLY",
        "TRP",
        "ARG",
        "ASP",
        "HIS",
        "MET",
        "CYS",
        "THR",
        "ILE",
        "LYS",
        "PHE",
        "NME",
    ]
    system, positions = built(*names)
    assert strain.strained(system, positions) == []
    assert strain.turned(system, positions) == []
    given = frames.read_structures(PACKAGED / "cln025.pdb", None, 1)
    assert strain.strained(*given) == strain.turned(*given) == []


def test_a_mirror_image_is_told_but_for_glycine():
    system, positions = built("ACE", "ALA", "GLY", "PRO", "NME")
    positions[1] *= np.float32(-1.0)  # One frame of two.
    assert strain.turned(system, positions) == ["ALA2", "PRO4"]


def test_a_long_bond_is_told():
    system, positions = built("ACE", "ALA", "NME")
    ca, cb = (atom_of(system, 1, name) for name in ("CA", "CB"))
    away = positions[:, cb] - positions[:, ca]
    positions[:, cb] += 0.35 * away
    (line,) = strain.strained(system, positions)
    assert line == "CA of ALA2 and CB of ALA2 2.08 Å apart"


def test_atoms_at_one_place_are_told():
    system, positions = built("ACE", "LYS", "ALA", "NME")
    end, oxygen = atom_of(system, 1, "NZ"), atom_of(system, 0, "O")
    before = strain.strained(system, positions)
    positions[:, end] = positions[:, oxygen] + np.float32(1.0)
    told = strain.strained(system, positions)
    assert before == []
    assert any("NZ of LYS2" in line and "1.73 Å" in line for line in told)


def test_the_gate_asks_for_the_same_distance():
    assert rejection.GATE.closest == strain.CLOSEST
