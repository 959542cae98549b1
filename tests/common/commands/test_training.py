"""Tests of the flags of training commands, and of what is done with them."""

import sys

import pytest

from common.commands import cli, training
from common.errors import UsageError

CONFIG = """
import ml_collections

def get_config():
    train = {"num_steps": 3, "learning_rate": 1.0, "sizes": (1, 2)}
    return ml_collections.ConfigDict({"train": train, "name": "small"})
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_training_flags_read_the_config_and_its_overrides(config_file):
    overrides = ["--config.train.num_steps=7", "--config.train.sizes=(4,5)"]
    argv = [f"--config={config_file}", "--workdir=runs/a", *overrides]
    for _ in range(2):  # Nothing global is left behind.
        values = training.training_flags("symphony train", "Trains.", argv)
        assert values.workdir == "runs/a"
        assert values.config.train.num_steps == 7
        assert values.config.train.sizes == (4, 5)
        assert values.config.name == "small"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workdir=w", "--config={config}", "--bogus=1"], "bogus"),
        (["--workdir=w"], "--config"),
        (["--config={config}"], "--workdir"),
        (["--workdir=w", "--config={config}/none.py"], "none.py"),
        (["--workdir=w", "--config=configs/tiny.py"], "names: --config=tiny"),
        (["--workdir=w", "--config=qm9_cpus"], "perhaps qm9_cpu"),
        (["--workdir=w", "--config"], "--config"),
        (["--workdir=w", "--config={config}", "--config.train.steps=1"], "steps"),
        (["--workdir=w", "--config={config}", "--config.train.num_steps=x"], "x"),
        (["--workdir=w", "--config={config}", "more"], "expected flags only"),
    ],
)
def test_bad_training_flags_are_one_line(argv, message, config_file, capsys):
    argv = [argument.format(config=config_file) for argument in argv]
    main = lambda argv: (
        training.training_flags("symphony train", "Trains.", argv) and None
    )
    assert cli.run("symphony train", main, argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("symphony train: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "text",
    [
        "def (",
        "import a_module_that_is_not_there",
        "x = 1",
        CONFIG + "    return {}[1]",
    ],
)
def test_a_broken_config_is_one_line(text, config_file, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # Loaded before.
    config_file.write_text(text.replace("return ml_collections", "ml_collections"))
    argv = ["--workdir=w", f"--config={config_file}"]
    main = lambda argv: (
        training.training_flags("symphony train", "Trains.", argv) and None
    )
    assert cli.run("symphony train", main, argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_help_shows_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        training.training_flags("symphony train", "Trains.", ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "Trains." in out
    assert "--config " in out
    assert "--workdir " in out


def test_devices_are_asked_for_before_training_starts(config_file, monkeypatch, capsys):
    asked, trained = [], []
    monkeypatch.setattr(training.parallel, "set_num_cpu_devices", asked.append)
    keep = lambda config, workdir: trained.append((config.name, str(workdir)))
    for count in (1, 4):
        # A file of its own: Python keeps the bytecode of one that is a second old.
        path = config_file.with_name(f"config_{count}.py")
        path.write_text(
            CONFIG.replace('"num_steps"', f'"num_devices": {count}, "num_steps"')
        )
        argv = ["--workdir=w", f"--config={path}"]
        assert training.run("symphony train", "Trains.", len, keep, argv) == 0
    assert asked == [4]
    assert trained == [("small", "w"), ("small", "w")]
    assert capsys.readouterr().out.count("device: ") == 2


def test_a_config_that_cannot_be_used_is_not_trained(config_file):
    def refuse(config):
        raise UsageError(f"config.name: found {config.name}")

    argv = ["--workdir=w", f"--config={config_file}"]
    with pytest.raises(UsageError, match="found small"):
        training.run("symphony train", "Trains.", refuse, pytest.fail, argv)
