"""Tests of which residues and bonds a file has: gaps, links, caps, what is left out."""

import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from common.errors import UsageError
from equijump import rejection
from equijump.data import molecules, residues, topology
from equijump.data.residues import RESIDUES, TOKENS
from tests.equijump.test_data_topology import ALANINE_DIPEPTIDE, load, read, tripeptide


def atom(name, residue, number, place, element=None, chain="A"):
    """A line of a PDB file."""
    x, y, z = place
    return (
        f"HETATM    1 {name:<4} {residue:>3} {chain}{number:4}    {x:8.3f}{y:8.3f}"
        f"{z:8.3f}  1.00  0.00          {element or name[0]:>2}"
    )


def with_lines(text, *lines):
    body = [x for x in text.splitlines() if x.startswith(("ATOM", "HETATM"))]
    return "\n".join([*body, *lines, "END", ""])


def peptide(sequence, seed=1):
    molecule = Chem.AddHs(Chem.MolFromSequence(sequence))
    assert AllChem.EmbedMolecule(molecule, randomSeed=seed) == 0
    return Chem.MolToPDBBlock(Chem.RemoveHs(molecule))


def names(system):
    return [RESIDUES[token - 1].name for token in system.tokens]


FAR = (40.0, 40.0, 40.0)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([atom("O", "HOH", 9, FAR)], "left out: 1 water"),
        ([atom("OH2", "TP3", 9, FAR)], "left out: 1 water"),
        (
            [atom("OW", "T4P", 9, FAR), atom("MW", "T4P", 9, FAR, "VS")],
            "left out: 1 water",
        ),
        (
            [atom("ZN", "ZN", 9, FAR, "Zn"), atom("MG", "MG", 10, FAR, "Mg")],
            "left out: 2 ions (ZN, MG)",
        ),
        ([atom("CA", "CA", 9, FAR, "Ca")], "left out: 1 ion (CA)"),
        ([atom("CLA", "CLA", 9, FAR, "Cl")], "left out: 1 ion (CLA)"),
        (
            [
                *(atom(f"C{k}", "LIG", 9, (40 + 1.4 * k, 40, 40)) for k in range(4)),
                atom("O", "HOH", 10, (50, 50, 50)),
            ],
            "left out: 1 water, 1 other molecule (LIG)",
        ),
        (
            [atom("P", "DA", 1, FAR), atom("O1P", "DA", 1, (41.5, 40, 40))],
            "left out: 1 other molecule (DA)",
        ),
    ],
)
def test_what_is_no_protein_is_left_out_and_told(tmp_path, lines, told):
    found = load(tmp_path, with_lines(ALANINE_DIPEPTIDE, *lines))
    system, notes = molecules.survey(*found, "a.pdb")
    assert names(system) == ["ACE", "ALA", "NME"]
    assert notes == [told]
    np.testing.assert_array_equal(system.kept, np.arange(10))


def test_a_note_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(molecules, "_told", set())
    lines = []
    monkeypatch.setattr(molecules.logging, "info", lambda text, *a: lines.append(a))
    text = with_lines(ALANINE_DIPEPTIDE, atom("O", "HOH", 9, FAR))
    for _ in range(3):
        read(tmp_path, text)
    assert lines == [("molecule.pdb", "left out: 1 water")]


def test_a_metal_that_the_protein_holds_is_left_out(tmp_path):
    near = (8.4, 10.7, 5.2)  # 2 Å from the oxygen of alanine.
    text = with_lines(ALANINE_DIPEPTIDE, atom("ZN", "ZN", 9, near, "Zn"))
    assert len(read(tmp_path, text).kept) == 10


def test_a_ligand_that_is_bonded_is_refused(tmp_path):
    lines = [atom("C1", "LIG", 9, (5.2, 8.2, 9.0)), atom("C2", "LIG", 9, (4, 7.5, 9))]
    text = with_lines(ALANINE_DIPEPTIDE, *lines)
    told = r"found LIG9 of chain 0, bonded to the protein; .*--select .not resname LIG"
    with pytest.raises(UsageError, match=told):
        read(tmp_path, text)
    found = load(tmp_path, text)
    system, _ = molecules.survey(*found, "a.pdb", select="not resname LIG")
    assert names(system) == ["ACE", "ALA", "NME"]


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ("protein and", "expected MDTraj's selection language"),
        ("name XX", "found none"),
    ],
)
def test_a_selection_that_cannot_be_is_told(tmp_path, select, told):
    found = load(tmp_path, ALANINE_DIPEPTIDE)
    with pytest.raises(
        UsageError, match=rf"--select \(config\.data\.select\): .*{told}"
    ):
        molecules.survey(*found, "a.pdb", select=select)


def test_a_gap_in_a_chain_begins_another_one(tmp_path):
    text = peptide("GAGAG")
    kept = [x for x in text.splitlines() if x[22:26].strip() != "3"]
    system, notes = molecules.survey(*load(tmp_path, with_lines("\n".join(kept))), "a")
    np.testing.assert_array_equal(system.chains, [0, 0, 1, 1])
    np.testing.assert_array_equal(system.numbers, [0, 1, 0, 1])
    assert notes[0].startswith("no bond C-N from ALA2 to ALA4 (")
    assert len(system.bonds) == 2 * (4 + 3 + 1)


