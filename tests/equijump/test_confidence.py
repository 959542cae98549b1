"""Tests of how far rollouts are to be trusted, on errors of a known law."""

import json

import numpy as np
import pytest

from common.errors import UsageError
from equijump import confidence, outcome, rollout
from equijump.confidence import Measured
from equijump.transferable import Transferable
from tests.equijump.test_data_topology_order import make_system
from tests.equijump.test_options import make_weights

KNOWN = Transferable(("ACE-ALA-NME", "ACE-GLY-ALA-NME"), False)
NOISE = 0.3


def measured(count, seed=0, slope=2.0, **more):
    """Peptides whose logarithm of JS is linear in what the gate refuses."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        refused, length = rng.uniform(0.0, 1.0), float(np.log(rng.integers(2, 7)))
        features = {
            "refused": refused, "new_residues": 0.0, "new_pairs": rng.uniform(),
            "length": length, **more,
        }  # fmt: skip
        js = np.exp(slope * refused - 5.0 + NOISE * rng.normal())
        found.append(Measured(features, {"js": js, "time": 0.1 * np.exp(rng.normal())}))
    return found


def features(refused, **more):
    usual = {"new_residues": 0.0, "new_pairs": 0.5, "length": 1.0}
    return {"refused": refused, **usual, **more}


def test_features_are_those_of_the_sequence_and_the_gate():
    found = confidence.features_of(1.0, "ACE-TRP-ALA-NME", KNOWN)
    assert found == {
        "refused": 0.0, "new_residues": 0.25, "new_pairs": 2 / 3, "length": np.log(2),
    }  # fmt: skip
    assert confidence.features_of(0.0, "ACE-ALA-NME", KNOWN)["refused"] < 10.0
    twice = confidence.features_of(1.0, "ACE-ALA-NME", KNOWN, disagreement=0.5)
    assert twice["disagreement"] == np.log(0.5)


def test_a_law_of_errors_is_found_again():
    calibration = confidence.fit(measured(400), 10.0)
    for refused in (0.1, 0.9):
        js = confidence.estimate(calibration, features(refused)).js
        assert np.log(js[0]) == pytest.approx(2.0 * refused - 5.0, abs=0.1)
        width = (np.log(js[2]) - np.log(js[1])) / NOISE
        assert width == pytest.approx(2 * 1.28, rel=0.15)


def test_intervals_cover_peptides_that_were_left_out():
    rows = measured(60, seed=1)
    estimates = confidence.leave_one_out(rows)
    inside = [
        found.js[1] <= one.errors["js"] <= found.js[2]
        for found, one in zip(estimates, rows, strict=True)
    ]
    assert 0.7 < np.mean(inside) < 0.92


def test_a_peptide_has_no_part_in_its_own_estimate():
    rows = measured(20)
    spoilt = [rows[0]._replace(errors={"js": 0.6, "time": 3.0}), *rows[1:]]
    assert confidence.leave_one_out(rows)[0] == confidence.leave_one_out(spoilt)[0]
    assert confidence.leave_one_out(rows)[1] != confidence.leave_one_out(spoilt)[1]


def test_what_was_never_calibrated_is_named():
    calibration = confidence.fit(measured(40), 10.0)
    found = confidence.estimate(calibration, features(0.5, length=np.log(20.0)))
    assert found.beyond == ("length",)
    assert "; beyond them in length" in confidence.describe(found)
    inside = confidence.estimate(calibration, features(0.5))
    assert inside.beyond == ()


def test_an_estimate_beyond_all_bounds_says_no_more():
    wild = confidence.Estimate(None, (148.4, 148.4, 148.4), ("refused",), 42)
    told = confidence.describe(wild)
    assert "slowest times off by a factor of 100 or more, by 42" in told
    assert told.endswith("beyond them in draws refused")
    open_ended = wild._replace(time_factor=(20.0, 2.0, 148.4))
    assert "a factor of 20 (2 to 100 or more)" in confidence.describe(open_ended)


def test_estimates_are_errors_that_can_be():
    calibration = confidence.fit(measured(40), 10.0)
    found = confidence.estimate(calibration, features(50.0))
    assert found.js[2] <= np.log(2.0)
    assert np.isfinite(found.time_factor).all()
    low = confidence.estimate(calibration, features(0.0))
    assert 1.0 <= low.time_factor[1] <= low.time_factor[0] <= low.time_factor[2]


def test_a_feature_that_some_lack_is_left_out():
    rows = measured(10, disagreement=-1.0)
    assert "disagreement" in confidence.fit(rows, 10.0).features
    rows[3].features.pop("disagreement")
    assert "disagreement" not in confidence.fit(rows, 10.0).features


def test_an_estimate_without_a_feature_is_none():
    calibration = confidence.fit(measured(10, disagreement=-1.0), 10.0)
    assert confidence.estimate(calibration, features(0.5)) is None
    known = confidence.estimate(calibration, features(0.5, disagreement=-1.0))
    assert known.num_peptides == 10


def test_few_peptides_are_refused_and_few_times_left_out():
    with pytest.raises(ValueError, match="7 peptides"):
        confidence.fit(measured(7), 10.0)
    rows = [one._replace(errors={"js": one.errors["js"]}) for one in measured(20)]
    found = confidence.estimate(confidence.fit(rows, 10.0), features(0.5))
    assert found.time_factor is None
    assert confidence.describe(found).count("slowest") == 0


def write(folder, calibration, checksum="ab"):
    record = confidence.write(calibration, checksum)
    (folder / confidence.FILE).write_text(json.dumps(record))
    return record


def test_a_calibration_is_kept_beside_weights(tmp_path):
    calibration = confidence.fit(measured(20), 10.0)
    write(tmp_path, calibration)
    assert confidence.read(tmp_path, "ab") == calibration


def test_without_a_calibration_nothing_is_told(tmp_path):
    assert confidence.read(tmp_path, "ab") is None
    assert confidence.to_json(None) is None


def test_a_calibration_of_other_weights_is_left_out(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(confidence.logging, "warning", lambda t, *a: told.append(t % a))
    write(tmp_path, confidence.fit(measured(20), 10.0))
    assert confidence.read(tmp_path, "cd") is None
    (line,) = told
    assert "of other weights" in line


@pytest.mark.parametrize(
    "change",
    [{"means": [0.0]}, {"features": ["x"] * 4}, {"format_version": 2}, {"errors": 3}],
)
def test_a_damaged_calibration_is_refused(change, tmp_path):
    record = write(tmp_path, confidence.fit(measured(20), 10.0)) | change
    (tmp_path / confidence.FILE).write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"calibration\.json"):
        confidence.read(tmp_path, "ab")


def plan_of(**changes):
    system = make_system(["ACE", "ALA", "NME"])
    starts = np.zeros((2, len(system.kept), 3), np.float32)
    plan = rollout.Plan(system, starts, {"lag": 10.0}, seed=0, max_redraws=10)
    return plan._replace(**changes)


def test_a_summary_has_the_estimate_of_its_peptide():
    summary = outcome.Summary(5, 2, 20, 10, 2, {}, 10)
    weights = make_weights()._replace(transferable=KNOWN)
    assert outcome.with_confidence(summary, plan_of(), weights) == summary
    weights = weights._replace(calibration=confidence.fit(measured(20), 10.0))
    found = outcome.with_confidence(summary, plan_of(), weights)
    expected = confidence.features_of(0.5, "ACE-ALA-NME", KNOWN)
    assert found.confidence == confidence.estimate(weights.calibration, expected)
    assert "confidence" not in outcome.to_json(found)
    record = confidence.to_json(found.confidence)
    assert record["js"]["low"] < record["js"]["estimate"] < record["js"]["high"]


@pytest.mark.parametrize(
    "changes",
    [{"max_redraws": None}, {"conditions": {"lag": 20.0}}, {"conditions": {}}],
)
def test_what_was_not_measured_has_no_estimate(changes):
    """Without the gate, at another lag, or without one."""
    summary = outcome.Summary(5, 2, 20, 10, 2, {}, 10)
    calibration = confidence.fit(measured(20), 10.0)
    weights = make_weights()._replace(transferable=KNOWN, calibration=calibration)
    found = outcome.with_confidence(summary, plan_of(**changes), weights)
    assert found.confidence is None
