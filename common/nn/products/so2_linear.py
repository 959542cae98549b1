r"""Linear maps of features in the frames of edges, which mix all channels (eSCN).

With the polar axis along an edge, the map may treat each order m by itself (Passaro and
Zitnick 2023, arXiv:2302.03655). Between all degrees $l \ge |m|$ and channels,
$$ \begin{pmatrix} y_m \\ y_{-m} \end{pmatrix} =
   \begin{pmatrix} W_1 & -W_2 \\ W_2 & W_1 \end{pmatrix}
   \begin{pmatrix} x_m \\ x_{-m} \end{pmatrix}. $$
$W_1$ and $W_2$ hold as much as the products with all harmonics of the edge, along paths
whose degrees have an even and an odd sum. A reflection that contains the edge changes
the sign of $x_{-m}$ alone, so that natural parities (O(3)) have no $W_2$; where all
irreps are called even (SO(3)) both are allowed.
"""

from collections.abc import Iterable
from typing import TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.products.kernels import spread, times, transpose_times, unstacked
from common.nn.products.so2 import frame_orders
from common.so3.irreps import Irrep, Irreps

Frames: TypeAlias = list[Float[Array, "num_receivers num_senders _orders _components"]]
"""What `edge_frames` returns."""
EdgeRows: TypeAlias = Float[Array, "rows num_receivers num_senders channels"]


def rows_up_to(max_degree: int, max_order: int) -> tuple[tuple[int, int], ...]:
    """Lists (l, m) of the rows in frames: by |m|, then m before -m, then l.

    >>> rows_up_to(1, 1)
    ((0, 0), (1, 0), (1, 1), (1, -1))
    """
    orders = frame_orders(max_order)
    return tuple((l, m) for m in orders for l in range(abs(m), max_degree + 1))


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


def into_frames(frames: Frames, x: Features) -> EdgeRows:
    """Returns features in the frames of edges, ordered as `rows_up_to`.

    >>> from common.nn.features import from_scalars
    >>> from common.nn.products.so2 import edge_frames
    >>> frames = edge_frames(jnp.ones((2, 3, 3)), max_degree=0)
    >>> into_frames(frames, from_scalars(jnp.ones((2, 1, 8)))).shape
    (1, 2, 3, 8)

    Args:
        frames: frames.
        x: features of the senders of each receiver, or one for all senders.
    """
    found = {}
    for irrep, part in sorted(x.items()):
        frame = frames[irrep.degree]
        if part.shape[1] == 1:  # One tall product for each receiver.
            flat = frame.reshape(len(frame), -1, irrep.dim)
            rows = times(flat, part[:, 0]).reshape(*frame.shape[:3], part.shape[-1])
        else:
            rows = times(frame, part)
        names = ((irrep.degree, m) for m in _orders(frame))
        found |= dict(zip(names, unstacked(rows, axis=-2), strict=True))
    return jnp.stack([found[row] for row in _rows(frames)])


def out_of_frames(frames: Frames, rows: EdgeRows, irreps: Iterable[Irrep]) -> Features:
    """Turns messages back and sums them at their receivers.

    >>> from common.nn.products.so2 import edge_frames
    >>> from common.so3.irreps import SCALAR
    >>> frames = edge_frames(jnp.ones((2, 3, 3)), max_degree=0)
    >>> out_of_frames(frames, jnp.ones((1, 2, 3, 8)), [SCALAR])[SCALAR].shape
    (2, 1, 8)
    """
    messages = dict(zip(_rows(frames), unstacked(rows, axis=0), strict=True))
    found = {}
    for irrep in irreps:
        frame = frames[irrep.degree]
        own = jnp.stack([messages[irrep.degree, m] for m in _orders(frame)], axis=-2)
        # Senders and rows in one axis, to sum over.
        frame, own = (a.reshape(len(a), -1, a.shape[-1]) for a in (frame, own))
        found[irrep] = transpose_times(frame, own)
    return found


def _orders(frame: Float[Array, "*edges orders components"]) -> list[int]:
    return frame_orders(frame.shape[-2] // 2)


def _rows(frames: Frames) -> tuple[tuple[int, int], ...]:
    return rows_up_to(len(frames) - 1, max(map(max, map(_orders, frames))))


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
        x: Float[Array, "rows *edges channels"],
        weights: Float[Array, "degrees *edges channels"] | None = None,
    ) -> tuple[
        Float[Array, "rows *edges features"], Float[Array, "*edges num_scalars"]
    ]:
        """Returns the rows and the scalars.

        Args:
            x: rows.
            weights: factors of the input, one a degree and channel; none if None.
        """
        found, scalars, start = [], jnp.zeros(()), 0
        for m in range(self.max_order + 1):
            signs, size = 2 if m else 1, self.max_degree + 1 - m
            part = x[start : start + signs * size].reshape(signs, size, *x.shape[1:])
            start += signs * size
            if weights is not None:
                part = part * spread(weights[m:], signs, axis=-part.ndim)
            part = jnp.moveaxis(part, 1, -2)
            part = part.reshape(*part.shape[:-2], -1)
            width = size * self.features
            if m == 0:
                dense = nn.Dense(width + self.num_scalars, name="order_0")
                mixed, scalars = jnp.split(dense(part[0]), [width], axis=-1)
                mixed = mixed[None]
            else:
                mixed = self._pair(part, width, m)
            mixed = mixed.reshape(*mixed.shape[:-1], size, self.features)
            mixed = jnp.moveaxis(mixed, -2, 1)
            found.append(mixed.reshape(-1, *mixed.shape[2:]))
        return jnp.concatenate(found), scalars

    def _pair(
        self, x: Float[Array, "2 *edges channels"], width: int, m: int
    ) -> Float[Array, "2 *edges width"]:
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
        return own + jnp.stack([-other[1], other[0]])
