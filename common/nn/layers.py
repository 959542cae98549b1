"""Equivariant layers on features `[..., (max_degree + 1)**2, num_channels]`.

A layer treats nodes one by one, so padded nodes touch no other. Weights are one
matrix `[channels_in, channels_out]` per degree, never a flat vector. Some layers also
take `ByDegree`, and return it then: it spares the compiler copies of slices.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from common.so3.irreps import (
    clebsch_gordan,
    degree_slices,
    max_degree_of,
    tensor_product_paths,
)

MAX_UNROLLED_TERMS = 700
"""Couplings up to which a product at the nodes is written out term by term."""


ByDegree: TypeAlias = tuple[Float[Array, "*batch _components _channels"], ...]
"""Features, an array `[..., 2 * l + 1, channels]` for each degree l."""


def split_degrees(x: Float[Array, "*batch components channels"]) -> ByDegree:
    """Returns the rows of each degree."""
    rows = degree_slices(max_degree_of(x.shape[-2]))
    return tuple(x[..., of_degree, :] for of_degree in rows)


class Linear(nn.Module):
    """Mixes the channels of each degree by a matrix of its own.

    Attributes:
        features: Number of output channels.
        max_degree: Largest degree kept; that of the input if None. Degrees that the
            input lacks come out as zero.
        use_bias: Whether to add a bias to degree 0.
        kernel_init: Initialiser of every matrix; unit variance in, unit variance out
            by default.
    """

    features: int
    max_degree: int | None = None
    use_bias: bool = False
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch components channels"] | ByDegree
    ) -> Float[Array, "*batch components_out features"] | ByDegree:
        degrees = x if isinstance(x, tuple) else split_degrees(x)
        max_degree = len(degrees) - 1 if self.max_degree is None else self.max_degree
        blocks = []
        for degree, rows in enumerate(degrees[: max_degree + 1]):
            shape = (rows.shape[-1], self.features)
            kernel = self.param(f"kernel_{degree}", self.kernel_init, shape)
            # One 2-D product per degree: XLA's batched products are far slower.
            block = rows.reshape(-1, shape[0]) @ kernel.astype(rows.dtype)
            block = block.reshape(*rows.shape[:-1], self.features)
            if degree == 0 and self.use_bias:
                bias = self.param("bias", nn.initializers.zeros, (self.features,))
                block = block + bias.astype(rows.dtype)
            blocks.append(block)
        if not isinstance(x, tuple):
            return resize_degrees(jnp.concatenate(blocks, axis=-2), max_degree)
        batch = blocks[0].shape[:-2]
        for degree in range(len(blocks), max_degree + 1):
            blocks.append(jnp.zeros((*batch, 2 * degree + 1, self.features)))
        return tuple(blocks)


def resize_degrees(
    x: Float[Array, "*batch components channels"], max_degree: int
) -> Float[Array, "*batch components_out channels"]:
    """Drops the degrees above `max_degree`, or adds them as zeros."""
    num_components = (max_degree + 1) ** 2
    missing = num_components - x.shape[-2]
    if missing <= 0:
        return x[..., :num_components, :]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, missing), (0, 0)])


def expand_degrees(
    per_degree: Float[Array, "*batch degrees channels"],
) -> Float[Array, "*batch components channels"]:
    """Repeats one value per degree over the components of the degree."""
    blocks = [
        jnp.broadcast_to(
            per_degree[..., l : l + 1, :],
            (*per_degree.shape[:-2], 2 * l + 1, per_degree.shape[-1]),
        )
        for l in range(per_degree.shape[-2])
    ]
    return jnp.concatenate(blocks, axis=-2)


def gate(
    x: Float[Array, "*batch components channels"],
    gates: Float[Array, "*batch gated_degrees channels"],
    activation: Callable[[Array], Array] = nn.silu,
    gate_activation: Callable[[Array], Array] = nn.sigmoid,
) -> Float[Array, "*batch components channels"]:
    """Applies an activation to degree 0 and scales each higher degree.

    Args:
        x: Features.
        gates: Invariant numbers before their activation, one row per degree from 1.
        activation: Acts on degree 0.
        gate_activation: Acts on the gates.
    """
    scalars = activation(x[..., :1, :])
    if x.shape[-2] == 1:
        return scalars
    ones = jnp.ones((*gates.shape[:-2], 1, gates.shape[-1]), x.dtype)
    factors = jnp.concatenate([ones, gate_activation(gates)], axis=-2)
    factors = expand_degrees(factors)[..., 1:, :]
    return jnp.concatenate([scalars, factors * x[..., 1:, :]], axis=-2)


class Gate(nn.Module):
    """Nonlinearity: scalars by silu, other degrees times gates made from scalars.

    Attributes:
        activation: Acts on degree 0.
        gate_activation: Acts on the gates, one per degree above 0 and channel.
    """

    activation: Callable[[Array], Array] = nn.silu
    gate_activation: Callable[[Array], Array] = nn.sigmoid

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch components channels"]
    ) -> Float[Array, "*batch components channels"]:
        max_degree, channels = max_degree_of(x.shape[-2]), x.shape[-1]
        if max_degree == 0:
            return self.activation(x)
        gates = nn.Dense(max_degree * channels, name="gates")(x[..., 0, :])
        gates = gates.reshape(*x.shape[:-2], max_degree, channels)
        return gate(x, gates, self.activation, self.gate_activation)


class RMSNorm(nn.Module):
    r"""Divides features by the root of their mean square, then scales each channel.

    The mean is over the channels and components of one node. With `joint`, one mean
    serves all degrees, each degree counting the same whatever its size:
    $y = \gamma x / \sqrt{\epsilon + (L + 1)^{-1} \sum_l \mathrm{mean}(x_l^2)}$.

    Attributes:
        epsilon: Added under the root, so that an empty node stays at zero.
        joint: Whether all degrees share the mean; each has its own otherwise.
    """

    epsilon: float = 1e-6
    joint: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch components channels"] | ByDegree,
        node_mask: Bool[Array, "*batch"] | None = None,
    ) -> Float[Array, "*batch components channels"] | ByDegree:
        """Normalises each node.

        Args:
            x: Features.
            node_mask: True where real; other nodes are set to zero, in the value and
                in the gradient, whatever they held.
        """
        if node_mask is not None:
            clear = lambda part: jnp.where(node_mask[..., None, None], part, 0.0)
            x = jax.tree.map(clear, x)
        degrees = x if isinstance(x, tuple) else split_degrees(x)
        shape = (len(degrees), degrees[0].shape[-1])
        scale = self.param("scale", nn.initializers.ones, shape)
        squares = [jnp.mean(jnp.square(rows), axis=(-2, -1)) for rows in degrees]
        mean_square = jnp.stack(squares, axis=-1)[..., None]
        if self.joint:
            mean_square = jnp.mean(mean_square, axis=-2, keepdims=True)
        inverse = jax.lax.rsqrt(mean_square + self.epsilon)
        factors = inverse * scale.astype(inverse.dtype)
        if not isinstance(x, tuple):
            return x * expand_degrees(factors)
        return tuple(rows * factors[..., l, None, :] for l, rows in enumerate(x))


class SelfProduct(nn.Module):
    """Multiplies features with themselves, channel by channel, along every path.

    Attributes:
        max_degree: Largest degree of the product.
        group: See `common.so3.irreps.tensor_product_paths`.
    """

    max_degree: int
    group: str = "O3"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch components channels"] | ByDegree,
        y: Float[Array, "*batch components_y channels"] | ByDegree | None = None,
    ) -> Float[Array, "*batch components_out channels"] | ByDegree:
        """Returns the product of x with y, or with itself."""
        if isinstance(x, tuple):
            # The compiler sees through slices of a concatenation.
            x = jnp.concatenate(x, axis=-2)
            y = None if y is None else jnp.concatenate(y, axis=-2)
            return split_degrees(self(x, y))
        y = x if y is None else y
        paths = tensor_product_paths(
            max_degree_of(x.shape[-2]),
            max_degree_of(y.shape[-2]),
            self.max_degree,
            self.group,
        )
        per_degree = np.bincount([l3 for _, _, l3 in paths])
        deviation = np.array([per_degree[l3] ** -0.5 for _, _, l3 in paths])

        def init(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.normal(key, shape) * deviation[:, None]

        weights = self.param("weights", init, (len(paths), x.shape[-1]))
        return self_product(x, y, weights.astype(x.dtype), self.max_degree, self.group)


def self_product(
    x: Float[Array, "*batch components channels"],
    y: Float[Array, "*batch components_y channels"],
    weights: Float[Array, "*#batch paths channels"],
    max_degree: int,
    group: str = "O3",
) -> Float[Array, "*batch components_out channels"]:
    r"""Sums the channelwise tensor products of two arrays over all paths.

    $z_{l_3 c} = \sum_{l_1 l_2} w_{l_1 l_2 l_3 c} \sqrt{2 l_3 + 1}\,
    C^{l_1 l_2 l_3} (x_{l_1 c} \otimes y_{l_2 c})$, in component normalisation.

    Args:
        x: First factor.
        y: Second factor.
        weights: One number per path and channel; the paths are those of
            `common.so3.irreps.tensor_product_paths`, in its order.
        max_degree: Largest degree of the product.
        group: See `common.so3.irreps.tensor_product_paths`.
    """
    degrees = (
        max_degree_of(x.shape[-2]),
        max_degree_of(y.shape[-2]),
        max_degree,
        group,
    )
    if len(_couplings(*degrees)) > MAX_UNROLLED_TERMS:
        return _product_by_matrices(degrees, x, y, weights)
    return _product_by_terms(degrees, x, y, weights)


class _Coupling(NamedTuple):
    """One product of components: its path, the rows of x, y and z, its coefficient."""

    path: int
    x: int
    y: int
    z: int
    value: float


@functools.cache
def _couplings(
    max_degree_x: int, max_degree_y: int, max_degree: int, group: str
) -> tuple[_Coupling, ...]:
    """Lists the non-zero couplings of all paths, component normalisation in."""
    paths = tensor_product_paths(max_degree_x, max_degree_y, max_degree, group)
    couplings = []
    for index, (l1, l2, l3) in enumerate(paths):
        table = clebsch_gordan(l1, l2, l3) * math.sqrt(2 * l3 + 1)
        for i, j, k in np.argwhere(np.abs(table) > 1e-9).tolist():
            rows = (l1 * l1 + i, l2 * l2 + j, l3 * l3 + k)
            couplings.append(_Coupling(index, *rows, float(table[i, j, k])))
    return tuple(couplings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product_by_terms(
    degrees: tuple[int, int, int, str], x: Array, y: Array, weights: Array
) -> Array:
    """Writes out every term: one pass over memory, where matrices need ten."""
    rows = (degrees[2] + 1) ** 2
    terms = [(c.path, c.z, c.x, c.y, c.value) for c in _couplings(*degrees)]
    return _weighted_terms(terms, rows, x, y, weights)


def _product_fwd(
    degrees: tuple[int, int, int, str], x: Array, y: Array, weights: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _product_by_terms(degrees, x, y, weights), (x, y, weights)


def _product_bwd(
    degrees: tuple[int, int, int, str],
    residuals: tuple[Array, Array, Array],
    z_bar: Array,
) -> tuple[Array, Array, Array]:
    # The gradients are sums of the same products. Left to itself, automatic
    # differentiation writes every one of them to memory.
    x, y, weights = residuals
    couplings = _couplings(*degrees)
    to_x = [(c.path, c.x, c.y, c.z, c.value) for c in couplings]
    to_y = [(c.path, c.y, c.x, c.z, c.value) for c in couplings]
    x_bar = _weighted_terms(to_x, x.shape[-2], y, z_bar, weights)
    y_bar = _weighted_terms(to_y, y.shape[-2], x, z_bar, weights)
    sums: list[Array | float] = [0.0] * weights.shape[-2]
    for c in couplings:
        product = x[..., c.x, :] * y[..., c.y, :]
        sums[c.path] = sums[c.path] + c.value * (product * z_bar[..., c.z, :])
    weights_bar = jnp.stack(sums, axis=-2)
    return (
        _sum_to(x_bar, x.shape),
        _sum_to(y_bar, y.shape),
        _sum_to(weights_bar, weights.shape),
    )


_product_by_terms.defvjp(_product_fwd, _product_bwd)


def _weighted_terms(
    terms: list[tuple[int, int, int, int, float]],
    num_rows: int,
    a: Array,
    b: Array,
    weights: Array,
) -> Array:
    """Sums weights[path] * value * a[i] * b[j] into rows; terms come by path."""
    rows: list[Array | float] = [0.0] * num_rows
    for (path, row), group in itertools.groupby(
        sorted(terms), key=lambda term: term[:2]
    ):
        total = sum(v * (a[..., i, :] * b[..., j, :]) for *_, i, j, v in group)
        rows[row] = rows[row] + weights[..., path, :] * total
    shape = jnp.broadcast_shapes(
        a.shape[:-2] + a.shape[-1:],
        b.shape[:-2] + b.shape[-1:],
        weights.shape[:-2] + weights.shape[-1:],
    )
    return jnp.stack([jnp.broadcast_to(row, shape) for row in rows], axis=-2)


def _sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sums over the axes along which an array of this shape had been repeated."""
    leading = array.ndim - len(shape)
    array = jnp.sum(array, axis=tuple(range(leading)))
    repeated = [i for i, size in enumerate(shape) if size == 1 != array.shape[i]]
    return jnp.sum(array, axis=tuple(repeated), keepdims=True)


