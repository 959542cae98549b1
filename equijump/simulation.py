"""One molecule is set in motion, replica by replica, and its frames are written.

Of OpenMM nothing is imported: functions are given `equijump.md`, whose units are nm,
ps and kJ/mol. Frames become complete with the state behind them.
"""

import argparse
import contextlib
import importlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from common import __version__
from common.commands import cli
from common.commands.reading import line_of
from common.errors import RunError, UsageError
from equijump import replicas
from equijump.replicas import State

SAVE_SECONDS = 10.0
"""Between two states of a replica: what a command that is killed may lose."""

GAS_CONSTANT = 0.00831446261815324
"""kJ/mol/K"""

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
            f"{error.name}: pip install openmm pdbfixer PeptideBuilder"
        ) from error


@contextlib.contextmanager
def told(md: ModuleType, folder: Path) -> Iterator[None]:
    """Turns errors of OpenMM into one that says what is kept and what may help."""
    try:
        yield
    except md.OpenMMException as error:
        raise RunError(
            f"{folder}: OpenMM could not go on ({line_of(error)}); frames so far are "
            "kept; a smaller --step or --platform=Reference may help"
        ) from error


def set_up(
    md: ModuleType,
    arguments: argparse.Namespace,
    found: Mapping[str, Any] | None,
    minimises: bool,
    alone: bool = True,
) -> Simulation:
    """Builds and completes the molecule.

    Args:
        md: `equijump.md`.
        arguments: arguments of the command.
        found: files of `equijump.replicas.find`; they decide the engine, by which
            checkpoints can be read.
        minimises: true if a replica is to begin from there.
        alone: true where one replica has all cores to itself.
    """
    molecule, system = _build(md, arguments)
    _check_atoms(len(molecule.positions), found, Path(arguments.output))
    step = arguments.step / 1000  # ps
    settings = md.Settings(kelvin(arguments), arguments.friction, step)
    engine = _engine(md, arguments, found, (molecule, system, settings), alone)
    energy = None
    if minimises:
        context = md.open_context(system, engine, settings, seed=1)
        try:
            molecule, energy = md.minimise(context, molecule)
        except FloatingPointError as error:
            raise RunError(
                f"{arguments.pdb or '--sequence'}: no minimum was found nearby "
                f"({error}); another --start or a --pdb without clashes may help"
            ) from error
    written, kept = molecule, list(range(len(molecule.positions)))
    if arguments.heavy:
        written, kept = md.heavy_atoms(molecule)
    return Simulation(molecule, written, kept, system, settings, engine, energy)


def kelvin(arguments: argparse.Namespace) -> float:
    """Returns the temperature in K; in reduced units epsilon is 1 kJ/mol."""
    if arguments.units == "reduced":
        return arguments.temperature / GAS_CONSTANT
    return arguments.temperature


def _build(md: ModuleType, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Returns the molecule and its system."""
    if arguments.sequence is not None:
        source = "--sequence"
        text = md.build_peptide(arguments.sequence, arguments.caps, arguments.start)
        molecule = md.prepare(text, source, built=True)
    else:
        source = arguments.pdb
        text = replicas.pdb_path(source).read_text("utf-8", errors="replace")
        molecule = md.prepare(
            text,
            source,
            replace=arguments.replace_nonstandard,
            caps=arguments.caps,
            ph=arguments.ph,
        )
    if arguments.model == "go":
        is_reduced = arguments.units == "reduced"
        molecule, system = md.structure_based_system(
            molecule,
            source,
            contacts=arguments.contacts,
            epsilon=1.0 if is_reduced else arguments.epsilon,
            unit_masses=is_reduced,
        )
    else:
        system = md.make_system(
            molecule.topology,
            arguments.force_field,
            arguments.solvent,
            arguments.permittivity,
            arguments.hydrogen_mass,
        )
    if arguments.restrain is not None:
        md.restrain(system, molecule, arguments.restrain)
    return molecule, system


def _check_atoms(num_atoms: int, found: Mapping[str, Any] | None, folder: Path) -> None:
    """Raises `UsageError` for a molecule that an earlier version built otherwise."""
    before = num_atoms if found is None else found.get("num_atoms", num_atoms)
    if before != num_atoms:
        raise UsageError(
            f"{folder}: was begun with {before} atoms, found {num_atoms}: hydrogens "
            "are placed otherwise by this version; give another --output"
        )


def _engine(
    md: ModuleType,
    arguments: argparse.Namespace,
    found: Mapping[str, Any] | None,
    measured: tuple[Any, Any, Any],
    alone: bool,
) -> Any:
    """Returns the engine of an earlier command, the one asked for, or the fastest.

    Replicas that run side by side have one thread each.
    """
    if found is not None:
        return md.Engine(found["platform"], found["threads"])
    if arguments.platform is not None:
        is_cpu = arguments.platform == "CPU" and not alone
        return md.Engine(arguments.platform, threads=1 if is_cpu else 0)
    speeds = md.speeds(*measured, alone)
    return max(speeds, key=speeds.get)


def begin(
    folder: Path, plan: Plan, wanted: Mapping[str, Any], ready: Simulation, md: Any
) -> None:
    """Writes the topology, then all that is needed to make the trajectories again."""
    write_topology(folder / f"{plan.stem}.pdb", ready, md)
    residues = [residue.name for residue in ready.molecule.topology.residues()]
    is_model = wanted["flags"]["model"] == "go"
    integrator = "Langevin middle, no constraints, repulsion cut off at 0.45 nm"
    if not is_model:
        integrator = "Langevin middle, bonds to hydrogen constrained, no cutoff"
    replicas.write_record(folder, {
        **wanted,
        "sequence": residues,
        "temperature_kelvin": ready.settings.temperature,
        "num_atoms": len(ready.molecule.positions),
        "num_written_atoms": len(ready.kept),
        "minimised_energy_kj_per_mol": ready.energy,
        "integrator": integrator,
        "platform": ready.engine.platform,
        "threads": ready.engine.threads,
        "versions": {
            "symphony-equijump": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    })  # fmt: skip


def write_topology(path: Path, ready: Simulation, md: Any) -> None:
    """Writes the atoms of a frame as a PDB file."""
    with cli.atomic_path(path) as partial:
        partial.write_text(md.to_pdb(ready.written), "utf-8")


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
