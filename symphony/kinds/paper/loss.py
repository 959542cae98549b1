r"""The published objective: divergences from blurred targets, in nats.

For a fragment, $KL(P \| p_{focus, species, stop}) + KL(q \| p_{position})$, P the
shares of the candidate edges, $q(r_k, \hat r) = w_k q(\hat r)$ with $w_k \propto
\exp(-(r_k - |t|)^2 / 2 \sigma^2)$ and $q(\hat r) \propto \exp(\beta \delta_L(\hat r
\cdot \hat t))$ for a target t. All integrals are sums over the grid and the shells.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.conditions import Conditions
from common.so3.grid import SphereGrid
from common.so3.harmonics import spherical_harmonics
from symphony.arrays import Flag, Index, RandomKey, Scalar, Vector
from symphony.densities import coarse_logits, grid_logits
from symphony.kinds.paper.model import JointDensity, PaperSymphony
from symphony.orders import Cut


def target_log_density(
    direction: Vector, grid: SphereGrid, inverse_temperature: float
) -> Float[Array, " grid"]:
    r"""Returns $\log q(\hat r)$ at the points of a grid, per steradian.

    $\delta_L(\hat r \cdot \hat t) = \frac{1}{4 \pi} \sum_{l \le L} (2l + 1) P_l(\hat
    r \cdot \hat t)$; L is the degree of the grid's harmonics.

    Args:
        direction: unit vector to the target.
        grid: directions.
        inverse_temperature: $\beta$.
    """
    max_degree = math.isqrt(grid.harmonics.shape[1]) - 1
    at_target = spherical_harmonics(direction, max_degree)
    delta = jnp.asarray(grid.harmonics) @ at_target / (4.0 * math.pi)
    logits = inverse_temperature * delta
    return logits - jax.nn.logsumexp(logits + jnp.asarray(grid.log_weights))


def log_mass(
    density: JointDensity, grid: SphereGrid
) -> tuple[Float[Array, "num_shells grid"], Float[Array, " num_radii"]]:
    """Returns the logits on the grid, and each shell's unnormalised log-mass."""
    logits = grid_logits(density.signals, grid)
    masses = jax.nn.logsumexp(logits + jnp.asarray(grid.log_weights), axis=-1)
    return logits, density.radial + masses


def position_divergence(
    model: PaperSymphony, density: JointDensity, vector: Vector
) -> Scalar:
    """Returns the divergence of the density from the target at a vector (Å)."""
    radius = jnp.linalg.norm(vector)
    squared = jnp.square(jnp.asarray(model.radii) - radius)
    log_shell = jax.nn.log_softmax(-squared / (2.0 * model.radial_variance))
    shell = jnp.exp(log_shell)
    log_target = target_log_density(
        vector / radius, model.target_grid, model.target_inverse_temperature
    )
    target = jnp.exp(log_target + jnp.asarray(model.grid.log_weights))

    logits, masses = log_mass(density, model.grid)
    log_total = jax.nn.logsumexp(masses)
    cross = jnp.sum(shell * (density.radial + logits @ target)) - log_total
    return jnp.sum(shell * log_shell) + jnp.sum(target * log_target) - cross


def focus_divergence(
    logits: Float[Array, "num_nodes num_species"],
    labels: Float[Array, "num_nodes num_species"],
    is_last: Flag,
) -> Scalar:
    """Returns the divergence of focus, species and stop from their shares.

    Args:
        logits: logits of (focus, species); that of stopping is 0.
        labels: shares of the candidate edges; ignored at the last step.
        is_last: true where the molecule is complete and the label is to stop.
    """
    log_total = jnp.logaddexp(jax.nn.logsumexp(logits), 0.0)
    real = (labels > 0) & ~is_last
    safe = jnp.where(real, labels, 1.0)
    excess = jnp.where(real, safe * (jnp.log(safe) - logits), 0.0)
    return log_total + jnp.sum(excess)


