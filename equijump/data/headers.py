"""Headers of binary trajectories, walked through before a reader in C sees the file.

A file that is cut, or whose headers promise more than it holds, is refused here, with
the frame. Frames are counted from 0.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from common.errors import UsageError

_XTC, _XTC_LARGE, _TRR = 1995, 2023, 1993
_HEAD = 56
"""Bytes of an XTC frame before its positions: magic, atoms, step, time, box, atoms."""

_FEW = 9
"""Atoms up to which XTC does not compress positions."""

_SMALLEST, _LARGEST = 9, 72
"""Least and greatest index into the table of sizes in XTC's compression."""


_OWN = "give the topology of all its atoms"

Bytes = UInt8[np.ndarray, " size"]


class _Damage(Exception):
    """What a header has in the place of what was expected."""


def check(path: Path, num_atoms: int) -> None:
    """Raises `UsageError` unless the headers of a trajectory fit its file and atoms.

    Formats other than XTC, TRR and DCD are left to their readers.

    Args:
        path: trajectory.
        num_atoms: number of atoms of its topology.
    """
    walk = _WALKS.get(path.suffix.lower())
    if walk is None:
        return
    try:
        if path.stat().st_size == 0:
            raise _Damage("an empty file; write it anew")
        walk(np.memmap(path, np.uint8, "r"), num_atoms)
    except _Damage as found:
        raise UsageError(
            f"{path}: expected a trajectory of the {num_atoms} atoms of its "
            f"topology, found {found}"
        ) from None


def _remedy(frame: int) -> str:
    if frame == 0:
        return "write it anew"
    return f"write it anew, or keep what is whole by mdconvert -i 0:{frame}"


def _walk_xtc(contents: Bytes, num_atoms: int) -> None:
    """Checks every frame of an XTC file; the fields together, at the end."""
    starts = _xtc_starts(contents, num_atoms)
    if num_atoms <= _FEW:
        return
    _check_compression(contents, np.array(starts))


def _xtc_starts(contents: Bytes, num_atoms: int) -> list[int]:
    """Returns where the frames of an XTC file begin, each in the file as a whole."""
    starts, place, size = [], 0, len(contents)
    read_head = struct.Struct(">ii").unpack_from
    read_count = struct.Struct(">i").unpack_from
    few = num_atoms <= _FEW
    needed = _HEAD + 12 * num_atoms if few else _HEAD + 36
    while place < size:
        frame = len(starts)
        if place + needed > size:
            raise _Damage(f"frame {frame} cut off; {_remedy(frame)}")
        magic, count = read_head(contents, place)
        if magic == _XTC_LARGE:
            raise _Damage(
                f"the form of XTC for over 298 million atoms in frame {frame}, which "
                "is not read; write the protein alone, e.g. by gmx trjconv"
            )
        if magic != _XTC:
            raise _Damage(f"no frame of XTC at frame {frame}; {_remedy(frame)}")
        inner = read_count(contents, place + _HEAD - 4)[0]
        if count != num_atoms or inner != num_atoms:
            other = count if count != num_atoms else inner
            raise _Damage(f"{other} atoms in frame {frame}; {_OWN}")
        starts.append(place)
        if few:
            place += needed
            continue
        (length,) = read_count(contents, place + _HEAD + 32)
        if not 0 < length <= 15 * num_atoms + 64:
            raise _Damage(f"{length} bytes of positions in frame {frame}, which its "
                          f"atoms cannot fill; {_remedy(frame)}")  # fmt: skip
        place += needed + (length + 3) // 4 * 4
        if place > size:
            raise _Damage(f"frame {frame} cut off; {_remedy(frame)}")
    return starts


