"""Tests of the files of rollouts, made by hand."""

import json

import mdtraj
import numpy as np
import pytest

from common.errors import RunError, UsageError
from equijump import trajfile
from equijump.data.topology import to_topology
from equijump.rollout import Chunk, State
from tests.equijump.test_data_topology_order import make_system

SYSTEM = make_system(["ACE", "ALA", "NME"])


def header(suffix="xtc", replicas=2, **settings):
    return {
        "checkpoint": "made",
        "seed": 0,
        "settings": {
            "system": "ala2", "format": suffix, "replicas": replicas, "every": 1,
            "frame_time": 5.0, **settings,
        },
    }  # fmt: skip


def chunk(first, count, replicas=2):
    """Frames whose first coordinate is their number."""
    frames = np.zeros((count, replicas, 10, 3), np.float32)
    frames[..., 0] = np.arange(first, first + count)[:, None, None]
    frames[..., 1] = np.arange(replicas)[:, None]
    zeros = np.zeros(replicas, np.int32)
    state = State(np.zeros((replicas, 3, 14, 3), np.float32), zeros, zeros, zeros)
    return Chunk(frames, first + count - 1, state)


def write(folder, chunks, overwrite=False, **settings):
    opened = trajfile.open_output(folder, header(**settings), SYSTEM, overwrite)
    with opened as output:
        for one in chunks:
            trajfile.append(output, one)
        return output.num_jumps


def read(folder, suffix="xtc", replica=0):
    path = folder / f"ala2_{replica}.{suffix}"
    top = None if suffix in ("h5", "pdb") else to_topology(SYSTEM)
    return mdtraj.load(str(path), **({} if top is None else {"top": top}))


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_chunks_are_one_trajectory(tmp_path, suffix):
    write(tmp_path, [chunk(0, 1), chunk(1, 3), chunk(4, 2)], suffix=suffix)
    for replica in range(2):
        found = 10.0 * read(tmp_path, suffix, replica).xyz
        np.testing.assert_allclose(found[:, 0, 0], np.arange(6), atol=0.01)
        np.testing.assert_allclose(found[:, 0, 1], replica, atol=0.01)


def test_times_are_in_ps_from_zero(tmp_path):
    write(tmp_path, [chunk(0, 2), chunk(2, 2)])
    np.testing.assert_allclose(read(tmp_path).time, [0.0, 5.0, 10.0, 15.0])


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_a_second_command_goes_on_byte_for_byte(tmp_path, suffix):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    write(whole, [chunk(0, 3), chunk(3, 3)], suffix=suffix)
    assert write(parts, [chunk(0, 3)], suffix=suffix) == 0
    with (parts / f"ala2_1.{suffix}").open("ab") as file:
        file.write(b"torn")
    assert write(parts, [chunk(3, 3)], suffix=suffix) == 2
    for replica in range(2):
        name = f"ala2_{replica}.{suffix}"
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"frame_time": 6.0}, "frame_time = 5.0, found 6.0"),
        ({"replicas": 3}, "replicas = 2, found 3"),
        ({"suffix": "dcd"}, "format = xtc, found dcd"),
        ({"gap": 1.0}, "gap = None, found 1.0"),
    ],
)
def test_other_settings_are_told(tmp_path, settings, told):
    write(tmp_path, [chunk(0, 2)])
    before = (tmp_path / "ala2_0.xtc").read_bytes()
    with pytest.raises(UsageError, match=f"was begun with {told}"):
        write(tmp_path, [], **settings)
    assert (tmp_path / "ala2_0.xtc").read_bytes() == before


def test_another_spelling_of_the_checkpoint_goes_on(tmp_path):
    write(tmp_path, [chunk(0, 2)])
    other = header() | {"checkpoint": "./made"}
    with trajfile.open_output(tmp_path, other, SYSTEM, overwrite=False) as output:
        assert output.num_jumps == 1


def test_overwriting_removes_what_was(tmp_path):
    write(tmp_path, [chunk(0, 5, replicas=3)], replicas=3)
    write(tmp_path, [chunk(0, 2)], overwrite=True)
    assert not (tmp_path / "ala2_2.xtc").exists()
    assert read(tmp_path).n_frames == 2


@pytest.mark.parametrize("name", ["ala2.pdb", "ala2_1.xtc", "state.npz"])
def test_files_of_another_origin_are_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(UsageError, match=f"{name}: expected no file, or one with"):
        write(tmp_path, [chunk(0, 1)])
    assert (tmp_path / name).read_bytes() == b"precious"


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(UsageError, match="out: expected no file"):
        write(tmp_path / "out", [])


