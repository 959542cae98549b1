"""Tests of going back several atoms, without a network. Positions are in Å."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from symphony import backtracking
from symphony import limits as limiting
from symphony.slots import Decoder, Fragment, Slot

CAPACITY, NAN = 8, np.nan
PARTS = [NAN, NAN, -1.0, -2.0, -4.0, -8.0, -16.0, 0.0]
"""Of two given atoms, and four that were drawn."""


def slot_of(count=7, heavy_first=True, num_back=0, **fields):
    """A slot of two given atoms and others, the first five of them heavy."""
    nothing = jnp.zeros((CAPACITY, 3))
    free = limiting.no_limits(CAPACITY, 4)
    progress = limiting.begin(CAPACITY)._replace(
        tries=jnp.int32(6),
        all_tries=jnp.int32(9),
        num_back=jnp.int32(num_back),
        num_returning=jnp.int32(1),
        returned=jnp.int32(1),
        log_likelihood=jnp.float32(-15.5),
        log_of_atoms=0.5 * jnp.nan_to_num(jnp.array(PARTS)),
    )
    slot = Slot(
        fragment=Fragment(nothing, jnp.zeros(CAPACITY, int), jnp.int32(count)),
        num_given=jnp.int32(2),
        given_positions=nothing,
        given_species=jnp.zeros(CAPACITY, int),
        done=jnp.array(False),
        stopped=jnp.array(False),
        log_likelihood=jnp.float32(-31.0),
        log_of_atoms=jnp.array(PARTS),
        index=jnp.int32(3),
        cache=jnp.float32(count),
        limits=free._replace(heavy_first=np.array(heavy_first)),
        progress=progress,
    )
    return slot._replace(**fields)


def test_what_stays_keeps_its_log_likelihoods_and_hydrogens_wait_again():
    after = backtracking.go_back(slot_of(), num_heavy=jnp.int32(5))
    assert int(after.fragment.num_atoms) == 3
    assert float(after.log_likelihood) == -1.0
    progress = after.progress
    assert float(progress.log_likelihood) == -0.5
    assert (int(progress.num_returning), int(progress.returned)) == (-1, 0)
    assert (int(progress.tries), int(progress.num_back)) == (0, 1)
    # The draw that failed, and the four atoms that went, are counted.
    assert int(progress.all_tries) == 9 + 1 + 4


@pytest.mark.parametrize("num_back", range(8))
def test_atoms_of_a_start_never_go(num_back):
    after = backtracking.go_back(slot_of(num_back=num_back), jnp.int32(3))
    assert int(after.fragment.num_atoms) == 2
    assert float(after.log_likelihood) == 0.0


def test_where_hydrogens_are_mixed_in_atoms_of_any_kind_go():
    after = backtracking.go_back(slot_of(heavy_first=False), jnp.int32(5))
    assert int(after.fragment.num_atoms) == 7 - backtracking.DEPTHS[0]
    assert float(after.log_likelihood) == -7.0


def test_only_caches_of_molecules_that_went_back_are_shortened():
    def shorten(model, cache, fragment):
        return fragment.num_atoms.astype(cache.dtype)

    decoder = Decoder(None, None, None, shorten)
    slots = [slot_of(), backtracking.go_back(slot_of(), jnp.int32(5))]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *slots)
    after = backtracking.shorten(decoder, nn.Module(), stacked)
    assert after.cache.tolist() == [7.0, 3.0]
    assert not after.progress.is_long.any()
