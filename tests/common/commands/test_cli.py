"""Tests of what every command line shares."""

import errno
import os
import subprocess
import sys
import types

import pytest
from absl import flags, logging

from common.commands import cli
from common.errors import RunError, UsageError


def raiser(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("expected\n  an atom"), 2),
        (flags.Error("expected an atom"), 2),
        (RunError("expected an atom"), 3),
    ],
)
def test_expected_failures_are_one_line_and_a_status(error, status, capsys):
    assert cli.run("symphony sample", raiser(error), []) == status
    out, err = capsys.readouterr()
    assert (out, err) == ("", "symphony sample: expected an atom\n")


def test_an_interrupt_is_status_130(capsys):
    assert cli.run("symphony sample", raiser(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "symphony sample: interrupted\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero (tests/common/comm"),
        (AssertionError(), "AssertionError (tests/common/commands/test_cli.py:"),
        (MemoryError(), "memory ran out; give less at a time"),
        (RecursionError("maximum depth"), "RecursionError: maximum depth ("),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: 'utf"),
        (ValueError("a\nb"), "ValueError: a b ("),
        (PermissionError(13, "Permission denied", "a.sdf"), "a.sdf: Permission denied"),
        (
            ValueError("x: No space left on device"),
            "No space left on device; make room",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "memory ran out"),
    ],
)
def test_an_unexpected_error_is_one_line_and_status_3(error, told, capsys):
    assert cli.run("symphony sample", raiser(error), []) == 3
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_a_traceback_is_shown_to_who_asks(capsys, monkeypatch):
    monkeypatch.setenv("SYMPHONY_EQUIJUMP_TRACEBACK", "1")
    assert cli.run("symphony sample", raiser(ZeroDivisionError()), []) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("symphony sample: ZeroDivisionError")


@pytest.mark.parametrize(
    ("name", "install"),
    [("openmm.app", "pip install openmm"), ("a", "pip install a")],
)
def test_a_missing_package_is_told_with_how_to_install_it(name, install, capsys):
    error = ModuleNotFoundError(f"No module named '{name}'", name=name)
    assert cli.run("equijump simulate", raiser(error), []) == 2
    err = capsys.readouterr().err
    assert f"expected the package {name.partition('.')[0]}, found none" in err
    assert err.endswith(f"{install}\n")


def test_a_library_that_cannot_be_loaded_is_told(capsys):
    error = ImportError("libX.so.1: cannot open shared object file")
    assert cli.run("symphony sample", raiser(error), []) == 2
    assert "libX.so.1" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_word():
    code = (
        "import sys; from common.commands import cli\n"
        "sys.exit(cli.run('x', lambda argv: [print('line') for _ in range(99999)], []))"
    )
    command = f'{sys.executable} -c "{code}" | head -n 1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "line\n141\n"
    assert done.stderr == ""


def test_a_closed_output_is_no_failure():
    code = "from symphony.cli import main; raise SystemExit(main(['--version']))"
    command = f'{sys.executable} -c "{code}" >&-'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_run_passes_the_arguments_and_the_status_on():
    assert cli.run("symphony sample", lambda argv: len(argv), ["a", "b"]) == 2
    assert cli.run("symphony sample", lambda argv: None, []) == 0


def test_a_parser_raises_one_line_and_its_help_has_defaults(capsys):
    parser = cli.argument_parser("symphony sample", "Builds molecules.")
    parser.add_argument("--seed", type=int, default=17, help="seed")
    with pytest.raises(UsageError, match="--seed: invalid int value: 'x'"):
        parser.parse_args(["--seed=x"])
    with pytest.raises(UsageError, match="'--see=3', did you mean --seed"):
        parser.parse_args(["--see=3"])
    with pytest.raises(UsageError, match="'colour'; --help lists all"):
        parser.parse_args(["colour"])
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help"])
    assert stop.value.code == 0
    assert "(default: 17)" in capsys.readouterr().out


