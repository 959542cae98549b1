"""Tests of what is written of sampled molecules."""

import json

import numpy as np
import pytest
from rdkit import Chem

from common.errors import RunError
from symphony import data, manifest, molfile, options, records
from symphony.chemistry import pool
from symphony.manifest import Sample, Written
from symphony.view import fields
from symphony.weights import Weights
from tests.symphony import small

METHANE = np.array(
    [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32
)
METHANE[1:] *= 1.09 / np.sqrt(3.0)
NUMBERS = np.array([6, 1, 1, 1, 1], np.uint8)
SAMPLE = Sample(2, 7, NUMBERS, METHANE, True, -12.34567)


@pytest.fixture
def in_process(monkeypatch):
    """Perceives bonds in this process."""
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)


def make(first):
    """Yields three molecules; the second has an atom on top of another."""
    for index in range(first, 3):
        positions = METHANE.copy()
        if index == 1:
            positions[1] = positions[0]
        yield SAMPLE._replace(index=index, positions=positions)


def write_all(path, total=3):
    with molfile.open_output(path, {"seed": 7}, overwrite=False) as output:
        return manifest.write_all(output, make, total, "sampling")


def test_a_record_states_what_became_of_a_molecule():
    record = records.record_of(SAMPLE, "C")
    assert record == {
        "index": 2, "seed": 7, "num_atoms": 5, "formula": "CH4", "stopped": True,
        "valid": True, "smiles": "C", "log_likelihood": -12.3457,
    }  # fmt: skip


@pytest.mark.parametrize(("stopped", "smiles"), [(False, "C"), (True, None)])
def test_a_molecule_without_end_or_bonds_is_not_valid(stopped, smiles):
    assert not records.record_of(SAMPLE._replace(stopped=stopped), smiles)["valid"]


def test_the_likelihood_of_a_refined_molecule_is_that_before():
    numbers = records.numbers_of(SAMPLE._replace(moved=0.01234567))
    assert numbers == {"log_likelihood_before_refinement": -12.3457, "moved": 0.0123}


def test_a_molecule_from_a_file_has_no_likelihood_and_keeps_its_name():
    read = SAMPLE._replace(log_likelihood=None, name="mine")
    assert records.numbers_of(read) == {}
    assert records.name_of(read) == "mine"
    assert records.name_of(SAMPLE) == "seed7_2"


def test_atoms_have_their_parts_in_every_file(tmp_path, in_process):
    terms = np.array([np.nan, -1.0, -2.25, -3.5, 1.1236], np.float32)
    path = tmp_path / "molecules.sdf"
    made = lambda first: iter([SAMPLE._replace(index=0, log_of_atoms=terms)])
    with molfile.open_output(path, {"seed": 7}, overwrite=False) as output:
        manifest.write_all(output, made, 1, "sampling")
    (mol,) = Chem.SDMolSupplier(str(path), removeHs=False)
    assert not mol.GetAtomWithIdx(0).HasProp("log_likelihood")
    read = [mol.GetAtomWithIdx(i).GetDoubleProp("log_likelihood") for i in range(1, 5)]
    assert read == [-1.0, -2.25, -3.5, 1.1236]
    record = json.loads(path.with_suffix(".jsonl").read_text().splitlines()[1])
    assert record["atom.dprop.log_likelihood"] == [None, *read]
    told = fields._of_record(record)
    shown = fields.of_atoms(told, 5)["log_likelihood"]
    np.testing.assert_allclose(shown, [np.nan, *read])
    assert "atom.dprop.log_likelihood" not in fields.shown(told)
    head, _, *rows = path.with_suffix(".extxyz").read_text().splitlines()[1:]
    assert head.startswith("Properties=species:S:1:pos:R:3:log_likelihood:R:1 ")
    assert [float(row.split()[4]) for row in rows] == read
    read_back, _ = data.read_molecules(str(path.with_suffix(".extxyz")), (1, 6), 9)
    assert read_back.num_atoms.tolist() == [5]


def test_long_lists_of_atoms_are_read_by_rdkit():
    mol = Chem.MolFromSmiles("C" * 60)
    text = molfile.to_list((np.arange(60) - 1000.5).tolist())
    assert max(map(len, text.splitlines())) <= 190
    mol.SetProp("atom.dprop.log_likelihood", text)
    supplier = Chem.SDMolSupplier()
    supplier.SetData(Chem.SDWriter.GetText(mol))
    read = [atom.GetDoubleProp("log_likelihood") for atom in supplier[0].GetAtoms()]
    assert read == (np.arange(60) - 1000.5).tolist()


def test_the_parts_of_a_refined_molecule_are_those_before():
    terms = np.zeros(5, np.float32)
    record = records.record_of(SAMPLE._replace(moved=0.01, log_of_atoms=terms), "C")
    assert record["atom.dprop.log_likelihood_before_refinement"] == [0.0] * 5


def test_finished_molecules_have_bonds_and_fields():
    mol, record = manifest.finish(SAMPLE)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == record["smiles"] == "C"
    assert mol.GetProp("_Name") == "seed7_2"
    assert mol.GetProp("index") == "2"


