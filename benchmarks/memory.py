"""Memory and traffic of a training step, on one device and on hundreds.

    python -m benchmarks.memory

compiles the two programs of a step (gradient and update) of both models and runs
neither: XLA says the bytes of arguments, results and temporary arrays on each device,
and the program what its collectives exchange. Devices are virtual ones of the CPU.
Three parts (`--parts`): `ways` to save memory, with ratios against a plain step;
`devices`, 8, 64 and 512 of them; and `passes`, which times a step and the reading of
data here, and says what a pass over a published data set takes. A part that is not
asked for stays as it was.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import markdown, report, sizes, timing
from common.runs import config as configs
from common.runs import parallel, training
from equijump import build as equijump
from equijump import train as equijump_train
from equijump.data import frames, pairs, segments, splits, store
from equijump.data.residues import NUM_TYPES
from equijump.measure import measure
from symphony import build as symphony
from symphony.data.batches import Batch, batch_at

MIB = 2**20
DEVICES = 8, 64, 512
MEAN_STEPS = 18.0
"""Steps of a molecule, by which its loss is divided."""

UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""Options for programs that never run: machine code alone depends on them."""

BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s64": 8}
COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter"
_RESULT = re.compile(
    rf"= (\(.*?\)|\S+) ({'|'.join(COLLECTIVES)})(?:-start)?\(.*?"
    r"replica_groups=(?:\{\{([\d,]+)|\[\d+,(\d+)\])"
)
_ARRAY = re.compile(rf"({'|'.join(BYTES)})\[([\d,]*)\]")


class Case(NamedTuple):
    """A model, and what its step is given.

    Attributes:
        name: name of the model, the config and the size of an example.
        config: config of a run.
        loss_fn: loss of a batch.
        params: shapes of the parameters.
        example: batch of one.
        batch_size: examples of a step on one device.
    """

    name: str
    config: ml_collections.ConfigDict
    loss_fn: training.LossFn
    params: Any
    example: Any
    batch_size: int


def of_symphony(name: str, num_atoms: int, batch_size: int) -> Case:
    """Returns a case of Symphony: molecules of one size."""
    config = configs.find("symphony", name).get_config()
    shape = 1, num_atoms
    rng = np.random.default_rng(0)
    example = Batch(
        rng.normal(0.0, 2.0, (*shape, 3)).astype(np.float32),
        rng.integers(len(config.data.species), size=shape, dtype=np.int32),
        np.ones(shape, bool),
        {},
    )
    params = jax.eval_shape(partial(symphony.init_params, config), jax.random.key(0))
    loss_fn = symphony.make_loss(config, MEAN_STEPS)
    title = f"Symphony `{name}`, {num_atoms} atoms"
    return Case(title, config, loss_fn, params, example, batch_size)


def of_equijump(name: str, num_residues: int, batch_size: int) -> Case:
    """Returns a case of EquiJump: pairs of a chain of random sequence."""
    config = configs.find("equijump", name).get_config()
    config.model.residue_types = NUM_TYPES
    config.model.conditions = ("lag",)
    one = sizes.trajectory(num_residues - 2)  # And its two caps.
    example = sizes.batch_of(one, 1)
    found = splits.Segments(
        (segments.Segment(one, 0, 8),), (), pairs.Lags((sizes.LAG,), False),
        num_residues, NUM_TYPES,
    )  # fmt: skip
    statistics = measure(found, align=True, cloud=config.model.cloud)
    params = jax.eval_shape(partial(equijump.init_params, config), jax.random.key(0))
    loss_fn = equijump_train.make_loss(config, statistics)
    title = f"EquiJump `{name}`, {num_residues} residues"
    return Case(title, config, loss_fn, params, example, batch_size)


class Step(NamedTuple):
    """What the programs of a step need on each device, in bytes, and how they talk.

    Attributes:
        state: parameters, their average, and the optimiser's state.
        gradient: temporary arrays and results of the gradient.
        update: temporary arrays of the update.
        most: the most at any time, the state among it.
        exchanged: operands of collectives by kind.
        seconds: time of both compilations.
    """

    state: int
    gradient: int
    update: int
    most: int
    exchanged: dict[str, int]
    seconds: float


