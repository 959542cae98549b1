"""Tests of the benchmark of peptides, on lanes packed from packaged trajectories."""

import argparse
import json

import mdtraj
import numpy as np
import pytest

from benchmarks import peptide_figures as figures
from benchmarks import peptides
from equijump.evaluate import inputs

FLAGS = argparse.Namespace(long=False, lag=10.0, model_lag=10.0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Six lanes of alanine dipeptide, 300 frames of 10 ps each."""
    path = tmp_path_factory.mktemp("packed") / "A.npz"
    pdb = inputs.PACKAGED / "ala2_300K.pdb"
    lanes = [
        mdtraj.load(str(inputs.PACKAGED / f"ala2_300K_{index}.xtc"), top=str(pdb))
        for index in range(6)
    ]
    heavy = [a.index for a in lanes[0].topology.atoms if a.element.symbol != "H"]
    centred = [lane.xyz[:600:2, heavy] for lane in lanes]
    centred = [lane - lane.mean(axis=(1, 2), keepdims=True) for lane in centred]
    positions = np.round(np.stack(centred) * 1e4).astype(np.int16)
    np.savez(
        path, positions=positions, spacing_ps=np.array(10.0),
        temperature_K=np.array(300.0), seed=np.array(0),
    )  # fmt: skip
    lanes[0][0].atom_slice(heavy).save(str(path.with_suffix(".pdb")))
    return path


@pytest.fixture(scope="module")
def reference(packed):
    return peptides.read(packed)


def judged(frames, reference, **flags):
    rolled = peptides.Rolled(frames, passed=0.5, cpu_seconds=1.8)
    given = argparse.Namespace(**{**vars(FLAGS), **flags})
    return peptides.judge(rolled, reference, given)


def test_the_reference_twice_is_the_reference(reference):
    twice = np.repeat(reference.lanes, 2, axis=0)
    line = judged(twice, reference)
    assert line["js"] == pytest.approx(0.0, abs=1e-12)
    assert line["floor"] > 0.001
    (residue,) = line["residues"].values()
    assert residue["connects"]
    assert residue["is_inside"]
    assert residue["slowest"] == pytest.approx(residue["reference_slowest"], rel=1e-3)
    assert line["bonds"]["rms"] == pytest.approx(line["bonds"]["reference_rms"])
    assert (line["flips"], line["lost"]) == (0, [])
    assert line["nanoseconds"] == pytest.approx(36.0)
    assert line["cpu_seconds_per_ns"] == pytest.approx(0.05)
    assert line["mdgen"]["backbone"] == pytest.approx(0.0, abs=1e-6)
    assert line["mdgen_floor"]["backbone"] > 0.02
    assert json.dumps(line, allow_nan=False)


def test_a_mirror_image_a_broken_and_a_stretched_replica_are_seen(reference):
    frames = reference.lanes.copy()
    frames[0, 5, :, 0] *= -1.0
    frames[1, 7, 0] += 50.0
    names = figures.bond_names(reference.system)
    assert "ALA CA-CB" in names
    assert "NME N-CH3" in names
    assert names.count("C-N") == 2
    first, last = reference.system.bonds[names.index("ALA CA-CB")]
    frames[2:, :, last] += 0.2 * (frames[2:, :, last] - frames[2:, :, first])
    line = judged(frames, reference)
    assert line["flips"] == 1
    assert [loss["frame"] for loss in line["lost"]] == [7]
    ours, theirs = line["bonds"]["by_name"]["ALA CA-CB"]
    assert ours > 0.2 > 0.04 > theirs
    assert figures.worst_bonds([line], 1)[0][0] == "ALA CA-CB"


def test_long_rollouts_compare_populations_and_times(reference):
    line = judged(reference.lanes, reference, long=True)
    (sides,) = line["states"].values()
    assert sides["trajectory"] == sides["reference"]
    assert 100.0 < sides["reference"]["helix_relaxation"] < 400.0
    assert abs(sides["reference"]["alphaR_over_beta"]) < 0.5


def test_medians_stand_over_peptides_and_shares_over_what_is_judged(reference):
    line = judged(reference.lanes, reference)
    entry = next(iter(line["residues"].values()))
    apart = {**line, "ratio": 3.0, "residues": {"X": {**entry, "connects": False}}}
    line["torsions"] = {"chi1": {"js": 0.03, "floor": 0.05}}
    apart["torsions"] = {"chi1": {"js": 0.03, "floor": 0.01}}
    found = figures.summary_of([line, {**line, "ratio": 2.0}, apart])
    assert found["ratio"] == 2.0
    assert (found["times"], found["times_apart"]) == (2, 1)
    assert found["chi_within"] == pytest.approx(2 / 3)
    assert found["time_ratio"] == pytest.approx(1.0, rel=1e-3)


def test_the_command_judges_odd_lanes_by_even_ones(
    packed, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "found.json"
    given = ["x", "--control", f"--reference={packed.parent}", f"--output={output}"]
    monkeypatch.setattr("sys.argv", given)
    peptides.main()
    found = json.loads(output.read_text())
    assert found["lengths"]["1"]["peptides"] == 1
    assert found["peptides"][0]["replicas"] == 3
    assert "medians by length" in capsys.readouterr().out
