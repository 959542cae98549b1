"""Molecules to be: the atoms that they start from, and the arrays of their limits.

A core is taken apart: atoms that are placed first, in an order that is drawn for each
molecule, and hydrogens that wait until the heavy atoms are there. `put_back` joins what
was built with the core as it was given. Positions are in Å.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from symphony import data, wishes
from symphony.arrays import AtomicNumbers, HostPositions
from symphony.limits import UNLIMITED, Limits, no_limits
from symphony.options import Core
from symphony.slots import Start
from symphony.wishes import Wishes


class Target(NamedTuple):
    """What one molecule shall be.

    Attributes:
        core: atomic numbers and positions (Å) that it starts from; none where None.
        first: atoms of the core that are placed first.
        waiting: hydrogens of the core that may come back later.
        limits: what it may become, its nodes being `first` and then what is drawn.
    """

    core: Core | None
    first: Int[np.ndarray, " num_first"]
    waiting: Int[np.ndarray, " num_waiting"]
    limits: Limits


def make_target(
    core: Core | None,
    asked: Wishes,
    config: Any,
    capacity: int,
    spare: Int[np.ndarray, " num_given"] | None = None,
) -> Target:
    """Returns what a molecule shall be.

    Args:
        core: atoms that it starts from; none where None.
        asked: what a user asks.
        config: config of the weights.
        capacity: largest number of atoms that a slot holds.
        spare: hydrogens that each atom of the core may bear in all; where None, by its
            bonds if its hydrogens are set aside, else not limited.
    """
    species = tuple(config.data.species)
    numbers = np.zeros(0, np.uint8) if core is None else core[0]
    limits = no_limits(capacity, len(species))._replace(
        most=wishes.most_of(asked, species, numbers),
        exact=np.array(asked.formula is not None),
        most_heavy=np.int32(asked.max_heavy or UNLIMITED),
        heavy_first=np.array(bool(config.data.heavy_first)),
    )
    if asked.formula is not None:
        total = sum(asked.formula.values())
        limits = limits._replace(fewest_atoms=np.int32(0), most_atoms=np.int32(total))
    if asked.num_atoms is not None:
        low, high = map(np.int32, asked.num_atoms)
        limits = limits._replace(fewest_atoms=low, most_atoms=high)
    if core is None:
        return Target(None, np.zeros(0, int), np.zeros(0, int), limits)
    return _with_core(core, asked, config, limits, spare)


def _with_core(
    core: Core,
    asked: Wishes,
    config: Any,
    limits: Limits,
    spare: Int[np.ndarray, " num_given"] | None,
) -> Target:
    numbers, positions = core
    first, waiting = _take_apart(numbers, positions, asked, config)
    is_apart = asked.attach is not None
    if spare is None and is_apart:
        spare = wishes.open_valences(numbers, positions, tuple(config.data.species))
    if spare is not None:
        limits = _bound(limits, core, first, spare, tuple(config.data.species))
    if is_apart:
        grows = limits.may_grow.copy()
        grows[: len(first)] = np.isin(first, asked.attach)
        limits = limits._replace(may_grow=grows)
        limits = _let_wait(limits, core, first, waiting, asked)
    return Target(core, first, waiting, limits)


def _take_apart(
    numbers: AtomicNumbers, positions: HostPositions, asked: Wishes, config: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the atoms that are placed first, and the hydrogens that wait."""
    every = np.arange(len(numbers))
    if asked.attach is None:
        return every, every[:0]
    parents = wishes.parents_of(numbers, positions)
    drawn_anew = (numbers == 1) & np.isin(parents, asked.attach)
    if not config.data.heavy_first:
        # Such weights place hydrogens at any time.
        return every[~drawn_anew], every[:0]
    waits = (numbers == 1) & (~drawn_anew | asked.keep_hydrogens)
    return every[numbers > 1], every[waits]


