"""Files from the network: resumed where they broke off, checked, then named.

What has arrived is kept as `<name>.part` beside the target, also between runs.
"""

import errno
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from absl import logging

from common.errors import RunError, UsageError

_BLOCK_BYTES = 1 << 20
_LOG_EVERY = 5.0  # s


class Remote(NamedTuple):
    """A published file.

    Attributes:
        url: address.
        name: name of the file.
        md5: checksum by its publisher, or None.
        size: bytes, or None where not known.
    """

    url: str
    name: str
    md5: str | None
    size: int | None


def digest(path: Path, algorithm: str) -> str:
    """Returns the checksum of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _fault(
    path: Path, md5: str | None, sha256: str | None, size: int | None
) -> str | None:
    """Returns what is wrong with the file's contents in words, or None."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"expected {size} bytes, found {found}"
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None:
            actual = digest(path, algorithm)
            if actual != expected.lower():
                return f"expected {algorithm} {expected}, found {actual}"
    return None


def _announced_size(response: http.client.HTTPResponse, begin: int) -> int | None:
    """Returns the size of the whole file, by the headers of a part from `begin`."""
    length = response.headers.get("Content-Length")
    return None if length is None else begin + int(length)


def _continue(url: str, part: Path, timeout: float) -> int | None:
    """Appends what is missing to `part`; returns the size that the server announced.

    Where the server gives the whole file instead of the rest, `part` begins anew.

    Raises:
        OSError, http.client.HTTPException: The connection broke off.
    """
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "symphony"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status == 206 and content_range.startswith(f"bytes {begin}-")
        if begin and not resumed:
            begin = 0
        total = _announced_size(response, begin)
        done, logged = begin, time.monotonic()
        with part.open("ab" if begin else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                done += len(block)
                if time.monotonic() - logged > _LOG_EVERY:
                    logged = time.monotonic()
                    of = f" of {total / 1e6:.1f}" if total else ""
                    logging.info("%s: %.1f%s MB", part.stem, done / 1e6, of)
    return total


def _attempt(url: str, part: Path, timeout: float) -> str | None:
    """Downloads what is missing; returns why it is not complete, or None.

    Raises:
        UsageError: The server refuses the address.
        RunError: The disk is full.
    """
    try:
        total = _continue(url, part, timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Nothing lies beyond what we have, or it is too much.
            announced = error.headers.get("Content-Range", "")
            if announced == f"bytes */{part.stat().st_size}":
                return None
            part.unlink()
            return "the part on disk was longer than the file"
        if 400 <= error.code < 500 and error.code not in (408, 429):
            raise UsageError(f"{url}: expected a file, found {error}") from error
        return str(error)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"{part}: cannot be written ({error.strerror}); what arrived is kept, "
                "make room and run the command again to go on"
            ) from error
        return str(error) or type(error).__name__
    found = part.stat().st_size
    if total is not None and found != total:
        return f"the connection closed after {found} of {total} bytes"
    return None


def fetch(
    url: str,
    path: Path,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """Downloads a file unless it is there; goes on where an earlier try broke off.

    Its SHA-256 is noted beside it as `<name>.sha256`, in the form of sha256sum, and
    compared when the file is asked for again.

    Args:
        url: address of the file.
        path: final path; nothing stands there before the file is complete and checked.
        md5: expected MD5, if known.
        sha256: expected SHA-256, if known.
        size: bytes, if known.
        attempts: connections in a row that may bring no new byte.
        pause: pause before the second attempt, in s; doubled each time, at most 30.
        timeout: time for the server to answer or go on, in s.

    Raises:
        UsageError: The server refuses the address.
        RunError: The connection fails again and again, or the checksum differs.
    """
    note = path.with_name(path.name + ".sha256")
    words = note.read_text("utf-8", "replace").split() if note.exists() else []
    noted = words[0] if words else None
    if path.exists() and _fault(path, md5, sha256 or noted, size) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    before, fruitless = -1, 0
    while (reason := _attempt(url, part, timeout)) is not None:
        now = part.stat().st_size if part.exists() else 0
        fruitless = 0 if now > before else fruitless + 1
        before = max(before, now)
        if fruitless >= attempts:
            raise RunError(
                f"{url}: could not be downloaded ({reason}); {now} bytes are kept in "
                f"{part}, run the command again to go on"
            )
        logging.info("%s: %s; trying again", url, reason)
        time.sleep(min(30.0, pause * 2**fruitless))
    fault = _fault(part, md5, sha256, size)
    if fault is not None:
        part.unlink()
        raise RunError(f"{url}: {fault}; what arrived was removed")
    note.write_text(f"{digest(part, 'sha256')}  {path.name}\n", "utf-8")
    part.replace(path)
    return path


def fetch_remote(remote: Remote, folder: Path) -> Path:
    """Downloads a published file into a folder, under its own name."""
    return fetch(remote.url, folder / remote.name, md5=remote.md5, size=remote.size)
