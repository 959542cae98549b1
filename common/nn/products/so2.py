r"""The product with the harmonics of one direction, in a frame along it (eSCN).

With the polar axis along the direction, a channelwise product with its harmonics acts
on each order m alone (Passaro and Zitnick 2023, arXiv:2302.03655): one weight for every
pair of degrees and every $|m|$ replaces one for every path, and nothing else changes:
$$ z^{l_3 l_1} = D^{l_3} W^{l_3 l_1} (D^{l_1})^\top x^{l_1}, $$
W diagonal in m and equal at m and -m, which makes it commute with turns about the
direction and with reflections that contain it: parities are natural. The outputs of all
input degrees lie side by side in the channels, so that one product of matrices turns
them all back and sums them over the senders. Frames exist inside these functions only.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph
from common.nn.products import plan
from common.nn.products.kernels import (
    expand,
    times,
    transpose_times,
    unstacked,
)
from common.nn.products.over_blocks import convolve_blocks
from common.nn.products.spec import EdgeWeights, PathWeights, Spec, equal_channels
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, Path
from common.so3.wigner import wigner_matrices


def paths(spec: Spec) -> tuple[Path, ...]:
    """Lists the pairs of input and output, the latter also in the place of y.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> [tuple(map(str, path)) for path in paths(make_spec(*[uniform(1, 8)] * 3))][:2]
    [('0e', '0e', '0e'), ('1o', '0e', '0e')]
    """
    return tuple((i, out, out) for out in spec.out for i, _ in spec.x)


def num_weights(spec: Spec) -> int:
    """Returns one weight for each (l_in, l_out, |m|) and channel.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> num_weights(make_spec(*[uniform(1, 8)] * 3))
    40
    """
    _check(spec)
    smaller = (min(i.degree, out.degree) for i, out, _ in paths(spec))
    return equal_channels(spec) * sum(m + 1 for m in smaller)


def irreps_out(spec: Spec) -> dict[Irrep, int]:
    """Returns the irreps of the product, with the channels of all input degrees.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> list(irreps_out(make_spec(*[uniform(1, 8)] * 3)).values())
    [16, 16]
    """
    return dict.fromkeys(spec.out, equal_channels(spec) * len(spec.x))


def _check(spec: Spec) -> None:
    """Raises `ValueError` unless degrees are 0, 1, 2 and so on, outputs the more."""
    for irreps in (tuple(dict(spec.x)), spec.out):
        if [irrep.degree for irrep in irreps] != list(range(len(irreps))):
            raise ValueError(
                "expected each degree from 0 once for a product in frames, found "
                f"{', '.join(map(str, irreps))}"
            )
    if len(spec.x) > len(spec.out):
        raise ValueError(
            f"expected outputs up to degree {len(spec.x) - 1}, that of the input, "
            f"found up to {len(spec.out) - 1}"
        )


def product(
    x: Features, y: Features, weights: Float[Array, "*batch num_weights"], spec: Spec
) -> Features:
    """Returns the products.

    >>> from common.nn.features import harmonics, irreps_of
    >>> from common.nn.products.spec import make_spec
    >>> y = harmonics(jnp.ones((2, 3)), 1)
    >>> spec = make_spec(irreps_of(y), irreps_of(y), irreps_of(y))
    >>> found = product(y, y, jnp.ones((2, num_weights(spec))), spec)
    >>> [part.shape for part in found.values()]
    [(2, 1, 2), (2, 3, 2)]

    Args:
        x: features.
        y: harmonics of one direction for each, of degree one at least, one channel.
        weights: weights by |m|, then output degree, then input degree.
        spec: irreps.
    """
    batch = jnp.broadcast_shapes(
        *(part.shape[:-2] for part in (*x.values(), *y.values()))
    )
    # Each element is a receiver with one sender.
    one = lambda a, rest: jnp.broadcast_to(a, (*batch, *rest)).reshape(-1, 1, *rest)
    near = {irrep: one(part, part.shape[-2:]) for irrep, part in x.items()}
    own = one(weights, weights.shape[-1:])
    where = one(_direction(y, spec), (3,))
    found = _sums(near, where, own, spec)
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[-2:]), found)


def path_weights(
    weights: Float[Array, "*batch num_weights"], spec: Spec
) -> PathWeights:
    r"""Returns the weights of the Clebsch-Gordan product that is the same.

    Along the pole, harmonics have the order zero alone, and the weight of |m| is
    $W_m = \sum_{l_2} C^{l_1 l_2 l_3}_{m 0 m} \sqrt{(2 l_2 + 1)(2 n + 1)}\, w_{l_2}$
    with $n = \min(l_1, l_3)$: as many even paths as orders, so that it is solved.

    >>> from common.nn.products.spec import make_spec
    >>> from common.so3.irreps import uniform
    >>> found = path_weights(jnp.ones(40), make_spec(*[uniform(1, 8)] * 3))
    >>> [tuple(map(str, path)) for path in found][-2:]  # Degrees of y: all there are.
    [('1o', '0e', '1o'), ('1o', '2e', '1o')]
    """
    _check(spec)
    channels, shape = equal_channels(spec), (len(spec.out), len(spec.x))
    orders, start = [], 0
    for m in range(len(spec.x)):
        size = (shape[0] - m) * (shape[1] - m) * channels
        own = weights[..., start : start + size]
        orders.append(
            own.reshape(*own.shape[:-1], shape[0] - m, shape[1] - m, channels)
        )
        start += size
    found = {}
    for i, _, out in paths(spec):
        count = min(i.degree, out.degree) + 1
        of_orders = jnp.stack(
            [orders[m][..., out.degree - m, i.degree - m, :] for m in range(count)], -2
        )
        solved = jnp.einsum(
            "pm,...mc->...pc", _from_orders(i.degree, out.degree), of_orders
        )
        for k in range(count):
            middle = Irrep(abs(i.degree - out.degree) + 2 * k, i.parity * out.parity)
            found[i, middle, out] = solved[..., k, :]
    return found


@functools.cache
def _from_orders(degree_in: int, degree_out: int) -> Float[np.ndarray, "paths orders"]:
    """Returns the weights of even paths, as combinations of the weights of orders."""
    smaller = min(degree_in, degree_out)
    low = abs(degree_in - degree_out)
    degrees = range(low, degree_in + degree_out + 1, 2)
    columns = [
        np.diag(clebsch_gordan(degree_in, l, degree_out)[degree_in:, l, degree_out:])
        * np.sqrt((2 * l + 1) * (2 * smaller + 1))
        for l in degrees
    ]
    inverse = np.linalg.inv(np.stack(columns, axis=-1))
    return inverse.astype(np.float32)


def convolve(
    x: Features,
    graph: Graph,
    weights: EdgeWeights,
    spec: Spec,
    edges_per_block: int | None = None,
) -> Features:
    """Sums the products with the directions of the edges at their receivers.

    >>> from common.nn.features import harmonics, irreps_of
    >>> from common.nn.graph import make_graph
    >>> from common.nn.products.spec import make_spec
    >>> ones, x = jnp.ones((2, 2)), harmonics(jnp.ones((2, 3)), 1)
    >>> graph = make_graph(jnp.ones((2, 2, 3)), ones[..., None], ones, max_degree=1)
    >>> spec = make_spec(*[irreps_of(x)] * 3)
    >>> sums = convolve(x, graph, jnp.ones((2, 2, num_weights(spec))), spec)
    >>> [part.shape for part in sums.values()]
    [(2, 1, 2), (2, 3, 2)]

    Args:
        x: features of the nodes.
        graph: edges.
        weights: weights of the edges.
        spec: irreps.
        edges_per_block: number of edges handled at once; by the device if None.
    """
    floats = plan.message_floats(paths(spec), equal_channels(spec))
    edges = edges_per_block or plan.edges_per_block(floats)
    return convolve_blocks(_Sums(spec), x, graph, graph.vectors, weights, edges)


def _direction(y: Features, spec: Spec) -> Float[Array, "*batch 3"]:
    (vector,) = (irrep for irrep, _ in spec.y if irrep.degree == 1)
    return y[vector][..., 0]


def frame_orders(degree: int, max_order: int | None = None) -> list[int]:
    """Lists the orders of a degree as frames have them: 0, 1, -1, 2, -2 and so on.

    >>> frame_orders(2), frame_orders(2, max_order=1)
    ([0, 1, -1, 2, -2], [0, 1, -1])
    """
    last = degree if max_order is None else min(degree, max_order)
    return [0, *(sign * m for m in range(1, last + 1) for sign in (1, -1))]


def edge_frames(
    vectors: Float[Array, "*edges 3"], max_degree: int, max_order: int | None = None
) -> list[Float[Array, "*edges _orders _components"]]:
    r"""Returns the matrices that express features in the frames of edges, by degree.

    The row of order m, ordered as `frame_orders`, is column m of $D^l(R)$, with R the
    turn by beta about x and then by alpha about y that takes y to the direction. At the
    poles alpha is zero, and gradients are finite.

    >>> [frame.shape for frame in edge_frames(jnp.ones((5, 3)), max_degree=1)]
    [(5, 1, 1), (5, 3, 3)]

    Args:
        vectors: directions, of any length but zero; a zero vector counts as the axis y.
        max_degree: largest degree of the features.
        max_order: largest |m| of the rows; all if None.
    """
    cosines, sines, polar = _angles(vectors, max_degree)
    own, swapped, even, odd = _series(max_degree, max_order)
    flat = expand(cosines, even) * expand(polar, own)
    flat += expand(sines, odd) * expand(polar, swapped)
    degrees = range(max_degree + 1)
    shapes = [(len(frame_orders(l, max_order)), 2 * l + 1) for l in degrees]
    ends = np.cumsum([rows * components for rows, components in shapes])
    parts = jnp.split(flat, ends[:-1], axis=-1)
    shaped = zip(parts, shapes, strict=True)
    return [part.reshape(*part.shape[:-1], *shape) for part, shape in shaped]


def _angles(
    vectors: Float[Array, "*edges 3"], max_degree: int
) -> tuple[Array, Array, Array]:
    """Returns cosines and sines of multiples of alpha, and both of beta in one."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    vectors = jnp.where(squared > 0.0, vectors, jnp.array([0.0, 1.0, 0.0]))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    length = jnp.sqrt(jnp.square(x) + jnp.square(y) + jnp.square(z))
    across = jnp.square(x) + jnp.square(z)
    at_pole = across <= 1e-18 * jnp.square(length)
    # The root has no gradient at the pole: one where keeps it away, others discard it.
    around = jnp.sqrt(jnp.where(at_pole, 1.0, across))
    alpha = (jnp.where(at_pole, 1.0, z / around), jnp.where(at_pole, 0.0, x / around))
    sine = jnp.where(at_pole, 0.0, around / length)
    cosines, sines = _multiples(*alpha, max_degree)
    polar = _multiples(y / length, sine, max_degree)
    polar = jnp.concatenate([polar[0], polar[1][..., 1:]], axis=-1)
    return cosines, sines, polar


