"""Files of rollouts: one trajectory a replica, their topology, what decided them.

The trajectories grow together, a chunk at a time, and `state.npz` is their commit log:
a chunk is there once the state, replaced in one piece, has it. Where an earlier command
was killed, what the files hold beyond the state is cut off, and the next chunk follows.
Only H5 cannot be cut. A state is there before the first frame, so that trajectories
without one have lost it. Positions are in Å here and in nm at MDTraj's door.
"""

import contextlib
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from common.commands import cli, reading, shards
from common.errors import RunError, UsageError
from common.runs.weights import check_same
from equijump import rollstate
from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.topology import System, to_topology
from equijump.rollout import Chunk, State
from equijump.rollstate import Saved

FORMAT_VERSION = 1
FORMATS = ("xtc", "dcd", "h5", "pdb")
FREE = frozenset(("checkpoint", "dynamics", "outside_training", "num_jumps"))
"""What of a header may differ from an earlier command's: it is said of weights, or how
many jumps a part shall have."""

_TITLE_BYTES = 80
_REMARK = b"REMARKS Written by equijump sample".ljust(_TITLE_BYTES)


class Output(NamedTuple):
    """The folder of a rollout, opened to append to.

    Attributes:
        folder: folder of the rollout.
        header: JSON values that decide the rollout, as for `open_output`.
        paths: trajectory of each replica.
        topology: topology of MDTraj.
        frame_time: time between frames, in ps.
        every: number of jumps from one frame to the next.
        num_jumps: number of jumps done before.
        state: state behind those jumps; None where not even the starts are written.
    """

    folder: Path
    header: dict[str, Any]
    paths: list[Path]
    topology: Any
    frame_time: float
    every: int
    num_jumps: int
    state: State | None


def paths_of(folder: Path, header: dict[str, Any]) -> list[Path]:
    """Returns the trajectory of each replica, those of a part by their own numbers.

    >>> settings = {"system": "ala2", "format": "xtc", "replicas": 2}
    >>> [path.name for path in paths_of(Path("out"), {"settings": settings})]
    ['ala2_0.xtc', 'ala2_1.xtc']
    """
    settings = header["settings"]
    name, suffix = settings["system"], settings["format"]
    numbers = shards.part_of(header, settings["replicas"])
    return [folder / f"{name}_{number}.{suffix}" for number in numbers]


def files_of(folder: Path, header: dict[str, Any]) -> list[Path]:
    """Returns all that a rollout writes, but for `sample.json`.

    >>> settings = {"system": "ala2", "format": "xtc", "replicas": 1}
    >>> [path.name for path in files_of(Path("out"), {"settings": settings})]
    ['ala2.pdb', 'state.npz', 'ala2_0.xtc']
    """
    names = f"{header['settings']['system']}.pdb", "state.npz"
    return [*(folder / name for name in names), *paths_of(folder, header)]


@contextlib.contextmanager
def open_output(
    folder: Path, header: dict[str, Any], system: System, overwrite: bool
) -> Iterator[Output]:
    """Opens a folder, behind what an earlier command completed.

    Args:
        folder: folder of the rollout, made if it does not exist.
        header: JSON values that decide the rollout; `settings` has system, format,
            frame_time, every and replicas.
        system: system that is rolled out.
        overwrite: true to replace what is there.

    Raises:
        UsageError: The folder cannot be written, or what is there was not made with the
            same header, or cannot be gone on with.
    """
    settings, paths = header["settings"], paths_of(folder, header)
    header = json.loads(json.dumps({"format_version": FORMAT_VERSION, **header}))
    if folder.is_dir() or not folder.exists():
        for path in (folder / "sample.json", *files_of(folder, header)):
            cli.check_output(path)
    if not overwrite:
        _find(folder, header, system)  # Before anything is made.
    with cli.made_folder(folder), cli.locked(folder):
        # Another command may have added to it before the lock.
        saved = None if overwrite else _find(folder, header, system)
        output = Output(
            folder=folder,
            header=header,
            paths=paths,
            topology=to_topology(system),
            frame_time=settings["frame_time"],
            every=settings["every"],
            num_jumps=0 if saved is None else int(saved.num_jumps),
            state=None if saved is None else saved.state,
        )
        if saved is None:
            _remove_former(folder)
            write_header(output)
        _truncate(output, saved)
        if saved is None:
            rollstate.begin(folder, len(paths), system)
        elif saved.num_jumps > rollstate.NOTHING_DONE:
            _restore_topology(output)
        yield output


