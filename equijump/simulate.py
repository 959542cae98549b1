"""Makes trajectories to train on: `equijump simulate --sequence=AAQAA --output=data`.

Flags are checked here, and replicas run one after the other, by
`equijump.simulation`. OpenMM is behind `equijump.md`, imported when the flags are good;
the files are those of `equijump.replicas`.
"""

import argparse
import contextlib
import hashlib
import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from common.commands import cli
from common.commands.reading import line_of
from common.errors import RunError, UsageError
from common.runs.training import StopOnSignal
from equijump import replicas
from equijump.simulation import (
    Plan,
    Simulation,
    begin,
    run_replica,
    set_up,
    write_topology,
)

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SOLVENTS = ("obc2", "gbn2", "none")
STARTS = ("extended", "helix")
FORMAT_VERSION = 1


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Checks what can be checked without OpenMM.

    Raises:
        UsageError: A flag has a value that it cannot have.
    """
    _check_source(arguments)
    _check_numbers(arguments)
    step = arguments.step / 1000  # ps
    of_step, of_spacing = (
        f"--step={arguments.step:g} fs", f"--spacing={arguments.spacing:g} ps"
    )  # fmt: skip
    count = lambda name: _multiple(
        f"--{name}", getattr(arguments, name), step, "ps", of_step
    )
    return Plan(
        stem=replicas.stem_of(arguments.sequence, arguments.pdb, arguments.caps),
        steps_per_frame=count("spacing"),
        equilibration_steps=count("equilibration"),
        num_frames=_multiple(
            "--length", arguments.length, arguments.spacing / 1000, "ns", of_spacing
        ),
        spacing=arguments.spacing,
    )


def _check_source(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` unless there is one molecule, and flags that belong to it."""
    if (arguments.sequence is None) == (arguments.pdb is None):
        found = "neither" if arguments.pdb is None else "both"
        raise UsageError(f"expected --sequence or --pdb, found {found}")
    if arguments.sequence is not None:
        _check_sequence(arguments.sequence)
    elif not Path(arguments.pdb).is_file():
        raise UsageError(f"--pdb: expected a file, found none at {arguments.pdb}")
    elif arguments.caps:
        raise UsageError("--caps: expected --sequence beside it, found --pdb")
    if arguments.replace_nonstandard and arguments.pdb is None:
        raise UsageError("--replace_nonstandard: expected --pdb beside it, found none")
    if arguments.permittivity != 1.0 and arguments.solvent != "none":
        raise UsageError(
            "--permittivity: expected --solvent=none beside it, found "
            f"{arguments.solvent}, which has its own"
        )


