"""Tests of caps, protonation, restraints and heavy hydrogens; they need OpenMM."""

import mdtraj
import numpy as np
import pytest

from common.commands import cli
from common.errors import UsageError
from equijump import simulate

for name in ("openmm", "pdbfixer", "PeptideBuilder"):
    pytest.importorskip(name)
md = pytest.importorskip("equijump.md")
variants = pytest.importorskip("equijump.variants")
caps = pytest.importorskip("equijump.caps")


def peptide(sequence, start="extended", **renamed):
    """The text of a PDB file without caps, in which residues get other names."""
    text = md.build_peptide(sequence, False, start)
    for name, other in renamed.items():
        text = text.replace(name, other)
    return text


def names_of(molecule, residue):
    (found,) = (r for r in molecule.topology.residues() if r.index == residue)
    return {atom.name for atom in found.atoms()}


def prepared(text, **more):
    return md.prepare(text, "mine.pdb", **more)


@pytest.mark.parametrize("sequence", ["GAW", "PAP", "A"])
def test_caps_are_put_on_the_ends_of_a_file(sequence):
    found = prepared(peptide(sequence), caps=True)
    residues = [residue.name for residue in found.topology.residues()]
    assert (residues[0], residues[-1]) == ("ACE", "NME")
    assert len(residues) == len(sequence) + 2
    assert names_of(found, 1) & {"H1", "H2", "H3"} == set()
    assert "OXT" not in names_of(found, len(sequence))
    md.make_system(found.topology, "ff14SB", "obc2", 1.0)
    x = {(a.residue.index, a.name): found.positions[a.index] for a in heavy(found)}
    last = len(sequence)
    omegas = [
        [x[0, "CH3"], x[0, "C"], x[1, "N"], x[1, "CA"]],
        [x[last, "CA"], x[last, "C"], x[last + 1, "N"], x[last + 1, "C"]],
    ]
    for omega in omegas:
        assert abs(caps._dihedral(*omega)) > 170.0
        assert np.linalg.norm(omega[2] - omega[1]) == pytest.approx(0.1335, abs=1e-4)


def heavy(molecule):
    return [a for a in molecule.topology.atoms() if a.element.symbol != "H"]


def test_caps_clash_with_nothing_and_are_put_on_each_chain():
    one, two = peptide("AKFG", "helix"), peptide("GCW")
    moved = []
    for row in two.splitlines():
        if row.startswith("ATOM"):
            row = f"{row[:21]}B{row[22:30]}{float(row[30:38]) + 40:8.3f}{row[38:]}"
        moved.append(row)
    found = prepared("\n".join([*one.splitlines()[:-1], *moved]), caps=True)
    chains = [[r.name for r in chain.residues()] for chain in found.topology.chains()]
    assert [(chain[0], chain[-1]) for chain in chains] == [("ACE", "NME")] * 2
    x = np.array([found.positions[a.index] for a in heavy(found)])
    apart = np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(len(x), k=1)]
    assert apart.min() > 0.11


def test_caps_that_are_there_stay():
    text = md.build_peptide("AG", True, "extended")
    for capped in (False, True):
        found = prepared(text, caps=capped)
        names = [residue.name for residue in found.topology.residues()]
        assert names == ["ACE", "ALA", "GLY", "NME"]


def test_a_disulphide_stays_where_caps_are_put():
    rows = [row for row in peptide("CGGC").splitlines() if row.startswith("ATOM")]
    x = np.array([[float(row[a : a + 8]) for a in (30, 38, 46)] for row in rows])
    first, second = (i for i, row in enumerate(rows) if row[12:16].strip() == "SG")
    x[first] = x[second] + [0.0, 0.0, 2.05]
    rows = [
        f"{row[:30]}{''.join(f'{value:8.3f}' for value in place)}{row[54:]}"
        for row, place in zip(rows, x, strict=True)
    ]
    for text in ("\n".join(rows), md.to_pdb(prepared("\n".join(rows)))):
        found = prepared(text, caps=True)
        bonds = {(a.name, b.name) for a, b in found.topology.bonds()}
        assert ("SG", "SG") in bonds
        assert not [a for a in found.topology.atoms() if a.name == "HG"]
        md.make_system(found.topology, "ff14SB", "obc2", 1.0)


