"""What a disturbance does to a command: kills, signals, a full disk, a second writer.

    python -m benchmarks.reliability --num_kills=5

Each command is disturbed and run again until it ends; then its files are compared with
those of an undisturbed run, byte by byte. Of a run's metrics the records of validation
count, without their times, and of checkpoints the checksum of the parameters. A full
disk needs the rights to mount a file system in memory; without them its column is
empty. Prints one row a command.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SMALL, LARGE = "400k", "200m"
"""Sizes of the disk that fills up, and of the one that has room again."""


class Command(NamedTuple):
    """A command that goes on where it was stopped.

    Attributes:
        words: program, verb and flags.
        output: flag of the output, and its name.
        read: words of a command that reads the output while it is written.
    """

    words: tuple[str, ...]
    output: tuple[str, str]
    read: tuple[str, ...]


COMMANDS = {
    "symphony train": Command(
        ("symphony", "train", "--config=tiny", "--config.train.num_steps=60",
         "--config.train.checkpoint_every=5"),
        ("--workdir", "run"),
        ("symphony", "package", "--workdir=run", "--output=packed"),
    ),
    "symphony sample": Command(
        ("symphony", "sample", "--checkpoint=qm9_cpu", "--num_molecules=200"),
        ("--output", "mine.sdf"),
        ("symphony", "evaluate", "--samples=mine.sdf", "--reference=qm9-sample",
         "--conventions=edm", "--num_perceived=0", "--output=report"),
    ),
    "symphony refine": Command(
        ("symphony", "refine", "--molecules=../some.npz"),
        ("--output", "mine.sdf"),
        ("symphony", "evaluate", "--samples=mine.sdf", "--reference=qm9-sample",
         "--conventions=edm", "--num_perceived=0", "--output=report"),
    ),
    "equijump train": Command(
        ("equijump", "train", "--config=tiny", "--config.train.num_steps=200",
         "--config.train.checkpoint_every=10"),
        ("--workdir", "run"),
        ("equijump", "package", "--workdir=run", "--output=packed"),
    ),
    "equijump sample": Command(
        ("equijump", "sample", "--num_jumps=2000", "--replicas=20", "--chunk=50"),
        ("--output", "mine"),
        ("equijump", "evaluate", "--trajectory=mine/ala2_0.xtc", "--output=report",
         "--num_resamples=2"),
    ),
    "equijump simulate": Command(
        ("equijump", "simulate", "--sequence=A", "--caps", "--length=0.05",
         "--equilibration=1", "--platform=Reference", "--solvent=none"),
        ("--output", "mine"),
        ("equijump", "evaluate", "--trajectory=mine/*.xtc", "--output=report",
         "--num_resamples=2"),
    ),
}  # fmt: skip


def write_molecules(path: Path, count: int = 200) -> None:
    """Writes some packaged molecules."""
    from symphony import data
    from symphony.data.npz import write_npz

    molecules, _ = data.read_molecules("qm9-sample", (1, 6, 7, 8, 9), max_atoms=29)
    write_npz(data.choose_molecules(molecules, count), path)


def start(words: tuple[str, ...], folder: Path) -> subprocess.Popen:
    """Starts a command in a folder."""
    program, *rest = words
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"{program}.cli", *rest],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Returns the status of a process and its last line on standard error."""
    _, errors = process.communicate()
    lines = errors.strip().splitlines() or [""]
    if any(line.startswith("Traceback") for line in lines):
        return process.returncode, "TRACEBACK"
    return process.returncode, lines[-1]


def contents(folder: Path) -> dict[str, str]:
    """Returns the checksum of each file that a command wrote, without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and "checkpoints" not in path.parts:
            found[name] = hashlib.sha256(_without_times(path)).hexdigest()
    if (folder / "checkpoints").is_dir():
        from common.runs import checkpoints

        found["checkpoints"] = checkpoints.load_stored(folder, "latest").checksum
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "metrics.jsonl":  # Training records are means since the last one.
        lines = [line for line in data.split(b"\n") if b"validation_" in line]
        return re.sub(rb'"(cpu|wall)_seconds": [\d.]+', b"", b"\n".join(lines))
    if path.suffix == ".json":
        return re.sub(rb'"(elapsed|seconds|workdir|created)": [^,}]+', b"", data)
    return data


def output_of(command: Command, folder: Path) -> dict[str, str]:
    """Returns the checksums of a command's output in a folder."""
    name = command.output[1]
    if Path(name).suffix:
        stem = Path(name).stem
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.glob(f"{stem}.*"))
        }
    return contents(folder / name)


