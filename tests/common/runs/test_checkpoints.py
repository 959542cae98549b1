"""Runs stopped, resumed, cut short and garbled; packaged weights there and back."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from common.errors import RunError, UsageError
from common.runs import checkpoints, metrics, training

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ml_collections.ConfigDict(
    {"model": {"num_channels": 8, "radii": (1.0, 2.0)}, "train": {"num_steps": 8}}
)
META = {"species_table": [1, 6], "data": {"checksum": "abc", "num_molecules": 3}}
OPTIMIZER = ml_collections.ConfigDict(
    {
        "optimizer": "muon",
        "learning_rate": 0.02,
        "warmup_steps": 2,
        "num_steps": 8,
        "final_factor": 0.5,
        "clip_norm": 1.0,
        "weight_decay": 0.0,
        "adam_b2": 0.99,
    }
)


def toy_loss(params, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    hidden = jnp.tanh((batch + 0.1 * noise) @ params["params"]["layer"]["kernel"])
    return jnp.mean((hidden @ params["params"]["out"]["weights"] - 1.0) ** 2), {}


def make_toy(num_channels=4):
    params = {
        "params": {
            "layer": {
                "kernel": jax.random.normal(jax.random.key(0), (3, num_channels))
            },
            "out": {"weights": jnp.ones(num_channels)},
        }
    }
    optimizer = training.make_optimizer(OPTIMIZER)
    state = training.make_state(params, optimizer)
    return state, training.make_train_step(toy_loss, optimizer, 0.9)


def advance(state, step_fn, last):
    for step in range(int(state.step) + 1, last + 1):
        batch = np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)
        state, _ = step_fn(state, batch, jax.random.key(1))
    return state


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def save_steps(workdir, losses):
    """Saves a state at each step named, with its validation loss; returns the last."""
    state, step_fn = make_toy()
    with checkpoints.make_manager(workdir) as manager:
        for step, loss in losses.items():
            state = advance(state, step_fn, step)
            checkpoints.save(manager, state, CONFIG, META, loss)
    return state


def test_resumed_run_equals_uninterrupted_run(tmp_path):
    state, step_fn = make_toy()
    with checkpoints.make_manager(tmp_path) as manager:
        state = advance(state, step_fn, 4)
        checkpoints.save(manager, state, CONFIG, META)
        # The buffers are donated while the checkpoint is being written.
        whole = advance(state, step_fn, 8)
    template, step_fn = make_toy()
    with checkpoints.make_manager(tmp_path) as manager:
        restored = checkpoints.restore(manager, template)
    assert int(restored.state.step) == 4
    assert_equal(advance(restored.state, step_fn, 8), whole)
    assert step_fn.num_compilations() == 1


def test_config_and_metadata_come_back(tmp_path):
    save_steps(tmp_path, {2: 0.5})
    with checkpoints.make_manager(tmp_path) as manager:
        restored = checkpoints.restore(manager, make_toy()[0])
    assert restored.config.to_dict() == CONFIG.to_dict()
    assert restored.meta.items() >= META.items()
    assert restored.meta["package_version"]


def test_latest_two_and_best_are_kept(tmp_path):
    save_steps(tmp_path, {1: 0.1, 2: 0.5, 3: 0.6, 4: 0.7, 5: 0.8})
    with checkpoints.make_manager(tmp_path) as manager:
        assert set(manager.all_steps()) == {1, 4, 5}
        assert checkpoints.latest_checkpoint(manager).name == "5"


def test_the_best_is_kept_after_a_resumption(tmp_path):
    save_steps(tmp_path, {1: 0.1, 2: 0.5})
    save_steps(tmp_path, {3: 0.6, 4: 0.7, 5: 0.8})
    with checkpoints.make_manager(tmp_path) as manager:
        assert set(manager.all_steps()) == {1, 4, 5}


def test_checkpoints_without_validation_loss_are_kept_by_recency_alone(tmp_path):
    save_steps(tmp_path, {1: None, 2: 0.5, 3: None, 4: None, 5: None})
    with checkpoints.make_manager(tmp_path) as manager:
        assert set(manager.all_steps()) == {2, 4, 5}


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    state = save_steps(tmp_path, {2: 0.5})
    with checkpoints.make_manager(tmp_path) as manager:
        checkpoints.save(manager, state, CONFIG, META)
        assert manager.all_steps() == [2]


def test_samplers_get_the_averaged_parameters_of_the_best_step(tmp_path):
    last = save_steps(tmp_path, {1: 0.1, 3: 0.5})
    config, latest, meta = checkpoints.load_stored(tmp_path, which="latest")[:3]
    assert_equal(latest, jax.tree.map(np.asarray, last.ema_params))
    assert config.model.radii == (1.0, 2.0)
    assert meta["species_table"] == [1, 6]
    first = advance(*make_toy(), 1)
    _, best, _ = checkpoints.load_stored(tmp_path)[:3]
    assert_equal(best, jax.tree.map(np.asarray, first.ema_params))


def test_a_non_finite_state_is_never_saved(tmp_path):
    state = save_steps(tmp_path, {2: 0.5})
    bad = jax.tree.map(lambda x: x * jnp.nan, state.ema_params)
    state = state._replace(ema_params=bad, step=state.step + 1)
    with checkpoints.make_manager(tmp_path) as manager:
        with pytest.raises(RunError, match=r"step 3; .*checkpoints/2"):
            checkpoints.save(manager, state, CONFIG, META, 0.4)
        assert manager.all_steps() == [2]


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    expected = save_steps(tmp_path, {2: 0.5, 4: 0.4})
    folder = tmp_path / "checkpoints"
    (folder / "4").rename(folder / "6.orbax-checkpoint-tmp")
    for file in (folder / "6.orbax-checkpoint-tmp" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    checkpoints.load_stored(tmp_path)[:3]
    assert list(folder.glob("*tmp*"))  # Looking at a run changes nothing in it.
    with checkpoints.make_manager(tmp_path) as manager:
        assert checkpoints.latest_checkpoint(manager).name == "2"
        restored = checkpoints.restore(manager, make_toy()[0])
        assert int(restored.state.step) == 2
        state = advance(restored.state, make_toy()[1], 4)
        checkpoints.save(manager, state, CONFIG, META, 0.4)
    assert_equal(state, expected)
    assert not list(folder.glob("*tmp*"))


@pytest.mark.parametrize("item", ["state", "record"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path, item, damage):
    save_steps(tmp_path, {2: 0.5})
    for file in (tmp_path / "checkpoints" / "2" / item).rglob("*"):
        if file.is_file() and damage == "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        elif file.is_file():
            file.unlink()
    with (
        checkpoints.make_manager(tmp_path) as manager,
        pytest.raises(UsageError, match="checkpoints/2: expected") as raised,
    ):
        checkpoints.restore(manager, make_toy()[0])
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="checkpoints/2: expected"):
        checkpoints.load_stored(tmp_path)[:3]


def test_a_missing_checkpoint_is_told(tmp_path):
    with checkpoints.make_manager(tmp_path) as manager:
        assert checkpoints.latest_checkpoint(manager) is None
        with pytest.raises(UsageError, match="found none"):
            checkpoints.restore(manager, make_toy()[0])
    with pytest.raises(UsageError, match="found none"):
        checkpoints.load_stored(tmp_path)[:3]
    with pytest.raises(UsageError, match="found neither"):
        checkpoints.load_stored(tmp_path / "elsewhere")[:3]
    assert not (tmp_path / "elsewhere").exists()


def test_a_checkpoint_of_another_size_is_told(tmp_path):
    save_steps(tmp_path, {2: 0.5})
    with (
        checkpoints.make_manager(tmp_path) as manager,
        pytest.raises(UsageError, match=r"kernel of shape \(3, 5\).*\(3, 4\)"),
    ):
        checkpoints.restore(manager, make_toy(num_channels=5)[0])


@pytest.mark.parametrize("shards", [False, True])
def test_a_run_goes_on_with_another_number_of_devices(shards, tmp_path):
    save_steps(tmp_path, {2: 0.5})
    code = (
        "import sys, jax, numpy as np, pathlib\n"
        "from common.runs import checkpoints, parallel, training\n"
        "from tests.common.runs import test_checkpoints as toy\n"
        "workdir, mesh = pathlib.Path(sys.argv[1]), parallel.make_mesh(4)\n"
        "state, _ = toy.make_toy()\n"
        f"shards = {shards}\n"
        "optimizer = training.make_optimizer(toy.OPTIMIZER, shards)\n"
        "step_fn = training.make_train_step(\n"
        "    toy.toy_loss, optimizer, 0.9, mesh, shards=shards)\n"
        "with checkpoints.make_manager(workdir) as manager:\n"
        "    place = parallel.shard if shards else parallel.replicate\n"
        "    template = place(state, mesh)\n"
        "    state = checkpoints.restore(manager, template).state\n"
        "    state = toy.advance(state, step_fn, 4)\n"
        "    checkpoints.save(manager, state, toy.CONFIG, toy.META)\n"
    )
    run_on_four_devices(code, tmp_path)
    with checkpoints.make_manager(tmp_path) as manager:
        restored = checkpoints.restore(manager, make_toy()[0])
    expected = advance(*make_toy(), 4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        restored.state,
        expected,
    )


def run_on_four_devices(code, workdir):
    flags = "--xla_force_host_platform_device_count=4"
    subprocess.run(
        [sys.executable, "-c", code, str(workdir)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
    )


def toy_run(workdir, num_steps=60, pause=0.02):
    """A whole loop: resumes, logs every 5 steps, saves every 10, stops on a signal."""
    state, step_fn = make_toy()
    with (
        training.StopOnSignal() as stop,
        checkpoints.make_manager(workdir) as manager,
    ):
        carried = training.NOTHING_ELAPSED
        if manager.latest_step() is not None:
            restored = checkpoints.restore(manager, state)
            state, carried = restored.state, training.Elapsed(*restored.meta["elapsed"])
        clock = training.start_clock(carried)
        with metrics.MetricsWriter(workdir, clock, int(state.step)) as writer:
            while int(state.step) < num_steps and not stop.requested:
                state = advance(state, step_fn, int(state.step) + 1)
                time.sleep(pause)
                step = int(state.step)
                if step % 5 == 0:
                    weights = state.ema_params["params"]["out"]["weights"]
                    writer.write(step, {"ema": weights[0]})
                if step % 10 == 0 or stop.requested:
                    checkpoints.save(manager, state, CONFIG, {"elapsed": clock()})
    return state


def start_toy_run(workdir):
    code = (
        "import faulthandler, pathlib, sys\n"
        "faulthandler.dump_traceback_later(600, exit=True)\n"  # A hang shows where.
        "from tests.common.runs import test_checkpoints as toy\n"
        "toy.toy_run(pathlib.Path(sys.argv[1]))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(workdir)], cwd=ROOT)


def wait_for_step(workdir, process, step):
    records = []
    while process.poll() is None and (not records or records[-1]["step"] < step):
        time.sleep(0.01)
        records = metrics.read_metrics(workdir)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    rng = np.random.default_rng(0)
    for step in (10, 20, 35, 50):
        process = start_toy_run(tmp_path / "killed")
        wait_for_step(tmp_path / "killed", process, step)
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    killed = toy_run(tmp_path / "killed", pause=0.0)
    whole = toy_run(tmp_path / "whole", pause=0.0)
    assert_equal(killed, whole)
    for record, expected in zip(
        metrics.read_metrics(tmp_path / "killed"),
        metrics.read_metrics(tmp_path / "whole"),
        strict=True,
    ):
        assert record["step"] == expected["step"]
        assert record["ema"] == expected["ema"]


@pytest.mark.slow
def test_a_run_asked_to_stop_saves_where_it_was_and_goes_on_from_there(tmp_path):
    process = start_toy_run(tmp_path)
    wait_for_step(tmp_path, process, 15)
    process.terminate()
    assert process.wait() == 0
    with checkpoints.make_manager(tmp_path) as manager:
        stopped = int(checkpoints.latest_checkpoint(manager).name)
    assert stopped >= 15
    seconds = [record["cpu_seconds"] for record in metrics.read_metrics(tmp_path)]
    toy_run(tmp_path, pause=0.0)
    records = metrics.read_metrics(tmp_path)
    assert [record["step"] for record in records] == list(range(5, 61, 5))
    later = [record["cpu_seconds"] for record in records]
    assert later[: len(seconds)] == seconds
    assert later == sorted(later)


@pytest.mark.parametrize("half", [False, True])
def test_packaged_weights_come_back(tmp_path, half):
    params = make_toy()[0].params
    checkpoints.save_packaged(tmp_path / "qm9", params, CONFIG, META, half=half)
    config, loaded, meta = checkpoints.load_stored(tmp_path / "qm9")[:3]
    assert config.to_dict() == CONFIG.to_dict()
    assert meta.items() >= META.items()
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=5e-4 if half else 0.0)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    names = {path.name for path in (tmp_path / "qm9").iterdir()}
    assert names == {"weights.npz", "config.json"}


def test_packaged_weights_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(UsageError, match="kernel: expected finite float16"):
        checkpoints.save_packaged(
            tmp_path, {"kernel": jnp.full((2, 2), 1e6)}, CONFIG, META, half=True
        )
    assert not list(tmp_path.iterdir())


def refusal(folder):
    """Returns the one line with which weights are refused."""
    with pytest.raises(UsageError) as raised:
        checkpoints.load_stored(folder)
    line = str(raised.value)
    assert line.startswith(str(folder))
    assert "expected" in line
    assert "found" in line
    assert "\n" not in line
    return line


def packaged(folder):
    checkpoints.save_packaged(folder, make_toy()[0].params, CONFIG, META)
    return folder


@pytest.mark.parametrize("name", ["weights.npz", "config.json"])
@pytest.mark.parametrize("size", [0, 60])
def test_damaged_packaged_weights_are_told_in_one_line(tmp_path, name, size):
    file = packaged(tmp_path) / name
    file.write_bytes(file.read_bytes()[:size])
    assert name in refusal(tmp_path)


def test_any_flipped_bit_of_the_weights_is_told_in_one_line(tmp_path):
    file = packaged(tmp_path) / "weights.npz"
    whole = file.read_bytes()
    for place in range(0, len(whole), 11):
        flipped = whole[place] ^ (1 << place % 8)
        file.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        # Some fields, as the date, mean nothing to us; else nothing but a UsageError.
        with contextlib.suppress(UsageError):
            stored = checkpoints.load_stored(tmp_path)
            assert_equal(stored.params, make_toy()[0].params)


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": -5.5},
        {"config": [[[]]]},
        {"meta": None},
        {"meta": {}},
        {"meta": {"package_version": 5}},
        {"format_version": None},
        {"weights_sha256": 7},
    ],
)
def test_a_record_with_other_values_is_told_in_one_line(tmp_path, change):
    file = packaged(tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refusal(tmp_path)


@pytest.mark.parametrize("depth", [900, 5_000, 200_000])
def test_deep_nesting_in_a_config_is_told_in_one_line(tmp_path, depth):
    file = packaged(tmp_path) / "config.json"
    text = json.dumps(json.loads(file.read_text()) | {"config": {"a": 5}})
    file.write_text(text.replace('"a": 5', '"a": ' + "[" * depth + "]" * depth))
    refusal(tmp_path)


def test_arrays_whose_names_are_no_tree_are_told(tmp_path):
    packaged(tmp_path)
    one, two = np.zeros(2, np.float32), np.zeros(3, np.float32)
    np.savez(tmp_path / "weights.npz", **{"a": one, "a/b": two})
    refusal(tmp_path)
    np.savez(tmp_path / "weights.npz", a=np.array(["text"]))
    assert "not of floats" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "\0\0", "{}", "[]", '{"validation_loss": "a"}'])
def test_a_damaged_loss_of_any_checkpoint_is_told_with_its_folder(tmp_path, text):
    save_steps(tmp_path, {2: 0.5, 4: 0.4})
    (tmp_path / "checkpoints/2/metrics/metrics").write_text(text)
    assert "checkpoints/2: expected a complete checkpoint" in refusal(tmp_path)
    with (
        pytest.raises(UsageError, match=r"checkpoints/2.*remove this folder"),
        checkpoints.make_manager(tmp_path),
    ):
        pass
    shutil.rmtree(tmp_path / "checkpoints/2")
    assert checkpoints.load_stored(tmp_path).meta["step"] == 4


@pytest.mark.parametrize("record", ["null", "5", "[" * 100_000, "{}", '{"config": 1}'])
def test_a_damaged_record_of_a_checkpoint_is_told_with_its_folder(tmp_path, record):
    save_steps(tmp_path, {2: 0.5})
    (tmp_path / "checkpoints/2/record/metadata").write_text(record)
    assert "checkpoints/2: expected a complete checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: ... No space left on device [os_error=28]"),
    ],
)
def test_a_full_disk_is_told_with_what_is_complete(tmp_path, error):
    save_steps(tmp_path, {2: 0.5})
    with (
        pytest.raises(RunError, match=r"No space left on device.*step 2 is complete"),
        checkpoints.make_manager(tmp_path),
    ):
        raise error


def test_a_checkpoint_that_will_not_fit_is_not_begun(tmp_path, monkeypatch):
    save_steps(tmp_path, {2: 0.5})
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"found 0\.1 MB; step 2 is complete"):
        save_steps(tmp_path, {4: 0.5})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_an_error_that_is_none_of_the_disk_is_not_taken_for_one(tmp_path):
    with (
        pytest.raises(ValueError, match="of our own"),
        checkpoints.make_manager(tmp_path),
    ):
        raise ValueError("of our own")


def test_weights_of_a_newer_format_are_told(tmp_path):
    checkpoints.save_packaged(tmp_path, make_toy()[0].params, CONFIG, META)
    record = json.loads((tmp_path / "config.json").read_text())
    record["format_version"] = 99
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="found 99"):
        checkpoints.load_stored(tmp_path)[:3]


def test_weights_of_another_model_than_the_config_are_told_in_one_line(tmp_path):
    params = make_toy()[0].params
    other = jax.tree.map(lambda leaf: leaf + 1.0, params)
    checkpoints.save_packaged(tmp_path / "a", params, CONFIG, META)
    checkpoints.save_packaged(tmp_path / "b", other, CONFIG, META)
    (tmp_path / "a" / "weights.npz").replace(tmp_path / "b" / "weights.npz")
    with pytest.raises(UsageError, match=r"b: expected the weights.npz .* another"):
        checkpoints.load_packaged(tmp_path / "b")


def test_packaged_weights_load_without_orbax(tmp_path):
    checkpoints.save_packaged(tmp_path, make_toy()[0].params, CONFIG, META)
    code = (
        "import sys, pathlib\n"
        "from common.runs import checkpoints\n"
        "checkpoints.load_stored(pathlib.Path(sys.argv[1]))[:3]\n"
        "assert not any(name.startswith('orbax') for name in sys.modules)\n"
    )
    run_on_four_devices(code, tmp_path)
