r"""Linear maps of features in the frames of edges, which mix all channels (eSCN).

With the polar axis along an edge, the map may treat each order m by itself (Passaro and
Zitnick 2023, arXiv:2302.03655). Between all degrees $l \ge |m|$ and channels,
$$ \begin{pmatrix} y_m \\ y_{-m} \end{pmatrix} =
   \begin{pmatrix} W_1 & -W_2 \\ W_2 & W_1 \end{pmatrix}
   \begin{pmatrix} x_m \\ x_{-m} \end{pmatrix}. $$
$W_1$ and $W_2$ hold as much as the products with all harmonics of the edge, along paths
whose degrees have an even and an odd sum. A reflection that contains the edge changes
the sign of $x_{-m}$ alone, so that natural parities (O(3)) have no $W_2$; where all
irreps are called even (SO(3)) both are allowed. Rows are those of `frame_rows`, up to
a largest order.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.graph import Graph
from common.nn.products.so2 import edge_frames, frame_rows
from common.so3.irreps import Irreps

EdgeRows = Float[Array, "num_receivers num_senders rows channels"]


def rows_up_to(max_degree: int, max_order: int) -> tuple[tuple[int, int], ...]:
    """Lists (l, m) of the rows of a frame with |m| up to a largest order.

    >>> rows_up_to(2, 0)
    ((0, 0), (1, 0), (2, 0))
    """
    return tuple(row for row in frame_rows(max_degree) if abs(row[1]) <= max_order)


def mixes_signs(irreps: Irreps) -> bool:
    """Returns whether a map in frames may mix m and -m: under SO(3) alone.

    >>> from common.so3.irreps import uniform
    >>> mixes_signs(uniform(2, 8, "O3")), mixes_signs(uniform(2, 8, "SO3"))
    (False, True)

    Raises:
        ValueError: Parities are neither natural nor all even.
    """
    if all(irrep.parity == (-1) ** irrep.degree for irrep in irreps):
        return False
    if all(irrep.parity == 1 for irrep in irreps):
        return True
    found = ", ".join(map(str, sorted(irreps)))
    raise ValueError(f"expected parities all natural or all even, found {found}")


def stacked_frames(
    vectors: Float[Array, "*edges 3"], max_degree: int, max_order: int
) -> Float[Array, "*edges rows components"]:
    """Returns frames that act on all degrees at once, one above the other.

    >>> stacked_frames(jnp.ones((5, 3)), max_degree=2, max_order=1).shape
    (5, 7, 9)
    """
    rows = rows_up_to(max_degree, max_order)
    frames = edge_frames(vectors, max_degree)[..., : len(rows), :]
    degrees = np.array([l for l, _ in rows])[:, None]
    blocks = [
        jnp.where(degrees == l, frames[..., : 2 * l + 1], 0.0)
        for l in range(max_degree + 1)
    ]
    return jnp.concatenate(blocks, axis=-1)


def into_frames(
    frames: Float[Array, "num_receivers num_senders rows components"],
    x: Float[Array, "num_nodes components channels"],
    graph: Graph,
) -> EdgeRows:
    """Returns the features of the senders in the frames of their edges.

    >>> from common.nn.graph import make_graph
    >>> ones = jnp.ones((2, 2))
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=1)
    >>> frames = stacked_frames(graph.vectors, max_degree=1, max_order=1)
    >>> into_frames(frames, jnp.ones((2, 4, 8)), graph).shape
    (2, 2, 4, 8)
    """
    # In the dense form a product for every sender, tall in the receivers.
    if graph.senders is None:
        return jnp.einsum("rsnk,skc->rsnc", frames, x)
    return jnp.einsum("rsnk,rskc->rsnc", frames, x[graph.senders])


def out_of_frames(
    frames: Float[Array, "num_receivers num_senders rows components"],
    messages: EdgeRows,
) -> Float[Array, "num_receivers components channels"]:
    """Turns messages back and sums them at their receivers.

    >>> frames = stacked_frames(jnp.ones((2, 3, 3)), max_degree=1, max_order=1)
    >>> out_of_frames(frames, jnp.ones((2, 3, 4, 8))).shape
    (2, 4, 8)
    """
    return jnp.einsum("rsnk,rsnc->rkc", frames, messages)


class SO2Linear(nn.Module):
    """A linear map of features in frames.

    Attributes:
        features: channels of the output.
        max_degree: largest degree.
        max_order: largest |m| of the rows.
        mixes_signs: true for maps between m and -m, see `mixes_signs`.
        num_scalars: invariants that come out beside the rows.
    """

    features: int
    max_degree: int
    max_order: int
    mixes_signs: bool
    num_scalars: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*edges rows channels"],
        weights: Float[Array, "*edges degrees channels"] | None = None,
    ) -> tuple[
        Float[Array, "*edges rows features"], Float[Array, "*edges num_scalars"]
    ]:
        """Returns the rows and the scalars.

        Args:
            x: rows.
            weights: factors of the input, one a degree and channel; none if None.
        """
        num_degrees, width = self.max_degree + 1, self.features
        found, scalars, start = [], jnp.zeros(()), 0
        for m in range(self.max_order + 1):
            signs, size = 2 if m else 1, num_degrees - m
            part = x[..., start : start + signs * size, :]
            start += signs * size
            part = part.reshape(*x.shape[:-2], signs, size, x.shape[-1])
            if weights is not None:
                part = part * weights[..., None, m:, :]
            part = part.reshape(*x.shape[:-2], signs, size * x.shape[-1])
            if m == 0:
                dense = nn.Dense(size * width + self.num_scalars, name="order_0")
                mixed, scalars = jnp.split(dense(part)[..., 0, :], [size * width], -1)
            else:
                mixed = self._pair(part, size * width, m)
            found.append(mixed.reshape(*x.shape[:-2], signs * size, width))
        return jnp.concatenate(found, axis=-2), scalars

    def _pair(
        self, x: Float[Array, "*edges 2 channels"], width: int, m: int
    ) -> Float[Array, "*edges 2 width"]:
        """Maps the rows of m and -m."""
        name, count = f"order_{m}", 2 if self.mixes_signs else 1
        init = nn.initializers.variance_scaling(
            1.0 / count, "fan_in", "truncated_normal"
        )
        dense = nn.Dense(count * width, use_bias=False, kernel_init=init, name=name)
        mixed = dense(x)
        if not self.mixes_signs:
            return mixed
        own, other = jnp.split(mixed, 2, axis=-1)
        return own + jnp.stack([-other[..., 1, :], other[..., 0, :]], axis=-2)
