r"""Contacts of an estimate: what atoms of other residues come near, and where to.

Geometry along the bonds says nothing of atoms that are near in space alone. So each
atom $i$ has the energies and forces of pairs
$$ e^{rc}_i = \sum_j w^c_j\, \phi_r(d_{ij}), \qquad
   f^{rc}_i = -r \nabla_i \sum_j w^c_i w^c_j\, \phi_r(d_{ij}), \qquad
   \phi_r(d) = \frac{1}{1 + (d / r)^4}, $$
over the atoms $j$ of the residues that are its neighbours. The weights $w^c$ are learnt
for residue type, slot and noise. A force acts on every bond that carries its atom, so
what is told of a bond is the derivative by its vector.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equijump.cloud import NUM_ALONG, Cloud, Tree, along_axes, from_cloud
from equijump.scene import Scene

RADII = 2.0, 3.5, 6.0
"""Å: an overlap, a contact, the shell beyond it."""

NUM_KINDS = 2
"""Sets of weights."""

NUM_CONTACTS = len(RADII) * NUM_KINDS * (1 + NUM_ALONG)
"""Features of `contacts_of`."""

Weights = Float[Array, "num_nodes num_slots num_kinds"]


def contacts_of(
    cloud: Cloud, scene: Scene, tree: Tree, weights: Weights
) -> Float[Array, "num_nodes num_slots num_contacts"]:
    """Returns energies of each atom, and the derivatives by its bond along its axes.

    The cost is linear in residues: pairs are those of neighbours.

    Args:
        cloud: tensor cloud, in Å.
        scene: graph of the residues.
        tree: tree of the molecule.
        weights: weights of each atom in the sums.
    """
    weights = jnp.where(scene.slot_mask[..., None], weights, 0.0)
    energies, forces = _pairs(from_cloud(cloud, tree), scene, weights)
    _, on_bonds = jax.vjp(lambda vectors: from_cloud(vectors, tree), cloud)
    pulls = jax.vmap(lambda force: on_bonds(force)[0])(forces)
    return jnp.concatenate([energies, along_axes(cloud, tree, tuple(pulls))], axis=-1)


def _pairs(
    atoms: Cloud, scene: Scene, weights: Weights
) -> tuple[
    Float[Array, "num_nodes num_slots num_feats"],
    Float[Array, "num_feats num_nodes num_slots 3"],
]:
    """Returns the energies and forces of all atoms, of each radius and set of weights.

    Every sum over pairs is a matrix product: of a function of the distances, and what
    the other atoms are.
    """
    num_nodes, num_slots = atoms.shape[:2]
    flat = lambda x: x.reshape(num_nodes, -1, x.shape[-1])
    centres = atoms[:, :1]
    own = atoms - centres
    others = flat(atoms[scene.senders] - centres[:, None])
    known = weights[scene.senders] * scene.edge_mask[..., None, None]
    known = flat(known)
    squares = jnp.sum(jnp.square(own), -1)[..., None]
    squares += jnp.sum(jnp.square(others), -1)[:, None]
    squares = jnp.maximum(squares - 2.0 * own @ jnp.swapaxes(others, 1, 2), 0.0)
    moments = known[..., None] * others[:, :, None]
    columns = jnp.concatenate([known[..., None], moments], axis=-1)
    columns = columns.reshape(*columns.shape[:2], -1)
    energies, forces = [], []
    for radius in RADII:
        ratio = squares / radius**2
        near = 1.0 / (1.0 + jnp.square(ratio))
        energies.append(near @ known)
        slope = ratio * jnp.square(near) * (4.0 / radius)
        sums = (slope @ columns).reshape(num_nodes, num_slots, -1, 4)
        force = own[:, :, None] * sums[..., :1] - sums[..., 1:]
        forces.append(force * weights[..., None])
    stacked = jnp.moveaxis(jnp.concatenate(forces, axis=2), 2, 0)
    return jnp.concatenate(energies, axis=-1), stacked