def _restore_topology(output: Output) -> None:
    """Writes a topology that was deleted anew, with a trajectory's first frame."""
    path = files_of(output.folder, output.header)[0]
    if not path.exists():
        import mdtraj

        first = mdtraj.load_frame(str(output.paths[0]), 0, top=output.topology)
        write_topology(path, output.topology, first.xyz[0] * ANGSTROM_PER_NM)


def write_header(
    output: Output,
    result: dict[str, Any] | None = None,
    confidence: dict[str, Any] | None = None,
) -> None:
    """Writes `sample.json`: what decides the rollout, and what came of it so far."""
    found = {"result": result, "confidence": confidence}
    write_record(output.folder, {**output.header, **found})


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes `sample.json`."""
    with cli.atomic_path(folder / "sample.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def write_starts(
    stem: Path, system: System, starts: Float32[np.ndarray, "num_starts num_atoms 3"]
) -> None:
    """Writes frames, in Å, as `<stem>.xtc`, and the first as `<stem>.pdb` too."""
    topology = to_topology(system)
    write_topology(stem.with_name(f"{stem.name}.pdb"), topology, starts[0])
    with cli.atomic_path(stem.with_name(f"{stem.name}.xtc")) as path:
        positions = starts / np.float32(ANGSTROM_PER_NM)
        _write_xtc(path, topology, positions, np.arange(len(starts)), 0)


def write_topology(
    path: Path, topology: Any, positions: Float32[np.ndarray, "num_atoms 3"]
) -> None:
    """Writes one frame, in Å, as a PDB file."""
    import mdtraj

    with cli.atomic_path(path) as partial:
        mdtraj.Trajectory(positions / ANGSTROM_PER_NM, topology).save_pdb(str(partial))


def check_name(name: str) -> None:
    """Raises `UsageError` for the name of a system that files cannot have."""
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise UsageError(
            f"--name: expected letters, digits and any of _.+-, found {name!r}"
        )


def append(output: Output, chunk: Chunk) -> None:
    """Adds the frames of a chunk to all trajectories, and then the state.

    Raises:
        RunError: A file cannot be written; the chunks before are complete.
    """
    suffix = output.paths[0].suffix
    first = chunk.num_jumps // output.every - len(chunk.frames) + 1
    positions = chunk.frames / np.float32(ANGSTROM_PER_NM)
    times = output.frame_time * np.arange(first, first + len(positions))
    try:
        if first == 0:
            path = files_of(output.folder, output.header)[0]
            write_topology(path, output.topology, chunk.frames[0, 0])
        for replica, path in enumerate(output.paths):
            _WRITERS[suffix](path, output.topology, positions[:, replica], times, first)
        sizes = [path.stat().st_size for path in output.paths]
        sums = [
            rollstate.sum_of(*each) for each in zip(output.paths, sizes, strict=True)
        ]
        arrays = map(np.asarray, (chunk.num_jumps, sizes, *chunk.state, sums))
        rollstate.write_state(output.folder, Saved(*arrays))
    except (OSError, RuntimeError, RunError) as error:  # The last is of `atomic_path`.
        cause = error.__cause__ if isinstance(error, RunError) else error
        complete = f"frames before {times[0]:g} ps are complete"
        raise RunError(
            f"{output.folder}: cannot be written ({reading.line_of(cause or error)}); "
            f"{complete if first else 'no frame is complete yet'}"
        ) from cause


def _find(folder: Path, header: dict[str, Any], system: System) -> Saved | None:
    """Returns the state to go on from, None where no frame is complete."""
    paths = paths_of(folder, header)
    if not (folder / "sample.json").exists():
        for path in (folder, *files_of(folder, header)):
            if path.exists() and (path != folder or not path.is_dir()):
                raise UsageError(
                    f"{path}: expected no file, or one with a sample.json; give "
                    "--overwrite or another --output"
                )
        return None
    (begun, _), saved = read_record(folder), None
    # The checkpoint may be spelt otherwise: the checksum of its weights decides.
    check_same(folder, begun, header, FREE)
    if (folder / "state.npz").exists():
        saved = rollstate.read_state(folder, len(paths), system)
    else:
        rollstate.check_none_complete(paths)
    if saved is None or saved.num_jumps == rollstate.NOTHING_DONE:
        return None
    rollstate.check_files(paths, saved)
    return saved


def read_record(folder: Path) -> tuple[dict[str, Any], Any]:
    """Returns what decided an earlier rollout, and how far to trust it."""
    what = "sample.json and state.npz of an earlier command"
    try:
        begun = reading.read_json(folder / "sample.json", what)
        begun.pop("result")
        return begun, begun.pop("confidence", None)
    except (UsageError, KeyError) as error:
        told = error if isinstance(error, UsageError) else f"{folder}: expected {what}"
        raise UsageError(f"{told}; give --overwrite or another --output") from error


def _remove_former(folder: Path) -> None:
    """Removes the trajectories of an earlier rollout that is written over."""
    (folder / "state.npz").unlink(missing_ok=True)
    try:
        settings = reading.read_json(folder / "sample.json")["settings"]
        system, suffix = (re.escape(settings[name]) for name in ("system", "format"))
    except (UsageError, LookupError, TypeError):
        return  # Of another origin; what has our names is replaced.
    for path in folder.iterdir():
        if re.fullmatch(rf"{system}_\d+\.{suffix}", path.name):
            path.unlink()


def _truncate(output: Output, saved: Saved | None) -> None:
    """Cuts the files behind the last complete chunk, and clears what a kill left."""
    for pattern in (*(f".part.{suffix}" for suffix in FORMATS), ".partial-[0-9]*-*"):
        for torn in output.folder.glob(pattern):
            torn.unlink()
    for replica, path in enumerate(output.paths):
        if saved is None:
            path.unlink(missing_ok=True)
        elif path.suffix != ".h5":
            with path.open("rb+") as file:
                file.truncate(int(saved.sizes[replica]))
                if path.suffix == ".dcd":
                    _set_dcd_count(file, output.num_jumps // output.every + 1)


def _write_xtc(path: Path, _: Any, positions: Any, times: Any, first: int) -> None:
    from mdtraj.formats import XTCTrajectoryFile

    box = np.zeros((len(positions), 3, 3), np.float32)
    steps = np.arange(first, first + len(positions), dtype=np.int32)

    def write(part: Path) -> None:
        with XTCTrajectoryFile(str(part), "w") as file:
            file.write(positions, times.astype(np.float32), steps, box)

    _append_bytes(path, _written(path, write))


def _write_dcd(path: Path, _: Any, positions: Any, times: Any, first: int) -> None:
    """Adds frames, their header left out, and then their number to the file's own."""
    from mdtraj.formats import DCDTrajectoryFile

    def write(part: Path) -> None:
        with DCDTrajectoryFile(str(part), "w") as file:
            file.write(positions * ANGSTROM_PER_NM)

    contents = _with_remark(_written(path, write))
    if first > 0:
        start = 0
        for _record in range(3):  # Of Fortran: sizes before and behind.
            start += 8 + struct.unpack_from("i", contents, start)[0]
        contents = contents[start:]
    _append_bytes(path, contents)
    with path.open("rb+") as file:
        _set_dcd_count(file, first + len(positions))


