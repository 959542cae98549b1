"""Features: the one type that passes between equivariant modules.

Features map each irrep to an array `[..., 2l + 1, channels]`, channels last, components
in e3nn's order and component normalisation. Each irrep has a number of channels of its
own. Iterate in sorted order: JAX sorts the keys.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from common.so3.harmonics import spherical_harmonics
from common.so3.irreps import (
    SCALAR,
    Group,
    Irrep,
    Irreps,
    degree_slices,
    format_irreps,
    harmonic_irreps,
)
from common.so3.wigner import wigner_matrices

if TYPE_CHECKING:
    import e3nn_jax as e3nn

Features: TypeAlias = dict[Irrep, Float[Array, "..."]]
"""Arrays `[*batch, 2l + 1, channels]` by irrep."""


def irreps_of(x: Features) -> dict[Irrep, int]:
    """Returns the irreps of features and their numbers of channels.

    >>> irreps_of(from_scalars(jnp.zeros((5, 8))))
    {Irrep(degree=0, parity=1): 8}
    """
    return {irrep: x[irrep].shape[-1] for irrep in sorted(x)}


def zeros(irreps: Irreps, *batch: int) -> Features:
    """Returns features that are zero.

    >>> zeros({SCALAR: 8}, 5)[SCALAR].shape
    (5, 1, 8)
    """
    return {i: jnp.zeros((*batch, i.dim, irreps[i])) for i in sorted(irreps)}


def from_scalars(
    scalars: Float[Array, "*batch channels"], irreps: Irreps | None = None
) -> Features:
    """Returns features with these scalars and zeros for other irreps.

    >>> sorted(from_scalars(jnp.ones((5, 8)), {Irrep(1, -1): 4}))
    [Irrep(degree=0, parity=1), Irrep(degree=1, parity=-1)]

    Args:
        scalars: invariant numbers.
        irreps: other irreps, with their numbers of channels; none where None.
    """
    rest = {i: count for i, count in (irreps or {}).items() if i != SCALAR}
    return {SCALAR: scalars[..., None, :], **zeros(rest, *scalars.shape[:-1])}


def scalars_of(x: Features) -> Float[Array, "*batch channels"]:
    """Returns the invariant numbers of features.

    >>> scalars_of(from_scalars(jnp.ones((5, 8)))).shape
    (5, 8)
    """
    return x[SCALAR][..., 0, :]


def harmonics(
    vectors: Float[Array, "*batch 3"], max_degree: int, group: Group = "O3"
) -> Features:
    """Returns the spherical harmonics of vectors as features of one channel.

    >>> harmonics(jnp.ones((5, 3)), 1)[Irrep(1, -1)].shape
    (5, 3, 1)
    """
    rows = spherical_harmonics(vectors, max_degree)[..., None]
    irreps = harmonic_irreps(max_degree, group)
    slices = degree_slices(max_degree)
    return {i: rows[..., own, :] for i, own in zip(irreps, slices, strict=True)}


def add(x: Features, y: Features) -> Features:
    """Adds features; an irrep that one of them lacks counts as zero.

    >>> x = from_scalars(jnp.ones((1, 2)))
    >>> add(x, x)[SCALAR].tolist()
    [[[2.0, 2.0]]]
    """
    both = {irrep: x[irrep] + y[irrep] for irrep in x.keys() & y.keys()}
    return {**x, **y, **both}


def concatenate(*parts: Features) -> Features:
    """Puts the channels of features with the same irreps side by side.

    >>> x = from_scalars(jnp.ones((1, 2)))
    >>> concatenate(x, x)[SCALAR].shape
    (1, 1, 4)
    """
    join: Callable[..., Array] = lambda *arrays: jnp.concatenate(arrays, axis=-1)
    return jax.tree.map(join, *parts)


def take(x: Features, index: Int[Array, "*out"]) -> Features:
    """Returns the features of some nodes.

    >>> take(from_scalars(jnp.ones((5, 8))), jnp.array([0, 3]))[SCALAR].shape
    (2, 1, 8)
    """
    return jax.tree.map(lambda array: array[index], x)


def where(mask: Bool[Array, "*batch"], x: Features, y: Features) -> Features:
    """Selects nodes from x where true and from y elsewhere.

    >>> x = from_scalars(jnp.ones((2, 1)))
    >>> selected = where(jnp.array([True, False]), x, zeros({SCALAR: 1}, 2))
    >>> selected[SCALAR].ravel().tolist()
    [1.0, 0.0]
    """
    choose = lambda a, b: jnp.where(mask[..., None, None], a, b)
    return jax.tree.map(choose, x, y)


def rotate(x: Features, rotation: Float[Array, "3 3"]) -> Features:
    """Rotates features; an improper matrix also acts through the parities.

    >>> x = {Irrep(1, -1): jnp.ones((1, 3, 1))}
    >>> rotate(x, -jnp.eye(3))[Irrep(1, -1)].ravel().tolist()
    [-1.0, -1.0, -1.0]
    """
    sign = jnp.sign(jnp.linalg.det(rotation))
    matrices = wigner_matrices(sign * rotation, max(irrep.degree for irrep in x))

    def one(irrep: Irrep) -> Array:
        turned = jnp.einsum(
            "ij,...jc->...ic",
            matrices[irrep.degree].astype(x[irrep].dtype),
            x[irrep],
            precision=jax.lax.Precision.HIGHEST,
        )
        return turned if irrep.parity == 1 else sign * turned

    return {irrep: one(irrep) for irrep in x}


def to_irreps_array(x: Features) -> "e3nn.IrrepsArray":
    """Converts features to an array of e3nn-jax, one chunk for each irrep.

    >>> to_irreps_array(from_scalars(jnp.ones((5, 8)))).irreps
    8x0e
    """
    import e3nn_jax as e3nn

    irreps = irreps_of(x)
    chunks = [
        jnp.swapaxes(x[i], -1, -2).reshape(*x[i].shape[:-2], i.dim * channels)
        for i, channels in irreps.items()
    ]
    return e3nn.IrrepsArray(format_irreps(irreps), jnp.concatenate(chunks, axis=-1))


def from_irreps_array(array: "e3nn.IrrepsArray") -> Features:
    """Converts an array of e3nn-jax to features.

    >>> import e3nn_jax as e3nn
    >>> x = from_irreps_array(e3nn.IrrepsArray("2x0e+1x1o", jnp.ones((5, 5))))
    >>> x[Irrep(1, -1)].shape
    (5, 3, 1)

    Raises:
        ValueError: An irrep comes twice; `array.regroup()` mends it.
    """
    found: Features = {}
    for rows, (channels, ir) in zip(array.irreps.slices(), array.irreps, strict=True):
        irrep = Irrep(ir.l, ir.p)
        if irrep in found:
            raise ValueError(f"expected each irrep once, found {array.irreps}")
        block = array.array[..., rows].reshape(*array.shape[:-1], channels, ir.dim)
        found[irrep] = jnp.swapaxes(block, -1, -2)
    return dict(sorted(found.items()))
