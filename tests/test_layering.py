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


@pytest.mark.parametrize("module", ["equijump.sample", "equijump.weights"])
def test_inference_does_not_import_training(module):
    code = f"import sys, {module}; print('equijump.train' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout.strip() == "False"


TRAINING = [f"{path.parent.name}.train" for path in ROOT.glob("*/train.py")]


@pytest.mark.parametrize("module", TRAINING)
def test_training_imports_no_chemistry_library(module):
    code = (
        f"import sys, {module}\n"
        "heavy = {'rdkit', 'mdtraj', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_core_never_mentions_a_chemistry_library():
    for path in files("common"):
        used = {module.split(".")[0] for module in imported_modules(path)}
        assert not used & {"rdkit", "mdtraj"}, path


@pytest.mark.parametrize("module", ["sample", "score", "refine", "weights", "generate"])
def test_inference_imports_no_training(module):
    code = (
        f"import sys, symphony.{module}\n"
        "found = [name for name in sys.modules if name.endswith('.train')]\n"
        "ours = ('common.', 'symphony.', 'equijump.')\n"
        "sys.exit(', '.join(n for n in found if n.startswith(ours)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_a_config_starts_from_another_by_its_name_alone():
    for path in files("configs"):
        assert not {m for m in imported_modules(path) if m.startswith("configs")}


INFERENCE = ("sample", "sampler", "starts", "manifest", "refine", "score", "likelihood")


@pytest.mark.parametrize("module", INFERENCE)
def test_sampling_and_scoring_never_import_evaluation(module):
    used = imported_modules(ROOT / "symphony" / f"{module}.py")
    assert not {name for name in used if name.startswith("symphony.evaluate")}


def test_perception_of_bonds_knows_no_evaluation():
    for path in files("symphony/chemistry"):
        used = imported_modules(path)
        assert not {name for name in used if name.startswith("symphony.evaluate")}