def _with_remark(contents: bytes) -> bytes:
    """Returns a DCD file whose title has no date: equal rollouts are equal files."""
    place = contents.find(b"REMARKS Created")
    if place < 0:
        return contents
    return contents[:place] + _REMARK + contents[place + _TITLE_BYTES :]


def _set_dcd_count(file: Any, num_frames: int) -> None:
    """Writes the number of frames and of steps into the header of a DCD file."""
    for place in (8, 20):
        file.seek(place)
        file.write(struct.pack("i", num_frames))


def _write_pdb(
    path: Path, topology: Any, positions: Any, times: Any, first: int
) -> None:
    """Adds models, without the lines that stand before and behind all of them."""
    from mdtraj.formats import PDBTrajectoryFile

    def write(part: Path) -> None:
        with PDBTrajectoryFile(str(part), "w") as file:
            for number, frame in enumerate(positions, start=first):
                file.write(frame * ANGSTROM_PER_NM, topology, number % 10_000)

    models = re.search(rb"^MODEL .*^ENDMDL\n", _written(path, write), re.M | re.S)
    _append_bytes(path, models.group())


def _write_h5(
    path: Path, topology: Any, positions: Any, times: Any, first: int
) -> None:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(path), "a" if first > 0 else "w") as file:
        file.write(positions, time=times)
        if first == 0:
            file.topology = topology


_WRITERS: dict[str, Callable[..., None]] = {
    ".xtc": _write_xtc,
    ".dcd": _write_dcd,
    ".h5": _write_h5,
    ".pdb": _write_pdb,
}


def _written(path: Path, write: Callable[[Path], None]) -> bytes:
    """Returns what MDTraj writes to a file of its own."""
    part = path.with_name(f".part{path.suffix}")
    try:
        write(part)
        return part.read_bytes()
    finally:
        part.unlink(missing_ok=True)


def _append_bytes(path: Path, contents: bytes) -> None:
    with path.open("ab") as file:
        file.write(contents)
