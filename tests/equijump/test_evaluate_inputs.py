"""Tests of finding, reading and preparing what is compared."""

import mdtraj
import numpy as np
import pytest

from common.errors import RunError, UsageError
from equijump import builder
from equijump.data import files
from equijump.data.topology import in_slot_order, to_topology
from equijump.evaluate import inputs, sides, validity
from tests.equijump.test_data_topology_order import make_system
from tests.equijump.test_data_whole import two_molecules

GLYCINES = make_system(["GLY", "GLY"])


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_files_are_sorted_within_patterns_and_come_once(tmp_path):
    touch(tmp_path, "b.xtc", "a.xtc", "c.h5")
    given = [f"{tmp_path}/c.*", f"{tmp_path}/*.xtc", f"{tmp_path}/a.xtc"]
    found = inputs.find_files("--trajectory", given)
    assert [path.name for path in found] == ["c.h5", "a.xtc", "b.xtc"]


def test_a_pattern_without_files_is_told_with_its_flag(tmp_path):
    with pytest.raises(UsageError, match="--reference: expected files, found none at"):
        inputs.find_files("--reference", [f"{tmp_path}/*.xtc"])


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        (["run_3.pdb", "run.pdb"], "run_3.pdb"),
        (["run.pdb", "other.pdb"], "run.pdb"),
        (["other.pdb"], "other.pdb"),
    ],
)
def test_a_topology_is_found_by_its_name_or_as_the_only_one(tmp_path, beside, expected):
    touch(tmp_path, "run_3.xtc", "run.xtc", *beside)
    found = files.find_topology("--topology", tmp_path / "run_3.xtc")
    assert found == tmp_path / expected


@pytest.mark.parametrize("suffix", [".h5", ".pdb", ".gro", ".PDB"])
def test_some_formats_have_their_topology(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    assert files.find_topology("--topology", path) == path


@pytest.mark.parametrize(("beside", "count"), [([], 0), (["a.pdb", "b.pdb"], 2)])
def test_no_topology_or_several_are_told(tmp_path, beside, count):
    touch(tmp_path, "run_3.xtc", "run.xtc", *beside)
    with pytest.raises(UsageError, match=f"found {count} files of"):
        files.find_topology("--topology", tmp_path / "run.xtc")


def test_only_the_dipeptide_has_a_packaged_reference():
    found = inputs.packaged_reference(make_system(["ACE", "ALA", "NME"]))
    assert len(found) == 8
    assert inputs.packaged_reference(GLYCINES) == []


def test_a_native_structure_without_caps_gets_those_of_the_system(tmp_path):
    capped = builder.build(("ACE", "GLY", "ALA", "SER", "NME"), 1, 0)
    free = builder.build(("GLY", "ALA", "SER"), 1, 3)
    path = tmp_path / "native.pdb"
    made = mdtraj.Trajectory(free.positions / 10.0, to_topology(free.system))
    made.save(str(path))
    found = inputs.read_native(path, in_slot_order(capped.system))
    assert found.shape == (len(capped.system.kept), 3)
    expected = free.positions[0, free.system.slot_atoms[:, 1]]
    apart = lambda x: np.linalg.norm(x[:, None] - x, axis=-1)
    order = in_slot_order(capped.system).slot_atoms[1:4, 1]
    np.testing.assert_allclose(apart(found[order]), apart(expected), atol=2e-3)
    other = in_slot_order(builder.build(("ACE", "GLY", "GLY", "NME"), 1, 0).system)
    with pytest.raises(UsageError, match="--native: expected ACE-GLY-GLY-NME"):
        inputs.read_native(path, other)


def test_long_systems_are_described_by_their_ends():
    system = make_system(["ACE", *["GLY"] * 7, "NME"])
    expected = "ACE-GLY-GLY-...-GLY-GLY-NME (33 heavy atoms)"
    assert inputs.describe(system) == expected


def test_the_same_system_in_another_order_is_the_same():
    order = np.random.default_rng(0).permutation(8)
    inputs.check_same(GLYCINES, make_system(["GLY", "GLY"], order), "--x", "file")


@pytest.mark.parametrize(
    "other", [make_system(["GLY", "ALA"]), make_system(["GLY", "GLY"], chains=[0, 1])]
)
def test_another_system_is_told_by_file(other):
    with pytest.raises(UsageError, match=r"--x: expected GLY-GLY .* in some\.xtc"):
        inputs.check_same(GLYCINES, other, "--x", "some.xtc")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1.0, 1.0, 1.0), (2.0, 3.0, 6.0), (0.2, 0.5, 1.0), (5.0, 0.1, 5.0),
     (0.30000001, 0.2, 0.6), (1.5, 2.5, 7.5)],
)  # fmt: skip
def test_spacings_have_a_common_multiple_to_the_femtosecond(first, second, expected):
    assert inputs.common_spacing(first, second) == pytest.approx(expected, rel=1e-12)


def replicas(*lengths, spacing=5.0, names=None, scale=0.0):
    """Two glycines that shake by so many Å."""
    rng = np.random.default_rng(0)
    start = np.arange(24.0).reshape(8, 3)
    return inputs.Replicas(
        names=names or tuple(f"r{k}" for k in range(len(lengths))),
        system=GLYCINES,
        positions=tuple(
            np.float32(start + scale * rng.normal(size=(n, 8, 3))) for n in lengths
        ),
        spacing=spacing,
    )


def choose(lag, spacing, *lengths, own=5.0):
    return sides.choose_lags(
        lag, spacing, {"trajectory": replicas(*lengths, spacing=own)}
    )


