"""Tests of whose a work directory is."""

import json
import os

import pytest

from common.errors import UsageError
from common.runs import config as configs
from common.runs import workdir
from common.runs.metrics import MetricsWriter
from common.runs.training import Elapsed


def config_text(**train):
    config = configs.default_of("equijump").to_dict()
    config["train"] |= train
    return json.dumps(config)


def record(folder, steps):
    with MetricsWriter(folder, lambda: Elapsed(1.0, 2.0)) as writer:
        for step in steps:
            writer.write(step, {"loss": 0.5})


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


THEIRS = '{"model": "bert", "lr": 1e-4}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", THEIRS),
        ("config.json", ""),
        ("config.json", "[1, 2]"),
        ("config.json", '{"data": {}, "model": {}, "train": {}}'),
        ("config.json", '{"kind": "gpt", "data": {}, "model": {}, "train": {}}'),
        ("metrics.jsonl", '{"epoch": 1, "loss": 0.3}\n{"epoch": 2, "loss": 0.2}\n'),
        ("metrics.jsonl", "epoch,loss\n1,0.3\n"),
    ],
)
def test_the_folder_of_another_program_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"found a {name} that no run wrote"):
        workdir.check(tmp_path)
    assert contents(tmp_path) == {tmp_path / name: text.encode()}


def test_checkpoints_of_another_program_are_refused(tmp_path):
    (tmp_path / "checkpoints" / "100" / "default").mkdir(parents=True)
    with pytest.raises(UsageError, match="found checkpoints that no run wrote"):
        workdir.check(tmp_path)


def test_a_pipe_in_the_place_of_a_config_is_refused(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UsageError, match=r"found a config\.json"):
        workdir.check(tmp_path)


def test_new_folders_and_those_of_runs_will_do(tmp_path):
    workdir.check(tmp_path)
    workdir.check(tmp_path / "new" / "deep")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoints").mkdir()  # A run that was killed at once.
    (tmp_path / "config.json").write_text(config_text())
    workdir.check(tmp_path)
    record(tmp_path, [1, 2])
    workdir.check(tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_run_with_checkpoints_goes_on_whatever_lies_beside_them(tmp_path):
    (tmp_path / "checkpoints" / "100" / "state").mkdir(parents=True)
    (tmp_path / "config.json").write_text(THEIRS)
    before = contents(tmp_path)
    workdir.check(tmp_path)
    assert contents(tmp_path) == before


def test_records_that_a_power_cut_garbled_are_still_of_a_run(tmp_path):
    record(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\0" * 300 + b"\n" + path.read_bytes()[:-20])
    workdir.check(tmp_path)
    (tmp_path / "config.json").write_text(config_text())
    path.write_bytes(b"\0" * 300)
    before = contents(tmp_path)
    workdir.check(tmp_path)
    assert contents(tmp_path) == before


def test_a_run_that_lost_its_checkpoints_keeps_its_records(tmp_path):
    every = {"checkpoint_every": 10, "eval_every": 20, "num_steps": 100}
    (tmp_path / "config.json").write_text(config_text(**every))
    record(tmp_path, range(1, 21))  # The second may have been under way.
    workdir.check(tmp_path)
    record(tmp_path, range(1, 22))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"metrics\.jsonl up to step 21, found none"):
        workdir.check(tmp_path)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UsageError, match="--workdir: expected a folder, found a file"):
        workdir.check(tmp_path / "run")


def test_a_protected_file_is_told(tmp_path):
    (tmp_path / "config.json").write_text(config_text())
    (tmp_path / "config.json").chmod(0o444)
    with pytest.raises(UsageError, match="write-protected"):
        workdir.check(tmp_path)
