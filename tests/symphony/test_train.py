"""Tests of the training command, from its flags to its checkpoints.

The runs of this file share one network, one optimiser and one set of compiled
functions; what happens between two steps of a run, a test hands in as an event.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.commands import cli
from common.errors import RunError, UsageError
from common.runs import checkpoints, metrics, training
from configs.symphony import demo, ethanol, qm9, tiny
from symphony import build, data, train

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 12

init_params = build.init_params  # Without the memory that `shared` gives it.

OVERRIDES = {
    "config.data.num_buckets": 2,
    "config.train.num_steps": NUM_STEPS,
    "config.train.num_validation": 1,  # One bucket, so one program for validation.
    "config.train.eval_every": NUM_STEPS,
    "config.train.checkpoint_every": 3,
    "config.train.log_every": 2,
}


def small_config(**changes):
    config = tiny.get_config()
    for name, value in OVERRIDES.items():
        _, group, field = name.split(".")
        config[group][field] = value
    for name, value in changes.items():
        config.train[name] = value
    return config


def flags(workdir, *more, **overrides):
    named = {f"--{name}": value for name, value in (OVERRIDES | overrides).items()}
    return [
        "--config=configs/symphony/tiny.py",
        f"--workdir={workdir}",
        *(f"{name}={value}" for name, value in named.items()),
        *more,
    ]


class SharedStep:
    """The compiled step of all runs here, which tells what it saw.

    Attributes:
        step_fn: compiled step; None until a run has made one.
        shapes: batch shapes of the present run, in order.
        events: functions of the state before a step, by its number from 1.
    """

    def __init__(self):
        self.step_fn = None
        self.shapes = []
        self.events = {}

    def __call__(self, state, batch, key):
        self.shapes.append(batch.species.shape)
        event = self.events.pop(int(state.step) + 1, None)
        return self.step_fn(event(state) if event else state, batch, key)


@pytest.fixture(scope="module")
def shared():
    """Makes every run in this process use the same compiled functions."""
    step = SharedStep()
    made = {}

    def once(name, make):
        def make_once(*args):
            if name not in made:
                made[name] = make(*args)
            return made[name]

        return make_once

    def make_train_step(*args):
        step.step_fn = once("step", original)(*args)
        return step

    with pytest.MonkeyPatch.context() as patch:
        original = training.make_train_step
        patch.chdir(ROOT)
        patch.setattr(training, "make_train_step", make_train_step)
        patch.setattr(train, "make_validate", once("validate", train.make_validate))
        patch.setattr(build, "init_params", once("params", build.init_params))
        yield step


@pytest.fixture(autouse=True)
def _fresh_events(request):
    yield
    if "shared" in request.fixturenames:
        shared = request.getfixturevalue("shared")
        shared.shapes, shared.events = [], {}


@pytest.fixture(scope="module")
def finished(shared, tmp_path_factory):
    """One whole run: its folder, its last state, the shapes of its batches."""
    workdir = tmp_path_factory.mktemp("finished")
    state = train.train(small_config(), workdir)
    shapes, shared.shapes = shared.shapes, []
    return workdir, state, shapes


def assert_same(state, expected):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(state),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def latest_step(workdir):
    with checkpoints.make_manager(workdir, writable=False) as manager:
        return manager.latest_step()


def test_metrics_have_every_term_and_both_clocks(finished):
    records = metrics.read_metrics(finished[0])
    assert [r["step"] for r in records] == [2, 4, 6, 8, 10, 12, 12]
    terms = {"nll", "focus", "radial", "coarse", "fine"}
    for record in records[:-1]:
        clocks = {"step", "cpu_seconds", "wall_seconds"}
        assert record.keys() == terms | clocks | {"loss", "grad_norm"}
        parts = sum(record[name] for name in terms - {"nll"})
        # The species of the first atom is the one term that is not written apart.
        assert 0.0 < record["nll"] - parts < 0.2
        assert record["cpu_seconds"] > 0.0
    assert records[-1].keys() >= {f"validation_{name}" for name in terms}


def test_a_checkpoint_tells_what_was_trained_on_what(finished):
    workdir, state, _ = finished
    config, params, meta = checkpoints.load_stored(workdir)[:3]
    assert config.to_dict() == small_config().to_dict()
    assert_same(params, state.ema_params)
    assert meta["species"] == [1, 6, 7, 8, 9]
    assert len(meta["buckets"]) == 2
    assert len(meta["data_checksum"]) == 64
    assert meta["package_version"]
    assert meta["num_molecules"] == 5_000
    assert sum(meta["size_counts"].values()) == 5_000
    num_atoms = sum(int(size) * count for size, count in meta["size_counts"].items())
    assert sum(meta["species_counts"].values()) == num_atoms
    assert meta["species_counts"]["9"] == 0
    assert json.loads((workdir / "config.json").read_text())["kind"] == "symphony"


def test_compilations_equal_the_number_of_buckets(finished, shared):
    _, _, shapes = finished
    assert len(shapes) == NUM_STEPS
    assert len(set(shapes)) == 2
    assert shared.step_fn.num_compilations() == 2


def test_a_run_that_a_signal_stopped_goes_on_bit_for_bit(finished, shared, tmp_path):
    def interrupt(state):
        os.kill(os.getpid(), signal.SIGTERM)
        return state

    shared.events = {5: interrupt}
    state = train.train(small_config(), tmp_path)
    assert int(state.step) == 5
    assert latest_step(tmp_path) == 5
    resumed = train.train(small_config(), tmp_path)
    assert_same(resumed, finished[1])
    assert shared.shapes == finished[2]
    # A restored state must look to the compiler like one that was trained on.
    assert shared.step_fn.num_compilations() == 2
    records = metrics.read_metrics(tmp_path)
    assert [r["step"] for r in records] == [2, 4, 5, 6, 8, 10, 12, 12]
    clock = [r["cpu_seconds"] for r in records]
    assert clock == sorted(clock)


def test_a_run_that_died_goes_on_from_its_checkpoint(finished, shared, tmp_path):
    def die(state):
        raise MemoryError

    shared.events = {9: die}
    with pytest.raises(MemoryError):
        train.train(small_config(), tmp_path)
    assert latest_step(tmp_path) == 6
    shared.shapes = []
    resumed = train.train(small_config(), tmp_path)
    assert shared.shapes == finished[2][6:]
    assert_same(resumed, finished[1])
    steps = [r["step"] for r in metrics.read_metrics(tmp_path)]
    assert steps == [r["step"] for r in metrics.read_metrics(finished[0])]


def test_the_loss_falls_on_one_batch(finished, shared):
    config = small_config()
    packed, _, _ = train.load_data(config)
    batch = data.batch_at(packed, config.train.batch_size, 0, 0)
    params = build.init_params(config, jax.random.key(0))
    state = training.make_state(params, training.make_optimizer(config.train))
    losses = []
    for _ in range(NUM_STEPS):
        state, totals = shared.step_fn(state, batch, jax.random.key(0))
        losses.append(float(totals["loss"]))
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_a_loss_that_is_not_finite_ends_the_run(finished, shared, tmp_path, capfd):
    def poison(state):
        spoil = lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.nan)
        return state._replace(params=jax.tree.map(spoil, state.params))

    shared.events = {5: poison}
    assert cli.run("symphony train", train.main, flags(tmp_path)) == 3
    last = capfd.readouterr().err.splitlines()[-1]
    assert "non-finite at step 5" in last
    assert last.endswith("checkpoints/3")
    assert latest_step(tmp_path) == 3
    shared.events = {5: poison}
    with pytest.raises(RunError, match=r"at step 5.*checkpoints/3"):
        train.train(small_config(), tmp_path)


def test_a_finished_run_is_left_as_it_is(finished, shared):
    workdir = finished[0]
    before = (workdir / "metrics.jsonl").read_bytes()
    assert cli.run("symphony train", train.main, flags(workdir)) == 0
    assert shared.shapes == []
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert latest_step(workdir) == NUM_STEPS


def test_a_run_goes_on_with_no_other_data(finished):
    config = small_config()
    config.data.max_atoms = 27
    with pytest.raises(UsageError, match="expected the data that this run was begun"):
        train.train(config, finished[0])


def test_a_run_may_start_from_the_averages_of_another(finished, shared, tmp_path):
    seen = []

    def die(state):
        seen.append(jax.device_get(state))
        raise MemoryError

    shared.events = {1: die}
    with pytest.raises(MemoryError):
        train.train(small_config(start_from=str(finished[0])), tmp_path)
    assert_same(seen[0].params, finished[1].ema_params)
    assert_same(seen[0].ema_params, finished[1].ema_params)


def test_what_weights_lack_is_fresh_and_named(finished, caplog, monkeypatch):
    monkeypatch.setattr(build, "init_params", init_params)
    config = small_config(start_from=str(finished[0]))
    config.model.num_fine_rounds = 3
    started = dict(training.named_leaves(train.start_params(config, jax.random.key(0))))
    fresh = dict(training.named_leaves(build.init_params(config, jax.random.key(0))))
    given = dict(training.named_leaves(finished[1].ema_params))
    assert_same(started, fresh | given)
    added = [path for path in fresh if "approaches_1" in path]
    assert added
    assert all(path in caplog.text for path in added)


def test_weights_with_more_than_the_network_start_no_run(finished, monkeypatch):
    monkeypatch.setattr(build, "init_params", init_params)
    config = small_config(start_from=str(finished[0]))
    config.model.num_fine_rounds = 1
    with pytest.raises(UsageError, match=r"approaches_0.* absent, found \("):
        train.start_params(config, jax.random.key(0))


def test_what_was_changed_between_starts_is_told_and_kept(
    finished, shared, tmp_path, caplog
):
    def interrupt(state):
        os.kill(os.getpid(), signal.SIGTERM)
        return state

    shared.events = {3: interrupt}
    train.train(small_config(), tmp_path)
    shared.events = {5: interrupt}
    train.train(small_config(num_validation=2), tmp_path)
    assert "config.train.num_validation: was 1 up to step 3, now 2" in caplog.text
    _, _, meta = checkpoints.load_stored(tmp_path, "latest")[:3]
    changed = {"step": 3, "config.train.num_validation": [1, 2]}
    assert meta["changes"] == [changed]


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("model", "cutoff", 4.0),
        ("data", "species", (9, 8, 7, 6, 1)),
        ("data", "heavy_first", False),
    ],
)
def test_a_run_does_not_go_on_with_another_network(finished, group, name, value):
    config = small_config()
    config[group][name] = value
    before = (finished[0] / "config.json").read_text()
    with pytest.raises(UsageError, match=rf"config.{group}.{name} = |other data"):
        train.train(config, finished[0])
    assert (finished[0] / "config.json").read_text() == before


def test_a_config_without_a_value_is_told(tmp_path):
    config = small_config()
    del config.train.start_from
    with pytest.raises(UsageError, match=r"config.train.start_from: .*, found none"):
        train.train(config, tmp_path)


def test_two_trainings_do_not_share_a_folder(finished):
    with (
        cli.locked(finished[0]),
        pytest.raises(UsageError, match="in use by another command"),
    ):
        train.train(small_config(), finished[0])


def test_weights_of_another_species_table_start_no_run():
    config = small_config(start_from="qm9_cpu")
    config.data.species = (1, 6)
    with pytest.raises(UsageError, match=r"start_from.*species \(1, 6\).*\(1, 6, 7, 8"):
        train.start_params(config, jax.random.key(0))


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--config.train.start_from=nowhere", ("config.train.start_from", "nowhere")),
        ("--config.train.start_from=qm9", ("start_from", "config.model", "shape")),
        ("--config.kind=diffusion", ("config.kind", "symphony, paper", "diffusion")),
        ("--config.train.optimizer=lion", ("adam", "muon", "lion")),
        ("--config.train.batch_size=9", ("batch_size", "multiple of 2", "found 9")),
        ("--config.train.batch_size=0", ("batch_size", "found 0")),
        ("--config.train.log_every=0", ("log_every", "found 0")),
        ("--config.train.steps=7", ("a field that the config has", "steps")),
        ("--config.seed=-1", ("config.seed", "found -1")),
        (
            "--config.data.species=(1,300)",
            ("data.species", "1 to 118", "found (1, 300)"),
        ),
        ("--config.data.species=(6,6)", ("data.species", "different")),
        ("--config.data.num_buckets=0", ("num_buckets", "found 0")),
        ("--config.data.species=C,H,O", ("data.species", "each a whole number")),
        ("--config.train.learning_rate=nan", ("learning_rate", "found nan")),
        ("--config.train.ema_decay=2", ("ema_decay", "0 to 1", "found 2")),
        ("--config.model.num_channels=-4", ("num_channels", "found -4")),
        ("--config.model.cutoff=nan", ("model.cutoff", "found nan")),
        ("--config.model.min_radius=3.0", ("min_radius", "found 3.0")),
        ("--config.data.path=nowhere.sdf", ("nowhere.sdf",)),
        ("--workdir=configs/symphony/tiny.py", ("--workdir", "tiny.py")),
        ("--config=configs/symphony/huge.py", ("huge.py",)),
        ("--config=qm9_cpus", ("--config", "perhaps qm9_cpu)", "found qm9_cpus")),
    ],
)
def test_a_value_that_cannot_be_used_is_told_in_one_line(
    flag, named, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(ROOT)
    given = flags(tmp_path / "run", "--config.train.num_microbatches=2", flag)
    assert cli.run("symphony train", train.main, given) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("symphony train: ")
    for word in named:
        assert word in err


def test_validation_molecules_larger_than_any_in_training_are_told(tmp_path):
    sizes = np.array([2, 3])
    np.savez(
        tmp_path / "odd.npz",
        num_atoms=sizes,
        atomic_numbers=np.ones(sizes.sum(), np.int8),
        positions=0.2 * np.arange(15, dtype=np.float32).reshape(5, 3),
        split=np.array([0, 1]),
    )
    config = small_config()
    config.data.path = str(tmp_path / "odd.npz")
    with pytest.raises(UsageError, match=r"validation molecules of at most 2 atoms"):
        train.load_data(config)


def test_molecules_out_of_the_reach_of_a_step_are_named(tmp_path, caplog):
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(60) % 30 == 7, 3.0, 1.1)
    positions = np.zeros((120, 3), np.float32)
    positions[1::2, 0] = lengths

    def load(count):
        np.savez(
            tmp_path / "pairs.npz",
            num_atoms=np.full(count, 2),
            atomic_numbers=np.full(2 * count, 6),
            positions=positions[: 2 * count] + rng.normal(size=3).astype(np.float32),
            split=(np.arange(count) % 5 == 0).astype(np.int8),
        )
        config = small_config()
        config.data.path = str(tmp_path / "pairs.npz")
        return train.load_data(config)

    packed, _, meta = load(60)
    assert meta["num_molecules"] == 46
    assert packed[0].species.shape == (46, 2)
    assert "skipped 2 of 48 records: 2 with atoms that no step of 0.6 to" in caplog.text
    assert "(7, 37)" in caplog.text
    with pytest.raises(UsageError, match=r"max_radius set the range"):
        load(12)


@pytest.mark.parametrize("module", [demo, ethanol, qm9])
def test_configs_pass_the_checks_and_take_no_field_of_their_own(module):
    config = module.get_config()
    train.check_config(config)
    known = tiny.get_config()
    for group in ("data", "model", "train", "sample"):
        assert config[group].keys() == known[group].keys()


CHILD = """
import os, signal, sys
import jax, numpy as np
from pathlib import Path
from common.runs import training
from configs.symphony import tiny
from symphony import train

