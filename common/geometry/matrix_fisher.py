r"""The matrix Fisher law of rotations, $p(R) = e^{\mathrm{tr}(F^\top R)} / c(F)$.

It is what a noised cloud tells of its own rotation (`alignment`). With the proper
singular value decomposition $F = U S V^\top$, where $U, V$ are rotations and
$s_1 \ge s_2 \ge |s_3|$,

* its mode is $U V^\top$, the rotation of Kabsch (1976),
* its mean is $U \mathrm{diag}(d) V^\top$ with $d_i = \partial \log c / \partial s_i$.

With the cosine $1 - x$ of the angle between the axis of $s_1$ and its image, and gaps
$a_1 = s_2 + s_3$, $a_2 = s_1 + s_3$, $a_3 = s_1 + s_2$, one integral is left,
$$ c\, e^{-\mathrm{tr} S} = \tfrac12 \int_0^2 e^{-a_2 x} \hat I_0(A)\, \hat I_0(B)\, dx,
   \qquad A = \tfrac{(a_3 - a_2) x}{2}, \quad B = \tfrac{a_1 (2 - x)}{2}, $$
with $\hat I_0(z) = e^{-|z|} I_0(z)$: the sum and the difference of the other two Euler
angles are von Mises with concentrations $B$ and $A$. It is done by Gauss's rule in
$\sqrt x$. Mean and covariance are averages under the integrand that lose no digits
where rotations are concentrated or singular values tie.

All functions take leading batch axes and are exact at $F = 0$ and at any rank. The law
is that of Khatri and Mardia (1977); what it is to denoising, arXiv:2510.03335.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float, Key

Matrix = Float[Array, "*batch 3 3"]
METHODS = ("mode", "laplace1", "laplace2", "laplace3", "high_temperature", "exact")

_NODES, _REACH = {4: 48, 8: 64}, {4: 18.0, 8: 40.0}
"""By bytes of a number: nodes of the rule, and exponent beyond which it is cut."""

_REGULARISER = {4: 1e-4, 8: 1e-9}
"""Of the derivative of the mode where it does not exist, relative to F."""


def product(a: Float[Array, "*#batch i j"], b: Float[Array, "*#batch j k"]) -> Array:
    """Returns the matrix product, in full precision on accelerators too.

    >>> product(jnp.eye(2), jnp.array([[1.0], [2.0]]))
    Array([[1.],
           [2.]], dtype=float32)
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class ProperSVD(NamedTuple):
    r"""$F = U \mathrm{diag}(s) V^\top$ with rotations U and V.

    Attributes:
        u: rotation U.
        s: singular values $s_1 \ge s_2 \ge |s_3|$; the last has the sign of det F.
        v: rotation V, not transposed.
    """

    u: Matrix
    s: Float[Array, "*batch 3"]
    v: Matrix


def proper_svd(f: Matrix) -> ProperSVD:
    """Returns the decomposition whose factors are rotations; no gradient is defined.

    >>> proper_svd(jnp.diag(jnp.array([3.0, 2.0, -1.0]))).s
    Array([ 3.,  2., -1.], dtype=float32)
    """
    u, s, vt = jnp.linalg.svd(jax.lax.stop_gradient(f))
    v = vt.mT
    # A determinant is never 0 here: a sign of it would be, of one that underflows.
    signs = [jnp.where(determinant(x) < 0.0, -1.0, 1.0) for x in (u, v)]
    u, v = (
        x.at[..., 2].multiply(sign[..., None])
        for x, sign in zip((u, v), signs, strict=True)
    )
    return ProperSVD(u, s.at[..., 2].multiply(signs[0] * signs[1]), v)


def determinant(f: Matrix) -> Float[Array, "*batch"]:
    """Returns the triple product of the rows.

    >>> float(determinant(2.0 * jnp.eye(3)))
    8.0
    """
    return jnp.sum(f[..., 0, :] * jnp.cross(f[..., 1, :], f[..., 2, :]), axis=-1)


