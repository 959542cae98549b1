"""Tests of `equijump inspect`."""

import json
import shlex

import mdtraj
import numpy as np
import pytest

from equijump import cli, inspect
from equijump.data.sources import guess
from tests.equijump import published
from tests.equijump.test_data_frames import make
from tests.equijump.test_data_published import BURSTS, write_atlas
from tests.equijump.test_data_source_peptides import make as make_peptides

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def ala2(topology):
    return mdtraj.load(str(topology))


def run(capsys, *arguments):
    status = cli.main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def mdcath(folder, ala2, count=12):
    runs = {(t, 0): 10.0 * published.shaken(ala2, count) for t in (320, 450)}
    runs[450, 1] = None
    path = folder / "mdcath_dataset_1abcA00.h5"
    return published.write_mdcath(path, ala2, runs)


def test_a_file_of_mdcath_is_told(tmp_path, ala2, capsys):
    path = mdcath(tmp_path, ala2)
    status, out, err = run(capsys, path)
    assert status == 0
    assert err == ""
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:6] == [
        f"{path}: mdcath",
        "system ACE-A-NME (3 residues, 10 heavy atoms)",
        "frames 12 in each of 2 trajectories, 22 ns in all",
        "spacing 1000 ps",
        "temperature 320, 450 K",
        f"left out 1 replicas that are empty (as in {path})",
    ]
    flags = shlex.split(lines[6])
    assert flags[:3] == ["training", "equijump", "train"]
    assert f"--config.data.sources=('mdcath:{path}',)" in flags
    assert "--config.data.lags=(1000.0,)" in flags
    assert "--config.model.conditions=('lag', 'temperature')" in flags


def test_what_cannot_be_trained_on_says_why(tmp_path, ala2, capsys):
    path = mdcath(tmp_path, ala2, count=3)
    status, out, _ = run(capsys, path)
    assert status == 0
    assert "training     no: 1abcA00_320_0: expected more than" in out


def test_bad_files_are_one_line_each_and_others_are_told(tmp_path, ala2, capsys):
    path = mdcath(tmp_path, ala2)
    cut = tmp_path / "cut" / "mdcath_dataset_2abcA00.h5"
    cut.parent.mkdir()
    cut.write_bytes(path.read_bytes()[:-3000])
    np.savez(tmp_path / "b.npz", arr_0=np.zeros(3))
    status, out, err = run(
        capsys,
        cut,
        path,
        tmp_path / "b.npz",
        tmp_path / "none.xtc",
        tmp_path / "x*.xtc",
    )
    assert status == 2
    assert out.count("mdcath\n") == 1
    lines = err.splitlines()
    assert len(lines) == 4
    assert "2abcA00.h5: expected an HDF5 file of mdCATH, found damage" in lines[0]
    assert "found arrays arr_0 without names of atoms" in lines[1]
    assert "expected files, found none" in lines[2]
    assert "expected files, found none" in lines[3]
    assert not any("--config" in line for line in lines[2:])
    assert all(line.startswith("equijump inspect: ") for line in lines)


def test_uneven_times_have_the_lag_that_most_pairs_have(tmp_path, capsys):
    published.write_timewarp(tmp_path, "AG", published.peptide("AG"), BURSTS)
    status, out, err = run(capsys, tmp_path / "AG-traj-arrays.npz")
    assert err == ""
    assert status == 0
    assert "ps, the median of uneven times" in out
    assert "AG (2 residues, 9 heavy atoms)" in out
    values = json.loads(run(capsys, "--json", tmp_path / "AG-traj-arrays.npz")[1])
    assert values[0]["is_even"] is False
    assert '--config.data.lags="(5.0,)"' in values[0]["command"]
    assert values[0]["temperatures"] == [310.0]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (5e-4 * np.array(BURSTS), 5.0),
        (np.arange(50) + 0.1 * np.random.default_rng(0).random(50), 1.0),
        (np.array([0.0, 0.25]), 0.25),
    ],
)
def test_the_lag_of_uneven_times_is_one_that_they_have(times, expected):
    assert inspect._common_gap(times) == pytest.approx(expected, rel=0.05)


