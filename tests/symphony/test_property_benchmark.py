"""Tests of the tables and the file of `benchmarks.properties`, without a network."""

import json

import numpy as np
import pytest

from benchmarks import properties
from symphony.columns import Column

GAP = Column("gap", "eV", 5.0, 1.0, 3.0, 7.0, 10)
RINGS = Column("num_rings", "", 2.0, 1.0, 0.0, 4.0, 10)
TARGETS = np.array([[5.0, 1.0], [6.0, 2.0], [4.0, 3.0], [5.5, 0.0]])


def drawn():
    values = np.array([[5.5, 1.0], [np.nan, np.nan], [4.5, 1.0], [5.5, 0.0]])
    valid = np.isfinite(values[:, 0])
    finished = np.array([True, False, True, True])
    return properties.Drawn(values, valid, finished, ["C", "C", "CC"], 0.25)


def test_errors_are_those_of_valid_molecules():
    row = properties.row_of(drawn(), TARGETS)
    assert row["errors"] == pytest.approx([1.0 / 3.0, 2.0 / 3.0])
    shares = row["valid"], row["unique of valid"], row["unfinished"]
    assert shares == pytest.approx((0.75, 2.0 / 3.0, 0.25))


def test_rows_stay_for_the_same_targets_and_weights(tmp_path):
    path, settings = tmp_path / "properties.json", {"targets": "abc"}
    found = properties.begin(path, "mine", settings)
    found["baselines"] = {properties.NAIVE: [2.0, 1.0]}
    found["guidance"] = {"1": properties.row_of(drawn(), TARGETS)}
    path.write_text(json.dumps({"machine": {}, **found}))
    assert properties.begin(path, "mine", settings) == found
    assert properties.begin(path, "others", settings) == {
        **found, "weights": "others", "guidance": {}
    }  # fmt: skip
    assert properties.begin(path, "mine", {"targets": "d"})["baselines"] == {}


def test_the_tables_have_all_rows():
    row = properties.row_of(drawn(), TARGETS)
    rows = {"1": row, properties.FREE: row}
    found = {"baselines": {properties.NAIVE: [2.0, 1.0]}, "guidance": rows}
    errors, counts = properties.tables((GAP, RINGS), found)
    assert errors[0][1:] == ["gap (eV)", "num_rings"]
    assert [line[0] for line in errors[1:]] == [
        "naive (shuffled)", "no condition", "guidance 1"
    ]  # fmt: skip
    assert errors[-1][1:] == ["0.333 (17 %)", "0.667 (67 %)"]
    assert counts[-1] == ["guidance 1", "75.0", "66.7", "25.0", "0.250"]


def test_the_picture_has_a_panel_for_each_property():
    figure = properties.plot((GAP, RINGS), TARGETS, drawn().values, "four targets")
    assert [panel.get_title() for panel in figure.axes] == ["gap eV", "num_rings"]
    x, y = figure.axes[0].lines[0].get_data()
    np.testing.assert_array_equal(x, TARGETS[:, 0])
    np.testing.assert_array_equal(y, drawn().values[:, 0])
