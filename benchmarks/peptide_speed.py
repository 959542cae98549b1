"""Speed of a network of peptides on equal work: nanoseconds and independent samples.

Run: `python -m benchmarks.peptide_speed --checkpoint=peptides --reference=FOLDER`, with
the extra `md`. For each sequence rollouts, frames of `--ensemble`, and OpenMM (ff14SB
with OBC2, one trajectory, friction 1/ps, steps of 2 fs and of 4 fs with hydrogens of
3 amu, the faster CPU platform) take turns in one process; `ala2` too where the sequence
is its own. Compilation is no part of a rate, and stands apart.

Independent samples are the simulated time over the relaxation time of alphaR among
frames with phi < 0 in the dynamics that was learnt, but no more than frames. It is the
time after which 1/e of its correlation is left, the median over the residues of the
packed peptide in `--reference`, or `--relaxation` where the sequence is not there.
Frames of an ensemble are independent as they are. Jumps count that passed the gate.

`--engine` is the command of another engine, as `'engine {sequence}.in {output}
{count}'`, that simulates `--engine_ns` for each of `{count}`. It runs with two counts
in each round: their difference has neither its start nor its preparation.
"""

import argparse
import functools
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console

from benchmarks import peptides, report, timing, trajectories
from benchmarks.relaxation import RELAXATION, ala2_relaxation, relaxation_in
from benchmarks.rollout import CPU_PLATFORMS, in_motion
from equijump import builder, md, options, rollout, sampler
from equijump.weights import Weights, load_weights, make_jump

SEQUENCES = ("A", "AK", "LGQM", "NKNWFG", "GYDPETGTWG")
LARGE = (35, 80)
"""Residues of chains that are only timed."""

STEPS = {0.002: 0.0, 0.004: 3.0}
"""Steps of OpenMM in ps, and masses of hydrogens in amu; 0 leaves them."""

WARM_UP = 10
"""Jumps before rollouts are timed."""

COLUMNS = {
    "nanoseconds_per_second": ("ns per\nCPU s", 3),
    "relaxation": ("relaxes,\nps", 0),
    "samples_per_second": ("samples per\nCPU s", 2),
    "passed": ("passed", 3),
    "over_openmm": ("samples over\nOpenMM, 2 fs", 1),
    "over_engine": ("samples over\nengine", 1),
    "compilation": ("compilation,\nCPU s", 0),
}
"""Heading and digits of each figure."""


class Work(NamedTuple):
    """What a call comes to: ns, None for frames without times, and samples."""

    nanoseconds: float | None
    samples: float


class Contestant(NamedTuple):
    """A way to draw conformations of one peptide.

    Attributes:
        name: name in the table.
        call: does the work.
        work: what it comes to, without that of `base`.
        relaxation: relaxation time, in ps; None for frames without times.
        base: a call whose time is taken off, if any.
        passed: share of draws that passed the gate, where there is one.
        compilation: CPU seconds of compilation; None where another one paid.
    """

    name: str
    call: Callable[[], Any]
    work: Work
    relaxation: float | None
    base: Callable[[], Any] | None = None
    passed: float | None = None
    compilation: float | None = None


def work_of(num_frames: float, spacing: float, relaxation: float) -> Work:
    """Returns the work of frames of a trajectory, at most one sample a frame.

    >>> work_of(100, 10.0, 40.0), work_of(100, 100.0, 40.0)
    (Work(nanoseconds=1.0, samples=25.0), Work(nanoseconds=10.0, samples=100.0))

    Args:
        num_frames: frames of all replicas.
        spacing: ps between two.
        relaxation: relaxation time, in ps.
    """
    share = min(spacing / relaxation, 1.0)
    return Work(1e-3 * spacing * num_frames, share * num_frames)


class Network(NamedTuple):
    """Weights, and their jump, which all lags share.

    Attributes:
        weights: packaged weights, or those of a run.
        jump: function of `equijump.jump.make_jump`.
    """

    weights: Weights
    jump: Callable[..., Any]


