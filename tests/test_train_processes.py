"""Both training commands as two processes of one machine, against one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.commands import hosts
from tests.common.runs.test_processes import free_port

ROOT = Path(__file__).resolve().parents[1]


def started(package, workdir, place=()):
    flags = ["num_steps=10", "log_every=1", "eval_every=10", "checkpoint_every=10"]
    return subprocess.Popen(
        [
            sys.executable, "-m", package, "train", "--config=tiny",
            f"--workdir={workdir}", *(f"--config.train.{flag}" for flag in flags),
        ],
        cwd=ROOT,
        env=os.environ | dict(zip(hosts.NAMES, place, strict=False)),
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def losses(workdir):
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["symphony", "equijump"])
def test_two_processes_have_the_losses_of_one(package, tmp_path):
    address = f"localhost:{free_port()}"
    places = [(address, "2", f"{number}") for number in (0, 1)]
    both = [started(package, tmp_path / "two", place) for place in places]
    alone = started(package, tmp_path / "one")
    for process in (*both, alone):
        _, err = process.communicate(timeout=1_200)
        assert process.returncode == 0, err
    found, expected = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert len(found) == 10
    np.testing.assert_allclose(found, expected, rtol=1e-5)
