"""Batches of training by `symphony.data.batch_at`, and the same ones by Grain.

    python -m benchmarks.loading

Needs the package grain. Contestants give the batches of the same steps, of the packaged
sample of QM9 padded to one size, in turns:

* `batch_at`: one gather of rows, which follow from (seed, step);
* `grain`: a `MapDataset` of single molecules in the order of `batch_at`, which costs it
  nothing here, put together by its `batch`; the batches are checked to be the same;
* `grain, shuffled`: `source(molecules).shuffle(seed).repeat().batch(size)`;
* `grain around batch_at`: a `MapDataset` whose elements are whole batches of ours.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, SupportsIndex

import jax
import numpy as np
from jaxtyping import Int

from benchmarks import report, timing
from symphony import data

BATCH_SIZES = (16, 128)
NUM_STEPS, ROUNDS, SEED = 100, 20, 0
SPECIES, MAX_ATOMS = (1, 6, 7, 8, 9), 29
OURS = "batch_at"


class Molecules:
    """Single molecules of a bucket, in an order of its rows: a source of Grain."""

    def __init__(self, bucket: data.Batch, rows: Int[np.ndarray, " size"]) -> None:
        self._bucket, self._rows = bucket, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> data.Batch:
        row = self._rows[index]
        return jax.tree.map(lambda array: array[row], self._bucket)


def contestants(
    bucket: data.Batch, batch_size: int
) -> dict[str, Callable[[int], data.Batch]]:
    """Returns functions of the step; all but the shuffled one give the same batches."""
    import grain

    ours = partial(data.batch_at, (bucket,), batch_size, SEED)
    numbered = bucket._replace(species=np.arange(len(bucket.species)))
    rows = [
        data.batch_at((numbered,), batch_size, SEED, step).species
        for step in range(NUM_STEPS)
    ]
    source = grain.MapDataset.source
    shown = source(Molecules(bucket, np.concatenate(rows))).batch(batch_size)
    every = source(Molecules(bucket, np.arange(len(bucket.species))))
    shuffled = every.shuffle(seed=SEED).repeat().batch(batch_size)
    whole = grain.MapDataset.range(NUM_STEPS).map(ours)
    return {
        OURS: ours,
        "grain": shown.__getitem__,
        "grain, shuffled": shuffled.__getitem__,
        "grain around batch_at": whole.__getitem__,
    }


def check_same(draws: dict[str, Callable[[int], data.Batch]]) -> None:
    """Raises `AssertionError` unless the batches of our order are the same."""
    for name in ("grain", "grain around batch_at"):
        for step in range(NUM_STEPS):
            jax.tree.map(
                np.testing.assert_array_equal, draws[OURS](step), draws[name](step)
            )


def measure(bucket: data.Batch, batch_size: int) -> dict[str, Any]:
    """Returns CPU microseconds a batch of each contestant, and ratios to ours."""
    draws = contestants(bucket, batch_size)
    check_same(draws)

    def all_steps(draw: Callable[[int], data.Batch]) -> None:
        for step in range(NUM_STEPS):
            draw(step)

    calls = {name: partial(all_steps, draw) for name, draw in draws.items()}
    timed = timing.interleaved(calls, ROUNDS)
    return {
        "batch_size": batch_size,
        "microseconds": {
            name: 1e6 * float(np.median(seconds)) / NUM_STEPS
            for name, seconds in timed.seconds.items()
        },
        "times as fast": {
            name: timing.ratio(timed, name, OURS) for name in calls if name != OURS
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table and writes the figures."""
    flags = report.parser(__doc__, "loading").parse_args(argv)
    start = time.process_time()
    import grain  # noqa: F401  # Its import is measured, too.

    imported = time.process_time() - start
    molecules, _ = data.read_molecules("qm9-sample", SPECIES, MAX_ATOMS)
    [bucket] = data.pack(molecules, SPECIES, (MAX_ATOMS,))
    found = [measure(bucket, size) for size in BATCH_SIZES]
    names = list(found[0]["microseconds"])
    rows = [
        (
            str(one["batch_size"]),
            *(f"{one['microseconds'][name]:.0f}" for name in names),
        )
        for one in found
    ]
    report.show("CPU microseconds a batch", ["molecules", *names], rows)
    report.write(flags.output, import_seconds=imported, sizes=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
