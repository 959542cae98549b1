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

from common.nn.conditions import Known
from symphony.arrays import (
    Flag,
    HostPositions,
    Index,
    Positions,
    RandomKey,
    Scalar,
    Species,
    Vector,
)
from symphony.limits import (
    CROWDED,
    FULL,
    HOPELESS,
    MOST_TRIES,
    REASONS,
    STOPPED,
    STUCK,
    TRIES,
    Allowed,
    Census,
    Limits,
    Progress,
    allow,
    begin,
    choose_returning,
    clashes,
    judge,
    no_limits,
    take_census,
)
from symphony.masks import draw_masked, is_empty, log_masked, mask_logits
from symphony.valence import Table, table_of


class Settings(NamedTuple):
    """Settings of the sampler.

    Attributes:
        focus_temperature: temperature of stopping, focus and species.
        position_temperature: temperature of the density of positions: a power of those
            of radius and coarse direction, a width in the fine stage.
        basin_temperature: temperature of each mode of the position; its weight stays.
        conditions: conditions of the network, `noise_std` among them.
        max_atoms: largest number of atoms; a larger molecule is ended, not stopped.
    """

    focus_temperature: Scalar
    position_temperature: Scalar
    basin_temperature: Scalar
    conditions: dict[str, Known]
    max_atoms: Index


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
    """

    stop: Flag
    species: Index
    position: Vector
    log_likelihood: Scalar
    log_constrained: Scalar | None = None
    stuck: Flag | None = None


class Decoder(NamedTuple):
    """Functions of a model for the sampler; see `symphony.decisions`."""

    empty_cache: Callable[..., Any]
    extend_cache: Callable[..., Any]
    decide: Callable[..., Placement]


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
        index: number of the molecule of the seed; -1 in an empty slot.
        cache: features that the model keeps of the placed atoms.
        limits: what the molecule may become; None without limits.
        progress: how far it is within them; None without limits.
    """

    fragment: Fragment
    num_given: Index
    given_positions: Positions
    given_species: Species
    done: Flag
    stopped: Flag
    log_likelihood: Scalar
    index: Index
    cache: Any
    limits: Limits | None = None
    progress: Progress | None = None


class Start(NamedTuple):
    """Atoms that a molecule starts from, possibly none; in the order of placement.

    Attributes:
        positions: positions of the atoms, in Å.
        species: indices into the species table.
        limits: what the molecule may become, see `symphony.limits`; None where every
            molecule of a call is free.
    """

    positions: Float[np.ndarray, "num_given 3"]
    species: Int[np.ndarray, " num_given"]
    limits: Limits | None = None


class Finished(NamedTuple):
    """A molecule as it left the sampler.

    Attributes:
        index: number of the molecule of the seed.
        positions: positions in Å, in the order of placement.
        species: indices into the species table.
        stopped: false if it would have grown beyond the largest number of atoms.
        log_likelihood: log-likelihood in nats, see `Slot`.
        log_constrained: log-likelihood under the limits; None without limits.
        reason: why it did not stop, where there are limits.
        num_redrawn: draws that were taken back, where there are limits.
    """

    index: int
    positions: HostPositions
    species: Int[np.ndarray, " num_atoms"]
    stopped: bool
    log_likelihood: float
    log_constrained: float | None = None
    reason: str | None = None
    num_redrawn: int = 0


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
        index=zero - 1,
        cache=decoder.empty_cache(model, capacity),
    )
    if limited:
        free = no_limits(capacity, len(model.atomic_numbers))
        blank = blank._replace(limits=free, progress=begin(capacity))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, *x.shape)), blank)


