"""Speed of training in two checkouts, interleaved: `--before` against this one.

    python -m benchmarks.versions --before=../checkout

Both train the same config. One process is stopped while the other runs, in turns, so
that the noise of the machine meets both. Prints the CPU-seconds a step of each and the
median of the ratios of turns; compilation and the first steps are left out.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {
    "symphony": (
        "--config.data.path=qm9-sample",
        "--config.data.num_buckets=1",
        "--config.train.log_every=10",
    ),
    "equijump": ("--config.train.log_every=20", "--config.train.num_validation=64"),
}
CONFIGS = {"symphony": "qm9_cpu", "equijump": "ala2"}
NEVER = 10**8
"""Steps; no run of the benchmark reaches them."""


class Run:
    """A training run of one checkout that can be stopped and continued."""

    def __init__(self, root: Path, model: str, workdir: Path) -> None:
        self.metrics = workdir / "metrics.jsonl"
        config = ROOT / "configs" / model / f"{CONFIGS[model]}.py"
        own = root / config.relative_to(ROOT)
        rest = [
            f"--config.train.{name}={NEVER}" for name in ("num_steps", "eval_every")
        ]
        command = [
            sys.executable, "-m", f"{model}.train", f"--config={own}",
            f"--workdir={workdir}", "--config.train.checkpoint_every=1000000",
            *FLAGS[model], *rest,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics so far."""
        if self.process.poll() is not None:
            raise RuntimeError(f"a run ended with status {self.process.returncode}")
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [line for line in found if "cpu_seconds" in line]


def seconds_per_step(records: list[dict[str, Any]]) -> float:
    """Returns CPU-seconds a step between the first and the last record."""
    first, last = records[0], records[-1]
    steps = last["step"] - first["step"]
    return (last["cpu_seconds"] - first["cpu_seconds"]) / steps


def take_turns(runs: dict[str, Run], num_turns: int, seconds: float) -> dict[str, Any]:
    """Lets the runs take turns and returns CPU-seconds a step of each turn."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        while len(run.records()) < 3:
            time.sleep(0.5)
        run.signal(signal.SIGSTOP)
    for turn in range(num_turns):
        order = list(runs.items())[:: 1 if turn % 2 else -1]
        for name, run in order:
            before = len(run.records())
            run.signal(signal.SIGCONT)
            time.sleep(seconds)
            run.signal(signal.SIGSTOP)
            found[name].append(seconds_per_step(run.records()[before - 1 :]))
    return found


def main() -> None:
    """Runs the benchmark."""
    parser = report.parser(__doc__, "versions")
    parser.add_argument("--before", type=Path, required=True, help="other checkout")
    parser.add_argument("--num_turns", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a turn")
    options = parser.parse_args()
    found = {
        model: compare(options.before.resolve(), model, options) for model in FLAGS
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    report.write(options.output, models=found)


def compare(before: Path, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns CPU-seconds a step of both checkouts, and the ratio of turns."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        try:
            for name, root in (("before", before), ("now", ROOT)):
                runs[name] = Run(root, model, Path(folder) / name)
            found = take_turns(runs, options.num_turns, options.seconds)
        finally:
            for run in runs.values():
                run.process.kill()
    ratios = np.array(found["now"]) / np.array(found["before"])
    return {
        "cpu_seconds_per_step": {k: float(np.median(v)) for k, v in found.items()},
        "now over before, median": float(np.median(ratios)),
        "quartiles": np.quantile(ratios, (0.25, 0.75)).tolist(),
    }


if __name__ == "__main__":
    main()