def network_of(checkpoint: str, num_steps: int | None) -> Network:
    """Loads weights."""
    weights = load_weights(checkpoint)
    steps = num_steps or weights.config.sample.num_steps
    return Network(weights, make_jump(weights, steps))


def contestant_of(
    network: Network, relaxation: float, flags: argparse.Namespace, **asked: Any
) -> Contestant:
    """Returns a rollout of as many jumps as take `--seconds`, or frames of an ensemble.

    Args:
        network: weights.
        relaxation: relaxation time, in ps.
        flags: command line.
        asked: options of `equijump.options.choose`.
    """
    weights = network.weights
    chosen = options.choose(weights, flags.replicas, **asked)
    plan = sampler.plan_of(chosen, seed=0, chunk=sampler.CHUNK)

    def run(state: rollout.State, count: int) -> rollout.State:
        rolled = rollout.rollout(network.jump, weights.params, plan, state, 0, count)
        return jax.block_until_ready(list(rolled)[-1].state)

    start = rollout.begin(plan).state
    first = timing.cpu_seconds(lambda: run(start, 1))
    again = timing.cpu_seconds(lambda: run(start, 1))
    warm = run(start, WARM_UP)
    jumps = count_for(lambda count: run(warm, count), flags.seconds, 4)
    state = run(warm, jumps)
    draws, accepted = (
        float(np.sum(getattr(state, name) - getattr(warm, name)))
        for name in ("num_draws", "num_accepted")
    )
    lag = chosen.conditions.get("lag")
    work = Work(None, accepted) if lag is None else work_of(accepted, lag, relaxation)
    told = "ensemble" if lag is None else f"jumps of {lag:g} ps"
    return Contestant(
        name=f"{Path(weights.name).name}, {told}",
        call=functools.partial(run, warm, jumps),
        work=work,
        relaxation=None if lag is None else relaxation,
        passed=accepted / draws,
        compilation=max(first - again, 0.0),
    )


def count_for(run: Callable[[int], Any], seconds: float, tried: int) -> int:
    """Returns the count at which a call takes so many CPU seconds, at least 1.

    What a call takes whatever the count is left out.
    """
    one = timing.cpu_seconds(lambda: run(1))
    more = timing.cpu_seconds(lambda: run(1 + tried))
    return max(1, round(seconds * tried / max(more - one, 1e-6)))


def networks(
    sequence: str,
    relaxation: float,
    loaded: Sequence[Network],
    flags: argparse.Namespace,
) -> list[Contestant]:
    """Returns all contestants that are networks; the second pays for `ala2`."""
    ours, ala2 = loaded
    found = [
        contestant_of(ours, relaxation, flags, sequence=sequence, lag=lag)
        for lag in flags.lags
    ]
    if ours.weights.config.data.ensemble_share:
        found.append(
            contestant_of(ours, relaxation, flags, sequence=sequence, ensemble=True)
        )
    shared = [one._replace(compilation=None) for one in found[1:]]
    if sequence == "A":
        shared.append(contestant_of(ala2, ala2_relaxation(), flags))
    return [found[0], *shared]


def openmm(sequence: str, relaxation: float, seconds: float) -> list[Contestant]:
    """Returns OpenMM at each step, on each CPU platform."""
    text = md.build_peptide(sequence, True, "extended")
    molecule = md.prepare(text, sequence, built=True)
    found = []
    for step, mass in STEPS.items():
        settings = md.Settings(temperature=300.0, friction=1.0, step=step)
        system = md.make_system(molecule.topology, "ff14SB", "obc2", 1.0, mass)
        for engine in md.engines(alone=False):
            if engine.platform not in CPU_PLATFORMS:
                continue
            context = in_motion(molecule, system, engine, settings)
            run = functools.partial(md.advance, context)
            count = count_for(run, seconds, 200)
            call = timing.block(run, count)
            name = f"OpenMM, {1e3 * step:g} fs, {engine.platform}"
            work = work_of(count, step, relaxation)
            found.append(Contestant(name, call, work, relaxation))
    return found


