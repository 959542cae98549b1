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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.features import Features
from common.nn.graph import Graph
from common.nn.products.kernels import times, transpose_times, with_forward_mode
from common.nn.products.over_blocks import convolve_blocks
from common.nn.products.plan import edges_per_block as blocked_edges
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
    found = _sums(near, where, own, spec, with_forward_mode)
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
    edges = edges_per_block or blocked_edges(paths(spec), equal_channels(spec))
    return convolve_blocks(_Sums(spec), x, graph, graph.vectors, weights, edges)


def _direction(y: Features, spec: Spec) -> Float[Array, "*batch 3"]:
    (vector,) = (irrep for irrep, _ in spec.y if irrep.degree == 1)
    return y[vector][..., 0]


def frame_rows(max_degree: int) -> list[tuple[int, int]]:
    """Lists (l, m) of the rows of a frame: by |m|, then m before -m, then l.

    >>> frame_rows(1)
    [(0, 0), (1, 0), (1, 1), (1, -1)]
    """
    rows = [(l, 0) for l in range(max_degree + 1)]
    for m in range(1, max_degree + 1):
        for signed in (m, -m):
            rows += [(l, signed) for l in range(m, max_degree + 1)]
    return rows


@functools.cache
def _polar_series(
    max_degree: int,
) -> tuple[
    Float[np.ndarray, "series rows orders"], Float[np.ndarray, "series rows orders"]
]:
    """Returns frames at alpha = 0 as a series 1, cos beta, ..., sin beta, ....

    Returns:
        The coefficients; and the same with the orders m and -m swapped.
    """
    rows = frame_rows(max_degree)
    num_angles = 2 * max_degree + 1
    frames = np.zeros((2, num_angles, len(rows), num_angles))
    angles = 2.0 * np.pi * np.arange(num_angles) / num_angles
    for index, beta in enumerate(angles):
        cosine, sine = np.cos(beta), np.sin(beta)
        rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            matrices = [
                np.asarray(d)
                for d in wigner_matrices(jnp.asarray(rotation), max_degree)
            ]
        for row, (l, m) in enumerate(rows):
            frames[0, index, row, : 2 * l + 1] = matrices[l][:, l + m]
            frames[1, index, row, : 2 * l + 1] = matrices[l][::-1, l + m]
    multiples = angles[:, None] * np.arange(max_degree + 1)
    series = np.concatenate([np.cos(multiples), np.sin(multiples[:, 1:])], axis=1)
    own, swapped = (np.tensordot(np.linalg.inv(series), f, 1) for f in frames)
    return own.astype(np.float32), swapped.astype(np.float32)


def edge_frames(
    vectors: Float[Array, "*edges 3"], max_degree: int
) -> Float[Array, "*edges rows orders"]:
    r"""Returns the matrices that express features in the frames of edges.

    Row (l, m), ordered as `frame_rows`, is column m of $D^l(R)$, with R the turn by
    beta about x and then by alpha about y that takes y to the direction. At the poles
    alpha is zero, and gradients are finite.

    >>> edge_frames(jnp.ones((5, 3)), max_degree=1).shape
    (5, 4, 3)

    Args:
        vectors: directions, of any length but zero; a zero vector counts as the axis y.
        max_degree: largest degree of the features.
    """
    cosines, sines, polar = _angles(vectors, max_degree)
    expand = lambda values, table: (values @ table.reshape(len(table), -1)).reshape(
        *values.shape[:-1], *table.shape[1:]
    )
    own, swapped = (expand(polar, table) for table in _polar_series(max_degree))
    even, odd = _azimuths(max_degree)
    return expand(cosines, even) * own + expand(sines, odd) * swapped


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
def _azimuths(
    max_degree: int,
) -> tuple[Float[np.ndarray, "orders _rows _k"], Float[np.ndarray, "orders _rows _k"]]:
    """Returns which multiple of alpha an entry goes with: its cosine, and its sine."""
    # The entry at k of a row of degree l belongs to the order k - l.
    degrees = np.array([[l] for l, _ in frame_rows(max_degree)])
    orders = np.arange(2 * max_degree + 1) - degrees
    select = np.eye(max_degree + 1)[np.minimum(np.abs(orders), max_degree)]
    signed = -np.sign(orders)[..., None] * select
    even, odd = (np.moveaxis(table, -1, 0) for table in (select, signed))
    return even.astype(np.float32), odd.astype(np.float32)


