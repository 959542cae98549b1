"""Tests of what the benchmarks of peptides measure, on cases solved by hand."""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import learning_curve as curve
from benchmarks import peptide_settings as settings
from benchmarks import peptides, relaxation, timing
from common.errors import UsageError
from equijump import rejection
from equijump.builder import build, parse
from equijump.data.topology import to_topology

pytest.importorskip("openmm")
from benchmarks import peptide_speed as speed

FLAGS = argparse.Namespace(
    length=3_000.0, model_lag=20.0, replicas_per_lane=2, gate=True, seed=0,
    rollouts=Path("rollouts"),
)  # fmt: skip


def residue(slowest, connects=True):
    times = {"slowest": 50.0, "reference_slowest": slowest, "is_inside": True}
    return {**times, "connects": connects}


def line_of(*residues):
    """Figures of a peptide as `peptides.judge` returns them."""
    return {
        "js": 0.02, "floor": 0.04, "ratio": 0.5, "torsions": {}, "flips": 0, "lost": [],
        "residues": dict(enumerate(residues)), "passed": 0.9, "cpu_seconds_per_ns": 0.1,
        "bonds": {"rms": 0.03, "reference_rms": 0.028}, "energies_apart": [0.1, 0.3],
        **dict.fromkeys(("mdgen", "mdgen_floor"), dict.fromkeys(
            ("backbone", "side_chain", "tica_0", "tica_01", "msm_states"), 0.1
        )),
    }  # fmt: skip


def test_settings_differ_in_jumps_but_not_in_time():
    found = [settings.setting_of(FLAGS, lag, 4) for lag in (10.0, 50.0, 500.0)]
    assert [one.jumps for one in found] == [300, 60, 6]
    assert [one.model_lag for one in found] == [20.0, 50.0, 500.0]
    assert len({one.rollouts for one in found}) == 3


def test_times_of_less_than_three_lags_do_not_count():
    line = line_of(residue(59.0), residue(61.0), residue(80.0, False), residue(None))
    row = settings.row_of([line], 20.0)
    assert (row["times"], row["times_apart"], row["times_inside"]) == (1, 3, 1.0)
    assert settings.row_of([line], 10.0)["times"] == 2
    assert row["energy_apart"] == 0.2


def test_a_row_without_a_whole_replica_has_no_figures():
    row = settings.row_of([{"lost": [{}] * 3, "energies_apart": []}], 10.0)
    assert (row["js"], row["energy_apart"], row["lost"]) == (None, None, 3)


def test_peptides_of_one_length_share_their_sizes(tmp_path):
    for name in ("AK", "VT", "GG", "WYH"):
        names = ("ACE", *parse(name), "NME")
        system, positions = build(names, 1)
        peptide = mdtraj_of(system, positions)
        peptide.save(str(tmp_path / f"{name}.pdb"))
    paths = [tmp_path / f"{name}.npz" for name in ("AK", "VT", "GG", "WYH")]
    found = peptides.shared_sizes(paths)
    assert found["AK"] == found["VT"] == rejection.Sizes(19, 18, 3)
    assert found["GG"].centres == 0
    assert found["WYH"].atoms > found["AK"].atoms


def mdtraj_of(system, positions):
    import mdtraj

    return mdtraj.Trajectory(positions / 10.0, to_topology(system))


def test_pairs_come_in_layers_with_each_residue_once_in_either_place():
    letters = "ACDEFG"
    steps = (1, 2, 5)  # Of each residue to the one after it, round the alphabet.
    pairs = [
        a + letters[(i + step) % 6] for step in steps for i, a in enumerate(letters)
    ]
    found = curve.in_even_order(reversed(pairs))
    assert sorted(found) == sorted(pairs)
    for first in range(0, 18, 6):
        layer = found[first : first + 6]
        assert (
            {pair[0] for pair in layer} == {pair[1] for pair in layer} == set(letters)
        )


def test_pairs_that_are_not_even_come_all():
    pairs = ["AA", "AC", "AD", "CA", "DD"]
    found = curve.in_even_order(pairs)
    assert sorted(found) == pairs
    assert len({pair[0] for pair in found[:3]}) == 3


