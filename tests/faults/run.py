"""Runs a command in a forked child, and tells what came of it.

The children come from a server process that has imported every command and started no
device: a case takes the time of its own work.
"""

import dataclasses
import importlib
import multiprocessing
import os
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

COMMANDS = [
    f"symphony.{verb}"
    for verb in (
        "train",
        "sample",
        "score",
        "refine",
        "edit",
        "complete",
        "properties",
        "evaluate",
        "view",
        "package",
    )
] + [
    f"equijump.{verb}"
    for verb in (
        "train",
        "sample",
        "evaluate",
        "view",
        "simulate",
        "inspect",
        "package",
    )
]
PIPE = b"a pipe"
_MEASURES = ["symphony.evaluate.measure", "equijump.evaluate.measure", "rdkit.Chem"]
_LOG = re.compile(r"[IWE]\d{4} ")
_MEMORY = 16 << 30
"""Bytes of address space: JAX reserves more than it uses."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A command with one thing wrong.

    Attributes:
        fault: what is wrong, in a word or two.
        argv: program, verb and flags; paths are those of `files`.
        files: contents by name; None stands for a folder, `PIPE` for a pipe.
        warns: words of the warning with which the command may go on; none where empty.
    """

    fault: str
    argv: tuple[str, ...]
    files: dict[str, bytes | None] = dataclasses.field(repr=False)
    warns: str = ""


class Outcome(NamedTuple):
    """What came of a case.

    Attributes:
        status: exit status; below 0 the signal that ended the child.
        told: lines on standard error that are no log lines.
        log: log lines.
        changed: names of the files that were changed, made or removed.
    """

    status: int
    told: list[str]
    log: list[str]
    changed: list[str]


def run(case: Case) -> Outcome:
    """Runs a case in a folder of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*COMMANDS, *_MEASURES])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "case")
        _write(place, case.files)
        before = _contents(place)
        child = context.Process(target=_child, args=(case.argv, folder))
        child.start()
        child.join()
        lines = Path(folder, "stderr").read_text("utf-8", "replace").splitlines()
        after = _contents(place)
        changed = [
            name
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    told = [line for line in lines if line.strip() and not _LOG.match(line)]
    log = [line for line in lines if _LOG.match(line)]
    return Outcome(child.exitcode, told, log, changed)


def _write(place: Path, files: dict[str, bytes | None]) -> None:
    place.mkdir()
    for name, contents in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if contents is None:
            path.mkdir()
        elif contents is PIPE:
            os.mkfifo(path)
        else:
            path.write_bytes(contents)


def _contents(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
    }


def _child(argv: tuple[str, ...], folder: str) -> None:
    """Becomes the command: its folder, its output, bounds on time and memory."""
    os.chdir(Path(folder, "case"))
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        stream.flush()
        opened = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, stream.fileno())
    program, *words = argv
    try:
        status = importlib.import_module(f"{program}.cli").main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