def measure_step(
    case: Case,
    mesh: Mesh | None = None,
    num_microbatches: int = 1,
    shards: bool = False,
) -> Step:
    """Compiles the programs of a step for so many examples on each device."""
    optimizer = training.make_optimizer(case.config.train, shards)
    step = training.make_train_step(
        case.loss_fn, optimizer, 0.999, mesh, num_microbatches, True, shards
    )
    state = jax.eval_shape(
        partial(training.make_state, optimizer=optimizer), case.params
    )
    key = jax.eval_shape(jax.random.key, 0)
    num_devices = 1 if mesh is None else mesh.shape["data"]
    size = case.batch_size * num_devices
    grown = lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    batch = jax.tree.map(grown, case.example)
    if mesh is not None:
        state = _on(state, _state_shardings(state, mesh, shards))
        batch = _on(batch, NamedSharding(mesh, PartitionSpec("data")))
        key = _on(key, NamedSharding(mesh, PartitionSpec()))
    start = time.perf_counter()
    gradients, update = step.programs
    lowered = gradients.lower(state.params, state.step, batch, key)
    first = lowered.compile(UNOPTIMISED)
    results = lowered.out_info
    if mesh is not None:
        results = jax.tree.map(_with, results, first.output_shardings)
    second = update.lower(state, *results).compile(UNOPTIMISED)
    seconds = time.perf_counter() - start
    one, two = first.memory_analysis(), second.memory_analysis()
    whole = _bytes_of(state, num_devices if shards else 1)
    of_gradient = one.temp_size_in_bytes + one.output_size_in_bytes
    of_update = two.temp_size_in_bytes
    examples = one.argument_size_in_bytes - _bytes_of(
        state.params, num_devices if shards else 1
    )
    exchanged: dict[str, int] = {}
    for kind, count in (*collectives(first), *collectives(second)):
        exchanged[kind] = exchanged.get(kind, 0) + count
    most = whole + max(examples + of_gradient, one.output_size_in_bytes + of_update)
    return Step(whole, of_gradient, of_update, most, exchanged, seconds)


def _state_shardings(state: Any, mesh: Mesh, shards: bool) -> Any:
    if shards:
        return parallel.shardings_of(state, mesh)
    return NamedSharding(mesh, PartitionSpec())


def _with(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _on(tree: Any, shardings: Any) -> Any:
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: _with(leaf, shardings), tree)
    return jax.tree.map(_with, tree, shardings)


def _bytes_of(tree: Any, num_devices: int) -> int:
    """Returns the bytes of a tree on a device, cut as `parallel.shard` does."""
    cut = lambda leaf: (
        num_devices if parallel.cut_axis(leaf.shape, num_devices) >= 0 else 1
    )
    return sum(
        leaf.size * leaf.dtype.itemsize // cut(leaf) for leaf in jax.tree.leaves(tree)
    )


def collectives(compiled: jax.stages.Compiled) -> Iterator[tuple[str, int]]:
    """Yields the kind and the bytes of the operands of each collective of a program."""
    for line in compiled.as_text().splitlines():
        found = _RESULT.search(line)
        if found is None:
            continue
        result, kind, members, count = found.groups()
        size = int(count) if count else members.count(",") + 1
        num_bytes = sum(
            BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
            for dtype, shape in _ARRAY.findall(result)
        )
        if kind == "all-gather":
            num_bytes //= size
        if kind == "reduce-scatter":
            num_bytes *= size
        yield kind, num_bytes