def test_sets_are_nested_and_the_last_has_all():
    names = ["A", "C", "AC", "CA", "AA", "CC", "ACA", "ACCA"]
    paths = [Path(f"{name}.npz") for name in names]
    found = curve.subsets(paths, [2, 4])
    assert [one.name for one in found] == ["0002", "0004", "0006", "0008"]
    for smaller, larger in itertools.pairwise(found):
        assert set(smaller.paths) < set(larger.paths)
    assert {path.stem[0] for path in found[1].paths[2:]} == {"A", "C"}
    with pytest.raises(UsageError, match="2 single residues and 4 pairs"):
        curve.subsets(paths, [2, 5])


def test_some_peptides_of_each_length_are_judged():
    paths = [Path(f"{name}.npz") for name in ("AA", "CC", "EE", "GG", "AAA", "A")]
    found = curve.spread(paths, [2, 3, 4], 2)
    assert [path.stem for path in found] == ["AA", "GG", "AAA"]
    assert len(curve.spread(paths, [2], None)) == 4


def test_a_curve_is_drawn_where_a_length_was_lost(tmp_path):
    line = {**line_of(residue(50.0)), "length": 2, "name": "AK"}
    lost = {"length": 3, "lost": [{}]}
    networks = [
        {"peptides": count, "cpu_seconds": 10.0, "lengths": curve.summaries(lines)}
        for count, lines in ((20, [line, lost]), (40, [line, {**line, "length": 3}]))
    ]
    assert list(networks[0]["lengths"]) == ["2"]
    curve.show(networks)
    curve.plot(networks, tmp_path / "figures" / "curve.png")
    assert (tmp_path / "figures" / "curve.png").stat().st_size > 1_000


def contestant(name, samples, nanoseconds=1.0):
    work = speed.Work(nanoseconds, samples)
    return speed.Contestant(name, lambda: None, work, 40.0)


def test_samples_are_no_more_than_frames():
    assert speed.work_of(100, 10.0, 40.0) == speed.Work(1.0, 25.0)
    assert speed.work_of(100, 100.0, 40.0) == speed.Work(10.0, 100.0)


def test_rates_and_ratios_are_of_the_faster_platform():
    contestants = [
        contestant("ours", 200.0), contestant("OpenMM, 2 fs, CPU", 1.0),
        contestant("OpenMM, 2 fs, Reference", 2.0), contestant("engine", 10.0),
        contestant("frames", 50.0, None),
    ]  # fmt: skip
    seconds = {one.name: np.array([1.0, 2.0, 4.0]) for one in contestants}
    kept = speed.fastest(contestants, seconds)
    names = ["ours", "OpenMM, 2 fs, Reference", "engine", "frames"]
    assert [one.name for one in kept] == names
    ours, openmm, engine, frames = speed.lines_of(kept, seconds)
    assert ours["samples_per_second"] == 100.0
    assert ours["over_openmm"]["value"] == pytest.approx(100.0)
    assert ours["over_engine"]["value"] == pytest.approx(20.0)
    assert openmm["nanoseconds_per_second"] == 0.5
    assert engine["over_engine"]["value"] == 1.0
    assert frames["nanoseconds_per_second"] is None


def test_the_time_of_a_base_is_taken_off():
    spent = []

    def long():
        spent.append(1)
        sum(range(1_000_000))

    short = lambda: spent.append(0)
    one = contestant("engine", 1.0)._replace(call=long, base=short)
    found = speed.measure([one], 3)["engine"]
    assert np.all(found > 0.0)
    assert (spent.count(1), spent.count(0)) == (4, 4)  # One of each is not counted.


def test_programs_that_are_run_cost_their_time():
    busy = [sys.executable, "-c", "sum(range(3_000_000))"]
    assert timing.cpu_seconds(lambda: subprocess.run(busy, check=True)) > 0.02


def test_the_decay_of_two_states_is_that_of_their_rates():
    rng = np.random.default_rng(0)
    leaves = rng.random((4, 20_000)) < 0.02  # Both states, so 1/e after 1 / 0.04.
    states = np.cumsum(leaves, axis=1) % 2
    units = [np.stack([-1.2 + 0.0 * x, np.where(x, -0.7, 2.0)], 1) for x in states]
    assert relaxation.decay_of(units, 200) == pytest.approx(24.5, rel=0.1)
    assert relaxation.decay_of(units, 5) == pytest.approx(24.5, rel=0.2)
    assert np.isnan(relaxation.decay_of([units[0][:3]], 2))


def test_the_relaxation_of_packaged_trajectories_is_found():
    assert relaxation.ala2_relaxation() == pytest.approx(224.0, rel=0.05)
    assert relaxation.relaxation_in("AK", [Path("A.npz")]) is None
