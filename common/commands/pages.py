"""Memory in pages of 2 MiB, where Linux gives them to a program that asks.

XLA gives the large buffers of a training step back after each step, and takes them anew
in the next one. In pages of 4 KiB the kernel then hands over tens of thousands of pages
a step, one by one: a quarter to a third of the CPU time of a large step. The C library
asks for larger pages if its environment says so, but it looks there only when a process
starts. So the process starts again, before it has done anything.
"""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
SINCE = 2, 35  # Of the GNU C library.
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def take_huge_pages() -> None:
    """Starts this process again with huge pages, once, where that gains something.

    Nothing happens where `GLIBC_TUNABLES` is set, even to nothing: somebody has chosen.
    Nor does it once JAX is imported, or in a process with threads: work could be lost.

    >>> import jax  # As here.
    >>> take_huge_pages()
    """
    begun = "jax" in sys.modules or threading.active_count() > 1 or sys.gettrace()
    if begun or not sys.executable or not gains(os.environ):
        return
    os.environ[TUNABLES] = HUGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def gains(environment: Mapping[str, str]) -> bool:
    """Returns whether huge pages are to be had, are not taken, and nobody has chosen.

    >>> gains({"GLIBC_TUNABLES": ""})
    False

    Args:
        environment: environment of the process.
    """
    if TUNABLES in environment or not SWITCH.is_file():
        return False
    return "[madvise]" in SWITCH.read_text() and _libc() >= SINCE


def _libc() -> tuple[int, ...]:
    """Returns the version of the GNU C library, nothing for another one."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, OSError, ValueError):
        return ()
