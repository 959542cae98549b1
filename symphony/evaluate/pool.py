"""Worker processes that can be killed one at a time when a task hangs or crashes.

Tasks and answers are JSON objects, one per line, over pipes to `python -m <module>`.
A plain subprocess, unlike one of `multiprocessing`, neither forks a program with
running threads nor imports the caller's main script again.
"""

import collections
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from common.cli import RunError

OnDone = Callable[[int], None]  # Receives the number of tasks done so far.

START_LIMIT = 600.0  # Seconds a worker may take to import what it needs.
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class _Worker:
    """A process, the task it works on, and when it must have answered."""

    def __init__(self, module: str) -> None:
        paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        # Why it did not start, if so; `end` closes it.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )
        self.task: int | None = None
        self.ready = False
        self.received = b""
        self.deadline = time.monotonic() + START_LIMIT

    def send(self, index: int, task: dict, time_limit: float) -> None:
        """Starts a task; a worker that just died is noticed when it is read."""
        self.task = index
        self.deadline = time.monotonic() + time_limit
        try:
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.deadline = time.monotonic()

    def read_line(self) -> bytes | None:
        """Returns a whole line, `b""` at the end of the stream, else None."""
        block = os.read(self.process.stdout.fileno(), 1 << 16)
        if not block:
            return b""
        self.received += block
        if not self.received.endswith(b"\n"):
            return None
        line, self.received = self.received, b""
        return line

    def died_of_time_limit(self) -> bool:
        """Whether the process, which closed its output, used up its CPU time."""
        try:
            return self.process.wait(timeout=1.0) == -signal.SIGPROF
        except subprocess.TimeoutExpired:
            return False

    def end(self) -> None:
        """Kills the process and waits for it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            logging.debug("Worker %d had died before.", self.process.pid)


class _Pool:
    """The state of one `map_tasks`: what waits, who works, what was answered."""

    def __init__(self, module: str, tasks: Sequence[dict], time_limit: float) -> None:
        self.module = module
        self.tasks = tasks
        self.time_limit = time_limit
        self.waiting = collections.deque(range(len(tasks)))
        self.answers: list[dict | str | None] = [None] * len(tasks)
        self.num_done = 0
        self.selector = selectors.DefaultSelector()
        self.workers: set[_Worker] = set()

    def start_worker(self) -> None:
        worker = _Worker(self.module)
        self.workers.add(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def end_worker(self, worker: _Worker) -> None:
        self.workers.discard(worker)
        self.selector.unregister(worker.process.stdout)
        worker.end()

    def store(self, worker: _Worker, answer: dict | str) -> None:
        self.answers[worker.task] = answer
        self.num_done += 1
        worker.task = None

    def replace(self, worker: _Worker, status: str) -> None:
        """Ends a worker that hangs or died, and gives up the task it was at."""
        if not worker.ready:
            worker.errors.seek(0)
            words = worker.errors.read().decode(errors="replace").strip().splitlines()
            raise RunError(
                f"expected a worker process {self.module} to start within "
                f"{START_LIMIT:.0f} s, found {status}{': ' if words else ''}"
                f"{words[-1] if words else ''}"
            )
        if worker.task is not None:
            self.store(worker, status)
        self.end_worker(worker)
        if self.waiting:
            self.start_worker()

    def feed(self, worker: _Worker) -> None:
        if self.waiting:
            index = self.waiting.popleft()
            worker.send(index, self.tasks[index], self.time_limit)
        else:
            self.end_worker(worker)

    def step(self) -> None:
        """Waits for the next answer or deadline and deals with it."""
        nearest = min(worker.deadline for worker in self.workers)
        wait = max(0.0, nearest - time.monotonic())
        for selected, _ in self.selector.select(wait):
            worker = selected.data
            line = worker.read_line()
            if line == b"":
                slow = worker.died_of_time_limit()
                self.replace(worker, "timeout" if slow else "crash")
            elif line is not None:
                if worker.ready:
                    self.store(worker, json.loads(line))
                worker.ready = True
                self.feed(worker)
        for worker in list(self.workers):
            if worker.deadline <= time.monotonic():
                self.replace(worker, "timeout")


def map_tasks(
    module: str,
    tasks: Sequence[dict],
    num_workers: int,
    time_limit: float,
    on_done: OnDone | None = None,
) -> list[dict | str]:
    """Has every task answered by one of several processes.

    Args:
        module: Run as `python -m module`. It writes one line once it is ready, then
            one line per line it reads.
        tasks: JSON objects.
        num_workers: Number of processes.
        time_limit: Seconds of wall-clock time for one task.
        on_done: Called with the number of answers so far.

    Returns:
        In the order of the tasks, the answers, `"timeout"` for a task that was killed
        or whose process ended by SIGPROF, `"crash"` for one whose process died
        otherwise.
    """
    state = _Pool(module, tasks, time_limit)
    try:
        for _ in range(min(num_workers, len(tasks))):
            state.start_worker()
        while state.workers:
            state.step()
            if on_done is not None:
                on_done(state.num_done)
    finally:
        for worker in list(state.workers):
            state.end_worker(worker)
        state.selector.close()
    return state.answers
