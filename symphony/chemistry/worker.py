"""The worker process of `symphony.chemistry.pool`: reads tasks, writes answers.

A task names a molecule and a convention. The answer is what the convention perceives,
or, where the task has `properties`, a record of an SDF. One JSON object per line in
either direction. The answers leave by a private copy of standard output; descriptor 1
itself leads nowhere, for C code that writes to it. A task may name a limit of CPU time,
beyond which the system ends the process.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from symphony.chemistry import bonds


def serve(
    requests: IO[str],
    answers: IO[str],
    answer_of: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Answers every line of `requests` by one line, after a first empty answer.

    The answer begins a line of its own, whatever was printed before.

    Args:
        requests: tasks, a line each.
        answers: where their answers go.
        answer_of: function of a task.
    """
    answers.write("\n{}\n")
    answers.flush()
    for line in requests:
        task = json.loads(line)
        # RDKit heeds no Python signal handler; SIGPROF's default action ends it.
        signal.setitimer(signal.ITIMER_PROF, task["time_limit"])
        answer = answer_of(task)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def perceive(task: dict[str, Any]) -> dict[str, Any]:
    """Answers a task with what a convention perceives, or a record of an SDF."""
    numbers = np.asarray(task["atomic_numbers"], np.uint8)
    positions = np.asarray(task["positions"], np.float64).reshape(-1, 3)
    molecule, charge = (numbers, positions, task["preset"]), task.get("charge", 0)
    if "properties" in task:
        words = task["name"], task["properties"]
        return bonds.to_sdf(*molecule, *words, charge)._asdict()
    return bonds.describe_molecule(*molecule, charge)._asdict()


def run(answer_of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Serves the process that started this one, until it closes the pipe."""
    # Ctrl-C is for the process that has the tasks; its end closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    serve(sys.stdin, answers, answer_of)


if __name__ == "__main__":
    run(perceive)
