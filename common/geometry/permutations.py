r"""Alignment of point clouds whose identical points may be exchanged.

Between permutations the posterior of a noised cloud falls off as
$e^{-\Delta / \sigma^2}$ with the loss $\Delta$ of overlap, so that the best permutation
with an exact rotation is enough until $\Delta$ is some $\sigma^2$.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from common.geometry import alignment, matrix_fisher

Points = Float[Array, "num_points 3"]
Rotation = Float[Array, "3 3"]


class Matched(NamedTuple):
    """A cloud whose points were exchanged and rotated to lie near those of another.

    Attributes:
        x: matched cloud, centred.
        order: index of the given point that has come to each place.
        rotation: rotation of the cloud.
    """

    x: Points
    order: Int[Array, " num_points"]
    rotation: Rotation


def permutation_align(
    y: Points,
    x: Points,
    species: Int[Array, " num_points"],
    mask: Bool[Array, " num_points"] | None = None,
    num_starts: int = 8,
    num_rounds: int = 10,
) -> Matched:
    r"""Exchanges points of one species, and rotates, so that x comes near to y.

    Assignments (Hungarian algorithm) and rotations (Kabsch) take turns, from the four
    rotations of principal axes onto each other and from random ones; the largest
    overlap $\mathrm{tr}(R^\top \sum_n y_n x_n^\top)$ wins. Where bonds are known only
    automorphisms keep them: see `automorphism_align`.

    Args:
        y: cloud to come near to.
        x: cloud of the same species.
        species: species of the points of both.
        mask: true where real; other points stay in their places.
        num_starts: number of random rotations to begin from.
        num_rounds: number of assignments from each start.

    >>> y = jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    >>> found = permutation_align(y, y[jnp.array([1, 2, 0])], jnp.zeros(3, jnp.int32))
    >>> found.order
    Array([2, 0, 1], dtype=int32)
    """
    y, _ = alignment.center(y, mask)
    x, _ = alignment.center(x, mask)
    if mask is not None:
        # Each place that is not real is a species of its own.
        species = jnp.where(mask, species, -1 - jnp.arange(len(species)))
    rotations = matrix_fisher.uniform(jax.random.key(0), num_starts).astype(x.dtype)
    rotations = jnp.concatenate([_axes_onto(y, x), rotations])
    search = lambda rotation: _search(y, x, species, rotation, num_rounds)
    gains, found = jax.vmap(search)(rotations)
    return jax.tree.map(lambda values: values[jnp.argmax(gains)], found)


def _search(
    y: Points,
    x: Points,
    species: Int[Array, " num_points"],
    rotation: Rotation,
    num_rounds: int,
) -> tuple[Float[Array, ""], Matched]:
    """Returns the overlap that alternation ends at from one rotation, and the match."""
    differ = species[:, None] != species[None]
    # More than any gain of an exchange.
    penalty = 1.0 + 4.0 * jnp.sum(jnp.square(y)) + 4.0 * jnp.sum(jnp.square(x))

    def improve(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rotation, _ = carry
        overlaps = matrix_fisher.product(y, alignment.rotate(x, rotation).T)
        costs = jnp.where(differ, penalty, -overlaps)
        rows, columns = optax.assignment.hungarian_algorithm(costs)
        order = jnp.zeros(len(x), jnp.int32).at[rows].set(columns)
        covariance = alignment.cross_covariance(y, x[order])
        return alignment.kabsch_rotation(covariance), order

    start = (rotation, jnp.arange(len(x), dtype=jnp.int32))
    rotation, order = jax.lax.fori_loop(0, num_rounds, improve, start)
    moved = alignment.rotate(x[order], rotation)
    return jnp.sum(y * moved), Matched(moved, order, rotation)


def _axes_onto(y: Points, x: Points) -> Float[Array, "4 3 3"]:
    """Returns the rotations that bring the principal axes of x onto those of y."""
    covariances = (alignment.cross_covariance(z, z) for z in (y, x))
    to_y, to_x = (jnp.linalg.eigh(covariance)[1] for covariance in covariances)
    hand = matrix_fisher.determinant(to_y) * matrix_fisher.determinant(to_x)
    signs = jnp.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], x.dtype)
    signs *= jnp.where(hand < 0.0, -1.0, 1.0)
    return matrix_fisher.product(to_y * signs[:, None], to_x.T)


def automorphism_align(
    y: Points,
    x: Points,
    orders: Int[Array, "num_orders num_points"],
    mask: Bool[Array, " num_points"] | None = None,
) -> Matched:
    """Exchanges points in one of the given orders, and rotates, so that x is near y.

    Args:
        y: cloud to come near to.
        x: cloud of the same points.
        orders: orders that keep elements and bonds, see `symphony.automorphisms`.
        mask: true where real.

    >>> y = jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    >>> orders = jnp.array([[0, 1, 2], [2, 0, 1]])
    >>> automorphism_align(y, y[jnp.array([1, 2, 0])], orders).order
    Array([2, 0, 1], dtype=int32)
    """
    y, _ = alignment.center(y, mask)
    x, _ = alignment.center(x, mask)
    covariances = jax.vmap(lambda order: alignment.cross_covariance(y, x[order]))(
        orders
    )
    best = jnp.argmax(jnp.sum(matrix_fisher.proper_svd(covariances).s, axis=-1))
    rotation, order = alignment.kabsch_rotation(covariances[best]), orders[best]
    return Matched(alignment.rotate(x[order], rotation), order, rotation)
