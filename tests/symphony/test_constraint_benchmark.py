"""Tests of the file of `benchmarks.constraints`, without a network."""

import json

import pytest

from benchmarks import constraints
from benchmarks.report import RESULTS


def test_a_table_is_replaced_and_the_others_stay(tmp_path):
    path = tmp_path / "constraints.json"
    rows = [["core", "valid, %"], ["c1cnc[nH]1", "86.7"]]
    constraints.keep(path, "cores", "first", rows, 2.0)
    constraints.keep(path, "speed", "second", [["asked"], ["nothing"]], 1.0)
    constraints.keep(path, "cores", "third", rows, 3.0)
    tables = json.loads(path.read_text())["tables"]
    assert tables["cores"] == {
        "command": "third",
        "cpu_seconds": 3.0,
        "rows": [{"core": "c1cnc[nH]1", "valid, %": "86.7"}],
    }
    assert tables["speed"]["rows"] == [{"asked": "nothing"}]


def test_the_packaged_figures_reach_the_aim():
    tables = json.loads((RESULTS / "constraints.json").read_text())["tables"]
    (row,) = tables["hydrogens"]["rows"]
    assert row["molecules"] == 500
    assert float(row["restored of these, %"]) >= 98.0
    assert len(tables["formulas"]["rows"]) == 20
    assert len(tables["refused"]["rows"]) >= 5
    assert len(tables["cores"]["rows"]) == 10
    slowest = max(float(row["of that without"]) for row in tables["speed"]["rows"])
    assert slowest <= 1.2


def test_a_formula_that_is_not_refused_is_an_error():
    class Lenient:
        def sample_positions(self, count, formula):
            return []

    with pytest.raises(AssertionError, match="C2H9: expected to be refused"):
        constraints.refused(Lenient(), 1)
