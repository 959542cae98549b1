"""Blocks: `(features, graph, condition) -> features`, one table, one file a block.

To add a block, write a file with a module of the four attributes `irreps`, `product`,
`avg_num_neighbors` and `num_hidden`, and add it here; a config names it in
`config.model.block`. The graph holds the mask (causal in Symphony); parities of the
irreps hold the group.
"""

from typing import Any

from common.nn.blocks.e3schnet import E3SchNetBlock
from common.nn.blocks.equijump import EquiJumpBlock
from common.nn.blocks.nequip import NequIPBlock
from common.nn.blocks.nequix import NequixBlock
from common.nn.blocks.symphony import SymphonyBlock

BLOCKS: dict[str, Any] = {
    "symphony": SymphonyBlock,
    "equijump": EquiJumpBlock,
    "e3schnet": E3SchNetBlock,
    "nequip": NequIPBlock,
    "nequix": NequixBlock,
}


def make_block(block: str, **fields: Any) -> Any:
    """Returns a block of the table.

    >>> make_block("symphony", irreps="8x0e+8x1o").product
    'scalar'

    Args:
        block: row of `BLOCKS`.
        **fields: attributes of the block.

    Raises:
        ValueError: There is no such block.
    """
    if block not in BLOCKS:
        raise ValueError(f"block: expected one of {', '.join(BLOCKS)}, found {block!r}")
    return BLOCKS[block](**fields)