def test_two_chains_of_one_name_are_two(tmp_path):
    first = peptide("AG")
    shifted = [
        f"{x[:30]}{float(x[30:38]) + 20:8.3f}{x[38:]}"
        for x in first.splitlines()
        if x.startswith("ATOM")
    ]
    system = read(tmp_path, with_lines(first, *shifted))
    np.testing.assert_array_equal(system.chains, [0, 0, 1, 1])
    lengths = np.linalg.norm(np.diff(load(tmp_path, with_lines(first, *shifted))[1][
        system.kept][system.bonds], axis=1), axis=-1)  # fmt: skip
    assert lengths.max() < 2.0


def ring(smiles):
    """A molecule in the form of a PDB, its residues by the bonds between them."""
    molecule = Chem.AddHs(smiles)
    assert AllChem.EmbedMolecule(molecule, randomSeed=3) == 0
    return Chem.MolToPDBBlock(Chem.RemoveHs(molecule))


def joined(sequence, ends):
    """A peptide with a further bond, its ends as (residue, atom); water leaves."""
    editable = Chem.RWMol(Chem.MolFromSequence(sequence))
    place = {
        (
            a.GetPDBResidueInfo().GetResidueNumber(),
            a.GetPDBResidueInfo().GetName().strip(),
        ): a.GetIdx()
        for a in editable.GetAtoms()
    }
    editable.AddBond(place[ends[0]], place[ends[1]], Chem.BondType.SINGLE)
    for lost in ends[2:]:
        editable.RemoveAtom(place[lost])
    made = editable.GetMol()
    Chem.SanitizeMol(made)
    return ring(made)


@pytest.mark.parametrize(
    ("sequence", "ends", "told"),
    [
        ("CGGC", [(1, "SG"), (4, "SG")], "SG of CYS1 and SG of CYS4"),
        ("GAGAGA", [(1, "N"), (6, "C"), (6, "OXT")], "N of GLY1 and C of ALA6"),
        ("KGGA", [(1, "NZ"), (4, "C"), (4, "OXT")], "NZ of LYS1 and C of ALA4"),
    ],
)
def test_links_between_residues_are_bonds(tmp_path, sequence, ends, told):
    positions = load(tmp_path, joined(sequence, ends))
    system, notes = molecules.survey(*positions, "a.pdb")
    assert notes == [f"bonds besides those of the chain: {told}"]
    open_system = read(tmp_path, peptide(sequence))
    assert len(system.bonds) == len(open_system.bonds) + 1
    near = topology.nearby(system.bonds, len(system.kept))
    assert near[tuple(system.bonds[-1])]
    graph = rejection.graph_of(system)
    atoms = jnp.asarray(positions[1][system.kept], jnp.float32)
    assert rejection.is_intact(
        graph, rejection.reference_of(graph, atoms), rejection.GATE, atoms
    )
    made = topology.to_topology(system)
    assert made.n_bonds == len(system.bonds)
    assert not topology.is_same(system, open_system)
    assert "without the bond" in topology.difference(system, open_system)
    assert "with the bond" in topology.difference(open_system, system)


def test_what_is_close_and_no_known_link_is_told(tmp_path):
    text = peptide("AG")
    second = [
        f"{x[:21]}B{x[22:30]}{float(x[30:38]) + 0.9:8.3f}{x[38:]}"
        for x in text.splitlines()
        if x.startswith("ATOM")
    ]
    system, notes = molecules.survey(
        *load(tmp_path, with_lines(text, "TER", *second)), "a"
    )
    assert len(system.tokens) == 4
    assert any("and not taken for one" in note for note in notes)


def replaced(text, residue, renamed, *extra):
    """A tripeptide whose middle residue has another name, atoms and elements."""
    for old, new, element in renamed:
        text = "\n".join(
            f"{x[:12]}{new:^4}{x[16:76]}{element:>2}{x[78:]}"
            if x[12:16].strip() == old and x[22:26].strip() == "2"
            else x
            for x in text.splitlines()
        )
    lines = [
        f"{x[:17]}{residue}{x[20:]}" if x[22:26].strip() == "2" else x
        for x in text.splitlines()
    ]
    ends = [x for x in lines if x[22:26].strip() == "3"]
    middle = [x for x in lines if x[22:26].strip() in ("1", "2")]
    return with_lines("\n".join(middle), *extra, *ends)


def beyond(text, base, before, length):
    """A place so many Å from an atom, away from another one; of residue 2."""
    found = {
        x[12:16].strip(): np.array([float(x[30:38]), float(x[38:46]), float(x[46:54])])
        for x in text.splitlines()
        if x[22:26].strip() == "2"
    }
    away = found[base] - found[before]
    return found[base] + length * away / np.linalg.norm(away)


def phosphate(text, oxygen, before):
    phosphorus = beyond(text, oxygen, before, 1.6)
    spread = [(1.5, 0, 0), (0, 1.5, 0), (0, 0, 1.5)]
    return phosphorus, [phosphorus + np.array(s) for s in spread]


