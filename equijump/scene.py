"""The graph of a jump: residues, and the neighbours of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from common.nn.conditions import Known
from common.so3.vectors import safe_norm
from equijump.cloud import PerResidue, SlotMask, Tree


class Scene(NamedTuple):
    """What stays the same during a jump.

    Attributes:
        tokens: residue types, 0 for padding.
        slot_mask: true for atoms.
        senders: neighbours of each residue.
        edge_mask: true for real neighbours.
        offsets: place of the neighbour in the chain less that of the residue, from 0
            for `-reach` on; the last value stands for another chain.
        chains: number of the chain of each residue.
        numbers: place of each residue in its chain.
        conditions: numbers of `common.nn.conditions`; the lag, in ps, is unknown where
            the source is hidden.
        tree: tree of the clouds; None for vectors from CA.
    """

    tokens: PerResidue
    slot_mask: SlotMask
    senders: Int[Array, "num_nodes num_neighbours"]
    edge_mask: Bool[Array, "num_nodes num_neighbours"]
    offsets: Int[Array, "num_nodes num_neighbours"]
    chains: Int[Array, " num_nodes"]
    numbers: Int[Array, " num_nodes"]
    conditions: dict[str, Known]
    tree: Tree | None = None


def make_scene(
    positions: Float[Array, "num_nodes 3"],
    tokens: PerResidue,
    slot_mask: SlotMask,
    chains: PerResidue,
    numbers: PerResidue,
    conditions: dict[str, Known],
    num_neighbours: int,
    reach: int,
    tree: Tree | None = None,
) -> Scene:
    """Finds the neighbours of each residue: the nearest, those along the chain first.

    Where the source is hidden, neighbours are those along the chain; the transport
    finds others from its estimate of the end.

    Args:
        positions: positions of CA in the source frame, in Å.
        tokens: residue types, 0 for padding.
        slot_mask: true for atoms.
        chains: number of the chain.
        numbers: place in the chain.
        conditions: numbers that the network is given, the lag among them.
        num_neighbours: largest number of neighbours; fewer if there are fewer residues.
        reach: places along the chain up to which a residue is always a neighbour.
        tree: tree of the clouds; None for vectors from CA.
    """
    count = min(num_neighbours, len(tokens) - 1)
    blank = jnp.zeros((len(tokens), count), jnp.int32)
    scene = Scene(
        tokens, slot_mask, blank, blank > 0, blank, chains, numbers, conditions, tree
    )
    # Without a source all positions count as one, and the chain decides.
    positions = jnp.where(conditions["lag"].mask, positions, 0.0)
    return find_neighbours(scene, positions, reach)


def find_neighbours(
    scene: Scene, positions: Float[Array, "*frames num_nodes 3"], reach: int
) -> Scene:
    """Returns a scene with other neighbours: those along the chain, then the nearest.

    Of equally near residues those nearer along the chain come first.

    Args:
        scene: scene, whose number of neighbours stays.
        positions: positions of CA, in Å; of several frames the least distance counts.
        reach: places along the chain up to which a residue is always a neighbour.
    """
    count = scene.senders.shape[1]
    real = scene.tokens > 0
    same = scene.chains[:, None] == scene.chains[None]
    along = scene.numbers[None] - scene.numbers[:, None]
    index = jnp.arange(len(real))
    between = jnp.abs(index[None] - index[:, None])
    ties = jnp.where(same, jnp.abs(along), len(real) + between)
    distances = safe_norm(positions[..., :, None, :] - positions[..., None, :, :])
    if positions.ndim == 3:
        distances = jnp.min(distances, axis=0)
    distances += 1e-4 * ties
    forced = same & (jnp.abs(along) <= reach)
    far = 1e6 * (~(real[:, None] & real[None]) | jnp.eye(len(real), dtype=bool))
    rank = jnp.where(forced, -1.0 / (1.0 + jnp.abs(along)), distances) + far
    # Sorting all of a row takes five times as long; of equal ranks the first count.
    senders = jax.lax.top_k(-rank, count)[1]
    gather = lambda table: jnp.take_along_axis(table, senders, axis=1)
    offsets = jnp.clip(gather(along), -reach, reach) + reach
    return scene._replace(
        senders=senders,
        edge_mask=gather(far) == 0.0,
        offsets=jnp.where(gather(same), offsets, 2 * reach + 1),
    )
