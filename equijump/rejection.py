r"""The geometry of a molecule against that of its start, and a gate that asks for it.

A frame is intact within `Limits` if no bond is stretched or compressed too far, no two
atoms more than three bonds apart are too close, and every chiral centre keeps the sign
of the triple product of its three bonds. The gate draws a jump until it ends intact,
and so changes the law of what it rejects: weights that leave basins by way of broken
frames leave them less often.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from equijump.data.residues import RESIDUES
from equijump.data.topology import System, nearby

BLOCK = 128
"""Atoms whose distances to all others are in memory at once."""

_REDRAW_STREAM = 1_000_000  # Beyond every key that a jump makes of its own.
_CENTRES = {
    "THR": ("CB", "CA", "OG1", "CG2"),
    "ILE": ("CB", "CA", "CG1", "CG2"),
    "TPO": ("CB", "CA", "OG1", "CG2"),
    "HYP": ("CG", "CB", "OD1", "CD"),
}
_ALPHA = ("CA", "N", "C", "CB")

Atoms = Float[Array, "num_atoms 3"]
Cloud = Float[Array, "num_nodes num_slots 3"]


class Limits(NamedTuple):
    """How far a frame may be from its start.

    Attributes:
        stretch: largest length of a bond over that in the start.
        squeeze: smallest length of a bond over that in the start.
        closest: least distance of atoms more than three bonds apart, in Å.
        keeps_chirality: true if the handedness of centres counts.
    """

    stretch: float
    squeeze: float
    closest: float
    keeps_chirality: bool


GATE = Limits(stretch=1.25, squeeze=0.75, closest=2.0, keeps_chirality=True)
"""What the gate asks for; in MD at 300 K bonds stay within 10 %."""

BROKEN = Limits(stretch=1.5, squeeze=0.0, closest=1.2, keeps_chirality=False)
"""Beyond these a molecule counts as broken, with a gate or without."""


class Graph(NamedTuple):
    """Which atoms the geometry is about.

    Attributes:
        bonds: pairs of atoms.
        is_far: true for pairs more than three bonds apart.
        centres: chiral atoms, and three that are bonded to each.
    """

    bonds: Int[Array, "num_bonds 2"]
    is_far: Bool[Array, "num_atoms num_atoms"]
    centres: Int[Array, "num_centres 4"]


class Sizes(NamedTuple):
    """Numbers of atoms, bonds and centres that arrays are padded to."""

    atoms: int
    bonds: int
    centres: int


class Reference(NamedTuple):
    """Geometry of a start.

    Attributes:
        lengths: lengths of the bonds, in Å.
        chirality: sign of the triple product at each centre.
    """

    lengths: Float[Array, " num_bonds"]
    chirality: Float[Array, " num_centres"]


def graph_of(system: System) -> Graph:
    """Returns bonds, distant pairs and centres of a system."""
    centres = []
    for token, row in zip(system.tokens, system.slot_atoms, strict=True):
        residue = RESIDUES[token - 1]
        atom_of = dict(zip(residue.slots, row.tolist(), strict=False))
        for names in (_ALPHA, _CENTRES.get(residue.name, ())):
            if names and atom_of.keys() >= set(names):
                centres.append([atom_of[name] for name in names])
    return Graph(
        bonds=jnp.asarray(system.bonds, jnp.int32),
        is_far=jnp.asarray(~nearby(system.bonds, len(system.kept))),
        centres=jnp.array(centres, jnp.int32).reshape(-1, 4),
    )


def sizes_of(graph: Graph) -> Sizes:
    """Returns the numbers of atoms, bonds and centres."""
    return Sizes(len(graph.is_far), len(graph.bonds), len(graph.centres))


def padded(graph: Graph, sizes: Sizes) -> Graph:
    """Returns a graph that asks the same of the first atoms, and nothing of others.

    The first bond and the first centre come again. Without a centre there is none to
    repeat, and `sizes.centres` must be 0.
    """
    extra = Sizes(*(new - old for new, old in zip(sizes, sizes_of(graph), strict=True)))
    repeated = lambda rows, count: jnp.pad(rows, ((count, 0), (0, 0)), mode="edge")
    return Graph(
        bonds=repeated(graph.bonds, extra.bonds),
        is_far=jnp.pad(graph.is_far, ((0, extra.atoms), (0, extra.atoms))),
        centres=repeated(graph.centres, extra.centres)
        if extra.centres
        else graph.centres,
    )


def reference_of(graph: Graph, atoms: Atoms) -> Reference:
    """Measures a start; positions in Å."""
    return Reference(_lengths(graph, atoms), jnp.sign(_volumes(graph, atoms)))


def is_intact(
    graph: Graph, reference: Reference, limits: Limits, atoms: Atoms
) -> Bool[Array, ""]:
    """Returns whether a frame is within the limits; one with NaN is not."""
    stretch = _lengths(graph, atoms) / reference.lengths
    intact = jnp.all((stretch <= limits.stretch) & (stretch >= limits.squeeze))
    intact &= _least_square(graph, atoms) >= limits.closest**2
    if limits.keeps_chirality:
        intact &= jnp.all(_volumes(graph, atoms) * reference.chirality > 0.0)
    return intact


def _least_square(graph: Graph, atoms: Atoms) -> Float[Array, ""]:
    """Returns the least squared distance of distant pairs, in blocks of atoms."""

    def least_square(row: tuple[Array, Array]) -> Float[Array, ""]:
        squares = jnp.sum(jnp.square(atoms - row[0]), axis=-1)
        return jnp.min(jnp.where(row[1], squares, jnp.inf))

    rows = (atoms, graph.is_far)
    if len(atoms) <= BLOCK:
        return jnp.min(jax.vmap(least_square)(rows))
    return jnp.min(jax.lax.map(least_square, rows, batch_size=BLOCK))


def _lengths(graph: Graph, atoms: Atoms) -> Float[Array, " num_bonds"]:
    return jnp.linalg.norm(atoms[graph.bonds[:, 0]] - atoms[graph.bonds[:, 1]], axis=-1)


def _volumes(graph: Graph, atoms: Atoms) -> Float[Array, " num_centres"]:
    centre, *bonded = (atoms[column] for column in graph.centres.T)
    a, b, c = (atom - centre for atom in bonded)
    return jnp.sum(a * jnp.cross(b, c), axis=-1)


class Attempt(NamedTuple):
    """What one draw of a jump came to.

    Attributes:
        cloud: end of the jump; its source, if it did not pass.
        accepted: true if it passed.
        is_last: true if the jump is not drawn again.
    """

    cloud: Cloud
    accepted: Bool[Array, ""]
    is_last: Bool[Array, ""]


def attempt(
    propose: Callable[[Key[Array, ""]], Cloud],
    passes: Callable[[Cloud], Bool[Array, ""]],
    source: Cloud,
    key: Key[Array, ""],
    number: Int[Array, ""],
    max_redraws: int,
) -> Attempt:
    """Draws a jump once; where no draw passes, the replica stays at the source.

    The first draw has the key itself, and is the one that would be without a gate. An
    end that is not finite passes: the rollout stops there and says so.

    Args:
        propose: function that draws the end of a jump.
        passes: test of an end.
        source: frame that the jump begins with.
        key: key of the jump.
        number: number of draws of this jump before.
        max_redraws: number of draws after the first.
    """
    fresh = jax.random.fold_in(key, _REDRAW_STREAM + number)
    cloud = propose(jnp.where(number == 0, key, fresh))
    accepted = passes(cloud) | ~jnp.isfinite(cloud).all()
    end = jnp.where(accepted, cloud, source)
    return Attempt(end, accepted, accepted | (number >= max_redraws))
