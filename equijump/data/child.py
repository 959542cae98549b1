"""A child process that reads trajectories, so that a crash there ends no run.

One child serves all files of a process; it starts with the first and ends with it.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import RunError, UsageError

_PROGRAM = Path(__file__).with_name("reader.py")
_lock = threading.RLock()
_children: dict[int, subprocess.Popen] = {}
"""Child of each process by its number: a fork does not share that of its parent."""


class Refused(Exception):
    """What the reader says of a file that it does not read.

    Attributes:
        names: names inside a container in HDF5, by which it may be known.
    """

    def __init__(self, text: str, names: list[str]) -> None:
        super().__init__(text)
        self.names = names


def start() -> None:
    """Starts the child unless there is one; it is ready about a second later."""
    with _lock:
        child = _children.get(os.getpid())
        if child is None or child.poll() is not None:
            _children[os.getpid()] = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )


@atexit.register
def stop() -> None:
    """Ends the child, if there is one."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def ask(path: Path, **request: Any) -> Iterator[tuple[dict, list[np.ndarray]]]:
    """Yields the answers to a request about a file.

    A crash that earlier files may have prepared is tried again in a child of its own.

    Raises:
        Refused: The reader raised an error.
        UsageError: It crashed.
        RunError: It was killed.
    """
    with _lock:
        is_fresh = os.getpid() not in _children
        for attempt in range(2):
            start()
            answered = False
            try:
                for answer in _answers({**request, "path": os.path.abspath(path)}):
                    answered = True
                    yield answer
                return
            except EOFError:
                status = _children[os.getpid()].wait()
                stop()
                if status == -signal.SIGKILL:
                    raise RunError(
                        f"{path}: the process that reads it was killed, as happens "
                        "when memory is short; run again with more"
                    ) from None
                if attempt or answered or is_fresh:
                    raise UsageError(_crash(path, status)) from None


def _answers(request: dict[str, Any]) -> Iterator[tuple[dict, list[np.ndarray]]]:
    child = _children[os.getpid()]
    try:
        _tell(child, json.dumps(request))
        while not (answer := _receive(child.stdout))[0].get("end"):
            if "error" in answer[0]:
                _receive(child.stdout)
                raise Refused(answer[0]["error"], answer[0]["names"])
            try:
                yield answer
            except GeneratorExit:
                try:
                    _tell(child, "enough")
                    _receive(child.stdout)
                except (BrokenPipeError, EOFError):
                    stop()
                raise
            _tell(child, "more")
    except (BrokenPipeError, json.JSONDecodeError):
        raise EOFError from None
    except (KeyboardInterrupt, MemoryError):
        stop()  # What it still says would be taken for the next answer.
        raise


def _tell(child: subprocess.Popen, line: str) -> None:
    child.stdin.write(f"{line}\n".encode())
    child.stdin.flush()


def _receive(file: BinaryIO) -> tuple[dict, list[np.ndarray]]:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer, arrays = json.loads(line), []
    for kind, shape in answer.pop("arrays"):
        array = np.empty(shape, kind)
        if file.readinto(memoryview(array).cast("B")) < array.nbytes:
            raise EOFError
        arrays.append(array)
    return answer, arrays


def _crash(path: Path, status: int) -> str:
    reason = f"status {status}"
    if status < 0:
        known = [s.name for s in signal.Signals if s == -status]
        reason = f"signal {known[0] if known else -status}"
    return (
        f"{path}: expected a whole trajectory, found damage at which the reader ends "
        f"({reason}); write it anew, e.g. by gmx trjconv or mdconvert from its source"
    )
