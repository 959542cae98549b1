"""Tests of draws of several molecules until enough of each are accepted."""

import argparse
import json

import numpy as np
import pytest
from rdkit import Chem

import symphony
from common.commands import cli
from common.errors import UsageError
from common.runs import checkpoints
from symphony import (
    acceptance,
    changing,
    editing,
    manifest,
    molfile,
    rounds,
    sample,
    sampler,
)
from symphony.manifest import Sample
from symphony.rounds import Gates
from symphony.sampler import Sampler
from symphony.weights import Weights
from tests.symphony import small
from tests.symphony.test_acceptance import NUMBERS, WATER
from tests.symphony.test_wishes import ETHANOL
from tests.symphony.test_wishes import NUMBERS as ETHANOL_NUMBERS

COUNT = 3
"""Molecules of the file."""


def is_valid(which, turn):
    """The first molecule is always valid, the second at each third draw, or never."""
    return which == 0 or (which == 1 and turn % 3 == 2)


def drawn(items):
    for which, turn in items:
        positions = WATER * np.float32(1.0 if is_valid(which, turn) else 9.0)
        name = f"molecule{which}_{turn}"
        index = turn * COUNT + which
        yield Sample(index, 0, NUMBERS, positions, True, -1.0, name=name)


def gates_of(number, count=COUNT, **asked):
    return Gates(acceptance.choose(number, **asked), number, count)


def test_draws_take_turns_and_go_on_where_they_were():
    gates = gates_of(2, until_valid=True)
    order = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 2), (0, 3), (1, 2)]
    assert gates.ahead(9)[:9] == order
    for which, _ in order[:3]:
        gates.each[which].judge(next(drawn([(which, 0)])), "O", "")
    # The first has its two; the second goes on with its own turn.
    assert gates.ahead(1) == [(1, 1), (2, 0), (2, 1)]


def test_draws_end_where_they_must():
    assert gates_of(2, accept="strict").ahead(100) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    few = gates_of(2, count=1, until_valid=True, max_draws=5)
    assert few.ahead(100) == [(0, turn) for turn in range(5)]


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)


def write(output, gates, make=drawn):
    with molfile.open_output(output, {"for_each": gates.number}, False) as opened:
        rounds.write_all(opened, make, gates, "editing")


