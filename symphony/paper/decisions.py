"""What one step of generation draws from the published model.

The same three functions as `symphony.decisions`. Nothing is kept of placed atoms:
both embedders run anew on every fragment.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from symphony import densities
from symphony.decisions import SETTLE_STEPS
from symphony.generate import Fragment, Placement, Settings, draw_first
from symphony.paper.loss import log_mass, position_log_density
from symphony.paper.model import JointDensity, PaperSymphony

SETTLE_STEP = 0.022
"""Radians, the size of a step in basin mode: half the width of the target."""


def empty_cache(model: PaperSymphony, capacity: int) -> tuple[()]:
    """Returns nothing, which is what the model keeps."""
    del model, capacity
    return ()


def extend_cache(
    model: PaperSymphony,
    cache: tuple[()],
    fragment: Fragment,
    noise_std: Float[Array, ""],
) -> tuple[()]:
    """Returns the cache as it is."""
    del model, fragment, noise_std
    return cache


def decide(
    model: PaperSymphony,
    cache: tuple[()],
    fragment: Fragment,
    key: Key[Array, ""],
    settings: Settings,
    mode: str,
) -> Placement:
    """Draws one step: the first species, or stop, or focus, species and position.

    Args:
        model: Bound to its parameters.
        cache: Nothing.
        fragment: The atoms so far.
        key: Of this step of this molecule.
        settings: See `generate.Settings`; the level of noise is not told.
        mode: `exact`, `tempered` or `basin`; see `generate.generate`.
    """
    del cache
    keys = jax.random.split(key, 3)
    # On an empty fragment the draw is discarded, but must stay finite.
    placed = jnp.arange(fragment.species.shape[0]) < jnp.maximum(fragment.num_atoms, 1)
    positions, species = fragment.positions, fragment.species
    pairs = model.pairs(positions, placed)
    logits = model.focus_species(species, positions, placed, pairs)
    flat = jnp.append(logits, 0.0)
    allowed = jnp.where(settings.species_mask, logits, -jnp.inf)
    choices = jnp.append(allowed, 0.0) / settings.focus_temperature
    chosen = jax.random.categorical(keys[0], choices)
    stop = chosen == flat.shape[0] - 1
    focus = jnp.where(stop, 0, chosen // model.num_species)
    next_species = jnp.where(stop, 0, chosen % model.num_species).astype(jnp.int32)

    feats = model.focus_feats(species, pairs, focus)
    density = model.density(feats, next_species)
    vector = draw_vector(model, density, keys[1], settings, mode)
    log_position = position_log_density(model, density, vector)
    log_likelihood = jax.nn.log_softmax(flat)[chosen]
    drawn = Placement(
        stop=stop,
        species=next_species,
        position=positions[focus] + vector,
        log_likelihood=log_likelihood + jnp.where(stop, 0.0, log_position),
    )
    first = draw_first(keys[2], model.first_species, settings)
    is_first = fragment.num_atoms == 0
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, drawn)


def draw_vector(
    model: PaperSymphony,
    density: JointDensity,
    key: Key[Array, ""],
    settings: Settings,
    mode: str,
) -> Float[Array, " 3"]:
    """Draws the vector from the focus to the next atom, in Å.

    A shell by its mass, a direction on it by `densities.sample_coarse`, a radius
    uniform around the shell's. The temperature of `tempered` raises the joint density
    to its inverse before the shells' masses are taken.
    """
    keys = jax.random.split(key, 4)
    temperature = settings.position_temperature if mode == "tempered" else 1.0
    logits, _ = log_mass(density, model.grid)
    tempered = logits / temperature + jnp.asarray(model.grid.log_weights)
    masses = density.radial / temperature + jax.nn.logsumexp(tempered, axis=-1)
    shell = jax.random.categorical(keys[0], masses)
    signals = density.signals[jnp.minimum(shell, density.signals.shape[0] - 1)]
    direction = densities.sample_coarse(keys[1], signals, model.grid, temperature)
    if mode == "basin":
        direction = densities.settle_coarse(
            keys[2],
            signals,
            direction,
            settings.basin_temperature,
            SETTLE_STEPS,
            SETTLE_STEP,
        )
    step = (model.max_radius - model.min_radius) / (model.num_radii - 1)
    offset = step * (jax.random.uniform(keys[3]) - 0.5)
    return (jnp.asarray(model.radii)[shell] + offset) * direction
