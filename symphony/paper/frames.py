r"""Frames that turn a pair's axis to the pole, and a convolution in them.

With the polar axis along the pair, a channelwise tensor product with its spherical
harmonics acts on each order m alone (eSCN, arXiv 2302.03655): one weight for every
pair of degrees and every $|m|$ replaces one for every path, and nothing else changes.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from common.irreps import clebsch_gordan, max_degree_of


def frame_rows(max_degree: int) -> list[tuple[int, int]]:
    """Lists (degree, m) of the rows of a frame: by |m|, then m above -m, then l."""
    rows = [(l, 0) for l in range(max_degree + 1)]
    for m in range(1, max_degree + 1):
        for signed in (m, -m):
            rows += [(l, signed) for l in range(m, max_degree + 1)]
    return rows


def pair_frames(
    vectors: Float[Array, "*pairs 3"], max_degree: int
) -> Float[Array, "*pairs rows components"]:
    r"""Returns the matrices that express features in the frames of pairs.

    Row (l, m) of a frame is column m of $D^l(R)$, with R the rotation by beta about x
    and then by alpha about y that takes y to the pair. A rotation of the frame about
    the pair is left open; `pair_convolution` does not depend on it.

    Args:
        vectors: From sender to receiver, of any length but zero.
        max_degree: Largest degree of the features.
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    around = jnp.sqrt(jnp.square(x) + jnp.square(z))
    length = jnp.sqrt(jnp.square(around) + jnp.square(y))
    at_pole = around < 1e-9 * length
    cos_alpha = jnp.where(at_pole, 1.0, z / jnp.where(at_pole, 1.0, around))
    sin_alpha = jnp.where(at_pole, 0.0, x / jnp.where(at_pole, 1.0, around))
    cosines, sines = _multiples(cos_alpha, sin_alpha, max_degree)
    polar = _multiples(y / length, around / length, max_degree)
    polar = jnp.stack([*polar[0], *polar[1][1:]], axis=-1)

    table, partner = _polar_tables(max_degree)
    shape = (*vectors.shape[:-1], *table.shape[1:])
    own = (polar @ table.reshape(len(table), -1)).reshape(shape)
    other = (polar @ partner.reshape(len(table), -1)).reshape(shape)
    orders = [m for l in range(max_degree + 1) for m in range(-l, l + 1)]
    cosine = jnp.stack([cosines[abs(m)] for m in orders], axis=-1)
    sine = jnp.stack([-math.copysign(1, m) * sines[abs(m)] for m in orders], axis=-1)
    return cosine[..., None, :] * own + sine[..., None, :] * other


