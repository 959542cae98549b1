"""Positions that are not what they seem: drawings, other units, no hydrogens."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from common.errors import UsageError
from configs.symphony import tiny
from symphony import data, evaluate, refine, sample, score, train
from symphony.evaluate import samples
from tests.symphony.test_data_readers import TABLE, read, xyz

DRUG = "CC(=O)Nc1ccccc1"
SMILES = ("CCO", "CC(C)C", "c1ccccc1O", "CC#N", "OCC(O)CO", "NCC(=O)O", "C1CC1", DRUG)


def drawing(smiles, hydrogens=False, tag="2D"):
    """Returns the record of a drawing; its header says the tag."""
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    rdDepictor.Compute2DCoords(mol)
    block = Chem.MolToMolBlock(mol)
    return block.replace("          2D", f"          {tag}") + "$$$$\n"


def embedded(smiles, hydrogens=True):
    """Returns a molecule in three dimensions."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
    return mol if hydrogens else Chem.RemoveHs(mol)


def arrays(mol):
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return numbers, mol.GetConformer().GetPositions()


def packed(mols, scale=1.0):
    atoms = [arrays(mol) for mol in mols]
    return data.make_molecules(
        np.array([len(numbers) for numbers, _ in atoms]),
        np.concatenate([numbers for numbers, _ in atoms]),
        np.concatenate([positions for _, positions in atoms]) * scale,
    )


def write_npz(folder, molecules):
    data.write_npz(molecules, folder / "set.npz")
    return folder / "set.npz"


@pytest.mark.parametrize("hydrogens", [False, True])
@pytest.mark.parametrize("tag", ["2D", "3D", "  "])
def test_drawings_are_refused(tmp_path, hydrogens, tag):
    text = "".join(drawing(smiles, hydrogens, tag) for smiles in SMILES)
    message = r"set\.sdf: expected positions in three dimensions, found drawings \(2D\)"
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, "set.sdf", text)
    assert "EmbedMolecule" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_drawing_without_a_tag_is_refused_in_every_form(tmp_path):
    block = drawing(DRUG, tag="  ")
    with pytest.raises(UsageError, match="found drawings"):
        read(tmp_path, "a.mol", block, strict=True)
    mol = Chem.MolFromMolBlock(block, sanitize=False)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    text = xyz(symbols=symbols, positions=mol.GetConformer().GetPositions())
    with pytest.raises(UsageError, match="found drawings"):
        read(tmp_path, "a.xyz", text, strict=True)
    with pytest.raises(UsageError, match="found drawings"):
        data.read_molecules(write_npz(tmp_path, packed([mol])), TABLE, 29)


def test_few_drawings_are_left_out_and_told(tmp_path, caplog):
    good = "".join(Chem.MolToMolBlock(embedded("CCO")) + "$$$$\n" for _ in range(20))
    molecules, report = read(tmp_path, "set.sdf", good + drawing("CCO"))
    assert len(molecules.num_atoms) == 20
    assert report.skipped == {"all z alike, as in a drawing (2D)": ("20",)}
    assert "skipped 1 of 21 records" in caplog.text


def benzene(hydrogens=True):
    """Returns symbols and positions of a flat ring."""
    turn = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    if hydrogens:
        return ("C",) * 6 + ("H",) * 6, np.concatenate([1.39 * ring, 2.48 * ring])
    return ("C",) * 6, 1.39 * ring


@pytest.mark.parametrize("hydrogens", [True, False])
def test_molecules_that_are_planar_are_read(tmp_path, hydrogens):
    symbols, positions = benzene(hydrogens)
    text = xyz(symbols=symbols, positions=positions)
    assert len(read(tmp_path, "a.xyz", text, strict=True)[0].num_atoms) == 1


def test_molecules_in_a_line_are_no_drawings(tmp_path):
    positions = [[0, 0, 0], [1.16, 0, 0], [2.54, 0, 0], [3.7, 0, 0]]
    text = xyz(symbols="NCCN", positions=positions)
    assert len(read(tmp_path, "a.xyz", text, strict=True)[0].num_atoms) == 1


@pytest.mark.parametrize("hydrogens", [True, False])
@pytest.mark.parametrize(
    ("unit", "angstrom"), [("nm", 10.0), ("bohr", 0.529177), ("pm", 0.01)]
)
def test_lengths_in_another_unit_are_refused(tmp_path, hydrogens, unit, angstrom):
    mols = [embedded(smiles, hydrogens) for smiles in SMILES[2:]]
    path = write_npz(tmp_path, packed(mols, 1 / angstrom))
    message = rf"set\.npz: expected positions in Å, found lengths that look like {unit}"
    with pytest.raises(UsageError, match=message) as caught:
        data.read_molecules(path, TABLE, 29)
    assert f"multiply the positions by {angstrom:g}" in str(caught.value)


@pytest.mark.parametrize("name", ["tetris", "platonic-solids", "ethanol", "qm9-sample"])
def test_packaged_data_are_plausible(name, caplog):
    _, report = data.read_molecules(name, TABLE, 29, split="train")
    assert not report.skipped
    assert "WARNING" not in {record.levelname for record in caplog.records}


def test_positions_too_far_away_are_refused(tmp_path):
    with pytest.raises(UsageError, match="1 with a position beyond 10000 Å"):
        read(tmp_path, "a.xyz", xyz().replace("0.117300", "1e30"))


