"""Tests of what is accepted, counted, and when there is enough. Positions in Å."""

import json

import numpy as np
import pytest
from rdkit import Chem

from common.commands import cli
from common.errors import RunError, UsageError
from symphony import acceptance, drawing, manifest, molfile, sampler
from symphony.acceptance import Gate, Terms
from symphony.chemistry import bonds, edm
from symphony.evaluate import samples
from symphony.manifest import Sample
from symphony.options import Options
from symphony.sampler import Sampler
from symphony.weights import Weights
from tests.symphony import small

WATER = np.array([[0.0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], np.float32)
NUMBERS = np.array([8, 1, 1], np.uint8)
METHANE = np.array(
    [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32
)
METHANE[1:] *= 1.09 / np.sqrt(3.0)


def drawn(first, end, seed=0):
    """Waters, every second torn apart, the third without end; the fifth is methane."""
    for index in range(first, end):
        positions = WATER * np.float32(9.0 if index % 2 else 1.0)
        one = Sample(index, seed, NUMBERS, positions, index != 2, -1.0)
        if index == 4:
            numbers = np.array([6, 1, 1, 1, 1], np.uint8)
            one = one._replace(atomic_numbers=numbers, positions=METHANE)
        yield one


def gate_of(count, **asked):
    return Gate(acceptance.choose(count, **asked), count)


def judged(gate, count):
    reasons = []
    for one, smiles, sdf in small.with_bonds(drawn(0, count), gate.terms.preset):
        reasons.append(gate.judge(one, smiles, sdf))
    return reasons


def test_a_gate_tells_why_it_rejects():
    gate = gate_of(3, until_valid=True)
    assert judged(gate, 5) == [None, "invalid", "unfinished", "invalid", None]
    assert not gate.is_done
    assert judged(gate, 1) == [None]
    assert gate.is_done
    assert gate.describe() == (
        "accepted 3 of 6 draws (50.0%, xyz2mol_hueckel); rejected: 2 invalid, "
        "1 unfinished"
    )


def test_one_of_each_smiles_is_accepted():
    gate = gate_of(9, diverse=True)
    reasons = judged(gate, 7)
    assert reasons == [
        None, "invalid", "unfinished", "invalid", None, "invalid", "duplicate",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"accept": "sanitizes"}, "--accept: expected one of xyz2mol_hueckel, strict"),
        ({"max_draws": 9}, "--max_draws: expected --until_valid"),
        ({"max_draws": 2, "until_valid": True}, "at least --num_molecules, 3, found 2"),
    ],
)
def test_what_cannot_be_is_refused(asked, told):
    with pytest.raises(UsageError, match=told):
        acceptance.choose(3, **asked)


def test_nothing_asked_is_no_gate():
    assert acceptance.choose(3) is None
    assert acceptance.choose(3, until_valid=True).max_draws == 3000
    assert acceptance.choose(3, accept="strict") == Terms("strict")


def test_posebusters_must_be_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install posebusters"):
        acceptance.choose(3, accept="posebusters")


def test_posebusters_judge_what_is_written(monkeypatch):
    seen = []

    def check(mols):
        seen.extend(Chem.MolToSmiles(mol) for mol in mols)
        return type("Checks", (), {"all_passed": float(len(seen) == 1)})

    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr("symphony.evaluate.poses.check", check)
    gate = gate_of(2, accept="posebusters")
    assert judged(gate, 1) == [None]
    assert judged(gate, 1) == ["posebusters"]
    assert seen == ["[H]O[H]", "[H]O[H]"]


def test_the_table_of_edm_gives_bonds_too():
    mol = bonds.perceive(NUMBERS, WATER, "edm")
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), WATER, atol=1e-6)
    assert bonds.write_smiles(mol) == "O"
    crowded = np.zeros((6, 3), np.float32)
    crowded[1:] = METHANE[[1, 2, 3, 4, 1]] * [1, 1, -1]
    numbers = np.array([6, 1, 1, 1, 1, 1], np.uint8)
    assert edm.describe_molecule(numbers, crowded).status != "valid"
    assert bonds.perceive(numbers, crowded, "edm") is None


def write(output, gate, monkeypatch, end=100):
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)
    head = {"accept": gate.terms.accept}
    with molfile.open_output(output, head, False) as opened:
        return manifest.write_all(opened, lambda f: drawn(f, end), 0, "sampling", gate)


