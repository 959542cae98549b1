"""Tests of relaxed molecules. Positions in Å."""

import json

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from common.errors import UsageError
from symphony import data, relax, score
from symphony.chemistry import relaxing
from symphony.likelihood import Score


def ethanol(stretch=1.0):
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    mol.GetConformer().SetPositions(stretch * mol.GetConformer().GetPositions())
    mol.SetProp("_Name", "ethanol")
    mol.SetProp("log_likelihood", "-1.0")
    mol.SetProp("smiles", "CCO")
    return mol


@pytest.mark.parametrize("method", relax.NAMES)
def test_energies_agree_with_their_gradients(method):
    pytest.importorskip(relax.EXTRA.get(method, "rdkit"))
    mol = ethanol(1.02)
    energy = relaxing.METHODS[method][0](mol)
    start = mol.GetConformer().GetPositions().ravel()
    step = np.random.default_rng(0).normal(size=start.size)
    step *= 1e-3 / np.linalg.norm(step)
    _, gradient = energy(start)
    slope = (energy(start + step)[0] - energy(start - step)[0]) / 2.0
    np.testing.assert_allclose(slope, gradient @ step, rtol=2e-3)


def test_a_stretched_molecule_relaxes_to_the_same_as_a_good_one():
    good, bad = relaxing.relax(ethanol(), "mmff"), relaxing.relax(ethanol(1.1), "mmff")
    assert bad.energy_change < good.energy_change < 0.0
    assert bad.rmsd > good.rmsd
    assert bad.force > good.force
    assert good.is_converged
    field = relaxing.by_mmff(good.mol)
    ends = [field(one.mol.GetConformer().GetPositions().ravel()) for one in (good, bad)]
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-3)
    assert np.abs(ends[1][1]).max() < 2.0 * relaxing.FORCE


def test_relaxed_molecules_lie_beside_the_raw_ones(tmp_path):
    path = tmp_path / "mine.sdf"
    path.write_text("".join(map(Chem.SDWriter.GetText, (ethanol(), ethanol(1.1)))))
    raw = path.read_bytes()
    relax.check(path, "mmff", overwrite=False)
    line = relax.run(path, "mmff")
    assert "mine_mmff.sdf: 2 of 2 molecules relaxed by mmff" in line
    assert path.read_bytes() == raw
    mols = list(Chem.SDMolSupplier(str(tmp_path / "mine_mmff.sdf"), removeHs=False))
    changes = [mol.GetDoubleProp("relax_energy_change_eV") for mol in mols]
    assert changes[1] < changes[0] < 0.0
    assert mols[1].GetDoubleProp("relax_rmsd") > 0.05
    assert mols[0].GetProp("smiles") == "CCO"
    assert not mols[0].HasProp("log_likelihood")
    # A command that runs again replaces its own file, and no edited one.
    relax.check(path, "mmff", overwrite=False)
    (tmp_path / "mine_mmff.sdf").write_text("mine")
    with pytest.raises(UsageError, match="edited since"):
        relax.check(path, "mmff", overwrite=False)


def test_ranks_are_by_energy_within_a_formula():
    ether = Chem.AddHs(Chem.MolFromSmiles("COC"))
    made = [(ethanol(), -3.0), (ether, -5.0), (Chem.MolFromSmiles("O"), -1.0)]
    found = [relaxing.Relaxed(mol, energy, 0.0, 0.0, 0.0, True) for mol, energy in made]
    assert relax._ranks(found) == [2, 1, 1]


def test_a_molecule_without_energy_is_named(tmp_path):
    path = tmp_path / "mine.sdf"
    odd = Chem.MolFromSmiles("[Xe]")
    odd.SetProp("_Name", "xenon")
    conformer = Chem.Conformer(1)
    odd.AddConformer(conformer)
    texts = map(Chem.SDWriter.GetText, (odd, ethanol(), ethanol()))
    path.write_text("".join(texts))
    assert "2 of 3" in relax.run(path, "mmff")
    record = json.loads((tmp_path / "mine_mmff.json").read_text())
    assert list(record["without_energy"]) == ["xenon"]


def test_what_cannot_relax_is_told_at_once(tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match="--relax: expected one of mmff, gfn2, energy, found uff"
    ):
        relax.check(tmp_path / "mine.sdf", "uff", overwrite=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install tblite, or give --relax=mm"):
        relax.check(tmp_path / "mine.sdf", "gfn2", overwrite=False)


def arrays(mol):
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    return numbers, mol.GetConformer().GetPositions().astype(np.float32)


def test_scores_tell_what_relaxation_changes(tmp_path):
    numbers, positions = arrays(ethanol(1.02))
    alone = np.array([8], np.uint8), np.zeros((1, 3), np.float32)
    molecules = data.make_molecules(
        np.array([len(numbers), 1]),
        np.concatenate([numbers, alone[0]]),
        np.concatenate([positions, alone[1]]),
    )
    named = score._with_bonds(molecules)
    assert named[1][1] is None
    found = relax.relax_each(named, "mmff")
    some = [Score(-1.0, 0.1, 2.0, -2.0, np.zeros(n), -0.1) for n in (9, 1)]
    path = tmp_path / "scores.csv"
    relaxed = [result for _, result in found]
    score.write_scores(path, molecules, dict(enumerate(some)), 16, 32, {}, relaxed)
    head, first, second = path.read_text().splitlines()
    assert head.endswith("num_direction_samples,relax_energy_change_eV,relax_rmsd")
    assert float(first.split(",")[-2]) < 0.0 < float(first.split(",")[-1])
    assert second.endswith(",nan,nan")
    assert "1 of 2 molecules relaxed" in relax.write(path, "mmff", found, "it")
    assert (tmp_path / "scores_mmff.sdf").read_text().count("$$$$") == 1
