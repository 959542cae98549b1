r"""Densities of the next atom: radius, coarse direction, fine direction.

Each has a log-density and a sampler, exact but for the coarse direction's, a Metropolis
chain over independent proposals. Directions are unit vectors, densities on the sphere
are per steradian, radii are in Å.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from common.so3.grid import SphereGrid, jitter_in_cell
from common.so3.harmonics import spherical_harmonics
from common.so3.vectors import safe_norm
from symphony.arrays import BatchScalars, Directions, RandomKey, Scalar, Signals, Vector


class RadialMixture(NamedTuple):
    """Mixture of logistic densities, each truncated to the same interval.

    Attributes:
        logits: unnormalised log-weights of the components.
        means: means of the components, in Å.
        scales: logistic scales in Å; a standard deviation is 1.81 of it.
    """

    logits: Float[Array, "*batch components"]
    means: Float[Array, "*batch components"]
    scales: Float[Array, "*batch components"]


class FineMixture(NamedTuple):
    r"""Mixture of Gaussians on a tangent plane of the sphere of directions.

    The precision of a component is $(I + v v^\top) / \sigma^2$: narrower along $v$ by
    $\sqrt{1 + |v|^2}$. One bond fixes the angle to it and leaves a circle of directions
    free: there a component is narrow across the circle, along $v$, and wide along it.

    Attributes:
        logits: unnormalised log-weights of the components.
        means: tangent vectors, in radians.
        scales: standard deviation $\sigma$ across $v$, in radians.
        squeezes: tangent vectors $v$, without unit.
        centre: unit vector at which the plane touches the sphere: the coarse direction,
            or where the network took it.
    """

    logits: Float[Array, "*batch components"]
    means: Float[Array, "*batch components 3"]
    scales: Float[Array, "*batch components"]
    squeezes: Float[Array, "*batch components 3"]
    centre: Directions


def polar(
    vectors: Directions, low: float, high: float
) -> tuple[BatchScalars, Directions]:
    """Returns radius (Å, moved into the open interval) and direction of vectors.

    A zero vector, which only masked steps have, gets a direction all the same.
    """
    length = safe_norm(vectors)
    is_zero = (length == 0.0)[..., None]
    any_unit = jnp.array([1.0, 0.0, 0.0])
    safe_length = jnp.where(is_zero, 1.0, length[..., None])
    directions = jnp.where(is_zero, any_unit, vectors / safe_length)
    margin = 1e-4
    return jnp.clip(length, low + margin, high - margin), directions


def radial_log_density(
    mixture: RadialMixture, radius: BatchScalars, low: float, high: float
) -> BatchScalars:
    """Returns the log-density of radii, per Å, on the interval `[low, high]`."""
    z = (radius[..., None] - mixture.means) / mixture.scales
    log_density = -z - jnp.log(mixture.scales) - 2.0 * jax.nn.softplus(-z)
    log_density -= _log_mass(mixture, low, high)
    log_weights = jax.nn.log_softmax(mixture.logits)
    return jax.nn.logsumexp(log_weights + log_density, axis=-1)


def sample_radius(
    key: RandomKey,
    mixture: RadialMixture,
    low: float,
    high: float,
    basin_temperature: Scalar | float = 1.0,
) -> Scalar:
    """Draws a radius in Å by exact inversion of a component's distribution function.

    The component is always drawn with its weight at temperature one; the basin
    temperature then narrows the component, its scale times the root; below one, a mean
    outside the interval counts as its nearest end.
    """
    key_component, key_radius = jax.random.split(key)
    chosen = jax.random.categorical(key_component, mixture.logits)
    mean = mixture.means[chosen]
    scale = mixture.scales[chosen] * jnp.sqrt(basin_temperature)
    # A narrowed component outside would have no mass inside: its end stands for it.
    narrowed = jnp.clip(mean, low, high)
    mean = jnp.where(jnp.asarray(basin_temperature) < 1.0, narrowed, mean)
    # The interval as seen from the mean, turned so that most of it lies below zero:
    # there the distribution function has all its digits.
    sign = jnp.where(mean < 0.5 * (low + high), -1.0, 1.0)
    ends = [sign * (end - mean) / scale for end in (low, high)]
    below, above = (jax.nn.sigmoid(z) for z in (jnp.minimum(*ends), jnp.maximum(*ends)))
    u = jax.random.uniform(key_radius, (), minval=1e-6, maxval=1.0 - 1e-6)
    u = below + u * (above - below)
    radius = mean + sign * scale * (jnp.log(u) - jnp.log1p(-u))
    return jnp.clip(radius, low, high)


def _log_mass(
    mixture: RadialMixture, low: float, high: float
) -> Float[Array, "*batch components"]:
    """Returns the log-mass of each untruncated component inside the interval."""
    a, b = (
        (low - mixture.means) / mixture.scales,
        (high - mixture.means) / mixture.scales,
    )
    return jax.nn.log_sigmoid(b) + jax.nn.log_sigmoid(-a) + jnp.log(-jnp.expm1(a - b))


def cap_curvature(coefficients: Signals, max_curvature: float) -> Signals:
    r"""Shrinks signals softly so that no logit bends more than `max_curvature`.

    On the sphere, $|\partial^2 f| \le \kappa = \sum_l |a_l| \sqrt{2l + 1}\, l(l+1)/2$,
    with equality at the peak of a zonal signal. Each channel is divided by
    $\sqrt{1 + (\kappa / \kappa_{max})^2}$, so that a grid of known size normalises it
    in every orientation.
    """
    max_degree = math.isqrt(coefficients.shape[-2]) - 1
    curvature = 0.0
    for l in range(1, max_degree + 1):
        block = coefficients[..., l * l : (l + 1) ** 2, :]
        power = jnp.sum(jnp.square(block), axis=-2)
        # The root has no gradient at zero, where a lone atom has all its signals.
        norm = jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1.0)), 0.0)
        curvature += norm * (math.sqrt(2 * l + 1) * l * (l + 1) / 2)
    shrink = jax.lax.rsqrt(1.0 + jnp.square(curvature / max_curvature))
    return coefficients * shrink[..., None, :]


def coarse_logits(coefficients: Signals, directions: Directions) -> BatchScalars:
    r"""Returns $\log \sum_c \exp f_c(\hat r)$, the paper's sum of channels."""
    max_degree = math.isqrt(coefficients.shape[-2]) - 1
    harmonics = spherical_harmonics(directions, max_degree)
    signals = jnp.einsum("...mc,...m->...c", coefficients, harmonics)
    return jax.nn.logsumexp(signals, axis=-1)


