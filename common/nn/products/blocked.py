r"""The channelwise Clebsch-Gordan convolution, for features of one number of channels.

For every path $p = (l_1, l_2, l_3)$ and all edges e of a receiver side by side,
$$ z_{p m c} = \sum_{e a} M^p_{(e a) m}\, w_{e p c}\, x_{e a c}, \qquad
   M^p_{(e a) m} = \sqrt{2 l_3 + 1} \sum_b C^{l_1 l_2 l_3}_{a b m}\, y_{e b}, $$
so that one product of matrices multiplies and sums: no message ever exists. Receivers
go block by block, see `over_blocks`.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from common.nn.products.kernels import expand, spread, transpose_times
from common.nn.products.over_blocks import Operands, over_blocks
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path, product_paths


class Layout(NamedTuple):
    """Irreps of features with one number of channels; what is static of a convolution.

    Attributes:
        x: irreps of the nodes.
        y: irreps of the harmonics.
        out: irreps kept.
    """

    x: tuple[Irrep, ...]
    y: tuple[Irrep, ...]
    out: tuple[Irrep, ...]


@functools.cache
def coupling_table(layout: Layout) -> Float[np.ndarray, "components_y _entries"]:
    """Returns the Clebsch-Gordan tables of all paths side by side, normalised.

    >>> from common.so3.irreps import SCALAR, VECTOR
    >>> coupling_table(Layout((SCALAR, VECTOR), (SCALAR, VECTOR), (VECTOR,))).shape
    (4, 12)
    """
    ends = np.cumsum([0, *(irrep.dim for irrep in layout.y)])
    start = dict(zip(layout.y, ends, strict=False))
    columns = []
    for i, j, k in product_paths(*layout):
        own = np.zeros((ends[-1], i.dim * k.dim), np.float32)
        values = clebsch_gordan(i.degree, j.degree, k.degree) * math.sqrt(k.dim)
        rows = slice(start[j], start[j] + j.dim)
        own[rows] = np.swapaxes(values, 0, 1).reshape(j.dim, -1)
        columns.append(own)
    table = np.concatenate(columns, axis=1)
    table.setflags(write=False)
    return table


def blocked_sums(
    layout: Layout,
    edges_per_block: int,
    x: Float[Array, "batch nodes components channels"],
    harmonics: Float[Array, "batch receivers neighbours components_harmonics"],
    radial: Float[Array, "batch receivers neighbours *weights"],
    senders: Int[Array, "batch receivers neighbours"],
    kernel: Float[Array, "kernels num_radial paths channels"] | None,
) -> dict[Path, Float[Array, "batch receivers _components channels"]]:
    """Returns sums of messages by path.

    >>> from common.so3.irreps import SCALAR
    >>> layout, ones = Layout((SCALAR,), (SCALAR,), (SCALAR,)), jnp.ones((1, 2, 3, 1))
    >>> x, senders = jnp.ones((1, 3, 1, 8)), jnp.zeros((1, 2, 3), int)
    >>> weights = jnp.ones((1, 2, 3, 1, 8))
    >>> sums = blocked_sums(layout, 4, x, ones, weights, senders, None)
    >>> [part.shape for part in sums.values()]
    [(1, 2, 1, 8)]

    Args:
        layout: irreps.
        edges_per_block: number of edges handled at once.
        x: features.
        harmonics: spherical harmonics.
        radial: weights, or without paths and channels what `kernel` makes them from.
        senders: neighbours, counted within each molecule.
        kernel: last radial layer, one for all molecules or one for each.
    """
    operands = Operands(x, kernel, (harmonics, radial))
    found = over_blocks(_Sums(layout), edges_per_block, senders, operands).rows
    return dict(zip(product_paths(*layout), found, strict=True))


class _Sums(NamedTuple):
    """What is done in a block: the sums of each path."""

    layout: Layout

    def __call__(
        self,
        x: Float[Array, "receivers neighbours components channels"],
        kernel: Float[Array, "num_radial paths channels"] | None,
        rows: tuple[Array, Array],
    ) -> tuple[None, None, list[Float[Array, "receivers _components channels"]]]:
        harmonics, radial = rows
        paths = product_paths(*self.layout)
        entries = expand(harmonics, coupling_table(self.layout))
        sizes = [i.dim * k.dim for i, _, k in paths]
        matrices = jnp.split(entries, np.cumsum(sizes)[:-1], axis=-1)
        ends = np.cumsum([irrep.dim for irrep in self.layout.x])
        of_irreps = jnp.split(x, ends[:-1], axis=-2)
        near = dict(zip(self.layout.x, of_irreps, strict=True))
        weights = jnp.split(_weights(radial, kernel), len(paths), axis=-2)
        found = []
        for (i, _, k), matrix, own in zip(paths, matrices, weights, strict=True):
            scaled = near[i] * spread(own[..., 0, :], i.dim)
            # Edges and components in one axis, to sum over.
            scaled = scaled.reshape(len(x), -1, x.shape[-1])
            matrix = matrix.reshape(len(x), -1, k.dim)
            found.append(transpose_times(matrix, scaled))
        return None, None, found


def _weights(radial: Array, kernel: Array | None) -> Array:
    """Returns a block's radial weights, made here if there is a kernel."""
    if kernel is None:
        return radial
    edges = radial.reshape(-1, radial.shape[-1])
    weights = edges @ kernel.reshape(kernel.shape[0], -1)
    return weights.reshape(*radial.shape[:2], *kernel.shape[1:])
