"""Blocks of the field as backbones of both models: equal parameters, equal CPU time.

    python -m benchmarks.backbone_training --model=symphony -- \
      --config.data.path=workdir/qm9.npz
    python -m benchmarks.backbone_training --model=equijump -- \
      --config.data.sources="('mine:traj.xtc@traj.pdb',)"

Each block takes the place of the model's own in its config, with the number of channels
that makes the parameters most nearly as many. The time of a step, compilation aside,
tells how many fit into `--cpu_minutes`, and the learning rate falls over these. What
follows `--` goes to the training. Networks of Symphony draw 1,000 molecules at
temperature 1. Folders in `--workdir` keep what is trained: a run that was stopped goes
on, and more `--blocks` or `--seeds` add lines to the file of results.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging

import symphony
from benchmarks import markdown, report
from common.commands import cli
from common.errors import RunError
from common.runs import config as configs
from common.runs.metrics import read_metrics
from equijump import build as equijump_build
from symphony import build as symphony_build


class Recipe(NamedTuple):
    """How a model is trained.

    Attributes:
        config: name of the config.
        own: its block.
        init: `(config, key) -> parameters`.
        figure: figure of the validation.
    """

    config: str
    own: str
    init: Callable[..., Any]
    figure: str


RECIPES = {
    "symphony": Recipe(
        "qm9_cpu", "symphony", symphony_build.init_params, "validation_nll"
    ),
    "equijump": Recipe(
        "ala2", "equijump", equijump_build.init_params, "validation_error"
    ),
}
DENSE = ("nequip", "nequix", "mace", "tfn", "e3schnet", "equiformer_v1")
"""Blocks whose messages have all paths, as published, and not the config's product."""
OTHERS = ("nequix", "mace", "equiformer_v3")
MULTIPLE = 4
"""Of the channels, for the heads of attention."""
TIMED_STEPS, LOGGED_STEPS, NUM_MOLECULES = 80, 5, 1_000


def config_of(model: str) -> ml_collections.ConfigDict:
    """Returns the config of a model."""
    return configs.find(model, RECIPES[model].config).get_config()


def overrides(model: str, block: str) -> dict[str, Any]:
    """Returns the fields of `config.model` for a block, but its channels."""
    if block == RECIPES[model].own:
        return {}
    found: dict[str, Any] = {"block": block}
    if block in DENSE:
        found["product"] = "clebsch_gordan"
    return found


def num_parameters(model: str, config: ml_collections.ConfigDict) -> int:
    """Returns how many parameters a network of a config has."""
    init = lambda key: RECIPES[model].init(config, key)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def channels_for(model: str, block: str) -> tuple[int, int]:
    """Returns the channels that make a network as large as with its own block.

    Returns:
        The channels, and the parameters.
    """
    config = config_of(model)
    own, due = config.model.num_channels, num_parameters(model, config)
    if block == RECIPES[model].own:
        return own, due
    config.model.update(overrides(model, block))

    def count(channels: int) -> int:
        config.model.num_channels = MULTIPLE * channels
        return num_parameters(model, config)

    low, high = 1, 2 * own
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= due else (low, middle)
    sizes = {channels: count(channels) for channels in (low, high)}
    best = min(sizes, key=lambda channels: abs(np.log(sizes[channels] / due)))
    return MULTIPLE * best, sizes[best]


def train(
    model: str, folder: Path, flags: Sequence[str], fields: dict[str, Any]
) -> None:
    """Trains in a process of its own, which goes on with what the folder holds.

    Raises:
        RunError: It failed.
    """
    own = [f"--{name}={value}" for name, value in fields.items()]
    words = [sys.executable, "-m", f"{model}.cli", "train", *own, *flags]
    if subprocess.run([*words, f"--workdir={folder}"], check=False).returncode:
        raise RunError(f"{folder}: the training failed; run again, it goes on")


def seconds_of_a_step(folder: Path) -> float:
    """Returns the CPU seconds of a step of a run, compilation aside.

    Compilation falls into few of the logged intervals, so that their median lacks it.
    """
    records = read_metrics(folder)
    steps = np.diff([record["step"] for record in records])
    seconds = np.diff([record["cpu_seconds"] for record in records])
    return float(np.median((seconds / np.maximum(steps, 1))[steps > 0]))


def measure(
    model: str, block: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Trains a network and returns its figures."""
    folder = options.workdir / model / f"{block}_{seed}"
    channels, size = channels_for(model, block)
    logging.info("%s of %s: %d channels, %d parameters", block, model, channels, size)
    chosen = overrides(model, block) | {"num_channels": channels}
    fields = {"config": RECIPES[model].config, "config.seed": seed}
    fields |= {f"config.model.{name}": value for name, value in chosen.items()}
    timing = {
        "config.train.num_steps": TIMED_STEPS,
        "config.train.log_every": LOGGED_STEPS,
        "config.train.num_validation": 32,
    }
    train(model, folder / "timing", options.flags, fields | timing)
    seconds = seconds_of_a_step(folder / "timing")
    num_steps = round(60.0 * options.cpu_minutes / seconds)
    schedule = {
        "config.train.num_steps": num_steps,
        "config.train.eval_every": max(1, num_steps // 4),
    }
    train(model, folder / "run", options.flags, fields | schedule)
    last = read_metrics(folder / "run")[-1]
    found = {
        "channels": channels, "parameters": size, "seconds_a_step": seconds,
        "num_steps": num_steps, **last,
    }  # fmt: skip
    if model == "symphony":
        drawn = symphony.load(folder / "run").sample(NUM_MOLECULES, seed=seed)
        found["valid"] = len(drawn) / NUM_MOLECULES
    return found


def table(model: str, networks: dict[str, dict[str, Any]]) -> str:
    """Returns the table of a model: a line for each block, means over its seeds."""
    figure = RECIPES[model].figure
    head = ("block", "channels", "parameters", "steps", figure, "valid, %", "seeds")
    rows = [[*head]]
    for block in dict.fromkeys(name.rsplit(" ", 1)[0] for name in networks):
        own = [v for name, v in networks.items() if name.rsplit(" ", 1)[0] == block]
        valid = [one["valid"] for one in own if "valid" in one]
        rows.append([
            f"`{block}`", str(own[0]["channels"]), f"{own[0]['parameters']:,}",
            f"{own[0]['num_steps']:,}",
            markdown.spread([one[figure] for one in own], digits=4),
            markdown.spread(valid, 100.0) if valid else markdown.NONE, str(len(own)),
        ])  # fmt: skip
    return markdown.table(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = report.parser(__doc__, "backbone_training")
    add = parser.add_argument
    add("--model", choices=[*RECIPES], required=True)
    add("--blocks", nargs="+", help="the model's own, and others, by default")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--cpu_minutes", type=float, default=40.0, help="of a training's steps")
    add("--workdir", type=Path, default=Path("workdir/backbones"))
    add("flags", nargs="*", help="flags of the training, after --")
    options = parser.parse_args(argv)
    known = markdown.read(options.output) or {}
    found = {model: dict(known.get(model, {})) for model in RECIPES}
    blocks = options.blocks or [RECIPES[options.model].own, *OTHERS]
    for seed in options.seeds:
        for block in blocks:
            name = f"{block} {seed}"
            found[options.model][name] = measure(options.model, block, seed, options)
            report.write(options.output, cpu_minutes=options.cpu_minutes, **found)
    sys.stdout.write(table(options.model, found[options.model]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.backbone_training", main))
