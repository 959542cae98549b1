"""Properties by command: their values, their units in files, and going on."""

import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from common.errors import RunError, UsageError
from symphony import labelling, properties
from symphony.chemistry import labels
from symphony.data.readers import read_file
from symphony.data.units import format_units, parse_units
from tests.symphony.test_data_readers import WATER, xyz


def record(smiles, hydrogens=True, **fields):
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    AllChem.EmbedMolecule(mol, randomSeed=0)
    mol.SetProp("_Name", smiles)
    for name, value in fields.items():
        mol.SetProp(name, value)
    return Chem.SDWriter.GetText(mol)


def task(smiles, *groups, **options):
    text = record(smiles, **options).replace("$$$$\n", "")
    mol = Chem.MolFromMolBlock(text, removeHs=False, sanitize=False)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    positions = mol.GetConformer().GetPositions().tolist()
    return {
        "sdf": text, "groups": list(groups), "atomic_numbers": numbers,
        "positions": positions,
    }  # fmt: skip


def in_this_process(given, indices, groups, num_workers):
    """Stands for `labelling.compute`, without a worker."""
    del num_workers
    for index in indices:
        answer = labels.label(labelling.task_of(given, int(index), groups))
        yield {"index": int(index), "name": "", **answer}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(labelling, "compute", in_this_process)
    texts = [record("c1ccccc1", note="kept", logP="99"), record("CCO"), record("CC")]
    Path("in.sdf").write_text("".join(texts))
    return tmp_path


def read(path, *names):
    return read_file(Path(path), names).molecules


def test_columns_of_a_graph_are_those_of_the_literature():
    values = labels.label(task("c1ccccc1", "rdkit"))["values"]
    assert values["logP"] == pytest.approx(1.6866, abs=1e-3)  # Wildman and Crippen.
    assert values["num_rings"] == values["num_aromatic_rings"] == 1
    assert (values["num_rings_6"], values["num_rings_5"]) == (1, 0)
    assert labels.label(task("CCO", "rdkit"))["values"]["TPSA"] == 20.23
    assert values["SA_score"] == pytest.approx(1.0, abs=0.1)


def test_bonds_are_perceived_where_a_file_has_none():
    with_bonds = task("C1CCO1", "rdkit")
    bare = {name: with_bonds[name] for name in with_bonds if name != "sdf"}
    assert labels.label(bare) == labels.label(with_bonds)


def test_gfn2_gives_what_symmetry_and_isotropy_ask():
    pytest.importorskip("tblite")
    values = labels.label(task("C", "gfn2"))["values"]
    assert values["dipole"] == pytest.approx(0.0, abs=0.02)
    assert values["gap"] == pytest.approx(values["lumo"] - values["homo"], abs=1e-3)
    assert values["polarizability"] == pytest.approx(6.8, abs=0.4)  # Of tblite 0.8.
    water = labels.label(task("O", "gfn2"))["values"]
    assert 1.5 < water["dipole"] < 3.0  # D; 1.85 by experiment.


@pytest.mark.parametrize(
    ("smiles", "hydrogens", "reason"),
    [("[CH3]", True, "an odd number of electrons"), ("CC", False, "hydrogens")],
)
def test_a_molecule_without_value_has_a_reason(smiles, hydrogens, reason):
    pytest.importorskip("tblite")
    answer = labels.label(task(smiles, "gfn2", hydrogens=hydrogens))
    assert answer["values"] == {}
    assert reason in answer["failures"]["gfn2"]


def test_units_read_back():
    units = {"gap": "eV", "logP": "", "alpha": "bohr^3"}
    assert parse_units(format_units(units)) == {"gap": "eV", "alpha": "bohr^3"}


