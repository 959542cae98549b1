"""A molecule under construction, its step, and what decides it. Positions are in Å."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from common.nn.conditions import Known
from symphony.arrays import (
    Flag,
    Index,
    Positions,
    RandomKey,
    Scalar,
    Scores,
    Species,
    Vector,
)
from symphony.limits import Allowed, Limits, Progress
from symphony.masks import draw_masked, is_empty, log_masked, mask_logits


class Settings(NamedTuple):
    """Settings of the sampler.

    Attributes:
        focus_temperature: temperature of stopping, focus and species.
        position_temperature: temperature of the density of positions: a power of those
            of radius and coarse direction, a width in the fine stage.
        basin_temperature: temperature of each mode of the position; its weight stays.
        conditions: conditions of the network, `noise_std` among them.
        max_atoms: largest number of atoms; a larger molecule is ended, not stopped.
        guidance: strength of `symphony.guidance`; without effect on other decoders.
    """

    focus_temperature: Scalar
    position_temperature: Scalar
    basin_temperature: Scalar
    conditions: dict[str, Known]
    max_atoms: Index
    guidance: Scalar | float = 1.0


class Fragment(NamedTuple):
    """The atoms of an unfinished molecule, padded to the capacity of a slot.

    Attributes:
        positions: positions of the atoms, in Å.
        species: indices into the species table.
        num_atoms: atoms placed so far.
    """

    positions: Positions
    species: Species
    num_atoms: Index


class Placement(NamedTuple):
    """Result of a step: a new atom, or the decision to stop.

    Attributes:
        stop: true if nothing is placed and the molecule is complete.
        species: index of its species.
        position: position of the new atom, in Å.
        log_likelihood: log-likelihood of this step in nats; positions per Å³.
        log_constrained: the same under the masks; None without any.
        stuck: true if the masks leave nothing to draw; None without any.
        forecast: scores foreseen of the fragment before the step; None of a network
            without properties.
    """

    stop: Flag
    species: Index
    position: Vector
    log_likelihood: Scalar
    log_constrained: Scalar | None = None
    stuck: Flag | None = None
    forecast: Scores | None = None


class Decoder(NamedTuple):
    """Functions of a model for the sampler; see `symphony.decisions`."""

    empty_cache: Callable[..., Any]
    extend_cache: Callable[..., Any]
    decide: Callable[..., Placement]
    shorten_cache: Callable[..., Any]


class Slot(NamedTuple):
    """One molecule under construction.

    Attributes:
        fragment: atoms placed so far.
        num_given: atoms of the start, which are placed before any is drawn.
        given_positions: positions of the atoms of the start, in Å.
        given_species: species of the start.
        done: true once nothing more will be placed.
        stopped: true once the network chose to stop.
        log_likelihood: log-likelihood in nats of the path so far at temperature one:
            first species, focus, species and position (Å⁻³) of drawn atoms, stop.
        log_of_atoms: the part of each atom in it; NaN of atoms that were not drawn.
        index: number of the molecule of the seed; -1 in an empty slot.
        cache: features that the model keeps of the placed atoms.
        limits: what the molecule may become; None without limits.
        progress: how far it is within them; None without limits.
        scores: standard scores of the properties that it shall have, in the order of
            the network; None of a network without properties.
        forecast: standard scores foreseen of the fragment; None likewise.
    """

    fragment: Fragment
    num_given: Index
    given_positions: Positions
    given_species: Species
    done: Flag
    stopped: Flag
    log_likelihood: Scalar
    log_of_atoms: Float[Array, " num_nodes"]
    index: Index
    cache: Any
    limits: Limits | None = None
    progress: Progress | None = None
    scores: Scores | None = None
    forecast: Scores | None = None


class Start(NamedTuple):
    """Atoms that a molecule starts from, possibly none; in the order of placement.

    Attributes:
        positions: positions of the atoms, in Å.
        species: indices into the species table.
        limits: what the molecule may become, see `symphony.limits`; None where every
            molecule of a call is free.
        scores: standard scores of the properties that it shall have; see `Slot`.
    """

    positions: Float[np.ndarray, "num_given 3"]
    species: Int[np.ndarray, " num_given"]
    limits: Limits | None = None
    scores: Float[np.ndarray, " num_properties"] | None = None


def with_scores(model: nn.Module, settings: Settings, slot: Slot) -> Settings:
    """Returns settings whose conditions are those of a slot's own molecule."""
    if slot.scores is None:
        return settings
    own = zip(model.properties, slot.scores, strict=True)
    masks = settings.conditions
    given = {name: Known(score, masks[name].mask) for name, score in own}
    return settings._replace(conditions={**masks, **given})


def num_properties(model: nn.Module) -> int:
    """Returns how many properties a network is given; some kinds take none."""
    return len(model.properties) if hasattr(model, "properties") else 0


def first_or_next(
    key: RandomKey,
    logits: Float[Array, " num_species"],
    settings: Settings,
    fragment: Fragment,
    drawn: Placement,
    allowed: Allowed | None = None,
) -> Placement:
    """Returns what was drawn, or a first atom at the origin where there is none yet."""
    mask = None if allowed is None else allowed.first
    masked = None if mask is None else mask_logits(logits, mask)
    species = draw_masked(key, logits, mask, settings.focus_temperature)
    first = Placement(
        stop=jnp.array(False),
        species=species.astype(jnp.int32),
        position=jnp.zeros(3),
        log_likelihood=jax.nn.log_softmax(logits)[species],
        log_constrained=log_masked(masked, species),
        stuck=None if masked is None else is_empty(masked),
        forecast=drawn.forecast,
    )
    return where(fragment.num_atoms == 0, first, drawn)


def where(condition: Flag, yes: Any, no: Any) -> Any:
    """Chooses between two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def with_forecast(slot: Slot, drawn: Placement) -> Slot:
    """Returns a slot that keeps what is foreseen of its fragment."""
    return slot if slot.forecast is None else slot._replace(forecast=drawn.forecast)


def grow(
    decoder: Decoder,
    model: nn.Module,
    slot: Slot,
    step: Placement,
    settings: Settings,
    is_drawn: Flag,
) -> Slot:
    """Returns the slot with one more atom, drawn or given, in its cache too."""
    before = slot.fragment
    at_new = jnp.arange(before.species.shape[0]) == before.num_atoms
    fragment = Fragment(
        positions=jnp.where(at_new[:, None], step.position, before.positions),
        species=jnp.where(at_new, step.species, before.species),
        num_atoms=before.num_atoms + 1,
    )
    log_of_atom = jnp.where(is_drawn, step.log_likelihood, jnp.nan)
    return slot._replace(
        fragment=fragment,
        cache=decoder.extend_cache(model, slot.cache, fragment, settings.conditions),
        log_likelihood=slot.log_likelihood + step.log_likelihood,
        log_of_atoms=jnp.where(at_new, log_of_atom, slot.log_of_atoms),
    )