def test_the_device_is_printed(capsys):
    line = cli.announce_device()
    assert line.startswith("device: ")
    assert capsys.readouterr().out == f"{line}\n"


def test_the_compilation_cache_is_the_users_unless_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import os, sys; before = 'late' in sys.argv and __import__('jax')\n"
        "from common.commands import cli; cli.use_compilation_cache(); import jax\n"
        "print(jax.config.jax_compilation_cache_dir,"
        " jax.config.jax_persistent_cache_min_compile_time_secs)"
    )

    def cache(*argv):
        command = [sys.executable, "-c", code, *argv]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    assert cache() == cache("late")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    ours = f"{tmp_path / 'symphony-equijump' / 'jax'} 0.0"
    assert cache() == ours
    assert cache("late") == ours


def test_only_our_log_lines_are_shown_below_warning(capsys):
    cli.run("symphony train", lambda argv: None, [])
    record = logging.get_absl_logger().makeRecord
    ours = record("absl", 20, cli.__file__, 1, "step", (), None)
    theirs = record("absl", 20, pytest.__file__, 1, "step", (), None)
    grave = record("absl", 30, pytest.__file__, 1, "step", (), None)
    handler = logging.get_absl_handler()
    shown = [bool(handler.filter(it)) for it in (ours, theirs, grave)]
    assert shown == [True, False, True]


VERBS = {"train": "train a model", "sample": "build molecules"}


@pytest.mark.parametrize("argument", ["-h", "--help", "help"])
def test_the_help_of_a_program_lists_its_commands(argument, capsys):
    assert cli.dispatch("symphony", VERBS, [argument]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: symphony <command> [flags]\n")
    assert "  train   train a model\n" in out
    assert "  sample  build molecules\n" in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [([], "expected a command of train, sample"), (["tarin"], "found 'tarin'")],
)
def test_a_command_that_is_not_there_is_one_line(argv, told, capsys):
    assert cli.dispatch("symphony", VERBS, argv) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_only_the_module_of_the_command_is_run(monkeypatch):
    asked = []
    module = types.SimpleNamespace(main=lambda argv: asked.append(argv) or 7)
    monkeypatch.setitem(sys.modules, "symphony.train", module)
    assert cli.dispatch("symphony", VERBS, ["train", "--config=a"]) == 7
    assert asked == [["--config=a"]]


def test_a_file_that_fails_is_named_with_status_3(capsys):
    error = OSError(28, "No space left on device", "molecules.sdf")
    assert cli.run("symphony sample", raiser(error), []) == 3
    told = "symphony sample: molecules.sdf: No space left on device; make room and"
    assert capsys.readouterr().err.startswith(told)


def test_tracebacks_of_flags_become_their_last_line(capsys):
    text = "Traceback (most recent call last):\n  File x\nValueError: not a number"
    assert cli.run("symphony train", raiser(UsageError(text)), []) == 2
    assert capsys.readouterr().err == "symphony train: ValueError: not a number\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_that_cannot_be_written_is_one_line(argument, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.dispatch("symphony", {"train": "trains"}, [argument]) == 3
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # For its last flush.
    told = capsys.readouterr().err
    assert told.startswith("symphony: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("told", ["a: is full", "a: is full; make room and go on"])
def test_a_full_disk_is_told_with_one_remedy(told, capsys):
    def main(argv):
        raise RunError(told) from OSError(errno.ENOSPC, "No space left on device")

    assert cli.run("symphony train", main, []) == 3
    assert capsys.readouterr().err.count("make room") == 1


@pytest.mark.parametrize(
    "given", [["--start=a", "b"], ["--start", "a", "b"], ["--start=a", "--start=b"]]
)
def test_a_flag_of_several_values_takes_them_with_or_without_an_equals_sign(given):
    parser = cli.argument_parser("demo", "Shows.")
    parser.add_argument("--start", nargs="+", action="extend")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args([*given, "--seed=3"])
    assert (parsed.start, parsed.seed) == (["a", "b"], 3)
