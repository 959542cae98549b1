"""Pages that a command writes alone, with a seal by which it knows them as its own.

The last line is a comment with the name of the command and the SHA-256 of all before
it. A page without it, or one that was edited since, is replaced only when asked.
"""

import hashlib
from pathlib import Path

from common.commands.files import atomic_path, check_apart, check_output
from common.errors import UsageError


def check(
    command: str, path: Path, overwrite: bool, inputs: tuple[str, ...] = ()
) -> None:
    """Asks, before any work, whether a command may write its page; makes nothing.

    >>> check("symphony view", Path("view.html"), overwrite=False)

    Args:
        command: name of the command.
        path: page.
        overwrite: true to replace whatever stands there.
        inputs: files that are read.

    Raises:
        UsageError: It has another ending, or cannot be written, or is an input, or
            another's page, or was edited since.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output: expected a name that ends in .html, found {path}")
    check_apart(path, *inputs)
    check_output(path)
    if overwrite or not path.exists():
        return
    contents = path.read_bytes()
    if not contents.endswith(_seal(command, contents[: contents.rfind(b"\n<!-- ")])):
        raise UsageError(
            f"{path}: expected no file, or one as {command} left it, found another, or "
            "one edited since; give --overwrite or another --output"
        )


def write(command: str, path: Path, page: str) -> None:
    r"""Writes a page, whole, and seals it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "view.html")
    ...     write("symphony view", path, "<p>one molecule\n")
    ...     check("symphony view", path, overwrite=False)
    ...     path.read_text().splitlines()[0]
    '<p>one molecule'
    """
    contents = page.encode("utf-8", "backslashreplace")
    with atomic_path(path) as partial:
        partial.write_bytes(contents + _seal(command, contents))


def _seal(command: str, contents: bytes) -> bytes:
    digest = hashlib.sha256(contents).hexdigest()
    return f"\n<!-- written by {command}, sha256 {digest} -->\n".encode()