def frame_orders(degree: int) -> list[int]:
    """Lists the orders of a degree as frames have them: 0, 1, -1, 2, -2 and so on.

    >>> frame_orders(2)
    [0, 1, -1, 2, -2]
    """
    return [0, *(sign * m for m in range(1, degree + 1) for sign in (1, -1))]


def degree_frames(
    vectors: Float[Array, "*edges 3"], max_degree: int
) -> list[Float[Array, "*edges _orders _orders"]]:
    """Returns the frames of edges, a matrix for each degree; see `edge_frames`.

    Rows are ordered as `frame_orders`.

    >>> [frame.shape for frame in degree_frames(jnp.ones((5, 3)), max_degree=1)]
    [(5, 1, 1), (5, 3, 3)]
    """
    cosines, sines, polar = _angles(vectors, max_degree)
    own, swapped, even, odd = _by_degree(max_degree)
    flat = (cosines @ even) * (polar @ own) + (sines @ odd) * (polar @ swapped)
    sizes = [2 * l + 1 for l in range(max_degree + 1)]
    parts = jnp.split(flat, np.cumsum(np.square(sizes))[:-1], axis=-1)
    return [
        part.reshape(*part.shape[:-1], size, size)
        for part, size in zip(parts, sizes, strict=True)
    ]


@functools.cache
def _by_degree(max_degree: int) -> tuple[Float[np.ndarray, "series _entries"], ...]:
    """Returns the tables of frames with the entries of one degree after another."""
    rows = frame_rows(max_degree)
    own = {l: [rows.index((l, m)) for m in frame_orders(l)] for l, _ in rows}

    def flat(table: Float[np.ndarray, "series rows _k"]) -> np.ndarray:
        blocks = [table[:, own[l], : 2 * l + 1] for l in sorted(own)]
        return np.concatenate([b.reshape(len(table), -1) for b in blocks], axis=-1)

    tables = *_polar_series(max_degree), *_azimuths(max_degree)
    return tuple(map(flat, tables))


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
    form: Callable[[Any], Any] = lambda function: function,
) -> Features:
    """Sums products over the senders, whose features each receiver has for itself.

    Args:
        x: features.
        vectors: directions.
        weights: weights.
        spec: irreps.
        form: what makes the products of matrices of those of `kernels`.
    """
    _check(spec)
    num_in, num_out = len(spec.x), len(spec.out)
    channels = equal_channels(spec)
    sizes, norm = _orders(num_in, num_out)
    scaled = weights * np.repeat(norm, channels)
    scaled = jnp.split(scaled, channels * np.cumsum(sizes)[:-1], axis=-1)
    frames = degree_frames(vectors, num_out - 1)
    # By degree, then by |m|: one row, and then two for each.
    turned = [
        jnp.split(form(times)(frames[i.degree], x[i]), [*range(1, i.dim, 2)], axis=-2)
        for i, _ in spec.x
    ]
    rows: list[list[Array]] = [[] for _ in range(num_out)]
    for m in range(num_in):
        near = jnp.stack([turned[l][m] for l in range(m, num_in)], axis=-2)
        near = near.reshape(*near.shape[:-2], -1)
        own = scaled[m].reshape(*weights.shape[:-1], num_out - m, -1)
        # Row by row: XLA's kernel for sums over short axes, which the gradient of a
        # broadcast product is, takes a hundred times as long.
        for l, factor in enumerate(_unstacked(own), start=m):
            for row in _unstacked(near):
                # Degrees below m have no such order.
                widths = [(0, 0)] * (row.ndim - 1) + [(m * channels, 0)]
                rows[l].append(jnp.pad(factor * row, widths))
    sums = {}
    for out in spec.out:
        message = jnp.stack(rows[out.degree], axis=-2)
        frame = frames[out.degree][..., : message.shape[-2], :]
        message, frame = (a.reshape(len(a), -1, a.shape[-1]) for a in (message, frame))
        sums[out] = form(transpose_times)(frame, message)
    return sums


def _unstacked(array: Float[Array, "*edges rows channels"]) -> list[Array]:
    """Returns the rows."""
    parts = jnp.split(array, array.shape[-2], axis=-2)
    return [part[..., 0, :] for part in parts]


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
