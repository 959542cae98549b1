r"""Draws one step of generation from Symphony's network, and keeps its features.

`empty_cache`, `extend_cache`, `shorten_cache` and `decide` are all that
`symphony.generate` knows of a model; `symphony.kinds.paper.decisions` gives the same
four for the paper's model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common.nn.blocks.messages import edge_feats
from common.nn.conditions import Conditions
from common.nn.features import Features, where, zeros
from common.nn.graph import keep_nearest
from common.nn.layers import scan_layers
from common.so3.grid import SphereGrid
from common.so3.irreps import uniform
from symphony import densities
from symphony.arrays import (
    Flag,
    Index,
    NodeMask,
    Positions,
    RandomKey,
    Scalar,
    Scores,
    Signals,
    Vector,
)
from symphony.limits import Allowed
from symphony.masks import draw_masked, is_empty, log_masked, mask_logits, plus
from symphony.model import NextAtom, Surroundings, Symphony
from symphony.slots import Fragment, Placement, Settings, first_or_next

SETTLE_STEPS = 32
"""Metropolis steps that bring a direction to the low temperature of its basin."""

LIKELIHOOD_DRAWS = 8
"""Coarse directions over which the log-density of a drawn position is averaged."""


class Cache(NamedTuple):
    """Features of the placed atoms; in a causal trunk they never change.

    Attributes:
        layer_feats: inputs of the layers of the trunk, with an axis of layers in front.
        node_feats: output of the trunk.
        messages: sum over placed atoms of their messages to each atom.
        pair_feats: features of the distances between placed atoms.
    """

    layer_feats: Features
    node_feats: Features
    messages: Float[Array, "num_nodes twice_channels"]
    pair_feats: Float[Array, "num_nodes num_nodes num_pair_feats"]


def empty_cache(model: Symphony, capacity: int) -> Cache:
    """Returns the cache of no atoms."""
    irreps = uniform(model.max_degree, model.num_channels)
    return Cache(
        layer_feats=zeros(irreps, model.num_layers, capacity),
        node_feats=zeros(irreps, capacity),
        messages=jnp.zeros((capacity, 2 * model.num_channels)),
        pair_feats=jnp.zeros((capacity, capacity, model.num_pair_feats)),
    )


def extend_cache(
    model: Symphony, cache: Cache, fragment: Fragment, conditions: Conditions
) -> Cache:
    """Adds the last atom of a fragment to the cache: one row of every layer."""
    capacity = fragment.species.shape[0]
    new = fragment.num_atoms - 1
    at_new = jnp.arange(capacity) == new
    before = jnp.arange(capacity) < new
    row = model.graph(
        fragment.positions[new][None], fragment.positions, before[None], new[None]
    )
    past = keep_nearest(row, model.num_neighbors)
    store = lambda at_row, stored: where(at_new, at_row, stored)

    def step(layer: Any, receiver: Features, stored: Features) -> tuple[Features, ...]:
        level = store(receiver, stored)
        return layer(level, past), level

    receiver = model.embed(fragment.species[new][None], conditions)
    receiver, levels = scan_layers(step, model.layers, receiver, cache.layer_feats)
    receiver = model.trunk_norm(receiver)
    last = store(receiver, cache.node_feats)
    to_row = edge_feats(row)
    to_column = jnp.swapaxes(to_row, 0, 1)
    to_new = jnp.sum(model.focus_messages(last, to_row)[0], axis=0)
    from_new = model.focus_messages(receiver, to_column)[:, 0]
    messages = jnp.where(at_new[:, None], to_new, cache.messages + from_new)
    pair_feats = jnp.where(at_new[:, None, None], to_row, cache.pair_feats)
    pair_feats = jnp.where(at_new[None, :, None], to_column, pair_feats)
    return Cache(levels, last, messages, pair_feats)


def shorten_cache(model: Symphony, cache: Cache, fragment: Fragment) -> Cache:
    """Takes out of the cache what atoms sent that a fragment has no more.

    Their own rows stay, until other atoms take their places.
    """
    placed = jnp.arange(fragment.species.shape[0]) < fragment.num_atoms
    sent = model.focus_messages(cache.node_feats, cache.pair_feats)
    messages = jnp.einsum("j,ijc->ic", placed.astype(sent.dtype), sent)
    return cache._replace(messages=messages)


def embed_fragment(
    model: Symphony, cache: Cache, fragment: Fragment, conditions: Conditions
) -> tuple[Features, NextAtom]:
    """Returns the features of the atoms and the logits of the one step there is."""
    node_feats, messages = cache.node_feats, cache.messages[None]
    placed = placed_of(fragment)[None]
    exchange = model.exchange_weights(cache.pair_feats)
    atoms = (fragment.species, fragment.positions)
    return node_feats, model.next_atom(
        *atoms, node_feats, messages, placed, exchange, conditions
    )


def placed_of(fragment: Fragment) -> NodeMask:
    """Marks the placed atoms, and one where there is none: its draw is discarded."""
    count = jnp.maximum(fragment.num_atoms, 1)
    return jnp.arange(fragment.species.shape[0]) < count


def decide(
    model: Symphony,
    cache: Cache,
    fragment: Fragment,
    key: RandomKey,
    settings: Settings,
    mode: str,
    allowed: Allowed | None = None,
) -> Placement:
    """Draws one step: the first species, or stop or an atom; see `draw_next`."""
    embedded = embed_fragment(model, cache, fragment, settings.conditions)
    placed = placed_of(fragment)
    drawn = draw_next(
        model, key, settings, mode, fragment.positions, placed, *embedded, allowed
    )
    first = model.first_logits(settings.conditions)
    return first_or_next(key, first, settings, fragment, drawn, allowed)


class Choice(NamedTuple):
    """Species and focus of the next atom, or the decision to stop.

    Attributes:
        stop: true if the molecule is complete.
        focus: index of the focus; 0 at a stop.
        species: species of the new atom; 0 at a stop.
        log_likelihood: log-likelihood at temperature one, in nats.
        log_constrained: the same under the masks; None without any.
        stuck: true if the masks leave nothing; None without any.
    """

    stop: Flag
    focus: Index
    species: Index
    log_likelihood: Scalar
    log_constrained: Scalar | None = None
    stuck: Flag | None = None


def draw_choice(
    key: RandomKey,
    stop: Scalar,
    focus_species: Float[Array, "num_nodes num_species"],
    settings: Settings,
    allowed: Allowed | None = None,
) -> Choice:
    """Draws stop, or focus and species, from their logits, of what is allowed.

    Args:
        key: key of the draw.
        stop: logit of stopping.
        focus_species: logits of focus and species.
        settings: temperatures.
        allowed: what may be drawn; anything where None.
    """
    num_species = focus_species.shape[1]
    # Stop comes first: what is drawn shall not depend on the rows of padding.
    joined = lambda one, others: jnp.concatenate([one[None], others.reshape(-1)])
    logits = joined(stop, focus_species)
    mask = None if allowed is None else joined(allowed.stop, allowed.focus_species)
    masked = None if mask is None else mask_logits(logits, mask)
    chosen = draw_masked(key, logits, mask, settings.focus_temperature)
    stops = chosen == 0
    pair = jnp.maximum(chosen - 1, 0)
    return Choice(
        stop=stops,
        focus=pair // num_species,
        species=(pair % num_species).astype(jnp.int32),
        log_likelihood=jax.nn.log_softmax(logits)[chosen],
        log_constrained=log_masked(masked, chosen),
        stuck=None if masked is None else is_empty(masked),
    )


class Proposal(NamedTuple):
    """One draw of a step, of which the density of the position is yet to be found.

    Attributes:
        choice: species and focus, or the decision to stop.
        radius: distance from the focus, in Å.
        direction: unit vector from the focus.
        condition: input of the position heads.
        coefficients: signals of the coarse density at this radius.
    """

    choice: Choice
    radius: Scalar
    direction: Vector
    condition: Float[Array, "1 num_channels"]
    coefficients: Signals


def draw_next(
    model: Symphony,
    key: RandomKey,
    settings: Settings,
    mode: str,
    positions: Positions,
    placed: NodeMask,
    node_feats: Features,
    next_atom: NextAtom,
    allowed: Allowed | None = None,
) -> Placement:
    """Draws stop, focus and species, radius and direction, in this order.

    Args:
        model: network bound to its parameters.
        key: key of this step of this molecule.
        settings: temperatures, conditions and largest size, see `Settings`.
        mode: `exact`, `tempered` or `basin`, see `generate.generate`.
        positions: positions of the atoms, in Å.
        placed: true for the atoms there are.
        node_feats: output of the trunk.
        next_atom: logits of the one step there is.
        allowed: what may be drawn; anything where None.
    """
    keys = jax.random.split(key, 5)
    around = (positions, placed, node_feats)
    proposal = propose(model, keys[:4], settings, mode, *around, next_atom, allowed)
    forecast = means_of(next_atom)
    return place(model, keys[4], proposal, *around, forecast)


def propose(
    model: Symphony,
    keys: Key[Array, " 4"],
    settings: Settings,
    mode: str,
    positions: Positions,
    placed: NodeMask,
    node_feats: Features,
    next_atom: NextAtom,
    allowed: Allowed | None = None,
) -> Proposal:
    """Draws a step as `draw_next` does, by four keys."""
    choice = draw_choice(
        keys[0], next_atom.stop[0], next_atom.focus_species[0], settings, allowed
    )
    focus, species = choice.focus[None], choice.species[None]
    condition = model.position_condition(node_feats, next_atom, focus, species)
    mixture = jax.tree.map(lambda x: x[0], model.radial(condition))
    radius = draw_radius(model, mixture, settings, mode, keys[1])
    around = Surroundings(node_feats, positions, focus, placed[None])
    coefficients = model.coarse(condition, radius[None], around)[0]
    coarse = draw_direction(
        keys[2], coefficients, model.grid, settings, mode, model.blur
    )
    fine = model.fine(condition, radius[None], coarse[None], around)
    fine = jax.tree.map(lambda x: x[0], fine)
    basin = settings.basin_temperature
    narrowing = settings.position_temperature if mode == "tempered" else basin
    direction = densities.sample_fine(keys[3], fine, narrowing)
    return Proposal(choice, radius, direction, condition, coefficients)


def place(
    model: Symphony,
    key: RandomKey,
    proposal: Proposal,
    positions: Positions,
    placed: NodeMask,
    node_feats: Features,
    forecast: Scores | None = None,
) -> Placement:
    """Returns a proposal as a step, with its log-likelihood; see `draw_next`."""
    choice, radius, direction, condition, coefficients = proposal
    around = Surroundings(node_feats, positions, choice.focus[None], placed[None])
    log_position = position_log_density(
        model, key, condition, radius, direction, coefficients, around
    )
    log_position = jnp.where(choice.stop, 0.0, log_position)
    return Placement(
        stop=choice.stop,
        species=choice.species,
        position=positions[choice.focus] + radius * direction,
        log_likelihood=choice.log_likelihood + log_position,
        log_constrained=plus(choice.log_constrained, log_position),
        stuck=choice.stuck,
        forecast=forecast,
    )


def means_of(next_atom: NextAtom) -> Scores | None:
    """Returns the scores foreseen of the fragment of the one step there is."""
    forecast = next_atom.forecast
    return None if forecast is None else forecast.means[0]


def draw_radius(
    model: Symphony,
    mixture: densities.RadialMixture,
    settings: Settings,
    mode: str,
    key: RandomKey,
) -> Scalar:
    """Draws a radius in Å from its density, as the mode asks; see `draw_direction`."""
    low, high = model.min_radius, model.max_radius
    if mode == "tempered":
        return densities.sample_radius_tempered(
            key, mixture, low, high, settings.position_temperature
        )
    basin = settings.basin_temperature
    return densities.sample_radius(key, mixture, low, high, basin)


def draw_direction(
    key: RandomKey,
    coefficients: Signals,
    grid: SphereGrid,
    settings: Settings,
    mode: str,
    width: float,
) -> Vector:
    """Draws a direction from signals on the sphere, as the mode asks.

    Args:
        key: key of the draw.
        coefficients: signals of the channels.
        grid: grid of the first proposals.
        settings: temperatures, conditions and largest size, see `Settings`.
        mode: `exact`, `tempered` or `basin`, see `generate.generate`.
        width: width of a peak at temperature one, in radians.
    """
    key_draw, key_settle = jax.random.split(key)
    tempered = mode == "tempered"
    direction = densities.sample_coarse(
        key_draw,
        coefficients,
        grid,
        settings.position_temperature if tempered else 1.0,
        num_proposals=64 if tempered else 16,
    )
    if mode == "exact":
        return direction
    temperature = (
        settings.position_temperature if tempered else settings.basin_temperature
    )
    step = width * jnp.sqrt(jnp.clip(temperature, 0.01, 1.0))
    return densities.settle_coarse(
        key_settle, coefficients, direction, temperature, SETTLE_STEPS, step
    )


def position_log_density(
    model: Symphony,
    key: RandomKey,
    condition: Float[Array, "1 num_channels"],
    radius: Scalar,
    direction: Vector,
    coefficients: Signals,
    around: Surroundings,
    num_draws: int = LIKELIHOOD_DRAWS,
) -> Scalar:
    r"""Estimates $\log p(r)$ per Å³ for one focus and species.

    The coarse direction is integrated by importance sampling from the blur; the mean
    of the estimate is below the truth, and approaches it with `num_draws`.

    Args:
        model: network bound to its parameters.
        key: key of the coarse directions.
        condition: input of the position heads.
        radius: distance from the focus, in Å.
        direction: unit vector from the focus.
        coefficients: signals of the coarse density at this radius.
        around: atoms that the position heads see.
        num_draws: number of coarse directions.
    """
    mixture = jax.tree.map(lambda x: x[0], model.radial(condition))
    log_radial = densities.radial_log_density(
        mixture, radius, model.min_radius, model.max_radius
    )
    directions = jnp.broadcast_to(direction, (num_draws, 3))
    coarse = densities.blur(key, directions, model.blur)
    log_weights = jax.vmap(densities.coarse_logits, (None, 0))(coefficients, coarse)
    log_weights -= densities.log_normaliser(coefficients, model.grid)
    log_weights -= densities.blur_log_density(directions, coarse, model.blur)
    many = lambda x: jnp.broadcast_to(x, (num_draws, *x.shape[1:]))
    around = around._replace(focus=many(around.focus), visible=many(around.visible))
    fine = model.fine(many(condition), many(radius[None]), coarse, around)
    log_weights += densities.fine_log_density(fine, directions)
    log_angular = jax.nn.logsumexp(log_weights) - jnp.log(num_draws)
    return log_radial + log_angular - 2.0 * jnp.log(radius)
