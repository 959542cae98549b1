"""Makes trajectories to train on: `equijump simulate --sequence=AAQAA --output=data`.

Every replica is an XTC file with a state beside it: the state has the number of frames
and bytes up to which the file counts, and OpenMM's checkpoint there. What a command
that was killed wrote beyond is cut off, and the next frame follows.
"""

import argparse
import hashlib
import importlib
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from common import __version__, cli
from common.cli import RunError, UsageError
from common.training import StopOnSignal

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SOLVENTS = ("obc2", "gbn2", "none")
STARTS = ("extended", "helix")
FORMAT_VERSION = 1

SAVE_SECONDS = 10.0
"""Between two states of a replica: what a command that is killed may lose."""

_LONGEST_NAME = 60  # Letters of a sequence in the names of files.
_MAY_GROW = ("length", "replicas")
_PACKAGES = ("openmm", "pdbfixer", "PeptideBuilder", "numpy")


class Plan(NamedTuple):
    """What is simulated, in steps.

    Attributes:
        stem: Of the names of files.
        steps_per_frame: From one frame to the next.
        equilibration_steps: Before the first frame.
        num_frames: Of each replica.
        spacing: ps from one frame to the next.
    """

    stem: str
    steps_per_frame: int
    equilibration_steps: int
    num_frames: int
    spacing: float


class State(NamedTuple):
    """How far a replica has come: complete frames, their bytes, OpenMM's checkpoint."""

    num_frames: int
    num_bytes: int
    checkpoint: bytes


class Simulation(NamedTuple):
    """What all replicas have in common.

    Attributes:
        molecule: With all its atoms, minimised if a replica begins from it.
        written: The atoms of a frame, as a molecule.
        kept: Which atoms of `molecule` those are.
        system: Of OpenMM.
        settings: Of the integrator.
        engine: What computes.
        energy: Of `molecule` in kJ/mol; None where it was not minimised.
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
        stem = arguments.sequence.lower()[:_LONGEST_NAME]
        stem = f"ace_{stem}_nme" if arguments.caps else stem
    else:
        if not Path(arguments.pdb).is_file():
            raise UsageError(f"--pdb: expected a file, found none at {arguments.pdb}")
        if arguments.caps:
            raise UsageError("--caps: expected --sequence beside it, found --pdb")
        stem = Path(arguments.pdb).stem
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
    step, spacing = f"--step={arguments.step:g} fs", f"--spacing={arguments.spacing:g}"
    return Plan(
        stem=stem,
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
    described = {"format": FORMAT_VERSION, "flags": flags}
    if arguments.pdb is not None:
        contents = Path(arguments.pdb).read_bytes()
        described["pdb_sha256"] = hashlib.sha256(contents).hexdigest()
    return described


def find(folder: Path, wanted: Mapping[str, Any], stem: str) -> dict[str, Any] | None:
    """Returns what an earlier command wrote about itself, None where there was none.

    Raises:
        UsageError: It was asked for something else, or its files are of another origin.
    """
    path = folder / "simulate.json"
    if not path.exists():
        foreign = sorted(folder.glob(f"{stem}_*.xtc"))
        if foreign:
            raise UsageError(f"{foreign[0]}: expected simulate.json beside it")
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        differing = _differing(found, wanted)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: expected what an earlier command wrote, found {error!r}; give "
            "another --output"
        ) from error
    for name, was, now in differing:
        raise UsageError(
            f"{folder}: was begun with {name} = {was}, found {now}; give another "
            "--output"
        )
    return found


def _differing(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Lists name, former value and present value of what keeps a run from going on."""
    was = found["flags"] | {n: found.get(n) for n in ("format", "pdb_sha256")}
    now = wanted["flags"] | {n: wanted.get(n) for n in ("format", "pdb_sha256")}
    return [
        (f"--{name}" if name in wanted["flags"] else name, was.get(name), now[name])
        for name in now
        if was.get(name) != now[name]
        and not (name in _MAY_GROW and now[name] > was[name])
    ]


def read_state(path: Path) -> State | None:
    """Returns the state of a replica, None of one that was not begun."""
    if not path.exists():
        return None
    head, _, checkpoint = path.read_bytes().partition(b"\n")
    try:
        return State(**json.loads(head), checkpoint=checkpoint)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: expected a state, found {error}") from error


def write_state(path: Path, state: State) -> None:
    """Replaces the state of a replica."""
    head = {"num_frames": state.num_frames, "num_bytes": state.num_bytes}
    with cli.atomic_path(path) as partial:
        partial.write_bytes(json.dumps(head).encode() + b"\n" + state.checkpoint)


