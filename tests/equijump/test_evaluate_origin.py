"""Tests of what a report says of the rollout that it is of."""

import json

import pytest

from equijump import confidence
from equijump.evaluate import origin

ESTIMATE = confidence.Estimate((0.012, 0.008, 0.02), (1.2, 1.05, 1.5), ("length",), 42)
RECORD = {
    "checkpoint": "peptides",
    "settings": {"system": "mine", "lag": 10.0, "max_redraws": 10},
    "dynamics": "ff14SB, OBC2, 300 K, friction 1/ps, not water",
    "outside_training": ["10 residues (trained on 1 to 4)", "D handedness of ALA2"],
    "result": {"num_draws": 80, "num_accepted": 60},
    "confidence": confidence.to_json(ESTIMATE),
}


@pytest.fixture
def rollout(tmp_path):
    (tmp_path / "sample.json").write_text(json.dumps(RECORD))
    return [tmp_path / f"mine_{number}.xtc" for number in range(3)]


def test_a_rollout_says_its_network_its_dynamics_and_how_far_to_trust_it(rollout):
    assert origin.lines_of(origin.read(rollout)) == [
        "rollout by peptides, jumps of 10 ps",
        "times and weights are those of ff14SB, OBC2, 300 K, friction 1/ps, not water",
        "outside the training: 10 residues (trained on 1 to 4); D handedness of ALA2",
        "the gate let 75.0% of draws pass",
        confidence.describe(ESTIMATE),
    ]


def test_trajectories_of_something_else_have_no_origin(rollout, tmp_path):
    assert origin.read([tmp_path / "other_0.xtc"]) is None
    assert origin.read([*rollout, tmp_path / "sub" / "mine_7.xtc"]) is None
    assert origin.read([tmp_path / "nowhere" / "mine_0.xtc"]) is None


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "{}",
        json.dumps({**RECORD, "settings": {"system": "mine"}}),
        json.dumps({**RECORD, "confidence": {"js": 3}}),
        json.dumps({**RECORD, "result": {"num_draws": 5}}),
        json.dumps({**RECORD, "outside_training": 7}),
    ],
)
def test_a_damaged_record_says_nothing(broken, rollout, tmp_path):
    (tmp_path / "sample.json").write_text(broken)
    assert origin.read(rollout) is None


def test_frames_of_an_ensemble_are_no_jumps(rollout):
    settings = {**RECORD["settings"], "lag": None}
    first = origin.lines_of({**RECORD, "settings": settings})[0]
    assert first == "rollout by peptides, frames drawn one by one"
