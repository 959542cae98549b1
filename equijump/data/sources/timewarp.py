"""Timewarp: small peptides at irregular times, in npz beside a PDB file.

Klein et al. 2023, arXiv:2302.01170. `<SEQ>-traj-arrays.npz` has `step`, `time` in ps
and `positions` in nm, of all atoms of `<SEQ>-traj-state0.pdb`, whose own positions are
no molecule. Frames come in bursts, or with a jitter: their times decide, never their
numbers. All of it is at 310 K.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import ml_collections
import numpy as np
from jaxtyping import Float64

from common.commands.reading import Header, read_arrays, refusing
from common.errors import UsageError
from equijump.data import divide, files, store
from equijump.data.frames import Trajectory
from equijump.data.sources import packing

TEMPERATURE = 310.0
"""K, of all simulations."""

STEP = 5e-4
"""ps, of an integration step."""

ARRAYS, STATE = "-traj-arrays.npz", "-traj-state0.pdb"

_WHAT = "arrays of Timewarp (step, time, positions)"


def read(pattern: str, data: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    """Yields the trajectory of each file.

    Args:
        pattern: files, as `4AA-large/train/*-traj-arrays.npz`, or a folder.
        data: group `data` of a config: `select` is read.
    """
    found = packing.matching(pattern, (ARRAYS, ".npz"))
    yield from packing.trajectories("timewarp", (_job(p, data.select) for p in found))


def _job(path: Path, select: str) -> packing.Job:
    topology = path.with_name(path.name.replace(ARRAYS, STATE))
    if topology == path or not topology.is_file():
        wanted = f"a name that ends in {ARRAYS}" if topology == path else topology.name
        raise UsageError(
            f"{path}: expected {wanted} with its topology beside it, found none"
        )
    pack = partial(_pack, path, topology, select)
    return packing.Job(path, (topology,), select, pack)


def _pack(path: Path, topology: Path, select: str, writer: store.Writer) -> None:
    arrays = read_arrays(path, _WHAT, _choose)
    with refusing(path, _WHAT):
        times = times_of(arrays)
    loaded, positions = files.load_topology(topology), arrays["positions"]
    if positions.shape[1] != loaded.n_atoms:
        raise UsageError(
            f"{path}: expected the {loaded.n_atoms} atoms of {topology.name}, found "
            f"{positions.shape[1]}"
        )
    rising = np.append(True, times[1:] > np.maximum.accumulate(times)[:-1])
    writer.skipped["frames that are not later than those before"] += int(
        (~rising).sum()
    )
    times, scale = times[rising], np.float32(files.ANGSTROM_PER_NM)
    positions = positions[rising]
    parts = (scale * part for part in packing.in_parts(positions))
    some = scale * positions[[0, len(positions) // 2, -1]]
    system = packing.first_system(loaded, some, str(path), select, writer)
    found = packing.add(writer, str(path), system, parts)
    known, name = {"temperature": TEMPERATURE}, path.name.removesuffix(ARRAYS)
    writer.end(system, divide.pieces(name, 0.0, found, known, times))


def _choose(headers: Mapping[str, Header]) -> Iterable[str]:
    """Returns the arrays to read, whose shapes fit together."""
    shape = headers["positions"].shape
    if len(shape) != 3 or shape[2] != 3 or not shape[0]:
        raise ValueError(f"positions of shape {shape}")
    clocks = [name for name in ("step", "time") if name in headers]
    if not clocks:
        raise ValueError(f"no step and no time, but {', '.join(headers)}")
    for name in clocks:
        if headers[name].shape != shape[:1]:
            raise ValueError(f"{name} of shape {headers[name].shape}")
    return {"positions", *clocks}


def times_of(
    arrays: Mapping[str, np.ndarray],
) -> Float64[np.ndarray, " num_frames"]:
    """Returns the times of frames in ps, by their steps where they have them.

    >>> times_of({"step": np.array([10000, 10001, 10010])}).round(4).tolist()
    [5.0, 5.0005, 5.005]

    Args:
        arrays: arrays of a file, with `step`, `time`, or both.

    Raises:
        ValueError: Steps and times disagree, or are no numbers.
    """
    clocks = arrays.keys() & {"step", "time"}
    known = {name: np.asarray(arrays[name], np.float64) for name in clocks}
    times = known["step"] * STEP if "step" in known else known["time"]
    if not np.isfinite(times).all():
        raise ValueError("times that are no numbers")
    if {"step", "time"} <= known.keys():
        apart = np.ptp(known["time"] - times)
        if not apart <= 0.01 * np.ptp(times) + STEP:
            raise ValueError(f"times that are not {STEP:g} ps for each step")
    return times