def _check_numbers(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for a number out of range, and for one residue alone."""
    positive = ("temperature", "friction", "step", "spacing", "length", "permittivity")
    for name in positive:
        value = getattr(arguments, name)
        if not 0.0 < value < math.inf:
            raise UsageError(f"--{name}: expected a positive number, found {value}")
    if not 0.0 <= arguments.equilibration < math.inf:
        raise UsageError(
            f"--equilibration: expected 0 or more, found {arguments.equilibration}"
        )
    if arguments.replicas < 1:
        raise UsageError(f"--replicas: expected 1 or more, found {arguments.replicas}")
    if not 0 <= arguments.seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {arguments.seed}")
    if arguments.pdb is None and len(arguments.sequence) == 1 and not arguments.caps:
        raise UsageError(
            "--sequence: one uncapped residue has no parameters: give --caps"
        )


def _check_sequence(sequence: str) -> None:
    if not sequence:
        raise UsageError("--sequence: expected one letter or more, found none")
    for place, letter in enumerate(sequence, start=1):
        if letter not in LETTERS:
            raise UsageError(
                f"--sequence: expected letters of {LETTERS}, found {letter!r} at "
                f"place {place}"
            )


def _multiple(flag: str, value: float, part: float, unit: str, of: str) -> int:
    """Returns how many parts make up a value; both have the same unit."""
    count = round(value / part)
    if abs(value / part - count) > 1e-6 * max(count, 1):
        raise UsageError(f"{flag}: expected a multiple of {of}, found {value:g} {unit}")
    return count


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what decides the trajectories, as JSON values."""
    flags = {k: v for k, v in sorted(vars(arguments).items()) if k != "output"}
    if not arguments.replace_nonstandard:  # Of which older records do not know.
        del flags["replace_nonstandard"]
    described = {"format": FORMAT_VERSION, "flags": flags}
    if arguments.pdb is not None:
        contents = Path(arguments.pdb).read_bytes()
        described["pdb_sha256"] = hashlib.sha256(contents).hexdigest()
    return described


def load_md() -> ModuleType:
    """Imports `equijump.md`, and with it OpenMM.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module("equijump.md")
    except ImportError as error:
        raise UsageError(
            "expected OpenMM, pdbfixer and PeptideBuilder, found no "
            f"{error.name}: pip install 'symphony-equijump[md]'"
        ) from error


def seed_of(seed: int, replica: int) -> int:
    """Returns the seed of one replica; OpenMM takes 0 for none at all.

    >>> seed_of(0, replica=1) == seed_of(0, replica=1) != seed_of(0, replica=2)
    True
    """
    (state,) = np.random.SeedSequence((seed, replica)).generate_state(1)
    return 1 + int(state) % (2**31 - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump simulate` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    plan = make_plan(arguments)
    folder, total = Path(arguments.output), arguments.replicas * plan.num_frames
    for name in ("simulate.json", f"{plan.stem}.pdb"):
        cli.check_output(folder / name)
    cli.check_apart(folder / f"{plan.stem}.pdb", arguments.pdb)
    wanted = describe(arguments)
    found = replicas.find(folder, wanted, plan.stem)
    paths = [folder / f"{plan.stem}_{r}.xtc" for r in range(arguments.replicas)]
    replicas.check_states(paths)
    topology = folder / f"{plan.stem}.pdb"
    is_whole = found is not None and topology.is_file()
    if is_whole and replicas.num_done(paths) >= total:
        sys.stdout.write(f"{folder}: all {total} frames are done\n")
        return 0
    md = load_md()
    begun = [replicas.read_begun(path) is not None for path in paths]
    with _told(md, folder):
        ready = set_up(md, arguments, found, minimises=not all(begun))
    sys.stdout.write(f"platform: {ready.engine.platform}\n")
    with cli.made_folder(folder), cli.locked(folder), StopOnSignal() as stop:
        # Another command may have begun in the folder since.
        found = replicas.find(folder, wanted, plan.stem)
        if found is None:
            begin(folder, plan, wanted, ready, md)
        else:
            replicas.write_record(folder, found | wanted)
        if not topology.is_file():
            write_topology(topology, ready, md)
        with _told(md, folder):
            _run(md, ready, plan, paths, arguments.seed, stop)
    done = replicas.num_done(paths)
    if done < total:
        raise RunError(
            f"{folder}: stopped after {done} of {total} frames; run again, it goes on"
        )
    sys.stdout.write(f"{folder}: {total} frames, topology in {plan.stem}.pdb\n")
    return 0


@contextlib.contextmanager
def _told(md: ModuleType, folder: Path) -> Iterator[None]:
    """Turns errors of OpenMM into one that says what is kept and what may help."""
    try:
        yield
    except md.OpenMMException as error:
        raise RunError(
            f"{folder}: OpenMM could not go on ({line_of(error)}); frames so far are "
            "kept; a smaller --step or --platform=Reference may help"
        ) from error


def _run(
    md: ModuleType,
    ready: Simulation,
    plan: Plan,
    paths: Sequence[Path],
    seed: int,
    stop: StopOnSignal,
) -> None:
    """Simulates all replicas, one after the other."""
    total, done = len(paths) * plan.num_frames, replicas.num_done(paths)
    with cli.progress(total, "simulating", "frames", completed=done) as advance:
        for replica, path in enumerate(paths):
            if not stop.requested:
                run_replica(
                    md, ready, plan, path, seed_of(seed, replica), advance,
                    lambda: stop.requested,
                )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "equijump simulate",
        "Makes trajectories with OpenMM. Run again after an interruption, it goes on.",
    )
    add = parser.add_argument
    number = lambda name, default, told: add(
        name, type=float, default=default, help=told
    )
    add("--sequence", help="one letter for each residue")
    add("--caps", action="store_true", help="ACE before the sequence, NME after it")
    add("--start", choices=STARTS, default="extended", help="how a sequence is built")
    add("--pdb", help="protein to simulate instead; solvent and ligands are removed")
    add(
        "--replace_nonstandard",
        action="store_true",
        help="replace modified residues of --pdb by those that they come from",
    )
    add("--force_field", default="ff14SB", help="name, or an XML file of OpenMM")
    add("--solvent", choices=SOLVENTS, default="obc2", help="implicit one, or none")
    number("--permittivity", 1.0, "relative, without solvent")
    number("--temperature", 300.0, "K")
    number("--friction", 1.0, "1/ps")
    number("--step", 2.0, "fs")
    number("--spacing", 1.0, "ps from frame to frame")
    number("--length", 1.0, "ns of each replica")
    number("--equilibration", 100.0, "ps before the first frame, not written")
    add("--replicas", type=int, default=1, help="how many trajectories")
    add("--seed", type=int, default=0, help="of velocities and noise")
    add("--platform", help="of OpenMM; the fastest one here if not given")
    add(
        "--heavy",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write no hydrogens",
    )
    add("--output", required=True, help="folder")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("equijump simulate", main))
