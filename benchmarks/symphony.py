"""Symphony's speed: cutting, training steps, sampling, compilation, padding.

Run: `python -m benchmarks.symphony` (about six CPU-minutes). Molecules are those of
the packaged QM9 sample, in the buckets of each config. Times are process-CPU seconds,
with the rate of a 2048^3 matrix product beside them. A fragment is one step of one
molecule. The reference's figures are those of the original implementation of Symphony
on two CPU cores with jax 0.4.28.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.console import Console

from benchmarks import report, timing
from common.nn.conditions import known
from common.runs import training
from configs.symphony import qm9_cpu, qm9_paper
from symphony import build, data, generate, slots, weights

# Seconds are of CPU time.
REFERENCE = {
    "cutter, fragments per second": 227.0,
    "training step of the paper's model, fragments per second": 3.7,
    "sampling, seconds per molecule": 6.0,
    "compilation, seconds per bucket": 90.0,
}
NUM_SLOTS = 256


class Line(NamedTuple):
    """One measured figure; `target` and `reference` are None where there is none."""

    name: str
    value: float
    target: str | None
    reference: float | None
    note: str


def read_packed(config: ml_collections.ConfigDict) -> tuple[data.Batch, ...]:
    """Packs the training molecules of the packaged sample."""
    species = tuple(config.data.species)
    molecules, _ = data.read_molecules(
        "qm9-sample", species, config.data.max_atoms, split="train"
    )
    buckets = data.choose_buckets(molecules.num_atoms, config.data.num_buckets)
    return data.pack(molecules, species, buckets)


def some_rows(batch: data.Batch, count: int) -> data.Batch:
    """Returns molecules of a bucket drawn at random, on the device."""
    rows = np.random.default_rng(0).permutation(len(batch.species))[:count]
    return jax.tree.map(lambda x: jnp.asarray(x[rows]), batch)


def fullest(packed: tuple[data.Batch, ...]) -> data.Batch:
    """Returns the bucket with most molecules."""
    return max(packed, key=lambda bucket: len(bucket.species))


def cutter(packed: tuple[data.Batch, ...], rounds: int = 5) -> Line:
    """Times cutting in every bucket, each with its share of the molecules."""
    config = qm9_cpu.get_config()

    @jax.jit
    @jax.vmap
    def run(key: jax.Array, batch: data.Batch) -> Any:
        return build.draw_cut(config, key, *batch[:3])

    num_fragments, seconds = 0.0, 0.0
    for bucket in packed:
        batch = some_rows(bucket, 256)
        keys = jax.random.split(jax.random.key(0), len(batch.species))
        times = timing.interleaved({"cut": timing.block(run, keys, batch)}, rounds)
        share = len(bucket.species) / len(batch.species)
        num_fragments += share * float(jnp.sum(batch.node_mask))
        seconds += share * float(np.median(times.seconds["cut"]))
    name = "cutter, fragments per second"
    note = "random numbers included"
    return Line(name, num_fragments / seconds, ">= 20,000", REFERENCE[name], note)


def random_params(config: ml_collections.ConfigDict) -> Any:
    """Returns weights of ordinary size, without compiling their initialisation."""
    shapes = jax.eval_shape(partial(build.init_params, config), jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        scale = 1.0 / np.sqrt(max(leaf.shape[-2] if leaf.ndim > 1 else 1, 1))
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


class StepTime(NamedTuple):
    """CPU seconds of a step, fragments in it, and CPU seconds of compilations."""

    seconds: float
    fragments: float
    compilations: tuple[float, ...]


def training_step(
    config: ml_collections.ConfigDict, batches: list[data.Batch], rounds: int
) -> StepTime:
    """Times the training step on the last of some batches, loss to update.

    Every batch is of another bucket. The first compilation includes that of the update,
    which all buckets share.
    """
    optimizer = training.make_optimizer(config.train)
    step = training.make_train_step(
        build.make_loss(config, 18.0),
        optimizer,
        config.train.ema_decay,
        num_microbatches=config.train.num_microbatches,
    )
    state = training.make_state(random_params(config), optimizer)

    def run(batch: data.Batch) -> None:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(1))
        jax.block_until_ready((state, metrics))

    compilations, seconds = [], 0.0
    for batch in batches:
        first = timing.cpu_seconds(partial(run, batch))
        times = [timing.cpu_seconds(partial(run, batch)) for _ in range(rounds)]
        seconds = float(np.median(times))
        compilations.append(first - seconds)
    fragments = float(len(batches[-1].species))
    if config.kind == "symphony":
        fragments = float(jnp.sum(batches[-1].node_mask))
    return StepTime(seconds, fragments, tuple(compilations))


def sampling(name: str, num_molecules: int) -> tuple[Line, Line]:
    """Times sampling from nothing at temperature one, and its compilation.

    Args:
        name: name of packaged weights.
        num_molecules: number of molecules to sample.
    """
    loaded = weights.load_weights(name)
    config, params, model = loaded.config, loaded.params, loaded.model
    decoder = build.kind_of(config).decoder
    settings = slots.Settings(
        *(jnp.ones(()) for _ in range(3)),
        conditions=known({"noise_std": jnp.zeros(())}),
        max_atoms=jnp.array(config.sample.max_atoms, jnp.int32),
    )
    capacity = config.sample.max_atoms + 1
    run = generate.make_run(decoder, model, "exact")
    # Slots that are all done compile the loop and take no step.
    done = generate.empty_slots(decoder, model, capacity, NUM_SLOTS)
    compilation = timing.cpu_seconds(
        timing.block(run, params, done, jax.random.key(0), settings, 4)
    )
    nothing = slots.Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    begin = time.process_time()
    drawn = generate.generate(
        decoder, model, params, iter(range(num_molecules)), 0, settings,
        lambda index: nothing, "exact", NUM_SLOTS, capacity,
    )  # fmt: skip
    finished = list(drawn)
    seconds = (time.process_time() - begin) / num_molecules
    atoms = np.mean([len(molecule.species) for molecule in finished])
    note = f"{num_molecules} molecules of {atoms:.1f} atoms"
    what = "sampling, seconds per molecule"
    return (
        Line(f"{what}: {name}", seconds, "<= 0.15", REFERENCE[what], note),
        compile_line(f"sampler of {name}", compilation, f"{NUM_SLOTS} slots"),
    )


def first_molecule() -> tuple[Line, Line]:
    """Times `symphony sample --num_molecules=1`, without and with its cached programs.

    CPU time of the whole process, imports included.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        command = [sys.executable, "-m", "symphony.sample", "--num_molecules=1"]
        for what, target in (("cold", "<= 15"), ("warm", "<= 5")):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            output = f"--output={folder}/{what}.sdf"
            subprocess.run(
                [*command, output], env=environment, check=True, capture_output=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime
            seconds -= before.ru_utime + before.ru_stime
            name = f"first molecule, {what}, seconds"
            lines.append(Line(name, seconds, target, None, "a process of its own"))
    return lines[0], lines[1]


def loading(path: str) -> Line:
    """Times the reading of a whole data set."""
    begin = time.process_time()
    molecules, _ = data.read_molecules(path, (1, 6, 7, 8, 9), 29)
    seconds = time.process_time() - begin
    note = f"{len(molecules.num_atoms)} molecules of {Path(path).name}"
    return Line("reading a data set, seconds", seconds, "< 15", None, note)


def compile_line(what: str, seconds: float, note: str) -> Line:
    """Makes the line of a compilation, without any cache."""
    name = "compilation, seconds per bucket"
    return Line(f"{name}: {what}", seconds, "<= 20", REFERENCE[name], note)


def training_lines(rounds: int) -> list[Line]:
    """Times the training steps of the configs, with their compilations."""
    usual = qm9_cpu.get_config()
    paper_name = "training step of the paper's model, fragments per second"
    cases: dict[str, tuple[Any, str | None]] = {
        "training step of qm9_cpu, fragments per second": (usual, ">= 300"),
        paper_name: (qm9_paper.get_config(), ">= 10"),
    }
    lines = []
    for name, (config, target) in cases.items():
        packed = read_packed(config)
        used = (
            [fullest(packed)] if config is not usual else [packed[0], fullest(packed)]
        )
        batches = [some_rows(bucket, config.train.batch_size) for bucket in used]
        measured = training_step(config, batches, rounds)
        size = batches[-1].species.shape[1]
        note = f"{measured.fragments:.0f} in a step, bucket of {size} atoms"
        rate = measured.fragments / measured.seconds
        lines.append(Line(name, rate, target, REFERENCE.get(name), note))
        what = name.removesuffix(", fragments per second")
        notes = ("first bucket, and the update of all", "next bucket")
        lines += map(compile_line, [what] * 2, measured.compilations, notes)
    return lines


def measure(
    path: str, num_molecules: int, rounds: int, report: Callable[[str], None]
) -> Any:
    """Runs every case; returns its lines and the rate of the matrix product."""
    packed = read_packed(qm9_cpu.get_config())
    fill = 100 * data.fill_ratio(packed)
    lines = [Line("fill of the padded arrays, %", fill, ">= 70", None, "")]
    report("cutter")
    lines.append(cutter(packed))
    lines.append(loading(path))
    report("first molecule")
    lines += first_molecule()
    report("training steps")
    lines += training_lines(rounds)
    report("sampling")
    for name in ("qm9_cpu", "qm9"):
        lines += sampling(name, num_molecules)
    return lines, timing.matmul_gigaflops()


def main() -> None:
    """Measures, prints a table and writes the figures with the machine."""
    parser = report.parser(__doc__, "symphony")
    parser.add_argument("--data", default="qm9-sample", help="file or name, to read")
    parser.add_argument("--num_molecules", type=int, default=512, help="to sample")
    parser.add_argument("--rounds", type=int, default=5, help="training steps timed")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    lines, rate = measure(
        options.data, options.num_molecules, options.rounds, Console().print
    )
    report.show(
        "CPU seconds of this process, float32",
        ("what", "measured", "target", "reference", "note"),
        [
            (
                line.name,
                f"{line.value:,.{3 if line.value < 1 else 1}f}",
                line.target or "",
                "" if line.reference is None else f"{line.reference:g}",
                line.note,
            )
            for line in lines
        ],
        left=("what", "note"),
    )
    Console().print(f"2048^3 matmul: {rate:.0f} GFLOP per CPU second")
    report.write(
        options.output,
        matmul_gflop_per_cpu_second=rate,
        lines=[line._asdict() for line in lines],
    )


if __name__ == "__main__":
    main()
