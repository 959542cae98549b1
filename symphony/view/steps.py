r"""What the network says at each step of building a given molecule.

The focus of a step is not written in any file: shown is the one that most probably
placed the atom, $\arg\max_i p(i, s)\, p(r - x_i \mid i, s)$. Positions are in Å,
densities of directions per steradian, log-likelihoods in nats.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from common.nn.conditions import Conditions
from common.nn.features import Features
from common.programs import LEVEL
from common.so3.vectors import safe_norm
from symphony import decisions, densities
from symphony.arrays import (
    Index,
    NodeMask,
    Positions,
    RandomKey,
    Scalar,
    Species,
    StepFeats,
)
from symphony.generate import in_full_precision
from symphony.model import NextAtom, Surroundings, Symphony

NUM_SHELLS, NUM_DIRECTIONS, NUM_DRAWS = 3, 900, 60
"""Radii at which directions are shown, directions of each, and draws of a position."""

_NUM_RADII = 256
"""Radii among which peaks are looked for."""

_LEAST_PEAK = 0.02
"""Height of a peak that is shown, of the highest one."""


class Step(NamedTuple):
    """One step, with a leading axis for all of them.

    Attributes:
        stop: probability of stopping.
        focus_species: probabilities of focus and species.
        focus: atom that most probably placed the next one.
        log_likelihood: that of placing the next atom, over all foci; nats.
        radii: distances from the focus at which its density has peaks.
        heights: density of these distances, per Å; zero where there is no peak.
        shells: log-densities of `directions()` at these distances, coarse stage.
        draws: positions of the next atom, drawn, seen from the focus.
    """

    stop: Scalar
    focus_species: Float[Array, "num_nodes num_species"]
    focus: Index
    log_likelihood: Scalar
    radii: Float[Array, " num_shells"]
    heights: Float[Array, " num_shells"]
    shells: Float[Array, "num_shells num_directions"]
    draws: Float[Array, "num_draws 3"]


class _Known(NamedTuple):
    """A molecule in its order, and what the trunk makes of it."""

    positions: Positions
    species: Species
    node_mask: NodeMask
    node_feats: Features
    next_atom: NextAtom


def directions() -> Float[np.ndarray, "num_directions 3"]:
    """Returns unit vectors spread evenly over the sphere, on a spiral of Fibonacci."""
    place = np.arange(NUM_DIRECTIONS) + 0.5
    height = 1.0 - 2.0 * place / NUM_DIRECTIONS
    turn = np.pi * (1.0 + np.sqrt(5.0)) * place
    aside = np.sqrt(1.0 - np.square(height))
    found = np.stack([aside * np.cos(turn), aside * np.sin(turn), height], axis=1)
    return found.astype(np.float32)


@cache
def make_steps(model: Symphony) -> Callable[..., tuple[Array, Step]]:
    """Returns the compiled function that evaluates all steps of an order.

    It takes parameters, positions, species, the mask of the atoms, conditions and a
    key; it returns the probabilities of the first species, and the steps.
    """

    @partial(jax.jit, compiler_options=LEVEL)
    @in_full_precision
    def run(
        params: Any,
        positions: Positions,
        species: Species,
        node_mask: NodeMask,
        conditions: Conditions,
        key: RandomKey,
    ) -> tuple[Array, Step]:
        bound = model.bind(params)
        steps = jnp.arange(len(species))
        placed = ((steps <= steps[:, None]) & node_mask).at[:, 0].set(True)
        embedded = bound.embed_steps(species, positions, node_mask, placed, conditions)
        known = _Known(positions, species, node_mask, *embedded)
        one = lambda step: _step(bound, known, jax.random.fold_in(key, step), step)
        return jax.nn.softmax(bound.first_species), jax.lax.map(one, steps)

    return run


def _step(model: Symphony, known: _Known, key: RandomKey, step: Index) -> Step:
    now = jax.tree.map(lambda x: x[step][None], known.next_atom)
    log_total = jnp.logaddexp(
        jax.nn.logsumexp(now.focus_species), jax.nn.logsumexp(now.stop)
    )
    new = jnp.minimum(step + 1, len(known.species) - 1)
    visible = (jnp.arange(len(known.species)) <= step) & known.node_mask
    keys = jax.random.split(key, 2)
    log_of = partial(_log_density, model, known, now, visible, keys[0], new)
    log_joint = jax.vmap(log_of)(jnp.arange(len(known.species)))
    log_joint += now.focus_species[0, :, known.species[new]] - log_total
    focus = jnp.argmax(log_joint).astype(jnp.int32)
    condition, around = _seen_from(model, known, now, visible, new, focus)
    radii, heights = _peaks(model, condition)
    shell = partial(_shell, model, condition, around)
    draw = partial(_draw, model, condition, around)
    return Step(
        stop=jnp.exp(now.stop[0] - log_total),
        focus_species=jnp.exp(now.focus_species[0] - log_total),
        focus=focus,
        log_likelihood=jax.nn.logsumexp(log_joint),
        radii=radii,
        heights=heights,
        shells=jax.vmap(shell)(radii),
        draws=jax.vmap(draw)(jax.random.split(keys[1], NUM_DRAWS)),
    )


def _seen_from(
    model: Symphony,
    known: _Known,
    now: NextAtom,
    visible: NodeMask,
    new: Index,
    focus: Index,
) -> tuple[StepFeats, Surroundings]:
    """Returns the input of the position heads for a focus and the species placed."""
    species = known.species[new][None]
    condition = model.position_condition(known.node_feats, now, focus[None], species)
    return condition, Surroundings(
        known.node_feats, known.positions, focus[None], visible[None]
    )


def _log_density(
    model: Symphony,
    known: _Known,
    now: NextAtom,
    visible: NodeMask,
    key: RandomKey,
    new: Index,
    focus: Index,
) -> Scalar:
    """Returns the log-density of the next atom's place seen from a focus, per Å³."""
    condition, around = _seen_from(model, known, now, visible, new, focus)
    vector = known.positions[new] - known.positions[focus]
    radius, direction = densities.polar(vector, model.min_radius, model.max_radius)
    coefficients = model.coarse(condition, radius[None], around)[0]
    log_density = decisions.position_log_density(
        model, key, condition, radius, direction, coefficients, around
    )
    length = safe_norm(vector)
    is_near = (length > model.min_radius) & (length < model.max_radius)
    return jnp.where(is_near & visible[focus], log_density, -jnp.inf)


