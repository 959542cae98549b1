"""Tests of trajectories read with MDTraj and packed."""

import os
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump.data import frames, packed, pairs
from equijump.data.sources.trajectories import PACKAGED

pytestmark = pytest.mark.usefixtures("fresh_cache")


def make(topology, count=7, spacing=2.0, first=5.0, change=lambda xyz: None):
    """A trajectory that shakes the molecule."""
    start = mdtraj.load(str(topology))
    rng = np.random.default_rng(0)
    xyz = start.xyz + 0.01 * rng.normal(size=(count, start.n_atoms, 3))
    change(xyz)
    times = first + spacing * np.arange(count)
    return mdtraj.Trajectory(xyz.astype(np.float32), start.topology, times)


@pytest.mark.parametrize("suffix", [".xtc", ".h5", ".nc"])
def test_positions_are_in_angstrom_and_times_in_ps(tmp_path, topology, suffix):
    made = make(topology)
    path = tmp_path / f"run{suffix}"
    made.save(str(path))
    (found,) = frames.read_trajectories([path], topology)
    np.testing.assert_allclose(found.positions, 10.0 * made.xyz, atol=0.006)
    assert found.spacing == pytest.approx(2.0)
    assert found.name == path.name


@pytest.mark.parametrize("suffix", [".dcd", ".pdb"])
def test_formats_without_times_need_a_spacing(tmp_path, topology, suffix):
    path = tmp_path / f"run{suffix}"
    make(topology).save(str(path))
    with pytest.raises(UsageError, match="expected the time between frames, which"):
        frames.read_trajectories([path], topology)
    (found,) = frames.read_trajectories([path], topology, spacing=2.0)
    assert found.spacing == 2.0


def test_a_trajectory_is_packed_once_and_anew_when_it_changes(
    tmp_path, topology, monkeypatch
):
    path = tmp_path / "run.xtc"
    make(topology).save(str(path))
    (first,) = frames.read_trajectories([path], topology)
    with monkeypatch.context() as patch:
        patch.setattr(frames, "_pack", lambda *_: pytest.fail("packed again"))
        (second,) = frames.read_trajectories([path], topology)
    np.testing.assert_array_equal(first.positions, second.positions)
    for ours, theirs in zip(first.system, second.system, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    make(topology, count=9).save(str(path))
    (third,) = frames.read_trajectories([path], topology)
    assert len(third.positions) == 9


def spoil(xyz):
    xyz[4, 3, 1] = np.nan


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"change": spoil}, "others in frame 4"),
        ({"count": 1}, "expected two frames or more, found 1"),
    ],
)
def test_frames_that_cannot_be_used_are_told(tmp_path, topology, arguments, told):
    path = tmp_path / "run.h5"
    make(topology, **arguments).save(str(path))
    with pytest.raises(UsageError, match=told):
        frames.read_trajectories([path], topology)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_uneven_times_are_told(tmp_path, topology):
    made = make(topology)
    made.time = np.array([0.0, 2, 4, 6, 9, 11, 13])
    made.save(str(tmp_path / "run.h5"))
    with pytest.raises(UsageError, match="found 3 ps after frame 3 and 2 ps elsewhere"):
        frames.read_trajectories([tmp_path / "run.h5"], topology)


def test_atoms_of_another_molecule_are_told(tmp_path, topology):
    made = make(topology)
    made.atom_slice(range(8)).save(str(tmp_path / "run.xtc"))
    with pytest.raises(UsageError, match="expected a trajectory of the 10 atoms"):
        frames.read_trajectories([tmp_path / "run.xtc"], topology)


@pytest.mark.parametrize("missing", ["trajectory", "topology"])
def test_a_missing_file_is_told(tmp_path, topology, missing):
    path = tmp_path / "run.xtc"
    make(topology).save(str(path))
    paths = {"trajectory": path, "topology": topology}
    paths[missing] = tmp_path / "nowhere.xtc"
    with pytest.raises(UsageError, match=r"found no .*nowhere\.xtc"):
        frames.read_trajectories([paths["trajectory"]], paths["topology"])