def truncate(path: Path, num_bytes: int) -> None:
    """Cuts off what a trajectory holds beyond its state.

    Raises:
        UsageError: It holds less.
    """
    size = path.stat().st_size if path.exists() else 0
    if size < num_bytes:
        raise UsageError(
            f"{path}: expected at least the {num_bytes} bytes that its state tells of, "
            f"found {size}; give another --output"
        )
    if size > num_bytes:
        with path.open("r+b") as file:
            file.truncate(num_bytes)


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
        arguments: Of the command.
        found: See `find`; it decides the engine, so that checkpoints can be read.
        minimises: Whether a replica is to begin from there.
    """
    if arguments.sequence is not None:
        source = "--sequence"
        text = md.build_peptide(arguments.sequence, arguments.caps, arguments.start)
    else:
        source = arguments.pdb
        text = Path(source).read_text("utf-8", errors="replace")
    molecule = md.prepare(text, source)
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
        molecule, energy = md.minimise(context, molecule)
        if not math.isfinite(energy):
            raise RunError(f"{source}: the energy is {energy} after minimisation")
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
    write_record(folder, {
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


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `simulate.json`."""
    with cli.atomic_path(folder / "simulate.json") as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def run_replica(
    md: ModuleType,
    ready: Simulation,
    plan: Plan,
    path: Path,
    seed: int,
    advance: Callable[[], None],
    stop: Callable[[], bool],
) -> None:
    """Simulates one replica to its end, or until `stop()` is true.

    Args:
        md: `equijump.md`.
        ready: What all replicas have in common.
        plan: How long.
        path: Of its trajectory.
        seed: Of its velocities and its noise.
        advance: Called after each frame.
        stop: Whether to stop.

    Raises:
        RunError: The simulation became unstable.
    """
    context = md.open_context(ready.system, ready.engine, ready.settings, seed)
    state = read_state(_state_of(path))
    done = 0 if state is None else state.num_frames
    truncate(path, 0 if state is None else state.num_bytes)
    xtc = md.open_xtc(path, ready.written.topology, plan.spacing)
    bonds = md.bonds(ready.molecule.topology)
    frames, checkpoint, saved_at = [], b"", time.monotonic()

    def save() -> None:
        nonlocal done, saved_at
        if not frames:
            return
        for frame in frames:
            xtc.writeModel(frame)
        done += len(frames)
        frames.clear()
        saved = State(done, path.stat().st_size, checkpoint)
        write_state(_state_of(path), saved)
        saved_at = time.monotonic()

    try:
        if state is None:
            context.setPositions(ready.molecule.positions)
            context.setVelocitiesToTemperature(ready.settings.temperature, seed)
            if not md.advance(context, plan.equilibration_steps, stop):
                return
        else:
            md.restore(context, state.checkpoint, f"{_state_of(path)}")
        while done + len(frames) < plan.num_frames:
            if not md.advance(context, plan.steps_per_frame, stop):
                break
            positions = md.positions(context)
            if not md.is_whole(positions, bonds):
                raise FloatingPointError("a bond is broken")
            frames.append(positions[ready.kept])
            checkpoint = context.createCheckpoint()
            advance()
            if time.monotonic() > saved_at + SAVE_SECONDS:
                save()
        save()
    except FloatingPointError as error:
        save()
        where = f"frame {done + 1}" if done else "equilibration or frame 1"
        raise RunError(
            f"{path}: the simulation became unstable before {where} ({error}); {done} "
            "frames are kept; a smaller --step may help"
        ) from error


def seed_of(seed: int, replica: int) -> int:
    """Returns the seed of one replica; OpenMM takes 0 for none at all."""
    (state,) = np.random.SeedSequence((seed, replica)).generate_state(1)
    return 1 + int(state) % (2**31 - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump simulate` and returns the exit status.

    Args:
        argv: The arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    plan = make_plan(arguments)
    folder, total = Path(arguments.output), arguments.replicas * plan.num_frames
    cli.check_output(folder / "simulate.json")
    wanted = describe(arguments)
    found = find(folder, wanted, plan.stem)
    paths = [folder / f"{plan.stem}_{r}.xtc" for r in range(arguments.replicas)]
    if found is not None and _num_done(paths) >= total:
        sys.stdout.write(f"{folder}: all {total} frames are done\n")
        return 0
    md = load_md()
    ready = set_up(md, arguments, found, None in map(read_state, map(_state_of, paths)))
    sys.stdout.write(f"platform: {ready.engine.platform}\n")
    folder.mkdir(parents=True, exist_ok=True)
    with cli.locked(folder), StopOnSignal() as stop:
        found = find(folder, wanted, plan.stem)  # Another command may have begun.
        if found is None:
            begin(folder, plan, wanted, ready, md)
        else:
            write_record(folder, found | wanted)
        _run(md, ready, plan, paths, arguments.seed, stop)
    done = _num_done(paths)
    if done < total:
        raise RunError(
            f"{folder}: stopped after {done} of {total} frames; run again, it goes on"
        )
    sys.stdout.write(f"{folder}: {total} frames, topology in {plan.stem}.pdb\n")
    return 0


def _state_of(path: Path) -> Path:
    return path.with_suffix(".state")


def _num_done(paths: Sequence[Path]) -> int:
    states = map(read_state, map(_state_of, paths))
    return sum(state.num_frames for state in states if state is not None)


def _run(
    md: ModuleType,
    ready: Simulation,
    plan: Plan,
    paths: Sequence[Path],
    seed: int,
    stop: StopOnSignal,
) -> None:
    """Simulates all replicas, one after the other."""
    total, done = len(paths) * plan.num_frames, _num_done(paths)
    begun_at, num_new = time.monotonic(), 0
    with cli.progress(total, "simulating", "frames", completed=done) as show:

        def advance() -> None:
            nonlocal num_new
            num_new += 1
            days = (time.monotonic() - begun_at) / 86_400
            show(1, f"{1e-3 * plan.spacing * num_new / days:,.0f} ns/day")

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
