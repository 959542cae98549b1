"""Tests of constrained sampling with small random weights, one compiled program."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

import symphony
from common.runs import checkpoints
from symphony import complete, edit, formula, manifest, sample
from symphony.data.xyz import read_xyz
from tests.symphony import small
from tests.symphony.test_wishes import ETHANOL, NUMBERS

HEAVY_FIRST_COUNTS = {"1": 50, "6": 30, "7": 9, "8": 8, "9": 0}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Small random weights that place heavy atoms first."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    _, params = small.model_and_params()
    config = small.make_config()
    config.sample.max_atoms = 12
    config.data.heavy_first = True
    counts = {"species_counts": HEAVY_FIRST_COUNTS}
    checkpoints.save_packaged(folder, params, config, counts)
    return folder


@pytest.fixture(scope="module")
def sampler(packaged):
    return symphony.load(packaged)


def draw(sampler, count, **asked):
    return sampler.sample_positions(count, seed=3, num_slots=4, **asked)


def formula_of(one):
    return formula.write(Counter(one.atomic_numbers.tolist()))


def is_heavy_first(numbers):
    return bool(np.all(np.diff((numbers == 1).astype(int)) >= 0))


@pytest.mark.parametrize("text", ["C2H6O", "CH4", "C3H6"])
def test_a_formula_is_met_exactly_or_told_to_be_unfinished(sampler, text):
    drawn = draw(sampler, 12, formula=text)
    for one in drawn:
        assert is_heavy_first(one.atomic_numbers)
        assert one.stopped == (formula_of(one) == text)
        assert one.stopped == (one.reason is None)
        record = manifest.finish(one)[1]
        assert record.get("unfinished") == one.reason
        # The law under the masks is the free one, renormalised over less.
        assert record["log_likelihood_constrained"] > record["log_likelihood"]
        # What went is in neither the number nor its parts; the rest is the stop.
        assert one.log_likelihood - np.nansum(one.log_of_atoms) < 1e-3
        assert record["taken_back"] == one.num_redrawn
    assert sum(one.stopped for one in drawn) >= 10
    assert any(one.stopped and one.num_redrawn > 0 for one in drawn)


def test_a_number_of_atoms_is_a_range(sampler):
    drawn = draw(sampler, 12, num_atoms="5-7")
    sizes = [len(one.atomic_numbers) for one in drawn if one.stopped]
    assert len(sizes) >= 4
    assert {*sizes} <= {5, 6, 7}
    assert all(len(one.atomic_numbers) <= 7 for one in drawn)


def test_elements_and_heavy_atoms_are_limited_together(sampler):
    drawn = draw(sampler, 12, max_heavy=2, elements=["C", "H"])
    for one in drawn:
        assert {*one.atomic_numbers.tolist()} <= {1, 6}
        assert np.sum(one.atomic_numbers > 1) <= 2
    assert any(np.sum(one.atomic_numbers > 1) == 2 for one in drawn)


def test_a_molecule_is_the_same_however_many_are_asked_for(sampler):
    many, few = (draw(sampler, n, formula="C2H6O") for n in (9, 4))
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.atomic_numbers, other.atomic_numbers)
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-4)
        assert one.log_constrained == pytest.approx(other.log_constrained, rel=1e-3)


def hydrogens_of(atom):
    apart = np.linalg.norm(ETHANOL - ETHANOL[atom], axis=1)
    return np.flatnonzero((apart < 1.2) & (NUMBERS == 1))


@pytest.mark.parametrize("keep", [False, True])
def test_a_core_grows_from_the_atoms_that_are_named(sampler, keep):
    drawn = draw(
        sampler, 12, fragment=(NUMBERS, ETHANOL), attach=[1], keep_hydrogens=keep
    )
    core = ETHANOL.astype(np.float32)
    stay = np.concatenate([hydrogens_of(0), hydrogens_of(2)])
    num_grown = 0
    for one in drawn:
        assert len(one.log_of_atoms) == len(one.positions)
        is_given = np.arange(len(one.positions)) < one.num_fixed
        assert np.isnan(one.log_of_atoms).tolist() == is_given.tolist()
        own = one.positions[: one.num_fixed]
        np.testing.assert_array_equal(own[:3], core[:3])
        if one.stopped:
            kept = [atom for atom in range(3, 9) if (core[atom] == own).all(1).any()]
            assert {*stay.tolist()} <= {*kept}
            assert keep or [*stay] == kept
        grown = one.positions[one.num_fixed :][one.atomic_numbers[one.num_fixed :] > 1]
        num_grown += len(grown)
        for atom in (0, 2):
            apart = np.linalg.norm(grown - core[atom], axis=1)
            limit = 1.15 * (0.76 + 0.57)
            assert (apart > limit).all()
    assert num_grown


def test_all_hydrogens_are_kept_where_nothing_grows(sampler):
    (one, *_) = draw(
        sampler, 1, fragment=(NUMBERS, ETHANOL), attach=[1], keep_hydrogens=True,
        max_heavy=3,
    )  # fmt: skip
    assert one.num_fixed == 9
    np.testing.assert_array_equal(one.positions[:9], ETHANOL.astype(np.float32))
    np.testing.assert_array_equal(one.atomic_numbers[:9], NUMBERS)


def test_the_command_writes_both_log_likelihoods(packaged, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)
    output = tmp_path / "molecules.sdf"
    flags = [
        f"--checkpoint={packaged}", f"--output={output}", "--num_molecules=4",
        "--num_slots=4", "--seed=3", "--formula=CH4",
    ]  # fmt: skip
    assert sample.main(flags) == 0
    text = output.with_suffix(".jsonl").read_text()
    head, *lines = map(json.loads, text.splitlines())
    assert head["settings"]["formula"] == {"6": 1, "1": 4}
    assert all("log_likelihood_constrained" in line for line in lines)
    frames = output.with_suffix(".extxyz").read_text()
    assert frames.count("log_likelihood_constrained=") == 4


def write_ethanol(path, atoms):
    symbols = {6: "C", 8: "O", 1: "H"}
    rows = [
        f"{symbols[int(NUMBERS[atom])]} {' '.join(map(str, ETHANOL[atom]))}"
        for atom in atoms
    ]
    path.write_text("\n".join([str(len(rows)), "ethanol", *rows, ""]))
    return path


def frames_of(output):
    with output.with_suffix(".extxyz").open("rb") as file:
        found = read_xyz(file, "out").molecules
    for start, end in itertools.pairwise(found.offsets):
        yield found.atomic_numbers[start:end], found.positions[start:end]


def test_a_part_is_regrown_and_the_rest_stays(packaged, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)
    source = write_ethanol(tmp_path / "in.xyz", range(9))
    output = tmp_path / "edited.sdf"
    more = ["--num_molecules=6", "--num_slots=4", "-o", str(output), "--keep_formula"]
    argv = [str(source), "--remove=2", f"--checkpoint={packaged}", *more]
    assert edit.main(argv) == 0
    core = ETHANOL[:2].astype(np.float32)
    for numbers, positions in frames_of(output):
        np.testing.assert_array_equal(positions[:2], core)
        assert np.sum(numbers > 1) <= 3
    head, *lines = map(
        json.loads, output.with_suffix(".jsonl").read_text().splitlines()
    )
    assert head["settings"]["remove"] == "2"
    assert len(lines) == 6
    stopped = [line for line in lines if line["stopped"]]
    assert all(line["formula"] == "C2H6O" for line in stopped)
    assert "name=0_5" in output.with_suffix(".extxyz").read_text()


def test_a_lost_hydrogen_comes_back(packaged, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)
    source = write_ethanol(tmp_path / "in.xyz", [0, 1, 2, 3, 4, 6, 7, 8])
    output = tmp_path / "completed.sdf"
    argv = [str(source), f"--checkpoint={packaged}", "--num_slots=4", "-o", str(output)]
    assert complete.main([*argv, "--num_molecules=4"]) == 0
    for numbers, positions in frames_of(output):
        assert numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
        given = ETHANOL[[0, 1, 2, 3, 4, 6, 7, 8]].astype(np.float32)
        np.testing.assert_array_equal(positions[:8], given)
        # It is drawn from the carbon that lost it, within the reach of a step.
        assert np.linalg.norm(positions[8] - ETHANOL[0]) < 2.61
