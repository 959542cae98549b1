"""Molecules of a seed, drawn in order: what the sampler and the commands share.

Molecule `i` of a seed is the same however many are asked for. Positions are in Å.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from common.commands import cli
from common.errors import UsageError
from symphony import asking, build, columns, guidance, starts, targets
from symphony.conditions import names_of, some_known
from symphony.generate import Finished, generate
from symphony.manifest import Sample
from symphony.options import Core, Options
from symphony.slots import Settings, Start
from symphony.targets import Target
from symphony.weights import Weights

CPU_SLOTS, ACCELERATOR_SLOTS = 16, 256
"""Molecules under construction at a time: more gain nothing on a CPU."""

MOST = 2**31 - 1
"""Molecules of a seed, at most."""


def draw(
    weights: Weights,
    options: Options,
    seed: int,
    first: int,
    end: int,
    num_slots: int | None,
) -> Iterator[Sample]:
    """Returns an iterator over the molecules `first..end - 1` of a seed, in order.

    Args:
        weights: trained model.
        options: checked options; see `choose`.
        seed: seed of the random numbers.
        first: index of the first molecule.
        end: index after the last one.
        num_slots: molecules under construction at a time. It changes no molecule but
            for the rounding of floats. The device decides where it is None.

    Raises:
        UsageError: A number is out of range; before anything is drawn.
    """
    num_slots = choose_slots(num_slots)
    count = options.candidates
    check_numbers(seed, end * count, num_slots)
    drawn = _draw(weights, options, seed, first * count, end * count, num_slots)
    return drawn if count == 1 else asking.nearest(drawn, count, weights.columns)


def choose_slots(num_slots: int | None) -> int:
    """Returns the number of molecules built at a time; the device's where None."""
    if num_slots is not None:
        return num_slots
    on_cpu = jax.default_backend() == "cpu"
    return CPU_SLOTS if on_cpu else ACCELERATOR_SLOTS


def check_numbers(seed: int, num_molecules: int, num_slots: int | None) -> None:
    """Raises `UsageError` for numbers that no sampler can do with."""
    if num_molecules < 1 or (num_slots is not None and num_slots < 1):
        slots = "" if num_slots is None else f" and {num_slots}"
        raise UsageError(
            "expected --num_molecules and --num_slots of at least 1, found "
            f"{num_molecules}{slots}"
        )
    if max(num_molecules, num_slots or 1) > MOST:
        raise UsageError(
            f"expected --num_molecules and --num_slots of at most {MOST}, found "
            f"{max(num_molecules, num_slots or 1)}"
        )
    cli.check_seed(seed)


def _draw(
    weights: Weights, options: Options, seed: int, first: int, end: int, num_slots: int
) -> Iterator[Sample]:
    config, core = weights.config, options.core
    if options.wishes:
        target = targets.make_target(core, options.wishes, config, capacity_of(options))
        yield from draw_targets(
            weights, options, seed, range(first, end), num_slots, lambda index: target
        )
        return
    order_of = starts.orders(weights, core, seed)
    start = partial(starts.start, core, order_of, config)
    species_table = np.array(config.data.species, np.uint8)
    indices = iter(range(first, end))
    finished = _generate(weights, options, seed, indices, num_slots, start, False)
    for one in _in_order(finished, range(first, end)):
        numbers = species_table[one.species]
        atoms = starts.put_back(core, numbers, one.positions)
        num_fixed = 0 if core is None else len(core[0])
        yield Sample(
            one.index, seed, *atoms, one.stopped, one.log_likelihood,
            num_fixed=num_fixed,
            targets=_targets_of(options, seed, one.index),
            forecast=asking.values_of(one.forecast, weights.columns),
            log_of_atoms=_atoms_last(one, num_fixed), charge=options.charge,
        )  # fmt: skip


