"""What a command says when it fails, and its exit status: one line, never a traceback.

`SYMPHONY_EQUIJUMP_TRACEBACK=1` shows the traceback of an unexpected error before it.
"""

import errno
import os
import re
import traceback
from pathlib import Path

from absl import flags

from common.errors import RunError, UsageError

TRACEBACK = "SYMPHONY_EQUIJUMP_TRACEBACK"
"""Variable of the environment that asks for tracebacks."""

_ROOT = Path(__file__).resolve().parents[2]
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = tuple(map(os.strerror, _FULL))
BROKEN_PIPE = 128 + 13
"""Exit status of a program whose reader closed the pipe, as if SIGPIPE had ended it."""


def one_line(message: str) -> str:
    r"""Returns a message in one line; of a traceback, its last one.

    >>> one_line("expected a number,\n  found none")
    'expected a number, found none'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]  # The flags library wraps errors in their traceback.
    return " ".join(lines)


_WORDS = tuple(
    (re.compile(pattern), told)
    for pattern, told in (
        (
            r"argument (\S+): invalid int value: (.*)",
            r"\1: expected a whole number, found \2",
        ),
        (
            r"argument (\S+): invalid float value: (.*)",
            r"\1: expected a number, found \2",
        ),
        (
            r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)",
            r"\1: expected one of \3; found \2",
        ),
        (
            r"argument (\S+): expected (at least )?one argument",
            r"\1: expected a value, found none",
        ),
        (r"the following arguments are required: (.*)", r"expected \1, found none"),
        (r"flag --(\S+)=None: .* must have a value.*", r"expected --\1, found none"),
        (
            r"flag --(\S+?)=(.*): invalid literal for int\(\).*",
            r"--\1: expected a whole number, found '\2'",
        ),
        (
            r"flag --(\S+?)=(.*): could not convert string to float.*",
            r"--\1: expected a number, found '\2'",
        ),
        (
            r"flag --(\S+?)=(.*): \('Non-boolean argument.*",
            r"--\1: expected true or false, found '\2'",
        ),
        (r"Unknown command line flag '(\S+)'(.*)", r"unknown argument '--\1'\2"),
    )
)
"""Messages of argparse and absl, and what is said in their place."""


def in_our_words(message: str) -> str:
    """Returns a message of argparse or absl as what was expected, found, and where.

    >>> in_our_words("argument --seed: invalid int value: 'abc'")
    "--seed: expected a whole number, found 'abc'"
    """
    for pattern, told in _WORDS:
        if match := pattern.fullmatch(one_line(message)):
            return match.expand(told)
    return message


def describe(error: BaseException) -> tuple[str, int]:
    """Returns the message of an error and the exit status; none of a closed pipe.

    >>> describe(UsageError("--seed: expected a number, found x"))
    ('--seed: expected a number, found x', 2)
    >>> describe(MemoryError())
    ('memory ran out; give less at a time, or a machine with more', 3)
    """
    if isinstance(error, UsageError | flags.Error):
        return in_our_words(str(error)), 2
    if isinstance(error, RunError):
        return _run_error(error), 3
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, BrokenPipeError):
        return "", BROKEN_PIPE
    if getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return f"expected a shorter name of a file or folder, found {error}", 2
    if isinstance(error, ImportError):
        return _missing_package(error), 2
    if _passed(error, "jax/_src/config.py"):
        told = one_line(str(error))
        return f"expected settings in JAX_... that JAX knows, found {told}", 2
    return _unexpected(error), 3


def _passed(error: BaseException, file: str) -> bool:
    """Returns whether an error was raised in a file."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith(file)


def _run_error(error: RunError) -> str:
    """Returns its message; of a full disk, with what to do."""
    is_full = getattr(error.__cause__, "errno", None) in _FULL
    is_told = not is_full or "make room" in str(error)
    return str(error) if is_told else f"{error}; make room and run the command again"


def _missing_package(error: ImportError) -> str:
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not name:
        return f"expected packages that can be imported, found {_type(error)}: {error}"
    return f"expected the package {name}, found none: pip install {name}"


def _unexpected(error: BaseException) -> str:
    text = str(error)
    full = next((words for words in _FULL_WORDS if words in text), None)
    if isinstance(error, OSError) and not full:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if full:
        where = getattr(error, "filename", None) or "a file that was being written"
        return f"{where}: {full}; make room and run the command again"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return "memory ran out; give less at a time, or a machine with more"
    told = f"{_type(error)}: {one_line(text)[:300]}".rstrip(": ")
    return (
        f"{told} ({_place(error)}): a fault of this program or of the input; "
        f"{TRACEBACK}=1 shows where"
    )


def _type(error: BaseException) -> str:
    return type(error).__name__


def _place(error: BaseException) -> str:
    """Returns file and line of this project's code that an error came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT)]
    for frame in reversed(ours or frames):
        path = Path(frame.filename)
        shown = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
        return f"{shown}:{frame.lineno}"
    return "no line known"
