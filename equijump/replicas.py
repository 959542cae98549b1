"""Files of simulated replicas: trajectories, states, and what was asked for.

A trajectory is an XTC file with a state beside it: the state has the number of frames
and bytes up to which the trajectory counts, and OpenMM's checkpoint there. What a
command that was killed wrote beyond is cut off, and the next frame follows. A state is
there before the first frame: a trajectory without one has lost it.
"""

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands import cli, shards
from common.commands.reading import DAMAGE, line_of, parse_json, read_json
from common.errors import UsageError

_LONGEST_NAME = 60  # Letters of a sequence in the names of files.
_MAY_GROW = ("length", "replicas")
_BESIDE_FLAGS = ("format", "pdb_sha256", shards.RECORD)
_NEWER = {
    "replace_nonstandard": True,
    "model": "all-atom",
    "contacts": "gaussian",
    "units": "real",
    "epsilon": 2.0,
    "hydrogen_mass": 0.0,
}
"""Flags of which older records do not know, and what was done then."""


class State(NamedTuple):
    """How far a replica has come: complete frames, their bytes, OpenMM's checkpoint."""

    num_frames: int
    num_bytes: int
    checkpoint: bytes


NOTHING_DONE = State(0, 0, b"")
"""State of a replica before its first frame."""


def stem_of(sequence: str | None, pdb: str | None, caps: bool) -> str:
    """Returns the stem of the names of files; of a long sequence the first letters.

    >>> stem_of("AAQ", None, caps=True), stem_of(None, "in/2JOF.pdb", caps=False)
    ('ace_aaq_nme', '2JOF')
    """
    if pdb is not None:
        return Path(pdb).stem
    stem = sequence.lower()[:_LONGEST_NAME]
    return f"ace_{stem}_nme" if caps else stem


def pdb_path(name: str) -> Path:
    """Returns the path of a PDB file, or of the packaged one of that name.

    >>> pdb_path("mine.pdb").name, pdb_path("cln025").is_file()
    ('mine.pdb', True)
    """
    packaged = Path(__file__).parent / "packaged" / f"{name}.pdb"
    is_name = name == Path(name).name and not Path(name).exists()
    return packaged if is_name and packaged.is_file() else Path(name)


def state_of(path: Path) -> Path:
    """Returns the path of the state that belongs to a trajectory.

    >>> state_of(Path("ace_a_nme_0.xtc")).name
    'ace_a_nme_0.state'
    """
    return path.with_suffix(".state")


def find(folder: Path, wanted: Mapping[str, Any], stem: str) -> dict[str, Any] | None:
    """Returns what an earlier command wrote about itself, None where there was none.

    Raises:
        UsageError: It was asked for something else, or its files are of another origin.
    """
    path = folder / "simulate.json"
    if not path.exists():
        name = glob.escape(stem)
        patterns = f"{name}.pdb", f"{name}_*.xtc", f"{name}_*.state"
        foreign = [found for p in patterns for found in sorted(folder.glob(p))]
        if foreign:
            raise UsageError(
                f"{foreign[0]}: expected simulate.json beside it; give another --output"
            )
        return None
    found = read_json(path, "what an earlier command wrote")
    try:
        for name, was, now in _differing(found, wanted):
            raise UsageError(
                f"{folder}: was begun with {name} = {was}, found {now}; give another "
                "--output"
            )
        _check(found)
    except DAMAGE as error:
        raise UsageError(
            f"{path}: expected what an earlier command wrote, found {line_of(error)}; "
            "give another --output"
        ) from error
    return found


