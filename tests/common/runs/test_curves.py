"""Curves of a run are drawn from its record; a run without Matplotlib goes on."""

import json
import sys

import numpy as np
import pytest

from common.runs import curves

RECORDS = [
    {"step": 1, "cpu_seconds": 2.0, "wall_seconds": 1.0, "nll": 3.0, "fine": None},
    {"step": 3, "cpu_seconds": 6.0, "wall_seconds": 3.0, "nll": 2.0, "fine": 1.0},
    {"step": 3, "cpu_seconds": 9.0, "wall_seconds": 5.0, "validation_nll": 2.5},
    {"step": 5, "cpu_seconds": 10.0, "wall_seconds": 6.0, "nll": 1.0, "fine": 0.5},
]


@pytest.fixture
def workdir(tmp_path):
    lines = (json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "metrics.jsonl").write_text("".join(lines), "utf-8")
    return tmp_path


def test_panels_hold_what_was_recorded():
    panels = curves.panels_of(RECORDS, "nll")
    assert [*panels] == ["nll", "fine", "steps per CPU-second"]
    assert panels["nll"]["training"] == ([1, 3, 5], [3.0, 2.0, 1.0])
    assert panels["nll"]["validation"] == ([3], [2.5])
    assert panels["fine"] == {"training": ([3, 5], [1.0, 0.5])}  # Null is left out.
    steps, speeds = panels["steps per CPU-second"][""]
    assert steps == [3, 5]
    np.testing.assert_allclose(speeds, [0.5, 0.5])


def test_a_picture_is_drawn_and_replaced(workdir):
    for _ in range(2):
        curves.draw(workdir, "nll", "nats")
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in workdir.iterdir()) == [
        "curves.png", "metrics.jsonl",
    ]  # fmt: skip


def test_without_matplotlib_one_line_tells_so(workdir, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    curves.draw(workdir, "nll", "nats")
    assert not (workdir / "curves.png").exists()
    (line,) = caplog.messages
    assert "curves.png is not drawn" in line


def test_a_picture_of_somebody_else_stays(workdir, caplog):
    (workdir / "curves.png").write_bytes(b"\x89PNG, mine")
    curves.draw(workdir, "nll", "nats")
    assert (workdir / "curves.png").read_bytes() == b"\x89PNG, mine"
    assert any("that no run drew" in line for line in caplog.messages)


def test_a_picture_that_cannot_be_written_stops_nothing(workdir, caplog):
    (workdir / "curves.png").mkdir()
    curves.draw(workdir, "nll", "nats")
    assert any("curves.png is not drawn" in line for line in caplog.messages)
