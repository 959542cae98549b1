r"""Blocks of matrices between orbitals: from irreps and back, and a head.

$$ B_{ab} = \sum_L \sqrt{2 L + 1}\, C^{l_a l_b L}_{ab M} f^L_M, \qquad
   l_a \otimes l_b = |l_a - l_b| \oplus \dots \oplus (l_a + l_b) $$
(PhiSNet: Unke et al. 2021, arXiv:2106.02347). The map is orthogonal, so that a loss on
the irreps is one on the blocks. A block rotates as $D B D^\top$, and $B_{ij} =
B_{ji}^\top$ makes the matrix of all nodes symmetric.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from common.nn.features import Features, add
from common.nn.linear import Linear
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import (
    Group,
    Irrep,
    Path,
    format_irreps,
    harmonic_irreps,
    product_paths,
)


def block_paths(degrees: Sequence[int], group: Group) -> list[tuple[int, int, Path]]:
    """Lists the paths of all pairs of orbitals: rows, columns, irreps.

    >>> [str(path[2]) for *_, path in block_paths((0, 1), "O3")]
    ['0e', '1o', '1o', '0e', '1e', '2e']
    """
    of_degree = harmonic_irreps(max(degrees), group)
    every = [Irrep(l, p) for l in range(2 * max(degrees) + 1) for p in (1, -1)]
    return [
        (a, b, path)
        for a, l_a in enumerate(degrees)
        for b, l_b in enumerate(degrees)
        for path in product_paths([of_degree[l_a]], [of_degree[l_b]], every)
    ]


def block_irreps(degrees: Sequence[int], group: Group = "O3") -> dict[Irrep, int]:
    """Returns the irreps that a block is made of.

    >>> format_irreps(block_irreps((0, 1)))
    '2x0e+2x1o+1x1e+1x2e'
    """
    found: dict[Irrep, int] = {}
    for *_, (*_, out) in block_paths(degrees, group):
        found[out] = found.get(out, 0) + 1
    return dict(sorted(found.items()))


def to_blocks(
    x: Features, degrees: Sequence[int], group: Group = "O3"
) -> Float[Array, "*batch dim dim"]:
    """Returns the blocks of features with the irreps of `block_irreps`.

    >>> x = {Irrep(0, 1): jnp.ones((1, 1)), Irrep(1, 1): jnp.zeros((3, 1))}
    >>> to_blocks({**x, Irrep(2, 1): jnp.zeros((5, 1))}, (1,)).round(3).tolist()[0]
    [0.5770000219345093, 0.0, 0.0]

    Args:
        x: features, `[*batch, 2L + 1, channels]`.
        degrees: degrees of the orbitals of a node, in the order of rows and columns.
        group: group whose parities the features have.
    """
    return sum(
        jnp.einsum(
            "cabm,...mc->...ab",
            jnp.asarray(table, x[irrep].dtype),
            x[irrep],
            precision=jax.lax.Precision.HIGHEST,
        )
        for irrep, table in _tables(degrees, group).items()
    )


def from_blocks(
    blocks: Float[Array, "*batch dim dim"], degrees: Sequence[int], group: Group = "O3"
) -> Features:
    """Returns the features of blocks: the inverse of `to_blocks`.

    >>> [part.shape for part in from_blocks(jnp.eye(4), (0, 1)).values()]
    [(1, 2), (3, 2), (3, 1), (5, 1)]
    """
    return {
        irrep: jnp.einsum(
            "cabm,...ab->...mc",
            jnp.asarray(table, blocks.dtype),
            blocks,
            precision=jax.lax.Precision.HIGHEST,
        )
        for irrep, table in _tables(degrees, group).items()
    }


def _tables(
    degrees: Sequence[int], group: Group
) -> dict[Irrep, Float[np.ndarray, "channels dim dim components"]]:
    """Returns for each irrep the orthonormal matrices of its paths, whole blocks."""
    ends = np.cumsum([0, *(2 * l + 1 for l in degrees)])
    found: dict[Irrep, list[np.ndarray]] = {}
    for a, b, (i, j, out) in block_paths(degrees, group):
        table = np.zeros((ends[-1], ends[-1], out.dim))
        rows, columns = slice(ends[a], ends[a + 1]), slice(ends[b], ends[b + 1])
        own = clebsch_gordan(i.degree, j.degree, out.degree) * math.sqrt(out.dim)
        table[rows, columns] = own
        found.setdefault(out, []).append(table)
    return {irrep: np.stack(found[irrep]) for irrep in sorted(found)}


def to_matrix(
    blocks: Float[Array, "num_nodes num_nodes dim dim"],
) -> Float[Array, "size size"]:
    """Returns one matrix, the orbitals of a node side by side.

    >>> to_matrix(jnp.ones((2, 2, 3, 3))).shape
    (6, 6)
    """
    count, _, dim, _ = blocks.shape
    return jnp.swapaxes(blocks, 1, 2).reshape(count * dim, count * dim)


class BlockHead(nn.Module):
    """Blocks of a symmetric matrix between the orbitals of all nodes.

    A block of two nodes is a linear map of the features of the pair and of both nodes;
    that of a node with itself is another one of its own features.

    Attributes:
        degrees: degrees of the orbitals of each node.
        group: group whose parities the features have.
    """

    degrees: tuple[int, ...]
    group: Group = "O3"

    @nn.compact
    def __call__(
        self, x: Features, pairs: Features, node_mask: Bool[Array, " num_nodes"]
    ) -> Float[Array, "num_nodes num_nodes dim dim"]:
        """Returns the blocks, zero where a node is padding.

        Args:
            x: features of the nodes.
            pairs: features of the pairs, `[num_nodes, num_nodes, 2l + 1, channels]`.
            node_mask: true where real.
        """
        irreps = format_irreps(block_irreps(self.degrees, self.group))
        mix = lambda name, part: Linear(irreps, name=name)(part)
        rows = jax.tree.map(lambda a: a[:, None], mix("rows", x))
        columns = jax.tree.map(lambda a: a[None], mix("columns", x))
        off = to_blocks(
            add(mix("pairs", pairs), add(rows, columns)), self.degrees, self.group
        )
        own = to_blocks(mix("own", x), self.degrees, self.group)[:, None]
        is_own = jnp.eye(len(node_mask), dtype=bool)[..., None, None]
        blocks = jnp.where(is_own, own, off)
        blocks = 0.5 * (blocks + jnp.transpose(blocks, (1, 0, 3, 2)))
        both = (node_mask[:, None] & node_mask)[..., None, None]
        return jnp.where(both, blocks, 0.0)