def engine(
    sequence: str, relaxation: float, folder: Path, flags: argparse.Namespace
) -> Contestant:
    """Returns the engine of `--engine`."""
    output = folder / sequence

    def run(count: int) -> None:
        command = flags.engine.format(sequence=sequence, output=output, count=count)
        subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)

    count = count_for(run, flags.seconds, 10)
    return Contestant(
        name="engine",
        call=functools.partial(run, 1 + count),
        work=work_of(1e3 * flags.engine_ns * count, 1.0, relaxation),
        relaxation=relaxation,
        base=functools.partial(run, 1),
    )


def measure(
    contestants: Sequence[Contestant], rounds: int
) -> dict[str, Float[np.ndarray, " rounds"]]:
    """Returns the CPU seconds of each in each round, those of its base taken off."""
    calls = {one.name: one.call for one in contestants}
    bases = {f"{one.name}, base": one.base for one in contestants if one.base}
    seconds = timing.interleaved(calls | bases, rounds).seconds
    return {name: seconds[name] - seconds.get(f"{name}, base", 0.0) for name in calls}


def fastest(contestants: Sequence[Contestant], seconds: Any) -> list[Contestant]:
    """Leaves out OpenMM's slower platforms; the others keep their order."""
    rate = lambda one: one.work.samples / np.median(seconds[one.name])
    kept: dict[str, Contestant] = {}
    for one in contestants:
        name, platform = one.name, ""
        if name.startswith("OpenMM"):
            name, _, platform = name.rpartition(", ")
        if not platform or name not in kept or rate(one) > rate(kept[name]):
            kept[name] = one
    return list(kept.values())


def lines_of(contestants: Sequence[Contestant], seconds: Any) -> list[dict[str, Any]]:
    """Returns the figures of contestants, with ratios in samples to two of them."""
    cost = lambda one: seconds[one.name] / max(one.work.samples, 1e-9)
    costs = {one.name: cost(one) for one in contestants}
    rivals = {
        "over_openmm": next((n for n in costs if n.startswith("OpenMM, 2 fs")), None),
        "over_engine": "engine" if "engine" in costs else None,
    }
    paired = timing.Timing(costs, 1)
    lines = []
    for one in contestants:
        middle = float(np.median(seconds[one.name]))
        ns = one.work.nanoseconds
        line = {
            "name": one.name,
            "nanoseconds_per_second": None if ns is None else ns / middle,
            "samples_per_second": one.work.samples / middle,
            "relaxation": one.relaxation,
            "passed": one.passed,
            "compilation": one.compilation,
            "seconds": seconds[one.name].tolist(),
        }
        for key, rival in rivals.items():
            ratio = timing.ratio(paired, rival, one.name) if rival else None
            line[key] = ratio and {
                "value": ratio["median"], "low": ratio["p10"], "high": ratio["p90"]
            }  # fmt: skip
        lines.append(line)
    return lines


