"""Waits for compilers, of this checkout and of another one, in turns.

    git worktree add ../before 151b4d3
    python -m benchmarks.waits --before=../before --rounds=3

Each round runs in both checkouts, with this Python: `symphony sample` and `equijump
sample` with an empty cache of compiled programs and twice with that cache, and the
first steps of a training with `qm9_cpu`. Figures are CPU-seconds of the process and its
children, medians over rounds; ratios are medians of the ratios of rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, timing
from common.commands import cli
from common.errors import RunError, UsageError

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("waits_worker.py")
MOLECULES, JUMPS = 4, 100
COMMANDS = {
    "symphony sample": (
        "symphony.cli", "sample", "--checkpoint=qm9_cpu", "--overwrite",
        f"--num_molecules={MOLECULES}", "--output=molecules.sdf",
    ),
    "equijump sample": (
        "equijump.cli", "sample", f"--num_jumps={JUMPS}", "--replicas=4",
        "--output=rollout", "--overwrite",
    ),
}  # fmt: skip
TRAINING = "qm9_cpu", "2", "12"

Times = dict[str, float]


def measure(checkout: Path, folder: Path) -> Times:
    """Returns the CPU-seconds of one round in a checkout.

    Args:
        checkout: folder of the code.
        folder: empty folder, for caches and outputs.
    """
    times: Times = {}
    for name, words in COMMANDS.items():
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / name.replace(" ", "_"))}
        words = (sys.executable, "-m", *words)
        for state in ("cold", "warm", "warm again"):
            call = lambda words=words, cache=cache: run(words, checkout, folder, cache)
            times[f"{name}, {state}"] = timing.cpu_seconds(call)
        again = times.pop(f"{name}, warm again")
        times[f"{name}, warm"] = min(again, times[f"{name}, warm"])
    no_cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    # The worker's own folder has modules of our names.
    words = (sys.executable, "-P", str(WORKER), *TRAINING)
    found = json.loads(run(words, checkout, folder, no_cache).splitlines()[-1])
    first, further = found["buckets"]
    times["training, to the end of the first step"] = found["init"] + first
    times["training, a further bucket"] = further
    times["training, a step"] = found["step"]
    return times


def run(
    words: Sequence[str], checkout: Path, folder: Path, settings: Mapping[str, str]
) -> str:
    """Returns what a program prints that imports the code of a checkout.

    Raises:
        RunError: It failed.
    """
    unset = ("PYTHONDONTWRITEBYTECODE", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu", **settings}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"{' '.join(words)} in {checkout}: {done.stderr[-500:]}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    arguments = _parser().parse_args(argv)
    checkouts = {"before": arguments.before.resolve(), "now": ROOT}
    for checkout in checkouts.values():
        if not (checkout / "symphony" / "cli.py").exists():
            raise UsageError(
                f"--before: expected a checkout of this project, found {checkout}"
            )
    rounds: list[dict[str, Times]] = []
    for number in range(arguments.rounds):
        order = list(checkouts)[:: 1 if number % 2 == 0 else -1]
        times = {}
        for name in order:
            with tempfile.TemporaryDirectory() as folder:
                times[name] = measure(checkouts[name], Path(folder))
        rounds.append(times)
        _show(rounds)
    report.write(arguments.output, waits=summarise(rounds), rounds=rounds)
    return 0


def summarise(rounds: Sequence[Mapping[str, Times]]) -> dict[str, dict[str, float]]:
    """Returns the medians of the times and of their ratios, by wait.

    >>> times = [{"before": {"x": 4.0}, "now": {"x": 2.0}}]
    >>> summarise(times)
    {'x': {'before': 4.0, 'now': 2.0, 'ratio': 2.0}}
    """
    found = {}
    for wait in rounds[0]["now"]:
        before, now = (
            np.array([one[name][wait] for one in rounds]) for name in ("before", "now")
        )
        figures = {"before": before, "now": now, "ratio": before / now}
        found[wait] = {k: round(float(np.median(v)), 3) for k, v in figures.items()}
    return found


def _show(rounds: Sequence[Mapping[str, Times]]) -> None:
    rows = [
        (wait, f"{one['before']:.3g}", f"{one['now']:.3g}", f"{one['ratio']:.2f}")
        for wait, one in summarise(rounds).items()
    ]
    headings = ("CPU-seconds", "before", "now", "times less")
    report.show(f"after {len(rounds)} rounds", headings, rows, left=headings[:1])


def _parser() -> argparse.ArgumentParser:
    parser = report.parser(__doc__, "waits")
    add: Any = parser.add_argument
    add("--before", type=Path, required=True, help="folder of another checkout")
    add("--rounds", type=int, default=3, help="rounds, each in both checkouts")
    return parser


if __name__ == "__main__":
    raise SystemExit(cli.run("benchmarks.waits", main))
