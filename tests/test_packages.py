"""Every Python that is admitted finds wheels of all that is needed."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LISTED = re.compile(r"Programming Language :: Python :: (3\.\d+)")
VERSIONS = [
    match.group(1) for match in map(LISTED.match, PROJECT["classifiers"]) if match
]
SOURCES = ("pdbfixer",)
"""Packages that are published as sources alone; they are plain Python."""


def _resolve(*arguments: str, given: str = "") -> subprocess.CompletedProcess:
    command = ["uv", "pip", "compile", "--quiet", "--no-header", *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, cwd=ROOT, check=False
    )


def _resolved(version: str, *extras: str) -> str:
    """Returns the version of JAX that an installation gets, from wheels alone."""
    sources = [f"--no-binary={name}" for name in SOURCES]
    found = _resolve(
        "--only-binary=:all:", *sources, *(f"--extra={name}" for name in extras),
        "--python-version", version, "pyproject.toml",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return _jax(found.stdout)


def _jax(resolved: str) -> str:
    return re.search(r"^jax==(\S+)", resolved, re.M).group(1)


@pytest.fixture(scope="module")
def newest():
    """Returns the newest JAX; skips where no registry can be asked."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: nothing is resolved")
    found = _resolve("--python-version", VERSIONS[-1], "-", given="jax\n")
    if found.returncode:
        pytest.skip(f"no registry answers: {found.stderr.strip().splitlines()[-1]}")
    return _jax(found.stdout)


def test_the_listed_pythons_are_those_that_are_admitted():
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"
    assert sorted(VERSIONS, key=lambda v: tuple(map(int, v.split(".")))) == VERSIONS
    shown = f"Python {VERSIONS[0]} to {VERSIONS[-1]}"
    assert shown in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_admitted_python_has_wheels_of_all_that_is_needed(version, newest):
    assert _resolved(version, "dev", "md", "eval")


@pytest.mark.slow
def test_the_newest_jax_is_admitted(newest):
    assert _resolved(VERSIONS[-1]) == newest