def gaps(s: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Returns $a_i = s_j + s_k$ of proper singular values, rising, none negative.

    The concentration about each axis: $1 / a_i$ is the variance of small angles.

    >>> gaps(jnp.array([3.0, 2.0, -1.0]))
    Array([1., 2., 5.], dtype=float32)
    """
    total = s[..., 0] + s[..., 1] + s[..., 2]
    return jnp.maximum(total[..., None] - s, 0.0)


@jax.custom_jvp
def mode(f: Matrix) -> Matrix:
    r"""Returns the rotation $R$ of largest $\mathrm{tr}(R^\top F)$.

    Its derivative is $dR = R [w]_\times$ with $w = (\mathrm{tr} P\, I - P)^{-1}
    \mathrm{axial}(R^\top dF)$ and $P = R^\top F$, which knows the gaps alone: it is
    finite where singular values tie, and damped where two of them are opposite, as in a
    line or at $F = 0$, where the mode is not unique.

    >>> jnp.diag(mode(jnp.diag(jnp.array([3.0, 2.0, 1.0]))))
    Array([1., 1., 1.], dtype=float32)
    """
    u, _, v = proper_svd(f)
    return product(u, v.mT)


@mode.defjvp
def _mode_jvp(primals: tuple[Matrix], tangents: tuple[Matrix]) -> tuple[Matrix, Matrix]:
    (f,), (df,) = primals, tangents
    r = mode(f)
    back = r.mT
    p = product(back, f)
    p = 0.5 * (p + p.mT)
    trace = jnp.trace(p, axis1=-2, axis2=-1)
    gap = trace[..., None, None] * jnp.eye(3, dtype=f.dtype) - p
    size = jnp.sqrt(jnp.sum(jnp.square(f), axis=(-2, -1)))
    damping = _REGULARISER[f.dtype.itemsize] * jnp.maximum(size, 1e-10)
    square = product(gap, gap) + jnp.square(damping)[..., None, None] * jnp.eye(3)
    axis = product(gap, _axial(product(back, df))[..., None])
    w = jnp.linalg.solve(square, axis)[..., 0]
    return r, product(r, _cross_matrix(w))


def _axial(m: Matrix) -> Float[Array, "*batch 3"]:
    return jnp.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        axis=-1,
    )


def _cross_matrix(w: Float[Array, "*batch 3"]) -> Matrix:
    x, y, z = (w[..., i] for i in range(3))
    zero = jnp.zeros_like(x)
    rows = [(zero, -z, y), (z, zero, -x), (-y, x, zero)]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


@lru_cache
def _rule(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes and weights of Gauss's rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES[size])
    return 0.5 * (nodes + 1.0), 0.5 * weights


class _Average(NamedTuple):
    r"""The nodes of the integral, with what is known at each.

    Attributes:
        shares: normalised integrand; the nodes are the last axis.
        x: $1 - \cos\beta$.
        near: half of x, the weight of the difference of the other angles.
        far: rest to 1, the weight of their sum.
        a: concentration of the difference.
        b: concentration of the sum.
        cos_a: mean cosine of the difference.
        cos_b: mean cosine of the sum.
        log_total: $\log c - \mathrm{tr} S$.
    """

    shares: Array
    x: Array
    near: Array
    far: Array
    a: Array
    b: Array
    cos_a: Array
    cos_b: Array
    log_total: Float[Array, "*batch"]


def _average(s: Float[Array, "*batch 3"]) -> _Average:
    size = s.dtype.itemsize
    t, weights = (jnp.asarray(x, s.dtype) for x in _rule(size))
    first, second, third = (s[..., i, None] for i in range(3))
    decay = jnp.maximum(first + third, 0.0)
    largest = jnp.minimum(2.0, _REACH[size] / jnp.maximum(decay, 1.0))
    x = largest * jnp.square(t)
    near = 0.5 * x
    far = 1.0 - near
    a = jnp.maximum(second - third, 0.0) * near
    b = jnp.maximum(second + third, 0.0) * far
    zero_a, zero_b = i0e(a), i0e(b)
    values = weights * t * jnp.exp(-decay * x) * zero_a * zero_b
    total = jnp.sum(values, axis=-1, keepdims=True)
    cosines = i1e(a) / zero_a, i1e(b) / zero_b
    log_total = jnp.log(largest * total)[..., 0]
    return _Average(values / total, x, near, far, a, b, *cosines, log_total)


def _mean(at: _Average, values: Array) -> Array:
    """Returns averages under the integrand; further axes stand before the nodes."""
    further = values.ndim - at.shares.ndim
    shares = jnp.expand_dims(at.shares, range(-1 - further, -1))
    return jnp.sum(shares * values, axis=-1)


def _mean_of(s: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Returns d."""
    at = _average(s)
    difference, total = _mean(at, at.near * at.cos_a), _mean(at, at.far * at.cos_b)
    first = 1.0 - _mean(at, at.x)
    return jnp.stack([first, total + difference, total - difference], axis=-1)


@jax.custom_jvp
def log_normaliser(f: Matrix) -> Float[Array, "*batch"]:
    """Returns log c(F), with the uniform law of total mass 1; its gradient is the mean.

    In float32 to 5e-7 of max(1, |log c|), in float64 to 1e-12.

    >>> round(float(log_normaliser(jnp.diag(jnp.array([1.0, 0.0, 0.0])))), 4)
    0.1614
    """
    s = proper_svd(f).s
    return jnp.sum(s, axis=-1) + _average(s).log_total


@log_normaliser.defjvp
def _log_normaliser_jvp(
    primals: tuple[Matrix], tangents: tuple[Matrix]
) -> tuple[Array, Array]:
    (f,), (df,) = primals, tangents
    return log_normaliser(f), jnp.sum(mean_rotation(f) * df, axis=(-2, -1))


def mean_rotation(f: Matrix, method: str = "exact") -> Matrix:
    r"""Returns $E[R]$, the best guess of a rotation, which is no rotation itself.

    No gradient flows through the "laplace" methods.

    Args:
        f: parameter F.
        method: name of the estimate: "exact" (float32 to 1e-6, float64 to 1e-12),
            "mode" (order 0), "laplace1" to "laplace3" (of the order $1 / a$ of their
            names, each $d_i$ kept within [0, 1]; for gaps well above 1), or
            "high_temperature" (the two first terms, for F well below 1).

    Raises:
        ValueError: the method is unknown.

    >>> mean = mean_rotation(jnp.diag(jnp.array([1.0, 0.0, 0.0])))
    >>> round(float(mean[0, 0]), 4)  # coth(1) - 1
    0.313
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, found {method!r}")
    if method == "exact":
        return _exact_mean(f)
    if method == "mode":
        return mode(f)
    if method == "high_temperature":
        return f / 3.0 + _cofactors(f) / 6.0
    u, s, v = proper_svd(f)
    d = laplace_mean(s, int(method[-1]))
    return product(u * d[..., None, :], v.mT)


def _cofactors(f: Matrix) -> Matrix:
    rows = [jnp.cross(f[..., (i + 1) % 3, :], f[..., (i + 2) % 3, :]) for i in range(3)]
    return jnp.stack(rows, axis=-2)


def laplace_mean(s: Float[Array, "*batch 3"], order: int) -> Float[Array, "*batch 3"]:
    r"""Returns d by Laplace's method around the mode, to an order of 1 to 3.

    With $g_j = 1 / a_j$,
    $$ d_i = 1 - \sum_{j \ne i} \Big( \frac{g_j}{2} + \frac{g_j^2}{8} +
       \frac{g_j^2 (4 g_j + \sum_{k \ne j} g_k)}{32} \Big). $$
    The series is asymptotic: where a gap is near 1 or below, as it always is of a line,
    more orders are worse, and what leaves [0, 1] is cut.

    >>> laplace_mean(jnp.array([5.0, 5.0, 5.0]), order=1)
    Array([0.9, 0.9, 0.9], dtype=float32)
    """
    inverse = 1.0 / jnp.maximum(gaps(s), 1e-6)
    of_axis = 0.5 * inverse
    if order >= 2:
        of_axis += jnp.square(inverse) / 8.0
    if order >= 3:
        total = jnp.sum(inverse, axis=-1, keepdims=True)
        of_axis += jnp.square(inverse) * (3.0 * inverse + total) / 32.0
    lost = jnp.sum(of_axis, axis=-1, keepdims=True) - of_axis
    return jnp.clip(1.0 - lost, 0.0, 1.0)


@jax.custom_jvp
def _exact_mean(f: Matrix) -> Matrix:
    u, s, v = proper_svd(f)
    return product(u * _mean_of(s)[..., None, :], v.mT)


@_exact_mean.defjvp
def _exact_mean_jvp(
    primals: tuple[Matrix], tangents: tuple[Matrix]
) -> tuple[Matrix, Matrix]:
    (f,), (df,) = primals, tangents
    u, s, v = proper_svd(f)
    back = v.mT
    mean, moments = _moments(s)
    moved = product(product(u.mT, df), v)
    along = jnp.einsum(
        "...ik,...kk->...i", moments.diagonal, moved, precision="highest"
    )
    change = moments.squares * moved + moments.products * moved.mT
    change += along[..., None] * jnp.eye(3, dtype=f.dtype)
    change = product(product(u, change), back)
    return product(u * mean[..., None, :], back), change


class _Moments(NamedTuple):
    r"""Covariance of R in the frame of the decomposition: nothing else is not zero.

    Attributes:
        diagonal: $\mathrm{Cov}(R_{ii}, R_{kk})$.
        squares: $E[R_{ij}^2]$ for $i \ne j$, zero on the diagonal.
        products: $E[R_{ij} R_{ji}]$, the same.
    """

    diagonal: Matrix
    squares: Matrix
    products: Matrix


def _moments(s: Float[Array, "*batch 3"]) -> tuple[Float[Array, "*batch 3"], _Moments]:
    """Returns d and the covariance."""
    at = _average(s)
    # Mean squares of the sines at a node.
    sines = _sine(at.a, at.cos_a), _sine(at.b, at.cos_b)
    mean, diagonal = _diagonal(at, *sines)
    return mean, _Moments(diagonal, *_off_diagonal(at, *sines))


def _diagonal(
    at: _Average, sine_a: Array, sine_b: Array
) -> tuple[Float[Array, "*batch 3"], Matrix]:
    """Returns d and the covariance of the diagonal of R: between nodes and within."""
    part_a, part_b = at.near * at.cos_a, at.far * at.cos_b
    # The first entry less one, which would take its digits.
    values = jnp.stack([-at.x, part_b + part_a, part_b - part_a], axis=-2)
    means = _mean(at, values)
    centred = values - means[..., None]
    between = _mean(at, centred[..., :, None, :] * centred[..., None, :, :])
    spread_a = jnp.maximum(1.0 - sine_a - jnp.square(at.cos_a), 0.0)
    spread_b = jnp.maximum(1.0 - sine_b - jnp.square(at.cos_b), 0.0)
    within_a = _mean(at, jnp.square(at.near) * spread_a)
    within_b = _mean(at, jnp.square(at.far) * spread_b)
    zero = jnp.zeros_like(within_a)
    same, other = within_b + within_a, within_b - within_a
    within = _rows((zero, zero, zero), (zero, same, other), (zero, other, same))
    return means.at[..., 0].add(1.0), between + within


def _off_diagonal(at: _Average, sine_a: Array, sine_b: Array) -> tuple[Matrix, Matrix]:
    """Returns the mean squares of the other entries of R, and of opposite products."""
    # Of the first axis with the two others: half the square of the sine of beta.
    half = 0.5 * at.x * (2.0 - at.x)
    both = at.cos_a * at.cos_b
    sines_a = _mean(at, jnp.square(at.near) * sine_a)
    sines_b = _mean(at, jnp.square(at.far) * sine_b)
    squares = _symmetric(
        _mean(at, half * (1.0 - both)),
        _mean(at, half * (1.0 + both)),
        sines_b + sines_a,
    )
    products = _symmetric(
        -_mean(at, half * (at.cos_b - at.cos_a)),
        -_mean(at, half * (at.cos_b + at.cos_a)),
        sines_a - sines_b,
    )
    return squares, products


def _symmetric(a: Array, b: Array, c: Array) -> Matrix:
    zero = jnp.zeros_like(a)
    return _rows((zero, a, b), (a, zero, c), (b, c, zero))


def _sine(kappa: Array, cosine: Array) -> Array:
    r"""Returns the mean square of a von Mises sine, $I_1 / (\kappa I_0)$."""
    small = kappa < 1e-2
    series = 0.5 - jnp.square(kappa) / 16.0
    return jnp.where(small, series, cosine / jnp.where(small, 1.0, kappa))


def _rows(*rows: tuple[Array, Array, Array]) -> Matrix:
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def sample(key: Key[Array, ""], f: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    r"""Draws a rotation of the law, exactly.

    In the frame of the decomposition quaternions have the Bingham law
    $e^{-\sum_i \lambda_i q_i^2}$ with $\lambda = 2 (0, a_1, a_2, a_3)$; those of the
    angular central Gaussian law that lies above it are accepted with the ratio (Kent,
    Ganeiber and Mardia 2013, arXiv:1310.8110), more than half of them.

    >>> r = sample(jax.random.key(0), 1e6 * jnp.eye(3))
    >>> bool(jnp.allclose(r, jnp.eye(3), atol=0.01))
    True
    """
    u, s, v = proper_svd(f)
    q = _draw_bingham(key, 2.0 * jnp.concatenate([jnp.zeros(1, s.dtype), gaps(s)]))
    return product(product(u, from_quaternion(q)), v.T)


def _draw_bingham(key: Key[Array, ""], decay: Float[Array, " 4"]) -> Array:
    r"""Draws a unit quaternion of density $e^{-\sum_i \lambda_i q_i^2}$."""
    width = _width(decay)
    inverse = 1.0 + 2.0 * decay / width
    bound = 0.5 * (4.0 - width) + 2.0 * jnp.log(width / 4.0)

    def propose(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key = jax.random.split(carry[0], 3)
        q = jax.random.normal(key[1], (4,), decay.dtype) / jnp.sqrt(inverse)
        q /= jnp.linalg.norm(q)
        squares = jnp.square(q)
        ratio = bound - jnp.sum(decay * squares)
        ratio += 2.0 * jnp.log(jnp.sum(squares * inverse))
        chance = jax.random.uniform(key[2], (), decay.dtype)
        return key[0], q, jnp.log(chance) < ratio

    start = (key, jnp.zeros(4, decay.dtype), jnp.zeros((), bool))
    return jax.lax.while_loop(lambda carry: ~carry[2], propose, start)[1]


def _width(decay: Float[Array, " 4"]) -> Float[Array, ""]:
    r"""Solves $\sum_i 1 / (b + 2 \lambda_i) = 1$ for b in [1, 4], by bisection."""

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_high = jnp.sum(1.0 / (middle + 2.0 * decay)) < 1.0
        return jnp.where(is_high, low, middle), jnp.where(is_high, middle, high)

    ends = (jnp.ones((), decay.dtype), jnp.full((), 4.0, decay.dtype))
    return jax.lax.fori_loop(0, 50, halve, ends)[1]


def uniform(key: Key[Array, ""], count: int) -> Float[Array, "count 3 3"]:
    """Draws uniform rotations: the law of F = 0.

    >>> uniform(jax.random.key(0), 5).shape
    (5, 3, 3)
    """
    q = jax.random.normal(key, (count, 4))
    return from_quaternion(q / jnp.linalg.norm(q, axis=-1, keepdims=True))


def from_quaternion(q: Float[Array, "*batch 4"]) -> Matrix:
    """Returns the rotation of a unit quaternion, its real part first.

    >>> jnp.diag(from_quaternion(jnp.array([0.0, 1.0, 0.0, 0.0])))
    Array([ 1., -1., -1.], dtype=float32)
    """
    w, x, y, z = (q[..., i] for i in range(4))
    return _rows(
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )
