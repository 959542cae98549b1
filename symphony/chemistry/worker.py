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
from typing import IO

import numpy as np

from symphony.chemistry import bonds


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers every line of `requests` by one line, after a first empty answer.

    The answer begins a line of its own, whatever was printed before.
    """
    answers.write("\n{}\n")
    answers.flush()
    for line in requests:
        task = json.loads(line)
        numbers = np.asarray(task["atomic_numbers"], np.uint8)
        positions = np.asarray(task["positions"], np.float64).reshape(-1, 3)
        # RDKit heeds no Python signal handler; SIGPROF's default action ends it.
        signal.setitimer(signal.ITIMER_PROF, task["time_limit"])
        molecule = numbers, positions, task["preset"]
        if "properties" in task:
            answer = bonds.to_sdf(*molecule, task["name"], task["properties"])
        else:
            answer = bonds.describe_molecule(*molecule)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(json.dumps(answer._asdict()) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Ctrl-C is for the process that has the tasks; its end closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _answers = os.fdopen(os.dup(1), "w")
    _nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(_nowhere, 1)
    os.dup2(_nowhere, 2)
    serve(sys.stdin, _answers)
