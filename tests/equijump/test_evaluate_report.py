"""Tests of what an evaluation tells where it can tell little, and of its chunks."""

import json

import numpy as np
import pytest
from absl import logging

from common.commands import cli
from common.errors import UsageError
from equijump.evaluate import geometry, inputs, measure, report, sides, tables, validity

FEW = measure.Settings(num_resamples=2)


@pytest.fixture(scope="module")
def packaged():
    files = sorted(inputs.PACKAGED.glob("ala2_300K_*.xtc"))[:4]
    return inputs.read("--reference", files, None, 0.0, finite=True)


def side(packaged, *positions):
    names = tuple(f"replica {i}" for i in range(len(positions)))
    return packaged._replace(names=names, positions=tuple(map(np.array, positions)))


@pytest.fixture(scope="module")
def frozen(packaged):
    """A rollout whose first replica stands still and whose second one does half."""
    ours = side(packaged, *packaged.positions[:2])
    ours.positions[0][:] = ours.positions[0][0]
    ours.positions[1][1::2] = ours.positions[1][::2][: len(ours.positions[1]) // 2]
    return measure.evaluate(ours, side(packaged, *packaged.positions[2:]), FEW)


def table(rows):
    header, *rest = rows
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rest}


def test_frames_that_repeat_the_one_before_are_counted_and_warned_of(frozen):
    found = frozen["validity"]
    assert found["trajectory"]["repeated_fraction"] == pytest.approx(0.75, abs=1e-3)
    assert found["reference"]["repeated_fraction"] == 0.0
    row = table(tables.validity_rows(frozen))["frames like the one before, %"]
    assert row["trajectory"].startswith("75.0")
    assert row["reference"] == "0.000"
    told = [line for line in report.warnings(frozen) if "repeat the one before" in line]
    assert len(told) == 1
    assert told[0].startswith("--trajectory: 75.0% of frames")
    assert told[0] in report.to_html(frozen)


def test_what_markov_models_cover_is_shown(packaged):
    ours = side(packaged, packaged.positions[0], packaged.positions[1])
    ours.positions[1][:] = ours.positions[1][0]
    ours.positions[0][:] = ours.positions[0][0]
    found = measure.evaluate(ours, side(packaged, *packaged.positions[2:]), FEW)
    assert found["models"]["trajectory"]["connected_states"] == 0
    assert found["models"]["trajectory"]["covered_frames"] == 0.0
    assert 0.9 < found["models"]["reference"]["covered_frames"] <= 1.0
    rows = table(tables.coverage_rows(found))
    count = found["models"]["num_states"]
    assert rows["states that connect"]["trajectory"] == f"0 of {count}"
    assert rows["frames in them, %"]["trajectory"] == "0.0"
    told = "\n".join(report.warnings(found))
    assert "--trajectory: the Markov model covers 0.0% of frames" in told
    assert "--reference" not in told


def test_a_mean_of_missing_values_is_a_dash_and_never_zero():
    entry = {
        "kind": "torsion", "js": 0.25, "low": 0.1, "high": 0.3, "floor": 0.01,
        "root": 0.5, "floor_root": 0.1, "js_msm_reweighted": None,
    }  # fmt: skip
    entries = {f"chi{i}": entry for i in range(40)}
    found = {"reference": {}, "distributions": entries}
    _, row = tables.divergence_rows(found, whole=False)
    assert row == ["40 of torsion, mean", "0.2500", "0.0100", "0.500", "0.100", "–"]
    found["distributions"]["chi3"] = {**entry, "js_msm_reweighted": 0.5}
    assert tables.divergence_rows(found, whole=False)[1][-1] == "0.5000"


def test_replicas_that_are_mostly_lost_are_warned_of(packaged, monkeypatch):
    told = []
    monkeypatch.setattr(
        logging, "warning", lambda line, *rest: told.append(line % rest)
    )
    ours = side(packaged, *packaged.positions[:3])
    for positions in ours.positions[:2]:
        positions[7] = np.nan
    whole, lost = sides.keep_whole(ours, packaged)
    assert (len(whole.names), len(lost)) == (1, 2)
    assert told == [
        "only 1 of 3 replicas stayed whole (33.3%); replica 0 has a position that is "
        "not finite in frame 7; leave out what follows"
    ]


def test_why_replicas_are_lost_is_on_the_screen():
    one = {"name": "a.xtc", "frame": 7, "reason": "a bond CA-CB of 9.99 Å, not 1.50 Å"}
    found = {"trajectory": {"lost": [one] * 20}}
    rows = tables.lost_rows(found, whole=False)
    assert rows[1] == ["a.xtc", "7", "a bond CA-CB of 9.99 Å, not 1.50 Å"]
    assert rows[-1][0] == "and 4 more"
    assert len(tables.lost_rows(found)) == 21
    assert tables.lost_rows({"trajectory": {"lost": []}}) == []


def test_where_no_replica_can_be_judged_the_command_fails(packaged, tmp_path, capsys):
    import mdtraj

    pdb = inputs.PACKAGED / "ala2_300K.pdb"
    broken = mdtraj.load(str(inputs.PACKAGED / "ala2_300K_0.xtc"), top=str(pdb))[:100]
    broken.xyz[60:] *= 3.0
    broken.save(str(tmp_path / "a.xtc"))
    given = [f"--trajectory={tmp_path / 'a.xtc'}", f"--topology={pdb}"]
    output = tmp_path / "report"
    assert cli.run("x", _main, [*given, f"--output={output}"]) == 3
    told = capsys.readouterr().err.strip().splitlines()
    assert "0 of 1 replicas stayed whole (0.0%); a.xtc has a bond" in told[-1]
    assert "in frame 60" in told[-1]


