"""Tests of the `symphony` command's dispatch."""

import subprocess
import sys
import types

import pytest

from symphony import cli


@pytest.fixture
def verb(monkeypatch):
    """Stands in for the module of `symphony score`, and records its arguments."""
    module = types.ModuleType("symphony.score")
    module.main = lambda argv: module.calls.append(argv)
    module.calls = []
    monkeypatch.setitem(sys.modules, "symphony.score", module)
    return module


def test_a_verb_gets_the_arguments_after_it(verb):
    assert cli.main(["score", "--molecules=in.sdf"]) == 0
    assert verb.calls == [["--molecules=in.sdf"]]


@pytest.mark.parametrize("argv", [["traim"], ["--seed=3"], []])
def test_an_unknown_verb_is_one_line_naming_the_known(argv, capsys):
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(verb in err for verb in cli.VERBS)


def test_help_lists_the_verbs(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in cli.VERBS:
        assert any(line.startswith(f"  {verb} ") for line in lines)


@pytest.mark.parametrize("package", ["symphony", "equijump"])
def test_the_package_is_a_command_too(package):
    words = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{package} ")


def test_the_dispatcher_imports_nothing_heavy():
    code = (
        "import sys, symphony, symphony.cli\n"
        "symphony.cli.main(['--version'])\n"
        "heavy = {'jax', 'flax', 'rdkit', 'mdtraj', 'rich', 'numpy', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("symphony ")
