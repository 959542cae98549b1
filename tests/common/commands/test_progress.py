"""Tests of the display of progress."""

import io
import os
import pty
import subprocess
import sys
import time
from collections import deque

import rich
from rich.text import Text

from common.commands.progress import _bar, pace, progress


def test_pace_is_that_of_the_window():
    assert pace(deque([(10.0, 40), (12.0, 60)]), 100, "steps") == (
        "10 steps/s, 0:00:04 remaining"
    )


def test_pace_without_work_is_silent():
    assert pace(deque([(10.0, 40)]), 100, "steps") == ""
    assert pace(deque([(10.0, 40), (12.0, 40)]), 100, "steps") == ""


def test_pace_over_less_than_a_second_is_not_told():
    assert pace(deque([(10.0, 40), (10.001, 60)]), 100, "steps") == ""


def test_lines_come_at_intervals_and_at_the_end(capsys):
    with progress(3, "training", "steps", completed=1, interval=3600.0) as advance:
        advance()
        advance(note="loss 2.5")
    first, last = capsys.readouterr().out.splitlines()
    assert first == "training: 1/3 steps"
    assert last.startswith("training: 3/3 steps, ")
    assert last.endswith("loss 2.5")


def test_the_first_advance_which_compiles_is_no_pace(capsys):
    with progress(4, "training", "steps", interval=0.0) as advance:
        time.sleep(0.3)
        advance(2)
        time.sleep(1.01)
        advance()
    _, first, second = capsys.readouterr().out.splitlines()
    assert first == "training: 2/4 steps"
    assert float(second.split(", ")[1].split()[0]) < 1  # Steps a second.


def test_every_advance_is_a_line_at_interval_zero(capsys):
    with progress(2, "training", "steps", interval=0.0) as advance:
        advance()
        advance()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_failure_shows_how_far_work_came(capsys):
    try:
        with progress(9, "training", "steps") as advance:
            advance(4)
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert "training: 4/9 steps" in capsys.readouterr().out


def test_a_terminal_gets_a_bar_and_log_lines_beside_it():
    code = (
        "import sys\n"
        "from absl import logging\n"
        "from common.commands import cli\n"
        "def main(argv):\n"
        "    with cli.progress(2, 'training', 'steps') as advance:\n"
        "        advance(note='loss [2.5]')\n"
        "        logging.warning('careful')\n"
        "        advance()\n"
        "sys.exit(cli.run('symphony train', main, []))\n"
    )
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        status = subprocess.run(
            [sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment
        ).returncode
        text = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert status == 0
    assert "━" in text
    assert "2/2" in text
    assert "careful" in text


def test_work_of_an_earlier_run_is_no_pace(capsys):
    with progress(1000, "training", "steps", completed=990) as advance:
        advance(5)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "training: 990/1000 steps"
    assert last == "training: 995/1000 steps"  # One mark: no rate yet.


def test_nothing_is_written_twice_where_no_work_was_done(capsys):
    with progress(5, "training", "steps"):
        pass
    assert capsys.readouterr().out == "training: 0/5 steps\n"


def test_work_beyond_the_total_leaves_no_time():
    marks = deque([(0.0, 0), (2.0, 12)])
    assert pace(marks, 10, "jumps") == "6 jumps/s, 0:00:00 remaining"


def test_long_work_is_told_in_hours():
    marks = deque([(0.0, 0), (10.0, 1)])
    assert pace(marks, 1441, "steps") == "0.1 steps/s, 4:00:00 remaining"


def test_no_number_of_a_bar_is_cut_in_a_narrow_terminal():
    file = io.StringIO()
    rich.reconfigure(file=file, width=60, force_terminal=True)
    with _bar(100_000, "sampling", "molecules", 0, 30.0) as display:
        display(80_000, "66.4 molecules/s, 0:05:09 remaining", "0.345 nats a step")
    rich.reconfigure()
    text = Text.from_ansi(file.getvalue()).plain
    assert "…" not in text
    for word in ("80000/100000", "66.4", "molecules/s", "0:05:09", "0.345", "step"):
        assert word in text
