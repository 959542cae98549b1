r"""Histograms of the distances of a cloud: what networks with a cutoff cannot see.

$$ h_{ib} = \frac{1}{n - 1} \sum_{j \ne i} \frac{g_b(r_{ij})}{\sum_c g_c(r_{ij})
   + \epsilon}, \qquad g_b(r) = e^{-(r - r_b)^2 / 2 w^2} $$
with centres $r_b$ at a spacing w: smooth bins, to which each pair gives the weight one
between the first centre and the last. The mean over the nodes is the two-point
correlation of the cloud, without the division by that of a uniform one. Networks of
messages with a cutoff lack it (Balla et al. 2024, arXiv:2410.20516).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from common.nn.radial import gaussian_basis
from common.so3.vectors import safe_norm

FLOOR = 1e-2
"""Number that ends the histogram: a pair beyond the last centre fades into no bin."""


def node_histogram(
    positions: Float[Array, "num_nodes 3"],
    node_mask: Bool[Array, " num_nodes"],
    low: float,
    high: float,
    num_bins: int,
) -> Float[Array, "num_nodes num_bins"]:
    """Returns the histogram of each node: invariant features, zero at padding.

    Its cost is that of all pairs, a row of them at a time.

    >>> x = jnp.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    >>> h = node_histogram(x, jnp.ones(2, bool), low=0.0, high=4.0, num_bins=5)
    >>> int(jnp.argmax(h[0])), round(float(h[0].sum()), 2)
    (2, 1.0)

    Args:
        positions: positions in Å.
        node_mask: true where real.
        low: centre of the first bin in Å.
        high: centre of the last bin in Å.
        num_bins: number of bins, at least two.
    """
    # Padding moves to the origin: far away it might overflow.
    points = jnp.where(node_mask[:, None], positions, 0.0)
    basis = partial(gaussian_basis, low=low, high=high, num_basis=num_bins)

    @jax.checkpoint
    def row(
        index: Array, point: Float[Array, " 3"], is_real: Array
    ) -> Float[Array, " num_bins"]:
        pairs = node_mask & is_real & (jnp.arange(len(points)) != index)
        bins = basis(safe_norm(points - point))
        bins = bins / (jnp.sum(bins, axis=-1, keepdims=True) + FLOOR)
        return jnp.sum(jnp.where(pairs[:, None], bins, 0.0), axis=0)

    indices = jnp.arange(len(points))
    sums = jax.lax.map(lambda args: row(*args), (indices, points, node_mask))
    return sums / jnp.maximum(jnp.sum(node_mask) - 1, 1)


def cloud_histogram(
    positions: Float[Array, "num_nodes 3"],
    node_mask: Bool[Array, " num_nodes"],
    low: float,
    high: float,
    num_bins: int,
) -> Float[Array, " num_bins"]:
    """Returns the histogram of all pairs of a cloud.

    >>> x = jnp.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    >>> h = cloud_histogram(x, jnp.ones(2, bool), low=0.0, high=4.0, num_bins=5)
    >>> int(jnp.argmax(h))
    2

    Args:
        positions: positions in Å.
        node_mask: true where real.
        low: centre of the first bin in Å.
        high: centre of the last bin in Å.
        num_bins: number of bins, at least two.
    """
    rows = node_histogram(positions, node_mask, low, high, num_bins)
    return jnp.sum(rows, axis=0) / jnp.maximum(jnp.sum(node_mask), 1)
