"""What `metrics.jsonl` holds after runs that were killed and resumed."""

import jax.numpy as jnp
import pytest

from common.runs.metrics import FILE_NAME, MetricsWriter, read_metrics, rising
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


def records_of(training, validation):
    found = []
    for step, (loss, other) in enumerate(zip(training, validation, strict=True)):
        found.append({"step": 10 * step, "loss": loss})
        found.append({"step": 10 * step, "validation_loss": other})
    return found


FALLS = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]


def told_at(training, validation):
    """Returns the places of the validations at which a warning comes."""
    records = records_of(training, validation)
    ends = range(1, len(validation) + 1)
    return [end - 1 for end in ends if rising(records[: 2 * end], "loss")]


def test_a_validation_that_rises_is_told_once_in_three():
    rises = [0.9, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86]
    assert told_at(FALLS, rises) == [4, 7]
    assert rising(records_of(FALLS[:5], rises[:5]), "loss") == (
        "validation loss rose from 0.800 at step 10 to 0.830 while that of training "
        "fell from 0.900 to 0.600: the checkpoint of step 10 is kept, and used for "
        "sampling; more data, a smaller network or fewer steps may help"
    )


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (FALLS, FALLS),
        (FALLS[::-1], FALLS[::-1]),  # Both rise: the run diverges, it does not overfit.
        (FALLS, [0.9, 0.8, 0.84, 0.83, 0.82, 0.83, 0.82, 0.81]),  # It falls again.
        (FALLS[:3], [0.7, 0.8, 0.9]),
        (FALLS[:4], [None, 0.8, None, 0.9]),
        ([], []),
    ],
)
def test_a_validation_that_does_not_rise_alone_is_not_told(training, validation):
    assert told_at(training, validation) == []