def test_plain_files_state_no_temperature_and_may_need_a_spacing(
    tmp_path, topology, capsys
):
    make(topology, count=60).save(str(tmp_path / "run.dcd"))
    status, _, err = run(capsys, tmp_path / "run.dcd")
    assert status == 2
    assert "which .dcd files do not keep" in err
    status, out, _ = run(capsys, tmp_path / "run.dcd", "--spacing=2")
    assert status == 0
    assert "temperature  not stated: taken as 300 K" in out
    assert "frames       60 in one trajectory, 118 ps in all" in out
    assert "--config.data.spacing=2.0" in out
    assert '--config.data.lags="(10.0,)"' in out


def test_json_has_a_report_for_each(tmp_path, ala2, topology, capsys):
    path = mdcath(tmp_path, ala2)
    make_peptides(topology, tmp_path / "set")
    status, out, _ = run(capsys, "--json", path, tmp_path / "set", "ou:1")
    assert status == 0
    values = json.loads(out)
    assert [v["source"] for v in values] == ["mdcath", "peptides", "ou"]
    assert values[0]["left_out"].startswith("1 replicas that are empty")
    assert values[1]["num_trajectories"] == 3


def test_what_reads_a_file_or_folder_is_guessed(tmp_path, ala2, topology):
    start = published.peptide("HILK")
    array = published.to_atom14("HILK", start, published.shaken(start, 2))
    (tmp_path / "gen").mkdir()
    np.save(tmp_path / "gen" / "HILK_i100.npy", array)
    (tmp_path / "warp").mkdir()
    published.write_timewarp(tmp_path / "warp", "HILK", start, BURSTS)
    published.write_bioemu(tmp_path / "emu" / "one", ala2, [[0, 1]])
    write_atlas(tmp_path / "atl", ala2, ["1abc_A_R1.xtc"], 10.0)
    make_peptides(topology, tmp_path / "pep")
    (tmp_path / "cath").mkdir()
    mdcath(tmp_path / "cath", ala2).rename(tmp_path / "cath" / "other.h5")
    (tmp_path / "plain").mkdir()
    make(topology).save(str(tmp_path / "plain" / "run.h5"))
    expected = {
        "gen": "mdgen", "gen/*.npy": "mdgen", "warp": "timewarp", "emu": "bioemu",
        "emu/one": "bioemu", "atl": "atlas", "pep": "peptides", "pep/A.npz": "peptides",
        "cath": "mdcath", "cath/*.h5": "mdcath", "plain": "", "plain/run.h5": "",
        "nowhere": "",
    }  # fmt: skip
    found = {name: guess.row_of(tmp_path / name) for name in expected}
    assert found == expected
    assert guess.entry_of(f"{tmp_path}/gen") == f"mdgen:{tmp_path}/gen"
    assert guess.entry_of("mdcath:x@320") == "mdcath:x@320"


def test_one_structure_is_told_and_how_to_roll_it_out(tmp_path, ala2, capsys):
    path = tmp_path / "mine.pdb"
    ala2[0].save(str(path))
    status, out, err = run(capsys, path)
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines == [
        f"{path}: structure",
        "system ACE-A-NME (3 residues, 10 heavy atoms)",
        "frames 1",
        "training no: one structure is no trajectory; equijump sample "
        f"--start={path} rolls it out",
    ]
    assert json.loads(run(capsys, "--json", path)[1])[0]["frames"] == [1, 1]


def test_a_mistyped_source_is_answered_with_the_nearest(capsys):
    status, _, err = run(capsys, "mdcat:sets/*.h5")
    assert status == 2
    assert "found mdcat; did you mean mdcath:sets/*.h5?" in err
