"""Builds molecules atom by atom: one compiled loop over a batch of slots.

Every slot holds one molecule at its own step. A finished molecule leaves its slot to
the next one, so no step is spent on it. What a slot draws is a function of (seed,
index of the molecule, step) alone. The features of placed atoms are kept where the
trunk is causal, so that a step costs the row of the new atom; the published model makes
them anew. No pair of atoms is ever dropped.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from common.programs import digest, kept
from symphony.arrays import (
    Flag,
    HostPositions,
    Index,
    RandomKey,
)
from symphony.backtracking import shorten
from symphony.constrained import advance_within
from symphony.limits import REASONS, Limits, Progress, begin, no_limits
from symphony.slots import (
    Decoder,
    Fragment,
    Placement,
    Settings,
    Slot,
    Start,
    grow,
    num_properties,
    where,
    with_forecast,
    with_scores,
)


class Finished(NamedTuple):
    """A molecule as it left the sampler.

    Attributes:
        index: number of the molecule of the seed.
        positions: positions in Å, in the order of placement.
        species: indices into the species table.
        stopped: false if it would have grown beyond the largest number of atoms.
        log_likelihood: log-likelihood in nats, see `Slot`.
        log_of_atoms: the part of each atom in it; NaN of atoms that were not drawn.
        log_constrained: log-likelihood under the limits; None without limits.
        reason: why it did not stop, where there are limits.
        num_redrawn: draws and atoms that were taken back, where there are limits.
        forecast: scores of properties that the network foresees of it, in its order;
            None without properties.
    """

    index: int
    positions: HostPositions
    species: Int[np.ndarray, " num_atoms"]
    stopped: bool
    log_likelihood: float
    log_of_atoms: Float[np.ndarray, " num_atoms"]
    log_constrained: float | None = None
    reason: str | None = None
    num_redrawn: int = 0
    forecast: Float[np.ndarray, " num_properties"] | None = None


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def empty_slots(
    decoder: Decoder,
    model: nn.Module,
    capacity: int,
    num_slots: int,
    limited: bool = False,
) -> Slot:
    """Returns that many slots that hold nothing and are done."""
    zero, species = jnp.array(0, jnp.int32), jnp.zeros(capacity, jnp.int32)
    positions = jnp.zeros((capacity, 3))
    blank = Slot(
        fragment=Fragment(positions, species, num_atoms=zero),
        num_given=zero,
        given_positions=positions,
        given_species=species,
        done=jnp.array(True),
        stopped=jnp.array(False),
        log_likelihood=jnp.zeros(()),
        log_of_atoms=jnp.zeros(capacity),
        index=zero - 1,
        cache=decoder.empty_cache(model, capacity),
    )
    if num_properties(model):
        zeros = jnp.zeros(num_properties(model))
        blank = blank._replace(scores=zeros, forecast=zeros)
    if limited:
        free = no_limits(capacity, len(model.atomic_numbers))
        blank = blank._replace(limits=free, progress=begin(capacity))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, *x.shape)), blank)


def advance(
    decoder: Decoder,
    model: nn.Module,
    slot: Slot,
    seed_key: RandomKey,
    settings: Settings,
    mode: str,
) -> Slot:
    """Takes one step of one slot: the next given atom, or a drawn one, or stop.

    A slot at the largest size may still stop; if it would place an atom, it is done and
    has not stopped.
    """
    settings = with_scores(model, settings, slot)
    if slot.limits is not None:
        return advance_within(decoder, model, slot, seed_key, settings, mode)
    fragment = slot.fragment
    new, capacity = fragment.num_atoms, fragment.species.shape[0]
    key = jax.random.fold_in(jax.random.fold_in(seed_key, slot.index), new)
    drawn = decoder.decide(model, slot.cache, fragment, key, settings, mode)
    slot = with_forecast(slot, drawn)
    place = jnp.minimum(new, capacity - 1)
    given = Placement(
        stop=jnp.array(False),
        species=slot.given_species[place],
        position=slot.given_positions[place],
        log_likelihood=jnp.zeros(()),
        forecast=drawn.forecast,
    )
    is_given = new < slot.num_given
    step = where(is_given, given, drawn)
    after = grow(decoder, model, slot, step, settings, ~is_given)
    is_full = new >= jnp.maximum(settings.max_atoms, slot.num_given)
    true, total = jnp.array(True), after.log_likelihood
    stopped = slot._replace(log_likelihood=total, done=true, stopped=true)
    after = where(is_full, slot._replace(done=is_full), after)
    return where(slot.done, slot, where(step.stop, stopped, after))


@cache
def make_run(
    decoder: Decoder, model: nn.Module, mode: str
) -> Callable[[Any, Slot, RandomKey, Settings, Array], Slot]:
    """Returns the compiled loop `(params, slots, seed_key, settings, num_steps)`.

    It ends after `num_steps` steps, or when every slot is done.
    """

    @in_full_precision
    def run(
        params: Any,
        slots: Slot,
        seed: Array,
        settings: Settings,
        num_steps: Index,
    ) -> Slot:
        bound, seed_key = model.bind(params), jax.random.wrap_key_data(seed)
        one = lambda slot: advance(decoder, bound, slot, seed_key, settings, mode)

        def unfinished(carry: tuple[Array, Slot]) -> Flag:
            return (carry[0] < num_steps) & ~jnp.all(carry[1].done)

        def body(carry: tuple[Array, Slot]) -> tuple[Array, Slot]:
            after = jax.vmap(one)(carry[1])
            if after.progress is not None:
                after = shorten(decoder, bound, after)
            return carry[0] + 1, after

        return jax.lax.while_loop(unfinished, body, (jnp.array(0), slots))[1]

    name = digest("sampling", decoder.decide.__module__, model, mode)
    program = kept(run, name, like=lambda params, slots, *_: slots, donates=(1,))
    return lambda params, slots, seed_key, settings, num_steps: program(
        params, slots, jax.random.key_data(seed_key), settings, np.int32(num_steps)
    )


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Multiplies matrices in 32 bits, where accelerators would take fewer by default.

    A likelihood, and decisions that are the same on every device, need them.
    """

    @wraps(function)
    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return traced


