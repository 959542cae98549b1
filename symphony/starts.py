"""Starts of molecules: the atoms of a user's fragment, in an order of placement.

The order of each molecule is drawn by the law of training. A fragment is centred for
the network. Positions are in Å.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from symphony import build, data
from symphony.arrays import AtomicNumbers, HostPositions, Index, NodeIndices
from symphony.options import Core
from symphony.slots import Start
from symphony.weights import Weights

_ORDER_STREAM = 1_000_000  # Beyond every step of a molecule.


def _centre(core: Core) -> Float[np.ndarray, " 3"]:
    return core[1].astype(np.float64).mean(axis=0)


def orders(
    weights: Weights, core: Core | None, seed: int
) -> Callable[[int], Int[np.ndarray, " num_given"]]:
    """Returns the function that draws in which order a molecule takes the core in.

    The draw is by the law of the cut in training, and depends on seed and index alone.
    """
    if core is None:
        return lambda index: np.zeros(0, np.int32)
    config = ml_collections.FrozenConfigDict(weights.config)
    species = data.to_species(core[0], tuple(config.data.species))
    positions = (core[1] - _centre(core)).astype(np.float32)
    # Fragments of similar size share one compiled program.
    count = len(species)
    missing = -count % 8
    arrays = (
        np.pad(positions, ((0, missing), (0, 0))),
        np.pad(species, (0, missing)),
        np.arange(count + missing) < count,
    )

    def order(index: int) -> Int[np.ndarray, " num_given"]:
        return np.asarray(_order(config, seed, index, *arrays))[:count]

    return order


@partial(jax.jit, static_argnums=0)
def _order(
    config: ml_collections.FrozenConfigDict,
    seed: Index | int,
    index: Index | int,
    *arrays: Any,
) -> NodeIndices:
    key = jax.random.fold_in(jax.random.key(seed), index)
    return build.draw_cut(config, jax.random.fold_in(key, _ORDER_STREAM), *arrays).order


def start(
    core: Core | None,
    order_of: Callable[[int], Int[np.ndarray, " num_given"]],
    config: Any,
    index: int,
) -> Start:
    """Returns the atoms that a molecule starts from, in their order of placement.

    Args:
        core: fragment as given; none where None.
        order_of: function of the index of a molecule, see `orders`.
        config: config of the weights.
        index: number of the molecule of the seed.
    """
    if core is None:
        return Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    order = order_of(index)
    species = data.to_species(core[0], tuple(config.data.species))
    positions = (core[1] - _centre(core)).astype(np.float32)
    return Start(positions[order], species[order])


def put_back(
    core: Core | None, atomic_numbers: AtomicNumbers, positions: HostPositions
) -> tuple[AtomicNumbers, HostPositions]:
    """Returns a molecule in the frame of the core, whose own atoms are as given."""
    if core is None:
        return atomic_numbers, positions
    count = len(core[0])
    drawn = (positions[count:] + _centre(core)).astype(np.float32)
    return (
        np.concatenate([core[0], atomic_numbers[count:]]),
        np.concatenate([core[1], drawn]),
    )
