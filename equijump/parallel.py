"""Replicas of simulations run at a time, each in a process of its own.

A process is given a `Task` and nothing else, so that its frames are those of one
replica after the other. It ends with this one, even where this one is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import RunError, UsageError
from equijump.simulation import Plan, Simulation, load_md, run_replica, told

Advance = Callable[[int, str], None]
_WAIT = 0.5  # s between two looks at whether to stop


class Task(NamedTuple):
    """A replica to simulate.

    Attributes:
        ready: what it has in common with other replicas.
        plan: lengths of the simulation.
        path: path of the trajectory.
        seed: seed of velocities and noise.
    """

    ready: Simulation
    plan: Plan
    path: Path
    seed: int


class _Child(NamedTuple):
    """A process that simulates, and the way to it."""

    process: Any
    connection: Connection
    path: Path


def num_processes(asked: int, platform: str | None, num_tasks: int) -> int:
    """Returns how many replicas run at a time.

    >>> num_processes(3, "Reference", 8), num_processes(3, None, 2)
    (3, 2)

    Args:
        asked: number asked for; 0 for as many as this process has cores, and for one
            where a graphics card is asked for.
        platform: platform of OpenMM, None where the fastest is taken.
        num_tasks: number of replicas.
    """
    if asked == 0:
        on_cores = platform in (None, "CPU", "Reference")
        asked = _num_cores() if on_cores else 1
    return min(asked, num_tasks)


def _num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    tasks: Iterable[Task],
    processes: int,
    advance: Advance,
    stop: Callable[[], bool],
    failures: list[RunError],
) -> None:
    """Simulates all replicas to their end, or until `stop()` is true.

    Args:
        tasks: replicas; each is asked for when a process is free.
        processes: number of replicas at a time; of one, none is begun.
        advance: function called after each frame, with 1 and the speed.
        stop: function that tells whether to stop.
        failures: list to which the failure of a replica is added; the others go on.
    """
    if processes == 1:
        for task in tasks:
            if stop():
                break
            try:
                _simulate(task, advance, stop)
            except RunError as error:
                failures.append(error)
        return
    children: list[_Child] = []
    try:
        for task in tasks:
            while len(children) >= processes and not stop():
                _collect(children, advance, failures)
            if stop():
                break
            children.append(_start(task))
        _finish(children, advance, stop, failures)
    except BaseException:
        _finish(children, advance, lambda: True, failures)
        raise


def _simulate(task: Task, advance: Advance, stop: Callable[[], bool]) -> None:
    md = load_md()
    with told(md, task.path.parent):
        run_replica(md, *task, advance, stop)


def _start(task: Task) -> _Child:
    # A fork would inherit threads of OpenMM that do not run.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    return _Child(process, ours, task.path)


def _finish(
    children: list[_Child],
    advance: Advance,
    stop: Callable[[], bool],
    failures: list[RunError],
) -> None:
    """Waits for all processes, which are told to stop where `stop()` is true."""
    is_told = False
    while children:
        if stop() and not is_told:
            is_told = True
            for child in children:
                _tell(child.connection, "stop")
        _collect(children, advance, failures)


def _collect(
    children: list[_Child], advance: Advance, failures: list[RunError]
) -> None:
    """Passes on what processes say, and takes those that have ended off the list."""
    for connection in wait([child.connection for child in children], _WAIT):
        (child,) = (c for c in children if c.connection is connection)
        try:
            kind, message = connection.recv()
        except (EOFError, ConnectionError):
            kind, message = "ended", ""
        if kind == "frame":
            advance(1, message)
            continue
        children.remove(child)
        child.process.join()
        connection.close()
        if kind == "refused":
            raise UsageError(message)
        if kind == "failed":
            failures.append(RunError(message))
        elif kind == "ended":
            code = child.process.exitcode
            failures.append(RunError(
                f"{child.path}: its process ended with {code}; frames so far are kept; "
                "run again, with fewer --processes where memory is short"
            ))  # fmt: skip


def _tell(connection: Connection, *message: Any) -> None:
    """Says something to another process, which may have ended."""
    with contextlib.suppress(OSError):
        connection.send(message)


def _work(connection: Connection, task: Task) -> None:
    """Simulates in a process of its own, and says how that went."""
    for number in (signal.SIGINT, signal.SIGTERM):  # The first process tells.
        signal.signal(number, signal.SIG_IGN)
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, stop), daemon=True).start()
    try:
        _simulate(task, lambda _, note: _tell(connection, "frame", note), stop.is_set)
    except RunError as error:
        _tell(connection, "failed", str(error))
    except UsageError as error:
        _tell(connection, "refused", str(error))
    else:
        _tell(connection, "done", "")


def _listen(connection: Connection, stop: threading.Event) -> None:
    """Waits for the word to stop; where the first process is gone, ends at once."""
    try:
        while connection.recv():
            stop.set()
    except (EOFError, OSError):
        os._exit(1)
