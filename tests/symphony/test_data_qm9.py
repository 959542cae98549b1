"""QM9's official files, by fixtures in their layout; its exclusions and its split."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from common.errors import UsageError
from symphony import data
from symphony.data.sources import qm9, qm9_files

TABLE = (1, 6, 7, 8, 9)
FIXTURES = Path(__file__).parent / "fixtures"
NAMES = [f"gdb_{number:06d}" for number in (1, 2, 3, 4, 5, 133885)]


pytestmark = pytest.mark.usefixtures("fresh_cache")


def copy(folder, *names):
    for name in names:
        (folder / name).write_bytes((FIXTURES / name).read_bytes())
    return folder / names[0]


def tar_of_fixtures(path):
    with tarfile.open(path, "w:bz2") as archive:
        for member in sorted(FIXTURES.glob("dsgdb9nsd_*.xyz")):
            archive.add(member, arcname=member.name)
    return path


def zip_of_fixtures(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("gdb9.sdf", "gdb9.sdf.csv"):
            archive.write(FIXTURES / name, name)
    return path


def in_form(form, folder):
    if form == "sdf":
        return copy(folder, "gdb9.sdf", "gdb9.sdf.csv")
    if form == "zip":
        return zip_of_fixtures(folder / "qm9.zip")
    return tar_of_fixtures(folder / "dsgdb9nsd.xyz.tar.bz2")


@pytest.mark.parametrize("form", ["sdf", "zip", "tar"])
def test_official_forms_give_the_same_molecules(tmp_path, form):
    molecules, report = data.read_molecules(in_form(form, tmp_path), TABLE, 29)
    # Number 58 is among the uncharacterized ones: left out, and not a bad record.
    assert molecules.names.tolist() == NAMES
    assert report.skipped == {}
    np.testing.assert_array_equal(molecules.num_atoms, [5, 4, 3, 4, 3, 5])
    np.testing.assert_array_equal(molecules.atomic_numbers[:5], [6, 1, 1, 1, 1])
    np.testing.assert_array_equal(molecules.atomic_numbers[-5:], [6, 9, 9, 9, 9])
    published = [-0.0126981359, 1.0858041578, 0.0080009958]
    tolerance = 1e-6 if form == "tar" else 5.1e-5
    np.testing.assert_allclose(molecules.positions[0], published, atol=tolerance)


def test_tar_exponents_with_asterisk_and_caret_are_read(tmp_path):
    molecules, _ = data.read_molecules(in_form("tar", tmp_path), TABLE, 29)
    np.testing.assert_allclose(molecules.positions[-5, 2], 1.2e-6, rtol=1e-6)


def test_nothing_is_left_out_of_molecules_to_score(tmp_path):
    path = in_form("sdf", tmp_path)
    molecules, _ = data.read_molecules(path, TABLE, 29, strict=True)
    assert "gdb_000058" in molecules.names


def test_sdf_with_fewer_records_than_its_csv_is_an_error(tmp_path):
    path = copy(tmp_path, "gdb9.sdf", "gdb9.sdf.csv")
    path.write_bytes(path.read_bytes().rsplit(b"gdb_133885", 1)[0])
    with pytest.raises(UsageError, match="expected 7 molecules, as its csv has"):
        data.read_molecules(path, TABLE, 29)


def test_titles_missing_from_the_sdf_come_from_the_csv(tmp_path):
    path = copy(tmp_path, "gdb9.sdf", "gdb9.sdf.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join("" if "gdb_" in line else line for line in lines) + "\n")
    molecules, _ = data.read_molecules(path, TABLE, 29)
    assert molecules.names.tolist() == NAMES


def test_gdb9_with_other_titles_and_no_csv_is_an_error(tmp_path):
    path = copy(tmp_path, "gdb9.sdf")
    path.write_bytes(path.read_bytes().replace(b"gdb_", b"mol_"))
    with pytest.raises(UsageError, match="to be named gdb_<number>, found 'mol_1'"):
        data.read_molecules(path, TABLE, 29)


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.95])
def test_truncated_archive_is_an_error(tmp_path, form, keep):
    path = in_form(form, tmp_path)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(keep * len(contents))])
    with pytest.raises(UsageError, match=r"expected a whole (zip|tar)"):
        data.read_molecules(path, TABLE, 29)


def test_tar_that_ends_between_members_is_an_error(tmp_path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.add(FIXTURES / "dsgdb9nsd_000001.xyz", arcname="dsgdb9nsd_000001.xyz")
    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    path.write_bytes(qm9_files.bz2.compress(raw.getvalue()[:1536]))
    with pytest.raises(UsageError, match="truncated"):
        data.read_molecules(path, TABLE, 29)


def test_second_reading_of_the_tar_comes_from_the_cache(tmp_path, monkeypatch):
    path = in_form("tar", tmp_path)
    first, _ = data.read_molecules(path, TABLE, 29)
    again = lambda path, properties: pytest.fail("read again")
    monkeypatch.setattr(qm9_files, "read_dsgdb9nsd", again)
    second, _ = data.read_molecules(path, TABLE, 29)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_damaged_cache_costs_nothing_but_time(tmp_path):
    path = in_form("tar", tmp_path)
    data.read_molecules(path, TABLE, 29)
    (kept,) = (tmp_path / "cache").rglob("parsed-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    molecules, _ = data.read_molecules(path, TABLE, 29)
    assert molecules.names.tolist() == NAMES


def test_excluded_ids_beside_the_data_are_preferred_and_checked(tmp_path):
    path = copy(tmp_path, "gdb9.sdf")
    numbers = [2, *range(1000, 1000 + qm9.NUM_UNCHARACTERIZED - 1)]
    table = tmp_path / "uncharacterized.txt"
    rows = [
        f"{number:8d}      NC(=N)C#N     NC(=N)C#N   6.036217" for number in numbers
    ]
    head = ["", "List of molecules among the 133885 GDB9 molecules", "", "=" * 80]
    head += ["#   Index      GDB17 SMILES", "=" * 80]
    table.write_text("\n".join([*head, *rows, "=" * 80, ""]))
    molecules, _ = data.read_molecules(path, TABLE, 29)
    assert "gdb_000058" in molecules.names
    assert "gdb_000002" not in molecules.names
    table.write_text("\n".join([*head, *rows[:-1]]))
    with pytest.raises(UsageError, match=r"expected 3054 .*, found 3053"):
        data.read_molecules(path, TABLE, 29)


def test_split_of_edm_has_its_published_sizes():
    numbers = np.arange(1, qm9.NUM_MOLECULES + 1)
    split = qm9.edm_split(numbers, qm9.packaged_excluded())
    counts = {part: int(np.sum(split == part)) for part in (-1, 0, 1, 2)}
    assert counts == {-1: 3054, 0: 100_000, 1: 17_748, 2: 13_083}


def test_split_of_edm_agrees_with_the_packaged_molecules():
    with np.load(qm9.PACKAGED / "qm9_sample.npz") as archive:
        numbers, stored = archive["gdb_index"], archive["split"]
    np.testing.assert_array_equal(
        qm9.edm_split(numbers, qm9.packaged_excluded()), stored
    )


def test_official_files_carry_the_split(tmp_path):
    path = in_form("sdf", tmp_path)
    numbers = np.array([1, 2, 3, 4, 5, 133885])
    expected = qm9.edm_split(numbers, qm9.packaged_excluded())
    for part, split in enumerate(data.SPLITS):
        wanted = [NAMES[row] for row in np.flatnonzero(expected == part)]
        if wanted:
            found, _ = data.read_molecules(path, TABLE, 29, split=split)
            assert found.names.tolist() == wanted
