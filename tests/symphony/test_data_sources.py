"""Tests of the table of data sets and of the table of forms."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UsageError
from symphony import data
from symphony.data import readers, sources
from symphony.data.sources import SOURCES, Source, qm9_files

TABLE = (1, 6, 7, 8, 9)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_a_file_or_is_made(name):
    source = SOURCES[name]
    assert (source.file is None) != (source.make is None)


def test_a_row_is_all_that_a_new_data_set_needs(tmp_path, monkeypatch):
    path = tmp_path / "mine.npz"
    atoms = np.array([6, 8], np.uint8), np.eye(2, 3, dtype=np.float32) * 1.2
    data.write_npz(data.make_molecules(np.array([2]), *atoms), path)
    monkeypatch.setitem(SOURCES, "mine", Source(file=lambda: path))
    made = lambda: data.make_molecules(np.array([1, 1]), atoms[0], atoms[1])
    monkeypatch.setitem(SOURCES, "made", Source(make=made))
    assert data.locate("mine") == path
    assert data.locate("made") == Path("made")
    assert data.read_molecules("mine", TABLE, 9)[0].num_atoms.tolist() == [2]
    assert data.read_molecules("made", TABLE, 9)[0].num_atoms.tolist() == [1, 1]


def test_a_name_that_is_none_is_answered_with_all_names(tmp_path):
    with pytest.raises(UsageError, match="one of qm9, qm9-moleculenet, qm9-sample"):
        data.read_molecules("qm9-samples", TABLE, 29)


def test_no_download_begins_before_a_name_is_asked_for(monkeypatch):
    asked = []

    def fetch(remote, folder):
        asked.append(remote.name)
        return folder / remote.name

    monkeypatch.setattr(sources.qm9, "fetch_remote", fetch)
    data.locate("qm9-sample")
    assert asked == []
    sources.qm9.download_moleculenet()
    assert asked == ["uncharacterized.txt", "qm9.zip"]
    sources.qm9.download()
    assert asked[2:] == ["uncharacterized.txt", "dsgdb9nsd.xyz.tar.bz2"]


@pytest.mark.parametrize(
    ("name", "is_official"),
    [
        ("gdb9.sdf", True),
        ("mine.sdf", False),
        ("dsgdb9nsd.xyz.tar.bz2", True),
        ("QM9.ZIP", True),
        ("molecules.npz", False),
    ],
)
def test_official_files_are_known_by_their_names(name, is_official):
    assert qm9_files.is_official(Path(name)) == is_official


@pytest.mark.parametrize("suffix", [".npz", ".sdf", ".mol", ".xyz", ".extxyz", ".XYZ"])
def test_every_plain_form_has_one_reader(suffix):
    found = [form.matches(Path(f"x{suffix}")) for form in readers.PLAIN_FORMS]
    assert sum(found) == 1


def test_forms_that_are_not_offered_are_refused(tmp_path):
    path = tmp_path / "qm9.zip"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"expected one of \.npz; found '\.zip'"):
        readers.read_file(path, (), readers.PLAIN_FORMS, ".npz")


def test_energies_of_qm9_become_ev_and_other_columns_stay():
    values = {"gap": np.float32([1.0]), "mu": np.float32([2.0])}
    found = qm9_files._in_our_units(values)
    np.testing.assert_allclose(found["gap"], 27.211386, rtol=1e-6)
    np.testing.assert_allclose(found["mu"], 2.0)
