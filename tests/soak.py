"""Memory of a command, read while it runs: for soaks."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

PAGES = os.sysconf("SC_PAGE_SIZE")


class Memory(NamedTuple):
    """What a command needed.

    Attributes:
        sizes: resident bytes of it and of its workers, every half second.
        cpu_seconds: CPU time of all of them.
    """

    sizes: list[int]
    cpu_seconds: float

    @property
    def slope(self) -> float:
        """Returns by how much of its mean the memory of the second half grows."""
        second = np.array(self.sizes[len(self.sizes) // 2 :], float)
        grown = np.polyfit(np.linspace(0.0, 1.0, len(second)), second, 1)[0]
        return float(grown / second.mean())


def watch(program: str, *arguments: str) -> Memory:
    """Runs a command to its end; fails unless its status is 0."""
    before = os.times()
    command = [sys.executable, "-m", f"{program}.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        sizes = []
        while process.poll() is None:
            sizes.append(_resident(process.pid))
            time.sleep(0.5)
    assert process.returncode == 0
    after = os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    memory = Memory([size for size in sizes if size], used)
    sys.stdout.write(
        f"{program}: {max(sizes) / 1e6:.0f} MB at most, second half "
        f"{memory.slope:+.2%}, {used:.0f} CPU-s\n"
    )
    return memory


def _resident(pid: int) -> int:
    """Returns resident bytes of a process and its children."""
    try:
        own = PAGES * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return own + sum(_resident(int(child)) for child in children)
