"""Tests of which package may import which, and of what a training run loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "common": {"common"},
    "symphony": {"common", "symphony"},
    "equijump": {"common", "equijump"},
    "configs": {"common"},
}

OUTSIDE_TRAINING = ("sample", "evaluate", "score", "view", "simulate")


def imported_modules(path):
    """Returns every module that the file imports, at its top or inside a function."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_the_layers_below(package):
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package]
    for path in files(package):
        used = {module.split(".")[0] for module in imported_modules(path)}
        assert not used & forbidden, f"{path} imports {used & forbidden}"


@pytest.mark.parametrize("package", ["common", "symphony", "equijump"])
def test_nothing_is_imported_by_a_relative_name_or_from_tests(package):
    for path in files(package):
        used = {module.split(".")[0] for module in imported_modules(path)}
        assert not used & {"", "tests", "benchmarks"}, path


def loaded_with(module):
    """Returns the names of all modules that a fresh process loads with a module."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


TRAINING = [f"{path.parent.name}.train" for path in ROOT.glob("*/train.py")]


@pytest.mark.parametrize("module", TRAINING)
def test_training_imports_no_chemistry_library(module):
    assert not loaded_with(module) & {"rdkit", "ase", "mdtraj", "matplotlib"}


def test_the_core_never_mentions_a_chemistry_library():
    for path in files("common"):
        used = {module.split(".")[0] for module in imported_modules(path)}
        assert not used & {"rdkit", "ase", "mdtraj"}, path


LEAVES = {"errors", "folders"}
ROOMS = {
    "errors": set(),
    "folders": set(),
    "so3": {"so3"},
    "geometry": {"geometry", "so3"},
    "generative": {"generative", "geometry", "so3"},
    "nn": {"nn", "geometry", "so3"},
}
"""Rooms of the core that hold mathematics, and those that each may import."""


@pytest.mark.parametrize("room", ROOMS)
def test_mathematics_imports_no_commands_and_no_runs(room):
    inside = files(f"common/{room}") or [ROOT / "common" / f"{room}.py"]
    for path in inside:
        used = {m.split(".")[1] for m in imported_modules(path) if "common." in m}
        assert not used - ROOMS[room] - LEAVES, path


INFERENCE = ("sample", "sampler", "starts", "manifest", "refine", "score", "likelihood")
LOADING = (
    "symphony.sample", "symphony.score", "symphony.refine", "symphony.weights",
    "symphony.generate", "equijump.sample", "equijump.sampler", "equijump.weights",
)  # fmt: skip


@pytest.mark.parametrize("module", LOADING)
def test_inference_imports_no_training(module):
    ours = ("common.", "symphony.", "equijump.")
    found = {name for name in loaded_with(module) if name.endswith(".train")}
    assert not {name for name in found if name.startswith(ours)}


def test_a_config_starts_from_another_by_its_name_alone():
    for path in files("configs"):
        assert not {m for m in imported_modules(path) if m.startswith("configs")}


@pytest.mark.parametrize("module", INFERENCE)
def test_sampling_and_scoring_never_import_evaluation(module):
    used = imported_modules(ROOT / "symphony" / f"{module}.py")
    assert not {name for name in used if name.startswith("symphony.evaluate")}


def test_perception_of_bonds_knows_no_evaluation():
    for path in files("symphony/chemistry"):
        used = imported_modules(path)
        assert not {name for name in used if name.startswith("symphony.evaluate")}
