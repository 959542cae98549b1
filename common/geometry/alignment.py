r"""Rotational alignment of point clouds, and the optimal denoiser that it approximates.

A clean cloud $x$ was turned about the origin by an unknown rotation and noised,
$$ y = \alpha x R^\top + \sigma \epsilon, $$
with points as rows and standard normal $\epsilon$, divided by the root of a point's
weight $w$. Given y the rotation has the matrix Fisher law (`matrix_fisher`) of
$$ F = \frac{\alpha}{\sigma^2} \sum_n w_n y_n x_n^\top, $$
so the denoiser of least error is $x\, E[R]^\top$, and over a set of clouds $x_k$
$$ D(y) = \sum_k \pi_k x_k E_k[R]^\top, \qquad
   \pi_k \propto c(F_k)\, e^{-\alpha^2 |x_k|^2 / 2 \sigma^2} $$
(arXiv:2510.03335). To superpose x on y, by the mode of that law, is its limit at small
noise, wrong by a relative $\sigma^2$ over the gaps of $x^\top x$; x in the frame from
which y was made is right on average, and noisier. `rotation_target` has them all.

Where clouds may lie anywhere, `center` both first. Arrays take leading batch axes;
masked points count for nothing and come out as zero. Only proper rotations count, so
that a mirror image stays one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from common.geometry import matrix_fisher

METHODS = ("single", *matrix_fisher.METHODS)

Cloud = Float[Array, "*#batch num_points 3"]
Mask = Bool[Array, "*#batch num_points"]
Weights = Float[Array, "*#batch num_points"]


def _weigh(x: Cloud, mask: Mask | None, weights: Weights | None) -> Weights:
    """Returns the weight of each point, zero where it is masked."""
    weight = jnp.ones(x.shape[:-1], x.dtype) if weights is None else weights
    return weight if mask is None else jnp.where(mask, weight, 0.0)


def center(
    x: Cloud, mask: Mask | None = None, weights: Weights | None = None
) -> tuple[Cloud, Float[Array, "*#batch 3"]]:
    """Moves the mean of a cloud to the origin.

    Args:
        x: Points.
        mask: True where real; other points become zero.
        weights: Of the mean.

    Returns:
        The centred cloud, and the mean.
    """
    weight = _weigh(x, mask, weights)[..., None]
    total = jnp.sum(weight, axis=-2)
    mean = jnp.sum(weight * x, axis=-2) / jnp.where(total > 0.0, total, 1.0)
    centred = x - mean[..., None, :]
    if mask is not None:
        centred = jnp.where(mask[..., None], centred, 0.0)
    return centred, mean


def cross_covariance(
    y: Cloud, x: Cloud, mask: Mask | None = None, weights: Weights | None = None
) -> Float[Array, "*#batch 3 3"]:
    r"""Returns $\sum_n w_n y_n x_n^\top$."""
    weight = _weigh(y, mask, weights)[..., None]
    # The product of a batch of small matrices is slow where XLA sees a matrix product.
    return jnp.sum((weight * y)[..., :, None] * x[..., None, :], axis=-3)


def kabsch_rotation(
    covariance: Float[Array, "*#batch 3 3"],
) -> Float[Array, "*#batch 3 3"]:
    r"""Returns the rotation that brings x nearest to y, from their cross-covariance.

    Of $\sum_n w_n |y_n - R x_n|^2$ it is the minimum (Kabsch 1976); see
    `matrix_fisher.mode` for its derivative, which is finite everywhere. A loss that is
    that minimum needs none of it: `stop_gradient` of the rotation leaves it exact.
    """
    return matrix_fisher.mode(covariance)


def superpose(
    x: Cloud,
    reference: Cloud,
    mask: Mask | None = None,
    weights: Weights | None = None,
) -> Cloud:
    """Centres a cloud and turns it onto a reference that is centred already.

    No gradient flows through the rotation.
    """
    x, _ = center(x, mask, weights)
    covariance = cross_covariance(reference, x, mask, weights)
    return turned(x, kabsch_rotation(jax.lax.stop_gradient(covariance)))


def turned(x: Cloud, rotation: Float[Array, "*#batch 3 3"]) -> Cloud:
    r"""Returns $x R^\top$: each point turned."""
    return jnp.sum(x[..., :, None, :] * rotation[..., None, :, :], axis=-1)


def rmsd(
    y: Cloud, x: Cloud, mask: Mask | None = None, weights: Weights | None = None
) -> Float[Array, "*#batch"]:
    """Returns the root mean square distance of two clouds, centred and superposed."""
    y, _ = center(y, mask, weights)
    weight = _weigh(y, mask, weights)
    squares = jnp.sum(jnp.square(y - superpose(x, y, mask, weights)), axis=-1)
    total = jnp.sum(weight, axis=-1)
    mean = jnp.sum(weight * squares, axis=-1) / jnp.where(total > 0.0, total, 1.0)
    return jnp.sqrt(mean)


def concentration(
    y: Cloud,
    x: Cloud,
    sigma: Float[Array, "*#batch"] | float,
    alpha: Float[Array, "*#batch"] | float = 1.0,
    mask: Mask | None = None,
    weights: Weights | None = None,
) -> Float[Array, "*#batch 3 3"]:
    r"""Returns F, what y tells of the rotation of x.

    Knowledge from elsewhere, a matrix Fisher law itself, is added to it.

    Args:
        y: Noised cloud.
        x: Clean one.
        sigma: Standard deviation of the noise, in the unit of the clouds.
        alpha: Scale of the signal in y.
        mask: True where real.
        weights: Precision of a point in units of $1 / \sigma^2$.
    """
    scale = jnp.asarray(alpha / jnp.square(jnp.asarray(sigma, y.dtype)), y.dtype)
    return scale[..., None, None] * cross_covariance(y, x, mask, weights)


def rotation_target(
    y: Cloud,
    x: Cloud,
    sigma: Float[Array, "*#batch"] | float,
    alpha: Float[Array, "*#batch"] | float = 1.0,
    mask: Mask | None = None,
    weights: Weights | None = None,
    method: str = "exact",
) -> Cloud:
    r"""Returns what a denoiser is asked for at y, of the clean cloud x.

    Args:
        y: Noised cloud.
        x: Clean one, in the frame from which y was made if `method` is "single"; of
            the others none depends on its frame.
        sigma: Standard deviation of the noise, in the unit of the clouds.
        alpha: Scale of the signal in y.
        mask: True where real.
        weights: Precision of a point in units of $1 / \sigma^2$.
        method: "single" leaves x as it is; "mode" superposes it (Kabsch); "laplace1" to
            "laplace3", "high_temperature" and "exact" are those of
            `matrix_fisher.mean_rotation`. The minimum of the loss is the same for
            "single" and "exact", and the variance of the latter's gradient smaller.

    Returns:
        The target. No gradient flows through it.

    Raises:
        ValueError: There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, found {method!r}")
    y, x = jax.lax.stop_gradient((y, x))
    if method == "single":
        return x if mask is None else jnp.where(mask[..., None], x, 0.0)
    f = concentration(y, x, sigma, alpha, mask, weights)
    target = turned(x, matrix_fisher.mean_rotation(f, method))
    target = target if mask is None else jnp.where(mask[..., None], target, 0.0)
    return jax.lax.stop_gradient(target)


