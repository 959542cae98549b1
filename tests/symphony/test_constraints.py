"""Tests of constrained sampling with small random weights, one compiled program."""

import json
from collections import Counter

import numpy as np
import pytest

import symphony
from common.runs import checkpoints
from symphony import formula, manifest, sample
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
    assert sum(one.stopped for one in drawn) >= 6


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
