"""The worker process of `symphony.evaluate.pool`: reads tasks, writes perceptions.

One JSON object per line in either direction. The answers leave by a private copy of
standard output; descriptor 1 itself leads nowhere, for C code that writes to it. A
task may name a limit of CPU time, beyond which the system ends the process.
"""

import json
import os
import signal
import sys
from typing import IO

import numpy as np

from symphony.evaluate import bonds


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers every line of `requests` by one line, after a first empty answer."""
    answers.write("{}\n")
    answers.flush()
    for line in requests:
        task = json.loads(line)
        numbers = np.asarray(task["atomic_numbers"], np.uint8)
        positions = np.asarray(task["positions"], np.float64).reshape(-1, 3)
        # RDKit heeds no Python signal handler; SIGPROF's default action ends it.
        signal.setitimer(signal.ITIMER_PROF, task["time_limit"])
        perception = bonds.describe_molecule(numbers, positions, task["preset"])
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(json.dumps(perception._asdict()) + "\n")
        answers.flush()


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    _nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(_nowhere, 1)
    os.dup2(_nowhere, 2)
    serve(sys.stdin, _answers)
