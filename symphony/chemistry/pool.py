"""Worker processes that can be killed one at a time when a task hangs or crashes.

`map_tasks` has a list of tasks answered, a `Stream` tasks that come one by one. Tasks
and answers are JSON objects, one per line, over pipes to `python -P -m <module>`, which
finds no module in the working folder; an empty object tells that it is ready. A plain
subprocess, unlike one of `multiprocessing`, neither forks a program with running
threads nor imports the caller's main script again.
"""

import collections
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from absl import logging

from common.commands import environment
from common.errors import RunError

OnDone = Callable[[int], None]  # Receives the number of tasks done so far.

_TASKS_PER_WORKER = 16  # That wait before another worker is started.
_MOST_WAITING = 4096  # Tasks that a stream holds.
START_LIMIT = 600.0  # Seconds a worker may take to import what it needs.
_GREETING = b"{}"  # Of a worker that is ready; what it printed before does not count.


class _Worker:
    """A process, the task it works on, and when it must have answered."""

    def __init__(self, module: str) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # Why it did not start, if so; `end` closes it.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment.of_child() | one_thread,
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
        """Returns the last whole line, `b""` at the end of the stream, else None."""
        block = os.read(self.process.stdout.fileno(), 1 << 16)
        if not block:
            return b""
        self.received += block
        if not self.received.endswith(b"\n"):
            return None
        line, self.received = self.received.splitlines()[-1], b""
        return line or None

    def greets(self, line: bytes) -> bool:
        """Returns whether a worker that was not ready says that it is."""
        was_ready, self.ready = self.ready, self.ready or line.strip() == _GREETING
        return not was_ready and self.ready

    def died_of_time_limit(self) -> bool:
        """Returns true if a process that closed its output used up its CPU time."""
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
    """Waiting tasks, busy workers and answers; `is_open` while tasks may come."""

    def __init__(
        self, module: str, tasks: Sequence[dict], time_limit: float, is_open: bool
    ) -> None:
        self.module = module
        self.tasks = list(tasks)
        self.time_limit = time_limit
        self.is_open = is_open
        self.waiting = collections.deque(range(len(tasks)))
        self.answers: list[dict | str | None] = [None] * len(tasks)
        self.num_done = 0
        self.selector = selectors.DefaultSelector()
        self.workers: set[_Worker] = set()

    def start_worker(self) -> None:
        worker = _Worker(self.module)
        self.workers.add(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def end(self) -> None:
        """Ends every worker."""
        for worker in list(self.workers):
            self.end_worker(worker)
        self.selector.close()

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
        elif self.is_open:
            worker.deadline = math.inf
        else:
            self.end_worker(worker)

    def add(self, task: dict, num_workers: int) -> None:
        """Takes a further task, and a further worker where many tasks wait."""
        self.waiting.append(len(self.tasks))
        self.tasks.append(task)
        self.answers.append(None)
        idle = next((w for w in self.workers if w.ready and w.task is None), None)
        if idle is not None:
            self.feed(idle)
        elif len(self.workers) < min(
            num_workers, math.ceil(len(self.waiting) / _TASKS_PER_WORKER)
        ):
            self.start_worker()

    def step(self, longest: float = math.inf) -> None:
        """Waits for the next answer or deadline and deals with it.

        Args:
            longest: longest time to wait, in s.
        """
        nearest = min(worker.deadline for worker in self.workers)
        wait = min(longest, max(0.0, nearest - time.monotonic()))
        for selected, _ in self.selector.select(wait):
            worker = selected.data
            line = worker.read_line()
            if line == b"":
                slow = worker.died_of_time_limit()
                self.replace(worker, "timeout" if slow else "crash")
            elif line is not None and worker.greets(line):
                self.feed(worker)
            elif line is not None and worker.ready:
                self.store(worker, json.loads(line))
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
        module: name of a module, run as `python -m module`. It writes one line once
            it is ready, then one line per line it reads.
        tasks: JSON objects.
        num_workers: number of processes.
        time_limit: wall-clock time for one task, in s.
        on_done: callback with the number of answers so far.

    Returns:
        In the order of the tasks, the answers, `"timeout"` for a task that was killed
        or whose process ended by SIGPROF, `"crash"` for one whose process died
        otherwise.
    """
    state = _Pool(module, tasks, time_limit, is_open=False)
    try:
        for _ in range(min(num_workers, len(tasks))):
            state.start_worker()
        while state.workers:
            state.step()
            if on_done is not None:
                on_done(state.num_done)
    finally:
        state.end()
    return state.answers


class Stream:
    """Has tasks answered that come one by one, while the caller does something else.

    Answers are those of `map_tasks`. It is a context manager: leaving it ends the
    workers.
    """

    def __init__(self, module: str, num_workers: int, time_limit: float) -> None:
        self._pool = _Pool(module, [], time_limit, is_open=True)
        self._num_workers = num_workers
        self._num_given = 0

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.end()

    def submit(self, task: dict) -> None:
        """Takes a task; where very many wait already, waits for some answers."""
        self._pool.add(task, self._num_workers)
        while len(self._pool.waiting) > _MOST_WAITING:
            self._pool.step()

    def ready(self) -> Iterator[dict | str]:
        """Yields the answers that have come, in the order of the tasks."""
        if self._pool.workers:
            self._pool.step(longest=0.0)
        answers, tasks = self._pool.answers, self._pool.tasks
        while self._num_given < len(answers):
            answer = answers[self._num_given]
            if answer is None:
                return
            answers[self._num_given] = tasks[self._num_given] = None
            self._num_given += 1
            yield answer

    def rest(self) -> Iterator[dict | str]:
        """Waits for and yields the answers that are still due."""
        while self._num_given < len(self._pool.answers):
            yield from self.ready()
            if self._pool.num_done < len(self._pool.answers):
                self._pool.step()
