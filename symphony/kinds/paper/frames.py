r"""Frames that turn a pair's axis to the pole, and a convolution in them.

With the polar axis along the pair, a channelwise tensor product with its spherical
harmonics acts on each order m alone (eSCN, arXiv 2302.03655): one weight for every
pair of degrees and every $|m|$ replaces one for every path, and nothing else changes.
Features here are `[..., degrees, orders, channels]`: degree l has 2l + 1 orders, then
zeros, so that one product serves all degrees.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from common.so3.irreps import clebsch_gordan


def frame_rows(max_degree: int) -> list[tuple[int, int]]:
    """Lists (l, m) of the rows of a frame: by |m|, then m before -m, then l."""
    rows = [(l, 0) for l in range(max_degree + 1)]
    for m in range(1, max_degree + 1):
        for signed in (m, -m):
            rows += [(l, signed) for l in range(m, max_degree + 1)]
    return rows


def wigner_matrices(
    rotation: Float64[np.ndarray, "3 3"], max_degree: int
) -> list[Float64[np.ndarray, "dim dim"]]:
    r"""Returns $D^l$ with $Y^l(R v) = D^l Y^l(v)$, each from the one before.

    Args:
        rotation: R, acting on (x, y, z), which is also $D^1$.
        max_degree: Largest degree l.
    """
    matrices = [np.ones((1, 1)), rotation]
    for l in range(2, max_degree + 1):
        table = clebsch_gordan(1, l - 1, l)
        product = np.einsum("abk,ac,bd->kcd", table, rotation, matrices[-1])
        matrices.append((2 * l + 1) * np.einsum("kcd,cde->ke", product, table))
    return matrices[: max_degree + 1]


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
        matrices = wigner_matrices(rotation, max_degree)
        for row, (l, m) in enumerate(rows):
            frames[0, index, row, : 2 * l + 1] = matrices[l][:, l + m]
            frames[1, index, row, : 2 * l + 1] = matrices[l][::-1, l + m]
    multiples = angles[:, None] * np.arange(max_degree + 1)
    series = np.concatenate([np.cos(multiples), np.sin(multiples[:, 1:])], axis=1)
    own, swapped = (np.tensordot(np.linalg.inv(series), f, 1) for f in frames)
    return own.astype(np.float32), swapped.astype(np.float32)


def pair_frames(
    vectors: Float[Array, "*pairs 3"], max_degree: int
) -> Float[Array, "*pairs rows orders"]:
    r"""Returns the matrices that express features in the frames of pairs.

    Row (l, m), ordered as `frame_rows`, is column m of $D^l(R)$, with R the turn by
    beta about x and then by alpha about y that takes y to the pair.

    Args:
        vectors: From sender to receiver, of any length but zero.
        max_degree: Largest degree of the features.
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    around = jnp.sqrt(jnp.square(x) + jnp.square(z))
    length = jnp.sqrt(jnp.square(around) + jnp.square(y))
    at_pole = around < 1e-9 * length
    safe = jnp.where(at_pole, 1.0, around)
    alpha = (jnp.where(at_pole, 1.0, z / safe), jnp.where(at_pole, 0.0, x / safe))
    cosines, sines = _multiples(*alpha, max_degree)
    polar = _multiples(y / length, around / length, max_degree)
    polar = jnp.concatenate([polar[0], polar[1][..., 1:]], axis=-1)

    rows = frame_rows(max_degree)
    own, swapped = (
        (polar @ table.reshape(len(table), -1)).reshape(*x.shape, *table.shape[1:])
        for table in _polar_series(max_degree)
    )
    # The entry at k of a row of degree l belongs to the order k - l.
    orders = np.arange(2 * max_degree + 1) - np.array([[l] for l, _ in rows])
    select = np.eye(max_degree + 1)[np.minimum(np.abs(orders), max_degree)]
    signed = -np.sign(orders)[..., None] * select
    expand = lambda values, table: (
        values @ table.reshape(-1, max_degree + 1).T.astype(np.float32)
    ).reshape(own.shape)
    return expand(cosines, select) * own + expand(sines, signed) * swapped


