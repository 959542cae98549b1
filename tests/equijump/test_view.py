"""The page of `equijump view`: its data, what it refuses, and how it behaves."""

import json
import re

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump import cli
from equijump.evaluate import geometry, inputs
from equijump.view import gate, traces
from tests import browser
from tests.equijump.test_evaluate import PDB, changed, save, thin
from tests.symphony.test_view import page_data, unpacked

NUM_FRAMES = 201


@pytest.fixture(scope="module")
def packaged():
    files = sorted(inputs.PACKAGED.glob("ala2_300K_*.xtc"))[:2]
    found = thin(inputs.read("--reference", files, None, 0.0, finite=True), 10.0)
    short = tuple(positions[:NUM_FRAMES] for positions in found.positions)
    return found._replace(positions=short)


def view(*flags):
    return cli.main(["view", *map(str, flags)])


def trajectories_of(replicas, folder, *flags, suffix=".xtc"):
    pattern = save(replicas, folder, suffix)
    topology = folder / "start.pdb"
    out = folder / "view.html"
    assert view(pattern, f"--topology={topology}", "-o", out, *flags) == 0
    return page_data(out, "trajectories")


@pytest.fixture(scope="module")
def folder(packaged, tmp_path_factory):
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="module")
def data(packaged, folder):
    return trajectories_of(packaged, folder)


def test_angles_and_positions_are_those_of_the_frames(data, packaged):
    assert data["residues"] == ["ALA2"]
    one = data["trajectories"][1]
    assert (one["num_frames"], one["spacing"]) == (NUM_FRAMES, 10.0)
    kinds = geometry.find_torsions(packaged.system)
    chosen = [kinds.kinds.index("phi"), kinds.kinds.index("psi")]
    ours = geometry.torsions_of(packaged.positions[1], kinds.atoms[chosen])
    angles = unpacked(one["angles"]).reshape(-1, 2)
    away = (angles - np.degrees(ours) + 180) % 360 - 180
    assert np.abs(away).max() < 1.0  # XTC keeps .01 Å.
    assert unpacked(one["positions"]).size == NUM_FRAMES * 30


def test_all_frames_are_counted_behind_the_trace(data):
    counts = np.exp(unpacked(data["counts"][0]))
    counts = counts[unpacked(data["counts"][0]) > -300]
    assert counts.sum() == pytest.approx(2 * NUM_FRAMES, rel=0.02)


def test_few_frames_still_show_the_longest_bond_of_all(packaged, tmp_path):
    def stretch(positions):
        positions[7] = positions[7] * 1.2

    found = trajectories_of(changed(packaged, stretch), tmp_path, "--max_frames=21")
    one = found["trajectories"][0]
    assert (one["num_frames"], one["spacing"]) == (21, 100.0)
    away = unpacked(one["away"], 0.001)
    assert away.argmax() == 0  # Frames 0 to 9.
    worst = one["bonds"][0]
    assert worst["time"] == 70.0
    assert worst["away"] == pytest.approx(away.max(), abs=2e-3)
    assert 0.2 < worst["away"] < 0.45
    assert not [x for x in one["events"] if "repeat" in x["what"]]


def test_repeated_frames_are_events_at_their_time(packaged, tmp_path):
    def stand_still(positions):
        positions[50:53] = positions[50]

    one = trajectories_of(changed(packaged, stand_still), tmp_path)["trajectories"][0]
    assert np.flatnonzero(one["repeated"]).tolist() == [51, 52]
    (event,) = one["events"]
    assert event == {
        "time": 510.0,
        "what": "2 frames repeat the one before; this is the first",
    }


def test_frames_that_are_not_finite_are_left_out_and_told(packaged, tmp_path):
    def spoil(positions):
        positions[100:] = np.nan

    found = trajectories_of(changed(packaged, spoil), tmp_path, suffix=".h5")
    one, other = found["trajectories"]
    assert (one["num_frames"], other["num_frames"]) == (100, NUM_FRAMES)
    assert any("101 frames" in event["what"] for event in one["events"])


def test_a_trajectory_without_a_finite_frame_is_named_and_the_rest_shown(
    packaged, tmp_path
):
    def spoil(positions):
        positions[:] = np.nan

    found = trajectories_of(changed(packaged, spoil), tmp_path, suffix=".h5")
    assert [one["num_frames"] for one in found["trajectories"]] == [0, NUM_FRAMES]