def _multiples(
    cosine: Array, sine: Array, max_degree: int
) -> tuple[list[Array], list[Array]]:
    """Lists cosines and sines of the multiples 0 to `max_degree` of an angle."""
    cosines, sines = [jnp.ones_like(cosine)], [jnp.zeros_like(sine)]
    for _ in range(max_degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return cosines, sines


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
        last = matrices[-1]
        matrices.append(
            (2 * l + 1)
            * np.einsum(
                "abk,ac,bd,cde->ke", table, rotation, last, table, optimize=True
            )
        )
    return matrices[: max_degree + 1]


@functools.cache
def _polar_tables(
    max_degree: int,
) -> tuple[
    Float[np.ndarray, "harmonics rows components"],
    Float[np.ndarray, "harmonics rows components"],
]:
    """Returns the frames of pairs at alpha = 0 as Fourier series in beta.

    Returns:
        Coefficients of 1, cos beta, ..., sin beta, ...: of the frames, and of the
        frames with the components m and -m of each degree swapped.
    """
    rows = frame_rows(max_degree)
    num_angles = 2 * max_degree + 1
    components = (max_degree + 1) ** 2
    frames = np.zeros((num_angles, len(rows), components))
    angles = 2.0 * np.pi * np.arange(num_angles) / num_angles
    for index, beta in enumerate(angles):
        cosine, sine = np.cos(beta), np.sin(beta)
        rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        matrices = wigner_matrices(rotation, max_degree)
        for row, (l, m) in enumerate(rows):
            frames[index, row, l * l : (l + 1) ** 2] = matrices[l][:, l + m]
    orders = np.arange(max_degree + 1)
    series = [np.cos(angles[:, None] * orders), np.sin(angles[:, None] * orders[1:])]
    table = np.tensordot(np.linalg.inv(np.concatenate(series, axis=1)), frames, 1)
    swap = [l * l + l - m for l in range(max_degree + 1) for m in range(-l, l + 1)]
    return table.astype(np.float32), table[..., swap].astype(np.float32)


def num_pair_weights(max_degree_in: int, max_degree_out: int) -> int:
    """Returns the weights of a pair per channel: one for each (l_in, l_out, |m|)."""
    smaller = np.minimum.outer(
        np.arange(max_degree_in + 1), np.arange(max_degree_out + 1)
    )
    return int(np.sum(smaller + 1))


def pair_convolution(
    x: Float[Array, "num_senders components channels"],
    frames: Float[Array, "num_receivers num_senders rows components_out"],
    radial: Float[Array, "num_receivers num_senders num_radial"],
    kernel: Float[Array, "num_radial weights channels"],
) -> list[Float[Array, "num_receivers dim degrees_in channels"]]:
    r"""Sums messages of all senders, each scaled order by order in its pair's frame.

    $A_i^{l_3 l_1} = \sum_j D_{ij}^{l_3} W_{ij}^{l_3 l_1} (D_{ij}^{l_1})^T x_j^{l_1}$,
    W diagonal in m and equal at m and -m, which makes it commute with turns about the
    pair and with reflections that contain it: parities are natural.

    Args:
        x: Features of the senders.
        frames: See `pair_frames`; its degree is the largest of the messages.
        radial: Functions of the distance; zero where there is no pair.
        kernel: Makes the weights, ordered by |m|, then output degree, then input
            degree, from `radial`. Not normalised in fan-in.

    Returns:
        For each output degree the messages of each input degree, component
        normalised if the features and the weights are.
    """
    degree_in = max_degree_of(x.shape[-2])
    degree_out = max_degree_of(frames.shape[-1])
    rows = frame_rows(degree_out)
    channels = x.shape[-1]
    num_pairs = frames.shape[:2]
    wanted = [r for r, (l, _) in enumerate(rows) if l <= degree_in]
    by_sender = frames[:, :, np.array(wanted), : x.shape[-2]]
    # Batched over senders: one product of a tall matrix for each.
    turned = jnp.einsum("ijra,jac->jirc", by_sender, x)
    sizes = [(degree_in + 1 - m) * (2 if m else 1) for m in range(degree_in + 1)]
    turned = jnp.split(turned, np.cumsum(sizes)[:-1], axis=2)
    messages = 0.0
    first = 0
    for m in range(min(degree_in, degree_out) + 1):
        degrees_in = np.arange(m, degree_in + 1)
        degrees_out = np.arange(m, degree_out + 1)
        signs = (1, -1) if m else (1,)
        smaller = np.minimum.outer(degrees_out, degrees_in)
        scale = np.sqrt((2 * degrees_out[:, None] + 1) / (2 * smaller + 1))
        count = scale.size
        block = kernel[:, first : first + count] * jnp.asarray(
            scale.reshape(-1, 1), kernel.dtype
        )
        first += count
        weights = radial @ block.reshape(block.shape[0], -1)
        weights = weights.reshape(*num_pairs, 1, len(degrees_out), -1)
        shape = (num_pairs[1], num_pairs[0], len(signs), 1, weights.shape[-1])
        mixed = jnp.swapaxes(turned[m].reshape(shape), 0, 1) * weights
        back = frames[:, :, _back_rows(degree_out, m)] * _back_mask(degree_out, m)
        message = jnp.einsum("ijslk,ijslx->ilkx", back, mixed)
