"""Tests of the structure-based model and its folding temperature; need OpenMM."""

import json

import mdtraj
import numpy as np
import pytest

from common.commands import cli
from common.errors import RunError, UsageError
from equijump import folding, simulate
from equijump.data.sources import trajectories
from equijump.simulation import GAS_CONSTANT

for name in ("openmm", "pdbfixer", "PeptideBuilder"):
    pytest.importorskip(name)
md = pytest.importorskip("equijump.md")
structure_based = pytest.importorskip("equijump.structure_based")

SEQUENCE = "APWKFCG"


def prepared(sequence=SEQUENCE, start="helix"):
    """A molecule without hydrogens, without clashes."""
    molecule = md.prepare(md.build_peptide(sequence, True, start), "", built=True)
    system = md.make_system(molecule.topology, "ff14SB", "none", 1.0)
    context = md.open_context(
        system, md.Engine("Reference"), md.Settings(300.0, 1.0, 0.002), 1
    )
    return md.heavy_atoms(md.minimise(context, molecule, 200)[0])[0]


@pytest.fixture(scope="module")
def helix():
    return prepared()


@pytest.fixture(scope="module")
def native(helix):
    return structure_based.read_native(helix, "helix")


def opened(native, contacts="gaussian", epsilon=1.0):
    masses = [1.0] * len(native.positions)
    system = structure_based.make_system(native, masses, epsilon, contacts)
    settings = md.Settings(100.0, 1.0, 0.002)
    return md.open_context(system, md.Engine("Reference"), settings, 1)


def energy_at(context, positions):
    context.setPositions(positions)
    return md.energy(context)


@pytest.mark.parametrize("contacts", structure_based.CONTACTS)
def test_the_native_structure_is_the_minimum(native, contacts):
    """Contacts and repulsion alone have a force there, and that one is small."""
    context = opened(native, contacts)
    lowest = energy_at(context, native.positions)
    assert lowest == pytest.approx(-2 / 3 * len(native.positions), rel=0.02)
    rng = np.random.default_rng(0)
    for _ in range(5):
        moved = native.positions + rng.normal(0.0, 0.01, native.positions.shape)
        assert energy_at(context, moved) > lowest
    assert energy_at(opened(native, contacts, 2.5), native.positions) == (
        pytest.approx(2.5 * lowest, rel=1e-6)
    )


def test_energy_is_shared_between_contacts_and_bonds_that_turn(native, helix):
    num_atoms = len(native.positions)
    assert native.strengths.sum() == pytest.approx(num_atoms / 3)
    names = [atom.name for atom in helix.topology.atoms()]
    residues = [atom.residue.name for atom in helix.topology.atoms()]
    each = {}
    for (_, j, k, _), strength in zip(native.torsions, native.strengths, strict=True):
        each.setdefault((j, k), []).append(strength)
    total = {
        (residues[j], *sorted((names[j], names[k]))): sum(strengths)
        for (j, k), strengths in each.items()
    }
    assert total["TRP", "CA", "N"] == pytest.approx(2 * total["TRP", "CA", "CB"])
    for stiff in (("TRP", "CD1", "CG"), ("PRO", "CA", "N"), ("PHE", "CE1", "CZ")):
        assert total[stiff] == 0.0
    assert total["ALA", "C", "N"] == 0.0


def test_contacts_are_near_in_space_and_far_along_the_chain(native, helix):
    residues = np.array([a.residue.index for a in helix.topology.atoms()])
    i, j = native.contacts.T
    apart = np.linalg.norm(native.positions[i] - native.positions[j], axis=-1)
    assert apart.max() < structure_based.FARTHEST_CONTACT
    assert (np.abs(residues[i] - residues[j]) >= 3).all()
    assert structure_based.fraction_native(native.positions, native) > 0.95
    stretched = 2.0 * native.positions
    assert structure_based.fraction_native(stretched, native) < 1e-3


