"""How likely a formula is still met, by the hydrogens that are too many.

The surplus of a molecule under construction is the number of hydrogens that it would
have if each heavy atom to come had one single bond with those before, less that of the
formula. Each ring, and each order of a bond above one, takes two of it.
"""

import jax.numpy as jnp
import numpy as np

from symphony.arrays import Index, Scalar

_SHARES = (
    (1000,),
    (400, 44, 354, 42, 117, 8, 12),
    (179, 29, 360, 52, 284, 24, 58, 4, 6),
    (78, 12, 277, 32, 371, 41, 127, 14, 39, 4, 4),
    (41, 5, 149, 20, 383, 51, 231, 30, 76, 10, 14, 2, 3),
    (20, 3, 86, 10, 295, 34, 334, 29, 142, 15, 31, 4, 6),
    (10, 2, 71, 5, 230, 26, 359, 37, 179, 22, 49, 9, 10),
    (9, 2, 48, 4, 181, 17, 365, 17, 241, 15, 91, 9, 20),
    (4, 1, 29, 2, 125, 9, 317, 12, 322, 14, 134, 9, 25),
)
"""Molecules of 1,000 that have a surplus of 0, 1, ... where so many heavy atoms come.

Counted on 591 molecules that the packaged weights drew freely, each with its own
formula: so it is the law of what the atoms to come take, whatever was before. Odd ones
are errors of the open valences.
"""

MOST_KNOWN = len(_SHARES)
"""Heavy atoms to come from which on nothing is known."""

_MOST = max(map(len, _SHARES))
_TABLE = np.zeros((len(_SHARES), _MOST), np.float32)
for _row, _shares in zip(_TABLE, _SHARES, strict=True):
    _row[: len(_shares)] = _shares
_TABLE[1:] = np.maximum(_TABLE[1:], 0.1)
_BEST = np.maximum.accumulate(_TABLE, axis=1)


def chance(before: Index, after: Index, num_left: Index) -> Scalar:
    """Returns how likely the end is, over that of the best atom that might be placed.

    An atom takes of the surplus or leaves it, so the best one leaves no more than there
    was.

    >>> float(chance(jnp.int32(4), jnp.int32(4), jnp.int32(0)))
    0.0
    >>> float(chance(jnp.int32(0), jnp.int32(0), jnp.int32(5)))
    1.0

    Args:
        before: surplus before an atom was placed.
        after: surplus with it.
        num_left: heavy atoms that come after it, fewer than `MOST_KNOWN`.
    """
    row = jnp.minimum(num_left, MOST_KNOWN - 1)
    column = lambda surplus: jnp.clip(surplus, 0, _MOST - 1)
    share = jnp.asarray(_TABLE)[row, column(after)]
    best = jnp.asarray(_BEST)[row, column(jnp.maximum(before, after))]
    is_within = (after >= 0) & (after < _MOST)
    return jnp.where(is_within, share / jnp.maximum(best, 0.1), 0.0)
