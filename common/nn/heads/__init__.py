"""Heads: `(features, pairs) -> matrices`, one table, one file a head.

To add a head, write a file with a module and add it here.
"""

from typing import Any

from common.nn.heads.blocks import BlockHead
from common.nn.heads.hessian import HessianHead

HEADS: dict[str, Any] = {"blocks": BlockHead, "hessian": HessianHead}


def make_head(head: str, **fields: Any) -> Any:
    """Returns a head of the table.

    >>> make_head("blocks", degrees=(0, 1)).degrees
    (0, 1)

    Args:
        head: row of `HEADS`.
        **fields: attributes of the head.

    Raises:
        ValueError: There is no such head.
    """
    if head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(HEADS)}, found {head!r}")
    return HEADS[head](**fields)