class Oracle(NamedTuple):
    """The optimal denoiser of a set of clouds, at one noised cloud.

    Attributes:
        denoised: The expected clean cloud.
        log_density: Of y, nats, in the unit of the clouds to the power of its
            3 num_points coordinates.
        score: Gradient of the log density by y.
        shares: Probability of each cloud of the set.
    """

    denoised: Cloud
    log_density: Float[Array, "*#batch"]
    score: Cloud
    shares: Float[Array, "*#batch num_clouds"]


def oracle_denoiser(
    y: Cloud,
    references: Float[Array, "num_clouds num_points 3"],
    sigma: Float[Array, "*#batch"] | float,
    alpha: Float[Array, "*#batch"] | float = 1.0,
    mask: Bool[Array, " num_points"] | None = None,
    weights: Float[Array, " num_points"] | None = None,
) -> Oracle:
    r"""Returns the best that any denoiser can do for clouds in all orientations.

    Args:
        y: Noised cloud.
        references: The clean clouds, equally likely.
        sigma: Standard deviation of the noise.
        alpha: Scale of the signal in y.
        mask: True where real.
        weights: Precision of a point in units of $1 / \sigma^2$.
    """
    x = references if mask is None else jnp.where(mask[:, None], references, 0.0)
    variance = jnp.square(jnp.asarray(sigma, y.dtype))
    alpha = jnp.asarray(alpha, y.dtype)
    of_set = lambda values: jnp.broadcast_to(values, y.shape[:-2])[..., None]
    weight = _weigh(y, mask, weights)
    f = concentration(
        y[..., None, :, :], x, of_set(jnp.sqrt(variance)), of_set(alpha), mask, weights
    )
    square = lambda z, w: jnp.sum(w * jnp.sum(jnp.square(z), axis=-1), axis=-1)
    sizes = square(x, _weigh(x, mask, weights))
    logits = matrix_fisher.log_normaliser(f)
    logits -= 0.5 * of_set(jnp.square(alpha) / variance) * sizes
    shares = jax.nn.softmax(logits, axis=-1)
    means = turned(x, matrix_fisher.mean_rotation(f))
    denoised = jnp.sum(shares[..., None, None] * means, axis=-3)
    real = weight > 0.0
    safe = jnp.where(real, weight, 1.0)
    of_point = 1.5 * (jnp.log(safe) - jnp.log(2.0 * jnp.pi * variance)[..., None])
    log_density = jax.nn.logsumexp(logits, axis=-1) - jnp.log(len(references))
    log_density += jnp.sum(jnp.where(real, of_point, 0.0), axis=-1)
    log_density -= 0.5 * square(y, weight) / variance
    pull = alpha[..., None, None] * denoised - y
    score = weight[..., None] * pull / variance[..., None, None]
    return Oracle(denoised, log_density, score, shares)


