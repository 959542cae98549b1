"""Tests of `benchmarks.quetzal` with the RDKit that is installed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import quetzal
from common.errors import RunError
from symphony.evaluate import samples

WATER = (
    np.array([8, 1, 1], np.uint8),
    np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], np.float32),
)
HYDROGEN = np.array([1], np.uint8), np.zeros((1, 3), np.float32)


def test_shares_are_of_all_that_was_generated():
    molecules = [WATER, WATER, HYDROGEN, (WATER[0][:0], WATER[1][:0])]
    faults = [None, None, None, "never finished"]
    drawn = samples.Samples(molecules, faults, "some.sdf")
    found = quetzal.judge(Path(sys.executable), drawn)
    assert (found["num_molecules"], found["num_unjudged"]) == (4, 0)
    assert (found["valid"], found["unique"]) == (0.5, 0.5)
    assert found["valid_and_unique"] == 0.25
    assert found["rdkit"].count(".") == 2


def test_molecules_that_end_the_process_are_counted_and_the_others_judged(tmp_path):
    python = tmp_path / "python"
    answers = """echo '{"rdkit": "1"}'; echo '{"smiles": "O"}'"""
    python.write_text(f"#!/bin/sh\n{answers}\nkill -PROF $$\n")
    python.chmod(0o755)
    found, version = quetzal.perceive(python, [WATER] * 3, 1.0)
    assert (found, version) == (["O", quetzal.UNJUDGED, "O"], "1")


def test_an_environment_is_made_once_and_again_when_its_packages_change(tmp_path):
    ran = []

    def run(words):
        ran.append(words)
        tmp_path.joinpath("env").mkdir(exist_ok=True)

    folder = tmp_path / "env"
    for _ in range(2):
        python = quetzal.make_environment(folder, run)
    assert python == folder / "bin" / "python"
    assert [words[1] for words in ran] == ["venv", "pip"]
    assert ran[1][-2:] == ["rdkit==2023.3.3", "numpy<2"]
    (folder / "packages.json").write_text(json.dumps(["rdkit==2022.9.1"]))
    quetzal.make_environment(folder, run)
    assert len(ran) == 4


def test_an_interpreter_without_rdkit_is_told_in_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(RunError, match="to import RDKit, found no answer"):
        quetzal.perceive(python, [WATER], 1.0)
    with pytest.raises(RunError, match="install uv"):
        quetzal.run([str(tmp_path / "uv")])