def _bound(
    limits: Limits,
    core: Core,
    first: np.ndarray,
    spare: Int[np.ndarray, " num_given"],
    species: tuple[int, ...],
) -> Limits:
    """Limits the neighbours of the atoms of a core to those that they have or had."""
    from symphony.valence import bonds_of

    numbers, positions = core
    heavy = numbers > 1
    own = np.zeros(len(numbers), np.int64)
    own[heavy] = bonds_of(numbers[heavy], positions[heavy], species).bonded.sum(axis=1)
    most = limits.most_bonded.copy()
    most[: len(first)] = np.where(heavy[first], (own + spare)[first], 1)
    return limits._replace(most_bonded=most)


def _let_wait(
    limits: Limits,
    core: Core,
    first: np.ndarray,
    waiting: np.ndarray,
    asked: Wishes,
) -> Limits:
    numbers, positions = core
    parents = wishes.parents_of(numbers, positions)[waiting]
    kept, parent = limits.kept.copy(), limits.parent.copy()
    always = limits.always.copy()
    kept[: len(waiting)] = centred(core)[waiting]
    node_of = np.zeros(len(numbers), np.int32)
    node_of[first] = np.arange(len(first))
    parent[: len(waiting)] = node_of[parents]
    always[: len(waiting)] = ~np.isin(parents, asked.attach)
    return limits._replace(
        kept=kept, parent=parent, always=always, num_kept=np.int32(len(waiting))
    )


def centred(core: Core) -> HostPositions:
    """Returns the positions of a core as the network gets them."""
    return (core[1] - centre(core)).astype(np.float32)


def centre(core: Core) -> np.ndarray:
    """Returns the mean of the positions of a core."""
    return core[1].astype(np.float64).mean(axis=0)


def start(target: Target, order: Int[np.ndarray, " num_first"], config: Any) -> Start:
    """Returns the atoms that a molecule starts from, in their order of placement.

    Args:
        target: what it shall be.
        order: order of the atoms of `target.first`, as indices into it.
        config: config of the weights.
    """
    if target.core is None:
        none = np.zeros((0, 3), np.float32), np.zeros(0, np.int32)
        return Start(*none, target.limits)
    atoms = target.first[order]
    species = data.to_species(target.core[0], tuple(config.data.species))
    limits, count = target.limits, len(order)
    inverse = np.argsort(order).astype(np.int32)
    moved = lambda nodes: np.concatenate([nodes[:count][order], nodes[count:]])
    num_kept = int(limits.num_kept)
    parent = limits.parent.copy()
    parent[:num_kept] = inverse[parent[:num_kept]]
    limits = limits._replace(
        may_grow=moved(limits.may_grow),
        most_bonded=moved(limits.most_bonded),
        parent=parent,
    )
    return Start(centred(target.core)[atoms], species[atoms], limits)


def put_back(
    target: Target, atomic_numbers: AtomicNumbers, positions: HostPositions
) -> tuple[AtomicNumbers, HostPositions, int]:
    """Returns a molecule in the frame of its core, and how many atoms are the core's.

    These come first, in the order and at the coordinates in which they were given.

    Args:
        target: what it should be.
        atomic_numbers: nuclear charges in the order of placement.
        positions: positions in the frame of the network, in Å.
    """
    core = target.core
    if core is None:
        return atomic_numbers, positions, 0
    num_first = len(target.first)
    kept = centred(core)[target.waiting]
    same = np.all(positions[num_first:, None] == kept[None], axis=-1)
    same &= (atomic_numbers[num_first:] == 1)[:, None]
    came = same.any(axis=0)
    own = np.sort(np.concatenate([target.first, target.waiting[came]]))
    drawn = ~same.any(axis=1)
    new = (positions[num_first:][drawn] + centre(core)).astype(np.float32)
    return (
        np.concatenate([core[0][own], atomic_numbers[num_first:][drawn]]),
        np.concatenate([core[1][own], new]),
        len(own),
    )