def test_modified_residues_are_types(tmp_path):
    met, ser, tyr = tripeptide("MET"), tripeptide("SER"), tripeptide("TYR")
    mse = replaced(met, "MSE", [("SD", "SE", "SE")])
    nle = replaced(met, "NLE", [("SD", "CD", "C")])
    for text, name in ((mse, "MSE"), (nle, "NLE")):
        system = read(tmp_path, text)
        assert names(system) == ["GLY", name, "GLY"]
        assert system.slot_atoms.shape[1] == residues.num_slots_of(len(RESIDUES))
        again = read(tmp_path, text)
        assert topology.is_same(system, again)
        elements = [a.element.symbol for a in topology.to_topology(system).atoms]
        assert ("Se" in elements) == (name == "MSE")
    for text, name, oxygen, before in (
        (ser, "SEP", "OG", "CB"), (tyr, "PTR", "OH", "CZ"),
    ):  # fmt: skip
        center, around = phosphate(text, oxygen, before)
        lines = [atom("P", name, 2, center)]
        lines += [atom(f"O{k}P", name, 2, x) for k, x in enumerate(around, start=1)]
        system = read(tmp_path, replaced(text, name, [], *lines))
        assert names(system)[1] == name


def test_a_type_that_a_network_does_not_know_is_refused(tmp_path):
    system = read(tmp_path, replaced(tripeptide("MET"), "NLE", [("SD", "CD", "C")]))
    assert topology.fit_to(system, len(RESIDUES), "a").slot_atoms.shape == (3, 16)
    with pytest.raises(UsageError, match=r"a: .* found NLE as residue 2; train a net"):
        topology.fit_to(system, residues.NUM_TYPES, "a")


def test_an_atom_beyond_those_of_a_residue_is_refused(tmp_path):
    text = tripeptide("SER")
    place = beyond(text, "OG", "CB", 1.4)
    told = r"heavy atoms N CA C O CB OG of SER, found CX besides in SER2 of chain 0"
    with pytest.raises(UsageError, match=told):
        read(tmp_path, replaced(text, "SER", [], atom("CX", "SER", 2, place)))


def as_patches():
    """Alanine dipeptide with caps as a part of alanine, as CHARMM writes them."""
    new = {"CH3": "CAY", "C": "CY", "O": "OY"}
    lines = []
    for x in ALANINE_DIPEPTIDE.splitlines()[:10]:
        name, residue = x[12:16].strip(), x[17:20]
        if residue == "ACE":
            name = new[name]
        if residue == "NME":
            name = {"N": "NT", "C": "CAT"}[name]
        lines.append(f"{x[:12]} {name:<4}ALA A   2{x[26:]}")
    return "\n".join([*lines, "END", ""])


def test_caps_inside_a_residue_are_residues(tmp_path):
    system = read(tmp_path, as_patches())
    plain = read(tmp_path, ALANINE_DIPEPTIDE)
    assert names(system) == ["ACE", "ALA", "NME"]
    assert topology.is_same(system, plain)
    np.testing.assert_array_equal(system.slot_atoms >= 0, plain.slot_atoms >= 0)
    np.testing.assert_array_equal(system.numbers, [0, 1, 2])


def test_an_amide_ends_a_chain(tmp_path):
    lines = [x for x in ALANINE_DIPEPTIDE.splitlines() if "  C   NME" not in x]
    system = read(tmp_path, "\n".join(lines).replace("NME", "NH2"))
    assert names(system) == ["ACE", "ALA", "NH2"]
    assert [6, 8] in system.bonds.tolist()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NALA", "ALA"), ("CALA", "ALA"), ("HSD", "HIS"), ("HID", "HIS"),
        ("CYX", "CYS"), ("NHIE", "HIS"), ("LYSH", "LYS"), ("GLUP", "GLU"),
        ("NMA", "NME"), ("NHE", "NH2"), ("ala", "ALA"), ("HOH", None), ("NXYZ", None),
    ],
)  # fmt: skip
def test_names_of_force_fields_are_known(name, known):
    assert residues.token_of(name) == TOKENS.get(known)


def test_bonds_come_from_near_images_in_the_first_frame(tmp_path):
    frame, positions = load(tmp_path, ALANINE_DIPEPTIDE)
    box = 15.0 * np.eye(3)
    plain = molecules.read_system(frame, positions, "a")
    moved = positions + np.array([7.0, 3.0, 6.0])
    split = molecules.read_system(frame, moved % 15.0, "a", box)
    for ours, theirs in zip(split, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_structure_of_mdtraj_alone_is_read(tmp_path):
    path = tmp_path / "a.pdb"
    path.write_text(ALANINE_DIPEPTIDE)
    frame = mdtraj.load(str(path))
    for known in frame.topology.atoms:
        known.element = None
    system = molecules.read_system(
        frame.topology, 10.0 * frame.xyz[0].astype(float), ""
    )
    assert names(system) == ["ACE", "ALA", "NME"]
