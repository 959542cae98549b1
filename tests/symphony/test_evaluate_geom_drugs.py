"""The revised evaluation of GEOM-Drugs, on molecules made by hand."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from symphony.chemistry import bonds, deformation, geom_drugs
from symphony.evaluate import conventions, relaxation


def describe(smiles):
    """Returns atomic numbers and what is perceived, as if from positions."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    return numbers, bonds.describe(mol)


def unstable(smiles):
    """Returns the symbols of the atoms that are not stable."""
    numbers, found = describe(smiles)
    stable = geom_drugs.stable_atoms(numbers, found)
    table = Chem.GetPeriodicTable()
    return [table.GetElementSymbol(int(n)) for n in numbers[~stable]]


@pytest.mark.parametrize(
    "smiles",
    [
        "CCO",
        "c1ccccc1",  # Carbon (2, 1).
        "c1ccc2ccccc2c1",  # Carbon (3, 0).
        "c1ccncc1",  # Nitrogen (2, 0).
        "c1cc[nH]c1",  # Nitrogen (2, 1).
        "c1ccn2cccc2c1",  # Nitrogen (3, 0).
        "c1ccoc1",  # Oxygen (2, 0).
        "c1ccsc1",
        "O=c1cc[nH]cc1",  # Carbon (2, 2): aromatic with a double bond outside.
        "[NH3+]CC(=O)[O-]",
        "C[N+](C)(C)C",
        "CS(C)(=O)=O",
        "CP(=O)(O)O",
        "FC(F)(Cl)Br",
        "C[Si](C)(C)C",
        "[C-]#[O+]",
    ],
)
def test_atoms_are_stable_by_the_table(smiles):
    assert unstable(smiles) == []


@pytest.mark.parametrize(
    ("smiles", "symbols"),
    [
        ("[CH3]", ["C"]),  # The table before the revision had 3 for carbon.
        ("[NH2]", ["N"]),
        ("C[NH]", ["N"]),
        ("[H+]", ["H"]),
        ("C[SH2]C", ["S"]),
        ("C[Se]C", ["Se"]),  # Not in the data, so not in the table.
        ("[O-][Cl+3]([O-])([O-])[O-]", ["Cl"]),
    ],
)
def test_radicals_strange_charges_and_strange_elements_are_not(smiles, symbols):
    assert unstable(smiles) == symbols


def test_aromatic_bonds_are_counted_apart_and_never_rounded():
    numbers, benzene = describe("c1ccccc1")
    halves = [order for *_, order in benzene.bonds if order == 1.5]
    assert len(halves) == 6
    # As one each, as before the revision, they leave a carbon with three bonds.
    rounded = [(i, j, 1.0) for i, j, _ in benzene.bonds]
    for orders, stable in ((benzene.bonds, 12), (tuple(rounded), 6)):
        found = benzene._replace(bonds=orders)
        assert geom_drugs.stable_atoms(numbers, found).sum() == stable


def test_a_kekulized_molecule_is_stable_too():
    mol = Chem.AddHs(Chem.MolFromSmiles("c1ccncc1"))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    assert geom_drugs.stable_atoms(numbers, bonds.describe(mol)).all()


def test_validity_asks_for_one_piece_and_nothing_of_stability():
    statuses = {
        smiles: geom_drugs.judge(describe(smiles)[1]).status
        for smiles in ("CCO", "O.O", "[CH3]", "[NH3+]CC(=O)[O-]")
    }
    assert statuses == {
        "CCO": "valid", "O.O": "disconnected", "[CH3]": "valid",
        "[NH3+]CC(=O)[O-]": "valid",
    }  # fmt: skip
    assert unstable("O.O") == []  # Stable, though not valid.
    failed = bonds.Perception("no bond orders fit")
    assert geom_drugs.judge(failed) is failed