def large(
    ours: Network, num_residues: int, flags: argparse.Namespace
) -> dict[str, Any]:
    """Times single jumps of built chains, without a gate; weights do not matter."""
    letters = "".join(builder.LETTERS)
    sequence = (letters * -(-num_residues // len(letters)))[:num_residues]
    chosen = options.choose(
        ours.weights, flags.large_replicas, lag=flags.lags[0], sequence=sequence,
        gate=False,
    )  # fmt: skip
    plan = sampler.plan_of(chosen, seed=0, chunk=1)
    state = rollout.begin(plan).state
    params = ours.weights.params
    call = lambda: list(rollout.rollout(ours.jump, params, plan, state, 0, 1))
    first = timing.cpu_seconds(call)
    times = timing.interleaved({"": call}, flags.rounds).seconds[""]
    middle = float(np.median(times))
    return {
        "residues": num_residues,
        "frames_per_second": flags.large_replicas / middle,
        "compilation": first - middle,
    }


def compete(
    sequence: str, loaded: Sequence[Network], paths: Sequence[Path], flags: Any
) -> list[dict[str, Any]]:
    """Returns the figures of all contestants of one sequence."""
    measured = relaxation_in(sequence, paths)
    relaxation = measured or flags.relaxation
    contestants = networks(sequence, relaxation, loaded, flags)
    contestants += openmm(sequence, relaxation, flags.seconds)
    with tempfile.TemporaryDirectory() as folder:
        if flags.engine:
            contestants.append(engine(sequence, relaxation, Path(folder), flags))
        seconds = measure(contestants, flags.rounds)
    known = {
        "sequence": sequence,
        "residues": len(sequence),
        "is_measured": measured is not None,
    }
    lines = lines_of(fastest(contestants, seconds), seconds)
    return [known | line for line in lines]


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = report.parser(__doc__, "peptide_speed")
    add = parser.add_argument
    add("--checkpoint", required=True, help="packaged weights, or the folder of a run")
    add("--reference", nargs="*", default=[], help="folders of packed peptides")
    add("--relaxation", type=float, default=RELAXATION, help="ps, without a reference")
    add("--sequences", nargs="+", default=list(SEQUENCES), help="capped peptides")
    add(
        "--large", nargs="*", type=int, default=list(LARGE), help="residues, only timed"
    )
    add("--lags", nargs="+", type=float, default=[10.0, 100.0], help="ps, of jumps")
    add("--num_steps", type=int, help="evaluations in a jump; by the config")
    add("--replicas", type=int, default=100, help="of the networks, side by side")
    add("--large_replicas", type=int, default=10, help="of the chains only timed")
    add("--rounds", type=int, default=8, help="of all contestants")
    add("--seconds", type=float, default=1.0, help="CPU, of a contestant in a round")
    add(
        "--engine", help="command of another engine, with {sequence}, {output}, {count}"
    )
    add("--engine_ns", type=float, help="ns that it simulates for each of {count}")
    flags = parser.parse_args()
    if bool(flags.engine) != bool(flags.engine_ns):
        parser.error("expected --engine and --engine_ns together, found one")
    return flags


def show(lines: Sequence[dict[str, Any]], chains: Sequence[dict[str, Any]]) -> None:
    """Prints both tables."""
    columns = COLUMNS.items()
    rows = [
        (str(line["residues"]), line["sequence"], line["name"],
         *(trajectories.cell(line[name], digits) for name, (_, digits) in columns))
        for line in lines
    ]  # fmt: skip
    heads = ("residues", "", "what", *(heading for heading, _ in COLUMNS.values()))
    report.show("one machine, in turns", heads, rows, ("", "what"), 180)
    rows = [tuple(trajectories.cell(one[key], 0) for key in one) for one in chains]
    heads = ("residues", "frames per CPU s", "compilation, CPU s")
    report.show("built chains, without a gate", heads, rows)


def main() -> None:
    """Measures, prints the tables and writes the figures with the machine."""
    flags = parse()
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console()
    loaded = [
        network_of(flags.checkpoint, flags.num_steps), network_of("ala2", None)
    ]  # fmt: skip
    paths = peptides.find(flags.reference)
    asked = {name: str(value) for name, value in vars(flags).items()}
    lines: list[dict[str, Any]] = []
    for sequence in flags.sequences:
        console.print(sequence)
        lines += compete(sequence, loaded, paths, flags)
        report.write(flags.output, flags=asked, lines=lines)
    chains = [large(loaded[0], size, flags) for size in flags.large]
    show(lines, chains)
    report.write(flags.output, flags=asked, lines=lines, chains=chains)


if __name__ == "__main__":
    main()
