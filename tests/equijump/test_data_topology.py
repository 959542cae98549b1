"""Tests of residues from a topology: slots by bonds, not by names."""

import re

import mdtraj
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from common.errors import UsageError
from equijump.data import residues
from equijump.data.molecules import read_system
from equijump.data.topology import to_topology

LETTERS = {
    **{"ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q"},
    **{"GLU": "E", "GLY": "G", "HIS": "H", "ILE": "I", "LEU": "L", "LYS": "K"},
    **{"MET": "M", "PHE": "F", "PRO": "P", "SER": "S", "THR": "T", "TRP": "W"},
    **{"TYR": "Y", "VAL": "V"},
}

ALANINE_DIPEPTIDE = """\
ATOM      1  CH3 ACE A   1       5.809  13.662   9.238  1.00  0.00           C
ATOM      2  C   ACE A   1       6.226  12.362   9.909  1.00  0.00           C
ATOM      3  O   ACE A   1       6.320  12.323  11.103  1.00  0.00           O
ATOM      4  N   ALA A   2       6.588  11.373   9.073  1.00  0.00           N
ATOM      5  CA  ALA A   2       7.374  10.206   9.356  1.00  0.00           C
ATOM      6  CB  ALA A   2       6.373   8.995   9.494  1.00  0.00           C
ATOM      7  C   ALA A   2       8.342   9.983   8.210  1.00  0.00           C
ATOM      8  O   ALA A   2       8.365  10.680   7.158  1.00  0.00           O
ATOM      9  N   NME A   3       9.175   8.974   8.322  1.00  0.00           N
ATOM     10  C   NME A   3      10.224   8.717   7.301  1.00  0.00           C
END
"""


def load(tmp_path, text):
    path = tmp_path / "molecule.pdb"
    path.write_text(text)
    frame = mdtraj.load(str(path))
    return frame.topology, frame.xyz[0].astype(np.float64) * 10.0


def read(tmp_path, text):
    return read_system(*load(tmp_path, text), "molecule.pdb")


def tripeptide(name):
    """A glycine, the residue and a glycine, as a PDB file without hydrogens."""
    molecule = Chem.AddHs(Chem.MolFromSequence(f"G{LETTERS[name]}G"))
    assert AllChem.EmbedMolecule(molecule, randomSeed=1) == 0
    return Chem.MolToPDBBlock(Chem.RemoveHs(molecule))


def test_caps_and_residue_of_alanine_dipeptide_have_their_slots(tmp_path):
    system = read(tmp_path, ALANINE_DIPEPTIDE)
    assert [residues.RESIDUES[t - 1].name for t in system.tokens] == [
        "ACE", "ALA", "NME",
    ]  # fmt: skip
    named = [
        {slot: system.atom_names[atom] for slot, atom in enumerate(row) if atom >= 0}
        for row in system.slot_atoms
    ]
    assert named == [
        {1: "CH3", 2: "C", 3: "O"},
        {0: "N", 1: "CA", 2: "C", 3: "O", 4: "CB"},
        {0: "N", 1: "C"},
    ]
    assert len(system.bonds) == 9
    assert {(1, 3), (6, 8)} <= set(map(tuple, system.bonds))  # Between residues.
    np.testing.assert_array_equal(system.numbers, [0, 1, 2])