def first_or_next(
    key: RandomKey,
    logits: Float[Array, " num_species"],
    settings: Settings,
    fragment: Fragment,
    drawn: Placement,
    allowed: Allowed | None = None,
) -> Placement:
    """Returns what was drawn, or a first atom at the origin where there is none yet."""
    masked = None if allowed is None else mask_logits(logits, allowed.first)
    species = draw_masked(key, logits, masked, settings.focus_temperature)
    first = Placement(
        stop=jnp.array(False),
        species=species.astype(jnp.int32),
        position=jnp.zeros(3),
        log_likelihood=jax.nn.log_softmax(logits)[species],
        log_constrained=log_masked(masked, species),
        stuck=None if masked is None else is_empty(masked),
    )
    return where(fragment.num_atoms == 0, first, drawn)


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
    if slot.limits is not None:
        return _advance_within(decoder, model, slot, seed_key, settings, mode)
    fragment = slot.fragment
    new, capacity = fragment.num_atoms, fragment.species.shape[0]
    key = jax.random.fold_in(jax.random.fold_in(seed_key, slot.index), new)
    drawn = decoder.decide(model, slot.cache, fragment, key, settings, mode)
    place = jnp.minimum(new, capacity - 1)
    given = Placement(
        stop=jnp.array(False),
        species=slot.given_species[place],
        position=slot.given_positions[place],
        log_likelihood=jnp.zeros(()),
    )
    is_given = new < slot.num_given
    step = where(is_given, given, drawn)
    after = _grow(decoder, model, slot, step, settings)
    is_full = new >= jnp.maximum(settings.max_atoms, slot.num_given)
    true, total = jnp.array(True), after.log_likelihood
    stopped = slot._replace(log_likelihood=total, done=true, stopped=true)
    after = where(is_full, slot._replace(done=is_full), after)
    return where(slot.done, slot, where(step.stop, stopped, after))


def _advance_within(
    decoder: Decoder,
    model: nn.Module,
    slot: Slot,
    seed_key: RandomKey,
    settings: Settings,
    mode: str,
) -> Slot:
    """Takes one step of a slot with limits; see `advance` and `symphony.limits`.

    An atom that closes the way to the end is taken back, and the step drawn anew.
    """
    table, limits = table_of(tuple(model.atomic_numbers)), slot.limits
    before = _census(table, slot)
    allowed = allow(limits, before)
    new, tries = slot.fragment.num_atoms, slot.progress.tries
    key = jax.random.fold_in(jax.random.fold_in(seed_key, slot.index), new)
    key = jax.lax.select(tries == 0, key, jax.random.fold_in(key, tries))
    drawn = decoder.decide(
        model, slot.cache, slot.fragment, key, settings, mode, allowed
    )
    is_given = new < slot.num_given
    is_heavy = jnp.asarray(table.is_heavy)[drawn.species]
    slot = _begin_closing(slot, before, drawn, ~is_given & ~is_heavy)
    step, is_drawn = _choose_step(table, slot, drawn)
    grown = _grow(decoder, model, slot, step, settings)
    verdict = judge(limits, before, _census(table, grown))
    in_place = verdict.in_place & ~clashes(limits, step.position, is_heavy)
    places = is_drawn & ~step.stop & ~step.stuck
    is_bad = places & ~(verdict.in_reach & in_place)
    is_full = new >= jnp.maximum(settings.max_atoms, slot.num_given)
    reason = jnp.select(
        [is_drawn & step.stop & ~step.stuck, is_full, is_drawn & step.stuck],
        [STOPPED, FULL, STUCK],
        jnp.where(in_place, HOPELESS, CROWDED),
    )
    return _settle(slot, grown, step, reason, is_bad, in_place & ~verdict.hopeless)


def _census(table: Table, slot: Slot) -> Census:
    fragment = slot.fragment
    atoms = (fragment.positions, fragment.species, fragment.num_atoms)
    return take_census(table, slot.limits, slot.progress, *atoms)


