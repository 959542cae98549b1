"""Tests of what every command line shares."""

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


def test_an_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run("symphony sample", raiser(ZeroDivisionError()), [])


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


def test_a_file_gets_its_name_only_once_complete(tmp_path):
    path = tmp_path / "new" / "molecules.sdf"
    with cli.atomic_path(path) as partial:
        partial.write_text("whole")
        assert partial.suffix == ".sdf"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "molecules.sdf"
    path.write_text("former")

    def write_half():
        with cli.atomic_path(path) as partial:
            partial.write_text("ha")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_output_that_cannot_be_a_file_is_bad_usage(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "inside.sdf"):
        with pytest.raises(UsageError, match=str(path)), cli.atomic_path(path):
            raise AssertionError("the block was entered")


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
    [([], "expected a command: train, sample"), (["tarin"], "found 'tarin'")],
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
    told = "symphony sample: molecules.sdf: No space left on device\n"
    assert capsys.readouterr().err == told


def test_an_output_may_not_be_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.check_apart(tmp_path / "out.sdf", tmp_path / "in.sdf", None)
    with pytest.raises(UsageError, match=r"found out\.sdf for both"):
        cli.check_apart(cli.Path("out.sdf"), None, tmp_path / "out.sdf")


def test_a_lock_keeps_others_out_until_it_is_left(tmp_path):
    refused = pytest.raises(UsageError, match="in use by another")
    with cli.locked(tmp_path), refused, cli.locked(tmp_path):
        raise AssertionError("the block was entered")
    with cli.locked(tmp_path):
        pass


def test_an_output_in_a_folder_that_is_not_there_will_do(tmp_path):
    cli.check_output(tmp_path / "new" / "deep" / "molecules.sdf")
    assert not (tmp_path / "new").exists()


def test_tracebacks_of_flags_become_their_last_line(capsys):
    text = "Traceback (most recent call last):\n  File x\nValueError: not a number"
    assert cli.run("symphony train", raiser(UsageError(text)), []) == 2
    assert capsys.readouterr().err == "symphony train: ValueError: not a number\n"


def test_a_folder_in_place_of_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--workdir: cannot make"):
        cli.make_folder(tmp_path / "file" / "run", "--workdir")
    cli.make_folder(tmp_path, "--workdir")  # It is there already.