def lines_of(output):
    text = output.with_suffix(".jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()][1:]


def test_the_sdf_has_the_accepted_and_the_others_lie_aside(tmp_path, monkeypatch):
    output = tmp_path / "molecules.sdf"
    write(output, gate_of(3, until_valid=True), monkeypatch)
    lines = lines_of(output)
    assert [line["index"] for line in lines] == list(range(7))
    assert [line["accepted"] for line in lines] == [i in (0, 4, 6) for i in range(7)]
    assert [line.get("rejected") for line in lines][:3] == [
        None, "invalid", "unfinished",
    ]  # fmt: skip
    text = output.read_text()
    assert text.count("$$$$") == 3
    assert [f"seed0_{index}" in text for index in (0, 2, 4, 6)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert output.with_suffix(".extxyz").read_text().count("rejected=") == 4


def test_an_evaluation_counts_all_draws_and_tells_how_many_were_accepted(
    tmp_path, monkeypatch
):
    output = tmp_path / "molecules.sdf"
    write(output, gate_of(3, until_valid=True), monkeypatch)
    found = samples.read_samples(output)
    assert (len(found.molecules), found.num_accepted) == (7, 3)
    assert samples.read_samples(output, 5).num_accepted == 2
    # The SDF alone has the accepted ones; the others stay in the denominator.
    output.with_suffix(".extxyz").unlink()
    alone = samples.read_samples(output)
    assert len(alone.molecules) == 7
    assert alone.faults.count("not in the file") == 4


def test_more_are_added_as_if_they_had_been_asked_for_at_once(tmp_path, monkeypatch):
    few, many = tmp_path / "few.sdf", tmp_path / "many.sdf"
    write(few, gate_of(2, until_valid=True), monkeypatch)
    write(few, gate_of(5, until_valid=True), monkeypatch)
    write(many, gate_of(5, until_valid=True), monkeypatch)
    for end in (".sdf", ".extxyz", ".jsonl"):
        assert few.with_suffix(end).read_bytes() == many.with_suffix(end).read_bytes()


def test_a_gate_that_is_never_full_ends_with_status_3(tmp_path, monkeypatch, capsys):
    output = tmp_path / "molecules.sdf"

    def command(argv):
        gate = gate_of(3, until_valid=True, diverse=True, max_draws=8)
        write(output, gate, monkeypatch, gate.terms.max_draws)
        manifest.tell_accepted(str(output), gate, "")
        return 0

    assert cli.run("symphony sample", command, []) == 3
    out = capsys.readouterr()
    assert "accepted 2 of 8 draws (25.0%" in out.out
    assert "1 duplicate" in out.err
    assert "--max_draws=8 is reached; what was accepted stays" in out.err
    assert output.read_text().count("$$$$") == 2
    assert len(lines_of(output)) == 8


def test_reaching_the_number_is_no_failure_at_any_rate():
    gate = gate_of(1, until_valid=True, max_draws=500)
    torn = Sample(0, 0, NUMBERS, WATER * 9, True, -1.0)
    for _ in range(400):
        gate.judge(torn, None, "")
    gate.judge(torn, "O", "")
    gate.check()
    assert gate.is_done


@pytest.fixture
def waters(monkeypatch):
    def draw(weights, options, seed, first, end, num_slots):
        yield from drawn(first, end, seed)

    chosen = Options(1.0, 1.0, 1.0, 9, None, {})
    monkeypatch.setattr(sampler, "choose", lambda weights, **keywords: chosen)
    monkeypatch.setattr(drawing, "draw", draw)
    return Sampler(Weights._make([None] * len(Weights._fields)))


def test_python_goes_on_until_enough_are_accepted(waters):
    mols = waters.sample(3, until_valid=True)
    assert [mol.GetProp("index") for mol in mols] == ["0", "4", "6"]
    assert waters.summary[:4] == (7, 6, 3, 3)
    more = waters.sample(5, until_valid=True)
    assert [mol.GetProp("index") for mol in more[:3]] == ["0", "4", "6"]


def test_python_returns_what_was_accepted_and_warns(waters, caplog):
    mols = waters.sample(3, until_valid=True, diverse=True, max_draws=9)
    assert [mol.GetProp("index") for mol in mols] == ["0", "4"]
    assert waters.summary.num_duplicates == 2
    assert "raise max_draws" in caplog.text


def test_without_until_valid_a_number_of_draws_is_judged(waters):
    mols = waters.sample(7, diverse=True)
    assert [mol.GetProp("index") for mol in mols] == ["0", "4"]
    assert waters.summary.num_accepted == 2
    with pytest.raises(RunError):
        Gate(acceptance.choose(9, until_valid=True), 9).check()


def of_size(size, log_likelihood, num_fixed=0):
    positions = np.zeros((size, 3), np.float32)
    numbers = np.ones(size, np.uint8)
    return Sample(0, 0, numbers, positions, True, log_likelihood, num_fixed=num_fixed)


def test_the_best_are_so_for_their_size():
    # Per atom 1, 2, 3 of three atoms, and 10, 14 of ten: these are -2 and 2 of a mean.
    some = [of_size(3, 3.0), of_size(3, 6.0), of_size(3, 9.0)]
    some += [of_size(10, 100.0), of_size(10, 140.0)]
    assert acceptance.choose_best(some, 1) == {4}
    assert acceptance.choose_best(some, 2) == {2, 4}
    assert acceptance.choose_best(some, 5) == {0, 1, 2, 3, 4}
    # The atoms of a fragment have no part in the likelihood.
    fixed = [of_size(4, 3.0, 3), of_size(4, 4.0, 1), of_size(4, 2.0, 2)]
    assert acceptance.choose_best(fixed, 1) == {0}
    with pytest.raises(UsageError, match="--best"):
        acceptance.choose_best([of_size(3, None)], 1)


@pytest.mark.parametrize("best", [0, 4])
def test_more_than_are_drawn_cannot_be_the_best(best):
    with pytest.raises(UsageError, match=f"--best: expected 1 to .*3, found {best}"):
        acceptance.choose(3, best=best)


every = drawn


def rated(first, end, seed=0):
    for one in every(first, end, seed):
        yield one._replace(log_likelihood=float([3, 0, 9, 0, 5, 0, 4, 0][one.index]))


def test_the_others_are_kept_aside(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.symphony.test_acceptance.drawn", rated)
    output = tmp_path / "molecules.sdf"
    gate = gate_of(8, best=2)
    write(output, gate, monkeypatch, end=8)
    reasons = [line.get("rejected") for line in lines_of(output)]
    # Of two waters the more likely one, and the only methane.
    assert [i for i, reason in enumerate(reasons) if reason is None] == [4, 6]
    assert reasons[0] == "not_best"
    assert output.read_text().count("$$$$") == 2
    assert output.with_suffix(".extxyz").read_text().count("rejected=") == 6
    manifest.tell_accepted(str(output), gate, "")
    told = "accepted 3 of 8 draws (37.5%"
    assert told in (line := capsys.readouterr().out)
    assert "kept the best 2 of 3 (66.7%) by log-likelihood per atom" in line
    again = gate_of(8, best=2)
    assert write(output, again, monkeypatch, end=8).moved == []
    assert (again.num_accepted, again.num_best) == (3, 2)


def test_a_choice_of_the_best_goes_on_where_writing_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.symphony.test_acceptance.drawn", rated)
    whole, parts = tmp_path / "whole.sdf", tmp_path / "parts.sdf"
    write(whole, gate_of(8, best=2), monkeypatch, end=8)
    real, count = molfile.append, iter(range(3))

    def stops(*given):
        if next(count, None) is None:
            raise RunError("full")
        real(*given)

    monkeypatch.setattr(molfile, "append", stops)
    with pytest.raises(RunError):
        write(parts, gate_of(8, best=2), monkeypatch, end=8)
    assert len(lines_of(parts)) == 3
    monkeypatch.setattr(molfile, "append", real)
    write(parts, gate_of(8, best=2), monkeypatch, end=8)
    assert whole.read_bytes() == parts.read_bytes()
    assert lines_of(whole) == lines_of(parts)


def test_python_returns_the_best(waters, monkeypatch):
    monkeypatch.setattr("tests.symphony.test_acceptance.drawn", rated)
    mols = waters.sample(7, best=2)
    assert [mol.GetProp("index") for mol in mols] == ["4", "6"]