def _main(argv):
    from equijump import evaluate

    return evaluate.main(argv)


def test_a_reference_that_stands_still_is_refused(packaged):
    still = np.repeat(packaged.positions[0][:1], 200, axis=0)
    theirs = side(packaged, still, still)
    with pytest.raises(UsageError, match="--reference: expected trajectories that mov"):
        measure.evaluate(side(packaged, *packaged.positions[:1]), theirs, FEW)


@pytest.mark.parametrize("size", [1, 700, 10**9])
def test_nothing_depends_on_the_size_of_chunks(size, packaged, monkeypatch):
    few = tuple(np.array(x[:200]) for x in packaged.positions[:2])
    norm = validity.norm_of(few, packaged.system)
    expected = validity.measure(few, packaged.system, norm, 5.0)
    monkeypatch.setattr(geometry, "MOST_NUMBERS", size)
    again = validity.norm_of(few, packaged.system)
    for one, other in zip(norm, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    found = validity.measure(few, packaged.system, norm, 5.0)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-6), name
    few[0][150, 3] = np.nan
    loss = validity.find_loss("r", few[0], packaged.system, norm.lengths)
    assert loss.frame == 150


def test_neighbours_are_as_close_as_among_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    positions = np.float32(rng.uniform(0.0, 60.0, (20, 60, 3)))
    pairs, radii = geometry.all_pairs(60, apart=4), rng.uniform(1.5, 1.8, 60)
    every = validity.closeness(positions, pairs, radii)
    monkeypatch.setattr(validity, "_MOST_PAIRS", 0)
    found = validity.closeness(positions, pairs, radii)
    near = every < validity.CLASH
    assert 0 < near.sum() < 20
    np.testing.assert_allclose(found[near], every[near], rtol=1e-5)
    assert np.isinf(found[~near]).all()


def test_slow_coordinates_take_as_many_distances_as_frames_bear(monkeypatch):
    seen = []
    monkeypatch.setattr(geometry, "is_protein", lambda system: True)
    monkeypatch.setattr(geometry, "alpha_carbons", lambda system: np.arange(60))
    fit = lambda units, function, *rest: seen.append(function(units[0][:1]).shape[1])
    monkeypatch.setattr(sides.features, "fit_tica", fit)
    monkeypatch.setattr(sides.features, "project", lambda *rest: np.zeros((1, 1)))
    for num_frames, expected in [(30, 15), (400, 200), (9_000, 1_000)]:
        units = [np.zeros((num_frames // 2, 60, 3), np.float32)] * 2
        replicas = inputs.Replicas(("a", "b"), None, units, 1.0)
        both = {"trajectory": replicas, "reference": replicas}
        _, what = sides._slow_coordinates(both, {}, 1, sides.silent)
        assert seen.pop() == expected
        assert what == f"{expected} of 1770 CA distances"


@pytest.fixture(scope="module")
def alone(packaged):
    """The first three of four trajectories, with nothing to compare them with."""
    return measure.evaluate(side(packaged, *packaged.positions[:3]), None, FEW)


def test_trajectories_without_a_reference_are_described_alone(alone):
    assert alone["reference"] is None
    assert "reference" not in json.dumps({**alone, "reference": None}).replace(
        '"reference": null', ""
    ).replace(json.dumps(alone["definitions"]), "")
    entry = alone["distributions"]["ALA2 phi, psi"]
    assert entry["js"] is entry["root"] is entry["low"] is None
    assert 0.0 < entry["floor"] < 0.1
    halves = table(tables.divergence_rows(alone))["ALA2 phi, psi"]
    assert halves == {
        "JS, nats": f"{entry['floor']:.4f}", "√JS": f"{entry['floor_root']:.3f}"
    }  # fmt: skip
    times = table(tables.time_rows(alone))
    assert all(row.keys() == {"trajectory"} for row in times.values())
    assert "time-scale 1, lag 10, ps" in times
    assert table(tables.validity_rows(alone))["replicas lost"] == {
        "trajectory": "0 of 3"
    }


def test_the_page_of_trajectories_alone_has_one_side(alone):
    page = report.to_html(alone)
    assert "without a reference" in page
    assert page.count('<figure class="viewer"') == 1
    assert "Halves of the reference" not in page
    assert "random halves of the trajectories" in page


def test_the_page_says_what_made_a_rollout(alone):
    record = {"checkpoint": "a<b", "settings": {"lag": 10.0}, "dynamics": "ff14SB"}
    page = report.to_html({**alone, "origin": record})
    assert "rollout by a&lt;b, jumps of 10 ps<br>times and weights are those of" in page
    assert "rollout by" not in report.to_html(alone)


def test_without_a_reference_the_starts_say_what_is_whole_and_which_hand_is_right(
    packaged,
):
    ours = side(packaged, *packaged.positions[:3])
    ours.positions[0][5:] *= 2.5
    ours.positions[1][1:] *= -1.0
    ours.positions[2][1:] *= -1.0
    found = measure.evaluate(ours, None, FEW)
    (lost,) = found["trajectory"]["lost"]
    assert (lost["name"], lost["frame"]) == ("replica 0", 5)
    assert found["validity"]["trajectory"]["wrong_hand_fraction"] > 0.99


def test_trajectories_alone_that_stand_still_are_refused_by_their_flag(packaged):
    ours = side(packaged, packaged.positions[0])
    ours.positions[0][:] = ours.positions[0][0]
    with pytest.raises(UsageError, match="--trajectory: expected trajectories that"):
        measure.evaluate(ours, None, FEW)