def _check_compression(raw: Bytes, starts: Int[np.ndarray, " num_frames"]) -> None:
    """Checks time, box, precision, range and index of all frames."""
    for first in range(0, len(starts), 100_000):
        part = starts[first : first + 100_000]
        fields = raw[part[:, None] + np.arange(_HEAD + 32)]
        view = lambda a, b, kind: np.ascontiguousarray(fields[:, a:b]).view(kind)  # noqa: B023
        with np.errstate(all="ignore"):
            reals = view(12, 52, ">f4").astype(np.float64)
            precision = view(56, 60, ">f4")[:, 0].astype(np.float64)
        low, high = view(60, 72, ">i4").astype(np.int64), view(72, 84, ">i4")
        index = view(84, 88, ">i4")[:, 0]
        span = high.astype(np.int64) - low + 1
        wrong = {
            "a time or box that is no number": ~np.isfinite(reals).all(1),
            "a precision that cannot be": ~((precision > 0) & (precision < 1e9)),
            "a range of positions that cannot be": ~(
                (span > 0) & (span < 2**31)
            ).all(1),
            "a compression that cannot be": (index < _SMALLEST) | (index > _LARGEST),
        }  # fmt: skip
        for what, bad in wrong.items():
            if bad.any():
                frame = first + int(np.argmax(bad))
                raise _Damage(f"{what} in frame {frame}; {_remedy(frame)}")


def _walk_trr(contents: Bytes, num_atoms: int) -> None:
    """Checks every frame of a TRR file."""
    place, size, frame = 0, len(contents), 0
    while place < size:
        if place + 84 > size:
            raise _Damage(f"frame {frame} cut off; {_remedy(frame)}")
        if struct.unpack_from(">ii", contents, place) != (_TRR, 13):
            raise _Damage(f"no frame of TRR at frame {frame}; {_remedy(frame)}")
        sizes = struct.unpack_from(">13i", contents, place + 24)
        blocks, count = sizes[:10], sizes[10]
        if count != num_atoms:
            raise _Damage(f"{count} atoms in frame {frame}; {_OWN}")
        box, positions, velocities, forces = sizes[2], *sizes[7:10]
        real = positions // (3 * num_atoms)
        vectors = {0, 3 * num_atoms * real}
        if real not in (4, 8) or not {velocities, forces} <= vectors or box not in (
            0, 9 * real
        ):  # fmt: skip
            raise _Damage(f"sizes that do not fit in frame {frame}; {_remedy(frame)}")
        if min(blocks) < 0 or max(sizes[:2] + sizes[3:7]) > 9 * real:
            raise _Damage(f"sizes that do not fit in frame {frame}; {_remedy(frame)}")
        place += 76 + 2 * real + sum(blocks)
        if place > size:
            raise _Damage(f"frame {frame} cut off; {_remedy(frame)}")
        frame += 1


def _walk_dcd(contents: Bytes, num_atoms: int) -> None:
    """Checks header and number of frames of a DCD file."""
    order = next(
        (
            o
            for o in "<>"
            if contents[:8].tobytes() == struct.pack(f"{o}i4s", 84, b"CORD")
        ),
        None,
    )
    if order is None:
        return  # Of 64 bits, or none: for its reader to say.
    place, records = 0, []
    for _ in range(3):
        if place + 8 > len(contents):
            raise _Damage("a header cut off; write it anew")
        (length,) = struct.unpack_from(f"{order}i", contents, place)
        if not 4 <= length <= len(contents) - place - 8:
            raise _Damage("a header cut off; write it anew")
        records.append(place + 4)
        place += length + 8
    numbers = struct.unpack_from(f"{order}20i", contents, records[0] + 4)
    (count,) = struct.unpack_from(f"{order}i", contents, records[2])
    if count != num_atoms:
        raise _Damage(f"{count} atoms; {_OWN}")
    promised, fixed, has_box, has_fourth = (numbers[i] for i in (0, 8, 10, 11))
    if fixed:
        return
    each = (3 + bool(has_fourth)) * (4 * num_atoms + 8) + 56 * bool(has_box)
    held, rest = divmod(len(contents) - place, each)
    if rest or promised > held:
        raise _Damage(
            f"{held} whole frames, {promised} by its header and {rest} bytes more; "
            f"{_remedy(held)}"
        )


_WALKS: dict[str, Callable[[Bytes, int], None]] = {
    ".xtc": _walk_xtc,
    ".trr": _walk_trr,
    ".dcd": _walk_dcd,
}
