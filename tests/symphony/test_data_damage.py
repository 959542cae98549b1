"""Damaged and hostile files of molecules: one line with the path, and little memory."""

import bz2
import gzip
import io
import re
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from symphony import data
from symphony.data import opening
from symphony.data.sources import qm9_files
from tests.symphony.test_data_qm9 import tar_of_fixtures, zip_of_fixtures
from tests.symphony.test_data_readers import (
    TABLE,
    arrays,
    read,
    read_arrays,
    v2000,
    v3000,
    xyz,
)


def refusal(path, **options):
    """Returns why a file is refused, None where it is read."""
    try:
        data.read_molecules(path, TABLE, 29, **options)
    except UsageError as error:
        return str(error)
    return None


def is_in_order(line, path):
    return line.startswith(f"{path}: ") and "\n" not in line and len(line) < 1000


def assert_refused(path, match="."):
    """Asserts that a file is refused in one line that begins with its path."""
    line = refusal(path)
    assert is_in_order(line, path)
    assert re.search(match, line), line


def npz(**changes):
    file = io.BytesIO()
    np.savez(file, **(arrays() | changes))
    return file.getvalue()


def with_headers(contents, begin, value, directory_begin):
    """Returns an archive with a field changed in all its headers, of two bytes each."""
    contents = bytearray(contents)
    for mark, at in ((b"PK\x03\x04", begin), (b"PK\x01\x02", directory_begin)):
        place = contents.find(mark)
        while place >= 0:
            contents[place + at : place + at + 2] = struct.pack("<H", value)
            place = contents.find(mark, place + 1)
    return bytes(contents)


def with_member(name, contents):
    file = io.BytesIO(npz())
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of a name that is there already.
        archive.writestr(name, contents)
    return file.getvalue()


def header_of(shape):
    """Returns an array that ends behind its header."""
    file = io.BytesIO()
    form = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, form)
    return file.getvalue()


ARCHIVES = {
    "encrypted": with_headers(npz(), 6, 1, 8),
    "patched": with_headers(npz(), 6, 0x20, 8),
    "unknown method": with_headers(npz(), 8, 99, 10),
    "lzma that is none": with_headers(npz(), 8, 14, 10),
    "bzip2 that is none": with_headers(npz(), 8, 12, 10),
    "deflate that is none": with_headers(npz(), 8, 8, 10),
    "version of the future": with_headers(npz(), 4, 250, 6),
    "a member without magic": with_member("names.npy", b"no array at all"),
    "two of one name": with_member("positions.npy", header_of((60, 3))),
    "more than the file has": with_member("names.npy", header_of((10**9,))),
    "a negative shape": with_member("names.npy", header_of((-5,))),
    "dates as indices": npz(gdb_index=np.zeros(20, "datetime64[s]")),
    "complex positions": npz(positions=np.zeros((60, 3), complex)),
    "text as positions": npz(positions=np.full((60, 3), "a")),
    "flags as numbers": npz(atomic_numbers=np.ones(60, bool)),
    "numbers as names": npz(names=np.arange(20)),
    "fields of a record": npz(num_atoms=np.zeros(20, [("a", int)])),
    "a split of floats": npz(split=np.zeros(20)),
    "negative numbers": npz(atomic_numbers=np.full(60, -6)),
    "numbers of no element": npz(atomic_numbers=np.full(60, 119)),
    "counts that overflow": npz(num_atoms=np.full(20, 2**63 - 1)),
    "counts of no atoms": npz(num_atoms=np.zeros(10**6, np.uint8)),
    "an array alone": np.zeros(3).tobytes(),
    "nothing": b"",
}


@pytest.mark.parametrize("fault", ARCHIVES)
def test_damaged_archives_are_refused(tmp_path, fault):
    (tmp_path / "set.npz").write_bytes(ARCHIVES[fault])
    assert_refused(tmp_path / "set.npz")


def test_an_archive_that_grows_when_unpacked_is_refused_by_its_headers(tmp_path):
    path = tmp_path / "set.npz"
    large = np.zeros((4_000_000, 3))
    np.savez_compressed(path, **(arrays() | {"positions": large}))
    tracemalloc.start()
    assert_refused(path, r"positions of shape \(60, 3\)")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6 < large.nbytes


def test_an_array_that_is_not_used_is_not_read(tmp_path):
    tracemalloc.start()
    read_arrays(tmp_path, {"smiles": np.zeros(2_000_000)})
    tracemalloc.reset_peak()
    data.read_molecules(tmp_path / "set.npz", TABLE, 29)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_objects_that_are_not_used_are_not_unpickled(tmp_path):
    extra = {"comment": np.array([{}, None], object)}
    assert len(read_arrays(tmp_path, extra)[0].num_atoms) == 20
    (tmp_path / "set.npz").write_bytes(npz(names=np.array([{}] * 20)))
    assert_refused(tmp_path / "set.npz", "found names of Python objects")


