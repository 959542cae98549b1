"""Tests of what the benchmarks of peptides measure, on cases solved by hand."""

import argparse
from pathlib import Path

from benchmarks import peptide_settings as settings
from benchmarks import peptides
from equijump import rejection
from equijump.builder import build, parse
from equijump.data.topology import to_topology

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