def test_all_molecules_are_written_and_counted(tmp_path, in_process):
    path = tmp_path / "molecules.sdf"
    assert write_all(path) == Written(0, 2, [None, None, None])
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line).get("valid") for line in lines] == [
        None,
        True,
        False,
        True,
    ]
    assert path.read_text().count("$$$$") == 2
    assert path.with_suffix(".extxyz").read_text().count("Properties=") == 3


def test_writing_goes_on_behind_what_is_there(tmp_path, in_process):
    whole, parts = tmp_path / "whole.sdf", tmp_path / "parts.sdf"
    write_all(whole)
    with molfile.open_output(parts, {"seed": 7}, overwrite=False) as output:
        first = (one for one in make(0) if one.index < 1)
        manifest.write_all(output, lambda begin: first, 1, "sampling")
    assert write_all(parts) == Written(1, 1, [None, None])
    assert write_all(parts) == Written(3, 0, [])
    assert parts.read_bytes() == whole.read_bytes()


def test_the_last_line_tells_what_was_added(capsys):
    manifest.tell("out.sdf", Written(0, 2, [None] * 3), "; more")
    manifest.tell("out.sdf", Written(4, 2, [0.1] * 3), "; more")
    manifest.tell("out.sdf", Written(7, 0, []), "; more")
    assert capsys.readouterr().out.splitlines() == [
        "out.sdf: 2 valid molecules (xyz2mol_hueckel) of 3; more",
        "out.sdf: 2 valid molecules (xyz2mol_hueckel) of 3, 4 were there before; more",
        "out.sdf: all 7 molecules are done",
    ]


def test_the_head_states_all_that_decides_the_molecules():
    model, params = small.model_and_params()
    weights = Weights("mine", small.make_config(), model, params, "sum", "config")
    head = manifest.header(weights, options.choose(weights, start="N"), 5)
    assert (head["weights_sha256"], head["config_sha256"]) == ("sum", "config")
    assert head["settings"]["start"] == [[7, 0.0, 0.0, 0.0]]
    assert head["settings"]["temperature_focus"] == 1.0
    assert head["seed"] == 5
    json.dumps(head)


class Answers:
    """A stream of answers that are known before."""

    def __init__(self, answers):
        self.answers = list(answers)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def submit(self, task):
        pass

    def ready(self):
        return iter(())

    def rest(self):
        return iter(self.answers)


GOOD = {"smiles": "C", "sdf": "record\n$$$$\n"}


def with_answers(monkeypatch, answers):
    """Returns how many molecules were written, and what was raised."""
    monkeypatch.setattr(pool, "Stream", lambda *_: Answers(answers))
    samples = iter(SAMPLE._replace(index=i) for i in range(len(answers)))
    found = []
    try:
        found.extend(manifest.with_bonds(samples))
    except RunError as error:
        return found, str(error)
    return found, None


def test_a_crash_and_a_time_out_are_no_judgement(monkeypatch):
    answers = [GOOD, "crash", "timeout", GOOD, "crash"]
    found, error = with_answers(monkeypatch, answers)
    assert error is None
    assert [sample.index for sample, _, _ in found] == [0, 1, 2, 3, 4]
    assert [sample.unjudged for sample, _, _ in found] == [
        None, "crash", "timeout", None, "crash",
    ]  # fmt: skip
    record = records.record_of(found[1][0], None)
    assert (record["valid"], record["unjudged"]) == (False, "crash")
    assert "unjudged" not in records.record_of(found[0][0], "C")


@pytest.mark.parametrize("num_before", [0, 1, 5])
def test_nothing_is_written_of_molecules_whose_processes_all_die(
    monkeypatch, num_before
):
    answers = [GOOD] * num_before + ["crash"] * (manifest.MOST_CRASHES + 4)
    found, error = with_answers(monkeypatch, answers)
    assert len(found) == num_before
    assert f"from number {num_before} on; nothing is written" in error


def test_a_worker_that_dies_of_its_only_molecule_ends_the_command(monkeypatch):
    found, error = with_answers(monkeypatch, ["crash"])
    assert found == []
    assert "died at 1 molecules in a row" in error


def test_molecules_that_crashed_are_made_again_by_the_next_command(
    tmp_path, monkeypatch
):
    path = tmp_path / "molecules.sdf"
    answers = [["crash"] * 3, [GOOD, GOOD, GOOD]]
    monkeypatch.setattr(pool, "Stream", lambda *_: Answers(answers.pop(0)))
    with pytest.raises(RunError, match="run again"):
        write_all(path)
    assert write_all(path) == Written(0, 3, [None] * 3)
    assert path.read_text() == GOOD["sdf"] * 3


def test_hardly_any_judged_molecule_is_a_failure_and_few_a_warning(capsys, caplog):
    with pytest.raises(RunError, match="0 of 3 molecules had their bonds judged"):
        manifest.tell("out.sdf", Written(0, 0, [None] * 3, num_unjudged=3), "")
    assert "out.sdf: 0 valid molecules (xyz2mol_hueckel) of 3, 3 not judged" in (
        capsys.readouterr().out
    )
    manifest.tell("out.sdf", Written(0, 1, [None] * 3, num_unjudged=2), "")
    assert "only 1 of 3 molecules had their bonds judged (33.3%)" in caplog.text
