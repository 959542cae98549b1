"""EquiJump's speed against OpenMM's, and rollouts of larger proteins.

Run: `python -m benchmarks.rollout --checkpoint=ala2` (or `--random`: speed does not
depend on the weights), with the extra `md`. Capped alanine: jumps of many replicas
against Langevin dynamics of one molecule, 2 fs, bonds to hydrogen constrained, in
implicit solvent OBC2 and without solvent, on every CPU platform of OpenMM, with one
thread and with all. Times are process-CPU seconds, taken in turns.
"""

import argparse
import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mdtraj
import ml_collections
import numpy as np
from jaxtyping import Float32
from rich.console import Console

from benchmarks import report, timing
from configs.equijump import ala2
from equijump import build, md, rollout
from equijump import jump as jumps
from equijump.data import frames
from equijump.data.molecules import read_system
from equijump.data.residues import NUM_SLOTS
from equijump.data.sources.trajectories import PACKAGED
from equijump.data.topology import System
from equijump.options import MAX_REDRAWS
from equijump.weights import load_weights

SEQUENCE = "ACDEFGHIKLMNPQRSTVWY"
SIZES = (10, 35, 80)  # residues of the helices that are rolled out
CPU_PLATFORMS = ("CPU", "Reference")
SOLVENTS = {"obc2": "OBC2", "none": "no solvent"}
CALL_SECONDS = 0.5
"""Of OpenMM in a round, about."""


class Network(NamedTuple):
    """Config, parameters and statistics of a network."""

    config: ml_collections.ConfigDict
    params: Any
    statistics: build.Statistics


class Line(NamedTuple):
    """One measured figure."""

    name: str
    value: float
    unit: str
    note: str = ""


def load_network(checkpoint: str | None) -> Network:
    """Returns packaged weights or those of a run; fresh ones where None is given."""
    if checkpoint is None:
        config = ala2.get_config()
        ones = np.ones(1)
        statistics = build.Statistics(10.0 * ones, ones, ones)
        return Network(config, build.init_params(config, jax.random.key(0)), statistics)
    weights = load_weights(checkpoint)
    return Network(weights.config, weights.params, weights.statistics)


def make_jump(network: Network) -> Callable[..., Any]:
    """Returns one jump of one replica, see `equijump.jump.make_jump`."""
    config = network.config
    return jumps.make_jump(
        build.make_model(config),
        build.TRANSPORTS[config.transport.kind],
        network.statistics,
        config.transport.noise_factor,
        config.sample.num_steps,
        random_frames=build.has_random_frames(config),
        repulsion=config.sample.repulsion,
    )


def make_rollout(
    network: Network,
    jump: Callable[..., Any],
    system: System,
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"],
    lag: float,
    num_jumps: int,
    max_redraws: int | None = None,
) -> Callable[[], None]:
    """Makes a contestant: a rollout from `starts` (Å), one chunk of jumps (`lag` ps).

    It has no gate where `max_redraws` is None.

    Raises:
        FloatingPointError: A position became non-finite.
    """
    plan = rollout.Plan(
        system, starts, {"lag": lag}, seed=0, chunk=num_jumps, max_redraws=max_redraws,
        cloud=network.config.model.cloud,
    )  # fmt: skip
    state = rollout.begin(plan).state

    def call() -> None:
        rolled = rollout.rollout(jump, network.params, plan, state, 0, num_jumps)
        if not all(np.isfinite(chunk.frames).all() for chunk in rolled):
            raise FloatingPointError("a position of the rollout is not finite")

    return call


class Dynamics(NamedTuple):
    """A contestant of OpenMM: its call, and the ns that a call simulates."""

    call: Callable[[], None]
    nanoseconds: float


