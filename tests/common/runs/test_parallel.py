"""Placing states and batches on a mesh; results across devices are in test_training."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from common.errors import UsageError
from common.runs import parallel

ROOT = Path(__file__).resolve().parents[3]


def test_more_devices_than_there_are_is_told():
    with pytest.raises(UsageError, match="expected 1 to"):
        parallel.make_mesh(jax.device_count() + 1)
    with pytest.raises(UsageError, match="found 0"):
        parallel.make_mesh(0)


def test_without_a_mesh_nothing_moves():
    tree = {"a": np.ones(3)}
    assert parallel.replicate(tree, None) is tree
    np.testing.assert_array_equal(parallel.split_batch(tree, None)["a"], 1.0)


def test_asking_for_cpu_devices_too_late_is_told():
    jax.devices()
    with pytest.raises(UsageError, match="already started"):
        parallel.set_num_cpu_devices(5)


def test_batches_are_split_and_states_are_whole_on_each_device():
    code = (
        "import jax, numpy as np\n"
        "from common.runs import parallel\n"
        "parallel.set_num_cpu_devices(4)\n"
        "mesh = parallel.make_mesh()\n"
        "batch = parallel.split_batch(np.arange(8.0), mesh)\n"
        "state = parallel.replicate(np.arange(8.0), mesh)\n"
        "parts = [np.asarray(s.data) for s in batch.addressable_shards]\n"
        "np.testing.assert_array_equal(parts, np.arange(8.0).reshape(4, 2))\n"
        "parts = [np.asarray(s.data) for s in state.addressable_shards]\n"
        "assert len(parts) == 4\n"
        "assert all(part.shape == (8,) for part in parts)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=os.environ)