def test_molecules_without_bonds_have_no_stable_atoms_and_stay_in_the_share():
    numbers, found = describe("CCO")
    place = np.zeros((9, 3))
    pairs = [(numbers, place), (numbers, place), (numbers[:0], place[:0])]
    told = [found, bonds.Perception("timeout"), bonds.Perception("no atoms")]
    stable = geom_drugs.stability(pairs, told)
    assert (stable.num_atoms, stable.num_stable_atoms) == (18, 9)
    assert stable.molecule_stability == pytest.approx(1 / 3)


def test_a_perception_survives_the_way_through_a_worker():
    _, found = describe("[NH3+]CC(=O)[O-]")
    assert found.charges[0] == 1
    values = {
        k: list(v) if isinstance(v, tuple) else v for k, v in found._asdict().items()
    }
    assert bonds.from_json(values) == found


def test_the_convention_judges_the_bonds_of_hueckel():
    water = np.array([8, 1, 1], np.uint8)
    place = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    two = np.tile(water, 2), np.concatenate([place, place + 8.0])
    judged = conventions.judge([(water, place), two], ["geom_drugs"])
    score = judged.scores["geom_drugs"]
    assert list(judged.scores) == ["geom_drugs"]
    assert (score.num_valid, score.failures) == (1, {"disconnected": 1})
    assert (score.atom_stability, score.molecule_stability) == (1.0, 1.0)


def embed(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return mol


@pytest.mark.parametrize(
    ("smiles", "counts"),
    [
        ("O", (2, 1, 0)),
        ("CC", (7, 12, 9)),  # 3 x 3 torsions about the only bond that turns.
        ("CC#N", (5, 7, 0)),  # None at a triple bond.
        (
            "C1CC1",
            (9, 18, 24),
        ),  # Bonds of rings count; 8 each, none from an atom to itself.
    ],
)
def test_all_bonds_angles_and_torsions_are_measured(smiles, counts):
    mol = embed(smiles)
    makers = (deformation.lengths, deformation.angles, deformation.torsions)
    assert tuple(len(make(mol)) for make in makers) == counts


def test_a_torsion_that_passes_the_half_turn_changes_by_little():
    change = deformation._change([[179.0, -10.0], [-179.0, 10.0]], period=360.0)
    assert change == [2.0, 20.0]


def test_means_are_over_all_of_all_molecules():
    some = deformation.Deformation([0.1], [1.0, 2.0], [], 1.0, 0.1)
    other = deformation.Deformation([0.2, 0.3, 0.4], [3.0], [], 4.0, 0.3)
    found = relaxation.summarize([some, other, some], {"timeout": 2})
    assert found.bonds == pytest.approx(1.1 / 5)
    assert found.angles == pytest.approx(9.0 / 5)
    assert found.torsions is None
    assert (found.energy_median, found.energy_mean) == (1.0, 2.0)
    assert (found.num_molecules, found.num_failed) == (3, 2)
    nothing = relaxation.summarize([], {"not relaxed": 1})
    assert (nothing.energy_median, nothing.num_failed) == (None, 1)


def test_a_stretched_bond_relaxes_by_gfn2():
    pytest.importorskip("tblite")
    mol = embed("O")
    place = mol.GetConformer()
    end = np.array(place.GetAtomPosition(1)) - np.array(place.GetAtomPosition(0))
    place.SetAtomPosition(1, (np.array(place.GetAtomPosition(0)) + 1.2 * end).tolist())
    found = relaxation.measure([mol])
    assert (found.num_molecules, found.num_failed) == (1, 0)
    assert 0.05 < found.bonds < 0.15  # A fifth of one of two bonds of .96 Å.
    assert 3.0 < found.energy_median < 40.0
    assert found.torsions is None


def test_a_molecule_beyond_the_time_limit_is_told():
    pytest.importorskip("tblite")
    found = relaxation.measure([embed("CCCCCCO")], time_limit=1e-3)
    assert (found.num_molecules, found.failures) == (0, {"timeout": 1})