def openmm_contestants(force_field: str) -> dict[str, Dynamics]:
    """Returns capped alanine on every CPU platform, in both solvents."""
    settings = md.Settings(temperature=300.0, friction=1.0, step=0.002)
    molecule = md.prepare(md.build_peptide("A", True, "extended"), "alanine")
    found = {}
    for solvent, told in SOLVENTS.items():
        system = md.make_system(molecule.topology, force_field, solvent, 1.0)
        speeds = md.speeds(molecule, system, settings)
        for engine, ns_per_day in speeds.items():
            if engine.platform not in CPU_PLATFORMS:
                continue
            context = in_motion(molecule, system, engine, settings)
            steps_per_second = ns_per_day / (86_400 * 1e-3 * settings.step)
            num_steps = max(round(CALL_SECONDS * steps_per_second), 1)
            call = timing.block(md.advance, context, num_steps)
            name = f"OpenMM, {told}, {name_of(engine)}"
            found[name] = Dynamics(call, 1e-3 * settings.step * num_steps)
    return found


def in_motion(
    molecule: md.Molecule, system: Any, engine: md.Engine, settings: md.Settings
) -> Any:
    """Returns a context of OpenMM in a minimum, with velocities."""
    context = md.open_context(system, engine, settings, seed=1)
    md.minimise(context, molecule)
    context.setVelocitiesToTemperature(settings.temperature, 1)
    return context


def name_of(engine: md.Engine) -> str:
    """Returns a name for the table."""
    if engine.platform != "CPU":
        return engine.platform  # It has one thread.
    return f"CPU, {'one thread' if engine.threads == 1 else 'all threads'}"


def against_openmm(
    network: Network,
    replicas: int,
    lag: float,
    num_jumps: int,
    rounds: int,
    max_redraws: int | None,
) -> list[Line]:
    """Times rollouts of capped alanine and OpenMM in turns."""
    (start,) = frames.read_trajectories(
        [PACKAGED / "ala2_300K_7.xtc"], PACKAGED / "ala2_300K.pdb"
    )
    chosen = np.linspace(0, len(start.positions) - 1, replicas).astype(int)
    starts = np.array(start.positions[chosen])
    ours = f"EquiJump, {replicas} replicas"
    call = make_rollout(
        network, make_jump(network), start.system, starts, lag, num_jumps, max_redraws
    )
    first = timing.cpu_seconds(call)
    rivals = openmm_contestants("ff99SB-ILDN")
    nanoseconds = {ours: 1e-3 * lag * replicas * num_jumps}
    nanoseconds |= {name: rival.nanoseconds for name, rival in rivals.items()}
    calls = {ours: call} | {name: rival.call for name, rival in rivals.items()}
    measured = timing.interleaved(calls, rounds)
    again = float(np.median(measured.seconds[ours]))
    per_ns = timing.Timing(
        {name: times / nanoseconds[name] for name, times in measured.seconds.items()},
        measured.calls,
    )
    medians = {name: float(np.median(x)) for name, x in per_ns.seconds.items()}
    lines = [
        Line(name, 1.0 / seconds, "ns per CPU second")
        for name, seconds in medians.items()
    ]
    lines.append(Line("compilation of the rollout", first - again, "CPU seconds"))
    for told in SOLVENTS.values():
        best = min((name for name in rivals if f", {told}," in name), key=medians.get)
        ratio = timing.ratio(per_ns, best, ours)
        note = f"{ratio['p10']:.1f} to {ratio['p90']:.1f}; {best}"
        lines.append(Line(f"EquiJump / OpenMM, {told}", ratio["median"], "", note))
    return lines


Structures = dict[str, tuple[System, Float32[np.ndarray, "num_atoms 3"]]]


def read_structure(
    text: str, name: str
) -> tuple[System, Float32[np.ndarray, "num_atoms 3"]]:
    """Returns a protein of a PDB file, completed, and its kept atoms in Å."""
    molecule = md.prepare(text, name)
    positions = frames.ANGSTROM_PER_NM * molecule.positions
    system = read_system(
        mdtraj.Topology.from_openmm(molecule.topology), positions, name
    )
    return system, positions[system.kept].astype(np.float32)