@pytest.mark.parametrize("name", ["sample.json", "state.npz"])
def test_damaged_records_are_told(tmp_path, name):
    write(tmp_path, [chunk(0, 2)])
    (tmp_path / name).write_bytes(b"PK nonsense")
    with pytest.raises(UsageError, match=r"expected sample\.json and state\.npz"):
        write(tmp_path, [])


def test_a_lost_file_is_told_with_its_bytes(tmp_path):
    write(tmp_path, [chunk(0, 2)])
    size = (tmp_path / "ala2_0.xtc").stat().st_size
    (tmp_path / "ala2_0.xtc").unlink()
    with pytest.raises(UsageError, match=f"at least the {size} bytes.*found 0"):
        write(tmp_path, [])


def test_h5_cannot_be_gone_on_with(tmp_path):
    write(tmp_path, [chunk(0, 2)], suffix="h5")
    assert read(tmp_path, "h5").n_frames == 2
    with pytest.raises(UsageError, match="H5, which cannot be gone on with"):
        write(tmp_path, [], suffix="h5")


def test_a_header_is_kept_with_its_result(tmp_path):
    opened = trajfile.open_output(tmp_path, header(), SYSTEM, overwrite=False)
    with opened as output:
        trajfile.write_header(output, {"num_jumps": 3}, {"js": 0.01})
    found = json.loads((tmp_path / "sample.json").read_text())
    assert found.pop("result") == {"num_jumps": 3}
    assert found.pop("confidence") == {"js": 0.01}
    assert found.pop("format_version") == trajfile.FORMAT_VERSION
    assert found == header()


def test_what_is_said_of_weights_does_not_keep_a_rollout_from_going_on(tmp_path):
    write(tmp_path, [chunk(0, 2)])
    told = {"dynamics": "ff14SB", "outside_training": ["3 residues"]}
    opened = trajfile.open_output(tmp_path, header() | told, SYSTEM, overwrite=False)
    with opened as output:
        assert output.num_jumps == 1
        trajfile.write_header(output)
    assert json.loads((tmp_path / "sample.json").read_text())["dynamics"] == "ff14SB"


def test_all_files_of_a_rollout_are_named(tmp_path):
    names = [path.name for path in trajfile.files_of(tmp_path, header())]
    assert names == ["ala2.pdb", "state.npz", "ala2_0.xtc", "ala2_1.xtc"]


def test_starts_are_written_as_frames_and_a_topology(tmp_path):
    starts = np.float32(np.random.default_rng(0).normal(scale=3.0, size=(4, 10, 3)))
    trajfile.write_starts(tmp_path / "a.b", SYSTEM, starts)
    found = mdtraj.load(str(tmp_path / "a.b.xtc"), top=str(tmp_path / "a.b.pdb"))
    np.testing.assert_allclose(10.0 * found.xyz, starts, atol=0.006)
    assert [r.name for r in found.topology.residues] == ["ACE", "ALA", "NME"]


@pytest.mark.parametrize("name", ["ala2", "a.b-c_d+1", "Ä1"])
def test_names_that_files_may_have(name):
    trajfile.check_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "../a", "a\n"])
def test_names_that_files_may_not_have(name):
    with pytest.raises(UsageError, match="--name: expected letters, digits"):
        trajfile.check_name(name)


def test_trajectories_that_lost_their_state_are_never_shortened(tmp_path):
    write(tmp_path, [chunk(0, 3)])
    (tmp_path / "state.npz").unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for told in (r"ala2_0\.xtc: expected state\.npz", "--overwrite to replace"):
        with pytest.raises(UsageError, match=told):
            write(tmp_path, [])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert write(tmp_path, [chunk(0, 1)], overwrite=True) == 0
    assert read(tmp_path).n_frames == 1


def test_what_a_kill_left_of_the_first_frame_is_begun_anew(tmp_path):
    write(tmp_path, [])
    (tmp_path / "ala2_0.xtc").write_bytes(b"torn")
    assert write(tmp_path, [chunk(0, 1), chunk(1, 2)]) == 0
    assert read(tmp_path).n_frames == 3
    (tmp_path / "new").mkdir()
    write(tmp_path / "new", [], suffix="h5")  # H5 too, before it has a frame.
    (tmp_path / "new" / "ala2_0.h5").write_bytes(b"torn")
    write(tmp_path / "new", [chunk(0, 2)], suffix="h5")
    assert read(tmp_path / "new", "h5").n_frames == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cloud", np.zeros((2, 3, 13, 3), np.float32)),
        ("cloud", np.zeros((2, 3, 14, 3), np.int32)),
        ("cloud", np.full((2, 3, 14, 3), np.nan, np.float32)),
        ("num_draws", np.zeros(3, np.int32)),
        ("num_accepted", np.zeros(2, np.float32)),
        ("broken_at", np.array(["a", "b"])),
        ("sizes", np.array([-1, 5])),
        ("sizes", np.zeros((2, 1), np.int64)),
        ("num_jumps", np.array([1])),
        ("num_jumps", np.array(-2)),
        ("num_jumps", None),
    ],
)
def test_a_state_of_another_shape_is_told(tmp_path, name, value):
    write(tmp_path, [chunk(0, 2)])
    with np.load(tmp_path / "state.npz") as file:
        arrays = dict(file) | {name: value}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    np.savez(tmp_path / "state.npz", **arrays)
    before = (tmp_path / "ala2_0.xtc").read_bytes()
    with pytest.raises(UsageError, match=r"expected sample\.json and state.*--overwr"):
        write(tmp_path, [])
    assert (tmp_path / "ala2_0.xtc").read_bytes() == before