@pytest.mark.parametrize("form", ["sdf", "extxyz", "npz"])
def test_values_and_units_read_back_from_every_form(folder, form):
    assert properties.main(["in.sdf", "--with=rdkit", f"-o=out.{form}"]) == 0
    molecules = read(f"out.{form}", "logP", "TPSA", "num_rings")
    assert molecules.properties["logP"][0] == pytest.approx(1.6866, abs=1e-3)
    np.testing.assert_allclose(molecules.properties["TPSA"], [0.0, 20.23, 0.0])
    np.testing.assert_array_equal(molecules.properties["num_rings"], [1, 0, 0])
    assert molecules.units == {"TPSA": "Å^2"}
    text = Path("out.sdf").read_text() if form == "sdf" else "<note>  (1) \nkept\n"
    assert "kept\n" in text
    assert text.count("<logP>") in (0, 3)


def test_some_are_labelled_and_the_others_are_there_without(folder):
    flags = ["--molecules=in.sdf", "--num_molecules=2", "--output=out.npz"]
    assert properties.main(flags) == 0
    column = read("out.npz", "QED").properties["QED"]
    assert np.isfinite(column).sum() == 2
    assert len(column) == 3


def test_an_archive_keeps_its_arrays(folder):
    numbers, atoms = np.array([8, 1, 1], np.uint8), np.float32(WATER)
    more = {
        "split": np.array([1]),
        "mine": np.array([4.5]),
        "units": np.array("mine:K"),
    }
    np.savez(
        "in.npz", num_atoms=[3], atomic_numbers=numbers, positions=atoms, **more
    )  # fmt: skip
    assert properties.main(["in.npz", "-o", "out.npz"]) == 0
    with np.load("out.npz") as archive:
        assert archive["split"] == 1
        assert archive["mine"] == 4.5
        assert parse_units(str(archive["units"])) == {"mine": "K", "TPSA": "Å^2"}


def test_a_command_that_was_interrupted_goes_on(folder, monkeypatch):
    calls = []

    def two_then_none(given, indices, groups, num_workers):
        calls.append(list(indices))
        for line in in_this_process(given, indices, groups, num_workers):
            if line["index"] == 2 and len(calls) == 1:
                raise RunError("killed")
            yield line

    monkeypatch.setattr(labelling, "compute", two_then_none)
    with pytest.raises(RunError):
        properties.main(["in.sdf", "-o", "out.sdf"])
    assert not Path("out.sdf").exists()
    with Path("out.jsonl").open("a") as file:
        file.write('{"index": 2, "na')  # A line that was being written.
    assert properties.main(["in.sdf", "-o", "out.sdf"]) == 0
    assert calls == [[0, 1, 2], [2]]
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line.get("index") for line in lines] == [None, 0, 1, 2]
    Path("in.sdf").write_text(record("CCO"))
    with pytest.raises(UsageError, match=r"out.jsonl: expected no file, or the values"):
        properties.main(["in.sdf", "-o", "out.sdf"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["in.sdf", "--with=gfn3", "-o", "a.sdf"], "expected some of gfn2,rdkit"),
        (["in.sdf", "-o", "a.txt"], "ends in .sdf, .extxyz, .npz, found a.txt"),
        (["in.sdf", "-o", "in.sdf"], "an output that is not the input"),
        (["in.xyz", "-o", "a.sdf"], "an input without bonds makes no SDF"),
        (["in.sdf", "-o", "a.sdf", "--num_molecules=0"], "expected at least 1"),
        (["in.sdf", "-o", "a.sdf", "--num_molecules=4"], "at most the 3 of the file"),
        (["in.sdf", "-o", "a.sdf", "--num_workers=0"], "expected 1 to"),
        (["-o", "a.sdf"], "expected a file of molecules as first word"),
    ],
)
def test_what_cannot_be_computed_is_refused_first(folder, flags, message):
    Path("in.xyz").write_text(xyz("water"))
    with pytest.raises(UsageError, match=message):
        properties.main(flags)
    assert not list(folder.glob("a.*"))


def test_all_without_a_value_is_a_failed_run(folder):
    Path("in.sdf").write_text(record("CC", hydrogens=False))
    with pytest.raises(RunError, match="0 of 1 molecules have all values"):
        properties.main(["in.sdf", "-o", "out.sdf"])
    assert Path("out.sdf").read_text().count("$$$$") == 1
