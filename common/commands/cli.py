"""What every command line shares: exit statuses, flags, logs.

Exit status 0 means done, 2 bad usage or input (one line on stderr), 3 a failed run,
130 an interrupt from the keyboard, 141 a reader that closed the pipe. 1 does not exist.
Files, settings and progress are in the modules beside; their names are here as well.
"""

import argparse
import contextlib
import difflib
import importlib
import logging as standard_logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from common import __version__
from common.commands import environment, failures, pages
from common.commands.environment import announce_device as announce_device
from common.commands.environment import check_platform as check_platform
from common.commands.environment import use_compilation_cache as use_compilation_cache
from common.commands.failures import one_line as one_line
from common.commands.files import atomic_path as atomic_path
from common.commands.files import check_apart as check_apart
from common.commands.files import check_output as check_output
from common.commands.files import check_own as check_own
from common.commands.files import check_report as check_report
from common.commands.files import locked as locked
from common.commands.files import made_folder as made_folder
from common.commands.files import read_own as read_own
from common.commands.files import with_home_in_flag
from common.commands.files import write_own as write_own
from common.commands.progress import progress as progress
from common.errors import UsageError

_ROOT = Path(__file__).resolve().parents[2]
_OUR_CODE = tuple(
    f"{_ROOT / name}{os.sep}" for name in ("common", "symphony", "equijump")
)

Main = Callable[[Sequence[str] | None], int | None]


def run(command: str, main: Main, argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status, failures told in one line.

    >>> run("symphony demo", lambda argv: 0, [])
    0

    Args:
      command: name shown before the message, as in `symphony train`.
      main: function of the arguments after the command's name (`sys.argv[1:]` where
        None); what it returns is the exit status, and None is 0.
      argv: arguments given to `main`.
    """

    def prepared() -> int:
        environment.prepare_streams()
        _log_to_stderr()
        use_compilation_cache()
        environment.pin_jax()
        environment.prepare_matplotlib()
        return main(sys.argv[1:] if argv is None else argv) or 0

    return _guarded(command, prepared)


def _guarded(command: str, work: Callable[[], int]) -> int:
    """Returns the exit status of work, whose failures are told in one line."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except SystemExit as stop:
        if stop.code != 1:  # Of --help.
            raise
        return failures.BROKEN_PIPE  # Rich ends so where nobody reads.
    except (Exception, KeyboardInterrupt) as error:  # Whatever else may have failed.
        return tell(command, error)


def tell(command: str, error: BaseException) -> int:
    """Writes the line on an error to standard error and returns the exit status.

    >>> tell("symphony train", KeyboardInterrupt())
    130

    Args:
      command: name shown before the message.
      error: what ended the command.
    """
    message, status = failures.describe(error)
    if status == 3 and os.environ.get(failures.TRACEBACK, "0") != "0":
        traceback.print_exception(error)
    return _fail(command, message, status)


def dispatch(
    program: str, verbs: Mapping[str, str], argv: Sequence[str] | None = None
) -> int:
    """Runs `<program> <verb> [flags]` and returns the exit status.

    Only the module of the verb that was asked for, `<program>.<verb>`, is imported.

    >>> verbs = {"train": "train a model"}
    >>> dispatch("symphony", verbs, ["--version"])  # doctest: +ELLIPSIS
    symphony ...
    0

    Args:
      program: name of the console script and of the package that holds the verbs.
      verbs: verbs and what each does, in one line, in the order of the help.
      argv: arguments after the program's name; `sys.argv[1:]` where None.
    """
    environment.prepare_streams()
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if verb in ("-h", "--help", "help"):
        return _guarded(program, lambda: _show(_usage(program, verbs)))
    if verb == "--version":
        return _guarded(program, lambda: _show(f"{program} {__version__}\n"))
    if verb not in verbs:
        found = f"; found {verb!r}" if verb else ""
        known = ", ".join(verbs)
        return _fail(program, f"expected a command of {known}{found}", 2)

    if verb == "train" and argv is None:
        pages.take_huge_pages()

    def main(argv: Sequence[str] | None) -> int | None:
        return importlib.import_module(f"{program}.{verb}").main(argv)

    return run(f"{program} {verb}", main, rest)


def _show(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _usage(program: str, verbs: Mapping[str, str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {does}" for verb, does in verbs.items()]
    return "\n".join(
        [
            f"usage: {program} <command> [flags]",
            "",
            *lines,
            "",
            f"{program} <command> --help shows every flag; --version, the version.",
            "",
        ]
    )


def _fail(command: str, message: str, status: int) -> int:
    if message:
        sys.stderr.write(f"{command}: {one_line(message)}\n")
    else:  # Nobody reads: Python shall not try again when it ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


class _Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print its usage and exit."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses all arguments, `~` at the start of a value being the home folder.

        A flag of several values takes them as `--flag=a b` as well as `--flag a b`. An
        unknown flag is answered with the nearest one.
        """
        given = sys.argv[1:] if args is None else args
        given = [word for argument in given for word in self._words(argument)]
        parsed, unknown = self.parse_known_args(given, namespace)
        if unknown:
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            meant = f", did you mean {near[0]}?" if near else "; --help lists all"
            self.error(f"unknown argument {unknown[0]!r}{meant}")
        return parsed

    def _words(self, argument: str) -> list[str]:
        """Returns a flag of several values and its first value apart."""
        argument = with_home_in_flag(argument)
        flag, equals, value = argument.partition("=")
        action = self._option_string_actions.get(flag)
        takes_several = action is not None and action.nargs in ("+", "*")
        apart = equals and takes_several and not value.startswith("-")
        return [flag, value] if apart else [argument]

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each flag's help, unless there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.required:
            return action.help
        return super()._get_help_string(action)


def argument_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Returns an argparse parser whose help has the defaults and whose errors raise.

    >>> parser = argument_parser("symphony sample", "Builds molecules.")
    >>> _ = parser.add_argument("--seed", type=int, default=0, help="of the draws")
    >>> parser.parse_args(["--seed=7"]).seed
    7

    Args:
      command: name as typed, `symphony sample`.
      description: purpose of the command, for the head of its help.
    """
    return _Parser(
        prog=command,
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )


def _log_to_stderr() -> None:
    """Shows this project's log lines from INFO on, and others' from WARNING on."""
    flags.FLAGS.mark_as_parsed()  # Else the first line complains that they are not.
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.removeFilter(_is_ours_or_grave)
    handler.addFilter(_is_ours_or_grave)
    warnings.showwarning = _log_warning


def _log_warning(message: Warning | str, *where: Any) -> None:
    """Shows a library's warning in one line of the log, without a line of its code."""
    logging.warning("%s", one_line(str(message))[:300])


def _is_ours_or_grave(record: standard_logging.LogRecord) -> bool:
    return record.levelno >= standard_logging.WARNING or record.pathname.startswith(
        _OUR_CODE
    )


def check_seed(seed: int) -> None:
    """Raises `UsageError` for a seed that is no 32-bit number.

    >>> check_seed(7)
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {seed}")