@functools.cache
def _series(
    max_degree: int, max_order: int | None
) -> tuple[Float[np.ndarray, "series _entries"], ...]:
    r"""Returns the entries of frames as series in the multiples of both angles.

    In row m at the component of order k stands
    $\cos(k \alpha) F_{mk}(\beta) - \sin(k \alpha) F_{m,-k}(\beta)$, F the frame at
    $\alpha = 0$, a sum of 1, $\cos \beta$, ..., $\sin \beta$, ....

    Returns:
        F; the same with k and -k swapped; and which multiple of alpha an entry goes
        with, its cosine and its sine.
    """
    num_angles = 2 * max_degree + 1
    angles = 2.0 * np.pi * np.arange(num_angles) / num_angles
    turns = [_polar_turn(beta, max_degree) for beta in angles]
    multiples = angles[:, None] * np.arange(max_degree + 1)
    waves = np.concatenate([np.cos(multiples), np.sin(multiples[:, 1:])], axis=1)
    to_series = np.linalg.inv(waves)
    tables: list[list[np.ndarray]] = [[], [], [], []]
    for l in range(max_degree + 1):
        rows, orders = frame_orders(l, max_order), np.arange(-l, l + 1)
        frames = np.stack([turn[l][:, [l + m for m in rows]].T for turn in turns])
        series = np.tensordot(to_series, frames, 1)
        even = np.eye(max_degree + 1)[:, None, np.abs(orders)]
        even = np.repeat(even, len(rows), axis=1)
        found = series, series[..., ::-1], even, -np.sign(orders) * even
        for table, entries in zip(tables, found, strict=True):
            table.append(entries.reshape(len(entries), -1))
    return tuple(np.concatenate(table, axis=1).astype(np.float32) for table in tables)


