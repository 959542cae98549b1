"""EquiJump on peptides that it was not trained on: each beside its reference.

Run: `python -m benchmarks.peptides --checkpoint=peptides --reference FOLDER`, where the
folder holds packed peptides (`SEQ.npz` beside `SEQ.pdb`, of any depth). From the first
frame of each lane two replicas make 300 jumps; the floor of a divergence is that of the
reference's even lanes from its odd ones, and a peptide's ratio is its mean divergence
over its mean floor. `--long` rolls out one replica of each lane, as long as the lane.

Rollouts are kept, one file a peptide, in the folder `--rollouts`: what was broken off
goes on with the next peptide, and `--analyse_only` judges what is there. Peptides of
one length are padded to the largest of them, so that one compiled program serves all.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float32
from rich.console import Console

from benchmarks import peptide_figures as figures
from benchmarks import report, trajectories
from common.commands.reading import read_arrays
from equijump import rejection, rollout, sampler
from equijump.data import frames
from equijump.data.residues import NUM_TYPES
from equijump.data.sources import peptides
from equijump.data.topology import System, fit_to, in_slot_order
from equijump.evaluate import inputs
from equijump.options import MAX_REDRAWS
from equijump.weights import Weights, load_weights, make_jump

COLUMNS = {
    "ratio": ("ratio", 2),
    "js": ("JS", 4),
    "floor": ("floor", 4),
    "chi_within": ("chi\nwithin", 2),
    "times_inside": ("times\ninside", 2),
    "time_ratio": ("time\nratio", 2),
    "times": ("times", 0),
    "times_apart": ("apart", 0),
    "bonds": ("bonds", 4),
    "reference_bonds": ("of\nref.", 4),
    "flips": ("flips", 0),
    "lost": ("lost", 0),
    "passed": ("passed", 3),
    "mdgen_backbone": ("MDGen\nbb", 3),
    "mdgen_floor_backbone": ("floor", 3),
    "mdgen_side_chain": ("MDGen\nsc", 3),
    "mdgen_floor_side_chain": ("floor", 3),
    "cpu_seconds_per_ns": ("CPU s\nper ns", 2),
}
"""Heading and digits of each figure."""

NUM_WORST = 8
"""Bonds that are named."""


class Reference(NamedTuple):
    """Lanes of one peptide, atoms in the order of slots.

    Attributes:
        name: its sequence.
        system: system of all lanes.
        lanes: frames of each lane, in Å.
        spacing: ps between frames.
        temperature: temperature in K.
    """

    name: str
    system: System
    lanes: Float32[np.ndarray, "num_lanes num_frames num_atoms 3"]
    spacing: float
    temperature: float


class Network(NamedTuple):
    """Weights, and a jump that is compiled once for peptides of the same sizes.

    Attributes:
        weights: packaged weights, or those of a run.
        num_steps: evaluations of the network in a jump.
        jump: function of `equijump.jump.make_jump`.
        sizes: by name of a peptide, the sizes that its arrays are padded to.
    """

    weights: Weights
    num_steps: int
    jump: Callable[..., Any]
    sizes: Mapping[str, rejection.Sizes]


class Rolled(NamedTuple):
    """Frames of a rollout without the starts, by replica, and what they cost."""

    frames: Float32[np.ndarray, "num_replicas num_frames num_atoms 3"]
    passed: float
    cpu_seconds: float


def read(path: Path) -> Reference:
    """Reads the lanes of one packed peptide."""
    found = list(peptides.read(str(path), ml_collections.ConfigDict({"select": ""})))
    system = found[0].system
    order = system.slot_atoms[system.slot_atoms >= 0]
    lanes = np.stack([np.asarray(lane.positions)[:, order] for lane in found])
    given = found[0].conditions["temperature"]
    ordered = in_slot_order(system)
    return Reference(path.stem, ordered, lanes, found[0].spacing, given)


def find(patterns: Iterable[str]) -> list[Path]:
    """Returns packed peptides of files, patterns and folders, the shortest first."""
    found: set[Path] = set()
    for pattern in patterns:
        folder = Path(pattern)
        files = folder.rglob("*.npz") if folder.is_dir() else None
        found.update(files or inputs.find_files("--reference", [pattern]))
    return sorted(found, key=lambda path: (len(path.stem), path.stem))


def network_of(
    weights: Weights, num_steps: int | None, paths: Sequence[Path]
) -> Network:
    """Returns weights that roll out the peptides of some files.

    Args:
        weights: packaged weights, or those of a run.
        num_steps: evaluations of the network in a jump; its config's where None.
        paths: packed peptides.
    """
    steps = num_steps or weights.config.sample.num_steps
    return Network(weights, steps, make_jump(weights, steps), shared_sizes(paths))


def shared_sizes(paths: Sequence[Path]) -> dict[str, rejection.Sizes]:
    """Returns the largest sizes of the peptides of each length, by name of a peptide.

    Those without a chiral centre are apart: there is none to fill up with.
    """
    own = {path.stem: _sizes_of(path) for path in paths}
    groups: dict[tuple[int, bool], list[rejection.Sizes]] = {}
    for name, sizes in own.items():
        groups.setdefault((len(name), sizes.centres > 0), []).append(sizes)
    largest = {
        key: rejection.Sizes(*map(max, *found, found[0]))
        for key, found in groups.items()
    }
    return {name: largest[len(name), sizes.centres > 0] for name, sizes in own.items()}


def _sizes_of(path: Path) -> rejection.Sizes:
    system, _ = frames.read_structures(path.with_suffix(".pdb"), None, at_most=1)
    return rejection.sizes_of(rejection.graph_of(system))


def request_of(weights: Weights, flags: argparse.Namespace) -> dict[str, Any]:
    """Returns what decides a rollout besides the peptide."""
    names = ("lag", "num_steps", "jumps", "replicas_per_lane", "gate", "seed", "long")
    asked = {name: getattr(flags, name) for name in names}
    return {"weights": weights.checksum, **asked}


def roll_out(
    network: Network, reference: Reference, flags: argparse.Namespace
) -> Rolled:
    """Rolls out from the first frame of each lane; compiles before it is timed."""
    weights = network.weights
    known = weights.config.model.residue_types or NUM_TYPES
    count = 1 if flags.long else flags.replicas_per_lane
    every = max(1, round(reference.spacing / flags.lag)) if flags.long else 1
    plan = rollout.Plan(
        system=fit_to(reference.system, known, reference.name),
        starts=np.repeat(reference.lanes[:, 0], count, axis=0),
        conditions={"lag": flags.lag, "temperature": reference.temperature},
        seed=flags.seed,
        every=every,
        chunk=sampler.CHUNK,
        max_redraws=MAX_REDRAWS if flags.gate else None,
        cloud=weights.config.model.cloud,
        sizes=network.sizes[reference.name],
    )
    state = rollout.begin(plan).state
    jumps = every * len(reference.lanes[0]) if flags.long else flags.jumps
    run = lambda count: list(
        rollout.rollout(network.jump, weights.params, plan, state, 0, count)
    )
    run(every)
    before = time.process_time()
    chunks = run(jumps)
    seconds = time.process_time() - before
    last = chunks[-1].state
    passed = float(np.sum(last.num_accepted) / np.sum(last.num_draws))
    made = np.concatenate([chunk.frames for chunk in chunks])
    return Rolled(np.moveaxis(made, 1, 0), passed, seconds)


def rolled_of(
    network: Network | None, reference: Reference, flags: argparse.Namespace
) -> Rolled:
    """Returns the rollout that is kept of a peptide, or makes and keeps it."""
    path = flags.rollouts / f"{reference.name}.npz"
    asked = "" if network is None else json.dumps(request_of(network.weights, flags))
    if path.is_file():
        kept = read_arrays(path, "a rollout of this benchmark", None)
        if network is None or str(kept["request"]) == asked:
            passed, seconds = (float(kept[x]) for x in ("passed", "cpu_seconds"))
            return Rolled(kept["frames"], passed, seconds)
    if network is None:
        raise SystemExit(f"expected a rollout, found no {path}")
    rolled = roll_out(network, reference, flags)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, request=np.array(asked), **rolled._asdict())
    partial.replace(path)
    return rolled


def judge(
    rolled: Rolled, reference: Reference, flags: argparse.Namespace
) -> dict[str, Any]:
    """Returns all figures of one peptide."""
    is_long, system = flags.long, reference.system
    spacing = reference.spacing if is_long else flags.lag
    every = max(1, round(spacing / reference.spacing))
    lanes = list(reference.lanes[:, ::every])
    whole, lost = figures.whole_of(list(rolled.frames), lanes, system)
    nanoseconds = rolled.frames.shape[0] * rolled.frames.shape[1] * spacing / 1000.0
    line = {
        "name": reference.name,
        "length": len(reference.name),
        "replicas": len(rolled.frames),
        "nanoseconds": nanoseconds,
        "passed": rolled.passed,
        "cpu_seconds": rolled.cpu_seconds,
        "cpu_seconds_per_ns": rolled.cpu_seconds / nanoseconds,
        "lost": lost,
    }
    if not whole:
        return line
    line |= figures.compare(whole, lanes, system, spacing, flags.model_lag)
    if is_long:
        given = reference.temperature
        line["states"] = figures.compare_long(whole, lanes, system, spacing, given)
    return figures.plain(line)


def control(reference: Reference) -> Rolled:
    """Returns the odd lanes as if they were rolled out, to judge by the even ones."""
    return Rolled(reference.lanes[1::2], 1.0, 0.0)


def show(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints the tables, and returns the summaries by length."""
    judged = [line for line in lines if "js" in line]
    by_length = {
        str(length): figures.summary_of([x for x in judged if x["length"] == length])
        for length in sorted({line["length"] for line in judged})
    }
    heads = [heading for heading, _ in COLUMNS.values()]
    rows = [(name, *_cells(summary)) for name, summary in by_length.items()]
    alone = [(line["name"], *_cells(figures.summary_of([line]))) for line in judged]
    report.show("each peptide", ("", *heads), alone, left=("",), width=200)
    report.show("medians by length", ("", *heads), rows, left=("",), width=200)
    worst = figures.worst_bonds(judged, NUM_WORST)
    named = [(name, f"{ours:.4f}", f"{theirs:.4f}") for name, ours, theirs in worst]
    report.show("worst bonds, RMS, Å", ("", "rollout", "reference"), named, ("",))
    if judged and "states" in judged[0]:
        _show_states(judged)
    return by_length


