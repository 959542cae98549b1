r"""Losses of an energy model: energies, forces, curvature, and denoising with forces.

Energies are compared for each atom, forces by the length of their difference (Koker et
al. 2025, arXiv:2508.16067), columns of the Hessian by absolute values (PFT, Koker et
al. 2026, arXiv:2601.07742), and displacements of noised atoms, whose forces before are
told, by squares (DeNS, Liao et al. 2024, arXiv:2403.09549).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from common.nn.energy import EnergyFn, Structure, hessian_vector
from common.so3.vectors import safe_norm

Vectors = Float[Array, "num_nodes 3"]
NodeMask = Bool[Array, " num_nodes"]
Scalar = Float[Array, ""]


def energy_error(found: Scalar, wanted: Scalar, node_mask: NodeMask) -> Scalar:
    """Returns the absolute error of an energy for each atom, in eV.

    >>> float(energy_error(jnp.float32(3.0), jnp.float32(1.0), jnp.ones(4, bool)))
    0.5
    """
    return jnp.abs(found - wanted) / jnp.maximum(jnp.sum(node_mask), 1)


def force_error(found: Vectors, wanted: Vectors, node_mask: NodeMask) -> Scalar:
    """Returns the mean length of the difference of forces, in eV/Å.

    >>> found, wanted = jnp.array([[3.0, 4.0, 0.0]]), jnp.zeros((1, 3))
    >>> float(force_error(found, wanted, jnp.ones(1, bool)))
    5.0
    """
    return _mean(safe_norm(found - wanted), node_mask)


def component_error(found: Vectors, wanted: Vectors, node_mask: NodeMask) -> Scalar:
    """Returns the mean absolute difference of components, as tables state it.

    >>> found, wanted = jnp.array([[3.0, 4.0, 0.0]]), jnp.zeros((1, 3))
    >>> round(float(component_error(found, wanted, jnp.ones(1, bool))), 3)
    2.333
    """
    return _mean(jnp.mean(jnp.abs(found - wanted), axis=-1), node_mask)


def curvature_error(
    energy_fn: EnergyFn,
    structure: Structure,
    coordinate: Int[Array, ""],
    wanted: Vectors,
) -> Scalar:
    r"""Returns the mean absolute error of a column of the Hessian, in eV/Å².

    Over random columns it is an unbiased estimate of the error of the whole matrix.

    >>> from common.nn.energy import make_structure
    >>> lone = make_structure(jnp.ones((1, 3)), jnp.zeros(1, int), 2.0)
    >>> well = lambda s: jnp.sum(s.positions**2)
    >>> float(curvature_error(well, lone, jnp.array(1), jnp.array([[0.0, 5.0, 0.0]])))
    1.0

    Args:
        energy_fn: energy of a structure.
        structure: the structure.
        coordinate: column of the Hessian: three times the atom, plus 0, 1 or 2.
        wanted: the column, zero where there is no atom.
    """
    shape = structure.positions.shape
    direction = jax.nn.one_hot(coordinate, shape[0] * 3).reshape(shape)
    found = hessian_vector(energy_fn, structure, direction)
    return component_error(found, wanted, structure.node_mask)


def corrupt(
    key: Key[Array, ""],
    structure: Structure,
    forces: Vectors,
    std: float,
    share: float,
) -> tuple[Structure, Vectors, Vectors, NodeMask]:
    """Moves some atoms at random; neighbours stay as they are.

    >>> from common.nn.energy import make_structure
    >>> lone = make_structure(jnp.zeros((1, 3)), jnp.zeros(1, int), 2.0)
    >>> moved, told, noise, mask = corrupt(
    ...     jax.random.key(0), lone, jnp.ones((1, 3)), std=0.1, share=1.0
    ... )
    >>> bool(jnp.allclose(moved.positions, 0.1 * noise)), told[0, 0].item()
    (True, 1.0)

    Args:
        key: JAX key.
        structure: atoms where they are.
        forces: forces on them.
        std: standard deviation of a component of a displacement, in Å.
        share: probability that an atom is moved.

    Returns:
        The structure with moved atoms; their forces before, zero for the others;
        displacements in units of `std`; and which atoms were moved.
    """
    key_mask, key_noise = jax.random.split(key)
    chosen = jax.random.bernoulli(key_mask, share, structure.node_mask.shape)
    chosen &= structure.node_mask
    noise = jax.random.normal(key_noise, forces.shape)
    moved = structure.positions + std * jnp.where(chosen[:, None], noise, 0.0)
    told = jnp.where(chosen[:, None], forces, 0.0)
    return structure._replace(positions=moved), told, noise, chosen


def noise_error(found: Vectors, noise: Vectors, chosen: NodeMask) -> Scalar:
    """Returns the mean squared error of the displacements of moved atoms.

    One is what an ignorant network reaches.

    >>> noise = jnp.array([[1.0, 0.0, 0.0]])
    >>> round(float(noise_error(jnp.zeros((1, 3)), noise, jnp.ones(1, bool))), 3)
    0.333
    """
    return _mean(jnp.mean(jnp.square(found - noise), axis=-1), chosen)


def _mean(values: Float[Array, " num_nodes"], mask: NodeMask) -> Scalar:
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
