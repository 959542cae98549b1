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
