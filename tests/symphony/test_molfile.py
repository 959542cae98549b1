"""Tests of the three files of an output, and of what one line of each says."""

import json

import numpy as np
import pytest

from common.errors import UsageError
from symphony import molfile

HEAD = {"seed": 1}
POSITIONS = np.array([[0.0, 0.0, 0.1], [1e-7, -1.5, 100.0]], np.float32)


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([1, 1, 8], "H2O"),
        ([8, 6, 8], "CO2"),
        ([7, 1, 6, 1], "CH2N"),
        ([11, 17], "ClNa"),
    ],
)
def test_formulas_are_in_the_order_of_hill(numbers, formula):
    assert molfile.formula(np.array(numbers, np.uint8)) == formula


def test_a_frame_names_its_columns_and_quotes_words():
    fields = {"name": "my mol", "valid": True, "stopped": False, "index": 3}
    frame = molfile.to_extxyz(np.array([6, 17], np.uint8), POSITIONS, fields)
    count, comment, first, second = frame.splitlines()
    assert count == "2"
    assert comment == (
        'Properties=species:S:1:pos:R:3 name="my mol" valid=T stopped=F index=3'
    )
    assert first.split() == ["C", "0.000000", "0.000000", "0.100000"]
    assert np.float32(second.split()[1]) == POSITIONS[1, 0]


def test_an_output_is_named_by_its_sdf():
    assert [path.name for path in molfile.paths_of("a/b.SDF")] == [
        "b.SDF", "b.extxyz", "b.jsonl",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"ends in \.sdf, found b\.xyz"):
        molfile.paths_of("b.xyz")


def append(path, indices, header=HEAD, overwrite=False):
    with molfile.open_output(path, header, overwrite) as output:
        for index in indices:
            molfile.append(output, {"index": index}, f"sdf {index}\n", f"xyz {index}\n")
        return output.num_done


def test_what_lies_behind_the_last_whole_record_is_cut_off(tmp_path):
    path = tmp_path / "out.sdf"
    assert append(path, [0, 1]) == 0
    for file in molfile.paths_of(path):
        with file.open("a") as torn:
            torn.write('{"index": 2, "sd')
    assert append(path, [2]) == 2
    assert path.read_text() == "sdf 0\nsdf 1\nsdf 2\n"
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line).get("index") for line in lines] == [None, 0, 1, 2]


def test_another_header_is_refused_unless_told_to_overwrite(tmp_path):
    path = tmp_path / "out.sdf"
    append(path, [0])
    with pytest.raises(UsageError, match="seed"):
        append(path, [1], {"seed": 2})
    assert path.read_text() == "sdf 0\n"
    assert append(path, [0], {"seed": 2}, overwrite=True) == 0


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def edit(path, how):
    sdf, extxyz, manifest = molfile.paths_of(path)
    if how == "a letter of the SDF":
        sdf.write_text(sdf.read_text().replace("sdf 0", "sdf x"))
    elif how == "a letter of the frames":
        extxyz.write_text(extxyz.read_text().replace("xyz 1", "xyz x"))
    elif how == "a value of the manifest":
        manifest.write_text(manifest.read_text().replace('"note": 1', '"note": 2'))
    elif how == "a molecule more":
        sdf.write_text(sdf.read_text() + "mine\n$$$$\n")
    elif how == "frames more":
        extxyz.write_text(extxyz.read_text() + 2 * "1\nindex=2\nH 0 0 0\n")
    elif how == "a frame more":
        extxyz.write_text(extxyz.read_text() + "1\nname=mine\nH 0 0 0\n")


@pytest.mark.parametrize(
    "how",
    [
        "a letter of the SDF",
        "a letter of the frames",
        "a value of the manifest",
        "a molecule more",
        "frames more",
        "a frame more",
    ],
)
def test_what_was_edited_since_is_not_touched(tmp_path, how):
    path = tmp_path / "out.sdf"
    with molfile.open_output(path, HEAD, False) as output:
        for index in range(2):
            record = {"index": index, "note": index}
            molfile.append(output, record, f"sdf {index}\n", f"xyz {index}\n")
    edit(path, how)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="edited since; give --overwrite"):
        append(path, [2])
    assert contents(tmp_path) == before
    assert append(path, [0], overwrite=True) == 0


def test_molecules_without_a_checksum_are_gone_on_with(tmp_path):
    path = tmp_path / "out.sdf"
    append(path, [0, 1])
    manifest = path.with_suffix(".jsonl")
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    records = [{k: v for k, v in record.items() if k != "crc32"} for record in records]
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert append(path, [2]) == 2
    assert append(path, [3]) == 3


def test_a_torn_frame_with_its_index_is_cut_off(tmp_path):
    path = tmp_path / "out.sdf"
    append(path, [0])
    with path.with_suffix(".extxyz").open("a") as file:
        file.write("2\nProperties=species:S:1:pos:R:3 name=a index=1 seed=0\nH 0 0 0\n")
    assert append(path, [1]) == 1


def test_molecules_without_their_manifest_are_not_touched(tmp_path):
    path = tmp_path / "out.sdf"
    append(path, [0, 1])
    path.with_suffix(".jsonl").unlink()
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"out\.sdf: expected no file, or one with"):
        append(path, [2])
    assert contents(tmp_path) == before


def test_a_failure_before_the_first_molecule_leaves_nothing(tmp_path):
    def fail(indices):
        with molfile.open_output(tmp_path / "new" / "out.sdf", HEAD, False) as output:
            for index in indices:
                molfile.append(output, {"index": index}, "sdf\n", "xyz\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail([])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        fail([0])
    assert append(tmp_path / "new" / "out.sdf", [1]) == 1
    with pytest.raises(UsageError, match="seed"):
        append(tmp_path / "new" / "out.sdf", [1], {"seed": 2})
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_links_are_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "out.sdf").symlink_to(tmp_path / "far" / "real.sdf")
    append(tmp_path / "out.sdf", [0])
    assert (tmp_path / "out.sdf").is_symlink()
    assert (tmp_path / "far" / "real.sdf").read_text() == "sdf 0\n"
