"""Tests of damaged trajectories: refused by their headers, or by the child's end."""

import struct

import mdtraj
import numpy as np
import pytest

from common.errors import RunError, UsageError
from equijump.data import child, files, frames, headers
from tests.equijump.test_data_frames import make

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def save(tmp_path, topology):
    """Writes a trajectory of seven frames with changed bytes."""

    def write(suffix, change=lambda contents: contents, count=7):
        path = tmp_path / f"run{suffix}"
        make(topology, count=count).save(str(path))
        path.write_bytes(change(bytearray(path.read_bytes())))
        return path

    return write


def put(kind, place, value):
    """A change of one number at a place of a file."""

    def change(contents):
        struct.pack_into(kind, contents, place, value)
        return contents

    return change


XTC = [
    (put(">i", 0, 1996), "no frame of XTC at frame 0"),
    (put(">i", 4, 11), "11 atoms in frame 0"),
    (put(">i", 4, 2**31 - 1), "2147483647 atoms in frame 0"),
    (put(">i", 52, 9), "9 atoms in frame 0"),
    (put(">f", 16, np.nan), "a time or box that is no number in frame 0"),
    (put(">f", 56, 0.0), "a precision that cannot be in frame 0"),
    (put(">f", 56, -1000.0), "a precision that cannot be"),
    (put(">f", 56, np.inf), "a precision that cannot be"),
    (put(">i", 60, 2**30), "a range of positions that cannot be"),
    (put(">i", 72, -(2**31)), "a range of positions that cannot be"),
    (put(">i", 84, 0), "a compression that cannot be"),
    (put(">i", 84, 73), "a compression that cannot be"),
    (put(">i", 88, -4), "bytes of positions in frame 0, which its atoms cannot fill"),
    (put(">i", 88, 2**28), "bytes of positions in frame 0"),
    (lambda contents: contents[:-1], "frame 6 cut off.*mdconvert -i 0:6"),
    (lambda contents: contents[:60], "frame 0 cut off; write it anew"),
    (lambda contents: contents + b"\0" * 300, "no frame of XTC at frame 7"),
    (lambda contents: b"", "an empty file; write it anew"),
    (
        put(">i", 0, 2023),
        "the form of XTC for over 298 million atoms in frame 0, which",
    ),
]


@pytest.mark.parametrize(("change", "told"), XTC)
def test_a_header_of_xtc_that_cannot_be_is_told(save, topology, change, told):
    path = save(".xtc", change)
    with pytest.raises(UsageError, match=rf"run\.xtc: expected a trajectory.*{told}"):
        frames.read_trajectories([path], topology)


@pytest.mark.parametrize(
    ("suffix", "change", "told"),
    [
        (".trr", put(">i", 0, 7), "no frame of TRR at frame 0"),
        (".trr", put(">i", 64, 11), "11 atoms in frame 0"),
        (".trr", put(">i", 52, -8), "sizes that do not fit in frame 0"),
        (".trr", lambda contents: contents[:-1], "frame 6 cut off"),
        (".dcd", put("<i", 8, 500), "7 whole frames, 500 by its header and 0 bytes"),
        (".dcd", lambda contents: contents[:-5], "6 whole frames, 7 by its header"),
        (".dcd", lambda contents: contents[:100], "a header cut off"),
    ],
)
def test_headers_of_other_formats_are_looked_at(save, topology, suffix, change, told):
    path = save(suffix, change)
    with pytest.raises(UsageError, match=rf"expected a trajectory.*{told}"):
        frames.read_trajectories([path], topology, spacing=2.0)


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".dcd"])
def test_what_mdtraj_writes_passes(save, topology, suffix):
    path = save(suffix)
    headers.check(path, 10)
    (part,) = files.iterate(path, mdtraj.load_topology(str(topology)))
    assert part.positions.shape == (7, 10, 3)


