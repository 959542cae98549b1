r"""Draws steps that are steered towards properties: classifier-free guidance.

The network gives two laws of a step, with the properties shown and hidden, by one pass
of its trunk. Each factor of a step, one after another, is drawn from

$$ p_w \propto p_{shown} \left( p_{shown} / p_{hidden} \right)^{w - 1}, $$

normalised over that factor alone, given those before it: stop, focus and species
together (and the first species) over their logits; the radius over its interval, the
coarse direction over the sphere and the fine one over its plane, each by choosing one
of `NUM_PROPOSALS` draws from the law shown, as the mode of the sampler has it, by the
weight of the second factor. At $w = 1$ that is the law shown. Log-likelihoods are those
of the law shown, whatever the guidance (Ho and Salimans, arXiv 2207.12598).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from common.nn.conditions import Conditions, Known
from common.nn.features import Features
from symphony import decisions, densities
from symphony.arrays import RandomKey, Scalar, Vector
from symphony.limits import Allowed
from symphony.masks import plus
from symphony.model import NextAtom, Surroundings, Symphony
from symphony.slots import Decoder, Fragment, Placement, Settings, first_or_next

NUM_PROPOSALS = 64
"""Draws from which one is chosen; the law is exact in the limit of many."""


def without(model: Symphony, conditions: Conditions) -> dict[str, Known]:
    """Returns conditions of which all properties are hidden."""
    found = dict(conditions)
    for name in model.properties:
        value, mask = conditions[name]
        found[name] = Known(value, jnp.zeros_like(mask))
    return found


def steer(shown: Array, hidden: Array, guidance: Scalar | float) -> Array:
    """Returns the logits of the guided law; what cannot be drawn stays so.

    >>> steer(jnp.array([1.0, -jnp.inf]), jnp.array([0.0, -jnp.inf]), 2.0).tolist()
    [2.0, -inf]
    """
    possible = jnp.isfinite(shown) & jnp.isfinite(hidden)
    difference = jnp.where(possible, shown - hidden, 0.0)
    return shown + (guidance - 1.0) * difference


def choose(
    key: RandomKey,
    draw: Callable[[RandomKey], Array],
    log_ratio: Callable[[Array], Float[Array, " num_draws"]],
    guidance: Scalar | float,
) -> Array:
    """Returns one of many draws, by the power of the ratio of the two densities.

    Args:
        key: key of the draws.
        draw: function that draws from the law shown.
        log_ratio: logarithm of the density shown over that hidden, of many draws, up to
            a constant.
        guidance: strength; 1 takes any of the draws.
    """
    key_draws, key_choice = jax.random.split(key)
    draws = jax.vmap(draw)(jax.random.split(key_draws, NUM_PROPOSALS))
    weights = (guidance - 1.0) * log_ratio(draws)
    return draws[jax.random.categorical(key_choice, weights)]


def decide(
    model: Symphony,
    cache: decisions.Cache,
    fragment: Fragment,
    key: RandomKey,
    settings: Settings,
    mode: str,
    allowed: Allowed | None = None,
) -> Placement:
    """Draws one step of the guided law; the arguments are those of `decisions`."""
    shown, hidden = settings.conditions, without(model, settings.conditions)
    embed = partial(decisions.embed_fragment, model, cache, fragment)
    node_feats, next_atom = embed(shown)
    _, unasked = embed(hidden)
    drawn = draw_next(
        model, key, settings, mode, fragment, node_feats, (next_atom, unasked), allowed
    )
    first = model.first_logits(shown)
    steered = steer(first, model.first_logits(hidden), settings.guidance)
    return first_or_next(key, first, settings, fragment, drawn, allowed, steered)


def draw_next(
    model: Symphony,
    key: RandomKey,
    settings: Settings,
    mode: str,
    fragment: Fragment,
    node_feats: Features,
    next_atoms: tuple[NextAtom, NextAtom],
    allowed: Allowed | None,
) -> Placement:
    """Draws stop, focus and species, radius and direction, in this order.

    Args:
        model: network bound to its parameters.
        key: key of this step of this molecule.
        settings: temperatures, guidance and conditions.
        mode: `exact`, `tempered` or `basin`, see `generate.generate`.
        fragment: atoms placed so far.
        node_feats: output of the trunk, which knows no property.
        next_atoms: logits, with the properties shown and hidden.
        allowed: what may be drawn; anything where None.
    """
    keys = jax.random.split(key, 5)
    logits = [(now.stop[0], now.focus_species[0]) for now in next_atoms]
    steered = [steer(*pair, settings.guidance) for pair in zip(*logits, strict=True)]
    choice = decisions.draw_choice(keys[0], *logits[0], settings, allowed, steered)
    focus, species = choice.focus[None], choice.species[None]
    placed = decisions.placed_of(fragment)[None]
    around = Surroundings(node_feats, fragment.positions, focus, placed)
    conditions = [
        model.position_condition(node_feats, one, focus, species) for one in next_atoms
    ]
    radius = _draw_radius(model, keys[1], settings, mode, conditions)
    coefficients, direction = _draw_direction(
        model, keys[2:4], settings, mode, conditions, radius, around
    )
    log_position = decisions.position_log_density(
        model, keys[4], conditions[0], radius, direction, coefficients, around
    )
    log_position = jnp.where(choice.stop, 0.0, log_position)
    return Placement(
        stop=choice.stop,
        species=choice.species,
        position=fragment.positions[choice.focus] + radius * direction,
        log_likelihood=choice.log_likelihood + log_position,
        log_constrained=plus(choice.log_constrained, log_position),
        stuck=choice.stuck,
    )


def _draw_radius(
    model: Symphony,
    key: RandomKey,
    settings: Settings,
    mode: str,
    conditions: list[Array],
) -> Scalar:
    mixtures = [jax.tree.map(lambda x: x[0], model.radial(one)) for one in conditions]
    low, high = model.min_radius, model.max_radius

    def log_ratio(radii: Array) -> Array:
        shown, hidden = (
            densities.radial_log_density(one, radii, low, high) for one in mixtures
        )
        return shown - hidden

    draw = partial(decisions.draw_radius, model, mixtures[0], settings, mode)
    return choose(key, draw, log_ratio, settings.guidance)


def _draw_direction(
    model: Symphony,
    keys: Array,
    settings: Settings,
    mode: str,
    conditions: list[Array],
    radius: Scalar,
    around: Surroundings,
) -> tuple[Array, Vector]:
    """Returns the signals of the coarse density shown, and a direction."""
    signals = [model.coarse(one, radius[None], around)[0] for one in conditions]

    def coarse_ratio(directions: Array) -> Array:
        logits = jax.vmap(densities.coarse_logits, (None, 0))
        return logits(signals[0], directions) - logits(signals[1], directions)

    key_draws, key_choice, key_settle = jax.random.split(keys[0], 3)
    tempered = mode == "tempered"
    draws, log_weights = densities.propose_coarse(
        key_draws,
        signals[0],
        model.grid,
        settings.position_temperature if tempered else 1.0,
        NUM_PROPOSALS,
    )
    log_weights += (settings.guidance - 1.0) * coarse_ratio(draws)
    coarse = draws[jax.random.categorical(key_choice, log_weights)]
    coarse = decisions.settle(
        key_settle, signals[0], coarse, settings, mode, model.blur
    )
    mixtures = [
        jax.tree.map(
            lambda x: x[0], model.fine(one, radius[None], coarse[None], around)
        )
        for one in conditions
    ]

    fine = jax.vmap(densities.fine_log_density, (None, 0))

    def fine_ratio(directions: Array) -> Array:
        shown, hidden = (fine(m, directions) for m in mixtures)
        return shown - hidden

    narrowing = (
        settings.position_temperature if tempered else settings.basin_temperature
    )
    draw = lambda key: densities.sample_fine(key, mixtures[0], narrowing)
    return signals[0], choose(keys[1], draw, fine_ratio, settings.guidance)


DECODER = Decoder(
    decisions.empty_cache, decisions.extend_cache, decide, decisions.shorten_cache
)