def _peaks(
    model: Symphony, condition: StepFeats
) -> tuple[Float[Array, " num_shells"], Float[Array, " num_shells"]]:
    """Returns the distances of the highest peaks, and the density there, per Å."""
    mixture = jax.tree.map(lambda x: x[0], model.radial(condition))
    low, high = model.min_radius, model.max_radius
    radii = jnp.linspace(low, high, _NUM_RADII + 2)[1:-1]
    many = jax.tree.map(lambda x: x[None], mixture)
    density = jnp.exp(densities.radial_log_density(many, radii, low, high))
    padded = jnp.pad(density, 1)
    is_peak = (density > padded[:-2]) & (density >= padded[2:])
    is_peak &= density > _LEAST_PEAK * jnp.max(density)
    heights, places = jax.lax.top_k(jnp.where(is_peak, density, 0.0), NUM_SHELLS)
    return radii[places], heights


def _shell(
    model: Symphony, condition: StepFeats, around: Surroundings, radius: Scalar
) -> Float[Array, " num_directions"]:
    """Returns the coarse log-density of all directions at a distance."""
    coefficients = model.coarse(condition, radius[None], around)[0]
    logits = jax.vmap(densities.coarse_logits, (None, 0))(coefficients, directions())
    return logits - densities.log_normaliser(coefficients, model.grid)


def _draw(
    model: Symphony, condition: StepFeats, around: Surroundings, key: RandomKey
) -> Float[Array, " 3"]:
    """Draws the position of the next atom, seen from the focus."""
    keys = jax.random.split(key, 3)
    mixture = jax.tree.map(lambda x: x[0], model.radial(condition))
    radius = densities.sample_radius(
        keys[0], mixture, model.min_radius, model.max_radius
    )
    coefficients = model.coarse(condition, radius[None], around)[0]
    coarse = densities.sample_coarse(keys[1], coefficients, model.grid)
    fine = model.fine(condition, radius[None], coarse[None], around)
    fine = jax.tree.map(lambda x: x[0], fine)
    return radius * densities.sample_fine(keys[2], fine)