workdir, kill_at = Path(sys.argv[1]), int(sys.argv[2])
config = tiny.get_config()
config.train.num_steps = 40
config.train.checkpoint_every = 5
config.train.log_every = 4
config.train.eval_every = 20
original = training.make_train_step

def make_train_step(*args):
    step_fn = original(*args)
    def step(state, batch, key):
        if int(state.step) + 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step_fn(state, batch, key)
    return step

training.make_train_step = make_train_step
state = train.train(config, workdir)
np.savez(workdir / "state.npz", *jax.tree.leaves(state))
"""


@pytest.mark.slow
def test_ten_kills_leave_no_trace(tmp_path):
    def run(name, kill_at):
        command = [sys.executable, "-c", CHILD, str(tmp_path / name), str(kill_at)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("whole", 0)
    assert done.returncode == 0, done.stderr
    # In rising order, so that every run comes as far as the step that it dies before.
    for step in sorted(random.Random(0).sample(range(2, 41), 10)):
        assert run("killed", step).returncode == -signal.SIGKILL
    done = run("killed", 0)
    assert done.returncode == 0, done.stderr
    with (
        np.load(tmp_path / "whole" / "state.npz") as whole,
        np.load(tmp_path / "killed" / "state.npz") as killed,
    ):
        assert whole.files == killed.files
        for name in whole.files:
            np.testing.assert_array_equal(killed[name], whole[name])

    def untimed(name):
        records = metrics.read_metrics(tmp_path / name)
        clocks = ("cpu_seconds", "wall_seconds")
        return [{k: v for k, v in r.items() if k not in clocks} for r in records]

    assert [r["step"] for r in untimed("whole")] == [
        4, 8, 12, 16, 20, 20, 24, 28, 32, 36, 40, 40
    ]  # fmt: skip
    steps = [r["step"] for r in untimed("killed")]
    assert steps == [r["step"] for r in untimed("whole")]


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_status_0(tmp_path):
    command = [sys.executable, "-m", "symphony.cli", "train"]
    endless = {"config.train.num_steps": 10**6, "config.train.log_every": 1}
    child = subprocess.Popen(
        [*command, *flags(tmp_path, **endless)], cwd=ROOT, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 900
    while len(metrics.read_metrics(tmp_path)) < 3:
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    child.terminate()
    _, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert latest_step(tmp_path) == metrics.read_metrics(tmp_path)[-1]["step"]


@pytest.mark.slow
def test_one_four_and_eight_devices_give_the_same_losses(tmp_path):
    losses = {}
    for num_devices in (1, 4, 8):
        workdir = tmp_path / str(num_devices)
        changes = {
            "config.data.num_buckets": 1,
            "config.train.num_steps": 20,
            "config.train.eval_every": 20,
            "config.train.log_every": 1,
            "config.train.checkpoint_every": 20,
            "config.train.num_devices": num_devices,
        }
        command = [sys.executable, "-m", "symphony.train", *flags(workdir, **changes)]
        subprocess.run(command, cwd=ROOT, check=True)
        records = metrics.read_metrics(workdir)
        losses[num_devices] = [r["loss"] for r in records if "loss" in r]
    assert len(losses[1]) == 20
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-5, atol=1e-5)
