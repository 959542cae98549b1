r"""Rotational alignment of point clouds, and the optimal denoiser that it approximates.

A clean cloud $x$ was rotated about the origin by an unknown rotation and noised,
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
from jaxtyping import Array, Bool, Float

from common.geometry import matrix_fisher

METHODS = ("single", *matrix_fisher.METHODS)

Cloud = Float[Array, "*#batch num_points 3"]
Mask = Bool[Array, "*#batch num_points"]
Precision = Float[Array, "*#batch num_points"]
Number = Float[Array, "*#batch"] | float


def _weigh(x: Cloud, mask: Mask | None, precision: Precision | None) -> Precision:
    """Returns the weight of each point, zero where it is masked."""
    weight = jnp.ones(x.shape[:-1], x.dtype) if precision is None else precision
    return weight if mask is None else jnp.where(mask, weight, 0.0)


def center(
    x: Cloud, mask: Mask | None = None, precision: Precision | None = None
) -> tuple[Cloud, Float[Array, "*#batch 3"]]:
    """Moves the mean of a cloud to the origin.

    Args:
        x: points.
        mask: true where real; other points become zero.
        precision: weight of each point in the mean.

    Returns:
        The centred cloud, and the mean.

    >>> center(jnp.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]]))[1]
    Array([2., 0., 2.], dtype=float32)
    """
    weight = _weigh(x, mask, precision)[..., None]
    total = jnp.sum(weight, axis=-2)
    mean = jnp.sum(weight * x, axis=-2) / jnp.where(total > 0.0, total, 1.0)
    centred = x - mean[..., None, :]
    if mask is not None:
        centred = jnp.where(mask[..., None], centred, 0.0)
    return centred, mean


def cross_covariance(
    y: Cloud, x: Cloud, mask: Mask | None = None, precision: Precision | None = None
) -> Float[Array, "*#batch 3 3"]:
    r"""Returns $\sum_n w_n y_n x_n^\top$.

    >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> jnp.diag(cross_covariance(x, x))
    Array([1., 4., 0.], dtype=float32)
    """
    weight = _weigh(y, mask, precision)[..., None]
    # The product of a batch of small matrices is slow where XLA sees a matrix product.
    return jnp.sum((weight * y)[..., :, None] * x[..., None, :], axis=-3)


def kabsch_rotation(
    covariance: Float[Array, "*#batch 3 3"],
) -> Float[Array, "*#batch 3 3"]:
    r"""Returns the rotation that brings x nearest to y, from their cross-covariance.

    Of $\sum_n w_n |y_n - R x_n|^2$ it is the minimum (Kabsch 1976); see
    `matrix_fisher.mode` for its derivative, which is finite everywhere. A loss that is
    that minimum needs none of it: `stop_gradient` of the rotation leaves it exact.

    >>> kabsch_rotation(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    Array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    return matrix_fisher.mode(covariance)


def superpose(
    x: Cloud,
    reference: Cloud,
    mask: Mask | None = None,
    precision: Precision | None = None,
) -> Cloud:
    """Centres a cloud and rotates it onto a reference that is centred already.

    No gradient flows through the rotation.

    >>> reference = jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> x = jnp.array([[0.0, 5.0, 0.0], [0.0, 3.0, 0.0]])
    >>> bool(jnp.allclose(superpose(x, reference), reference, atol=1e-5))
    True
    """
    x, _ = center(x, mask, precision)
    covariance = cross_covariance(reference, x, mask, precision)
    return rotate(x, kabsch_rotation(jax.lax.stop_gradient(covariance)))


def rotate(x: Cloud, rotation: Float[Array, "*#batch 3 3"]) -> Cloud:
    r"""Returns $x R^\top$: each point rotated.

    Written as a sum, so that accelerators keep single precision.

    >>> quarter = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> rotate(jnp.array([[2.0, 0.0, 0.0]]), quarter)
    Array([[0., 2., 0.]], dtype=float32)
    """
    return jnp.sum(x[..., :, None, :] * rotation[..., None, :, :], axis=-1)


def rmsd(
    y: Cloud, x: Cloud, mask: Mask | None = None, precision: Precision | None = None
) -> Float[Array, "*#batch"]:
    """Returns the root mean square distance of two clouds, centred and superposed.

    Its gradient is zero where the distance is.

    >>> x = jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> float(rmsd(x, 3.0 * x + 1.0))
    2.0
    """
    y, _ = center(y, mask, precision)
    weight = _weigh(y, mask, precision)
    squares = jnp.sum(jnp.square(y - superpose(x, y, mask, precision)), axis=-1)
    total = jnp.sum(weight, axis=-1)
    mean = jnp.sum(weight * squares, axis=-1) / jnp.where(total > 0.0, total, 1.0)
    # The derivative of a root is infinite at zero.
    apart = mean > 0.0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, mean, 1.0)), 0.0)