class Given(NamedTuple):
    """What new molecules begin with, an entry a slot.

    Attributes:
        num_given: atoms of the start.
        positions: positions of these atoms, in Å.
        species: indices into the species table.
        limits: what the molecules may become; None without limits.
        scores: scores of the properties; None of a network without any.
    """

    num_given: Int[np.ndarray, " num_slots"]
    positions: Float[np.ndarray, "num_slots num_nodes 3"]
    species: Int[np.ndarray, "num_slots num_nodes"]
    limits: Limits | None
    scores: Float[np.ndarray, "num_slots num_properties"] | None


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def refill(
    decoder: Decoder,
    model: nn.Module,
    slots: Slot,
    indices: Int[Array, " num_slots"],
    given: Any,
) -> Slot:
    """Begins a molecule wherever `indices` is not negative, with what is `Given`."""
    taken = indices >= 0
    num_slots, capacity = given.species.shape
    limited = given.limits is not None
    fresh = empty_slots(decoder, model, capacity, num_slots, limited)._replace(
        num_given=given.num_given,
        given_positions=given.positions,
        given_species=given.species,
        index=indices,
        done=jnp.zeros_like(taken),
        limits=given.limits,
        scores=given.scores,
    )

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(taken.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, fresh, slots)


def generate(
    decoder: Decoder,
    model: nn.Module,
    params: Any,
    indices: Iterator[int],
    seed: int,
    settings: Settings,
    start: Callable[[int], Start],
    mode: str,
    num_slots: int,
    capacity: int,
    steps_per_call: int = 4,
    limited: bool = False,
) -> Iterator[Finished]:
    """Yields molecules as they finish.

    Args:
        decoder: functions of the network.
        model: network.
        params: parameters of the network.
        indices: numbers of the molecules of the seed to build.
        seed: seed of the random numbers.
        settings: temperatures, conditions, largest size.
        start: function from the index of a molecule to the atoms it starts from.
        mode: way to draw positions: `exact` from the density of the network;
            `tempered` from its power by the inverse temperature; `basin` a mode at
            temperature one, which is then narrowed.
        num_slots: molecules under construction at a time.
        capacity: largest number of atoms that a slot holds.
        steps_per_call: steps between two looks at what has finished.
        limited: true where the starts have limits.

    Raises:
        ValueError: A slot holds fewer atoms than a molecule may have.
    """
    if capacity < int(settings.max_atoms):
        least = f"max_atoms, {int(settings.max_atoms)}"
        raise ValueError(f"capacity: expected at least {least}, found {capacity}")
    run, seed_key = make_run(decoder, model, mode), jax.random.key(seed)
    slots = empty_slots(decoder, model, capacity, num_slots, limited)
    held = np.full(num_slots, -1)
    while True:
        new = np.full(num_slots, -1, np.int32)
        free = np.flatnonzero(held < 0)
        taken = list(itertools.islice(indices, len(free)))
        new[free[: len(taken)]] = taken
        held = np.maximum(held, new)
        if np.all(held < 0):
            return
        if taken:
            given = _stack_starts(new, start, capacity, num_properties(model))
            slots = refill(decoder, model, slots, new, given)
        slots = run(params, slots, seed_key, settings, steps_per_call)
        ready = np.flatnonzero(np.asarray(slots.done) & (held >= 0))
        held[ready] = -1
        yield from _harvest(slots, ready)