def ways(case: Case) -> Iterator[dict[str, Any]]:
    """Yields the memory of a step by each way to save it, and the ratio to a plain one.

    Of eight devices each has as many examples as the one device has.
    """
    recomputing = jax.checkpoint(
        case.loss_fn, policy=jax.checkpoint_policies.dots_saveable
    )
    mesh = parallel.make_mesh(DEVICES[0])
    found = {
        "plain": partial(measure_step, case),
        "4 microbatches": partial(measure_step, case, None, 4),
        "rematerialised, products kept": partial(
            measure_step, case._replace(loss_fn=recomputing)
        ),
        "products in bfloat16": partial(_in_bfloat16, case),
        f"{DEVICES[0]} devices": partial(measure_step, case, mesh),
        f"{DEVICES[0]} devices, sharded": partial(
            measure_step, case, mesh, shards=True
        ),
    }
    plain = None
    for name, measured in found.items():
        step = measured()
        plain = plain or step
        yield {
            "model": case.name,
            "way": name,
            **_megabytes(step),
            "ratio": plain.most / step.most,
            "state ratio": plain.state / step.state,
        }


def _in_bfloat16(case: Case) -> Step:
    with jax.default_matmul_precision("bfloat16"):
        return measure_step(case)


def on_devices(case: Case) -> Iterator[dict[str, Any]]:
    """Yields memory and traffic of a device in a run of many."""
    for shards in (False, True):
        for num_devices in DEVICES:
            step = measure_step(case, parallel.make_mesh(num_devices), shards=shards)
            yield {
                "model": case.name,
                "devices": num_devices,
                "sharded": shards,
                **_megabytes(step),
                **{
                    f"{kind} MiB": step.exchanged.get(kind, 0) / MIB
                    for kind in COLLECTIVES
                },
                "exchanged MiB": sum(step.exchanged.values()) / MIB,
            }


def _megabytes(step: Step) -> dict[str, float]:
    names = "state", "gradient", "update", "most"
    sizes = {f"{name} MiB": getattr(step, name) / MIB for name in names}
    return sizes | {"compilation s": step.seconds}


class Pass(NamedTuple):
    """A published data set, and the examples that its training takes.

    Attributes:
        data: name of the data set.
        examples: number of its conformers or frames.
        case: model, and an example of the usual size.
        read: examples a second that are read, given the case.
    """

    data: str
    examples: float
    case: Callable[[], Case]
    read: Callable[[Case], float]


PASSES = (
    # Axelrod and Gomez-Bombarelli 2022, table 2: 304,466 molecules of 102.6 conformers.
    Pass(
        "GEOM-Drugs", 304_466 * 102.6, partial(of_symphony, "qm9_cpu", 46, 2),
        lambda case: rate(_reader_of_molecules(case), 64),
    ),
    # Mirarchi et al. 2024: more than 62 ms, a frame each ns; crops of 128 residues.
    Pass(
        "mdCATH", 62e6, partial(of_equijump, "mdcath", 128, 2),
        lambda case: rate(_reader_of_pairs(), 64),
    ),
)  # fmt: skip


def one_pass(row: Pass) -> dict[str, Any]:
    """Returns what one pass over a data set takes, from a step and reads timed here."""
    case = row.case()
    optimizer = training.make_optimizer(case.config.train)
    step = training.make_train_step(case.loss_fn, optimizer, 0.999)
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(0.0, 0.1, x.shape), x.dtype)
    state = training.make_state(jax.tree.map(draw, case.params), optimizer)
    many = lambda x: np.repeat(x, case.batch_size, axis=0)
    batch, key = jax.tree.map(many, case.example), jax.random.key(0)

    def call() -> None:
        nonlocal state
        state, metrics = step(state, batch, key)
        jax.block_until_ready(metrics)

    call()
    seconds = [timing.cpu_seconds(call) / case.batch_size for _ in range(5)]
    of_step, of_read = float(np.median(seconds)), 1.0 / row.read(case)
    days = row.examples * (of_step + of_read) / 86_400
    return {
        "data": row.data,
        "examples": row.examples,
        "model": case.name,
        "step CPU s": of_step,
        "read CPU s": of_read,
        "core days": days,
    }