@pytest.mark.parametrize("name", LETTERS)
def test_every_residue_is_found_whatever_its_atoms_are_called(tmp_path, name):
    text = tripeptide(name)
    known = read(tmp_path, text)
    assert residues.RESIDUES[known.tokens[1] - 1].name == name
    of_slots = [known.atom_names[atom] for atom in known.slot_atoms[1] if atom >= 0]
    expected = list(residues.RESIDUES[known.tokens[1] - 1].slots)
    if name == "ILE":  # RDKit binds CD1 to CG2.
        expected[5:8:2] = expected[7:4:-2]
    assert of_slots == expected
    lines = [
        re.sub(r"^(.{12}).{4}", rf"\g<1>{f'{line[76:78].strip()}{i}':>4}", line)
        if line.startswith(("ATOM", "HETATM"))
        else line
        for i, line in enumerate(text.splitlines())
        if not line.startswith("CONECT")
    ]
    anonymous = read(tmp_path, "\n".join(lines))
    elements = [[n[0] for n in s.atom_names] for s in (known, anonymous)]
    assert elements[0] == elements[1]
    # Atoms that bonds cannot tell apart may have changed places, others not.
    twins = {"ASP": 2, "GLU": 2, "ARG": 2, "PHE": 4, "TYR": 4, "VAL": 2, "LEU": 2}
    moved = np.sum(known.slot_atoms[1] != anonymous.slot_atoms[1])
    assert moved <= twins.get(name, 0)


def test_hydrogens_water_and_the_second_oxygen_of_an_end_are_dropped(tmp_path):
    text = tripeptide("SER")
    hydrogen = text.splitlines()[0].replace(" N ", " H ")[:77] + "H"
    water = (
        "HETATM  900  O   HOH B   9      30.000  30.000  30.000  1.00  0.00           O"
    )
    assert "OXT" in text
    system = read(tmp_path, f"{hydrogen}\n{text.replace('END', water)}\nEND\n")
    assert len(system.tokens) == 3
    assert "OXT" not in system.atom_names
    assert all(not name.startswith("H") for name in system.atom_names)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (" ALA ", " XYZ ", "expected residues among .*ACE .* found XYZ2 of chain 0"),
        (
            "ATOM      5  CA  ALA",
            "REMARK",
            "expected the heavy atoms N CA C O CB of ALA",
        ),
        (
            "6.373   8.995   9.494",
            "1.373   8.995   9.494",
            "bonded as there, found N CA CB C O in ALA2",
        ),
    ],
)
def test_a_residue_that_cannot_be_used_is_named(tmp_path, old, new, told):
    with pytest.raises(UsageError, match=told):
        read(tmp_path, ALANINE_DIPEPTIDE.replace(old, new))


@pytest.mark.parametrize("name", ["CA", "BB"])
def test_beads_are_named_as_such(tmp_path, name):
    rows = [line for line in ALANINE_DIPEPTIDE.splitlines() if line[12:16] == " CA "]
    text = "\n".join(row.replace(" CA ", f" {name} ", 1) for row in rows)
    with pytest.raises(UsageError, match="beads, or CA alone; take the file of all"):
        read(tmp_path, f"{text}\nEND\n")


def test_a_selection_that_cuts_a_residue_is_told(tmp_path):
    topology, positions = load(tmp_path, ALANINE_DIPEPTIDE)
    with pytest.raises(UsageError, match=r"--select .* must keep whole residues"):
        read_system(topology, positions, "molecule.pdb", select="name CA")


@pytest.mark.parametrize("name", ["NMA", "NMT", "NAC", "CT3", "CBX"])
def test_a_cap_has_the_names_of_all_force_fields(tmp_path, name):
    system = read(tmp_path, ALANINE_DIPEPTIDE.replace("NME", name))
    assert residues.RESIDUES[system.tokens[-1] - 1].name == "NME"


def test_a_file_of_water_alone_has_no_residue(tmp_path):
    line = (
        "HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O"
    )
    with pytest.raises(
        UsageError, match="one residue of a protein, found none but HOH"
    ):
        read(tmp_path, line + "\nEND\n")


@pytest.mark.parametrize("text", [ALANINE_DIPEPTIDE, tripeptide("TRP")])
def test_a_system_is_a_topology_again(text, tmp_path):
    topology, positions = load(tmp_path, text)
    system = read_system(topology, positions, "molecule.pdb")
    made = to_topology(system)
    again = read_system(made, positions[system.kept], "made")
    for name in set(system._fields) - {"kept"}:
        np.testing.assert_array_equal(getattr(again, name), getattr(system, name))
    assert made.n_bonds == len(system.bonds)