def _cells(summary: dict[str, Any]) -> list[str]:
    pairs = COLUMNS.items()
    return [trajectories.cell(summary[name], digits) for name, (_, digits) in pairs]


def _show_states(lines: list[dict[str, Any]]) -> None:
    """Prints populations and times of each residue, ours and the reference's."""
    keys = ("alphaR_over_beta", "phi_above_0", "helix_relaxation", "passages")
    heads = ("alphaR over beta,\nkcal/mol", "phi > 0,\nkcal/mol",
             "alphaR relaxes,\nps", "passages\nper µs")  # fmt: skip
    rows = []
    for line in lines:
        for label, sides in line["states"].items():
            pairs = ([sides[side][key] for side in sides] for key in keys)
            scale = line["residues"][label]
            ends = [scale[x] for x in ("slowest", "reference_slowest", "low", "high")]
            slow = "{} / {} ({}–{})".format(*(trajectories.cell(x, 0) for x in ends))
            cells = [
                " / ".join(trajectories.cell(x, 2) for x in pair) for pair in pairs
            ]
            rows.append((f"{line['name']} {label}", *cells, slow))
    heads = ("", *heads, "slowest, ps")
    report.show("ours / reference", heads, rows, ("",), width=180)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = report.parser(__doc__, "peptides")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", help="a run, or packaged weights")
    what.add_argument(
        "--analyse_only", action="store_true", help="judge the rollouts that are kept"
    )
    what.add_argument(
        "--control", action="store_true", help="judge odd lanes by even ones"
    )
    add("--lag", type=float, default=10.0, help="ps, of a jump")
    add("--jumps", type=int, default=300, help="of each replica")
    add("--num_steps", type=int, help="evaluations of the network in a jump")
    add("--long", action="store_true", help="one replica a lane, as long as the lane")
    return parse_rollouts(parser)