def test_lags_are_one_two_and_five_times_the_first():
    assert choose(20.0, 5.0, 1_000) == (4, 8, 20)
    assert choose(0.0, 5.0, 1_000) == (2, 4, 10)
    assert choose(0.0, 4.0, 1_000, own=4.0) == (3, 6, 15)


def test_short_trajectories_have_the_lag_that_fits_twice():
    assert choose(0.0, 1.0, 12, 40, own=1.0) == (5,)
    assert choose(0.0, 1.0, 3, own=1.0) == (1,)
    with pytest.raises(UsageError, match="expected more than 2 frames"):
        choose(0.0, 1.0, 2, own=1.0)


def test_lags_that_do_not_fit_twice_are_left_out():
    assert choose(20.0, 5.0, 1_000, 17) == (4, 8)
    assert choose(20.0, 5.0, 1_000, 10) == (4,)


@pytest.mark.parametrize("lag", [7.0, 1.0, -5.0])
def test_a_lag_that_is_no_multiple_of_the_spacing_is_told(lag):
    with pytest.raises(UsageError, match=r"--lag: expected a multiple of 5 ps"):
        choose(lag, 5.0, 100)


def test_a_unit_shorter_than_two_lags_is_told():
    with pytest.raises(UsageError, match=r"more than 8 frames of 5 ps.*found 8 in r1"):
        choose(20.0, 5.0, 100, 8)


def test_a_finer_side_has_more_frames_in_a_lag():
    with pytest.raises(UsageError, match=r"more than 80 frames of 0\.5 ps"):
        choose(20.0, 5.0, 80, own=0.5)


def test_whole_replicas_are_kept_with_their_names():
    ours, reference = replicas(5, 6, 7), replicas(9)
    ours.positions[1][3, 0] += 50.0
    kept, lost = sides.keep_whole(ours, reference)
    assert kept.names == ("r0", "r2")
    assert [len(x) for x in kept.positions] == [5, 7]
    np.testing.assert_array_equal(kept.positions[1], ours.positions[2])
    assert [(one.name, one.frame) for one in lost] == [("r1", 3)]


def test_that_all_replicas_broke_is_told():
    ours = replicas(5)
    ours.positions[0][2] = np.nan
    with pytest.raises(
        RunError, match=r"0 of 1 replicas stayed whole.*r0 has a position"
    ):
        sides.keep_whole(ours, replicas(9))


def test_a_single_trajectory_is_cut_into_ten_blocks_without_a_gap():
    ours = replicas(105, scale=1.0)
    found = sides._cut(ours)
    assert len(found.positions) == len(found.names) == sides.NUM_BLOCKS
    assert {len(block) for block in found.positions} == {10, 11}
    np.testing.assert_array_equal(
        np.concatenate(list(found.positions)), ours.positions[0]
    )
    several = replicas(5, 6)
    assert sides._cut(several) is several


def test_the_mean_length_of_a_bond_is_over_all_frames():
    ours = replicas(3, 1)
    ours.positions[1][0] *= 2.0
    bonds = np.array([[0, 1]])
    once = np.linalg.norm([3.0, 3.0, 3.0])
    found = validity.mean_lengths(ours.positions, bonds)
    np.testing.assert_allclose(found, [1.25 * once], rtol=1e-5)


@pytest.mark.parametrize(
    ("factor", "broken"), [(1.7, False), (1.9, True), (0.6, False), (0.5, True)]
)
def test_a_bond_is_broken_beyond_its_factor(factor, broken):
    positions = np.float32([[[0, 0, 0], [1.5, 0, 0]]] * 4)
    positions[2, 1] *= factor
    system = GLYCINES._replace(bonds=np.array([[0, 1]]))
    found = validity.find_loss("r", positions, system, np.array([1.5]))
    assert (found is not None) == broken
    if broken:
        assert found.frame == 2
        assert found.reason == f"a bond N-CA of {1.5 * factor:.2f} Å, not 1.50 Å"


def test_closeness_is_the_least_share_of_the_sum_of_radii(monkeypatch):
    positions = np.float32([[[0, 0, 0], [3, 0, 0], [0, 2, 0]], [[0, 0, 0]] * 3])
    pairs, radii = np.array([[0, 1], [0, 2]]), np.array([1.0, 1.0, 3.0])
    for size in (1, 2, 1_000):
        monkeypatch.setattr(validity, "_MAX_DISTANCES", size)
        found = validity.closeness(positions, pairs, radii)
        np.testing.assert_allclose(found, [0.5, 0.0])
    none = validity.closeness(positions, np.zeros((0, 2), int), radii)
    np.testing.assert_array_equal(none, [np.inf, np.inf])


@pytest.mark.parametrize(("least", "expected"), [(0.9, 0.8), (0.7, 0.7), (0.81, 0.8)])
def test_what_clashes_is_judged_by_the_reference(least, expected):
    reference = np.append(np.full(999, 1.0), least)
    assert validity.clash_threshold(reference) == pytest.approx(expected)


def test_a_selection_leaves_chains_out(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, made = two_molecules(tmp_path)
    made.save(str(tmp_path / "run.h5"))
    path = [tmp_path / "run.h5"]
    both = inputs.read("--reference", path, None, 0.0, finite=True)
    one = inputs.read("--reference", path, None, 0.0, finite=True, select="chainid 1")
    assert inputs.describe(both.system).startswith("ACE-ALA-NME-ACE-ALA-NME")
    assert inputs.describe(one.system) == "ACE-ALA-NME (10 heavy atoms)"
    np.testing.assert_array_equal(one.positions[0], both.positions[0][:, 10:])