def test_a_torsion_is_as_openmm_has_it(native):
    """So that the minimum of each torsion is at that of the structure."""
    force = md.openmm.CustomTorsionForce("theta")
    four = native.torsions[7].tolist()
    force.addTorsion(*four, [])
    system = md.openmm.System()
    for _ in native.positions:
        system.addParticle(1.0)
    system.addForce(force)
    settings = md.Settings(100.0, 1.0, 0.002)
    context = md.open_context(system, md.Engine("Reference"), settings, 1)
    found = energy_at(context, native.positions)
    expected = structure_based._dihedral(*native.positions[four])
    assert abs(np.sin(found - expected)) < 1e-5
    assert np.cos(found - expected) > 0.0


def test_repulsion_of_few_atoms_is_that_of_many(native, monkeypatch):
    rng = np.random.default_rng(1)
    moved = native.positions + rng.normal(0.0, 0.02, native.positions.shape)
    few = energy_at(opened(native), moved)
    monkeypatch.setattr(structure_based, "_FEW_ATOMS", 0)
    assert energy_at(opened(native), moved) == pytest.approx(few, abs=0.05)


def test_what_has_no_fold_is_refused():
    extended = prepared("GGGG", "extended")
    with pytest.raises(UsageError, match="expected contacts of residues 3 or more"):
        structure_based.read_native(extended, "mine.pdb")


@pytest.fixture
def pdb(helix, tmp_path):
    path = tmp_path / "native.pdb"
    path.write_text(md.to_pdb(helix))
    return path


def run(output, pdb, *more):
    given = ["--model=go", f"--pdb={pdb}", f"--output={output}", *more]
    quick = ["--platform=Reference", "--processes=1", "--equilibration=0"]
    return cli.run("equijump simulate", simulate.main, [*given, *quick])


@pytest.mark.parametrize(
    ("units", "kelvin"),
    [(("--units=reduced", "--temperature=1"), 120.27), (("--epsilon=3",), 300.0)],
)
def test_trajectories_have_times_in_ps_and_heavy_atoms(tmp_path, pdb, units, kelvin):
    out = tmp_path / "out"
    assert run(out, pdb, *units, "--spacing=0.1", "--length=0.001") == 0
    found = mdtraj.load(str(out / "native_0.xtc"), top=str(out / "native.pdb"))
    np.testing.assert_allclose(found.time, 0.1 * np.arange(1, 11), atol=1e-5)
    assert not [a for a in found.topology.atoms if a.element.symbol == "H"]
    record = json.loads((out / "simulate.json").read_text())
    assert record["temperature_kelvin"] == pytest.approx(kelvin, abs=0.01)
    assert "no constraints" in record["integrator"]
    conditions = trajectories.read_conditions(out / "native_0.xtc")
    assert conditions["temperature"] == record["temperature_kelvin"]


def test_the_folding_temperature_is_written_and_told(tmp_path, pdb, capsys):
    given = ("--find_folding_temperature", "--units=reduced")
    assert run(tmp_path / "out", pdb, *given, "--length=0.004") == 0
    report = json.loads((tmp_path / "out" / "folding.json").read_text())
    assert 0.9 < report["folding_temperature"] < 2.0
    assert len(report["runs"]) == 12
    assert "give it as --temperature" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.xtc"))


def two_states(temperatures, gap=20.0, entropy=20.0 / 150.0, num_samples=20_000):
    """Samples of a system that folds at `gap / entropy`, here 150 K."""
    rng = np.random.default_rng(0)
    found = {}
    for t in temperatures:
        log_odds = gap / (GAS_CONSTANT * t) - entropy / GAS_CONSTANT
        folded = rng.random(num_samples) < 1.0 / (1.0 + np.exp(-log_odds))
        energies = np.where(folded, -gap, 0.0)
        found[t] = folding.Samples(energies, np.where(folded, 0.9, 0.1))
    return found


def test_the_folding_temperature_of_two_states_is_found():
    found = two_states((120.0, 145.0, 160.0, 200.0))
    assert folding.folding_temperature(found) == pytest.approx(150.0, abs=0.3)
    assert folding.middle(found) == pytest.approx(0.5, abs=0.01)


def test_a_ladder_that_misses_the_folding_temperature_is_told():
    with pytest.raises(RunError, match=r"of the frames at 180 to 200 K .* a longer"):
        folding.folding_temperature(two_states((180.0, 200.0)))
