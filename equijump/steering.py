r"""Steering of a jump away from overlaps: atoms that are near in space, not in bonds.

The network tells residues little of each other's side chains, so that ends of jumps
overlap, the more the longer the chain, and the gate refuses them. What is wanted is the
law of ends without overlaps. Its expectation $D'$ follows from the network's $D$ and
the covariance $S$ of the end (Boys et al., Tweedie moment projected diffusions,
arXiv:2310.06721), for the distances $d(x)$ of pairs that ought to be $d_0$:
$$ D' = D + S J^T (J S J^T + R)^{-1} (d_0 - d(D)), \qquad J = \partial d / \partial x.
$$
Here $S$ is diagonal, the spread that the noise leaves to each bond across its
direction, so that a chain gives way where its torsions are still open; and the inverse
is one number for all pairs that overlap, so this is done `TIMES` times, each from the
end that the one before gave. The network, asked again, mends angles.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from common.so3.vectors import unit_vectors
from equijump.cloud import Cloud
from equijump.data.topology import System

RADII = {"C": 1.5, "N": 1.33, "O": 1.24, "S": 1.55, "P": 1.55}
"""Å: atoms more than three bonds apart are seldom nearer than the sum of two; in
simulations of peptides (ff14SB, OBC2, 300 K) in one pair of 10,000 to 100,000."""

TOLERANCE = 0.05
"""Å²: $R$, the variance with which distances are asked for."""

TIMES = 3
"""With one, the gate lets half of the draws of 20 residues pass; with three nearly
all."""

MAX_REPULSION = 1.5
"""Largest share of these distances that may be asked for."""

Contacts = Float[Array, "num_atoms num_atoms"]


def contacts_of(
    system: System, is_far: Bool[np.ndarray, "num_atoms num_atoms"]
) -> Float32[np.ndarray, "num_atoms num_atoms"]:
    """Returns the least distance of each pair of atoms in Å, zero for near bonds.

    Args:
        system: molecule.
        is_far: true for pairs more than three bonds apart.
    """
    radii = np.float32([RADII.get(name[0], 0.0) for name in system.atom_names])
    known = (radii > 0.0)[:, None] & (radii > 0.0)
    return np.where(is_far & known, radii[:, None] + radii, np.float32(0.0))


def apart(
    end: Cloud,
    std: Float[Array, "*num_nodes num_slots 1"],
    bonds: Float[Array, "num_nodes num_slots 1"] | None,
    contacts: Contacts,
    atoms_of: Callable[[Cloud], Float[Array, "num_atoms 3"]],
) -> Cloud:
    """Returns the end of a jump as expected where no atoms overlap.

    Args:
        end: end of the jump as the network expects it, in Å.
        std: deviation from it in Å, across bonds.
        bonds: length of the bond that a slot holds, zero for another vector; None
            where no slot holds a bond.
        contacts: least distance of each pair, in Å; zero for pairs that may be close.
        atoms_of: function that gives the positions of a cloud's atoms, linear.
    """
    for _ in range(TIMES):
        atoms, on_vectors = jax.vjp(atoms_of, end)
        force, square = _overlaps(atoms, contacts)
        pull = on_vectors(force)[0]
        if bonds is not None:
            unit = unit_vectors(end)
            along = jnp.sum(pull * unit, axis=-1, keepdims=True) * unit
            pull = jnp.where(bonds > 0.0, pull - along, pull)
        move = jnp.square(std) * pull
        # J S J^T as one number, that of the overlaps' own direction.
        variance = jnp.sum(force * atoms_of(move)) / jnp.maximum(square, 1e-6)
        end += move / (jnp.maximum(variance, 0.0) + TOLERANCE)
    return end


def _overlaps(
    atoms: Float[Array, "num_atoms 3"], contacts: Contacts
) -> tuple[Float[Array, "num_atoms 3"], Float[Array, ""]]:
    """Returns the sum of each atom's overlaps, away from the others; their square.

    Pairs are seen by products of matrices alone: arrays of their vectors would take ten
    times the time of the network for 80 residues.
    """
    atoms = atoms - jnp.mean(atoms, axis=0)
    square = jnp.sum(jnp.square(atoms), axis=1)
    product = jnp.matmul(atoms, atoms.T, precision="highest")
    distances = jnp.sqrt(jnp.maximum(square[:, None] + square - 2.0 * product, 0.01))
    depth = jnp.maximum(contacts - distances, 0.0)
    weights = depth / distances
    force = jnp.sum(weights, axis=1, keepdims=True) * atoms
    force -= jnp.matmul(weights, atoms, precision="highest")
    return force, 0.5 * jnp.sum(jnp.square(depth))