def _product_by_matrices(
    degrees: tuple[int, int, int, str], x: Array, y: Array, weights: Array
) -> Array:
    """Multiplies path by path with dense tables: for degrees with too many terms."""
    max_degree = degrees[2]
    rows = degree_slices(max(degrees[:3]))
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2], weights.shape[:-2])
    channels = x.shape[-1]
    blocks: list[Array | float] = [0.0] * (max_degree + 1)
    for index, (l1, l2, l3) in enumerate(tensor_product_paths(*degrees)):
        table = clebsch_gordan(l1, l2, l3) * math.sqrt(2 * l3 + 1)
        outer = x[..., rows[l1], None, :] * y[..., None, rows[l2], :]
        outer = outer.reshape(*outer.shape[:-3], -1, channels)
        matrix = jnp.asarray(table.reshape(-1, 2 * l3 + 1).T, x.dtype)
        product = jnp.einsum("ka,...ac->...kc", matrix, outer)
        blocks[l3] = blocks[l3] + weights[..., index, None, :] * product
    return jnp.concatenate(
        [
            jnp.broadcast_to(block, (*batch, 2 * l + 1, channels)).astype(x.dtype)
            for l, block in enumerate(blocks)
        ],
        axis=-2,
    )


class MLP(nn.Module):
    """Dense layers with an activation between them, none after the last.

    Attributes:
        features: Widths of the layers, the output included.
        activation: Acts between layers.
        use_bias: Whether layers have biases. Without them zero maps to zero, and so
            does whatever a smooth envelope multiplied at the input.
    """

    features: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.silu
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch features"]:
        for index, width in enumerate(self.features):
            if index > 0:
                x = self.activation(x)
            x = nn.Dense(width, use_bias=self.use_bias)(x)
        return x


