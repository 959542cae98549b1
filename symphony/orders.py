r"""Cuts molecules into generation orders, on the device.

A generation order visits the atoms of a molecule one by one. The law of the cut is
Symphony's nearest-neighbour mode (arXiv 2311.16199, section 3): with $V$ the atoms
placed so far, the candidate edges are the pairs $(a \in V, b \notin V)$ shorter than
the shortest of them plus a tolerance; one is drawn uniformly, $a$ is the focus, $b$
the next atom. Each call draws anew, so steps are i.i.d. over molecules and orders.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from symphony.arrays import (
    Flag,
    Index,
    NodeIndices,
    NodeMask,
    PairMask,
    Positions,
    RandomKey,
    Scalar,
    Species,
)


class Cut(NamedTuple):
    """A molecule in the order of its generation; step `t` sees the atoms `0..t`.

    Attributes:
        positions: positions in Å, in the order of placement.
        species: indices into the species table, in the order of placement.
        node_mask: true for real atoms, which come first.
        focus: placed atom from which atom `t + 1` is reached, at step `t`.
        labels: share, at step `t`, of the candidate edges that leave the placed
            atom `i` towards an atom of species `s`; rows of the last step are zero.
        log_law: log-probability, at step `t`, under the law of the cut that the
            next atom is atom `t + 1`, whatever its focus; nats. The entry of the last
            step is zero.
        log_first: log-probability that atom 0 is the first; nats.
        order: index of each placed atom in the molecule as it was given.
        complete: false if some atom has no placed atom within the cutoff in any
            order; the steps beyond it are then not to be used.
    """

    positions: Positions
    species: Species
    node_mask: NodeMask
    focus: NodeIndices
    labels: Float[Array, "num_nodes num_nodes num_species"]
    log_law: Float[Array, " num_nodes"]
    log_first: Scalar
    order: NodeIndices
    complete: Flag


MOST_GUMBEL = 35
"""Atoms up to which a variable of every edge and step decides, as at first."""


class CutNoise(NamedTuple):
    """Random numbers that decide a cut.

    Attributes:
        first: Gumbel variables of the first atom.
        edges: of each step, Gumbel variables of all edges, or one uniform number.
    """

    first: Float[Array, " num_nodes"]
    edges: Float[Array, "num_nodes ..."]


def draw_cut_noise(key: RandomKey, num_nodes: int) -> CutNoise:
    """Draws the numbers of one cut.

    Their number is cubic in the atoms up to `MOST_GUMBEL`, so that seeds of earlier
    versions keep their orders, and linear above.
    """
    key_first, key_edges = jax.random.split(key)
    first = jax.random.gumbel(key_first, (num_nodes,))
    if num_nodes > MOST_GUMBEL:
        return CutNoise(first, jax.random.uniform(key_edges, (num_nodes,)))
    shape = (num_nodes, num_nodes, num_nodes)
    return CutNoise(first, jax.random.gumbel(key_edges, shape))


class Law(NamedTuple):
    """The law of the cut.

    Attributes:
        is_heavy: true for species heavier than hydrogen.
        tolerance: largest excess of a candidate edge over the shortest, in Å.
        cutoff: length of the longest edge, in Å.
        heavy_first: true if all heavy atoms come before the first hydrogen.
    """

    is_heavy: Bool[Array, " num_species"]
    tolerance: float
    cutoff: float
    heavy_first: bool


def cut(
    noise: CutNoise,
    positions: Positions,
    species: Species,
    node_mask: NodeMask,
    law: Law,
) -> Cut:
    """Draws one generation order and its teacher-forcing targets.

    Args:
        noise: numbers that decide the cut; see `draw_cut_noise`.
        positions: positions of the atoms, in Å.
        species: indices into the species table.
        node_mask: true for real atoms; at least one.
        law: law of the cut.
    """
    num_nodes = positions.shape[0]
    linked = node_mask[:, None] & node_mask[None] & ~jnp.eye(num_nodes, dtype=bool)
    distances = jnp.linalg.norm(positions[:, None] - positions[None], axis=-1)
    distances = jnp.where(linked & (distances < law.cutoff), distances, jnp.inf)
    heavy = law.is_heavy[species] & node_mask
    one_hot = jax.nn.one_hot(species, law.is_heavy.shape[0])
    first_mask = node_mask
    if law.heavy_first:
        first_mask = jnp.where(jnp.any(heavy), heavy, node_mask)
    first = jnp.argmax(jnp.where(first_mask, noise.first, -jnp.inf))
    steps = jnp.arange(num_nodes)
    begin = _Placed(
        at=jnp.where(steps == first, 0, num_nodes),
        order=jnp.zeros(num_nodes, jnp.int32).at[0].set(first),
        complete=jnp.array(True),
    )
    place = partial(_place_next, _Molecule(distances, heavy, one_hot, node_mask), law)
    placed, chosen = jax.lax.scan(place, begin, (steps, noise.edges))
    return _in_order(placed, chosen, positions, species, first_mask, node_mask)


class _Molecule(NamedTuple):
    """A molecule as the law sees it: distances are infinite where no edge is."""

    distances: Float[Array, "num_nodes num_nodes"]
    heavy: NodeMask
    one_hot: Float[Array, "num_nodes num_species"]
    node_mask: NodeMask


class _Placed(NamedTuple):
    """Atoms placed so far.

    Attributes:
        at: step at which each atom was placed; `num_nodes` if it is not.
        order: index of each placed atom.
        complete: false once no atom could be reached.
    """

    at: NodeIndices
    order: NodeIndices
    complete: Flag


class _Chosen(NamedTuple):
    """One step of a cut; see `Cut`."""

    focus: Index
    labels: Float[Array, "num_nodes num_species"]
    log_law: Scalar


def _in_order(
    placed: _Placed,
    chosen: _Chosen,
    positions: Positions,
    species: Species,
    first_mask: NodeMask,
    node_mask: NodeMask,
) -> Cut:
    """Returns the cut with all atoms in the order of placement."""
    order, steps = placed.order, jnp.arange(len(species))
    in_order = steps < jnp.sum(node_mask)
    labels = jnp.take_along_axis(chosen.labels, order[None, :, None], axis=1)
    labels = labels * (steps[None] <= steps[:, None])[..., None]
    return Cut(
        positions=jnp.where(in_order[:, None], positions[order], 0.0),
        species=jnp.where(in_order, species[order], 0),
        node_mask=in_order,
        focus=chosen.focus,
        labels=labels,
        log_law=chosen.log_law,
        log_first=-jnp.log(jnp.sum(first_mask)),
        order=order,
        complete=placed.complete,
    )


def _candidates(molecule: _Molecule, law: Law, placed: NodeMask) -> PairMask:
    """Marks the edges from placed atoms (rows) that may be drawn; none if none is."""
    edges = jnp.where(placed[:, None] & ~placed[None], molecule.distances, jnp.inf)
    if law.heavy_first:
        both = molecule.heavy[:, None] & molecule.heavy[None]
        heavy_edges = jnp.where(both, edges, jnp.inf)
        heavy_left = jnp.any(jnp.isfinite(heavy_edges))
        edges = jnp.where(heavy_left, heavy_edges, edges)
    shortest = jnp.min(edges)
    return jnp.isfinite(shortest) & (edges < shortest + law.tolerance)


def _draw_edge(candidates: PairMask, count: Index, noise: Float[Array, "..."]) -> Index:
    """Draws one of the candidates uniformly; returns its place among all pairs."""
    if noise.ndim:
        return jnp.argmax(jnp.where(candidates, noise, -jnp.inf))
    rank = jnp.minimum((noise * count).astype(jnp.int32), count - 1)
    return jnp.argmax(jnp.cumsum(candidates.reshape(-1)) > rank)


def _place_next(
    molecule: _Molecule,
    law: Law,
    placed: _Placed,
    inputs: tuple[Index, Float[Array, "..."]],
) -> tuple[_Placed, _Chosen]:
    """Draws one edge and places the atom at its end; the step of a scan."""
    step, noise = inputs
    num_nodes = len(molecule.node_mask)
    candidates = _candidates(molecule, law, placed.at < num_nodes)
    any_edge, count = jnp.any(candidates), jnp.maximum(jnp.sum(candidates), 1)
    drawn = _draw_edge(candidates, count, noise)
    focus, target = drawn // num_nodes, drawn % num_nodes
    share = jnp.sum(candidates[:, target]) / count
    chosen = _Chosen(
        focus=jnp.where(any_edge, placed.at[focus], 0),
        labels=(candidates @ molecule.one_hot) / count,
        log_law=jnp.where(any_edge, jnp.log(share), 0.0),
    )
    now = (jnp.arange(num_nodes) == target) & any_edge
    unplaced = jnp.sum(molecule.node_mask) > step + 1
    after = _Placed(
        at=jnp.where(now, step + 1, placed.at),
        order=placed.order.at[step + 1].set(
            jnp.where(any_edge, target, 0), mode="drop"
        ),
        complete=placed.complete & (any_edge | ~unplaced),
    )
    return after, chosen