def _polar_turn(
    beta: float, max_degree: int
) -> list[Float[np.ndarray, "_orders _orders"]]:
    """Returns the Wigner matrices of a turn about x, in double precision."""
    cosine, sine = np.cos(beta), np.sin(beta)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return [*map(np.asarray, wigner_matrices(jnp.asarray(rotation), max_degree))]


def _multiples(cosine: Array, sine: Array, max_degree: int) -> tuple[Array, Array]:
    """Returns cosines and sines of the multiples 0 to `max_degree` of an angle."""
    cosines, sines = [jnp.ones_like(cosine)], [jnp.zeros_like(sine)]
    for _ in range(max_degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return jnp.stack(cosines, axis=-1), jnp.stack(sines, axis=-1)


class _Sums(NamedTuple):
    """What is done in a block."""

    spec: Spec

    def __call__(
        self,
        x: Features,
        weights: Float[Array, "num_receivers num_senders num_weights"],
        vectors: Float[Array, "num_receivers num_senders 3"],
    ) -> Features:
        return _sums(x, vectors, weights, self.spec)


def _sums(
    x: Features,
    vectors: Float[Array, "num_receivers num_senders 3"],
    weights: Float[Array, "num_receivers num_senders num_weights"],
    spec: Spec,
) -> Features:
    """Sums products over the senders, whose features each receiver has for itself.

    Args:
        x: features.
        vectors: directions.
        weights: weights.
        spec: irreps.
    """
    _check(spec)
    num_in, num_out = len(spec.x), len(spec.out)
    channels = equal_channels(spec)
    sizes, norm = _orders(num_in, num_out)
    scaled = weights * np.repeat(norm, channels)
    scaled = jnp.split(scaled, channels * np.cumsum(sizes)[:-1], axis=-1)
    frames = edge_frames(vectors, num_out - 1, max_order=num_in - 1)
    # By degree, then by |m|: one row, and then two for each.
    turned = [
        jnp.split(times(frames[i.degree], x[i]), [*range(1, i.dim, 2)], axis=-2)
        for i, _ in spec.x
    ]
    rows: list[list[Array]] = [[] for _ in range(num_out)]
    for m in range(num_in):
        near = jnp.stack([turned[l][m] for l in range(m, num_in)], axis=-2)
        near = near.reshape(*near.shape[:-2], -1)
        own = scaled[m].reshape(*weights.shape[:-1], num_out - m, -1)
        # Row by row: XLA's kernel for sums over short axes, which the gradient of a
        # broadcast product is, takes a hundred times as long.
        for l, factor in enumerate(unstacked(own, axis=-2), start=m):
            for row in unstacked(near, axis=-2):
                # Degrees below m have no such order.
                widths = [(0, 0)] * (row.ndim - 1) + [(m * channels, 0)]
                rows[l].append(jnp.pad(factor * row, widths))
    sums = {}
    for out in spec.out:
        message = jnp.stack(rows[out.degree], axis=-2)
        both = frames[out.degree], message
        frame, message = (a.reshape(len(a), -1, a.shape[-1]) for a in both)
        sums[out] = transpose_times(frame, message)
    return sums


@functools.cache
def _orders(
    num_in: int, num_out: int
) -> tuple[list[int], Float[np.ndarray, " _pairs"]]:
    """Returns the number of pairs of degrees of each |m|, and the norms of them all."""
    norms = []
    for m in range(num_in):
        degrees_out, degrees_in = np.arange(m, num_out)[:, None], np.arange(m, num_in)
        smaller = np.minimum(degrees_out, degrees_in)
        norms.append(np.sqrt((2.0 * degrees_out + 1) / (2 * smaller + 1)).ravel())
    return [len(norm) for norm in norms], np.concatenate(norms).astype(np.float32)
