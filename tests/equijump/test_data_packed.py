"""Tests of packed frames."""

import os
from pathlib import Path

import numpy as np
import pytest

from equijump.data import packed

pytestmark = pytest.mark.usefixtures("fresh_cache")


def write(path, num_frames=6, num_atoms=2):
    values = np.arange(num_frames * num_atoms * 3, dtype=np.float32)
    path.write_bytes(values.tobytes())
    frames = packed.PackedFrames(path, num_frames, num_atoms)
    return frames, values.reshape(num_frames, num_atoms, 3)


@pytest.mark.parametrize(
    "index",
    [2, -1, slice(1, 4), slice(None, None, 2), np.array([3, 0, 3])],
    ids=["one", "last", "slice", "strided", "rows"],
)
def test_packed_frames_are_indexed_as_an_array(tmp_path, index):
    frames, values = write(tmp_path / "a.f32")
    np.testing.assert_array_equal(frames[index], values[index])
    rows = np.array([[1], [2]]), np.array([0, 1])
    np.testing.assert_array_equal(frames[rows], values[rows])


def test_packed_frames_have_the_shape_of_their_array(tmp_path):
    frames, values = write(tmp_path / "a.f32")
    assert (len(frames), frames.shape, frames.dtype) == (6, (6, 2, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(frames), values)
    assert np.asarray(frames, np.float64).dtype == np.float64


def test_a_part_of_a_file_is_read_by_its_offset(tmp_path):
    _, values = write(tmp_path / "a.f32")
    frames = packed.PackedFrames(tmp_path / "a.f32", 3, 2, offset=2 * 24)
    np.testing.assert_array_equal(frames[:], values[2:5])
    np.testing.assert_array_equal(frames[np.array([2, -1, 0])], values[[4, 4, 2]])
    with pytest.raises(IndexError):
        frames[np.array([3])]


def test_what_was_read_does_not_hold_the_file(tmp_path):
    frames, values = write(tmp_path / "a.f32")
    found = frames[1:3]
    (tmp_path / "a.f32").write_bytes(bytes(values.nbytes))
    np.testing.assert_array_equal(found, values[1:3])
    assert type(found) is np.ndarray


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_hundreds_of_packed_files_hold_few_descriptors(tmp_path):
    before = open_files()
    many = [write(tmp_path / f"{n}.f32")[0] for n in range(300)]
    rows = [frames[0] for frames in many]
    units = packed.Lazy(packed.view, many)
    sums = [unit.sum() for unit in units]
    assert len(rows) == len(sums) == 300
    assert open_files() <= before + packed.MOST_OPEN + 2


def test_a_view_of_an_array_is_the_array():
    values = np.arange(10)
    assert np.shares_memory(packed.view(values, 2, 5), values)
    np.testing.assert_array_equal(packed.view(values, 2), values[2:])


def test_a_lazy_sequence_is_computed_at_each_access():
    calls = []
    lazy = packed.Lazy(lambda x: calls.append(x) or 2 * x, [1, 2, 3])
    assert calls == []
    assert (lazy[0], lazy[-1], len(lazy)) == (2, 6, 3)
    assert list(lazy[1:]) == [4, 6]
    assert calls == [1, 3, 2, 3]
    assert [*reversed(lazy)] == [6, 4, 2]
    with pytest.raises(IndexError):
        lazy[3]