def _begin_closing(
    slot: Slot, before: Census, drawn: Placement, no_heavy: Flag
) -> Slot:
    """Lets hydrogens that wait come back once no heavy atom is drawn any more."""
    limits, progress = slot.limits, slot.progress
    closes = no_heavy | drawn.stop | drawn.stuck
    closes &= (slot.fragment.num_atoms >= slot.num_given) & (limits.num_kept > 0)
    closes &= progress.num_returning < 0
    order, count = choose_returning(limits, before, slot.fragment.positions)
    begun = progress._replace(returning=order, num_returning=count)
    return slot._replace(progress=where(closes & ~slot.done, begun, progress))


def _choose_step(table: Table, slot: Slot, drawn: Placement) -> tuple[Placement, Flag]:
    """Returns a given atom, a hydrogen that comes back, or what was drawn; and which.

    The second value is true for what was drawn.
    """
    limits, progress = slot.limits, slot.progress
    new, last = slot.fragment.num_atoms, slot.fragment.species.shape[0] - 1
    at, turn = jnp.minimum(new, last), jnp.minimum(progress.returned, last)
    nothing = drawn._replace(
        stop=jnp.array(False),
        log_likelihood=jnp.zeros(()),
        log_constrained=jnp.zeros(()),
        stuck=jnp.array(False),
    )
    given = nothing._replace(
        species=slot.given_species[at], position=slot.given_positions[at]
    )
    back = nothing._replace(
        species=jnp.int32(np.argmin(table.is_heavy)),
        position=limits.kept[progress.returning[turn]],
    )
    is_given, comes = new < slot.num_given, progress.num_returning > progress.returned
    step = where(is_given, given, where(comes, back, drawn))
    return step, ~is_given & ~comes


def _settle(
    slot: Slot,
    grown: Slot,
    step: Placement,
    reason: Index,
    is_bad: Flag,
    may_stay: Flag,
) -> Slot:
    """Returns the slot after a step: grown, ended, or as it was and to be drawn anew.

    Args:
        slot: slot before the step.
        grown: slot with the atom of the step.
        step: what was drawn or given.
        reason: why it ends, if it does.
        is_bad: true if the atom closes the way to the end.
        may_stay: false if the molecule ends where such an atom is not drawn anew.
    """
    progress = slot.progress
    again = is_bad & (progress.tries < TRIES) & (progress.all_tries < MOST_TRIES)
    again &= reason != FULL
    ends = (reason <= STUCK) | (is_bad & ~again & ~may_stay)
    stops = reason == STOPPED
    more = progress.num_returning > progress.returned
    came = more & ~ends & (slot.fragment.num_atoms >= slot.num_given)
    log_p = jnp.where((ends & ~stops) | again, 0.0, step.log_constrained)
    progress = progress._replace(
        tries=jnp.where(again, progress.tries + 1, 0),
        all_tries=progress.all_tries + again,
        returned=progress.returned + came,
        reason=jnp.where(ends, reason, progress.reason),
        log_likelihood=progress.log_likelihood + log_p,
    )
    log_p = jnp.where(stops, step.log_likelihood, 0.0)
    stays = slot._replace(log_likelihood=slot.log_likelihood + log_p)
    after = where(ends | again, stays, grown)
    after = after._replace(progress=progress, done=ends, stopped=stops)
    return where(slot.done, slot, after)


