"""What every command line shares: exit statuses, flags, the device, progress, files.

Exit status 0 means done, 2 bad usage or input (one line on stderr), 3 a failed run,
130 an interrupt from the keyboard. JAX is imported here only where a function needs it.
"""

import argparse
import contextlib
import difflib
import fcntl
import importlib
import logging as standard_logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from common import __version__
from common.commands.progress import progress as progress
from common.errors import RunError, UsageError

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
    try:
        use_compilation_cache()
        _log_to_stderr()
        return main(sys.argv[1:] if argv is None else argv) or 0
    except (UsageError, flags.Error) as error:
        return _fail(command, str(error), 2)
    except RunError as error:
        return _fail(command, str(error), 3)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(command, f"{where}{error.strerror or error}", 3)
    except KeyboardInterrupt:
        return _fail(command, "interrupted", 130)


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
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        return _fail(program, f"expected a command: {', '.join(verbs)}", 2)
    verb, *rest = argv
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(_usage(program, verbs))
        return 0
    if verb == "--version":
        sys.stdout.write(f"{program} {__version__}\n")
        return 0
    if verb not in verbs:
        known = ", ".join(verbs)
        return _fail(program, f"expected a command of {known}; found {verb!r}", 2)

    def main(argv: Sequence[str] | None) -> int | None:
        return importlib.import_module(f"{program}.{verb}").main(argv)

    return run(f"{program} {verb}", main, rest)


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
    sys.stderr.write(f"{command}: {one_line(message)}\n")
    return status


def one_line(message: str) -> str:
    r"""Returns a message in one line; of a traceback, its last one.

    >>> one_line("expected a number,\n  found none")
    'expected a number, found none'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]  # The flags library wraps errors in their traceback.
    return " ".join(lines)


class _Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print its usage and exit."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses all arguments; an unknown flag is answered with the nearest one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            meant = f", did you mean {near[0]}?" if near else "; --help lists all"
            self.error(f"unknown argument {unknown[0]!r}{meant}")
        return parsed

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


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes, so that a second start is warm.

    The folder is `JAX_COMPILATION_CACHE_DIR`, or `symphony-equijump/jax` in the user's
    cache folder. A setting found in the environment stays.

    >>> use_compilation_cache()
    >>> "JAX_COMPILATION_CACHE_DIR" in os.environ
    True
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    defaults = {
        "jax_compilation_cache_dir": str(base / "symphony-equijump" / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in defaults.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:  # It has read the environment already.
            sys.modules["jax"].config.update(name, value)


def announce_device() -> str:
    """Prints the devices in use and returns the line; starts JAX's backend.

    >>> line = announce_device()  # doctest: +ELLIPSIS
    device: ...
    """
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    line = f"device: {len(devices)} x {devices[0].platform} ({kind})"
    if devices[0].platform == "cpu":
        line = f"device: {len(devices)} x cpu ({os.cpu_count()} cores)"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return line


def _log_to_stderr() -> None:
    """Shows this project's log lines from INFO on, and others' from WARNING on."""
    flags.FLAGS.mark_as_parsed()  # Else the first line complains that they are not.
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.removeFilter(_is_ours_or_grave)
    handler.addFilter(_is_ours_or_grave)


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


def check_output(path: Path) -> None:
    """Asks, before work is done for a file, whether it can be written; makes nothing.

    >>> check_output(Path("molecules.sdf"))

    Raises:
      UsageError: `path` is a folder, or its own folder cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(f"expected a file name for output, found a folder: {path}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise UsageError(f"cannot write {path}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"cannot write {path}: {nearest} is not writable")


def check_report(folder: Path) -> None:
    """Raises `UsageError` if reports cannot be written to a folder; makes nothing.

    >>> check_report(Path("report"))
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: expected a folder, found a file: {folder}")
    check_output(folder / "report.json")


def make_folder(folder: Path, flag: str) -> None:
    """Makes a folder that a flag names, if it is not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(Path(folder, "runs", "first"), "--workdir")
    ...     print(Path(folder, "runs", "first").is_dir())
    True
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: cannot make {folder} ({error.strerror})") from error


def check_apart(output: Path, *inputs: str | os.PathLike[str] | None) -> None:
    """Raises `UsageError` if what would be written is one of the inputs.

    >>> check_apart(Path("refined.sdf"), "molecules.sdf", None)
    """
    for given in inputs:
        if given is not None and output.resolve() == Path(given).resolve():
            raise UsageError(
                f"expected an output that is not the input, found {output} for both"
            )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps a file or folder to this process while the block runs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     print("no other command writes here")
    no other command writes here

    Raises:
      UsageError: Another process has it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{path}: is in use by another command") from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which gets its final name on success.

    Nothing half-written ever stands under the final name: where the block raises, what
    it wrote is removed and a former file stays as it was. Missing folders are made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "notes.txt")) as path:
    ...         _ = path.write_text("done")
    ...     print(Path(folder, "notes.txt").read_text())
    done

    Raises:
      UsageError: `path` is a folder, or its own folder cannot be made or written to.
    """
    path = Path(path)
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
