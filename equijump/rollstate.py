"""State of a rollout, `state.npz`: the commit log of its trajectories.

It is replaced in one piece behind each chunk, and is there before the first frame:
trajectories without one have lost it. It is never trusted in its shapes.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from common.commands import cli, reading
from common.errors import UsageError
from equijump.data.topology import System
from equijump.rollout import State

_HEAD_BYTES, _SUMMED_BYTES = 24, 1 << 15
NOTHING_DONE = -1
"""Jumps of a state of which not even the starts are written."""


class Saved(NamedTuple):
    """What `state.npz` holds: jumps done, bytes of each file, and a `State`.

    There are `NOTHING_DONE` jumps before the first frame. `sums` are those of
    `sum_of`; version 0.2.0 and before wrote none.
    """

    num_jumps: Int[np.ndarray, ""]
    sizes: Int[np.ndarray, " num_replicas"]
    cloud: Float32[np.ndarray, "num_replicas num_nodes num_slots 3"]
    num_draws: Int[np.ndarray, " num_replicas"]
    num_accepted: Int[np.ndarray, " num_replicas"]
    broken_at: Int[np.ndarray, " num_replicas"]
    sums: Int[np.ndarray, " num_replicas"] | None = None

    @property
    def state(self) -> State:
        """Returns what the rollout goes on from."""
        return State(self.cloud, self.num_draws, self.num_accepted, self.broken_at)


def sum_of(path: Path, size: int) -> int:
    """Returns the CRC-32 of the ends of a file's first `size` bytes.

    It leaves out the count of frames in the header of a DCD file, which grows before
    the state does.
    """
    with path.open("rb") as file:
        file.seek(_HEAD_BYTES)
        head = file.read(max(min(_SUMMED_BYTES, size - _HEAD_BYTES), 0))
        start = max(size - _SUMMED_BYTES, _HEAD_BYTES)
        file.seek(start)
        return zlib.crc32(file.read(max(size - start, 0)), zlib.crc32(head))


def begin(folder: Path, num_replicas: int, system: System) -> None:
    """Writes the state before the first frame."""
    zeros = np.zeros(num_replicas, np.int64)
    cloud = np.zeros((num_replicas, *system.slot_atoms.shape, 3), np.float32)
    write_state(
        folder, Saved(np.array(NOTHING_DONE), zeros, cloud, zeros, zeros, zeros)
    )


def write_state(folder: Path, saved: Saved) -> None:
    """Replaces the state."""
    arrays = {k: v for k, v in saved._asdict().items() if v is not None}
    with cli.atomic_path(folder / "state.npz") as path:
        np.savez(path, **arrays)


def read_state(folder: Path, num_replicas: int, system: System | None) -> Saved:
    """Returns the state of an earlier command, of the shapes of the system.

    Args:
        folder: folder of the rollout.
        num_replicas: number of replicas.
        system: molecule; None where it is not known, and any is right.
    """
    each, path = (num_replicas,), folder / "state.npz"
    shapes = dict.fromkeys(Saved._fields, each)
    shapes |= {"num_jumps": ()}

    def choose(headers: Mapping[str, reading.Header]) -> tuple[str, ...]:
        cloud = headers.get("cloud")
        slots = cloud.shape[1:3] if system is None and cloud else ()
        slots = slots if system is None else system.slot_atoms.shape
        shapes["cloud"] = (*each, *slots, 3)
        names = [name for name in shapes if name in headers or name != "sums"]
        for name in names:
            shape = shapes[name]
            kinds = "f" if name == "cloud" else "iu"
            found = headers.get(name)
            if found is None or found.shape != shape or found.dtype.kind not in kinds:
                told = "none" if found is None else f"{found.dtype} of {found.shape}"
                raise ValueError(f"{name} of {shape} expected, {told} found")
        return tuple(names)

    what = "sample.json and state.npz of an earlier command"
    try:
        arrays = reading.read_arrays(path, what, choose)
        arrays["cloud"] = arrays["cloud"].astype(np.float32)
        saved = Saved(**arrays)
        counts = (saved.sizes, *saved.state[1:])
        if saved.num_jumps < NOTHING_DONE or any(np.any(c < 0) for c in counts):
            raise UsageError(f"{path}: expected {what}, found negative counts")
        if not np.isfinite(saved.cloud).all():
            raise UsageError(f"{path}: expected {what}, found positions not finite")
    except UsageError as error:
        raise UsageError(f"{error}; give --overwrite or another --output") from error
    return saved


def check_none_complete(paths: list[Path]) -> None:
    """Raises `UsageError` for trajectories that have lost their state."""
    for path in paths:
        if path.exists() and path.stat().st_size:
            raise UsageError(
                f"{path}: expected state.npz beside it, found none: its frames are "
                "whole, but cannot be gone on with; give --overwrite to replace them, "
                "or another --output"
            )


def check_files(paths: list[Path], saved: Saved) -> None:
    """Raises `UsageError` for trajectories that cannot be gone on with."""
    if paths[0].suffix == ".h5":
        raise UsageError(
            f"{paths[0].parent}: has a rollout in H5, which cannot be gone on with; "
            "give --overwrite or another --output"
        )
    check_whole(paths, saved)


def check_whole(paths: list[Path], saved: Saved) -> None:
    """Raises `UsageError` for trajectories that are not as a command left them."""
    for replica, path in enumerate(paths):
        size = int(saved.sizes[replica])
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise UsageError(
                f"{path}: expected at least the {size} bytes that state.npz tells "
                f"of, found {found}; give --overwrite"
            )
        if saved.sums is not None and saved.sums[replica] != sum_of(path, size):
            raise UsageError(
                f"{path}: expected the frames of an earlier command as it left them, "
                "found others; give --overwrite or another --output"
            )
