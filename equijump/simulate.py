"""Makes trajectories to train on: `equijump simulate --sequence=AAQAA --output=data`.

Flags are checked here, and replicas run one after the other. OpenMM is behind
`equijump.md`, imported when the flags are good; the files are those of
`equijump.replicas`.
"""

import argparse
import contextlib
import hashlib
import importlib
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from common import __version__
from common.commands import cli
from common.commands.reading import line_of
from common.errors import RunError, UsageError
from common.runs.training import StopOnSignal
from equijump import replicas
from equijump.replicas import State

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SOLVENTS = ("obc2", "gbn2", "none")
STARTS = ("extended", "helix")
FORMAT_VERSION = 1

SAVE_SECONDS = 10.0
"""Between two states of a replica: what a command that is killed may lose."""

_PACKAGES = ("openmm", "pdbfixer", "PeptideBuilder", "numpy")


class Plan(NamedTuple):
    """What is simulated, in steps.

    Attributes:
        stem: stem of the names of files.
        steps_per_frame: number of steps from one frame to the next.
        equilibration_steps: number of steps before the first frame.
        num_frames: number of frames of each replica.
        spacing: time between frames, in ps.
    """

    stem: str
    steps_per_frame: int
    equilibration_steps: int
    num_frames: int
    spacing: float