def position_log_density(
    model: PaperSymphony, density: JointDensity, vector: Vector
) -> Scalar:
    """Returns the log-density of what is sampled at a vector from the focus, per Å³.

    A radius is uniform within half a step of its shell.
    """
    radius = jnp.linalg.norm(vector)
    step = (model.max_radius - model.min_radius) / (model.num_radii - 1)
    shell = jnp.round((radius - model.min_radius) / step).astype(jnp.int32)
    inside = (shell >= 0) & (shell < model.num_radii)
    shell = jnp.clip(shell, 0, model.num_radii - 1)
    _, masses = log_mass(density, model.grid)
    signals = density.signals[jnp.minimum(shell, density.signals.shape[0] - 1)]
    logit = density.radial[shell] + coarse_logits(signals, vector / radius)
    log_density = logit - jax.nn.logsumexp(masses) - jnp.log(step * radius**2)
    return jnp.where(inside, log_density, -jnp.inf)


class Divergences(NamedTuple):
    """Divergences of one step from its targets, in nats.

    Attributes:
        focus: divergence of focus, species and stop.
        position: divergence of the position; 0 at the last step.
    """

    focus: Scalar
    position: Scalar


def step_divergences(
    model: PaperSymphony, cut: Cut, step: Index, noise: Float[Array, "nodes 3"]
) -> Divergences:
    """Evaluates one step of a molecule, teacher-forced.

    Args:
        model: network bound to its parameters.
        cut: molecule in an order of generation.
        step: last atom that is placed: `0..step` are.
        noise: noise on the atoms of the fragment, in Å. The target stays relative to
            the focus without noise.
    """
    num_nodes = cut.species.shape[0]
    placed = (jnp.arange(num_nodes) <= step) & cut.node_mask
    is_last = step >= jnp.sum(cut.node_mask) - 1
    positions = cut.positions + noise
    pairs = model.pairs(positions, placed)
    logits = model.focus_species(cut.species, positions, placed, pairs)

    focus = cut.focus[step]
    target = jnp.minimum(step + 1, num_nodes - 1)
    vector = cut.positions[target] - cut.positions[focus]
    vector = jnp.where(is_last, jnp.array([0.0, model.max_radius, 0.0]), vector)
    feats = model.focus_feats(cut.species, pairs, focus)
    density = model.density(feats, cut.species[target])
    divergence = position_divergence(model, density, vector)
    return Divergences(
        focus=focus_divergence(logits, cut.labels[step], is_last),
        position=jnp.where(is_last, 0.0, divergence),
    )


def molecule_totals(
    model: PaperSymphony, cut: Cut, conditions: Conditions, key: RandomKey
) -> dict[str, Scalar]:
    """Evaluates one random step of a molecule, times the number of its steps.

    Over the mean number of steps, the mean over molecules is the published one over
    fragments, in which a molecule counts as often as it has steps. The divergences
    stand in the place of negative log-likelihoods; that of the first species, which
    the paper does not learn, is added once and shares no parameter with them.

    Args:
        model: network bound to its parameters.
        cut: molecule in an order of generation.
        conditions: not used; the noise on the fragment is always `model.noise_std`,
            in validation too.
        key: key of the step and the noise.
    """
    del conditions
    key_noise, key_step = jax.random.split(key)
    num_atoms = jnp.sum(cut.node_mask)
    step = jax.random.randint(key_step, (), 0, jnp.maximum(num_atoms, 1))
    noise = model.noise_std * jax.random.normal(key_noise, cut.positions.shape)
    terms = step_divergences(model, cut, step, noise)
    weight = num_atoms.astype(jnp.float32)
    focus, position = weight * terms.focus, weight * terms.position
    first = -jax.nn.log_softmax(model.first_species)[cut.species[0]]
    return {
        "focus": focus,
        "position": position,
        "nll": focus + position + first,
        "num_steps": weight,
    }