def safe_norm(vectors: Float[Array, "*batch 3"]) -> Float[Array, "*batch"]:
    """Returns lengths, with a gradient of zero where a vector is zero."""
    squared = jnp.sum(jnp.square(vectors), axis=-1)
    # One where keeps the root away from zero, the other restores the value there.
    is_zero = squared == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


def bessel_basis(
    distances: Float[Array, "*batch"], num_basis: int, cutoff: float
) -> Float[Array, "*batch num_basis"]:
    r"""Encodes distances by spherical Bessel functions of order zero.

    $b_n(d) = \sqrt{2 / c}\, \sin(n \pi d / c) / d$ for n from 1 (Gasteiger et al.,
    Directional Message Passing, eq. 7), with its limit at d = 0.

    Args:
        distances: Distances in Å.
        num_basis: Number of functions.
        cutoff: Distance c in Å at which every function is zero.
    """
    order = jnp.arange(1, num_basis + 1, dtype=distances.dtype)
    scaled = distances[..., None] / cutoff
    # Sinc by hand: below the threshold its series is exact in single precision, and
    # the quotient is kept away from zero for the sake of the gradient.
    argument = math.pi * order * scaled
    small = jnp.abs(argument) < 1e-2
    safe = jnp.where(small, 1.0, argument)
    series = 1.0 - jnp.square(argument) / 6.0
    sinc = jnp.where(small, series, jnp.sin(safe) / safe)
    return math.sqrt(2.0 / cutoff) * (math.pi / cutoff) * order * sinc


