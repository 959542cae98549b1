"""Runs of two processes on one machine: losses, a lost process, one that stays away."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from common.commands import hosts
from common.runs import loop, parallel
from tests.common.runs.test_loop import TRAIN

ROOT = Path(__file__).resolve().parents[3]
NUM_STEPS, LOST_AT = 12, 11


def config_of(shards):
    changes = {"batch_size": 4, "num_steps": NUM_STEPS, "optimizer": "muon"}
    changes |= {"log_every": 1, "eval_every": NUM_STEPS, "checkpoint_every": 5}
    changes |= {"shard_parameters": shards}
    return ml_collections.ConfigDict({"train": TRAIN | changes})


def loss_fn(params, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    values = (batch + 0.1 * noise) @ params["kernel"] + params["bias"]
    loss = jnp.mean((values - batch[:, :1]) ** 2)
    return loss, {"error": loss}


def batch_at(step, rows):
    return np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)[rows]


def train(workdir, shards, batch_at=batch_at):
    """Trains on one device of each process."""
    parts = loop.Parts(
        loss_fn=loss_fn,
        batch_at=batch_at,
        validate=lambda params: {"validation_error": float(params["bias"][0])},
        average=loop.average,
        loss_name="error",
        unit="Å",
        steps_per_epoch=2,
        fixed=(),
    )
    params = {"kernel": jnp.ones((3, 4)) / 3, "bias": jnp.zeros(4)}
    mesh, key = parallel.mesh_of_run(1), jax.random.key(0)
    return loop.train(config_of(shards), workdir, params, parts, {}, key, mesh)


def main(workdir, shards):
    """Trains in a process of two; the second one ends without a word."""
    saved = Path(workdir, "checkpoints", "10")

    def batch_or_end(step, rows):
        assert len(rows) == 2  # Of four: its own.
        if step == LOST_AT - 1 and jax.process_index() == 1:
            while not saved.exists():  # Both write it in the background.
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return batch_at(step, rows)

    with hosts.joined("symphony train"):
        train(Path(workdir), shards, batch_or_end)


def started(code, process, port):
    """Starts a process of two that runs some code with this module."""
    place = f"localhost:{port}", "2", f"{process}"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from tests.common.runs import test_processes as t; {code}",
        ],
        cwd=ROOT,
        env=os.environ | dict(zip(hosts.NAMES, place, strict=True)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def losses(workdir):
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record["error"] for record in records if "error" in record]


@pytest.mark.parametrize("shards", [False, True])
def test_two_processes_train_as_one_which_goes_on_when_the_other_is_lost(
    shards, tmp_path
):
    workdir, port = tmp_path / "run", free_port()
    both = [started(f"t.main({str(workdir)!r}, {shards})", n, port) for n in (0, 1)]
    (_, err), other = (one.communicate(timeout=300) for one in both)
    assert [one.returncode for one in both] == [3, -signal.SIGKILL], err
    assert other == ("", "")
    told = [line for line in err.splitlines() if line.startswith("symphony train: ")]
    assert "lost one of the 2 processes" in told[0]
    assert len(told) == 1
    assert "Traceback" not in err
    assert "Check failure" not in err

    whole = train(tmp_path / "whole", shards)
    expected = losses(tmp_path / "whole")
    np.testing.assert_allclose(losses(workdir)[:10], expected[:10], rtol=1e-5)
    state = train(workdir, shards)
    np.testing.assert_allclose(losses(workdir), expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.params,
        whole.params,
    )


def test_a_process_that_stays_away_is_one_line_and_status_3():
    code = "hosts = t.hosts\nwith hosts.joined('symphony train', timeout=2): pass"
    alone = started(code, 1, free_port())
    out, err = alone.communicate(timeout=120)
    assert alone.returncode == 3
    assert out == ""
    assert err.startswith("symphony train: expected 2 processes within 2 s")
    assert err.count("\n") == 1