def oracle_jacobian(
    y: Float[Array, "num_points 3"],
    references: Float[Array, "num_clouds num_points 3"],
    sigma: Float[Array, ""] | float,
    alpha: Float[Array, ""] | float = 1.0,
    mask: Bool[Array, " num_points"] | None = None,
    weights: Float[Array, " num_points"] | None = None,
) -> Float[Array, "num_points 3 num_points 3"]:
    r"""Returns $\partial D / \partial y$ of one cloud.

    It is $\alpha w / \sigma^2$ times the covariance of the clean cloud given y, so
    symmetric and positive for equal weights.
    """
    denoise = lambda y: oracle_denoiser(y, references, sigma, alpha, mask, weights)
    return jax.jacfwd(lambda y: denoise(y).denoised)(y)


class Matched(NamedTuple):
    """A cloud whose points were exchanged and turned to lie near those of another.

    Attributes:
        x: The cloud, centred.
        order: Point of the given cloud that has come to each place.
        rotation: That it was turned by.
    """

    x: Float[Array, "num_points 3"]
    order: Int[Array, " num_points"]
    rotation: Float[Array, "3 3"]


def permutation_align(
    y: Float[Array, "num_points 3"],
    x: Float[Array, "num_points 3"],
    species: Int[Array, " num_points"],
    mask: Bool[Array, " num_points"] | None = None,
    num_starts: int = 8,
    num_rounds: int = 10,
) -> Matched:
    r"""Exchanges points of one species, and turns, so that x comes near to y.

    Assignments (Hungarian algorithm) and rotations (Kabsch) take turns, from the four
    rotations of principal axes onto each other and from others at random; the largest
    $\mathrm{tr}(R^\top \sum_n y_n x_n^\top)$ wins.
    Between permutations the posterior falls off as $e^{-\Delta / \sigma^2}$, so the
    best one with an exact rotation is enough until $\Delta$ is some $\sigma^2$. Where
    bonds are known only automorphisms keep them: see `automorphism_align`.

    Args:
        y: Cloud.
        x: Cloud of the same species.
        species: Of the points of both.
        mask: True where real; other points stay in their places.
        num_starts: Rotations at random to begin from besides.
        num_rounds: Assignments from each start.
    """
    y, _ = center(y, mask)
    x, _ = center(x, mask)
    if mask is not None:
        # Each place that is not real is a species of its own.
        species = jnp.where(mask, species, -1 - jnp.arange(len(species)))
    differ = species[:, None] != species[None]
    # More than any gain of an exchange.
    penalty = 1.0 + 4.0 * jnp.sum(jnp.square(y)) + 4.0 * jnp.sum(jnp.square(x))

    def search(rotation: Float[Array, "3 3"]) -> tuple[Array, Matched]:
        def improve(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            rotation, _ = carry
            costs = jnp.where(differ, penalty, -y @ turned(x, rotation).T)
            rows, columns = optax.assignment.hungarian_algorithm(costs)
            order = jnp.zeros(len(x), jnp.int32).at[rows].set(columns)
            return kabsch_rotation(cross_covariance(y, x[order])), order

        start = (rotation, jnp.arange(len(x), dtype=jnp.int32))
        rotation, order = jax.lax.fori_loop(0, num_rounds, improve, start)
        moved = turned(x[order], rotation)
        return jnp.sum(y * moved), Matched(moved, order, rotation)

    rotations = matrix_fisher.uniform(jax.random.key(0), num_starts).astype(x.dtype)
    rotations = jnp.concatenate([_axes_onto(y, x), rotations])
    gains, found = jax.vmap(search)(rotations)
    return jax.tree.map(lambda values: values[jnp.argmax(gains)], found)


def _axes_onto(
    y: Float[Array, "num_points 3"], x: Float[Array, "num_points 3"]
) -> Float[Array, "4 3 3"]:
    """Returns the rotations that bring the principal axes of x onto those of y."""
    to_y, to_x = (jnp.linalg.eigh(cross_covariance(z, z))[1] for z in (y, x))
    hand = matrix_fisher.determinant(to_y) * matrix_fisher.determinant(to_x)
    signs = jnp.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], x.dtype)
    signs *= jnp.where(hand < 0.0, -1.0, 1.0)
    return (to_y * signs[:, None]) @ to_x.T


def automorphism_align(
    y: Float[Array, "num_points 3"],
    x: Float[Array, "num_points 3"],
    orders: Int[Array, "num_orders num_points"],
    mask: Bool[Array, " num_points"] | None = None,
) -> Matched:
    """Exchanges points in one of the given orders, and turns, so that x is near y.

    Args:
        y: Cloud.
        x: Cloud.
        orders: That keep elements and bonds, see `symphony.automorphisms`.
        mask: True where real.
    """
    y, _ = center(y, mask)
    x, _ = center(x, mask)
    covariances = jax.vmap(lambda order: cross_covariance(y, x[order]))(orders)
    best = jnp.argmax(jnp.sum(matrix_fisher.proper_svd(covariances).s, axis=-1))
    rotation = kabsch_rotation(covariances[best])
    order = orders[best]
    return Matched(turned(x[order], rotation), order, rotation)
