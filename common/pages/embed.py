"""What a page that needs no network has inside: data, scripts, a drawing library."""

import base64
import functools
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY = Path(__file__).parent / "3dmol" / "3Dmol-min.js"
"""3Dmol.js 2.5.5, BSD-3-Clause; its licence lies beside it."""

SHARED = Path(__file__).with_name("molecules.js")
"""Script that unpacks data and draws molecules; it comes before those that use it."""

MISSING = int(np.iinfo(np.int16).min)
"""Packed value of a number that is not there."""


def pack(values: Any, unit: float = 0.01) -> str:
    r"""Returns numbers as base64 of little-endian int16 in a unit; NaN is `MISSING`.

    Numbers out of range become the nearest end of it.

    >>> base64.b64decode(pack(np.array([0.01, 0.02])))
    b'\x01\x00\x02\x00'
    """
    scaled = np.round(np.asarray(values, np.float64) / unit)
    limits = np.iinfo(np.int16)
    inside = np.clip(scaled, limits.min + 1, limits.max)
    inside = np.where(np.isnan(scaled), MISSING, inside)
    return base64.b64encode(inside.astype("<i2").tobytes()).decode("ascii")


def block(name: str, data: Any) -> str:
    r"""Returns JSON that scripts of a page find by its name.

    >>> block("molecules", ["</script>"])
    '<script type="application/json" id="molecules">["\\u003c/script>"]</script>'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


@functools.cache
def library() -> str:
    """Returns the library of drawings, packed, which scripts unpack when they need it.

    >>> library().startswith('<script type="text/plain" id="molecule-library">')
    True
    """
    packed = base64.b64encode(gzip.compress(LIBRARY.read_bytes(), mtime=0))
    head = '<script type="text/plain" id="molecule-library">'
    return f"{head}{packed.decode('ascii')}</script>"


def script(path: Path) -> str:
    """Returns a script in a page.

    >>> script(SHARED).splitlines()[0][:10]
    '<script>//'
    """
    return f"<script>{path.read_text('utf-8')}</script>"


def style(path: Path) -> str:
    """Returns a sheet of styles in a page.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "grid.css")
    ...     _ = path.write_text("p { color: #222; }")
    ...     style(path)
    '<style>p { color: #222; }</style>'
    """
    return f"<style>{path.read_text('utf-8')}</style>"