def test_a_split_that_is_none_is_told(tmp_path, caplog):
    split = np.array([0, 1, 2, 300] * 5)
    molecules, _ = read_arrays(tmp_path, {"split": split}, split="train")
    assert len(molecules.num_atoms) == 5
    assert "5 molecules are in no part" in caplog.text


@pytest.mark.parametrize("name", ["a.sdf.gz", "a.xyz.gz"])
def test_a_file_that_grows_without_bound_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(opening, "_FREE_BYTES", 1 << 16)
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n" * (1 << 25)))
    assert_refused(path, "grows to at most 200 times its size")


@pytest.mark.parametrize("name", ["a.sdf.gz", "a.xyz.gz"])
@pytest.mark.parametrize("keep", [0, 5, -9, -1])
def test_gzip_that_was_cut_is_refused(tmp_path, name, keep):
    text = (v2000() if "sdf" in name else xyz()) * 50
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode())[:keep])
    assert_refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_of_another_method_is_read_or_refused(tmp_path, monkeypatch, method):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fixtures = Path(__file__).parent / "fixtures"
    path = tmp_path / "q.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(fixtures / "gdb9.sdf", "gdb9.sdf")
    assert len(data.read_molecules(path, TABLE, 29)[0].num_atoms) == 6
    contents = bytearray(path.read_bytes())
    contents[60:90] = b"\xff" * 30
    path.write_bytes(contents)
    assert_refused(path, "expected a whole zip archive, found it damaged")


@pytest.mark.parametrize("size", [b"77777777777\0", b"-0000000001\0", b"99999999999\0"])
def test_a_tar_with_a_member_of_no_size_is_refused(tmp_path, size):
    header = bytearray(512)
    header[:5], header[124:136], header[156:157] = b"a.xyz", size, b"0"
    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    path.write_bytes(bz2.compress(bytes(header) * 4))
    assert_refused(path)


@pytest.mark.parametrize("suffix", ["npz", "sdf", "mol", "xyz", "extxyz", "sdf.gz"])
def test_folders_and_missing_and_unreadable_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    assert_refused(path, "found nothing there")
    path.mkdir()
    assert_refused(path, "found a folder there")


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("symphony.data.xyz.LONGEST_LINE", 1000)
    with pytest.raises(UsageError, match=r"more than 1000 characters \(line 3\)"):
        read(tmp_path, "a.xyz", "3\n\nO" + " " * 2000)
    monkeypatch.setattr("symphony.data.sdf._LONGEST_RECORD", 1000)
    with pytest.raises(UsageError, match="found no \\$\\$\\$\\$ in 64 MB"):
        read(tmp_path, "a.sdf", "water\n" * 1000)


def official(make, name):
    def contents(folder):
        return make(folder / name).read_bytes()

    return contents


WHOLE = {
    "a.sdf": lambda folder: (v2000("a") + v3000("b") + v2000("c")).encode(),
    "a.mol": lambda folder: v3000().encode(),
    "a.xyz": lambda folder: (xyz() + xyz("Properties=species:S:1:pos:R:3")).encode(),
    "a.sdf.gz": lambda folder: gzip.compress(v2000().encode() * 3),
    "a.npz": lambda folder: npz(names=np.array(["a"] * 20), split=np.zeros(20, int)),
    "q.zip": official(zip_of_fixtures, "whole.zip"),
    "d.tar.bz2": official(tar_of_fixtures, "whole.tar.bz2"),
}


def damage(contents, kind, where, rng):
    """Returns contents with one damage at a place, a share of their length."""
    at = int(where * len(contents))
    if kind == "cut":
        return contents[:at]
    if kind == "flip":
        return (
            contents[:at]
            + bytes([contents[at] ^ (1 << rng.integers(8))])
            + (contents[at + 1 :])
        )
    if kind == "lose":
        return contents[:at] + contents[at + int(rng.integers(1, 200)) :]
    if kind == "repeat":
        return contents[:at] + contents[max(0, at - 150) :]
    if kind == "digit":
        word = rng.choice(
            [b"-1", b"999", b"nan", b"1e400", b"\x00", b"\xff\xfe", b"$$$$"]
        )
        return contents[:at] + bytes(word) + contents[at + len(word) :]
    noise = rng.integers(0, 256, 60, np.uint8).tobytes()
    return contents[:at] + noise + contents[at + 60 :]


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    kind=st.sampled_from(["cut", "flip", "lose", "repeat", "digit", "noise"]),
    where=st.floats(0.0, 0.999),
    seed=st.integers(0, 9999),
)
def test_whatever_the_damage_a_file_is_read_or_refused_in_one_line(
    name, kind, where, seed, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("damage")
    path = folder / name
    whole = WHOLE[name](folder)
    path.write_bytes(damage(whole, kind, where, np.random.default_rng(seed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qm9_files, "parsed_once", lambda path, parse, *_: parse(path))
        line = refusal(path, properties=("gap",))
    assert line is None or is_in_order(line, path)