def sample_json(folder, **result):
    settings = {"system": "ala2", "format": "xtc", "replicas": 2, "max_redraws": 10}
    counts = {"num_draws": 40, "num_accepted": 38, "num_replicas": 2, "broken": {}}
    header = {"settings": settings, "result": {**counts, **result}}
    (folder / "sample.json").write_text(json.dumps(header))


def test_what_the_gate_did_is_read_beside_the_trajectories(packaged, tmp_path):
    save(packaged, tmp_path)
    for index in range(2):
        path = tmp_path / f"rollout_{index}.xtc"
        path.rename(tmp_path / f"ala2_{index}.xtc")
    (tmp_path / "start.pdb").rename(tmp_path / "ala2.pdb")
    sample_json(tmp_path, broken={"1": 120.0})
    out = tmp_path / "v.html"
    assert view("--trajectory", tmp_path / "ala2_*.xtc", f"--output={out}") == 0
    text = out.read_text()
    assert (
        "The gate refused 2 of 40 draws (a jump is drawn again up to 10 times" in text
    )
    first, second = page_data(out, "trajectories")["trajectories"]
    assert first["events"] == []
    assert second["events"] == [{"time": 120.0, "what": "geometry broke (sample.json)"}]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"settings": 3, "result": null}'])
def test_a_file_that_is_no_record_of_a_rollout_is_passed_over(tmp_path, text):
    (tmp_path / "sample.json").write_text(text)
    assert gate.read(tmp_path / "ala2_0.xtc") is None


def test_pages_stay_small_whatever_the_number_of_trajectories(packaged):
    many = packaged._replace(names=("a",) * 1000)
    assert traces.num_shown(many, 500) * 1000 * 10 * 8 <= traces.MOST_BYTES
    assert traces.num_shown(packaged, 500) == 500


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "expected trajectories, as first words or as --trajectory, found none"),
        (["none.xtc"], "none.xtc"),
        (["a.xtc", "-o", "v.txt"], "--output: expected a name that ends in .html"),
        (["a.xtc", "--max_frames=1"], "--max_frames: expected 2 to"),
        (["a.xtc", "--topology=b.pdb"], "b.pdb"),
    ],
)
def test_bad_input_is_one_clear_line(
    packaged, tmp_path, monkeypatch, capfd, flags, told
):
    monkeypatch.chdir(tmp_path)
    mdtraj.load(str(PDB)).save_xtc("a.xtc")
    assert view(*flags) == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if "equijump view: " in x]
    assert len(lines) == 1
    assert told in lines[0]
    assert not (tmp_path / "view.html").exists()


TRACE = """
const { view } = document.querySelector("section.trajectories");
const clock = () => view.clock.textContent;
this.first = clock();
put(view.slider, 20);
this.later = clock();
put(view.which, 1);
this.other = clock();
[...view.told.querySelectorAll("button")][0].click();
this.worst = [clock(), view.now.bonds[0].away];
view.seek(1e4);
this.last = clock();
const before = view.map.toDataURL();
view.show(0);
this.moves = before !== view.map.toDataURL();
this.across = document.documentElement.scrollWidth;
"""


def test_the_trace_moves_with_the_frames_in_a_browser(data, folder, tmp_path):
    told = browser.run((folder / "view.html").read_text(), tmp_path, TRACE)
    assert told["first"].startswith("0 ps · phi ")
    assert told["later"].startswith("200 ps · phi ")
    assert told["other"] != told["later"]
    shown = re.search(r"deviation ([\d.]+) Å", told["worst"][0]).group(1)
    assert float(shown) == pytest.approx(told["worst"][1], abs=2e-3)
    assert told["last"].startswith("2000 ps")
    assert told["moves"]
    assert told["across"] <= 1280


def test_trajectories_without_any_finite_frame_are_refused(packaged):
    spoilt = packaged._replace(
        positions=tuple(
            positions * np.float32("nan") for positions in packaged.positions
        )
    )
    with pytest.raises(UsageError, match="expected frames of finite positions"):
        traces.bonds_of(spoilt, 500)