def where(condition: Flag, yes: Any, no: Any) -> Any:
    """Chooses between two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _grow(
    decoder: Decoder, model: nn.Module, slot: Slot, step: Placement, settings: Settings
) -> Slot:
    """Returns the slot with one more atom, in its cache too."""
    before = slot.fragment
    at_new = jnp.arange(before.species.shape[0]) == before.num_atoms
    fragment = Fragment(
        positions=jnp.where(at_new[:, None], step.position, before.positions),
        species=jnp.where(at_new, step.species, before.species),
        num_atoms=before.num_atoms + 1,
    )
    return slot._replace(
        fragment=fragment,
        cache=decoder.extend_cache(model, slot.cache, fragment, settings.conditions),
        log_likelihood=slot.log_likelihood + step.log_likelihood,
    )


@cache
def make_run(
    decoder: Decoder, model: nn.Module, mode: str
) -> Callable[[Any, Slot, RandomKey, Settings, Array], Slot]:
    """Returns the compiled loop `(params, slots, seed_key, settings, num_steps)`.

    It ends after `num_steps` steps, or when every slot is done.
    """

    @partial(jax.jit, donate_argnums=1, compiler_options=compiler_options())
    @in_full_precision
    def run(
        params: Any,
        slots: Slot,
        seed_key: RandomKey,
        settings: Settings,
        num_steps: Index,
    ) -> Slot:
        bound = model.bind(params)
        one = lambda slot: advance(decoder, bound, slot, seed_key, settings, mode)

        def unfinished(carry: tuple[Array, Slot]) -> Flag:
            return (carry[0] < num_steps) & ~jnp.all(carry[1].done)

        def body(carry: tuple[Array, Slot]) -> tuple[Array, Slot]:
            return carry[0] + 1, jax.vmap(one)(carry[1])

        return jax.lax.while_loop(unfinished, body, (jnp.array(0), slots))[1]

    return run


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Multiplies matrices in 32 bits, where accelerators would take fewer by default.

    A likelihood, and decisions that are the same on every device, need them.
    """

    @wraps(function)
    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return traced


def compiler_options() -> dict[str, Any]:
    """Spends less on machine code for a CPU: a quarter off, and no slower a loop."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": 1}


class Given(NamedTuple):
    """What new molecules begin with, an entry a slot.

    Attributes:
        num_given: atoms of the start.
        positions: positions of these atoms, in Å.
        species: indices into the species table.
        limits: what the molecules may become; None without limits.
    """

    num_given: Int[np.ndarray, " num_slots"]
    positions: Float[np.ndarray, "num_slots num_nodes 3"]
    species: Int[np.ndarray, "num_slots num_nodes"]
    limits: Limits | None


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
            given = _stack_starts(new, start, capacity)
            slots = refill(decoder, model, slots, new, given)
        slots = run(params, slots, seed_key, settings, steps_per_call)
        ready = np.flatnonzero(np.asarray(slots.done) & (held >= 0))
        held[ready] = -1
        yield from _harvest(slots, ready)


def _stack_starts(
    indices: Int[np.ndarray, " num_slots"], start: Callable[[int], Start], capacity: int
) -> Given:
    """Returns what new molecules begin with; zeros for slots that begin none."""
    num_given = np.zeros(len(indices), np.int32)
    positions = np.zeros((len(indices), capacity, 3), np.float32)
    species = np.zeros((len(indices), capacity), np.int32)
    limits: list[Limits | None] = [None] * len(indices)
    for slot in np.flatnonzero(indices >= 0):
        given = start(int(indices[slot]))
        count = len(given.species)
        num_given[slot] = count
        positions[slot, :count], species[slot, :count] = given.positions, given.species
        limits[slot] = given.limits
    known = next((one for one in limits if one is not None), None)
    stacked = None
    if known is not None:
        rows = [known if one is None else one for one in limits]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)
    return Given(num_given, positions, species, stacked)


def _harvest(slots: Slot, ready: Int[np.ndarray, " num_ready"]) -> Iterator[Finished]:
    """Yields the molecules of slots; arrays come to the host as wholes."""
    if len(ready) == 0:
        return
    fragment = jax.tree.map(np.asarray, slots.fragment)
    index, stopped = np.asarray(slots.index), np.asarray(slots.stopped)
    log_likelihood = np.asarray(slots.log_likelihood)
    progress = jax.tree.map(np.asarray, slots.progress)
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
            **within,
        )


def _within(progress: Progress, slot: Any) -> dict[str, Any]:
    """Returns what a molecule with limits has beside; arrays of all slots."""
    return {
        "log_constrained": float(progress.log_likelihood[slot]),
        "reason": REASONS.get(int(progress.reason[slot])),
        "num_redrawn": int(progress.all_tries[slot]),
    }