def _multiples(cosine: Array, sine: Array, max_degree: int) -> tuple[Array, Array]:
    """Returns cosines and sines of the multiples 0 to `max_degree` of an angle."""
    cosines, sines = [jnp.ones_like(cosine)], [jnp.zeros_like(sine)]
    for _ in range(max_degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return jnp.stack(cosines, axis=-1), jnp.stack(sines, axis=-1)


def num_pair_weights(max_degree_in: int, max_degree_out: int) -> int:
    """Returns the weights of a pair per channel: one for each (l_in, l_out, |m|)."""
    degrees_in = np.arange(max_degree_in + 1)
    degrees_out = np.arange(max_degree_out + 1)
    return int(np.sum(np.minimum.outer(degrees_in, degrees_out) + 1))


def pair_convolution(
    x: Float[Array, "num_senders degrees_in orders_in channels"],
    frames: Float[Array, "num_receivers num_senders rows orders"],
    radial: Float[Array, "num_receivers num_senders num_radial"],
    kernel: Float[Array, "num_radial weights channels"],
) -> Float[Array, "num_receivers degrees orders degrees_in channels"]:
    r"""Sums messages of all senders, each scaled order by order in its pair's frame.

    $A_i^{l_3 l_1} = \sum_j D_{ij}^{l_3} W_{ij}^{l_3 l_1} (D_{ij}^{l_1})^T x_j^{l_1}$,
    W diagonal in m and equal at m and -m, which makes it commute with turns about the
    pair and with reflections that contain it: parities are natural.

    Args:
        x: Features of the senders, of degrees up to that of the messages.
        frames: Of the pairs, receivers in rows; see `pair_frames`.
        radial: Functions of the distance; zero where there is no pair.
        kernel: Makes the weights, ordered by |m|, then output degree, then input
            degree, from `radial`.

    Returns:
        For each output degree the messages of each input degree, component normalised
        if the features and the weights are.
    """
    num_in, orders_in = x.shape[1:3]
    num_out = (frames.shape[-1] + 1) // 2
    num_pairs = radial.shape[:2]
    total, row, weight = 0.0, 0, 0
    for m in range(num_in):
        signs = 2 if m else 1
        degrees_in, degrees_out = np.arange(m, num_in), np.arange(m, num_out)
        smaller = np.minimum.outer(degrees_out, degrees_in)
        block = frames[:, :, row : row + signs * len(degrees_out)]
        block = block.reshape(*num_pairs, signs, len(degrees_out), -1)
        row += signs * len(degrees_out)
        # A product for every sender, tall in the receivers; back it is the other way.
        into = block[:, :, :, : len(degrees_in), :orders_in]
        turned = jnp.einsum("ijslk,jlkc->jlisc", into, x[:, m:])
        turned = jnp.transpose(turned, (2, 0, 3, 1, 4))
        turned = turned.reshape(*turned.shape[:3], -1)
        norm = np.sqrt((2.0 * degrees_out[:, None] + 1) / (2 * smaller + 1))
        scaled = kernel[:, weight : weight + smaller.size]
        scaled *= norm.reshape(-1, 1).astype(np.float32)
        weight += smaller.size
        weights = radial @ scaled.reshape(scaled.shape[0], -1)
        weights = weights.reshape(*num_pairs, len(degrees_out), -1)
        # Axes: receiver, output degree, sender, sign of m, input degree and channel.
        # These two stay one: with an axis more, under vmap, the product's gradient
        # has seven, and XLA's CPU kernel for sums of products fails on it.
        mixed = jnp.moveaxis(weights, 2, 1)[:, :, :, None] * turned[:, None]
        message = jnp.einsum("ijslk,iljsx->ilkx", block, mixed)
        message = message.reshape(*message.shape[:3], len(degrees_in), -1)
        total += jnp.pad(message, ((0, 0), (m, 0), (0, 0), (m, 0), (0, 0)))
    return total
