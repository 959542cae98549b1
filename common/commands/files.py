"""Files that commands write: whose they are, locks, and names given only when whole.

A command replaces a file without being asked only where it knows it as its own by its
contents: the JSON file among its outputs has an entry `written`, with the name of the
command and the SHA-256 of each file. Links are followed. A device or a pipe is never
replaced.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import RunError, UsageError
from common.runs import cache

SEAL = "written"
"""Entry of a JSON file that tells who wrote it and the files beside it."""

_WRITTEN = ("--output", "--workdir")
_DEVICES = frozenset(map(Path, ("/dev", "/dev/fd", "/proc/self/fd")))


def with_home(text: str) -> str:
    """Returns a path whose `~` at the start is the home folder.

    >>> with_home("run/molecules.sdf")
    'run/molecules.sdf'

    Raises:
        UsageError: There is no home folder.
    """
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path == text and text.partition("/")[0] == "~":
        raise UsageError(f"{text}: expected a home folder for ~, found none; set HOME")
    return path


def with_home_in_flag(argument: str) -> str:
    """Returns an argument of a command line whose value has no `~` at its start.

    >>> with_home_in_flag("--output=run") == with_home("--output=run")
    True

    Raises:
        UsageError: There is no home folder, or nothing is given to write to, which
            would be the working folder.
    """
    flag, equals, value = argument.partition("=")
    if equals and not value.strip() and flag in _WRITTEN:
        raise UsageError(
            f"{flag}: expected a path, found none; is a variable of the shell empty?"
        )
    if flag.startswith("-") and equals:
        return f"{flag}={with_home(value)}"
    return with_home(argument)


def check_output(path: Path) -> None:
    """Asks, before work is done for a file, whether it can be written; makes nothing.

    >>> check_output(Path("molecules.sdf"))

    Raises:
        UsageError: `path` is a folder, a device or a pipe, or write-protected, or its
            own folder cannot be made or written to.
    """
    try:
        target = path.resolve()
        _check_kind(path)
        nearest = next(folder for folder in target.parents if folder.exists())
    except (
        OSError,
        RuntimeError,
    ) as error:  # A loop of links, a name that is too long.
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write {path}: {reason}") from error
    if not nearest.is_dir():
        raise UsageError(f"cannot write {path}: {nearest} is not a folder")
    if not _is_writable(nearest):
        raise UsageError(
            f"cannot write {path}: {nearest} is not writable; write elsewhere"
        )


def _check_kind(path: Path) -> None:
    """Raises `UsageError` for what stands there and is no file that can be replaced."""
    if path.is_dir():
        raise UsageError(f"expected a file name for output, found a folder: {path}")
    exists = path.exists()
    if path.absolute().parent in _DEVICES or (exists and not path.is_file()):
        raise UsageError(
            f"cannot write {path}: expected a file, found a device or a pipe; the "
            "command writes several files or goes on later: give a file name"
        )
    if exists and not _is_writable(path):
        raise UsageError(
            f"cannot write {path}: it is write-protected; chmod u+w makes it writable, "
            "or write elsewhere"
        )


def _is_writable(path: Path) -> bool:
    """Returns whether a path may be written; the superuser heeds its mode too."""
    return bool(path.stat().st_mode & 0o222) and cache.may(os.W_OK, path)


def check_report(folder: Path, command: str = "", overwrite: bool = True) -> None:
    """Asks whether a command may write its report to a folder; makes nothing.

    >>> check_report(Path("report"), "symphony evaluate", overwrite=False)

    Args:
        folder: folder of the report.
        command: name of the command.
        overwrite: true to replace whatever stands there.

    Raises:
        UsageError: It cannot be written; see `check_own`.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output: expected a folder, found a file: {folder}")
    page = folder / "report.html"
    check_own(command, folder / "report.json", [page], overwrite)


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
def made_folder(folder: Path, flag: str = "--output") -> Iterator[Path]:
    """Makes a folder that a flag names; where the block raises, none is left empty.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with made_folder(Path(folder, "runs", "first"), "--workdir") as path:
    ...         print(path.is_dir())
    True

    Raises:
        UsageError: The folder cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise UsageError(f"{flag}: cannot make {folder} ({error.strerror})") from error
    try:
        yield folder
    except BaseException:
        _remove_empty(missing)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders, innermost first, up to one that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


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
            raise UsageError(
                f"{path}: is in use by another command; wait for its end, or write "
                "elsewhere"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which gets its final name on success.

    Nothing half-written ever stands under the final name: where the block raises, what
    it wrote is removed and a former file stays as it was. Missing folders are made; a
    link is followed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "notes.txt")) as path:
    ...         _ = path.write_text("done")
    ...     print(Path(folder, "notes.txt").read_text())
    done

    Raises:
        UsageError: `path` cannot be written, see `check_output`.
        RunError: There is no space left, or another failure of the file system.
    """
    path = Path(path)
    check_output(path)
    target = path.resolve()
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    with made_folder(target.parent):
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            if target.exists():
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            partial.replace(target)
        except OSError as error:
            if error.filename not in (None, str(partial), partial):
                raise  # It is of another file.
            raise RunError(
                f"{path}: cannot be written ({error.strerror or error}); what stood "
                "there before is as it was"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def check_own(
    command: str, record: Path, others: Sequence[Path], overwrite: bool
) -> None:
    """Asks, before any work, whether a command may write its files.

    It may where nothing stands, where all is as it left it, or where it is told to.

    >>> check_own("symphony score", Path("scores.json"), [Path("scores.csv")], False)

    Args:
        command: name of the command.
        record: JSON file among the outputs, sealed by `write_own`.
        others: the other outputs, in the same folder.
        overwrite: true to replace whatever stands there.

    Raises:
        UsageError: A file cannot be written, or is another's, or was edited since.
    """
    for path in (*others, record):
        check_output(path)
    if overwrite:
        return
    known = _sealed(command, record)
    for path in (record, *others):
        if not path.exists():
            continue
        found = known.get(record.name) if path == record else digest(path)
        if found is None or found != known.get(path.name):
            raise UsageError(
                f"{path}: expected no file, or one as {command} left it, found "
                "another, or one edited since; give --overwrite or another --output"
            )


def read_own(command: str, record: Path, others: Sequence[Path]) -> dict[str, Any]:
    """Returns the values of a command's JSON file, as `write_own` was given them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = Path(folder, "scores.json")
    ...     write_own("symphony score", record, {"seed": 1}, {})
    ...     read_own("symphony score", record, [])
    {'seed': 1}

    Args:
        command: name of the command that wrote.
        record: JSON file among its outputs.
        others: the other outputs.

    Raises:
        UsageError: A file is missing, another's, or was edited since.
    """
    known = _sealed(command, record)
    for path in (record, *others):
        has_it = path.is_file()
        found = has_it and (known.get(path.name) if path == record else digest(path))
        if not found or found != known.get(path.name):
            told = "another, or one edited since" if has_it else "none"
            raise UsageError(
                f"{path}: expected a file as {command} left it, found {told}"
            )
    values = json.loads(record.read_bytes())
    del values[SEAL]
    return values


def write_own(
    command: str,
    record: Path,
    values: Mapping[str, Any],
    others: Mapping[Path, str],
) -> None:
    """Writes the files of a command, whole, and seals them in the JSON file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record, table = Path(folder, "scores.json"), Path(folder, "scores.csv")
    ...     write_own("symphony score", record, {"seed": 1}, {table: "name,score"})
    ...     check_own("symphony score", record, [table], overwrite=False)
    ...     table.read_text()
    'name,score'

    Args:
        command: name of the command.
        record: JSON file to write.
        values: JSON values of it.
        others: contents of the other files, by their paths.
    """
    encoded = lambda text: text.encode("utf-8", "backslashreplace")
    contents = {path: encoded(text) for path, text in others.items()}
    digests = {p.name: hashlib.sha256(c).hexdigest() for p, c in contents.items()}
    contents[record] = encoded(sealed(command, record.name, values, digests))
    with contextlib.ExitStack() as stack:  # All are whole before any has its name.
        for path, content in contents.items():
            stack.enter_context(atomic_path(path)).write_bytes(content)


def sealed(
    command: str, name: str, values: Mapping[str, Any], digests: Mapping[str, str]
) -> str:
    """Returns the JSON text of some values with their seal.

    >>> text = sealed("symphony score", "scores.json", {"seed": 1}, {})
    >>> json.loads(text)["written"]["by"]
    'symphony score'

    Args:
        command: name of the command; without one there is no seal.
        name: name of the JSON file.
        values: JSON values.
        digests: SHA-256 of the other files, by their names.
    """
    text = json.dumps(dict(values), allow_nan=False)
    plain = json.loads(text)  # Names as they read back.
    own = {**digests, name: _digest_of(plain)}
    seal = {SEAL: {"by": command, "sha256": own}} if command else {}
    return json.dumps({**plain, **seal}, indent=1, ensure_ascii=False) + "\n"


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file's contents.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digest(Path(file.name))[:8]
    'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(values: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sealed(command: str, record: Path) -> dict[str, str]:
    """Returns the digests that a JSON file of a command seals, none of another."""
    try:
        values = json.loads(record.read_bytes())
        seal = values.pop(SEAL)
        known = {str(name): str(value) for name, value in seal["sha256"].items()}
        is_ours = seal["by"] == command and known[record.name] == _digest_of(values)
    except (
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
    ):
        return {}
    return known if is_ours else {}
