"""Text of molecules from files that are plain or compressed, read within limits.

Byte order marks are passed over, and every form of line end becomes a newline.
"""

import gzip
import io
import re
from io import BufferedIOBase
from pathlib import Path

from common.errors import UsageError

LONGEST_LINE = 1 << 20  # characters; no file of molecules has longer ones
_FREE_BYTES, _MOST_EXPANSION = 1 << 28, 200
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_GZIP_MARK = b"\x1f\x8b"
_HEAD_BYTES = 4096
_CONVERT = "convert it, as by Open Babel: obabel -i{} {} -O molecules.sdf"
_FLAT = (".smi", ".smiles", ".inchi")
_KNOWN = (".pdb", ".ent", ".pdbqt", ".mol2", ".cif", ".mmcif", ".cml", ".gro")
_PDB = rb"\A(HEADER|COMPND|REMARK|TITLE|CRYST1|MODEL|ATOM|HETATM)\b"
_ROW_OF_XYZ = rb"\A\s*\d+[ \t]*\r?\n.*\n\s*[a-z]{1,2}\s+[-.\d]"
_OTHER_FORMS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), name, remedy)
    for pattern, name, remedy in (
        (rb"\A\s*<(!doctype|html|\?xml)", "a web page or XML", "get the file itself"),
        (rb"\Aversion https://git-lfs", "a pointer of Git LFS", "run git lfs pull"),
        (rb"@<TRIPOS>", "MOL2", _CONVERT),
        (_PDB, "PDB", _CONVERT),
        (rb"\Adata_\w", "CIF", _CONVERT),
        (rb"\A\$RXN\b", "RXN (a reaction)", "give its molecules one by one"),
        (rb"\A\$RDFILE\b", "RD", "write it as SDF, of molecules alone"),
        (rb"\A\$coord\b", "Turbomole's coord", "convert it, as by t2x > molecule.xyz"),
        (rb"^.{30,36}V[23]000\s*$|^M  V30 ", "SDF", "rename it to .sdf"),
        (_ROW_OF_XYZ, "XYZ", "rename it to .xyz"),
    )
)
"""Texts that are taken for SDF or XYZ by mistake, what they are, and the remedy."""


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
    """Opens a file for reading, unpacked if it is packed by gzip, whatever its name."""
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP_MARK
    if not is_packed:
        return path.open("rb")
    return limited(gzip.open(path), path.stat().st_size, str(path))


def how_to_convert(path: Path) -> str:
    """Returns what to do with a file whose ending tells a form that is not read.

    >>> how_to_convert(Path("a.pdb"))
    '; convert it, as by Open Babel: obabel -ipdb a.pdb -O molecules.sdf'
    """
    form = path.suffix.lower()
    if form in _FLAT:
        return "; " + _CONVERT.format(form[1:], path.name) + " --gen3d"
    return "; " + _CONVERT.format(form[1:], path.name) if form in _KNOWN else ""


def check_form(path: Path, form: str) -> None:
    """Raises `UsageError` if a file that could not be read seems to be of another form.

    Args:
        path: file of text.
        form: ending that the form was told by, as `.sdf`.
    """
    with open_bytes(path) as file:
        head = file.read(_HEAD_BYTES)
    for pattern, name, remedy in _OTHER_FORMS:
        if pattern.search(head) and f".{name.lower()}" != form:
            raise UsageError(
                f"{path}: expected molecules in {form[1:].upper()}, as its name says, "
                f"found what looks like {name}; "
                f"{remedy.format(name.lower(), path.name)}"
            )


def as_text(file: BufferedIOBase) -> io.TextIOWrapper:
    r"""Returns the text of a file; bytes that are none become replacement characters.

    >>> as_text(io.BytesIO(b"\xef\xbb\xbfthree\r\nlines\rhere")).read()
    'three\nlines\nhere'
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
    is_wide = buffered.peek(2)[:2] in _UTF_16_MARKS
    encoding = "utf-16" if is_wide else "utf-8-sig"
    return io.TextIOWrapper(buffered, encoding=encoding, errors="replace")
