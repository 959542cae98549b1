"""Molecular dynamics by OpenMM: a molecule of `equijump.prepare` is set in motion.

With that module the one that imports OpenMM, pdbfixer and PeptideBuilder (the extra
`md`). Units are OpenMM's own: nm, ps, kJ/mol, K.
"""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
from jaxtyping import Float, Int
from openmm import OpenMMException as OpenMMException
from openmm import app, unit

from common.commands import reading
from common.errors import UsageError
from equijump import structure_based
from equijump.prepare import LONGEST_BOND, Molecule, in_nm, short
from equijump.prepare import build_peptide as build_peptide
from equijump.prepare import prepare as prepare
from equijump.structure_based import fraction_native as fraction_native
from equijump.structure_based import read_native as native_of

FORCE_FIELDS = {
    "ff14SB": "amber14/protein.ff14SB.xml",
    "ff19SB": "amber19/protein.ff19SB.xml",
    "ff99SB-ILDN": "amber99sbildn.xml",
}
PIECE = 500
"""Steps at most between two looks at whether to stop."""

_RADIUS_OFFSET = 0.009  # nm, of the dielectric radii in OBC2
_MEASURED = 0.3  # s for which each engine is measured
_SPRING = 1000.0  # kJ/mol/nm^2, of restraints
_ITERATIONS = 200  # Of a minimisation before that, which takes clashes away.


class Engine(NamedTuple):
    """What computes: a platform of OpenMM, and threads; 0 leaves them to it."""

    platform: str
    threads: int = 0


class Settings(NamedTuple):
    """Of the Langevin integrator.

    Attributes:
        temperature: temperature in K.
        friction: 1/ps.
        step: time step, in ps.
    """

    temperature: float
    friction: float
    step: float


def make_system(
    topology: Any,
    force_field: str,
    solvent: str,
    permittivity: float,
    hydrogen_mass: float = 0.0,
) -> openmm.System:
    """Returns a system without cutoff, bonds to hydrogen constrained.

    Args:
        topology: topology of OpenMM.
        force_field: key of `FORCE_FIELDS`, or an XML file that OpenMM finds.
        solvent: "none", or the name of an implicit one of OpenMM.
        permittivity: relative permittivity; divides every product of two charges.
        hydrogen_mass: mass of hydrogens in amu, taken from the atoms they are on; 0
            leaves all masses.

    Raises:
        UsageError: The force field is unknown or lacks a residue.
    """
    files = [FORCE_FIELDS.get(force_field, force_field)]
    if solvent != "none":
        files.append(f"implicit/{solvent}.xml")
    try:
        field = app.ForceField(*files)
        system = field.createSystem(
            topology,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            hydrogenMass=hydrogen_mass * unit.dalton if hydrogen_mass else None,
        )
    except Exception as error:  # Parsers of XML raise errors of their own.
        raise UsageError(
            f"--force_field: expected one of {', '.join(FORCE_FIELDS)} or an XML file "
            f"for this molecule, found {force_field}: {_reason(error)}; give caps as "
            "residues ACE and NME of their own, or look for atoms too many in --pdb"
        ) from error
    if solvent == "obc2":
        _use_kernel(system)
    if permittivity != 1.0:
        _divide_charges(system, permittivity**0.5)
    return system


def _reason(error: Exception) -> str:
    """Returns an error of a force field, without advice on OpenMM's functions."""
    return short(error).partition(" You may be able")[0].partition(" For more")[0]


def _use_kernel(system: openmm.System) -> None:
    """Replaces the expressions of the solvent OBC2 by OpenMM's own kernel for it.

    Energies of 12 residues agree to 0.03 kJ/mol; on a CPU it is several times as fast.
    """
    forces = system.getForces()
    (index,) = (i for i, f in enumerate(forces) if isinstance(f, openmm.CustomGBForce))
    kernel = openmm.GBSAOBCForce()
    for atom in range(system.getNumParticles()):
        charge, reduced, scaled = forces[index].getParticleParameters(atom)
        kernel.addParticle(charge, reduced + _RADIUS_OFFSET, scaled / reduced)
    system.removeForce(index)
    system.addForce(kernel)


def _divide_charges(system: openmm.System, factor: float) -> None:
    forces = [f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)]
    for force in forces:
        for index in range(force.getNumParticles()):
            charge, *rest = force.getParticleParameters(index)
            force.setParticleParameters(index, charge / factor, *rest)
        for index in range(force.getNumExceptions()):
            i, j, product, *rest = force.getExceptionParameters(index)
            force.setExceptionParameters(index, i, j, product / factor**2, *rest)


