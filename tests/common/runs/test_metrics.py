"""What `metrics.jsonl` holds after runs that were killed and resumed."""

import jax.numpy as jnp
import pytest

from common.runs.metrics import FILE_NAME, MetricsWriter, read_metrics
from common.runs.training import Elapsed


def clock():
    return Elapsed(1.5, 2.5)


def write(workdir, steps, resume_step=0):
    with MetricsWriter(workdir, clock, resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": jnp.float32(step)})


def test_records_hold_step_times_and_metrics(tmp_path):
    write(tmp_path / "new", [10])
    assert read_metrics(tmp_path / "new") == [
        {"step": 10, "cpu_seconds": 1.5, "wall_seconds": 2.5, "loss": 10.0}
    ]


def test_resuming_shows_no_step_twice_and_none_missing(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [30, 40], resume_step=20)
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20, 30, 40]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_new_run_starts_a_new_record(tmp_path):
    write(tmp_path, [10, 20])
    write(tmp_path, [5])
    assert [r["step"] for r in read_metrics(tmp_path)] == [5]


@pytest.mark.parametrize("torn", ['{"step": 30, "lo', '{"step": 30}'])
def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path, torn):
    write(tmp_path, [10, 20])
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write(torn)
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20]
    write(tmp_path, [30], resume_step=40)
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20, 30]


@pytest.mark.parametrize("garbled", [b"\0\0\0", b'{"epoch": 6}', b"\xff\xfe", b"7"])
def test_a_garbled_line_costs_no_other(tmp_path, garbled):
    write(tmp_path, [10, 20])
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(garbled + b"\n")
    write(tmp_path, [30], resume_step=20)
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20, 30]


def test_numbers_that_json_has_not_become_null(tmp_path):
    with MetricsWriter(tmp_path, clock) as writer:
        writer.write(1, {"loss": float("nan"), "grad_norm": float("inf")})
    assert read_metrics(tmp_path)[0]["loss"] is None
    assert read_metrics(tmp_path)[0]["grad_norm"] is None


def test_nothing_is_read_where_nothing_was_written(tmp_path):
    assert read_metrics(tmp_path) == []
