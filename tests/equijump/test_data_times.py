"""Tests of the time between frames, read or given."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UsageError
from equijump.data.times import find_spacing

EVEN = np.arange(8.0)
RESTARTED = np.concatenate([np.arange(8.0), np.arange(4.0)])
REPEATED = np.array([0.0, 1, 2, 3, 3, 4, 5])
ZERO = np.zeros(5)


@pytest.mark.parametrize("times", [RESTARTED, REPEATED, ZERO])
@pytest.mark.parametrize("flag", ["--config.data.spacing", "--reference_spacing"])
def test_times_of_no_use_name_the_flag(times, flag):
    with pytest.raises(UsageError, match=rf"give their spacing in ps by {flag}"):
        find_spacing(Path("run.xtc"), times, flag=flag)


@pytest.mark.parametrize("times", [RESTARTED, REPEATED, ZERO])
def test_a_given_spacing_serves_for_times_of_no_use(times):
    assert find_spacing(Path("run.xtc"), times, 1.0) == 1.0


def test_all_times_alike_are_told():
    with pytest.raises(UsageError, match="found the time 0 ps in all"):
        find_spacing(Path("run.xtc"), ZERO)


@pytest.mark.parametrize("times", [EVEN, RESTARTED, REPEATED])
def test_a_given_spacing_never_overrules_the_times_of_a_file(times):
    told = r"20 ps apart, as --spacing says, found 1 ps by the times in the file; leave"
    with pytest.raises(UsageError, match=told):
        find_spacing(Path("run.xtc"), times, 20.0, "--spacing")


def test_a_given_spacing_that_is_the_one_of_the_file_passes():
    assert find_spacing(Path("run.xtc"), EVEN, 1.0) == 1.0


@pytest.mark.parametrize("name", ["run.dcd", "run.pdb", "run.pdb.gz"])
def test_formats_without_times_take_the_given_one(name):
    assert find_spacing(Path(name), EVEN, 20.0) == 20.0
    with pytest.raises(UsageError, match=r"do not keep: give it in ps by --spacing"):
        find_spacing(Path(name), EVEN, flag="--spacing")


def test_times_that_fall_are_told():
    with pytest.raises(UsageError, match="found them to fall by 1 ps a frame"):
        find_spacing(Path("run.xtc"), EVEN[::-1])
