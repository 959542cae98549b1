"""Packaging the weights of a run: flags, what is refused, what is written."""

import json

import ml_collections
import numpy as np
import pytest

from common.commands import package
from common.errors import UsageError
from common.runs import checkpoints

PARAMS = {"Dense_0": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones(3)}}


def flags_of(*arguments):
    return package.parser("symphony package", "Packages.").parse_args([*arguments])


@pytest.fixture
def flags(tmp_path):
    run, output = tmp_path / "run", tmp_path / "mine"
    checkpoints.save_packaged(run, PARAMS, {"seed": 7}, {"step": 3})
    return flags_of(f"--workdir={run}", f"--output={output}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--workdir, -o/--output"),
        (("--workdir=run",), "--output"),
        (("--workdir=run", "--output=mine", "--which=last"), "invalid choice: 'last'"),
        (("--workdir=run", "--output=mine", "--hal"), "did you mean --half"),
    ],
)
def test_bad_flags_are_told(arguments, told):
    with pytest.raises(UsageError, match=told):
        flags_of(*arguments)


def test_the_best_checkpoint_and_whole_floats_are_the_default(flags):
    assert flags.which == "best"
    assert not flags.half


def test_what_is_written_is_what_was_read(flags, capsys):
    config, params, meta = package.read(flags)
    assert (config.seed, meta["step"]) == (7, 3)
    package.write(flags, config, params, meta)
    assert capsys.readouterr().out.startswith(f"{flags.output}: step 3, ")
    again = checkpoints.load_packaged(flags.output)
    for name in ("kernel", "bias"):
        found = again.params["Dense_0"][name]
        np.testing.assert_array_equal(found, PARAMS["Dense_0"][name])


def test_half_precision_is_recorded(flags):
    flags.half = True
    package.write(flags, ml_collections.ConfigDict(), PARAMS, {"step": 3})
    record = json.loads((flags.output / "config.json").read_text())
    assert record["dtype"] == "float16"
    with np.load(flags.output / "weights.npz") as file:
        assert {file[name].dtype for name in file.files} == {np.dtype("float16")}


def test_the_folder_of_a_run_is_no_output(flags):
    (flags.output / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="--output: expected a folder of its own"):
        package.read(flags)


def test_a_run_that_is_not_there_is_told(flags, tmp_path):
    flags.workdir = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="expected a training run"):
        package.read(flags)