def test_molecules_without_hydrogens_bring_one_warning(tmp_path, caplog):
    mols = [embedded(smiles, hydrogens=False) for smiles in SMILES]
    path = write_npz(tmp_path, packed(mols))
    data.read_molecules(path, TABLE, 29)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path}: none of 8 molecules has hydrogens; add them, as by RDKit's "
        "Chem.AddHs(mol, addCoords=True)"
    )


def test_molecules_with_polar_hydrogens_alone_bring_the_warning(tmp_path, caplog):
    mol = embedded("CCCCCCCCCCCCO")
    bare = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 1]
    edited = Chem.RWMol(mol)
    for index in sorted(bare[:-1], reverse=True):
        edited.RemoveAtom(index)
    data.read_molecules(write_npz(tmp_path, packed([edited])), TABLE, 29)
    assert "found 1 hydrogens for 12 carbons; add them" in caplog.text


@pytest.mark.parametrize("why", ["the model has none", "fragments", "they have some"])
def test_molecules_without_hydrogens_need_no_warning_where_none_are_due(
    tmp_path, caplog, why
):
    mols = [embedded(s, hydrogens=why == "they have some") for s in SMILES]
    path = write_npz(tmp_path, packed(mols))
    table = (6, 7, 8) if why == "the model has none" else TABLE
    data.read_molecules(path, table, 29, part=why == "fragments")
    assert "WARNING" not in {record.levelname for record in caplog.records}


def test_samples_that_are_drawings_are_refused(tmp_path):
    path = tmp_path / "samples.sdf"
    path.write_text("".join(drawing(smiles) for smiles in SMILES))
    with pytest.raises(UsageError, match="found drawings"):
        evaluate.main([f"--samples={path}", f"--output={tmp_path / 'report'}"])
    with pytest.raises(UsageError, match="found drawings"):
        samples.read_reference(str(path))
    assert not (tmp_path / "report").exists()


def test_a_drawing_among_samples_counts_as_invalid(tmp_path, caplog):
    good = Chem.MolToMolBlock(embedded("CCO")) + "$$$$\n"
    path = tmp_path / "samples.sdf"
    path.write_text(good * 3 + drawing("CCO"))
    drawn = samples.read_samples(path)
    assert drawn.faults == [None] * 3 + ["all z alike, as in a drawing (2D)"]
    assert "1 of 4 molecules are drawings (2D)" in caplog.text


def test_samples_without_a_known_element_are_refused(tmp_path):
    path = tmp_path / "samples.xyz"
    path.write_text(xyz(symbols=("C1", "H2", "H3")) * 2)
    message = (
        r"none of 2 \(2 unreadable record, the first: line 3: .*found 'C1' \(atom 1"
    )
    with pytest.raises(UsageError, match=message):
        samples.read_samples(path)
    numbers = np.array([0, 200], np.uint8)
    molecules = data.make_molecules(np.array([2]), numbers, np.eye(2, 3))
    assert samples._fault_of(molecules.atomic_numbers, molecules.positions) == (
        "unknown element"
    )


def test_samples_that_cannot_be_read_are_counted_and_told(tmp_path, caplog):
    path = tmp_path / "samples.xyz"
    path.write_text(xyz() + xyz(symbols=("*", "H", "H")))
    drawn = samples.read_samples(path)
    assert drawn.faults == [None, "unreadable record"]
    assert "cannot read 1 of 2 records: 1 with a fault in line 8" in caplog.text


def commands(path, folder):
    """Returns every command that reads molecules, with a file in its place."""
    config = tiny.get_config()
    config.data.path = str(path)
    output = f"--output={folder / 'out.sdf'}"
    return {
        "train": lambda: train.load_data(config),
        "refine": lambda: refine.main([f"--molecules={path}", output]),
        "score": lambda: score.main([f"--molecules={path}", f"{output}.csv"]),
        "sample": lambda: sample.main([f"--fragment={path}", output]),
        "evaluate": lambda: evaluate.main([f"--samples={path}", output]),
        "reference": lambda: samples.read_reference(str(path)),
    }


@pytest.mark.parametrize(
    "command", ["train", "refine", "score", "sample", "evaluate", "reference"]
)
@pytest.mark.parametrize("tag", ["2D", "  "])
def test_every_command_refuses_a_drawing(tmp_path, command, tag):
    path = tmp_path / "drawn.sdf"
    path.write_text(drawing(DRUG, tag=tag))
    with pytest.raises(UsageError, match=r"drawn\.sdf: expected .*, found drawings"):
        commands(path, tmp_path)[command]()
    assert [file.name for file in tmp_path.iterdir()] == ["drawn.sdf"]


@pytest.mark.parametrize("command", ["train", "reference", "evaluate"])
def test_every_command_warns_of_molecules_without_hydrogens(tmp_path, caplog, command):
    path = tmp_path / "bare.sdf"
    mols = [embedded(smiles, hydrogens=False) for smiles in SMILES]
    path.write_text("".join(Chem.MolToMolBlock(mol) + "$$$$\n" for mol in mols))
    if command == "evaluate":
        samples.read_samples(path)
    else:
        commands(path, tmp_path)[command]()
    assert caplog.text.count("none of 8 molecules has hydrogens; add them") == 1