def grid_logits(coefficients: Signals, grid: SphereGrid) -> Float[Array, "*batch grid"]:
    """Returns `coarse_logits` at every point of a grid."""
    signals = jnp.einsum("...mc,gm->...cg", coefficients, jnp.asarray(grid.harmonics))
    return jax.nn.logsumexp(signals, axis=-2)


def log_normaliser(coefficients: Signals, grid: SphereGrid) -> BatchScalars:
    """Returns the log-integral over the sphere of the exponential of the logits."""
    logits = grid_logits(coefficients, grid) + jnp.asarray(grid.log_weights)
    return jax.nn.logsumexp(logits, axis=-1)


def log_integral(coefficients: Signals, grid: SphereGrid) -> BatchScalars:
    """Returns `log_normaliser` in one pass over channels and points.

    It is faster where nothing else needs the logits at the points.
    """
    signals = jnp.einsum("...mc,gm->...cg", coefficients, jnp.asarray(grid.harmonics))
    return jax.nn.logsumexp(signals + jnp.asarray(grid.log_weights), axis=(-2, -1))


def _draw_cells(
    key: RandomKey, log_masses: Float[Array, " grid"], count: int
) -> Int[Array, " count"]:
    # One cumulative sum serves all draws; a Gumbel draw would cost one grid each.
    mass_below = jnp.cumsum(jnp.exp(log_masses - jnp.max(log_masses)))
    drawn = mass_below[-1] * jax.random.uniform(key, (count,))
    cells = jnp.sum(mass_below <= drawn[:, None], axis=-1)
    return jnp.minimum(cells, mass_below.shape[0] - 1)


_State = tuple[Vector, Scalar]
"""State of a Metropolis chain: a direction and its logit."""