def structure_based_system(
    molecule: Molecule, source: str, *, contacts: str, epsilon: float, unit_masses: bool
) -> tuple[Molecule, openmm.System]:
    """Returns the heavy atoms of a molecule, and the model of its structure.

    Args:
        molecule: molecule in its native structure.
        source: origin of the molecule, for the message of an error.
        contacts: one of `structure_based.CONTACTS`.
        epsilon: unit of energy, in kJ/mol.
        unit_masses: true for 1 amu at each atom; else masses are the elements'.
    """
    heavy, _ = heavy_atoms(molecule)
    native = native_of(heavy, source)
    masses = [
        1.0 if unit_masses else atom.element.mass.value_in_unit(unit.dalton)
        for atom in heavy.topology.atoms()
    ]
    return heavy, structure_based.make_system(native, masses, epsilon, contacts)


def heavy_atoms(molecule: Molecule) -> tuple[Molecule, list[int]]:
    """Returns the molecule without hydrogens, and which atoms those left were."""
    atoms = list(molecule.topology.atoms())
    hydrogens = [a for a in atoms if a.element is app.element.hydrogen]
    kept = [a.index for a in atoms if a.element is not app.element.hydrogen]
    modeller = app.Modeller(molecule.topology, molecule.positions * unit.nanometer)
    modeller.delete(hydrogens)
    return Molecule(modeller.topology, molecule.positions[kept]), kept