def read_structures(patterns: list[str]) -> Structures:
    """Returns proteins by size: those of files, and helices of `SIZES` without one."""
    found = {
        Path(path).stem: read_structure(Path(path).read_text(), path)
        for pattern in patterns
        for path in sorted(glob.glob(pattern))
    }
    for size in set(SIZES) - {len(system.tokens) for system, _ in found.values()}:
        sequence = (SEQUENCE * -(-size // len(SEQUENCE)))[:size]
        text = md.build_peptide(sequence, False, "helix")
        found[f"helix of {size}"] = read_structure(text, "helix")
    return dict(sorted(found.items(), key=lambda item: len(item[1][0].tokens)))


def sizes(
    network: Network, structures: Structures, replicas: int, lag: float, rounds: int
) -> list[Line]:
    """Times rollouts of proteins of several sizes, with fresh weights."""
    config = network.config
    fresh = network._replace(params=build.init_params(config, jax.random.key(0)))
    jump = make_jump(fresh)
    lines = []
    for name, (system, positions) in structures.items():
        starts = np.repeat(positions[None], replicas, axis=0)
        call = make_rollout(fresh, jump, system, starts, lag, num_jumps=1)
        first = timing.cpu_seconds(call)
        times = timing.interleaved({name: call}, rounds).seconds[name]
        seconds = float(np.median(times))
        num_nodes = len(system.tokens)
        memory = timing.temporary_bytes(
            jax.vmap(jump, (None, 0, None, 0)),
            fresh.params,
            jnp.zeros((replicas, num_nodes, NUM_SLOTS, 3)),
            jumps.chain_of(system, {"lag": lag}, network.config.model.cloud),
            jax.random.split(jax.random.key(0), replicas),
        )
        what = f"{name}, {num_nodes} residues, {replicas} replicas"
        lines += [
            Line(what, replicas / seconds, "frames per CPU second"),
            Line(f"{what}: compilation", first - seconds, "CPU seconds"),
            Line(f"{what}: memory", memory / 2**20, "MiB", "temporary, of a jump"),
        ]
    return lines


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = report.parser(__doc__, "rollout")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--checkpoint", help="packaged weights, or the folder of a run"
    )
    weights.add_argument("--random", action="store_true", help="fresh weights")
    add = parser.add_argument
    add("--lag", type=float, default=10.0, help="ps of a jump")
    add("--replicas", type=int, default=100, help="of capped alanine")
    add("--num_jumps", type=int, default=100, help="in a round")
    add("--num_steps", type=int, help="evaluations; by the config")
    add(
        "--gate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw broken jumps of capped alanine again",
    )
    add("--rounds", type=int, default=8, help="of all contestants")
    add("--structures", nargs="*", default=[], help="patterns of PDB files, by size")
    add("--size_replicas", type=int, default=10, help="of each of them")
    return parser.parse_args()


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    options = parse()
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console()
    network = load_network(options.checkpoint)
    if options.num_steps is not None:
        network.config.sample.num_steps = options.num_steps
    structures = read_structures(options.structures)
    console.print("capped alanine")
    lines = against_openmm(
        network, options.replicas, options.lag, options.num_jumps, options.rounds,
        MAX_REDRAWS if options.gate else None,
    )  # fmt: skip
    console.print("larger proteins")
    lines += sizes(
        network, structures, options.size_replicas, options.lag, options.rounds
    )
    report.show(
        "CPU seconds of this process, float32",
        ("what", "measured", "unit", "note"),
        [(line.name, f"{line.value:,.3g}", line.unit, line.note) for line in lines],
        left=("what", "unit", "note"),
    )
    report.write(
        options.output,
        config=network.config.to_dict(),
        lines=[line._asdict() for line in lines],
    )


if __name__ == "__main__":
    main()