def _accept(
    carry: _State, proposed: tuple[Vector, Scalar, Scalar]
) -> tuple[_State, None]:
    """Takes a Metropolis step to a proposal with its logit and a log-threshold."""
    direction, current = carry
    proposal, logit, threshold = proposed
    accept = threshold < logit - current
    direction = jnp.where(accept, proposal, direction)
    return (direction, jnp.where(accept, logit, current)), None


def sample_coarse(
    key: RandomKey,
    coefficients: Signals,
    grid: SphereGrid,
    temperature: Scalar | float = 1.0,
    num_proposals: int = 16,
) -> Vector:
    """Draws a direction from the density to the power of the inverse temperature.

    Proposals are a grid cell by its tempered mass, then a uniform point of the cell.
    A Metropolis chain over independent proposals corrects for the variation of the
    density inside the cells. Cells are never proposed at less than a temperature of
    1/2, below which peaks would be narrower than they are: there, take more proposals.
    """
    key_cell, key_jitter, key_accept = jax.random.split(key, 3)
    at_points = grid_logits(coefficients, grid) / jnp.maximum(temperature, 0.5)
    log_masses = at_points + jnp.asarray(grid.log_weights)
    cells = _draw_cells(key_cell, log_masses, num_proposals)
    proposals = jitter_in_cell(key_jitter, grid, cells)
    logits = jax.vmap(coarse_logits, (None, 0))(coefficients, proposals)
    log_ratios = logits / temperature - at_points[cells]
    thresholds = jnp.log(jax.random.uniform(key_accept, (num_proposals,)))

    chain = (proposals[1:], log_ratios[1:], thresholds[1:])
    (direction, _), _ = jax.lax.scan(_accept, (proposals[0], log_ratios[0]), chain)
    return direction


def settle_coarse(
    key: RandomKey,
    coefficients: Signals,
    direction: Vector,
    temperature: Scalar | float,
    num_steps: int,
    step_size: Scalar | float,
) -> Vector:
    """Moves a direction inside its basin, towards the density at a low temperature.

    A Metropolis chain of small steps from a draw at temperature one: it keeps the
    weights of well-separated modes and narrows each of them.

    Args:
        key: key of the chain.
        coefficients: signals of the channels.
        direction: start of the chain.
        temperature: low temperature.
        num_steps: length of the chain.
        step_size: standard deviation of a step per axis, in radians.
    """
    key_moves, key_accept = jax.random.split(key)
    moves = step_size * jax.random.normal(key_moves, (num_steps, 3))
    thresholds = jnp.log(jax.random.uniform(key_accept, (num_steps,)))

    def step(carry: _State, inputs: tuple[Vector, Scalar]) -> tuple[_State, None]:
        direction, _ = carry
        move, threshold = inputs
        proposal = exponential_map(direction, tangent_part(direction, move))
        logit = coarse_logits(coefficients, proposal) / temperature
        return _accept(carry, (proposal, logit, threshold))

    start = (direction, coarse_logits(coefficients, direction) / temperature)
    (direction, _), _ = jax.lax.scan(step, start, (moves, thresholds))
    return direction


def tangent_part(
    direction: Float[Array, "*#batch 3"], vector: Float[Array, "*#batch 3"]
) -> Float[Array, "*#batch 3"]:
    """Removes from a vector its component along a unit vector; shapes broadcast."""
    along = jnp.sum(direction * vector, axis=-1, keepdims=True)
    return vector - along * direction


def exponential_map(direction: Directions, tangent: Directions) -> Directions:
    """Walks from a unit vector along a tangent vector, by its length in radians."""
    squared = jnp.sum(jnp.square(tangent), axis=-1, keepdims=True)
    angle = jnp.sqrt(jnp.maximum(squared, 1e-20))
    end = jnp.cos(angle) * direction + jnp.sin(angle) / angle * tangent
    return end / jnp.linalg.norm(end, axis=-1, keepdims=True)