def test_nine_atoms_are_not_compressed(tmp_path, topology):
    nine = make(topology).atom_slice(range(9))
    nine.save(str(tmp_path / "nine.xtc"))
    headers.check(tmp_path / "nine.xtc", 9)
    contents = (tmp_path / "nine.xtc").read_bytes()
    (tmp_path / "nine.xtc").write_bytes(contents[:-8])
    with pytest.raises(UsageError, match="frame 6 cut off"):
        headers.check(tmp_path / "nine.xtc", 9)


def test_an_h5_of_other_atoms_than_its_topology_is_told(tmp_path, topology):
    make(topology).atom_slice(range(8)).save(str(tmp_path / "run.h5"))
    with pytest.raises(UsageError, match="of the 10 atoms of its topology, found 8 at"):
        frames.read_trajectories([tmp_path / "run.h5"], topology)


def test_a_reader_that_is_killed_fails_the_run(tmp_path, monkeypatch):
    program = tmp_path / "crash.py"
    program.write_text(CRASH.replace("SIGSEGV", "SIGKILL"))
    monkeypatch.setattr(child, "_PROGRAM", program)
    child.stop()
    with pytest.raises(RunError, match="was killed, as happens when memory is short"):
        list(child.ask(tmp_path / "bad.xtc", task="frames"))
    child.stop()


CRASH = """
import json, os, signal, sys
for line in sys.stdin:
    if "good" not in line:
        os.kill(os.getpid(), signal.SIGSEGV)
    print(json.dumps({"end": True, "arrays": []}), flush=True)
"""


def test_a_crash_of_the_reader_is_told_and_the_next_file_is_read(tmp_path, monkeypatch):
    program = tmp_path / "crash.py"
    program.write_text(CRASH)
    monkeypatch.setattr(child, "_PROGRAM", program)
    child.stop()
    assert list(child.ask(tmp_path / "good.xtc", task="frames")) == []
    with pytest.raises(
        UsageError, match=r"bad\.xtc: expected .*\(signal SIGSEGV\); wr"
    ):
        list(child.ask(tmp_path / "bad.xtc", task="frames"))
    assert list(child.ask(tmp_path / "good.xtc", task="frames")) == []
    child.stop()


@pytest.mark.parametrize("suffix", [".xtc", ".h5"])
def test_no_flip_of_bits_ends_this_process(save, topology, suffix):
    """A flip is refused, told as a crash of the child, or harmless."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(12):
        path = save(suffix)
        contents = bytearray(path.read_bytes())
        place = int(rng.integers(len(contents)))
        contents[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(contents)
        try:
            frames.read_trajectories([path], topology)
        except UsageError:
            told += 1
    assert told


def test_parts_are_small_where_a_frame_is_large(save, topology, monkeypatch):
    monkeypatch.setattr(files, "MOST_NUMBERS", 90)
    loaded = files.load_topology(topology)
    sizes = [len(part.times) for part in files.iterate(save(".xtc"), loaded)]
    assert sizes == [3, 3, 1]
    assert [len(x.times) for x in files.iterate(save(".h5"), loaded, 2)] == [2]


def test_the_topology_of_an_h5_comes_from_the_child(save, topology):
    found = files.load_topology(save(".h5"))
    expected = mdtraj.load(str(topology)).topology
    assert list(map(str, found.atoms)) == list(map(str, expected.atoms))
    assert [a.element for a in found.atoms] == [a.element for a in expected.atoms]


def test_what_is_left_of_a_file_is_no_answer_for_the_next(save, topology, monkeypatch):
    monkeypatch.setattr(files, "MOST_NUMBERS", 90)
    path, loaded = save(".h5"), files.load_topology(topology)
    for _ in range(3):
        first = next(files.iterate(path, loaded))
        assert first.times.tolist() == [5.0, 7.0, 9.0]
    assert sum(len(part.times) for part in files.iterate(path, loaded)) == 7


def test_a_path_is_relative_to_where_this_process_is(save, topology, monkeypatch):
    path, loaded = save(".h5"), files.load_topology(topology)
    next(files.iterate(path, loaded))  # The child has started elsewhere.
    monkeypatch.chdir(path.parent)
    found = next(files.iterate(files.Path(path.name), loaded))
    assert len(found.times) == 7
