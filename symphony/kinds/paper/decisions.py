"""Draws one step of generation from the published model.

The same four functions as `symphony.decisions`. Nothing is kept of placed atoms:
both embedders run anew on every fragment.
"""

import jax
import jax.numpy as jnp

from common.nn.conditions import Conditions
from symphony.arrays import RandomKey, Vector
from symphony.decisions import draw_choice, draw_direction
from symphony.kinds.paper.loss import log_mass, position_log_density
from symphony.kinds.paper.model import JointDensity, PaperSymphony
from symphony.limits import Allowed
from symphony.masks import plus
from symphony.slots import Fragment, Placement, Settings, first_or_next

TARGET_WIDTH = 0.045
"""Radians, standard deviation per axis of the published angular target."""


def empty_cache(model: PaperSymphony, capacity: int) -> tuple[()]:
    """Returns nothing, which is what the model keeps."""
    del model, capacity
    return ()


def extend_cache(
    model: PaperSymphony, cache: tuple[()], fragment: Fragment, conditions: Conditions
) -> tuple[()]:
    """Returns the cache as it is."""
    del model, fragment, conditions
    return cache


def shorten_cache(
    model: PaperSymphony, cache: tuple[()], fragment: Fragment
) -> tuple[()]:
    """Returns the cache as it is."""
    del model, fragment
    return cache


def decide(
    model: PaperSymphony,
    cache: tuple[()],
    fragment: Fragment,
    key: RandomKey,
    settings: Settings,
    mode: str,
    allowed: Allowed | None = None,
) -> Placement:
    """Draws one step: the first species, or stop, or focus, species and position.

    Args:
        model: network bound to its parameters.
        cache: nothing.
        fragment: atoms so far.
        key: key of this step of this molecule.
        settings: settings of the sampler, see `slots.Settings`.
        mode: `exact`, `tempered` or `basin`; see `generate.generate`.
        allowed: what may be drawn; anything where None.
    """
    del cache
    keys = jax.random.split(key, 3)
    # On an empty fragment the draw is discarded, but must stay finite.
    placed = jnp.arange(fragment.species.shape[0]) < jnp.maximum(fragment.num_atoms, 1)
    positions, species = fragment.positions, fragment.species
    pairs = model.pairs(positions, placed)
    logits = model.focus_species(species, positions, placed, pairs)
    choice = draw_choice(keys[0], jnp.zeros(()), logits, settings, allowed)

    feats = model.focus_feats(species, pairs, choice.focus)
    density = model.density(feats, choice.species)
    vector = draw_vector(model, density, keys[1], settings, mode)
    log_position = position_log_density(model, density, vector)
    log_position = jnp.where(choice.stop, 0.0, log_position)
    drawn = Placement(
        stop=choice.stop,
        species=choice.species,
        position=positions[choice.focus] + vector,
        log_likelihood=choice.log_likelihood + log_position,
        log_constrained=plus(choice.log_constrained, log_position),
        stuck=choice.stuck,
    )
    first = model.first_species
    return first_or_next(keys[2], first, settings, fragment, drawn, allowed)


def draw_vector(
    model: PaperSymphony,
    density: JointDensity,
    key: RandomKey,
    settings: Settings,
    mode: str,
) -> Vector:
    """Draws the vector from the focus to the next atom, in Å.

    A shell by its mass, a direction on it by `draw_direction`, a radius
    uniform around the shell's. The temperature of `tempered` raises the joint density
    to its inverse before the shells' masses are taken.
    """
    keys = jax.random.split(key, 3)
    temperature = settings.position_temperature if mode == "tempered" else 1.0
    logits, _ = log_mass(density, model.grid)
    tempered = logits / temperature + jnp.asarray(model.grid.log_weights)
    masses = density.radial / temperature + jax.nn.logsumexp(tempered, axis=-1)
    shell = jax.random.categorical(keys[0], masses)
    signals = density.signals[jnp.minimum(shell, density.signals.shape[0] - 1)]
    direction = draw_direction(
        keys[1], signals, model.grid, settings, mode, TARGET_WIDTH
    )
    step = (model.max_radius - model.min_radius) / (model.num_radii - 1)
    offset = step * (jax.random.uniform(keys[2]) - 0.5)
    return (jnp.asarray(model.radii)[shell] + offset) * direction
