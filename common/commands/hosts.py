"""Several processes of one training: how they join, and how they end together.

A launcher (Slurm, Open MPI, Kubernetes, Cloud TPU) starts the same command once for
each process. JAX detects the first four; `JAX_COORDINATOR_ADDRESS`,
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` name the processes where it does not, and go
before what it finds. The first process alone writes files and messages.

A process cannot go on without its peers. JAX aborts the program where it finds one
missing, with a trace of the stack; here that is one line and exit status 3.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from absl import logging

from common.commands import cli
from common.errors import RunError, UsageError

TIMEOUT = 300
"""Seconds that processes wait for each other at the start."""

NAMES = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Variables of the environment that name the processes of a run."""

_OF_PEERS = re.compile(
    r"gloo|nccl|coordination|distributed service|heartbeat|barrier|UNAVAILABLE|"
    r"DEADLINE_EXCEEDED|connection (closed|reset)",
    re.IGNORECASE,
)
"""What JAX says where a peer is missing."""


class Place(NamedTuple):
    """Which process of how many this is; None for what JAX finds by itself.

    Attributes:
        address: host and port at which the first process waits for the others.
        num_processes: number of the processes of the run, more than one.
        process: number of this process, from 0.
    """

    address: str | None
    num_processes: int
    process: int | None


def find() -> Place | None:
    """Returns the place that the environment tells of; None for a single process.

    >>> find()

    Raises:
        UsageError: It tells of several processes, but not who they are.
    """
    address, count, process = os.environ.get(NAMES[0]), *map(_number, NAMES[1:])
    if count == 1:
        return None
    launcher = _launcher()
    if launcher is not None:
        count = _asked(launcher.get_process_count) if count is None else count
        return None if count == 1 else Place(address, count, process)
    # Open MPI from version 5 on tells size and rank, but no address.
    count = _number("OMPI_COMM_WORLD_SIZE") if count is None else count
    process = _number("OMPI_COMM_WORLD_RANK") if process is None else process
    place = address, count, process
    if count == 1 or address is count is None:
        return None
    missing = [name for name, value in zip(NAMES, place, strict=True) if value is None]
    if missing:
        raise UsageError(
            f"expected {', '.join(NAMES)} for a run of several processes, found no "
            f"{', '.join(missing)}; JAX_NUM_PROCESSES=1 is a run of one"
        )
    return Place(address, count, process)


def _number(name: str) -> int | None:
    """Returns a whole number of the environment, if it is there."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise UsageError(f"{name}: expected a whole number, found {text!r}")
    return None if text is None else int(text)


def _launcher() -> Any:
    """Returns the launcher that JAX detects, if any."""
    from jax._src import clusters  # JAX has no public name for its detection.

    def is_present(kind: Any) -> bool:
        if kind.opt_in_only_method:
            return False
        alone = "JOB_COMPLETION_INDEX" not in os.environ  # No part of an indexed job.
        return not (kind is clusters.K8sCluster and alone) and kind.is_env_present()

    with warnings.catch_warnings(action="ignore"):  # On the package `kubernetes`.
        kinds = clusters.ClusterEnv._cluster_types
        return _asked(lambda: next(filter(is_present, kinds), None))


def _asked(question: Callable[[], Any]) -> Any:
    """Returns an answer of JAX's detection, which may have to ask other computers."""
    try:
        return question()
    except Exception as error:  # Of Kubernetes, of the network, of a garbled variable.
        raise UsageError(
            f"expected a launcher that tells of its processes, found {error}; "
            f"{', '.join(NAMES)} name them without it"
        ) from error


@contextlib.contextmanager
def joined(command: str, timeout: int = TIMEOUT) -> Iterator[None]:
    """Makes this process one of a run's, if there are several, while the block runs.

    It must come before JAX touches a device. Processes but the first fall silent.

    >>> with joined("symphony train"):
    ...     print("alone")
    alone

    Args:
        command: name before messages.
        timeout: seconds to wait for the other processes.

    Raises:
        UsageError: The environment does not say who the processes are.
    """
    place = find()
    if place is None:
        yield
        return
    import jax
    from jax.experimental import multihost_utils

    _end.command = command
    _end.lost = (
        f"expected {place.num_processes} processes within {timeout} s, found some "
        "missing; start them together, or JAX_NUM_PROCESSES=1 for a run of one"
    )
    _catch_aborts()
    with ending_together():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(*place, initialization_timeout=timeout)
        cli.check_platform()
        if jax.process_index() > 0:
            _fall_silent()
        # Gloo gives processes 30 s to meet: here, before one has more to do.
        multihost_utils.sync_global_devices(command)
        _end.lost = (
            f"lost one of the {place.num_processes} processes of this run; start all "
            "again, it goes on from its latest checkpoint"
        )
        yield
        jax.distributed.shutdown()


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends a process of several at once where the block raises, with one line.

    Its peers learn of it when its connections close. What would be waited for on the
    way out, such as a checkpoint that all of them write, may never come.

    >>> with ending_together():
    ...     print("alone, nothing is changed")
    alone, nothing is changed
    """
    try:
        yield
    except BaseException as error:
        if _end.command is None:
            raise
        if _is_of_peers(error):
            error = RunError(_end.lost)
        _end.leave(partial(cli.tell, _end.command, error))


def _is_of_peers(error: BaseException) -> bool:
    """Returns whether an error, or what it was made of, is JAX's on a missing peer."""
    is_ours = isinstance(error, UsageError | RunError | KeyboardInterrupt)
    said = error.__cause__ if is_ours else error
    return said is not None and _OF_PEERS.search(str(said)) is not None


class _End:
    """The end of a process of several, which its main thread and JAX's may ask for.

    Attributes:
        command: name before the message; None in a run of one process.
        lost: message on a peer that is missing.
    """

    def __init__(self) -> None:
        self.command: str | None = None
        self.lost = ""
        self._begun = threading.Lock()

    def leave(self, tell: Callable[[], int]) -> None:
        """Ends the process with the status that `tell` returns; the first call does."""
        if not self._begun.acquire(blocking=False):
            time.sleep(TIMEOUT)  # The other thread ends the process.
        status = tell()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_end = _End()


def _catch_aborts() -> None:
    """Has the process end with one line and status 3 where JAX would abort it.

    Python's messages go to standard error as before. What libraries write there is kept
    back, and shown only if they abort for another reason than a peer.
    """
    sys.stderr.flush()
    kept, ours = tempfile.TemporaryFile(), os.dup(2)  # noqa: SIM115
    os.dup2(kept.fileno(), 2)
    sys.stderr = os.fdopen(ours, "w", buffering=1, errors=sys.stderr.errors)
    logging.get_absl_handler().python_handler.setStream(sys.stderr)

    def tell() -> int:
        kept.seek(0)
        text = kept.read().decode(errors="replace")
        if _OF_PEERS.search(text):
            return cli.tell(_end.command, RunError(_end.lost))
        return cli.tell(_end.command, RunError(f"aborted: {text.strip()[-2000:]}"))

    # Python's own handlers run between instructions, which an abort never reaches.
    _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _end.leave(tell)))
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal(signal.SIGABRT, _handlers[-1])


_handlers: list[Any] = []
"""What C holds a pointer to."""


def _fall_silent() -> None:
    """Leaves messages to the first process; errors are still told."""
    logging.set_verbosity(logging.ERROR)
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