def lines_of(output):
    text = output.with_suffix(".jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()][1:]


def test_each_molecule_gets_as_many_as_are_asked_for(tmp_path, in_process):
    output = tmp_path / "edited.sdf"
    gates = gates_of(2, until_valid=True, max_draws=8)
    write(output, gates)
    lines = lines_of(output)
    assert [line["index"] for line in lines] == list(range(16))
    draws = [sum(line["molecule"] == which for line in lines) for which in range(3)]
    assert draws == [2, 6, 8]
    mols = [*Chem.SDMolSupplier(str(output), removeHs=False)]
    names = [mol.GetProp("_Name") for mol in mols]
    assert names == ["molecule0_0", "molecule0_1", "molecule1_2", "molecule1_5"]
    # The number in the SDF is that of the manifest, though draws are made ahead.
    accepted = [str(line["index"]) for line in lines if line["accepted"]]
    assert [mol.GetProp("index") for mol in mols] == accepted
    assert "accepted 4 of 16 draws" in gates.together().describe()


def test_more_draws_give_the_files_of_one_command(tmp_path, in_process):
    once, twice = tmp_path / "once.sdf", tmp_path / "twice.sdf"
    write(once, gates_of(2, until_valid=True, max_draws=8))
    write(twice, gates_of(2, until_valid=True, max_draws=4))
    write(twice, gates_of(2, until_valid=True, max_draws=8))
    for end in (".sdf", ".extxyz", ".jsonl"):
        assert once.with_suffix(end).read_bytes() == twice.with_suffix(end).read_bytes()


def test_an_interrupted_command_goes_on(tmp_path, in_process):
    once, twice = tmp_path / "once.sdf", tmp_path / "twice.sdf"

    def breaks(items):
        for number, one in enumerate(drawn(items)):
            if number == 3:
                raise KeyboardInterrupt
            yield one

    write(once, gates_of(2, until_valid=True, max_draws=8))
    with pytest.raises(KeyboardInterrupt):
        write(twice, gates_of(2, until_valid=True, max_draws=8), breaks)
    write(twice, gates_of(2, until_valid=True, max_draws=8))
    assert once.with_suffix(".jsonl").read_bytes() == (
        twice.with_suffix(".jsonl").read_bytes()
    )


def test_a_molecule_that_is_never_accepted_ends_with_status_3(
    tmp_path, in_process, capsys
):
    gates = gates_of(1, until_valid=True, max_draws=4)

    def command(argv):
        write(tmp_path / "edited.sdf", gates)
        manifest.tell_accepted("edited.sdf", gates.together(), "")
        return 0

    assert cli.run("symphony edit", command, []) == 3
    out = capsys.readouterr()
    assert "accepted 2 of 8 draws (25.0%, xyz2mol_hueckel); rejected: 6" in out.out
    assert "3 were asked for, and --max_draws=4 is reached" in out.err


def test_molecules_are_diverse_each_for_itself(tmp_path, in_process):
    output = tmp_path / "edited.sdf"
    write(output, gates_of(3, count=2, diverse=True))
    assert [line.get("rejected") for line in lines_of(output)] == [
        None, "duplicate", "duplicate", "invalid", "invalid", None,
    ]  # fmt: skip


@pytest.fixture
def waters(monkeypatch):
    job = editing.Job(None, None, [None] * COUNT, ["a", "b", "c"], 2, 0, None)
    monkeypatch.setattr(editing, "regrow", lambda weights, **asked: asked)
    monkeypatch.setattr(editing, "make_job", lambda *given: job)
    monkeypatch.setattr(editing, "draw", lambda job, items: drawn(items))
    return Sampler(Weights._make([None] * len(Weights._fields)))


def test_python_goes_on_until_each_has_enough(waters, caplog):
    mols = waters.edit("in.sdf", [2], 2, until_valid=True, max_draws=8)
    names = [mol.GetProp("_Name") for mol in mols]
    assert names == ["molecule0_0", "molecule0_1", "molecule1_2", "molecule1_5"]
    assert waters.summary == sampler.Summary(16, 16, 4, 4, 0)
    assert "raise max_draws" in caplog.text


def test_python_returns_those_with_bonds_without_a_gate(waters):
    mols = waters.edit("in.sdf", [2], 2)
    assert [mol.GetProp("_Name") for mol in mols] == ["molecule0_0", "molecule0_1"]
    assert waters.summary == sampler.Summary(6, 6, 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Small random weights that place heavy atoms first."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    _, params = small.model_and_params()
    config = small.make_config()
    config.sample.max_atoms = 12
    config.data.heavy_first = True
    counts = {"species_counts": {"1": 50, "6": 30, "7": 9, "8": 8, "9": 0}}
    checkpoints.save_packaged(folder, params, config, counts)
    return symphony.load(folder)


def mol_of(atoms, title=""):
    mol = Chem.RWMol()
    for atom in atoms:
        mol.AddAtom(Chem.Atom(int(ETHANOL_NUMBERS[atom])))
    conformer = Chem.Conformer(len(atoms))
    conformer.SetPositions(ETHANOL[list(atoms)].astype(np.float64))
    conformer.Set3D(True)
    mol.AddConformer(conformer)
    mol.SetProp("_Name", title)
    return mol


def test_a_molecule_of_rdkit_gets_back_what_it_lost(tiny, monkeypatch):
    seen = []

    def finish(one, preset="xyz2mol_hueckel"):
        seen.append(one)
        return object(), {"valid": one.stopped}

    monkeypatch.setattr(manifest, "finish", finish)
    mols = [mol_of([0, 1, 2, 3, 4, 6, 7, 8], "ethanol"), mol_of(range(8))]
    assert len(tiny.complete(mols, num_molecules=2, num_slots=4)) == 4
    assert [one.name for one in seen] == ["ethanol_0", "ethanol_1", "1_0", "1_1"]
    for one in seen:
        assert sorted(one.atomic_numbers.tolist()) == [1] * 6 + [6, 6, 8]
        assert one.num_fixed == 8
    # A draw is the same whatever else is drawn.
    first = seen[1]
    seen.clear()
    tiny.complete(mols, num_molecules=3, num_slots=4)
    np.testing.assert_allclose(seen[1].positions, first.positions, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"remove": [9]}, r"expected atoms of ethanol from 0 \(C\) to 8 \(H\)"),
        ({"remove": [2], "formula": "C2H9"}, "at most 6"),
        ({"remove": [2], "accept": "sound"}, "--accept: expected one of"),
        ({"remove": [2], "num_molecules": 0}, "at least 1"),
    ],
)
def test_python_refuses_what_cannot_be(tiny, asked, told):
    with pytest.raises(UsageError, match=told):
        tiny.edit(mol_of(range(9), "ethanol"), **asked)


def test_python_refuses_molecules_without_positions(tiny):
    with pytest.raises(UsageError, match="conformer in three dimensions"):
        tiny.complete(Chem.MolFromSmiles("CCO"))
    with pytest.raises(UsageError, match="expected one or more"):
        tiny.complete([])
    with pytest.raises(TypeError, match="attach"):
        tiny.edit(mol_of(range(9)), [2], attach=[1])


def head_of(weights, *argv):
    parser = argparse.ArgumentParser()
    changing.add_flags(parser, "edited.sdf")
    flags = parser.parse_args(argv)
    changer = editing.regrow(weights, [2], **changing.given(flags, changing.ASKED))
    job = editing.make_job(weights, mol_of(range(9)), changer, 1, 0, None, False)
    return changing._header(job, flags, sample.make_gate(flags, flags.num_molecules))


def test_the_head_of_the_manifest_tells_what_decides_the_molecules(tiny):
    plain, carbons = (
        head_of(tiny.weights, *argv)["settings"] for argv in ([], ["--elements=C,H"])
    )
    assert carbons == {**plain, "elements": "C,H"}
    gated = head_of(tiny.weights, "--accept=strict", "--until_valid")
    assert (gated["settings"]["accept"], gated["bonds"]) == ("strict", "strict")
    # More draws go on with the same files.
    assert not {"until_valid", "max_draws"} & {*gated["settings"]}
