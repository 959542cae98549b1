"""The worker process of `symphony.evaluate.pool`: reads tasks, writes perceptions.

One JSON object per line in either direction. The answers leave by a private copy of
standard output; descriptor 1 itself leads nowhere, for C code that writes to it.
"""

import json
import os
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
        perception = bonds.describe_molecule(numbers, positions, task["preset"])
        answers.write(json.dumps(perception._asdict()) + "\n")
        answers.flush()


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    _nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(_nowhere, 1)
    os.dup2(_nowhere, 2)
    serve(sys.stdin, _answers)