def concentration(
    y: Cloud, x: Cloud, sigma: Number, alpha: Number = 1.0,
    mask: Mask | None = None, precision: Precision | None = None,
) -> Float[Array, "*#batch 3 3"]:  # fmt: skip
    r"""Returns F, what y tells of the rotation of x.

    Knowledge from elsewhere, a matrix Fisher law itself, is added to it.

    Args:
        y: noised cloud.
        x: clean cloud.
        sigma: standard deviation of the noise, in the unit of the clouds.
        alpha: scale of the signal in y.
        mask: true where real.
        precision: precision of each point in units of $1 / \sigma^2$.

    >>> x = jnp.array([[1.0, 0.0, 0.0]])
    >>> float(concentration(x, x, sigma=0.5)[0, 0])
    4.0
    """
    scale = jnp.asarray(alpha / jnp.square(jnp.asarray(sigma, y.dtype)), y.dtype)
    return scale[..., None, None] * cross_covariance(y, x, mask, precision)


def rotation_target(
    y: Cloud, x: Cloud, sigma: Number, alpha: Number = 1.0,
    mask: Mask | None = None, precision: Precision | None = None, method: str = "exact",
) -> Cloud:  # fmt: skip
    r"""Returns what a denoiser is asked for at y, of the clean cloud x.

    Args:
        y: noised cloud.
        x: clean cloud, in the frame from which y was made if `method` is "single";
            the other methods do not depend on its frame.
        sigma: standard deviation of the noise, in the unit of the clouds.
        alpha: scale of the signal in y.
        mask: true where real.
        precision: precision of each point in units of $1 / \sigma^2$.
        method: name of the target: "single" leaves x as it is; "mode" superposes it
            (Kabsch); "laplace1" to "laplace3", "high_temperature" and "exact" are those
            of `matrix_fisher.mean_rotation`. The minimum of the loss is the same for
            "single" and "exact", and the variance of the latter's gradient smaller.

    Returns:
        The target. No gradient flows through it.

    Raises:
        ValueError: the method is unknown.

    >>> y, x = jnp.array([[0.0, 1.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])
    >>> rotation_target(y, x, sigma=1.0, method="single")
    Array([[1., 0., 0.]], dtype=float32)
    >>> target = rotation_target(y, x, sigma=1.0)  # coth(1) - 1 along y.
    >>> round(float(target[0, 1]), 4)
    0.313
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, found {method!r}")
    y, x = jax.lax.stop_gradient((y, x))
    if method == "single":
        return x if mask is None else jnp.where(mask[..., None], x, 0.0)
    f = concentration(y, x, sigma, alpha, mask, precision)
    target = rotate(x, matrix_fisher.mean_rotation(f, method))
    target = target if mask is None else jnp.where(mask[..., None], target, 0.0)
    return jax.lax.stop_gradient(target)


class Oracle(NamedTuple):
    """The optimal denoiser of a set of clouds, at one noised cloud.

    Attributes:
        denoised: expected clean cloud.
        log_density: logarithm of the density of y, nats, in the unit of the clouds to
            the power of its 3 num_points coordinates.
        score: gradient of the log density by y.
        shares: probability of each cloud of the set.
    """

    denoised: Cloud
    log_density: Float[Array, "*#batch"]
    score: Cloud
    shares: Float[Array, "*#batch num_clouds"]


def oracle_denoiser(
    y: Cloud,
    references: Float[Array, "num_clouds num_points 3"],
    sigma: Number,
    alpha: Number = 1.0,
    mask: Bool[Array, " num_points"] | None = None,
    precision: Float[Array, " num_points"] | None = None,
) -> Oracle:
    r"""Returns the best that any denoiser can do for clouds in all orientations.

    Args:
        y: noised cloud.
        references: clean clouds, equally likely.
        sigma: standard deviation of the noise.
        alpha: scale of the signal in y.
        mask: true where real.
        precision: precision of each point in units of $1 / \sigma^2$.

    >>> references = jnp.array([[[1.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]])
    >>> found = oracle_denoiser(jnp.array([[0.0, 1.0, 0.0]]), references, sigma=0.5)
    >>> found.shares
    Array([1., 0.], dtype=float32)
    """
    x = references if mask is None else jnp.where(mask[:, None], references, 0.0)
    variance = jnp.square(jnp.asarray(sigma, y.dtype))
    alpha = jnp.asarray(alpha, y.dtype)
    of_set = lambda values: jnp.broadcast_to(values, y.shape[:-2])[..., None]
    weight = _weigh(y, mask, precision)
    f = concentration(
        y[..., None, :, :],
        x,
        of_set(jnp.sqrt(variance)),
        of_set(alpha),
        mask,
        precision,
    )
    square = lambda z, w: jnp.sum(w * jnp.sum(jnp.square(z), axis=-1), axis=-1)
    sizes = square(x, _weigh(x, mask, precision))
    logits = matrix_fisher.log_normaliser(f)
    logits -= 0.5 * of_set(jnp.square(alpha) / variance) * sizes
    shares = jax.nn.softmax(logits, axis=-1)
    means = rotate(x, matrix_fisher.mean_rotation(f))
    denoised = jnp.sum(shares[..., None, None] * means, axis=-3)
    log_density = jax.nn.logsumexp(logits, axis=-1) - jnp.log(len(references))
    log_density += _log_factor(weight, variance) - 0.5 * square(y, weight) / variance
    pull = alpha[..., None, None] * denoised - y
    score = weight[..., None] * pull / variance[..., None, None]
    return Oracle(denoised, log_density, score, shares)


def _log_factor(
    weight: Precision, variance: Float[Array, "*#batch"]
) -> Float[Array, "*#batch"]:
    """Returns the logarithm of the factor before the exponential of a normal law."""
    real = weight > 0.0
    safe = jnp.where(real, weight, 1.0)
    of_point = 1.5 * (jnp.log(safe) - jnp.log(2.0 * jnp.pi * variance)[..., None])
    return jnp.sum(jnp.where(real, of_point, 0.0), axis=-1)


def oracle_jacobian(
    y: Float[Array, "num_points 3"],
    references: Float[Array, "num_clouds num_points 3"],
    sigma: Float[Array, ""] | float,
    alpha: Float[Array, ""] | float = 1.0,
    mask: Bool[Array, " num_points"] | None = None,
    precision: Float[Array, " num_points"] | None = None,
) -> Float[Array, "num_points 3 num_points 3"]:
    r"""Returns $\partial D / \partial y$ of one cloud.

    It is $\alpha w / \sigma^2$ times the covariance of the clean cloud given y, so
    symmetric and positive for equal precision.

    >>> x = jnp.array([[1.0, 0.0, 0.0]])
    >>> oracle_jacobian(x, x[None], sigma=1.0).shape
    (1, 3, 1, 3)
    """
    denoise = lambda y: oracle_denoiser(y, references, sigma, alpha, mask, precision)
    return jax.jacfwd(lambda y: denoise(y).denoised)(y)