class Simulation(NamedTuple):
    """What all replicas have in common.

    Attributes:
        molecule: molecule with all atoms, minimised if a replica begins from it.
        written: atoms of a frame, as a molecule.
        kept: indices of those atoms in `molecule`.
        system: system of OpenMM.
        settings: settings of the integrator.
        engine: platform and version of what computes.
        energy: energy of `molecule` in kJ/mol; None where it was not minimised.
    """

    molecule: Any
    written: Any
    kept: list[int]
    system: Any
    settings: Any
    engine: Any
    energy: float | None


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Checks what can be checked without OpenMM.

    Raises:
        UsageError: A flag has a value that it cannot have.
    """
    if (arguments.sequence is None) == (arguments.pdb is None):
        found = "neither" if arguments.pdb is None else "both"
        raise UsageError(f"expected --sequence or --pdb, found {found}")
    if arguments.sequence is not None:
        _check_sequence(arguments.sequence)
    else:
        if not Path(arguments.pdb).is_file():
            raise UsageError(f"--pdb: expected a file, found none at {arguments.pdb}")
        if arguments.caps:
            raise UsageError("--caps: expected --sequence beside it, found --pdb")
    if arguments.replace_nonstandard and arguments.pdb is None:
        raise UsageError("--replace_nonstandard: expected --pdb beside it, found none")
    if arguments.permittivity != 1.0 and arguments.solvent != "none":
        raise UsageError(
            "--permittivity: expected --solvent=none beside it, found "
            f"{arguments.solvent}, which has its own"
        )
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
    step, spacing = f"--step={arguments.step:g} fs", f"--spacing={arguments.spacing:g}"
    return Plan(
        stem=replicas.stem_of(arguments.sequence, arguments.pdb, arguments.caps),
        steps_per_frame=_multiple(
            "--spacing", arguments.spacing, arguments.step / 1000, "ps", step
        ),
        equilibration_steps=_multiple(
            "--equilibration", arguments.equilibration, arguments.step / 1000, "ps",
            step,
        ),
        num_frames=_multiple(
            "--length", arguments.length, arguments.spacing / 1000, "ns",
            f"{spacing} ps",
        ),
        spacing=arguments.spacing,
    )  # fmt: skip


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


def set_up(
    md: ModuleType,
    arguments: argparse.Namespace,
    found: Mapping[str, Any] | None,
    minimises: bool,
) -> Simulation:
    """Builds and completes the molecule.

    Args:
        md: `equijump.md`.
        arguments: arguments of the command.
        found: files of `equijump.replicas.find`; they decide the engine, by which
            checkpoints can be read.
        minimises: true if a replica is to begin from there.
    """
    if arguments.sequence is not None:
        source = "--sequence"
        text = md.build_peptide(arguments.sequence, arguments.caps, arguments.start)
        molecule = md.prepare(text, source, built=True)
    else:
        source = arguments.pdb
        text = Path(source).read_text("utf-8", errors="replace")
        molecule = md.prepare(text, source, replace=arguments.replace_nonstandard)
    system = md.make_system(
        molecule.topology,
        arguments.force_field,
        arguments.solvent,
        arguments.permittivity,
    )
    step = arguments.step / 1000  # ps
    settings = md.Settings(arguments.temperature, arguments.friction, step)
    if found is not None:
        engine = md.Engine(found["platform"], found["threads"])
    elif arguments.platform is not None:
        engine = md.Engine(arguments.platform)
    else:
        speeds = md.speeds(molecule, system, settings)
        engine = max(speeds, key=speeds.get)
    energy = None
    if minimises:
        context = md.open_context(system, engine, settings, seed=1)
        try:
            molecule, energy = md.minimise(context, molecule)
        except FloatingPointError as error:
            raise RunError(
                f"{source}: no minimum was found nearby ({error}); another --start or "
                "a --pdb without clashes may help"
            ) from error
    written, kept = molecule, list(range(len(molecule.positions)))
    if arguments.heavy:
        written, kept = md.heavy_atoms(molecule)
    return Simulation(molecule, written, kept, system, settings, engine, energy)


def begin(
    folder: Path, plan: Plan, wanted: Mapping[str, Any], ready: Simulation, md: Any
) -> None:
    """Writes the topology, then all that is needed to make the trajectories again."""
    with cli.atomic_path(folder / f"{plan.stem}.pdb") as partial:
        partial.write_text(md.to_pdb(ready.written), "utf-8")
    residues = [residue.name for residue in ready.molecule.topology.residues()]
    replicas.write_record(folder, {
        **wanted,
        "sequence": residues,
        "num_atoms": len(ready.molecule.positions),
        "num_written_atoms": len(ready.kept),
        "minimised_energy_kj_per_mol": ready.energy,
        "integrator": "Langevin middle, bonds to hydrogen constrained, no cutoff",
        "platform": ready.engine.platform,
        "threads": ready.engine.threads,
        "versions": {
            "symphony-equijump": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    })  # fmt: skip


def run_replica(
    md: ModuleType,
    ready: Simulation,
    plan: Plan,
    path: Path,
    seed: int,
    advance: Callable[[int, str], None],
    stop: Callable[[], bool],
) -> None:
    """Simulates one replica to its end, or until `stop()` is true.

    Args:
        md: `equijump.md`.
        ready: all that replicas have in common.
        plan: lengths of the simulation.
        path: path of the trajectory.
        seed: seed of velocities and noise.
        advance: function called after each frame, with 1 and the speed.
        stop: function that tells whether to stop.

    Raises:
        RunError: The simulation became unstable.
    """
    state = replicas.read_begun(path)
    if state is not None and state.num_frames >= plan.num_frames:
        return
    context = md.open_context(ready.system, ready.engine, ready.settings, seed)
    if state is None:
        context.setPositions(ready.molecule.positions)
        context.setVelocitiesToTemperature(ready.settings.temperature, seed)
        replicas.write_state(replicas.state_of(path), replicas.NOTHING_DONE)
    else:
        md.restore(context, state.checkpoint, str(replicas.state_of(path)))
    done, num_bytes = (0, 0) if state is None else state[:2]
    replicas.truncate(path, num_bytes)
    xtc = md.open_xtc(path, ready.written.topology, plan.spacing)
    bonds = md.bonds(ready.molecule.topology)
    first, frames, checkpoint = done, [], None

    def save() -> None:
        nonlocal done
        try:
            for frame in frames:
                xtc.writeModel(frame)
            num_bytes = path.stat().st_size if done + len(frames) else 0
            saved = State(done + len(frames), num_bytes, checkpoint)
            replicas.write_state(replicas.state_of(path), saved)
        except OSError as error:
            raise RunError(
                f"{path}: cannot be written ({error.strerror or error}); {done} frames "
                "are complete; run again, it goes on"
            ) from error
        done += len(frames)
        frames.clear()

    try:
        # An interrupted equilibration goes on as well: the context counts its steps.
        steps_left = max(plan.equilibration_steps - context.getStepCount(), 0)
        goes_on = md.advance(context, steps_left, stop)
        checkpoint = context.createCheckpoint()
        begun_at = saved_at = time.monotonic()
        while goes_on and done + len(frames) < plan.num_frames:
            goes_on = md.advance(context, plan.steps_per_frame, stop)
            if not goes_on:
                break
            positions = md.positions(context)
            if not md.is_whole(positions, bonds):
                raise FloatingPointError("a bond is broken")
            frames.append(positions[ready.kept])
            checkpoint = context.createCheckpoint()
            days = (time.monotonic() - begun_at) / 86_400
            num_new = done + len(frames) - first
            advance(1, f"{1e-3 * plan.spacing * num_new / days:,.0f} ns/day")
            if time.monotonic() > saved_at + SAVE_SECONDS:
                save()
                saved_at = time.monotonic()
        save()
    except FloatingPointError as error:
        if frames:
            save()
        where = f"frame {done + 1}" if done else "equilibration or frame 1"
        raise RunError(
            f"{path}: the simulation became unstable before {where} ({error}); {done} "
            "frames are kept; a smaller --step may help"
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
    if found is not None and replicas.num_done(paths) >= total:
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
