"""What a training step of EquiJump costs, against the number of residues.

Run: `python -m benchmarks.sizes`. Chains of random sequence are built, a pair is a
frame and the same with noise on it; time is process-CPU seconds of gradient and update
of one batch, memory the temporary buffers of the compiled program. Memory is kept from
step to step, as training does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

from benchmarks import report, timing
from common.commands import environment
from common.runs import config as configs
from equijump import build, builder, train
from equijump.data import frames, pairs, segments, splits
from equijump.data.residues import NUM_TYPES
from equijump.measure import measure

SIZES = (3, 10, 35, 80, 160)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
LAG = 10.0


class Size(NamedTuple):
    """Cost of a step at one number of residues, of one pair."""

    residues: int
    cpu_seconds: float
    megabytes: float


def trajectory(num_residues: int) -> frames.Trajectory:
    """Builds a capped chain, and moves its atoms a little from frame to frame."""
    rng = np.random.default_rng(num_residues)
    text = "".join(rng.choice(list(LETTERS), num_residues))
    names = ("ACE", *builder.parse(text), "NME")
    system, starts = builder.build(names, 1, 0)
    moved = 0.1 * np.cumsum(rng.normal(size=(8, *starts.shape[1:])), axis=0)
    positions = np.float32(starts + moved)
    return frames.Trajectory(text, system, positions, LAG, text)


def batch_of(one: frames.Trajectory, size: int) -> pairs.Batch:
    """Returns a batch of pairs of one trajectory."""
    whole = [segments.Segment(one, 0, len(one.positions))]
    law = pairs.Lags((LAG,), is_range=False)
    return pairs.batch_at(whole, law, size, len(one.system.tokens), seed=0, step=0)


def measure_size(config: Any, num_residues: int, batch_size: int, rounds: int) -> Size:
    """Times one step, compiled for a batch of chains of one length."""
    one = trajectory(num_residues)
    batch = batch_of(one, batch_size)
    found = splits.Segments(
        (segments.Segment(one, 0, 8),), (), pairs.Lags((LAG,), False),
        len(one.system.tokens), NUM_TYPES,
    )  # fmt: skip
    statistics = measure(found, align=True, cloud=config.model.cloud)
    loss_fn = train.make_loss(config, statistics)
    params = build.init_params(config, jax.random.key(0))
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)
    keys = jax.random.split(jax.random.key(1), batch_size)

    def step(params: Any, state: Any, batch: pairs.Batch) -> Any:
        gradient = jax.grad(lambda p: loss_fn(p, batch, keys)[0])(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step).lower(params, state, batch).compile()
    call = timing.block(compiled, params, state, batch)
    call()
    seconds = float(np.median([timing.cpu_seconds(call) for _ in range(rounds)]))
    memory = compiled.memory_analysis().temp_size_in_bytes
    return Size(num_residues, seconds / batch_size, memory / batch_size / 2**20)


def exponent(sizes: Sequence[Size], first: int) -> float:
    """Returns the exponent of the time in the residues, from one size on."""
    kept = [size for size in sizes if size.residues >= first]
    lengths, times = (np.log([s[i] for s in kept]) for i in (0, 1))
    return float(np.polyfit(lengths, times, 1)[0])


def main() -> None:
    """Measures all sizes."""
    parser = report.parser(__doc__, "sizes")
    parser.add_argument("--config", default="peptides")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    environment.keep_memory()
    config = configs.find("equijump", flags.config).get_config()
    config.model.residue_types = NUM_TYPES
    sizes = [measure_size(config, n, flags.batch_size, flags.rounds) for n in SIZES]
    console = Console()
    console.print("residues  CPU ms a pair  MiB a pair")
    for n, seconds, megabytes in sizes:
        console.print(f"{n:8d}  {1e3 * seconds:13.1f}  {megabytes:10.1f}")
    found = exponent(sizes, 35)
    console.print(f"time grows as residues to the {found:.2f} from 35 on")
    lines = [size._asdict() for size in sizes]
    report.write(flags.output, config=flags.config, sizes=lines, exponent=found)


if __name__ == "__main__":
    main()
