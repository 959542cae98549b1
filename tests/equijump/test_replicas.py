"""Tests of the files of simulated replicas, without OpenMM."""

import json

import pytest

from common.errors import UsageError
from equijump import replicas
from equijump.replicas import State


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = State(7, 1_234, b"binary\n\x00 with lines\n")
    replicas.write_state(tmp_path / "a.state", state)
    assert replicas.read_state(tmp_path / "a.state") == state
    replicas.write_state(tmp_path / "a.state", state._replace(num_frames=8))
    assert replicas.read_state(tmp_path / "a.state").num_frames == 8


def test_a_replica_that_was_not_begun_has_no_state(tmp_path):
    assert replicas.read_state(tmp_path / "a.state") is None


@pytest.mark.parametrize(
    "contents",
    [
        b"", b"nothing", b"{}\n", b'{"num_frames": 1}\n', b"[1]\nx", b"\xff\n",
        b"[" * 200_000, b'{"num_frames": 1, "num_bytes": 2, "more": 3}\n',
        *(
            b'{"num_frames": %b, "num_bytes": 120}\nx' % value
            for value in (b"1e308", b"-1", b'""', b"null", b"true", b"NaN", b"9" * 30)
        ),
        b'{"num_frames": 1, "num_bytes": "120"}\nx',
    ],
)  # fmt: skip
def test_a_damaged_state_is_told(tmp_path, contents):
    (tmp_path / "a.state").write_bytes(contents)
    with pytest.raises(UsageError, match=r"a\.state: expected a state, found"):
        replicas.read_state(tmp_path / "a.state")


@pytest.mark.parametrize("place", [0, 15, 60, -1, -8])
def test_a_state_that_was_flipped_or_cut_is_told(tmp_path, place):
    path = tmp_path / "a.state"
    replicas.write_state(path, State(71, 1_234, b"the checkpoint of OpenMM"))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[place] ^= 1
    for damaged in (bytes(flipped), whole[:place]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"a\.state: expected a state, found"):
            replicas.read_state(path)


def test_a_state_without_a_checksum_is_of_an_older_version(tmp_path):
    path = tmp_path / "a.state"
    path.write_bytes(b'{"num_frames": 3, "num_bytes": 120}\ncheckpoint')
    assert replicas.read_state(path) == State(3, 120, b"checkpoint")
    path.write_bytes(b'{"num_frames": 3, "num_bytes": 120}\n')
    with pytest.raises(UsageError, match="found none of OpenMM after 3 frames"):
        replicas.read_state(path)


def test_a_state_lies_beside_its_trajectory(tmp_path):
    path = replicas.state_of(tmp_path / "ala.b_0.xtc")
    assert path == tmp_path / "ala.b_0.state"


def test_frames_that_are_done_are_counted_by_states(tmp_path):
    paths = [tmp_path / f"a_{number}.xtc" for number in range(3)]
    assert replicas.num_done(paths) == 0
    replicas.write_state(replicas.state_of(paths[0]), State(5, 0, b"x"))
    replicas.write_state(replicas.state_of(paths[2]), State(2, 0, b"x"))
    assert replicas.num_done(paths) == 7


@pytest.mark.parametrize(("size", "kept"), [(10, 10), (10, 4), (10, 0), (0, 0)])
def test_what_is_beyond_the_state_is_cut_off(tmp_path, size, kept):
    path = tmp_path / "a.xtc"
    path.write_bytes(bytes(range(size)))
    replicas.truncate(path, kept)
    assert path.read_bytes() == bytes(range(kept))


def test_a_trajectory_that_is_not_there_has_no_bytes(tmp_path):
    replicas.truncate(tmp_path / "a.xtc", 0)
    assert not (tmp_path / "a.xtc").exists()
    with pytest.raises(UsageError, match=r"at least the 3 bytes.*found 0"):
        replicas.truncate(tmp_path / "a.xtc", 3)


def test_a_shorter_trajectory_than_its_state_is_told(tmp_path):
    (tmp_path / "a.xtc").write_bytes(b"12345")
    with pytest.raises(UsageError, match=r"at least the 6 bytes.*found 5"):
        replicas.truncate(tmp_path / "a.xtc", 6)