def rate(read: Callable[[int], int], calls: int) -> float:
    """Returns the examples a CPU second that a function of the step reads."""
    read(0)
    start = time.process_time()
    count = sum(read(step) for step in range(1, calls + 1))
    return count / (time.process_time() - start)


def _reader_of_molecules(case: Case) -> Callable[[int], int]:
    """Returns what takes 128 molecules out of 20,000, which training has in memory."""
    packed = jax.tree.map(lambda x: np.repeat(x, 20_000, axis=0), case.example)
    return lambda step: len(batch_at((packed,), 128, 0, step).species)


def _reader_of_pairs() -> Callable[[int], int]:
    """Packs 2,000 frames of 128 residues into a store and returns what reads pairs."""
    one = sizes.trajectory(126)

    def pack(writer: store.Writer) -> None:
        for _ in range(250):
            writer.add(one.positions)
        writer.end(one.system, [store.Piece("chain", sizes.LAG)])

    entry = store.entry(hashlib.sha256(b"benchmarks.memory").hexdigest(), pack)
    found = frames.from_store(entry.trajectories[0], "chain")
    whole = [segments.Segment(found, 0, len(found.positions))]
    plan = pairs.make_plan(whole, pairs.Lags((sizes.LAG,), is_range=False))
    return lambda step: len(pairs.draw(plan, 128, 128, 0, step).tokens)


CASES = (
    partial(of_symphony, "qm9_cpu", 29, 8),
    partial(of_equijump, "peptides", 20, 8),
)
PARTS = "ways", "devices", "passes"


def tables(figures: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Returns the tables of the guide, by the name of their marks."""
    head = ["", "state", "gradient", "update", "at most", "state, plain over this",
            "at most, plain over this"]  # fmt: skip
    found = [head]
    for row in figures["ways"]:
        sizes = [
            f"{row[f'{n} MiB']:.1f}" for n in ("state", "gradient", "update", "most")
        ]
        ratios = [f"{row[name]:.2f}" for name in ("state ratio", "ratio")]
        found.append([f"{row['model']}: {row['way']}", *sizes, *ratios])
    ways_table = markdown.table(found)
    found = [["", "devices", "state", "at most", *COLLECTIVES, "exchanged"]]
    for row in figures["devices"]:
        names = ("state", "most", *COLLECTIVES, "exchanged")
        layout = "in parts" if row["sharded"] else "whole"
        sizes = [f"{row[f'{name} MiB']:.2f}" for name in names]
        found.append([f"{row['model']}: {layout}", f"{row['devices']}", *sizes])
    devices_table = markdown.table(found)
    found = [["", "examples", "step, CPU-s", "reading, CPU-s", "core-days a pass"]]
    for row in figures["passes"]:
        found.append([
            f"{row['data']}; {row['model']}", f"{row['examples'] / 1e6:.1f} million",
            f"{row['step CPU s']:.3f}", f"{row['read CPU s']:.6f}",
            f"{row['core days']:,.0f}",
        ])  # fmt: skip
    return {
        "ways": ways_table,
        "devices": devices_table,
        "passes": markdown.table(found),
    }


def main() -> None:
    """Measures the parts that are asked for, and writes the figures after each row."""
    parser = report.parser(__doc__, "memory")
    add = parser.add_argument
    add("--parts", nargs="*", default=[*PARTS], choices=PARTS)
    add("--docs", nargs="*", type=Path, default=[], help="pages with marks of tables")
    flags = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    known = json.loads(flags.output.read_text()) if flags.output.exists() else {}
    figures = {part: known.get(part, []) for part in PARTS}
    commands = known.get("commands", {})
    found = {"ways": ways, "devices": on_devices}
    for part in flags.parts:
        figures[part], commands[part] = [], report.command()
        if part == "passes":
            rows = map(one_pass, PASSES)
        else:
            rows = (row for make in CASES for row in found[part](make()))
        for row in rows:
            logging.info("%s: %s", part, row)
            figures[part].append(row)
            report.write(flags.output, **figures, commands=commands)
    for page in flags.docs:
        markdown.put(page, tables(figures))


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    main()
