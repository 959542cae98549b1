"""Text of molecules from files that are plain or compressed, read within limits.

Byte order marks are passed over, and every form of line end becomes a newline.
"""

import gzip
import io
from io import BufferedIOBase
from pathlib import Path

from common.errors import UsageError

LONGEST_LINE = 1 << 20  # characters; no file of molecules has longer ones
_FREE_BYTES, _MOST_EXPANSION = 1 << 28, 200
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Limited(io.RawIOBase):
    """A stream that is refused beyond a number of bytes, as a gzip bomb has them."""

    def __init__(self, stream: BufferedIOBase, limit: int, source: str) -> None:
        self._stream, self._left, self._source = stream, limit, source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        block = self._stream.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise UsageError(
                f"{self._source}: expected a compressed file that grows to at most "
                f"{_MOST_EXPANSION} times its size, found more; unpack it first"
            )
        buffer[: len(block)] = block
        return len(block)


def limited(stream: BufferedIOBase, num_bytes: int, source: str) -> BufferedIOBase:
    """Returns a stream of unpacked bytes that ends with an error if it is a bomb.

    Args:
        stream: unpacked bytes.
        num_bytes: size of what they are unpacked from.
        source: name of the file in messages.
    """
    limit = _FREE_BYTES + _MOST_EXPANSION * num_bytes
    return io.BufferedReader(_Limited(stream, limit, source))


def open_bytes(path: Path) -> BufferedIOBase:
    """Opens a file for reading, unpacked if its name ends in .gz."""
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    return limited(gzip.open(path), path.stat().st_size, str(path))


def as_text(file: BufferedIOBase) -> io.TextIOWrapper:
    r"""Returns the text of a file; bytes that are none become replacement characters.

    >>> as_text(io.BytesIO(b"\xef\xbb\xbfthree\r\nlines\rhere")).read()
    'three\nlines\nhere'
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
    is_wide = buffered.peek(2)[:2] in _UTF_16_MARKS
    encoding = "utf-16" if is_wide else "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding=encoding, errors="replace")