def logarithmic_map(direction: Directions, end: Directions) -> Directions:
    """Returns the tangent vector at a unit vector that leads to another, in radians."""
    tangent = tangent_part(direction, end)
    sine = jnp.sqrt(jnp.maximum(jnp.sum(tangent**2, axis=-1, keepdims=True), 1e-20))
    cosine = jnp.sum(direction * end, axis=-1, keepdims=True)
    return tangent * (jnp.arctan2(sine, cosine) / sine)


def _log_jacobian(tangent: Directions) -> BatchScalars:
    r"""Returns $\log(\theta / \sin\theta)$: from tangent plane to solid angle."""
    squared = jnp.minimum(jnp.sum(jnp.square(tangent), axis=-1), 9.8)
    angle = jnp.sqrt(jnp.maximum(squared, 1e-12))
    return jnp.log(angle / jnp.sin(angle))


def fine_log_density(mixture: FineMixture, direction: Directions) -> BatchScalars:
    """Returns the log-density of directions in the fine stage, per steradian.

    The mass beyond half a turn, below 1e-9 while scales stay under half a radian, is
    not folded back.
    """
    tangent = logarithmic_map(mixture.centre, direction)
    offsets = (tangent[..., None, :] - mixture.means) / mixture.scales[..., None]
    along = jnp.sum(offsets * mixture.squeezes, axis=-1)
    squared = jnp.sum(jnp.square(offsets), axis=-1) + jnp.square(along)
    narrowed = jnp.log1p(jnp.sum(jnp.square(mixture.squeezes), axis=-1))
    log_densities = 0.5 * (narrowed - squared)
    log_densities -= jnp.log(2.0 * jnp.pi * jnp.square(mixture.scales))
    log_weights = jax.nn.log_softmax(mixture.logits)
    log_density = jax.nn.logsumexp(log_weights + log_densities, axis=-1)
    return log_density + _log_jacobian(tangent)


def sample_fine(
    key: RandomKey, mixture: FineMixture, basin_temperature: Scalar | float = 1.0
) -> Vector:
    """Draws a direction in the fine stage; see `sample_radius` for the temperature."""
    key_component, key_noise = jax.random.split(key)
    chosen = jax.random.categorical(key_component, mixture.logits)
    scale = mixture.scales[chosen] * jnp.sqrt(basin_temperature)
    centre = mixture.centre
    noise = tangent_part(centre, jax.random.normal(key_noise, (3,)))
    squeeze = mixture.squeezes[chosen]
    # The root of the covariance takes |v|^2 (1 - 1 / root) / |v|^2 off along v.
    root = jnp.sqrt(1.0 + jnp.sum(jnp.square(squeeze)))
    noise -= squeeze * jnp.dot(squeeze, noise) / (root * (1.0 + root))
    return exponential_map(centre, mixture.means[chosen] + scale * noise)


def blur(key: RandomKey, direction: Directions, scale: float) -> Directions:
    r"""Draws coarse directions $\hat u \sim q(\hat u \mid \hat r)$ around others."""
    noise = jax.random.normal(key, direction.shape)
    return exponential_map(direction, scale * tangent_part(direction, noise))


def blur_log_density(
    direction: Directions, coarse: Directions, scale: float
) -> BatchScalars:
    r"""Returns $\log q(\hat u \mid \hat r)$, per steradian."""
    tangent = logarithmic_map(direction, coarse)
    squared = jnp.sum(jnp.square(tangent), axis=-1)
    log_density = -0.5 * squared / scale**2 - math.log(2.0 * math.pi * scale**2)
    return log_density + _log_jacobian(tangent)


def sample_radius_tempered(
    key: RandomKey,
    mixture: RadialMixture,
    low: float,
    high: float,
    temperature: Scalar | float,
    num_cells: int = 2048,
) -> Scalar:
    """Draws a radius in Å from the density to the power of the inverse temperature.

    A cell of a uniform grid by its tempered density, then a uniform point of the cell.
    """
    key_cell, key_offset = jax.random.split(key)
    width = (high - low) / num_cells
    centres = low + width * (jnp.arange(num_cells) + 0.5)
    logits = radial_log_density(
        RadialMixture(*(x[None] for x in mixture)), centres, low, high
    )
    cell = jax.random.categorical(key_cell, logits / temperature)
    return centres[cell] + width * (jax.random.uniform(key_offset) - 0.5)
