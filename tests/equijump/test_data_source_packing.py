"""Tests of what sources share."""

import hashlib

import numpy as np
import pytest

from common.errors import UsageError
from equijump.data import store
from equijump.data.sources import ornstein_uhlenbeck, packing

SYSTEM = ornstein_uhlenbeck._system()


pytestmark = pytest.mark.usefixtures("fresh_cache")


def job(path, num_trajectories, form="x", **skipped):
    def pack(writer):
        for number in range(num_trajectories):
            writer.add(np.zeros((3, 8, 3)))
            writer.end(SYSTEM, [store.Piece(f"{path.stem}_{number}", 1.0)])
        writer.skipped.update(skipped)

    path.write_bytes(path.name.encode())
    return packing.Job(path, (), form, pack)


def test_checksums_are_of_contents_form_and_place(tmp_path):
    found = list(packing.trajectories("toy", [job(tmp_path / "a", 2)]))
    sha = hashlib.sha256(b"a").hexdigest()
    expected = [hashlib.sha256(f"toy {sha} x {n}".encode()).hexdigest() for n in (0, 1)]
    assert [t.checksum for t in found] == expected
    other = list(packing.trajectories("toy", [job(tmp_path / "a", 2, form="y")]))
    assert not {t.checksum for t in other} & set(expected)


def test_a_file_of_another_name_has_names_of_its_own(tmp_path):
    list(packing.trajectories("toy", [job(tmp_path / "a", 1)]))
    again = job(tmp_path / "b", 1)
    again.path.write_bytes(b"a")
    (found,) = packing.trajectories("toy", [again])
    assert found.name == "b_0"


def test_what_was_left_out_is_one_line(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(packing.logging, "info", lambda text, *a: told.append(text % a))
    jobs = [
        job(tmp_path / "a", 1, empty=2),
        job(tmp_path / "b", 1, empty=1, cut=4),
        job(tmp_path / "c", 0),
    ]
    assert len(list(packing.trajectories("toy", jobs))) == 2
    assert told == [
        f"toy: 2 trajectories of 3 files; left out: 3 empty (as in {tmp_path / 'a'}); "
        f"4 cut (as in {tmp_path / 'b'})"
    ]
    assert len(list(packing.trajectories("toy", [job(tmp_path / "d", 1)]))) == 1
    assert len(told) == 1


def test_all_left_out_is_refused(tmp_path):
    told = r"expected trajectories of toy, left out: 3 empty \(as in .*a\)"
    with pytest.raises(UsageError, match=told):
        list(packing.trajectories("toy", [job(tmp_path / "a", 0, empty=3)]))


def test_frames_end_where_they_are_no_molecule():
    frames = np.ones((5, 2, 3))
    assert packing.num_real(frames) == 5
    for bad, place in ((0.0, 3), (2e7, 2), (np.nan, 1), (np.inf, 0)):
        frames[place] = bad
        assert packing.num_real(frames) == place
    assert packing.num_real(frames[:0]) == 0