def test_no_byte_of_a_dcd_file_tells_the_time(tmp_path):
    write(tmp_path, [chunk(0, 2)], suffix="dcd")
    contents = (tmp_path / "ala2_0.dcd").read_bytes()
    assert b"Created by DCD plugin" in contents
    assert b"REMARKS Written by equijump sample   " in contents
    assert b"REMARKS Created" not in contents
    assert read(tmp_path, "dcd").n_frames == 2


def test_overwriting_leaves_files_that_are_no_trajectories_of_it(tmp_path):
    write(tmp_path, [chunk(0, 2)])
    (tmp_path / "ala2_notes.xtc").write_text("mine")
    (tmp_path / ".part.notes").write_text("mine")
    write(tmp_path, [chunk(0, 2)], overwrite=True)
    assert (tmp_path / "ala2_notes.xtc").read_text() == "mine"
    assert (tmp_path / ".part.notes").read_text() == "mine"


@pytest.mark.parametrize("first", [0, 3])
def test_a_full_disk_names_the_folder_and_what_is_complete(
    tmp_path, first, monkeypatch
):
    def fail(*given):
        raise OSError(28, "No space left on device")

    def fill_up():
        with trajfile.open_output(tmp_path, header(), SYSTEM, False) as output:
            monkeypatch.setitem(trajfile._WRITERS, ".xtc", fail)
            trajfile.append(output, chunk(first, 2))

    if first:
        write(tmp_path, [chunk(0, first)])
    told = f"frames before {5 * first} ps are" if first else "no frame is complete yet"
    match = rf"{tmp_path.name}: cannot be written \(No space left.*; {told}"
    with pytest.raises(RunError, match=match):
        fill_up()


def test_a_failure_at_once_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*given):
        raise RunError("full")

    monkeypatch.setattr(trajfile, "write_header", fail)
    with pytest.raises(RunError, match="full"):
        write(tmp_path / "new" / "out", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings", [None, [], {"system": 3}, {"system": "*", "format": "*"}]
)
def test_a_header_of_others_removes_nothing(tmp_path, settings):
    (tmp_path / "sample.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "mine_0.xtc").write_text("mine")
    write(tmp_path, [chunk(0, 2)], overwrite=True)
    assert (tmp_path / "mine_0.xtc").read_text() == "mine"


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
@pytest.mark.parametrize("place", [30, -3])
def test_frames_that_were_edited_are_not_gone_on_with(tmp_path, suffix, place):
    write(tmp_path, [chunk(0, 2)], suffix=suffix)
    path = tmp_path / f"ala2_1.{suffix}"
    edited = bytearray(path.read_bytes())
    edited[place] ^= 1
    path.write_bytes(edited)
    with pytest.raises(UsageError, match=r"ala2_1.*as it left them, found others"):
        write(tmp_path, [], suffix=suffix)
    assert path.read_bytes() == edited


def test_a_state_without_sums_is_gone_on_with(tmp_path):
    write(tmp_path, [chunk(0, 2)])
    with np.load(tmp_path / "state.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "sums"}
    np.savez(tmp_path / "state.npz", **arrays)
    assert write(tmp_path, [chunk(2, 2)]) == 1
    assert read(tmp_path).n_frames == 4


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_a_topology_that_was_deleted_is_written_anew(tmp_path, suffix):
    write(tmp_path, [chunk(0, 2)], suffix=suffix)
    before = mdtraj.load(str(tmp_path / "ala2.pdb"))
    (tmp_path / "ala2.pdb").unlink()
    assert write(tmp_path, [], suffix=suffix) == 1
    after = mdtraj.load(str(tmp_path / "ala2.pdb"))
    assert after.topology == before.topology
    np.testing.assert_allclose(after.xyz, before.xyz, atol=2e-3)