def words_of(command: Command) -> tuple[str, ...]:
    """Returns the words of a command, its output among them."""
    return (*command.words, "=".join(command.output))


def again(command: Command, folder: Path) -> str:
    """Runs a command until it ends; returns what came of it."""
    status, line = finish(start(words_of(command), folder))
    return "" if status == 0 else f"status {status}: {line}"


def verdict(command: Command, folder: Path, expected: dict[str, str]) -> str:
    """Runs a command to its end and compares its output with an undisturbed one."""
    failed = again(command, folder)
    found = output_of(command, folder)
    differing = {
        name
        for name in expected.keys() | found.keys()
        if expected.get(name) != found.get(name)
    }
    return failed or (f"differs: {', '.join(sorted(differing))}" if differing else "")


def kills(command: Command, folder: Path, seconds: float, number: int) -> str:
    """Kills a command at random times, each time started again."""
    rng = random.Random(number)
    for _ in range(number):
        process = start(words_of(command), folder)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return ""


def stopped(command: Command, folder: Path, seconds: float, number: int) -> str:
    """Asks a command to stop by SIGTERM."""
    process = start(words_of(command), folder)
    time.sleep(0.7 * seconds)
    process.send_signal(signal.SIGTERM)
    _, line = finish(process)
    return line if line == "TRACEBACK" else ""


def two_writers(command: Command, folder: Path, seconds: float, number: int) -> str:
    """Starts a command twice at a time: one goes on, the other is refused."""
    both = [start(words_of(command), folder) for _ in range(2)]
    ends = sorted(map(finish, both))
    refused = [status for status, _ in ends] == [0, 2] and "in use" in ends[1][1]
    return "" if refused else f"two writers: {ends}"


def beside(command: Command, folder: Path, seconds: float, number: int) -> str:
    """Reads an output while it is written."""
    process = start(words_of(command), folder)
    time.sleep(0.8 * seconds)
    status, line = finish(start(command.read, folder))
    finish(process)
    clean = status in (0, 2) and line != "TRACEBACK"
    return "" if clean else f"reader: status {status}: {line}"


def full_disk(command: Command, folder: Path, seconds: float, number: int) -> str:
    """Runs a command on a disk that fills up, which then gets room again."""
    with _mounted(folder):
        status, line = finish(start(words_of(command), folder))
        if status not in (0, 3) or line == "TRACEBACK":
            return f"full disk: status {status}: {line}"
        _mount(folder, f"remount,size={LARGE}")
        expected = json.loads((folder.parent / "expected.json").read_text("utf-8"))
        note = "" if status == 3 else " (it never filled)"
        return verdict(command, folder, expected) or f"as undisturbed{note}"


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount(folder, f"size={SMALL}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


DISTURBANCES: dict[str, Callable[[Command, Path, float, int], str]] = {
    "SIGKILL": kills,
    "SIGTERM": stopped,
    "two writers": two_writers,
    "reader beside": beside,
}


def disturb(name: str, command: Command, root: Path, number: int) -> list[str]:
    """Returns a row of the table."""
    calm = root / "calm"
    calm.mkdir()
    again(command, calm)  # Compiles.
    shutil.rmtree(calm)
    calm.mkdir()
    began = time.monotonic()
    failed = again(command, calm)
    seconds = time.monotonic() - began
    if failed:
        raise SystemExit(f"{name}: {failed}")
    expected = output_of(command, calm)
    (root / "expected.json").write_text(json.dumps(expected), "utf-8")
    row = [name, f"{seconds:.0f}"]
    for place, function in DISTURBANCES.items():
        folder = root / place.replace(" ", "_")
        folder.mkdir()
        told = function(command, folder, seconds, number)
        row.append(told or verdict(command, folder, expected) or "as undisturbed")
    return [*row, _full(command, root, seconds)]


def _full(command: Command, root: Path, seconds: float) -> str:
    folder = root / "full"
    folder.mkdir()
    try:
        return full_disk(command, folder, seconds, 0)
    except subprocess.CalledProcessError:
        return "–"


def main() -> None:
    """Disturbs the commands that are named, all where none is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_kills", type=int, default=5)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS))
    given = parser.parse_args()
    rows = [["command", "seconds", *DISTURBANCES, "full disk"]]
    for name in given.commands:
        with tempfile.TemporaryDirectory() as folder:
            write_molecules(Path(folder, "some.npz"))
            rows.append(disturb(name, COMMANDS[name], Path(folder), given.num_kills))
        sys.stdout.write("| " + " | ".join(rows[-1]) + " |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