def test_names_of_the_file_tell_the_protonation():
    text = peptide("GDEHKG", ASP="ASH", GLU="GLH", HIS="HIP", LYS="LYN")
    found = prepared(text)
    assert "HD2" in names_of(found, 1)
    assert "HE2" in names_of(found, 2)
    assert {"HD1", "HE2"} <= names_of(found, 3)
    assert len({"HZ1", "HZ2", "HZ3"} & names_of(found, 4)) == 2
    md.make_system(found.topology, "ff14SB", "obc2", 1.0)
    assert prepared(text, ph=12.0).positions.shape == found.positions.shape


@pytest.mark.parametrize("name", ["HID", "HIE"])
def test_hydrogens_of_the_file_tell_the_protonation(name):
    first = prepared(peptide("GHG", HIS=name))
    expected = {"HID": "HD1", "HIE": "HE2"}[name]
    assert names_of(first, 1) & {"HD1", "HE2"} == {expected}
    text = md.to_pdb(first)  # OpenMM names it HIS.
    assert name not in text
    assert names_of(prepared(text), 1) == names_of(first, 1)


def test_the_ph_decides_what_the_file_leaves_open():
    text = peptide("GDKG")
    acid, base = prepared(text, ph=2.0), prepared(text, ph=12.5)
    assert "HD2" in names_of(acid, 1)
    assert "HD2" not in names_of(prepared(text), 1)
    assert len({"HZ1", "HZ2", "HZ3"} & names_of(base, 2)) == 2
    assert len({"HZ1", "HZ2", "HZ3"} & names_of(acid, 2)) == 3


def test_states_are_those_of_the_first_model():
    row = "ATOM      1  {:<3} {} A   5       0.000   0.000   0.000"
    rows = [row.format("NZ", "LYS"), row.format("HZ1", "LYS"), "ENDMDL"]
    later = [row.format("HZ2", "LYS"), row.format("HZ3", "LYS")]
    told = variants.read_states("\n".join(rows + later))
    assert told == {("A", "5", ""): "LYN"}
    assert variants.read_states("\n".join(rows[:1])) == {}


def test_heavy_hydrogens_take_their_mass_from_what_they_are_on():
    topology = prepared(peptide("AG")).topology
    own, heavier = (
        md.make_system(topology, "ff14SB", "none", 1.0, mass) for mass in (0.0, 3.0)
    )
    masses = lambda s: np.array([
        s.getParticleMass(i)._value for i in range(s.getNumParticles())
    ])  # fmt: skip
    is_hydrogen = np.array([a.element.symbol == "H" for a in topology.atoms()])
    np.testing.assert_allclose(masses(heavier)[is_hydrogen], 3.0)
    assert masses(own).sum() == pytest.approx(masses(heavier).sum())


def run(output, *more):
    quick = ("--solvent=none", "--platform=Reference", "--equilibration=0")
    given = [*quick, "--processes=1", *more, f"--output={output}"]
    return cli.run("equijump simulate", simulate.main, given)


def test_restrained_atoms_stay_where_they_were(tmp_path):
    given = ("--sequence=AA", "--caps", "--step=4", "--hydrogen_mass=3")
    given = (*given, "--length=0.02", "--temperature=600")
    spread = {}
    for name, more in (("free", ()), ("held", ("--restrain=name CA",))):
        assert run(tmp_path / name, *given, *more) == 0
        stem = tmp_path / name / "ace_aa_nme"
        found = mdtraj.load(f"{stem}_0.xtc", top=f"{stem}.pdb")
        places = found.xyz[:, found.topology.select("name CA")]
        spread[name] = places.std(axis=0).mean()
    assert spread["held"] < 0.1 < spread["free"]


@pytest.mark.parametrize(
    ("selection", "told"),
    [("name ZZ", "with none; 'name CA' is one"), ("of what", "expected a selection")],
)
def test_selections_that_cannot_be_are_told(selection, told):
    molecule = prepared(peptide("AG"))
    with pytest.raises(UsageError, match=told):
        md.restrain(md.openmm.System(), molecule, selection)
