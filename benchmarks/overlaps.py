"""Overlaps of Gaussian orbitals, and the head of blocks that reproduces them.

A task of `benchmarks.symmetry_tasks`.
"""

from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from common.nn.features import Features, from_scalars, harmonics
from common.nn.heads import make_head
from common.nn.radial import gaussian_basis
from common.so3.irreps import SCALAR, VECTOR, Irrep
from common.so3.vectors import safe_norm

TENSOR = Irrep(2, 1)

EXPONENTS = np.array([0.5, 0.9, 1.2])
"""Exponents of the Gaussians of H, C and O."""

FORMALDEHYDE = np.array(
    [[0.0, 0.0, 0.53], [0.0, 0.0, -0.68], [0.94, 0.0, 1.12], [-0.94, 0.0, 1.12]]
)
"""Å; C, O, H, H."""

SPECIES = np.array([1, 2, 0, 0])


def overlaps(
    positions: Float[np.ndarray, "num_atoms 3"],
    exponents: Float[np.ndarray, " num_atoms"],
) -> Float[np.ndarray, "num_atoms num_atoms 4 4"]:
    """Returns the overlaps of normalised s and p Gaussians, in closed form.

    A p function is the derivative of an s function by its centre.
    """
    a, b = exponents[:, None], exponents[None]
    mu = a * b / (a + b)
    r = positions[:, None] - positions[None]
    s = (2.0 * np.sqrt(a * b) / (a + b)) ** 1.5 * np.exp(-mu * np.sum(r * r, axis=-1))
    blocks = np.empty((*s.shape, 4, 4))
    blocks[..., 0, 0] = s
    blocks[..., 1:, 0] = (-2.0 * mu * s / np.sqrt(a))[..., None] * r
    blocks[..., 0, 1:] = (2.0 * mu * s / np.sqrt(b))[..., None] * r
    outer = 4.0 * mu[..., None, None] ** 2 * r[..., :, None] * r[..., None, :]
    both = 2.0 * mu[..., None, None] * np.eye(3) - outer
    blocks[..., 1:, 1:] = both * (s / np.sqrt(a * b))[..., None, None]
    return blocks


def exact_pairs(
    positions: Float[Array, "num_atoms 3"], exponents: Float[Array, " num_atoms"]
) -> Features:
    """Returns harmonics of the pairs times the radial functions of the overlaps."""
    a, b = exponents[:, None], exponents[None]
    mu, root = a * b / (a + b), jnp.sqrt(a * b)
    r = positions[:, None] - positions[None]
    distance = safe_norm(r)
    s = (2.0 * root / (a + b)) ** 1.5 * jnp.exp(-mu * distance**2)
    first = 2.0 * mu * distance * s
    second = 4.0 * (mu * distance) ** 2 * s / root
    rows = harmonics(r, 2)
    scale = lambda *parts: jnp.stack(parts, axis=-1)[..., None, :]
    return {
        SCALAR: rows[SCALAR] * scale(s, 2.0 * mu * s / root, second),
        VECTOR: rows[VECTOR] * scale(first / jnp.sqrt(a), first / jnp.sqrt(b)),
        TENSOR: rows[TENSOR] * scale(second),
    }


def basis_pairs(
    positions: Float[Array, "num_atoms 3"], exponents: Float[Array, " num_atoms"]
) -> Features:
    """Returns harmonics of the pairs times Gaussians of the distance."""
    r = positions[:, None] - positions[None]
    radial = gaussian_basis(safe_norm(r), 0.0, 6.0, 24)[..., None, :]
    return {irrep: rows * radial for irrep, rows in harmonics(r, 2).items()}


def fitted_head(
    pairs: Callable[..., Features], num_train: int, exponents: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a head fitted to overlaps of random clouds.

    It is linear in its weights: its derivatives by them are a design for least squares,
    and foresee the blocks. To be called, and used, in double precision.
    """
    head, mask = make_head("blocks", degrees=(0, 1)), jnp.ones(len(exponents), bool)
    nodes = from_scalars(jnp.ones((len(exponents), 1), jnp.float64))
    rng = np.random.default_rng(0)
    clouds = 1.3 * rng.normal(size=(num_train, len(exponents), 3))
    init = lambda key, x: head.init(key, nodes, pairs(x, jnp.asarray(exponents)), mask)
    shapes = jax.eval_shape(init, jax.random.key(0), clouds[0])
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float64), shapes)
    flat, unravel = jax.flatten_util.ravel_pytree(zeros)

    @jax.jit
    def columns(x: Float[Array, "num_atoms 3"]) -> Array:
        given = pairs(x, jnp.asarray(exponents))
        blocks = lambda flat: head.apply(unravel(flat), nodes, given, mask)
        return jax.jacfwd(blocks)(flat)

    design = np.concatenate(
        [np.asarray(columns(x)).reshape(-1, len(flat)) for x in clouds]
    )
    wanted = np.concatenate([overlaps(x, exponents).reshape(-1) for x in clouds])
    weights = np.linalg.lstsq(design, wanted, rcond=1e-12)[0]
    return lambda x: np.asarray(columns(x)) @ weights


def heads() -> dict[str, float]:
    """Reproduces overlaps of s and p Gaussians, and turns them."""
    with jax.enable_x64(True):
        exponents = EXPONENTS[SPECIES]
        exact = fitted_head(exact_pairs, 4, exponents)
        turn = Rotation.random(random_state=2).as_matrix()
        own = np.eye(4)
        own[1:, 1:] = turn
        found, turned = exact(FORMALDEHYDE), exact(FORMALDEHYDE @ turn.T)
        wanted = overlaps(FORMALDEHYDE, exponents)
        alike = np.full(4, 0.6)
        basis = fitted_head(basis_pairs, 40, alike)
        tested = 1.3 * np.random.default_rng(9).normal(size=(10, 4, 3))
        errors = [np.abs(basis(x) - overlaps(x, alike)).max() for x in tested]
    return {
        "formaldehyde, exact radial functions": float(np.abs(found - wanted).max()),
        "rotated: S - D S Dᵀ": float(np.abs(turned - own @ found @ own.T).max()),
        "unseen clouds, 24 Gaussians fitted": float(max(errors)),
    }
