"""Takes a step of a molecule that has limits; see `symphony.limits`.

An atom that closes the way to the end is taken back, and the step drawn anew; see also
`symphony.backtracking`. Hydrogens of a core that wait come back once no heavy atom is
drawn any more. Positions are in Å.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from symphony.arrays import Flag, Index, RandomKey
from symphony.backtracking import go_back
from symphony.limits import (
    CROWDED,
    FULL,
    HOPELESS,
    MOST_TRIES,
    STOPPED,
    STUCK,
    TRIES,
    Census,
    allow,
    choose_returning,
    clashes,
    judge,
    take_census,
)
from symphony.slots import (
    Decoder,
    Placement,
    Settings,
    Slot,
    grow,
    where,
    with_forecast,
)
from symphony.valence import Table, table_of

LUCK = 1
"""Folded into the key of a step for what `judge` draws."""


def advance_within(
    decoder: Decoder,
    model: nn.Module,
    slot: Slot,
    seed_key: RandomKey,
    settings: Settings,
    mode: str,
) -> Slot:
    """Takes one step of a slot with limits; see `advance` and `symphony.limits`.

    An atom that closes the way to the end is taken back, and the step drawn anew; after
    `TRIES` of these, the molecule goes back further.
    """
    table, limits = table_of(tuple(model.atomic_numbers)), slot.limits
    before = _census(table, slot)
    allowed = allow(limits, before)
    new, tries = slot.fragment.num_atoms, slot.progress.tries
    key = jax.random.fold_in(jax.random.fold_in(seed_key, slot.index), new)
    stream = tries + (TRIES + 1) * slot.progress.num_back
    key = jax.lax.select(stream == 0, key, jax.random.fold_in(key, stream))
    drawn = decoder.decide(
        model, slot.cache, slot.fragment, key, settings, mode, allowed
    )
    slot = with_forecast(slot, drawn)
    is_given = new < slot.num_given
    is_heavy = jnp.asarray(table.is_heavy)[drawn.species]
    slot = _begin_closing(slot, before, drawn, ~is_given & ~is_heavy)
    step, is_drawn = _choose_step(table, slot, drawn)
    grown = grow(decoder, model, slot, step, settings, is_drawn)
    luck = jax.random.uniform(jax.random.fold_in(key, LUCK))
    verdict = judge(limits, before, _census(table, grown), luck)
    in_place = verdict.in_place & ~clashes(limits, step.position, is_heavy)
    places = is_drawn & ~step.stop & ~step.stuck
    is_bad = places & ~(verdict.in_reach & in_place)
    is_full = new >= jnp.maximum(settings.max_atoms, slot.num_given)
    reason = jnp.select(
        [is_drawn & step.stop & ~step.stuck, is_full, is_drawn & step.stuck],
        [STOPPED, FULL, STUCK],
        jnp.where(in_place, HOPELESS, CROWDED),
    )
    may_stay = in_place & ~verdict.hopeless
    return _settle(slot, before.num_heavy, grown, step, reason, is_bad, may_stay)


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
    num_heavy: Index,
    grown: Slot,
    step: Placement,
    reason: Index,
    is_bad: Flag,
    may_stay: Flag,
) -> Slot:
    """Returns the slot after a step: grown, ended, as it was, or some atoms before.

    Args:
        slot: slot before the step.
        num_heavy: heavy atoms in it.
        grown: slot with the atom of the step.
        step: what was drawn or given.
        reason: why it ends, if it does.
        is_bad: true if the atom closes the way to the end.
        may_stay: false if the molecule ends where such an atom is not drawn anew.
    """
    progress = slot.progress
    may_redraw = (progress.all_tries < MOST_TRIES) & (reason != FULL)
    again = is_bad & may_redraw & (progress.tries < TRIES)
    back = (is_bad | (reason == STUCK)) & may_redraw & ~again
    ends = ((reason <= STUCK) & ~back) | (is_bad & ~again & ~back & ~may_stay)
    stops = reason == STOPPED
    more = progress.num_returning > progress.returned
    came = more & ~ends & (slot.fragment.num_atoms >= slot.num_given)
    log_p = jnp.where((ends & ~stops) | again, 0.0, step.log_constrained)
    at_new = jnp.arange(len(progress.log_of_atoms)) == slot.fragment.num_atoms
    progress = progress._replace(
        tries=jnp.where(again, progress.tries + 1, 0),
        all_tries=progress.all_tries + again,
        returned=progress.returned + came,
        reason=jnp.where(ends, reason, progress.reason),
        log_likelihood=progress.log_likelihood + log_p,
        log_of_atoms=jnp.where(at_new, log_p, progress.log_of_atoms),
    )
    log_p = jnp.where(stops, step.log_likelihood, 0.0)
    stays = slot._replace(log_likelihood=slot.log_likelihood + log_p)
    after = where(ends | again, stays, grown)
    after = after._replace(progress=progress, done=ends, stopped=stops)
    after = where(back, go_back(slot, num_heavy), after)
    return where(slot.done, slot, after)