def restrain(system: openmm.System, molecule: Molecule, selection: str) -> None:
    """Adds springs of `_SPRING` that hold atoms where they are.

    Args:
        system: system, changed in place.
        molecule: its molecule.
        selection: atoms, in MDTraj's language.

    Raises:
        UsageError: It is not of that language, or selects nothing.
    """
    import mdtraj  # Takes a second that few need.

    topology = mdtraj.Topology.from_openmm(molecule.topology)
    try:
        chosen = topology.select(selection)
    except Exception as error:  # The parser raises whatever it stumbles over.
        raise UsageError(
            f"--restrain: expected a selection of MDTraj, as in 'name CA', found "
            f"{selection!r}"
        ) from error
    if len(chosen) == 0:
        raise UsageError(
            f"--restrain: expected a selection with atoms, found {selection!r} with "
            "none; 'name CA' is one"
        )
    force = openmm.CustomExternalForce(f"{_SPRING / 2}*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for index in chosen.tolist():
        force.addParticle(index, molecule.positions[index].tolist())
    system.addForce(force)


def engines(alone: bool = True) -> Iterator[Engine]:
    """Yields the engines that are there; the CPU's with one thread and with all.

    Args:
        alone: false where others compute beside: one thread then.
    """
    for index in range(openmm.Platform.getNumPlatforms()):
        name = openmm.Platform.getPlatform(index).getName()
        if name == "CPU":
            yield Engine(name, threads=1)
        if name != "CPU" or alone:
            yield Engine(name)


def open_context(
    system: openmm.System, engine: Engine, settings: Settings, seed: int
) -> openmm.Context:
    """Returns a context without positions.

    Raises:
        UsageError: The platform is not there or does not work.
    """
    integrator = openmm.LangevinMiddleIntegrator(*settings)
    integrator.setRandomNumberSeed(seed)
    properties = {"Threads": str(engine.threads)} if engine.threads else {}
    try:
        platform = openmm.Platform.getPlatformByName(engine.platform)
        return openmm.Context(system, integrator, platform, properties)
    except OpenMMException as error:
        known = ", ".join(dict.fromkeys(other.platform for other in engines()))
        raise UsageError(
            f"--platform: expected one that works here, of {known}; found "
            f"{engine.platform}: {short(error)}"
        ) from error


def speeds(
    molecule: Molecule,
    system: openmm.System,
    settings: Settings,
    alone: bool = True,
) -> dict[Engine, float]:
    """Measures ns per day of every engine that works, for a moment each.

    The molecule is relaxed first, by one engine that can: a start may be so far from a
    minimum that no step can be taken. An engine that cannot go on counts as slow.

    Raises:
        UsageError: No platform works.
    """
    found, minimised = {}, None
    for engine in reversed(list(engines(alone))):  # The slowest, Reference, comes last.
        try:
            context = open_context(system, engine, settings, seed=1)
            if minimised is None:
                minimised, _ = minimise(context, molecule, _ITERATIONS)
            found[engine] = _speed(context, minimised, settings)
        except UsageError:
            continue  # A platform is there even where its device is not.
        except (OpenMMException, FloatingPointError):
            found[engine] = 0.0
    if not found:
        raise UsageError("--platform: expected one that works here, found none")
    return found


def _speed(context: openmm.Context, molecule: Molecule, settings: Settings) -> float:
    """Measures ns per day of a context."""
    context.setPositions(molecule.positions)
    context.setVelocitiesToTemperature(settings.temperature, 1)
    context.getIntegrator().step(1)
    begin, num_steps = time.perf_counter(), 0
    while time.perf_counter() < begin + _MEASURED:
        context.getIntegrator().step(5)
        num_steps += 5
    days = (time.perf_counter() - begin) / 86_400
    return 1e-3 * settings.step * num_steps / days


def minimise(
    context: openmm.Context, molecule: Molecule, max_iterations: int = 0
) -> tuple[Molecule, float]:
    """Returns the molecule in a minimum nearby, and its energy in kJ/mol.

    Args:
        context: context of its system.
        molecule: molecule to begin with.
        max_iterations: iterations at most; 0 goes on until it is in the minimum.

    Raises:
        FloatingPointError: There is none that OpenMM can find.
    """
    try:
        context.setPositions(molecule.positions)
        openmm.LocalEnergyMinimizer.minimize(context, maxIterations=max_iterations)
        value = energy(context)
        found = Molecule(molecule.topology, positions(context))
    except OpenMMException as error:
        raise FloatingPointError(short(error)) from error
    if not (np.isfinite(value) and np.isfinite(found.positions).all()):
        raise FloatingPointError(f"an energy of {value} kJ/mol")
    return found, value


def advance(
    context: openmm.Context, num_steps: int, stop: Callable[[], bool] = lambda: False
) -> bool:
    """Takes steps; returns whether all were taken before `stop()` was true.

    Raises:
        FloatingPointError: OpenMM could not go on.
    """
    integrator = context.getIntegrator()
    try:
        for done in range(0, num_steps, PIECE):
            if stop():
                return False
            integrator.step(min(PIECE, num_steps - done))
    except OpenMMException as error:
        raise FloatingPointError(short(error)) from error
    return True


def bonds(topology: Any) -> Int[np.ndarray, "num_bonds 2"]:
    """Returns the pairs of bonded atoms."""
    pairs = [(first.index, second.index) for first, second in topology.bonds()]
    return np.array(pairs, np.int64).reshape(-1, 2)


def is_whole(
    positions: Float[np.ndarray, "num_atoms 3"], bonds: Int[np.ndarray, "num_bonds 2"]
) -> bool:
    """Returns whether all bonds hold; never where a position is not finite."""
    lengths = np.linalg.norm(np.diff(positions[bonds], axis=1)[:, 0], axis=-1)
    return bool(np.isfinite(positions).all() and (lengths < LONGEST_BOND).all())


def energy(context: openmm.Context) -> float:
    """Returns the potential energy in kJ/mol."""
    found = context.getState(getEnergy=True).getPotentialEnergy()
    return found.value_in_unit(unit.kilojoule_per_mole)


def positions(context: openmm.Context) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns the positions in nm."""
    return in_nm(context.getState(getPositions=True).getPositions(asNumpy=True))


def restore(context: openmm.Context, checkpoint: bytes, source: str) -> None:
    """Puts a context where another one was.

    Raises:
        UsageError: The other one was of another platform or version of OpenMM.
    """
    try:
        context.loadCheckpoint(checkpoint)
    except OpenMMException as error:
        raise UsageError(
            f"{source}: expected a checkpoint of this version and platform of OpenMM, "
            f"found another ({short(error)})"
        ) from error


def to_pdb(molecule: Molecule) -> str:
    """Returns the text of a PDB file."""
    text = io.StringIO()
    app.PDBFile.writeFile(
        molecule.topology, molecule.positions * unit.nanometer, text, keepIds=True
    )
    return text.getvalue()


def open_xtc(path: Path, topology: Any, spacing: float) -> app.XTCFile:
    """Opens an XTC file to append to; its `n`-th frame, from 1, is at `n * spacing`.

    Args:
        path: path of the file, which may be missing.
        topology: topology of the atoms in a frame.
        spacing: time between frames, in ps.
    """
    goes_on = path.exists() and path.stat().st_size > 0
    with reading.refusing(
        path, "frames of an earlier command", "give another --output"
    ):
        return app.XTCFile(str(path), topology, spacing, firstStep=1, append=goes_on)