def _targets_of(options: Options, seed: int, index: int) -> dict[str, float]:
    """Returns the targets of a draw: all candidates for a molecule have the same."""
    return asking.targets_of(options.properties, seed, index // options.candidates)


def _atoms_last(one: Finished, num_fixed: int) -> Float[np.ndarray, " num_atoms"]:
    """Returns the parts of the drawn atoms, behind those of a fragment, which are NaN.

    Atoms of a fragment that came back in between are in front in the end, too.
    """
    drawn = one.log_of_atoms[~np.isnan(one.log_of_atoms)]
    return np.concatenate([np.full(num_fixed, np.nan, np.float32), drawn])


def draw_targets(
    weights: Weights,
    options: Options,
    seed: int,
    indices: Sequence[int],
    num_slots: int,
    target_of: Callable[[int], Target],
) -> Iterator[Sample]:
    """Yields molecules that each have a target of their own, in order.

    Args:
        weights: trained model.
        options: checked options; those of the core and wishes are in the targets.
        seed: seed of the random numbers.
        indices: numbers of the molecules of the seed, in order.
        num_slots: molecules under construction at a time.
        target_of: function from the index of a molecule to what it shall be.
    """
    config = weights.config
    species_table = np.array(config.data.species, np.uint8)
    orders: dict[int, Callable[[int], Any]] = {}

    def start(index: int) -> Start:
        target = target_of(index)
        known = orders.setdefault(id(target), _orders_of(weights, target, seed))
        return targets.start(target, known(index), config)

    finished = _generate(
        weights, options, seed, iter(indices), num_slots, start, limited=True
    )
    for one in _in_order(finished, indices):
        numbers = species_table[one.species]
        *atoms, count = targets.put_back(target_of(one.index), numbers, one.positions)
        yield Sample(
            one.index, seed, *atoms, one.stopped, one.log_likelihood,
            log_constrained=one.log_constrained, reason=one.reason, num_fixed=count,
            targets=_targets_of(options, seed, one.index),
            forecast=asking.values_of(one.forecast, weights.columns),
            log_of_atoms=_atoms_last(one, count), num_redrawn=one.num_redrawn,
            charge=options.charge,
        )  # fmt: skip


def _orders_of(weights: Weights, target: Target, seed: int) -> Callable[[int], Any]:
    """Returns the function that draws in which order the first atoms are taken in."""
    core = target.core
    if core is None:
        return starts.orders(weights, None, seed)
    first: Core = (core[0][target.first], core[1][target.first])
    return starts.orders(weights, first, seed)


def _generate(
    weights: Weights,
    options: Options,
    seed: int,
    indices: Iterator[int],
    num_slots: int,
    start: Callable[[int], Start],
    limited: bool,
) -> Iterator[Finished]:
    steers = options.guidance != 1.0
    kind = build.kind_of(weights.config)

    def start_asked(index: int) -> Start:
        goals = _targets_of(options, seed, index)
        scores = asking.scores_of(goals, weights.columns)
        return start(index)._replace(scores=scores)

    return generate(
        guidance.DECODER if steers else kind.decoder,
        weights.model,
        weights.params,
        indices,
        seed,
        _settings(weights.config, options),
        start_asked if weights.columns else start,
        mode=_mode(options),
        num_slots=num_slots,
        capacity=capacity_of(options),
        limited=limited,
    )


def capacity_of(options: Options) -> int:
    """Returns the number of atoms that a slot holds."""
    return 4 * -(-options.max_atoms // 4)


def _settings(config: Any, options: Options) -> Settings:
    # A molecule has its own scores; these say which properties are asked for.
    asked = dict.fromkeys(options.properties[0] if options.properties else (), 0.0)
    given = {"noise_std": config.sample.noise_std, **options.conditions, **asked}
    names = (*names_of(config), *columns.names_of(config))
    return Settings(
        focus_temperature=jnp.float32(options.temperature_focus),
        position_temperature=jnp.float32(options.temperature_position),
        basin_temperature=jnp.float32(options.basin_temperature),
        conditions=some_known(given, names),
        max_atoms=jnp.int32(options.max_atoms),
        guidance=jnp.float32(options.guidance),
    )


def _mode(options: Options) -> str:
    if options.temperature_position != 1.0:
        return "tempered"
    return "basin" if options.basin_temperature != 1.0 else "exact"


def _in_order(
    finished: Iterator[Finished], indices: Iterable[int]
) -> Iterator[Finished]:
    """Holds molecules back until those before them have come."""
    waiting: dict[int, Finished] = {}
    for due in indices:
        while due not in waiting:
            molecule = next(finished)
            waiting[molecule.index] = molecule
        yield waiting.pop(due)