def polynomial_envelope(
    distances: Float[Array, "*batch"], cutoff: float, p: int = 6
) -> Float[Array, "*batch"]:
    r"""Falls smoothly from 1 at zero to 0 at the cutoff and beyond.

    $u(x) = 1 - \frac{(p+1)(p+2)}{2} x^p + p (p+2) x^{p+1} - \frac{p (p+1)}{2} x^{p+2}$
    with x = d / c (Gasteiger et al., Directional Message Passing, eq. 8); its first
    two derivatives vanish at the cutoff.

    Args:
        distances: Distances in Å.
        cutoff: Distance c in Å.
        p: Power of the first term; a larger one keeps 1 for longer.
    """
    x = jnp.minimum(distances / cutoff, 1.0)
    # The same polynomial with its triple root at 1 divided out: no cancellation.
    remainder = sum((k + 1) * (k + 2) / 2 * x**k for k in range(p))
    return jnp.where(distances < cutoff, (1.0 - x) ** 3 * remainder, 0.0)


def gaussian_basis(
    values: Float[Array, "*batch"], low: float, high: float, num_basis: int
) -> Float[Array, "*batch num_basis"]:
    """Encodes numbers by Gaussians as wide as the distance between their centres."""
    centres = np.linspace(low, high, num_basis, dtype=np.float32)
    width = float(centres[1] - centres[0])
    return jnp.exp(-0.5 * jnp.square((values[..., None] - centres) / width))
