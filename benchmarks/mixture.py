"""How long the division of many trajectories takes, and the drawing of a batch.

Run: `python -m benchmarks.mixture`. Systems of 20 to 200 residues with random sequences
have ten trajectories each, in files of frames that are zero. Lags are 10 ps, twice, and
50 ps; longer systems are cropped to 64 residues.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from common.runs import config as configs
from equijump.data import mixture, pairs, sources, splits
from equijump.data.frames import Trajectory
from equijump.data.packed import PackedFrames
from equijump.data.residues import CA_SLOT, RESIDUES
from equijump.data.topology import System

NUM_FRAMES, NUM_REPLICAS, NUM_STEPS, BATCH_SIZE = 100, 10, 20, 64


def make_systems(count: int) -> list[System]:
    """Returns systems of CA alone, with random sequences."""
    rng, made = np.random.default_rng(0), []
    for length in rng.integers(20, 200, count).tolist():
        slots = np.full((length, 14), -1, np.int32)
        slots[:, CA_SLOT] = np.arange(length)
        tokens = rng.integers(1, 21, length).astype(np.int32)
        names = tuple(RESIDUES[token - 1].name for token in tokens.tolist())
        order = np.arange(length, dtype=np.int32)
        made.append(
            System(
                tokens, np.zeros(length, np.int32), order, slots,
                np.zeros((0, 2), np.int32), order, names, ("CA",) * length,
            )
        )  # fmt: skip
    return made


def make_trajectories(folder: Path, num_systems: int) -> Iterator[Trajectory]:
    """Yields ten trajectories of each system, whose files are written."""
    for number, system in enumerate(make_systems(num_systems)):
        count = len(system.tokens)
        for replica in range(NUM_REPLICAS):
            name = f"{number}_{replica}"
            path = folder / f"{name}.f32"
            np.zeros((NUM_FRAMES, count, 3), np.float32).tofile(path)
            positions = PackedFrames(path, NUM_FRAMES, count)
            yield Trajectory(name, system, positions, 10.0, name)


def measure(made: list[Trajectory], split: str) -> dict[str, float]:
    """Returns CPU-seconds of the start, and milliseconds of a batch."""
    sources.SOURCES["made"] = lambda argument, data: made
    config = configs.default_of("equijump")
    held_out = 50 if split in ("sequence", "cluster") else 2
    config.data.update(sources=("made",), lags=(10.0, 10.0, 50.0), crop=64)
    config.data.update(split=split, held_out=held_out)
    begun = time.process_time()
    segments = splits.load_segments(config)
    splits.describe(segments)
    plan = pairs.make_plan(segments.training, segments.lags)
    buckets = mixture.make_buckets(plan.segments, plan.shares)
    started = time.process_time()
    for step in range(NUM_STEPS):
        bucket = mixture.bucket_at(buckets, 0, step)
        given = plan, BATCH_SIZE, bucket.num_nodes, 0, step
        pairs.draw(*given, shares=bucket.shares)
    drawn = time.process_time()
    return {
        "start_s": started - begun, "batch_ms": 1e3 * (drawn - started) / NUM_STEPS
    }  # fmt: skip


def main() -> None:
    """Prints one line for each number of systems and each division."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, nargs="+", default=[10, 1_000])
    console = Console()
    for num_systems in parser.parse_args().systems:
        with tempfile.TemporaryDirectory() as folder:
            made = list(make_trajectories(Path(folder), num_systems))
            for split in ("trajectory", "time", "sequence", "cluster"):
                if num_systems <= 50 and split in ("sequence", "cluster"):
                    continue
                found = measure(made, split)
                console.print(len(made), split, found)


if __name__ == "__main__":
    main()
