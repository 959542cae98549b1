"""Damaged JSON and NumPy archives: refused in one line, before their data are read."""

import contextlib
import io
import zipfile

import numpy as np
import pytest

from common.commands import reading
from common.errors import UsageError


def _archive(path, **members):
    """Writes members as given, bytes or arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if isinstance(value, bytes):
                archive.writestr(f"{name}.npy", value)
                continue
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, value)


def _bytes_of(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def _refusal(path, **keywords):
    with pytest.raises(UsageError) as caught:
        reading.read_arrays(path, "a state", **keywords)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: expected a state, found ")
    return str(caught.value)


@pytest.mark.parametrize("text", ["[" * 200_000, "", "{", "[]", "null", "\0", "5"])
def test_json_that_is_no_object_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="expected a JSON object, found"):
        reading.read_json(path)


def test_json_in_another_coding_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"\xff\xfe')
    for found in (path, tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match=str(found)):
            reading.read_json(found)


def test_arrays_come_back_and_unchosen_ones_are_not_read(tmp_path):
    path = tmp_path / "a.npz"
    _archive(path, cloud=np.arange(3), broken=_bytes_of(np.arange(4)))
    arrays = reading.read_arrays(path, "a state", lambda headers: ["cloud"])
    assert arrays.keys() == {"cloud"}
    np.testing.assert_array_equal(arrays["cloud"], np.arange(3))


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    _archive(path, cloud=_bytes_of(np.zeros(4)).replace(b"(4,)", b"(9,)"))
    assert "72 bytes by its header and 32 in the file" in _refusal(path)


def test_shapes_are_judged_before_data_are_read(tmp_path):
    path = tmp_path / "a.npz"
    _archive(path, positions=np.zeros((1_000_000, 3)))

    def choose(headers):
        assert headers["positions"].num_bytes == 24_000_000
        raise UsageError("too many")

    with pytest.raises(UsageError, match="too many"):
        reading.read_arrays(path, "a state", choose)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, cloud=np.array([{}], object))
    assert "never unpickled" in _refusal(path)


@pytest.mark.parametrize("offset", [4, 6, 8])  # version needed, flags, method
@pytest.mark.parametrize("value", [1, 14, 32, 99])
def test_any_field_of_a_member_gives_one_line_or_the_array(tmp_path, offset, value):
    path = tmp_path / "a.npz"
    _archive(path, cloud=np.arange(100))
    contents = bytearray(path.read_bytes())
    contents[offset] = value
    central = contents.rindex(b"PK\x01\x02")
    contents[central + offset + 2] = value
    path.write_bytes(contents)
    found = {}
    with contextlib.suppress(UsageError):  # Nothing else may be raised.
        found = reading.read_arrays(path, "a state")
    for array in found.values():
        np.testing.assert_array_equal(array, np.arange(100))


def test_flipped_and_cut_archives_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    _archive(path, cloud=np.random.default_rng(0).normal(size=50))
    whole = path.read_bytes()
    for place in range(60, 300, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        _refusal(path)
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        _refusal(path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("loss"), "no 'loss'"),
        (RecursionError("maximum recursion depth"), "text that is nested too deeply"),
        (RuntimeError("File <ZipInfo filename='a' x=1> is encrypted"), "File a is enc"),
    ],
)
def test_a_fault_and_what_to_do_are_told(error, told, tmp_path):
    refused = pytest.raises(UsageError, match=rf"found {told}.*; get it again, or give")
    with refused, reading.refusing(tmp_path, "a state"):
        raise error


@pytest.mark.parametrize("text", [b"{'descr': (", b"{'descr': '<f8', 'x", b"1 +", b"["])
def test_a_header_that_is_no_dictionary_is_refused(tmp_path, text):
    path = tmp_path / "a.npz"
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    _archive(path, cloud=head)
    _refusal(path)
