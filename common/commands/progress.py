"""Progress of long work: a bar on a terminal, plain lines at intervals elsewhere.

Both show the rate over the last half minute, so that neither compilation at the start
nor work done by an earlier run distorts it.
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta

from absl import logging

Advance = Callable[..., None]

_WINDOW = 30.0  # s
_SHORTEST = 1.0  # s; a rate over less says nothing
_WIDE = 110  # Letters of a terminal with room for a long bar.


@contextlib.contextmanager
def progress(
    total: int,
    description: str,
    unit: str,
    *,
    completed: int = 0,
    interval: float = 30.0,
) -> Iterator[Advance]:
    """Shows how far work has come; yields `advance(count=1, note="")`.

    >>> with progress(2, "training", "steps") as advance:  # doctest: +ELLIPSIS
    ...     advance()
    ...     advance(note="loss 0.5")
    training: 0/2 steps
    training: 2/2 steps...loss 0.5

    Args:
      total: Amount of work, in `unit`.
      description: word for the work, as in `training`.
      unit: Plural noun after the rate, as in `steps`.
      completed: Work that an earlier run has done; like the first work of this one,
        which waits for compilation, it does not enter the rate.
      interval: seconds between lines where the output is no terminal.
    """
    show = _bar if sys.stdout.isatty() else _lines
    with show(total, description, unit, completed, interval) as display:
        marks: deque[tuple[float, int]] = deque()

        def advance(count: int = 1, note: str = "") -> None:
            done = (marks[-1][1] if marks else completed) + count
            now = time.monotonic()
            marks.append((now, done))
            while len(marks) > 2 and marks[1][0] < now - _WINDOW:
                marks.popleft()
            display(done, pace(marks, total, unit), note)

        yield advance


def pace(marks: deque[tuple[float, int]], total: int, unit: str) -> str:
    """Returns the rate between the first mark and the last, and the time that remains.

    Args:
      marks: pairs of a time in seconds and the work done by then, in order.
      total: amount of work, in `unit`.
      unit: plural noun after the rate.

    >>> pace(deque([(10.0, 40), (12.0, 60)]), 100, "steps")
    '10 steps/s, 0:00:04 remaining'
    """
    (start, before), (now, done) = marks[0], marks[-1]
    if now - start < _SHORTEST or done <= before:
        return ""
    rate = (done - before) / (now - start)
    remaining = timedelta(seconds=round(max(total - done, 0) / rate))
    return f"{rate:.3g} {unit}/s, {remaining} remaining"


Display = Callable[[int, str, str], None]


@contextlib.contextmanager
def _lines(
    total: int, description: str, unit: str, completed: int, interval: float
) -> Iterator[Display]:
    shown = latest = (completed, "", "")
    shown_at = time.monotonic()

    def write() -> None:
        nonlocal shown_at, shown
        done, *notes = shown = latest
        details = "".join(f", {part}" for part in notes if part)
        sys.stdout.write(f"{description}: {done}/{total} {unit}{details}\n")
        sys.stdout.flush()
        shown_at = time.monotonic()

    def display(done: int, pace: str, note: str) -> None:
        nonlocal latest
        latest = (done, pace, note)
        if time.monotonic() - shown_at >= interval:
            write()

    write()
    try:
        yield display
    finally:
        if latest[0] != shown[0]:
            write()


@contextlib.contextmanager
def _bar(
    total: int, description: str, unit: str, completed: int, interval: float
) -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    whole = Column(no_wrap=True, min_width=len(f"{total}/{total}"))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=40 if Console().width >= _WIDE else 10),
        MofNCompleteColumn(table_column=whole),
        # In a narrow terminal it takes several lines: no number is cut.
        TextColumn(
            "{task.fields[details]}", markup=False, table_column=Column(overflow="fold")
        ),
    )
    with Progress(*columns, redirect_stderr=sys.stderr.isatty()) as bar, _log_above():
        task = bar.add_task(description, total=total, completed=completed, details="")

        def display(done: int, pace: str, note: str) -> None:
            details = ", ".join(part for part in (pace, note) if part)
            bar.update(task, completed=done, details=details or unit)

        yield display


@contextlib.contextmanager
def _log_above() -> Iterator[None]:
    """Sends log lines to the present standard error, above a bar, not through it."""
    log = logging.get_absl_handler().python_handler
    stream = log.stream
    if sys.stderr.isatty():
        log.setStream(sys.stderr)
    try:
        yield
    finally:
        log.setStream(stream)
