"""Goes back several atoms where no draw of a step keeps the end in reach.

A molecule that cannot go on loses its last atoms and is drawn on with other random
numbers, which are a function of the seed, its index, the step, and how often it went
back. Its log-likelihoods are those of the atoms that stay. What it keeps is not drawn
anew, so a beginning from which the end is seldom reached is left less often than by
drawing whole molecules until one ends.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from symphony.arrays import Index, NodeMask, NodeScalars, Scalar
from symphony.slots import Decoder, Slot

DEPTHS = (2, 3, 2, 3, 2, 6)
"""Heavy atoms that go, one time after another, and again from the first."""


def go_back(slot: Slot, num_heavy: Index) -> Slot:
    """Returns a slot as it was some atoms before; its cache is still to be shortened.

    Where heavy atoms come first, all hydrogens go, and those of a core wait again. The
    atoms of a start stay.

    Args:
        slot: slot before the step that failed.
        num_heavy: heavy atoms in it.
    """
    progress, count = slot.progress, slot.fragment.num_atoms
    last = jnp.where(slot.limits.heavy_first, num_heavy, count)
    depth = jnp.asarray(DEPTHS)[progress.num_back % len(DEPTHS)]
    stay = jnp.minimum(jnp.maximum(last - depth, slot.num_given), count)
    stays = jnp.arange(len(slot.log_of_atoms)) < stay
    none = jnp.zeros_like(count)
    before = progress._replace(
        tries=none,
        all_tries=progress.all_tries + 1 + count - stay,
        num_back=progress.num_back + 1,
        is_long=jnp.array(True),
        num_returning=none - 1,
        returned=none,
        log_likelihood=_total(progress.log_of_atoms, stays),
    )
    return slot._replace(
        fragment=slot.fragment._replace(num_atoms=stay),
        log_likelihood=_total(slot.log_of_atoms, stays),
        progress=before,
    )


def _total(parts: NodeScalars, stays: NodeMask) -> Scalar:
    """Returns the sum of the parts that stay; atoms of a start have none."""
    return jnp.sum(jnp.where(stays & ~jnp.isnan(parts), parts, 0.0))


def shorten(decoder: Decoder, model: nn.Module, slots: Slot) -> Slot:
    """Takes out of the caches of slots the atoms that they lost.

    Seldom does a slot go back: the others, and steps in which none does, cost nothing.
    """
    is_long = slots.progress.is_long

    def one(slot: Slot) -> Any:
        short = lambda slot: decoder.shorten_cache(model, slot.cache, slot.fragment)
        return jax.lax.cond(slot.progress.is_long, short, lambda slot: slot.cache, slot)

    every = lambda slots: jax.lax.map(one, slots)
    cache = jax.lax.cond(jnp.any(is_long), every, lambda slots: slots.cache, slots)
    progress = slots.progress._replace(is_long=jnp.zeros_like(is_long))
    return slots._replace(cache=cache, progress=progress)
