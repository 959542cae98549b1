"""How many edges a convolution handles at once: a table by the kind of the device.

The messages of a block should stay in the cache of a CPU; an accelerator wants few and
large operations. `plan.json` has for each kind of device the size of a block's messages
in bytes, null for all edges at once, and a default. `python -m benchmarks.convolution
--write` measures the device at hand and writes a table of the user's own, which comes
first. Blocks change the speed and the memory, and sums by rounding only.
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path

import jax

from common.errors import UsageError
from common.folders import user_folder
from common.nn.products.over_blocks import EVERY_EDGE
from common.so3.irreps import Path as CouplingPath

PACKAGED = Path(__file__).with_suffix(".json")


def user_table() -> Path | None:
    """Returns where the user's own table is; None without a home folder."""
    folder = user_folder()
    return None if folder is None else folder / PACKAGED.name


@functools.cache
def bytes_per_block(kind: str) -> int | None:
    """Returns the size of a block's messages; None for all edges at once.

    >>> bytes_per_block("a device of another time") is None
    True

    Args:
        kind: `device_kind` of a device of JAX.

    Raises:
        UsageError: The user's own table is no table of numbers.
    """
    own = user_table()
    table = json.loads(PACKAGED.read_text())
    if own is not None and own.is_file():
        table |= _read(own)
    return table.get(kind, table["default"])


def _read(path: Path) -> dict[str, int | None]:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        table = json.loads(text)
        if all(size is None or size > 0 for size in table.values()):
            return table
    except (ValueError, AttributeError, TypeError):
        pass
    raise UsageError(
        f"{path}: expected a JSON object of positive numbers of bytes or null, found "
        f"{text[:40]!r}; remove it, or write it anew by python -m "
        "benchmarks.convolution --write"
    )


def message_floats(paths: Iterable[CouplingPath], channels: int) -> int:
    """Returns how many numbers the messages of an edge are.

    >>> from common.so3.irreps import SCALAR
    >>> message_floats([(SCALAR, SCALAR, SCALAR)], channels=64)
    64

    Args:
        paths: paths of the product.
        channels: channels of each.
    """
    return channels * sum(out.dim for *_, out in paths)


def edges_per_block(floats: int) -> int:
    """Returns how many edges the default device handles at once.

    >>> edges_per_block(100) >= edges_per_block(1000) >= 1
    True

    Args:
        floats: numbers that an edge has at once, as its messages.
    """
    return edges_in(bytes_per_block(jax.devices()[0].device_kind), floats)


def edges_in(size: int | None, floats: int) -> int:
    """Returns how many edges fit into so many bytes; all edges if None.

    >>> edges_in(None, 64) == EVERY_EDGE
    True
    """
    if size is None:
        return EVERY_EDGE
    return max(1, size // (4 * max(1, floats)))
