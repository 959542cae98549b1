"""Rolls out trajectories: `equijump sample`.

Replica `i` of a seed is the same however many run beside it. Frame 0 is the start,
frame `k` lies `k * every` jumps later. Positions are in Å and times in ps.
"""

import argparse
import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from common.commands import cli, shards
from common.errors import RunError, UsageError
from common.runs.weights import versions
from equijump import confidence, outcome, sampler, trajfile
from equijump.options import MAX_REDRAWS, Options, Request, choose, take_starts
from equijump.rollout import Chunk, Plan, State
from equijump.starts import default_for
from equijump.weights import Weights, load_weights, packaged_names

PS_PER_NS = 1_000.0

_STOPPED = (
    "stopped after %d of %d jumps, since the gate refuses nearly all draws; --no-gate "
    "goes on"
)


def header(
    weights: Weights, options: Options, seed: int, suffix: str
) -> dict[str, Any]:
    """Returns what decides the trajectories, for `sample.json`."""
    return {
        "checkpoint": weights.name,
        "weights_sha256": weights.checksum,
        "config_sha256": weights.config_checksum,
        "seed": seed,
        "settings": {
            "system": options.name,
            "replicas": len(options.starts),
            "starts_sha256": hashlib.sha256(options.starts.tobytes()).hexdigest(),
            "lag": None,
            **options.conditions,
            "num_steps": options.num_steps,
            "method": options.method,
            "every": options.every,
            "frame_time": options.frame_time,
            "max_redraws": options.max_redraws,
            "repulsion": options.repulsion,
            "format": suffix,
        },
        "versions": versions("equijump", "jax", "numpy", "mdtraj"),
        "dynamics": weights.dynamics or None,
        "outside_training": list(options.outside),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `equijump sample` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    total, seed = arguments.num_jumps, arguments.seed
    shard = shards.read(arguments.shard)
    arguments.output = shards.path_of(arguments.output, shard)
    weights, options = _choose(arguments)
    sampler.check_numbers(seed, total, options.every, arguments.chunk)
    count = arguments.replicas
    part = shards.span(shard, count, what="replicas")
    head = header(weights, options, seed, arguments.format)
    if shard is not None:
        place = shards.describe(shard, part, count)[shards.RECORD]
        head[shards.RECORD] = {**place, "num_jumps": total}
    for path in trajfile.files_of(arguments.output, head):
        cli.check_apart(path, *(arguments.start or ()))
    cli.announce_device()
    own = options._replace(starts=options.starts[part.start : part.stop])
    plan = sampler.plan_of(own, seed, arguments.chunk)._replace(first=part.start)
    jump = sampler.make_jump(
        weights, options.num_steps, options.method, options.repulsion
    )
    opened = trajfile.open_output(
        arguments.output, head, options.system, arguments.overwrite
    )
    with opened as output:
        done = output.num_jumps
        if done >= total:
            summary = _summary(weights, output.state, done, plan)
            told = outcome.describe(summary, plan.max_redraws is not None)
            sys.stdout.write(f"{arguments.output}: all {done} jumps are done; {told}\n")
        else:
            drawn = sampler.draw(jump, weights.params, plan, output.state, done, total)
            summary = _write_all(output, drawn, plan, total, weights)
    _tell_trust(weights, summary)
    outcome.check(summary)
    return 0


def _choose(arguments: argparse.Namespace) -> tuple[Weights, Options]:
    """Returns the weights, those that serve the start where none are named."""
    named = arguments.checkpoint
    weights = None if named is None else load_weights(named)
    arguments.conditions = dict(map(_condition, arguments.condition))
    asked = {name: getattr(arguments, name) for name in Request.__annotations__}
    given, rest = take_starts(asked, arguments.replicas, arguments.seed)
    if weights is None:
        weights = load_weights(default_for(given, packaged_names()))
    return weights, choose(weights, arguments.replicas, given=given, **rest)


def _tell_trust(weights: Weights, summary: outcome.Summary) -> None:
    """Tells of which dynamics a rollout is, and how far to trust it."""
    if weights.dynamics:
        sys.stdout.write(f"times and weights are those of {weights.dynamics}\n")
    if weights.transferable is not None:
        sys.stdout.write(f"{confidence.describe(summary.confidence)}\n")


def _write_all(
    output: trajfile.Output,
    drawn: Iterator[Chunk],
    plan: Plan,
    total: int,
    weights: Weights,
) -> outcome.Summary:
    """Writes chunks as they come, and reports the speed and what came of it."""
    done, state = output.num_jumps, output.state
    per_jump, unit = _work(plan)
    began, mark = time.process_time(), None
    try:
        with cli.progress(total, "sampling", "jumps", completed=done) as advance:
            for chunk in drawn:
                trajfile.append(output, chunk)
                count = chunk.num_jumps - done
                _, done, state = chunk
                if done < total and outcome.is_hopeless(state):
                    logging.warning(_STOPPED, done, total)
                    break
                now, note = time.monotonic(), ""
                if mark is not None:
                    rate = (done - mark[1]) * per_jump / (now - mark[0])
                    note = f"{rate:.3g} {unit}/s"
                elif count > 0:  # Compilation is over.
                    mark = now, done
                advance(count, note)
    except BaseException:
        with contextlib.suppress(
            OSError, RunError
        ):  # The first error is the one to tell.
            _write_result(output, state, done, plan, weights)
        raise
    summary = _write_result(output, state, done, plan, weights)
    _report(output, plan, summary, time.process_time() - began)
    return summary


def _write_result(
    output: trajfile.Output,
    state: State | None,
    num_jumps: int,
    plan: Plan,
    weights: Weights,
) -> outcome.Summary | None:
    """Writes what came of the rollout so far into `sample.json`; returns it."""
    if state is None:
        trajfile.write_header(output)
        return None
    summary = _summary(weights, state, num_jumps, plan)
    trust = confidence.to_json(summary.confidence)
    trajfile.write_header(output, outcome.to_json(summary), trust)
    return summary


def _summary(
    weights: Weights, state: State, num_jumps: int, plan: Plan
) -> outcome.Summary:
    summary = outcome.summary_of(state, num_jumps, plan.jump_time, plan.first)
    return outcome.with_confidence(summary, plan, weights)


def _work(plan: Plan) -> tuple[float, str]:
    """Returns how much a jump of all replicas makes, and its unit."""
    if "lag" not in plan.conditions:
        return len(plan.starts), "frames"
    return len(plan.starts) * plan.jump_time / PS_PER_NS, "ns"


def _report(
    output: trajfile.Output, plan: Plan, summary: outcome.Summary, seconds: float
) -> None:
    per_jump, unit = _work(plan)
    done, count = summary.num_jumps, summary.num_replicas
    made = (done - output.num_jumps) * per_jump
    sys.stdout.write(
        f"{output.folder}: {done // plan.every + 1} frames of {count} replicas, "
        f"{done * per_jump:g} {unit} in all, {made / seconds:.3g} {unit} per "
        f"CPU-second; {outcome.describe(summary, plan.max_redraws is not None)}\n"
    )


def _condition(text: str) -> tuple[str, float]:
    """Returns name and number of a `--condition`."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(
            f"--condition: expected NAME=VALUE with a number, found {text}"
        ) from None


_FLAGS: dict[str, dict[str, Any]] = {
    "checkpoint": {
        "help": "packaged weights or a run's folder; by default ala2 for alanine "
        "dipeptide, and peptides for any other",
    },
    "sequence": {"help": "one-letter codes of a peptide whose starts are built"},
    "start": {
        "nargs": "+",
        "help": "structures that replicas begin with in turn (default: of the weights)",
    },
    "topology": {"help": "of --start, where its files have none"},
    "select": {
        "default": "", "help": "atoms of --start, in MDTraj's language; by default all",
    },
    "add_caps": {
        "action": argparse.BooleanOptionalAction,
        "help": "ACE and NME on free ends; by default of --sequence, not of --start",
    },
    "system": {"help": "name, for weights of several systems"},
    "num_jumps": {"type": int, "default": 1_000, "help": "of each replica, in all"},
    "replicas": {"type": int, "default": 100, "help": "trajectories side by side"},
    "lag": {"type": float, "help": "ps, of a jump; by the config"},
    "ensemble": {
        "action": "store_true",
        "help": "draw each frame by itself, for weights that have learnt to",
    },
    "temperature": {
        "type": float,
        "help": "K; by the config; outside the training the nearest of it",
    },
    "condition": {
        "action": "append",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "another number that the network is given; may be repeated",
    },
    "method": {"help": "sampler of the transport; by the config"},
    "num_steps": {
        "type": int, "help": "evaluations of the network in a jump; by the config",
    },
    "seed": {"type": int, "default": 0, "help": "of the random numbers"},
    "output": {
        "type": Path, "default": Path("workdir/rollout"), "help": "folder to write",
    },
    "format": {
        "choices": trajfile.FORMATS, "default": "xtc", "help": "of trajectories",
    },
    "every": {"type": int, "default": 1, "help": "keep every n-th jump"},
    "gate": {
        "action": argparse.BooleanOptionalAction,
        "default": True,
        "help": "draw jumps again that break the geometry",
    },
    "max_redraws": {
        "type": int, "default": MAX_REDRAWS, "help": "of a jump by the gate",
    },
    "repulsion": {
        "type": float,
        "help": "least distances of atoms that no bonds join, in units of usual ones; "
        "0 for none; by the config",
    },
    "chunk": {
        "type": int, "default": sampler.CHUNK, "help": "frames between two writes",
    },
    "overwrite": {"action": "store_true", "help": "replace what --output has"},
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "equijump sample",
        "Rolls out trajectories. Run again after an interruption, it goes on.",
    )
    for name, keywords in _FLAGS.items():
        also = {"checkpoint": ["--weights"], "output": ["-o"]}.get(name, [])
        parser.add_argument(f"--{name}", *also, **keywords)
    shards.add_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("equijump sample", main))
