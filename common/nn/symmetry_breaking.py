r"""Symmetry-breaking sets: what an equivariant network needs to choose among equals.

The output for an input with the symmetry S has that symmetry too: a square cannot
become a rectangle, or a direction. Given also an object b on which S acts freely the
output may be any; drawn uniformly from a set B that is closed under the normaliser of S
in O(3), it leaves the *distribution* of outputs equivariant (Xie and Smidt 2024,
arXiv:2402.02681).

B is the orbit of b under the normaliser N, and $|B| = |N| / |A|$ for the A that b is
invariant under, which meets S in the identity alone. So $|B| \ge |S|$, with equality (S
then moves any object to any other) exactly where S has a complement A in N. Of the
point groups all have one but those of one axis, $C_n$, $C_{nh}$ and $S_{2n}$ with
$n \ge 2$: their normalisers turn b about the axis by any angle, and B is one circle, or
two.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from common.geometry.cloud_symmetry import identify, symmetries
from common.geometry.normalisers import axes, conjugators
from common.geometry.point_groups import Matrices, equal, point_group
from common.nn.features import Features, rotate, take
from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import PSEUDOVECTOR, VECTOR, Irrep

IRREPS = (Irrep(0, -1), VECTOR, PSEUDOVECTOR, Irrep(2, 1))
"""Irreps of the objects, one channel each. Those of a group of rotations are even."""

_WIDTH = sum(irrep.dim for irrep in IRREPS)


class BreakingSet(NamedTuple):
    """A set of objects, all of one orbit.

    Attributes:
        objects: objects, `[num_objects, 2l + 1, 1]` for each of `IRREPS`.
        axis: unit vector about which they may turn by any angle; zero if by none.
        is_minimal: true if the group moves any object to any other.
    """

    objects: Features
    axis: Float[Array, " 3"]
    is_minimal: bool


@functools.cache
def breaking_set(name: str) -> BreakingSet:
    """Returns the set of a group in the frame of `point_group(name)`.

    >>> breaking_set("Td").objects[PSEUDOVECTOR].shape, breaking_set("Td").is_minimal
    ((24, 3, 1), True)
    >>> breaking_set("C3").axis.tolist()
    [0.0, 0.0, 1.0]

    Args:
        name: name of the group. Networks of SO(3), which see no reflections, take the
            group of the rotations alone, as D4 for D4h.
    """
    group = point_group(name)
    if len(axes(group)) < 2:
        return _of_one_axis(group)
    normaliser = conjugators(group, group)
    moves, of_group = _action(normaliser), _action(group[1:])
    generic = np.random.default_rng(0).normal(size=(64, _WIDTH))
    for kept in _subgroups(normaliser, group):
        invariant = _unit(generic @ np.mean(moves[kept], axis=0).T)
        moved = np.einsum("gij,bj->gbi", of_group, invariant)
        apart = np.linalg.norm(moved - invariant, axis=-1).min(axis=0)
        best = np.argmax(apart)
        if apart[best] > 0.1:
            objects = _distinct(moves @ invariant[best])
            is_minimal = len(objects) == len(group)
            return _make(objects, np.zeros(3), is_minimal)
    raise ValueError(f"{name}: no object of degree two or below breaks it")


def _of_one_axis(group: Matrices) -> BreakingSet:
    """Returns the set of C1, Ci, Cs, Cn, Cnh or Sn."""
    objects, axis = np.zeros((2, _WIDTH)), np.zeros(3)
    improper = bool((np.linalg.det(group) < 0.0).any())
    if improper and len(group) == 2:
        # A vector tells the sides of a mirror apart, a pseudoscalar left and right.
        objects[:, 3 if len(axes(group)) else 0] = 1.0, -1.0
    elif len(group) > 1:
        # An axial vector across the axis; where a reflection turns it, a polar one too.
        axis[2], objects[:, 4] = 1.0, (1.0, -1.0)
        objects[:, 1] = float(improper)
    count = 2 if improper else 1
    is_minimal = not axis.any()
    return _make(objects[:count], axis, is_minimal)


def breaking_set_of(
    positions: Float[np.ndarray, "num_points 3"],
    species: Int[np.ndarray, " num_points"] | None = None,
    tolerance: float = 1e-2,
) -> BreakingSet:
    """Returns the set of a cloud; it rotates, as a set, with the cloud.

    >>> square = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    >>> breaking_set_of(square).objects[VECTOR].shape
    (16, 3, 1)

    Args:
        positions: cloud in Å, not on one line.
        species: species of the points; one for all where None.
        tolerance: see `symmetries`.
    """
    name, rotation = identify(symmetries(positions, species, tolerance))
    found = breaking_set(name)
    rows = np.concatenate([found.objects[irrep][..., 0] for irrep in IRREPS], axis=-1)
    turned = _features(rows @ _action(rotation[None])[0].T)
    return found._replace(objects=turned, axis=jnp.asarray(rotation @ found.axis))


def draw(key: Key[Array, ""], found: BreakingSet) -> Features:
    """Draws an object uniformly from a set; `[2l + 1, 1]` for each of `IRREPS`.

    >>> draw(jax.random.key(0), breaking_set("D4h"))[VECTOR].shape
    (3, 1)
    """
    choice, turn = jax.random.split(key)
    index = jax.random.randint(choice, (), 0, len(found.objects[VECTOR]))
    angle = jax.random.uniform(turn, maxval=2.0 * jnp.pi)
    cross = -jnp.cross(jnp.eye(3), found.axis)  # Without an axis there is no turn.
    square = jnp.matmul(cross, cross, precision=jax.lax.Precision.HIGHEST)
    rotation = jnp.eye(3) + jnp.sin(angle) * cross + (1.0 - jnp.cos(angle)) * square
    return rotate(take(found.objects, index), rotation)


def _subgroups(normaliser: Matrices, group: Matrices) -> list[list[int]]:
    """Lists subgroups that meet a normal one in the identity, the largest first.

    They embed in the quotient, whose subgroups two elements generate.
    """
    count = len(normaliser)
    products = (normaliser[:, None] @ normaliser).reshape(-1, 3, 3)
    table = np.argmax(equal(products, normaliser), axis=1).reshape(count, count)
    inside = equal(normaliser, group).any(axis=1)
    one = int(np.argmax(equal(np.eye(3)[None], normaliser)))
    inversion = int(np.argmax(equal(-np.eye(3)[None], normaliser)))
    inside[one] = False
    found = {frozenset([one])}
    for g in range(count):
        for h in range(g, count):
            grown = {one, g, h}
            while not any(inside[k] for k in grown):
                more = {int(table[a, b]) for a in grown for b in (g, h)} | grown
                if more == grown:
                    found.add(frozenset(grown))
                    break
                grown = more
    # Inversion among them makes all objects even, which SO(3) needs.
    rank = lambda kept: (-len(kept), inversion not in kept, sorted(kept))
    return [sorted(kept) for kept in sorted(found, key=rank)]


def _action(operations: Matrices) -> Float[np.ndarray, "count width width"]:
    """Returns the matrices by which operations act on the irreps of `IRREPS`."""
    sign = np.linalg.det(operations).round()
    table = clebsch_gordan(1, 1, 2)
    second = np.einsum("abk,gac,cdl->gkbdl", table, operations, table)
    second = 5.0 * np.einsum("gkbdl,gbd->gkl", second, operations)
    found = np.zeros((len(operations), _WIDTH, _WIDTH))
    found[:, 0, 0] = sign
    found[:, 1:4, 1:4] = operations
    found[:, 4:7, 4:7] = sign[:, None, None] * operations
    found[:, 7:, 7:] = second
    return found


def _make(
    rows: Float[np.ndarray, "num_objects width"],
    axis: Float[np.ndarray, " 3"],
    is_minimal: bool,
) -> BreakingSet:
    # The cache outlives a function under trace that asks first.
    with jax.ensure_compile_time_eval():
        return BreakingSet(_features(rows), jnp.asarray(axis, jnp.float32), is_minimal)


def _features(rows: Float[np.ndarray, "num_objects width"]) -> Features:
    split = np.split(np.asarray(rows, np.float32), (1, 4, 7), axis=1)
    parts = zip(IRREPS, split, strict=True)
    return {irrep: jnp.asarray(part[..., None]) for irrep, part in parts}


def _unit(rows: Float[np.ndarray, "count width"]) -> Float[np.ndarray, "count width"]:
    """Scales each irrep to component normalisation; zero stays zero."""
    parts = np.split(rows, (1, 4, 7), axis=1)
    sizes = [np.sqrt(np.mean(part**2, axis=1, keepdims=True)) for part in parts]
    scaled = [np.where(s > 1e-6, p / np.maximum(s, 1e-6), 0.0)
              for p, s in zip(parts, sizes, strict=True)]  # fmt: skip
    return np.concatenate(scaled, axis=1)


def _distinct(rows: Float[np.ndarray, "count width"]) -> np.ndarray:
    """Returns objects without those that equal an earlier one."""
    same = np.linalg.norm(rows[:, None] - rows, axis=-1) < 0.05
    return rows[~np.tril(same, -1).any(axis=1)]