def parse_rollouts(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line, with the flags of all benchmarks that roll out."""
    add = parser.add_argument
    add("--reference", nargs="+", required=True, help="folders or files of MD")
    add("--rollouts", type=Path, help="folder of rollouts; beside --output")
    add("--model_lag", type=float, default=10.0, help="ps, of Markov models, at least")
    add("--replicas_per_lane", type=int, default=2, help="from its first frame")
    add("--seed", type=int, default=0, help="of the rollouts")
    add(
        "--gate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw broken jumps again",
    )
    flags = parser.parse_args()
    flags.rollouts = flags.rollouts or flags.output.with_suffix("")
    return flags


def main() -> None:
    """Rolls out and judges peptide by peptide, and writes the figures as they come."""
    flags = parse()
    console = Console()
    paths = find(flags.reference)
    network = None
    if flags.checkpoint:
        network = network_of(load_weights(flags.checkpoint), flags.num_steps, paths)
    lines: list[dict[str, Any]] = []
    asked = {name: str(value) for name, value in vars(flags).items()}
    before, seconds = time.process_time(), 0.0
    for path in paths:
        reference = read(path)
        rolled = (
            control(reference)
            if flags.control
            else rolled_of(network, reference, flags)
        )
        before = time.process_time()
        even = reference._replace(lanes=reference.lanes[::2])
        lines.append(judge(rolled, even if flags.control else reference, flags))
        seconds += time.process_time() - before
        found = lines[-1]
        console.print(
            f"{found['name']}: ratio {trajectories.cell(found.get('ratio'), 2)}, "
            f"{len(found['lost'])} lost, {rolled.cpu_seconds:.1f} CPU-s"
        )
        report.write(flags.output, flags=asked, peptides=lines)
    summaries = show(lines)
    report.write(
        flags.output, flags=asked, cpu_seconds_of_analysis=seconds,
        lengths=summaries, peptides=lines,
    )  # fmt: skip


if __name__ == "__main__":
    main()
