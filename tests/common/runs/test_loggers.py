"""Records in TensorBoard and in Weights & Biases, beside `metrics.jsonl`."""

import contextlib
import importlib.machinery
import struct
import sys
import types

import ml_collections
import pytest
from tensorboardX.proto.event_pb2 import Event

from common.errors import UsageError
from common.runs import loggers
from common.runs.metrics import MetricsWriter, read_metrics
from common.runs.training import Elapsed


def config_of(*names):
    return ml_collections.ConfigDict({"train": {"loggers": names}, "seed": 3})


def record(workdir, config, steps, resume_step=0):
    clock = lambda: Elapsed(1.5, 2.5)
    with (
        loggers.opened(config, workdir, resume_step) as others,
        MetricsWriter(workdir, clock, resume_step, others) as writer,
    ):
        for step in steps:
            writer.write(step, {"loss": step / 8, "nll": float("nan")})
            writer.write(step, {"validation_loss": step / 4})


def events(workdir):
    """Returns the events of all files in the order of their writing."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # Length, its checksum, an event, its checksum.
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def shown(workdir):
    """Returns step and value of what TensorBoard shows of the losses, by their tags."""
    kept = []
    for event in events(workdir):
        if event.HasField("session_log"):
            kept = [row for row in kept if row[1] < event.step]
        kept += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return [row for row in kept if "loss" in row[0]]


def test_tensorboard_shows_the_records_of_a_run(tmp_path):
    record(tmp_path, config_of("tensorboard"), [8])
    assert shown(tmp_path) == [("training/loss", 8, 1.0), ("validation/loss", 8, 2.0)]
    tags = {value.tag for event in events(tmp_path) for value in event.summary.value}
    assert "clock/cpu_seconds" in tags
    assert "training/nll" not in tags  # Not finite.
    assert len(read_metrics(tmp_path)) == 2


def test_tensorboard_shows_no_step_twice_after_a_kill(tmp_path):
    config = config_of("tensorboard")
    record(tmp_path, config, [8, 16, 24])
    record(tmp_path, config, [24, 32], resume_step=16)
    steps = [step for tag, step, _ in shown(tmp_path) if tag == "training/loss"]
    assert steps == [8, 16, 24, 32]
    record(tmp_path, config, [8])
    assert [step for _, step, _ in shown(tmp_path)] == [8, 8]


class Service:
    """Stands in for wandb: what it was told, by runs."""

    def __init__(self):
        self.module = types.ModuleType("wandb")
        self.module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.module.Error, self.module.init = RuntimeError, self.init
        self.runs, self.open, self.fault = [], 0, None

    @contextlib.contextmanager
    def running(self, run):
        self.open += 1
        yield
        self.open -= 1

    def init(self, **settings):
        if self.fault:
            raise RuntimeError(self.fault)
        service, run = self, {"settings": settings, "records": []}
        self.runs.append(run)

        class Run(contextlib.ExitStack):
            def define_metric(self, name, step_metric):
                run["step_metric"] = name, step_metric

            def log(self, values):
                run["records"].append(values)

        opened = Run()
        opened.enter_context(service.running(run))
        return opened


@pytest.fixture
def wandb(monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service.module)
    return service


def test_wandb_gets_the_records_and_the_config(wandb, tmp_path):
    record(tmp_path / "mine", config_of("wandb"), [8])
    [run] = wandb.runs
    assert run["settings"]["name"] == "mine"
    assert run["settings"]["config"]["seed"] == 3
    assert run["records"][0] == {
        "step": 8,
        "clock/cpu_seconds": 1.5,
        "clock/wall_seconds": 2.5,
        "training/loss": 1.0,
    }
    assert run["step_metric"] == ("*", "step")
    assert wandb.open == 0


def test_a_resumed_run_goes_on_in_wandb_and_a_new_one_is_another(wandb, tmp_path):
    config = config_of("wandb")
    record(tmp_path, config, [8, 16])
    record(tmp_path, config, [16], resume_step=8)
    record(tmp_path, config, [8])
    first, resumed, new = (run["settings"]["id"] for run in wandb.runs)
    assert first == resumed != new


def test_what_wandb_refuses_is_one_line(wandb, tmp_path):
    wandb.fault = "api_key not configured"
    with pytest.raises(UsageError, match=r"WANDB_MODE=offline, found api_key"):
        record(tmp_path, config_of("wandb"), [8])


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_missing_package_is_told_with_what_installs_it(name, monkeypatch):
    package = loggers.LOGGERS[name].package
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"config\.train\.loggers: .* {package} .*: pip install {package}"
    with pytest.raises(UsageError, match=told):
        loggers.check(config_of(name))
