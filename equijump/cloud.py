r"""Tensor clouds: the atoms of a residue as vectors, and how these add up to positions.

A cloud is an array `[num_nodes, num_slots, 3]` in Å. What the vectors are is a choice
of the config, `model.cloud`:

* `ca`: the position of CA in its slot, the vector from CA to each other atom;
* `parent`: the same, each vector from the atom before it, so that it is a bond;
* `chain`: bonds along the chain too. N has the vector from C of the residue before, CA
  that from N; only the first residue of a segment has a position, the segment's centre.

Networks err by a share of what a slot holds. With bonds in the slots the errors of bond
lengths are those of single vectors, whatever the place in a side chain. A ring is cut
where it closes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from common.so3.vectors import safe_norm
from equijump.data.residues import CA_SLOT, RESIDUES, num_slots_of

KINDS = ("ca", "parent", "chain")

N_SLOT, C_SLOT = 0, 2

NUM_CLOSURES = 2
"""Bonds that close the rings of one residue, at most; the tree leaves them out."""

Cloud = Float[Array, "num_nodes num_slots 3"]
PerResidue = Int[Array, " num_nodes"]
SlotMask = Bool[Array, "num_nodes num_slots"]


class Tree(NamedTuple):
    """Where the vector of each slot begins, and how vectors add up; see the head.

    Attributes:
        parents: slot of the residue where the vector of a slot begins.
        paths: vectors of a residue, in columns, that lead from its CA to each atom.
        linked: true for residues that hang on the one before.
        has_n: true for residues whose N has a slot of its own.
        same: share `1 / size` of each residue in the segment of another, else zero.
        closures: slots of the two atoms that each bond outside the tree holds together;
            both that of CA where there is none.
    """

    parents: Int[Array, "num_nodes num_slots"]
    paths: Float[Array, "num_nodes num_slots num_slots"]
    linked: Bool[Array, " num_nodes"]
    has_n: Bool[Array, " num_nodes"]
    same: Float[Array, "num_nodes num_nodes"]
    closures: Int[Array, "num_nodes num_closures 2"]


class _Tables(NamedTuple):
    """Trees of single residues, by token; 0 is padding."""

    parents: Int[np.ndarray, "num_tokens num_slots"]
    paths: Float[np.ndarray, "2 num_tokens num_slots num_slots"]
    has_n: Bool[np.ndarray, " num_tokens"]
    links_on: Bool[np.ndarray, " num_tokens"]
    links_back: Bool[np.ndarray, " num_tokens"]
    closures: Int[np.ndarray, "num_tokens num_closures 2"]


@functools.cache
def _tables(num_types: int) -> _Tables:
    """Returns the trees of the first types: breadth first from CA along the bonds."""
    num_slots = num_slots_of(num_types)
    parents = np.full((num_types + 1, num_slots), CA_SLOT)
    paths = np.zeros((2, num_types + 1, num_slots, num_slots), np.float32)
    has_n, links_on, links_back = np.zeros((3, num_types + 1), bool)
    closures = np.full((num_types + 1, NUM_CLOSURES, 2), CA_SLOT)
    for token, residue in enumerate(RESIDUES[:num_types], start=1):
        slots = {name: slot for slot, name in enumerate(residue.slots) if name}
        reached = [residue.slots[CA_SLOT]]
        for name in reached:
            bonds = [pair for pair in residue.bonds if name in pair]
            for other in (b if a == name else a for a, b in bonds):
                if other not in reached:
                    reached.append(other)
                    child, parent = slots[other], slots[name]
                    parents[token, child] = parent
                    paths[:, token, child] = paths[:, token, parent]
                    paths[:, token, child, child] = 1.0
        closing = [
            pair
            for pair in (tuple(slots[name] for name in bond) for bond in residue.bonds)
            if pair[0] != parents[token, pair[1]] and pair[1] != parents[token, pair[0]]
        ]
        closures[token, : len(closing)] = np.array(closing).reshape(-1, 2)
        has_n[token] = "N" in slots and slots["N"] == N_SLOT
        links_on[token], links_back[token] = "C" in slots, "N" in slots
        if has_n[token]:  # Linked: from CA back to N is against the vector of CA.
            by_n = paths[1, token, :, N_SLOT].copy()
            paths[1, token, :, N_SLOT] = 0.0
            paths[1, token, :, CA_SLOT] = -by_n
    links_on[0] = links_back[0] = False
    return _Tables(parents, paths, has_n, links_on, links_back, closures)


def tree_of(
    kind: str,
    num_types: int,
    tokens: PerResidue,
    chains: PerResidue,
    numbers: PerResidue,
) -> Tree | None:
    """Returns the tree of a molecule, None for vectors from CA.

    Args:
        kind: one of `KINDS`.
        num_types: residue types that the network knows.
        tokens: residue types, 0 for padding.
        chains: number of the chain of each residue.
        numbers: place in the chain.
    """
    if kind == "ca":
        return None
    tables = _Tables(*map(jnp.asarray, _tables(num_types)))
    before = lambda x: jnp.roll(x, 1)
    linked = tables.links_on[before(tokens)] & tables.links_back[tokens]
    linked &= (before(chains) == chains) & (before(numbers) + 1 == numbers)
    linked = linked.at[0].set(False) & (kind == "chain")
    segments = jnp.cumsum(~linked)
    same = (segments[:, None] == segments[None]) & (tokens > 0)[None]
    same = same / jnp.maximum(jnp.sum(same, axis=1, keepdims=True), 1)
    paths = jnp.where(
        linked[:, None, None], tables.paths[1, tokens], tables.paths[0, tokens]
    )
    return Tree(
        tables.parents[tokens], paths, linked, tables.has_n[tokens], same,
        tables.closures[tokens],
    )  # fmt: skip


def roots_of(slot_mask: SlotMask, tree: Tree | None) -> Bool[Array, " num_nodes"]:
    """Returns true for residues whose slot of CA holds a position."""
    real = slot_mask[:, CA_SLOT]
    return real if tree is None else real & ~tree.linked


def to_cloud(atoms: Cloud, slot_mask: SlotMask, tree: Tree | None = None) -> Cloud:
    """Turns positions in slots into a tensor cloud whose positions are centred.

    Args:
        atoms: positions in slots, in Å.
        slot_mask: true for atoms.
        tree: tree of the molecule; None for vectors from CA.
    """
    positions = atoms[:, CA_SLOT]
    if tree is None:
        vectors = atoms - positions[:, None]
    else:
        begins = jnp.take_along_axis(atoms, tree.parents[..., None], axis=1)
        vectors = atoms - begins
        last = jnp.roll(atoms[:, C_SLOT], 1, axis=0)
        from_last = atoms[:, N_SLOT] - last
        along = tree.linked & tree.has_n
        vectors = vectors.at[:, N_SLOT].set(
            jnp.where(along[:, None], from_last, vectors[:, N_SLOT])
        )
        step = positions - jnp.where(tree.has_n[:, None], atoms[:, N_SLOT], last)
        centre = tree.same @ positions
        positions = jnp.where(tree.linked[:, None], step, centre)
    vectors = jnp.where(slot_mask[..., None], vectors, 0.0)
    cloud = vectors.at[:, CA_SLOT].set(positions)
    if tree is not None:
        cloud = jnp.where(slot_mask[..., None], cloud, 0.0)
    return recentred(cloud, slot_mask, tree)


def from_cloud(cloud: Cloud, tree: Tree | None = None) -> Cloud:
    """Turns a tensor cloud into positions in slots; slots without an atom are void."""
    positions = positions_of(cloud, tree)
    offsets = cloud if tree is None else tree.paths @ cloud
    return (offsets + positions[:, None]).at[:, CA_SLOT].set(positions)


def positions_of(cloud: Cloud, tree: Tree | None = None) -> Float[Array, "num_nodes 3"]:
    """Returns the positions of CA, in Å."""
    if tree is None:
        return cloud[:, CA_SLOT]
    own, linked = cloud[:, CA_SLOT], tree.linked[:, None]
    to_n = jnp.where(tree.has_n[:, None], cloud[:, N_SLOT], 0.0)
    steps = jnp.where(linked, jnp.roll(cloud[:, C_SLOT], 1, axis=0) + to_n + own, 0.0)
    along = jnp.cumsum(steps, axis=0)
    centres = jnp.where(linked, 0.0, own)
    size = 1.0 / jnp.maximum(jnp.diagonal(tree.same)[:, None], 1e-6)
    return along + tree.same @ (size * centres - along)


def previous_of(cloud: Cloud, tree: Tree) -> Cloud:
    """Returns the vector that leads to the begin of each vector; zero where none does.

    Vectors that begin at CA follow that from N to CA.

    Args:
        cloud: tensor cloud, or what this function gave of it, for one bond more.
        tree: tree of the molecule.
    """
    linked, has_n = tree.linked[:, None], tree.has_n[:, None]
    last = jnp.roll(cloud[:, C_SLOT], 1, axis=0)
    from_root = jnp.where(has_n, -cloud[:, N_SLOT], 0.0)
    at_ca = jnp.where(linked, cloud[:, CA_SLOT], from_root)
    found = cloud.at[:, CA_SLOT].set(at_ca)
    found = jnp.take_along_axis(found, tree.parents[..., None], axis=1)
    before_n = jnp.where(linked & has_n, last, 0.0)
    before_ca = jnp.where(has_n, cloud[:, N_SLOT], last)
    found = found.at[:, CA_SLOT].set(jnp.where(linked, before_ca, 0.0))
    return found.at[:, N_SLOT].set(jnp.where(has_n, before_n, found[:, N_SLOT]))


SHORT = 0.1
"""Å: a vector that is shorter has little of a direction."""


def local_axes(cloud: Cloud, tree: Tree) -> Float[Array, "5 num_nodes num_slots 3"]:
    """Returns directions at each vector.

    Its own, that of the bond before, their cross product, and those of the bonds that
    close the rings of the residue.

    Args:
        cloud: tensor cloud, in Å.
        tree: tree of the molecule.
    """
    own = _directions(without_positions(cloud, tree))
    before = _directions(previous_of(cloud, tree))
    rings = jnp.swapaxes(_directions(closing(cloud, tree)), 0, 1)[:, :, None]
    rings = jnp.broadcast_to(rings, (len(rings), *own.shape))
    return jnp.concatenate([jnp.stack([own, before, jnp.cross(before, own)]), rings])


def closing(cloud: Cloud, tree: Tree) -> Float[Array, "num_nodes num_closures 3"]:
    """Returns the vectors of the bonds that are no part of the tree."""
    offsets = tree.paths @ cloud
    ends = jnp.take_along_axis(
        offsets, tree.closures.reshape(len(cloud), -1, 1), axis=1
    ).reshape(*tree.closures.shape, 3)
    return ends[:, :, 1] - ends[:, :, 0]


HARMONICS = 3
"""Cosines and sines of a torsion, and of twice and three times it."""


NUM_SHAPE, NUM_ALONG = 4 + 2 * HARMONICS + 2 * NUM_CLOSURES, 3
"""Features of `shape_of`, and of each other cloud in `along_axes`."""


def shape_of(cloud: Cloud, tree: Tree) -> Float[Array, "num_nodes num_slots num_shape"]:
    """Returns lengths, angles and torsions at each bond, and what closes rings.

    Args:
        cloud: tensor cloud, in Å.
        tree: tree of the molecule.
    """
    own, before, cross, *rings = local_axes(cloud, tree)
    last = _directions(previous_of(previous_of(cloud, tree), tree))
    feats = [safe_norm(without_positions(cloud, tree)), _dot(own, before)]
    feats += [_dot(own, last), _dot(before, last)]
    feats += _harmonics(_dot(cross, jnp.cross(before, last)), _dot(cross, last))
    lengths = safe_norm(closing(cloud, tree))[:, None]
    lengths = jnp.broadcast_to(lengths, (*own.shape[:2], NUM_CLOSURES))
    feats += [*jnp.moveaxis(lengths, -1, 0), *(_dot(own, ring) for ring in rings)]
    return jnp.stack(feats, axis=-1)


def along_axes(
    cloud: Cloud, tree: Tree, others: tuple[Cloud, ...]
) -> Float[Array, "num_nodes num_slots num_feats"]:
    """Returns the parts of other vectors along a bond, the bond before and their cross.

    Args:
        cloud: tensor cloud, in Å.
        tree: tree of the molecule.
        others: other vectors in the slots.
    """
    axes = local_axes(cloud, tree)[:NUM_ALONG]
    return jnp.stack([_dot(axis, other) for axis in axes for other in others], axis=-1)


def _dot(x: Cloud, y: Cloud) -> Float[Array, "num_nodes num_slots"]:
    return jnp.sum(x * y, axis=-1)


def _harmonics(
    x: Float[Array, "num_nodes num_slots"], y: Float[Array, "num_nodes num_slots"]
) -> list[Float[Array, "num_nodes num_slots"]]:
    """Returns cosines and sines of multiples of the angle of (x, y)."""
    scale = jax.lax.rsqrt(jnp.square(x) + jnp.square(y) + SHORT**2)
    cosine, sine = x * scale, y * scale
    feats = [cosine, sine]
    for _ in range(HARMONICS - 1):
        c, s = feats[-2:]
        feats += [c * cosine - s * sine, c * sine + s * cosine]
    return feats


def _directions(vectors: Cloud) -> Cloud:
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(square + SHORT**2)


def without_positions(cloud: Cloud, tree: Tree | None = None) -> Cloud:
    """Leaves out where the residues are, which only differences may tell."""
    if tree is None:
        return cloud.at[:, CA_SLOT].set(0.0)
    kept = jnp.where(tree.linked[:, None], cloud[:, CA_SLOT], 0.0)
    return cloud.at[:, CA_SLOT].set(kept)


def recentred(cloud: Cloud, slot_mask: SlotMask, tree: Tree | None = None) -> Cloud:
    """Moves the mean of the positions in a cloud to the origin."""
    real = roots_of(slot_mask, tree)[:, None]
    count = jnp.maximum(jnp.sum(real), 1)
    mean = jnp.sum(jnp.where(real, cloud[:, CA_SLOT], 0.0), axis=0) / count
    return cloud.at[:, CA_SLOT].add(jnp.where(real, -mean, 0.0))
