"""Blocks: `(features, graph, condition) -> features`, one table, one file a block.

To add a block, write a file with a module of the four attributes `irreps`, `product`,
`avg_num_neighbors` and `num_hidden`, and add it here; a config names it in
`config.model.block`. The graph holds the mask (causal in Symphony); parities of the
irreps hold the group.
"""

from typing import Any, NamedTuple

from common.nn.blocks.allegro import AllegroBlock
from common.nn.blocks.e3schnet import E3SchNetBlock
from common.nn.blocks.equiformer_v1 import EquiformerV1Block
from common.nn.blocks.equiformer_v2 import EquiformerV2Block
from common.nn.blocks.equiformer_v3 import EquiformerV3Block
from common.nn.blocks.equijump import EquiJumpBlock
from common.nn.blocks.mace import MACEBlock
from common.nn.blocks.nequip import NequIPBlock
from common.nn.blocks.nequix import NequixBlock
from common.nn.blocks.symphony import SymphonyBlock
from common.nn.blocks.tfn import TFNBlock


class Block(NamedTuple):
    """A row of the table of blocks.

    Attributes:
        module: module of the block.
        products: rows of `common.nn.products.PRODUCTS` that serve it; all if empty.
        is_smooth: false if its output may jump where a neighbour crosses the cutoff.
    """

    module: Any
    products: tuple[str, ...] = ()
    is_smooth: bool = True


BLOCKS: dict[str, Block] = {
    "symphony": Block(SymphonyBlock),
    "equijump": Block(EquiJumpBlock),
    "e3schnet": Block(E3SchNetBlock),
    "nequip": Block(NequIPBlock),
    "nequix": Block(NequixBlock),
    "tfn": Block(TFNBlock),
    "allegro": Block(AllegroBlock),
    "mace": Block(MACEBlock),
    "equiformer_v1": Block(EquiformerV1Block, is_smooth=False),
    "equiformer_v2": Block(EquiformerV2Block, is_smooth=False),
    "equiformer_v3": Block(EquiformerV3Block),
}


def make_block(block: str, **fields: Any) -> Any:
    """Returns a block of the table.

    >>> make_block("symphony", irreps="8x0e+8x1o").product
    'scalar'

    Args:
        block: row of `BLOCKS`.
        **fields: attributes of the block.

    Raises:
        ValueError: There is no such block, or the product does not serve it.
    """
    if block not in BLOCKS:
        raise ValueError(f"block: expected one of {', '.join(BLOCKS)}, found {block!r}")
    row = BLOCKS[block]
    found = row.module(**fields)
    if row.products and found.product not in row.products:
        raise ValueError(
            f"product: expected one of {', '.join(row.products)} for the block "
            f"{block}, found {found.product!r}"
        )
    return found