def _stack_starts(
    indices: Int[np.ndarray, " num_slots"],
    start: Callable[[int], Start],
    capacity: int,
    num_scores: int,
) -> Given:
    """Returns what new molecules begin with; zeros for slots that begin none."""
    num_given = np.zeros(len(indices), np.int32)
    positions = np.zeros((len(indices), capacity, 3), np.float32)
    species = np.zeros((len(indices), capacity), np.int32)
    limits: list[Limits | None] = [None] * len(indices)
    scores = np.zeros((len(indices), num_scores), np.float32) if num_scores else None
    for slot in np.flatnonzero(indices >= 0):
        given = start(int(indices[slot]))
        count = len(given.species)
        num_given[slot] = count
        positions[slot, :count], species[slot, :count] = given.positions, given.species
        limits[slot] = given.limits
        if given.scores is not None:
            scores[slot] = given.scores
    known = next((one for one in limits if one is not None), None)
    stacked = None
    if known is not None:
        rows = [known if one is None else one for one in limits]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)
    return Given(num_given, positions, species, stacked, scores)


def _harvest(slots: Slot, ready: Int[np.ndarray, " num_ready"]) -> Iterator[Finished]:
    """Yields the molecules of slots; arrays come to the host as wholes."""
    if len(ready) == 0:
        return
    fragment = jax.tree.map(np.asarray, slots.fragment)
    index, stopped = np.asarray(slots.index), np.asarray(slots.stopped)
    log_likelihood = np.asarray(slots.log_likelihood)
    log_of_atoms = np.asarray(slots.log_of_atoms)
    progress = jax.tree.map(np.asarray, slots.progress)
    foreseen = None if slots.forecast is None else np.array(slots.forecast)
    for slot in ready:
        num_atoms = fragment.num_atoms[slot]
        within = {} if progress is None else _within(progress, slot)
        yield Finished(
            index=int(index[slot]),
            # Copies: the buffers go to the next step.
            positions=fragment.positions[slot, :num_atoms].copy(),
            species=fragment.species[slot, :num_atoms].copy(),
            stopped=bool(stopped[slot]),
            log_likelihood=float(log_likelihood[slot]),
            log_of_atoms=log_of_atoms[slot, :num_atoms].copy(),
            forecast=None if foreseen is None else foreseen[slot],
            **within,
        )


def _within(progress: Progress, slot: Any) -> dict[str, Any]:
    """Returns what a molecule with limits has beside; arrays of all slots."""
    return {
        "log_constrained": float(progress.log_likelihood[slot]),
        "reason": REASONS.get(int(progress.reason[slot])),
        "num_redrawn": int(progress.all_tries[slot]),
    }