def record(**changes):
    flags = {"length": 1.0, "replicas": 2, "temperature": 300.0, "seed": 0}
    engine = {"platform": "Reference", "threads": 0}
    return {"format": 1, "pdb_sha256": None, **engine, "flags": {**flags, **changes}}


def begin(folder, **changes):
    replicas.write_record(folder, record(**changes))


def test_an_empty_folder_has_nothing_to_go_on_with(tmp_path):
    assert replicas.find(tmp_path, record(), "ala") is None


def test_the_same_flags_go_on(tmp_path):
    begin(tmp_path)
    assert replicas.find(tmp_path, record(), "ala") == record()


@pytest.mark.parametrize(("name", "value"), [("length", 2.0), ("replicas", 5)])
def test_a_run_may_grow_and_may_not_shrink(tmp_path, name, value):
    begin(tmp_path)
    assert replicas.find(tmp_path, record(**{name: value}), "ala") == record()
    begin(tmp_path, **{name: 10.0})
    with pytest.raises(UsageError, match=f"was begun with --{name} = 10.0, found"):
        replicas.find(tmp_path, record(**{name: value}), "ala")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (record(temperature=310.0), "--temperature = 300.0, found 310.0"),
        (record(seed=1), "--seed = 0, found 1"),
        (record() | {"format": 2}, "format = 1, found 2"),
        (record() | {"pdb_sha256": "ab"}, "pdb_sha256 = None, found ab"),
    ],
)
def test_other_values_are_told_with_what_was(tmp_path, wanted, told):
    begin(tmp_path)
    with pytest.raises(UsageError, match=f"was begun with {told}; give another"):
        replicas.find(tmp_path, wanted, "ala")


def test_a_record_of_before_residues_were_refused_goes_on(tmp_path):
    begin(tmp_path)
    wanted = record(replace_nonstandard=True)
    assert replicas.find(tmp_path, wanted, "ala") == record()


@pytest.mark.parametrize("name", ["platform", "threads"])
@pytest.mark.parametrize("value", [None, [], 1.5, -1])
def test_a_record_of_another_engine_than_there_is_is_told(tmp_path, name, value):
    replicas.write_record(tmp_path, record() | {name: value})
    with pytest.raises(UsageError, match=r"simulate\.json: expected what an earlier"):
        replicas.find(tmp_path, record(), "ala")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"flags": 3}', "{", "[" * 200_000])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "simulate.json").write_text(text)
    with pytest.raises(UsageError, match="expected what an earlier command wrote"):
        replicas.find(tmp_path, record(), "ala")


def test_trajectories_without_a_record_are_not_touched(tmp_path):
    (tmp_path / "ala_0.xtc").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"ala_0\.xtc: expected simulate\.json"):
        replicas.find(tmp_path, record(), "ala")
    assert replicas.find(tmp_path, record(), "gly") is None


def test_a_record_is_json_that_ends_with_a_line(tmp_path):
    begin(tmp_path)
    text = (tmp_path / "simulate.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == record()


def test_a_trajectory_that_lost_its_state_is_told(tmp_path):
    path = tmp_path / "a_0.xtc"
    replicas.check_states([path])
    path.write_bytes(b"frames")
    with pytest.raises(UsageError, match=r"a_0\.xtc: expected a_0\.state beside it"):
        replicas.check_states([path])
    replicas.write_state(replicas.state_of(path), replicas.NOTHING_DONE)
    replicas.check_states([path])  # A kill in the first frames leaves such a state.
    assert replicas.read_begun(path) is None
    replicas.write_state(replicas.state_of(path), State(1, 6, b"checkpoint"))
    assert replicas.read_begun(path) == State(1, 6, b"checkpoint")


@pytest.mark.parametrize("name", ["a[1].pdb", "a[1]_0.xtc", "a[1]_3.state"])
def test_files_of_others_are_told_and_not_replaced(tmp_path, name):
    (tmp_path / "a1.pdb").write_text("of another name")
    assert replicas.find(tmp_path, {}, "a[1]") is None
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=r"expected simulate\.json beside it; give"):
        replicas.find(tmp_path, {}, "a[1]")