def _check(record: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a record without what a command goes on with."""
    kinds = {"platform": str, "threads": int}
    for name, kind in kinds.items():
        if type(record.get(name)) is not kind:
            raise ValueError(f"{record.get(name)!r} as {name}")
    if record["threads"] < 0:
        raise ValueError(f"{record['threads']} threads")


def _differing(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Lists name, former value and present value of what keeps a run from going on."""
    was = found["flags"] | {name: found.get(name) for name in _BESIDE_FLAGS}
    now = wanted["flags"] | {name: wanted.get(name) for name in _BESIDE_FLAGS}
    return [
        (f"--{name}" if name in wanted["flags"] else name, was.get(name), now[name])
        for name in now
        if was.get(name, _NEWER.get(name)) != now[name]
        and not (name in _MAY_GROW and now[name] > was[name])
    ]


def read_state(path: Path) -> State | None:
    """Returns the state of a replica, None of one that was not begun.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a_0.state")
    ...     write_state(path, State(3, 120, b"checkpoint"))
    ...     print(read_state(path).num_frames, read_state(Path(folder, "b_0.state")))
    3 None
    """
    if not path.exists():
        return None
    try:
        head, _, checkpoint = path.read_bytes().partition(b"\n")
        numbers = parse_json(head)
        checksum = numbers.pop("sha256", None)
        if numbers.keys() != {"num_frames", "num_bytes"}:
            raise ValueError(f"{', '.join(map(str, numbers)) or 'nothing'}")
        for name, value in numbers.items():
            if type(value) is not int or not 0 <= value < 2**63:
                raise ValueError(f"{name} of {str(value)[:40]!r}")
        state = State(**numbers, checkpoint=checkpoint)
        if checksum not in (None, _checksum(state)):  # Older states have none.
            raise ValueError("one that was changed since it was written")
        if state.num_frames > 0 and not checkpoint:
            raise ValueError(f"none of OpenMM after {state.num_frames} frames")
    except DAMAGE as error:
        raise UsageError(
            f"{path}: expected a state, found {line_of(error)}; give another --output"
        ) from error
    return state


def _checksum(state: State) -> str:
    numbers = f"{state.num_frames} {state.num_bytes}\n".encode()
    return hashlib.sha256(numbers + state.checkpoint).hexdigest()


def read_begun(path: Path) -> State | None:
    """Returns the state of a trajectory that has one to go on from.

    >>> read_begun(Path("a_0.xtc")) is None
    True
    """
    state = read_state(state_of(path))
    return state if state is not None and state.checkpoint else None


def check_states(paths: Sequence[Path]) -> None:
    """Raises `UsageError` for a trajectory that has lost its state, or frames.

    >>> check_states([Path("a_0.xtc")])
    """
    for path in paths:
        state = read_state(state_of(path))
        if state is not None:
            _check_size(path, state.num_bytes)
        if path.exists() and path.stat().st_size and not state_of(path).exists():
            raise UsageError(
                f"{path}: expected {state_of(path).name} beside it, found none: its "
                "frames are whole, but cannot be gone on with; give another --output"
            )


def write_state(path: Path, state: State) -> None:
    """Replaces the state of a replica."""
    numbers = {"num_frames": state.num_frames, "num_bytes": state.num_bytes}
    head = {**numbers, "sha256": _checksum(state)}
    with cli.atomic_path(path) as partial:
        partial.write_bytes(json.dumps(head).encode() + b"\n" + state.checkpoint)


def truncate(path: Path, num_bytes: int) -> None:
    """Cuts off what a trajectory holds beyond its state.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a_0.xtc")
    ...     _ = path.write_bytes(b"whole, half")
    ...     truncate(path, 5)
    ...     print(path.read_bytes())
    b'whole'

    Raises:
        UsageError: It holds less.
    """
    if _check_size(path, num_bytes) > num_bytes:
        with path.open("r+b") as file:
            file.truncate(num_bytes)


def _check_size(path: Path, num_bytes: int) -> int:
    """Returns the bytes of a trajectory, which are as many as its state has or more."""
    size = path.stat().st_size if path.exists() else 0
    if size < num_bytes:
        raise UsageError(
            f"{path}: expected at least the {num_bytes} bytes that its state tells of, "
            f"found {size}; give another --output"
        )
    return size


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `simulate.json`."""
    with cli.atomic_path(folder / "simulate.json") as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def num_done(paths: Sequence[Path]) -> int:
    """Returns how many frames some trajectories have by their states."""
    states = map(read_state, map(state_of, paths))
    return sum(state.num_frames for state in states if state is not None)