def float32_times(count, step, first=0.0):
    return (first + step * np.arange(count)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    ("count", "step", "first"),
    [(5_000_000, 10.0, 0.0), (2_000_000, 0.1, 0.0), (1_000, 0.1, 2e5), (9, 2.0, 5.0)],
)
def test_times_in_single_precision_are_even(count, step, first):
    times = float32_times(count, step, first)
    found = frames.find_spacing(Path("run.xtc"), times)
    assert found == pytest.approx(step, rel=0.02 if first else 1e-5)


@pytest.mark.parametrize("count", [100, 1_200_000])
def test_a_missing_frame_is_found_in_single_precision(count):
    times = np.delete(float32_times(count, 10.0), count // 3)
    told = f"found 20 ps after frame {count // 3 - 1} and 10 ps elsewhere"
    with pytest.raises(UsageError, match=told):
        frames.find_spacing(Path("run.xtc"), times)


@pytest.mark.parametrize(
    "times", [[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.1], [0.0, 5.0, 5.0]]
)
def test_times_that_do_not_rise_evenly_are_told(times):
    with pytest.raises(UsageError, match="expected frames at one spacing"):
        frames.find_spacing(Path("run.h5"), np.array(times))


def test_slow_drift_of_the_spacing_is_told():
    times = np.cumsum(np.linspace(1.0, 1.009, 1_000))
    with pytest.raises(UsageError, match="expected frames at one spacing"):
        frames.find_spacing(Path("run.h5"), times)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "88e43c9853aa7b3e933175e0421c8af47edc66b7b69c187b6eb194e7e21f2391"),
        (
            {"in_slots": True},
            "63847ea71c2c8811168403e33186e836c55da77c161efc70eec55e1e28b261ed",
        ),
        (
            {"select": "protein"},
            "e981b94834c4e5af2e68d5011c3a838881964b23470772d5962680a0c1d91c13",
        ),
    ],
)
def test_checksums_by_which_old_runs_know_their_data_stay(settings, expected):
    path = PACKAGED / "ala2_300K_0.xtc"
    topology = PACKAGED / "ala2_300K.pdb"
    (found,) = frames.read_trajectories([path], topology, **settings)
    assert found.checksum == expected


def test_atoms_come_in_the_order_of_slots_where_asked(tmp_path, topology):
    path = tmp_path / "run.h5"
    make(topology).save(str(path))
    (plain,) = frames.read_trajectories([path], topology)
    (slots,) = frames.read_trajectories([path], topology, in_slots=True)
    filled = plain.system.slot_atoms[plain.system.slot_atoms >= 0]
    assert list(filled) != sorted(filled)
    np.testing.assert_array_equal(slots.positions[:], plain.positions[:][:, filled])
    placed = slots.system.slot_atoms[slots.system.slot_atoms >= 0]
    np.testing.assert_array_equal(placed, np.arange(len(filled)))
    assert slots.checksum != plain.checksum


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_two_hundred_trajectories_need_few_descriptors(tmp_path, topology):
    one = tmp_path / "run_0.h5"
    make(topology, count=3).save(str(one))
    paths = [one, *(tmp_path / f"run_{number}.h5" for number in range(1, 200))]
    for number, path in enumerate(paths[1:]):
        path.write_bytes(one.read_bytes() + bytes([number]))
    before = len(os.listdir("/proc/self/fd"))
    found = frames.read_trajectories(paths, topology)
    lags = pairs.Lags((2.0,), is_range=False)
    segments = [pairs.Segment(t, 0, len(t.positions)) for t in found]
    batch = pairs.batch_at(segments, lags, 400, 3, seed=0, step=0)
    assert np.any(batch.source)
    assert len(os.listdir("/proc/self/fd")) <= before + packed.MOST_OPEN + 10
