"""The sampler behind `symphony.load` and `symphony sample`.

Molecule `i` of a seed is the same however many are asked for. Positions are in Å.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from common.commands import cli
from common.commands.environment import pinned, step_by_step
from common.errors import UsageError
from symphony import (
    acceptance,
    asking,
    build,
    columns,
    guidance,
    manifest,
    starts,
    targets,
)
from symphony.acceptance import Gate
from symphony.arrays import HostPositions
from symphony.conditions import names_of, some_known
from symphony.generate import Finished, generate
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner, load_refiner
from symphony.manifest import Sample
from symphony.options import Core, Options, choose
from symphony.slots import Settings, Start
from symphony.targets import Target
from symphony.weights import Weights, load_weights

CPU_SLOTS, ACCELERATOR_SLOTS = 16, 256
"""Molecules under construction at a time: more gain nothing on a CPU."""


class Summary(NamedTuple):
    """What came of the last call of a sampler.

    Attributes:
        num_molecules: molecules that were built so far.
        num_finished: those that stopped before they had `max_atoms`.
        num_valid: finished ones whose bonds were perceived; None where nobody asked
            for bonds.
        num_accepted: those that were accepted, see `symphony.acceptance`; None where
            nothing of the kind was asked.
        num_duplicates: those rejected since there was one of the same SMILES.
    """

    num_molecules: int
    num_finished: int
    num_valid: int | None
    num_accepted: int | None = None
    num_duplicates: int = 0


MOST = 2**31 - 1
"""Molecules of a seed, at most."""


class Sampler:
    """Trained weights and the ways to ask them for molecules.

    `sample` and `sample_positions` take the arguments of `stream`, among them the
    keywords of `symphony.options.choose`: temperatures, `fragment`, `conditions`.

    Attributes:
        weights: parameters, model and config; see `Weights`.
        summary: figures of the last call, see `Summary`; None before the first.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.summary: Summary | None = None

    def sample(
        self,
        num_molecules: int,
        seed: int = 0,
        *,
        until_valid: bool = False,
        accept: str | None = None,
        max_draws: int | None = None,
        diverse: bool = False,
        best: int | None = None,
        **keywords: Any,
    ) -> list[Any]:
        """Returns as RDKit molecules those whose bonds could be perceived.

        Each has one conformer and the properties that `symphony sample` writes.

        Args:
            num_molecules: number of draws, or of accepted molecules with `until_valid`.
            seed: seed of the random numbers.
            until_valid: true to go on until so many are accepted; see `accept`.
            accept: `xyz2mol_hueckel`, `strict`, `edm` or `posebusters`.
            max_draws: draws, at most; what was accepted until then is returned.
            diverse: true for no two of one canonical SMILES.
            best: how many are kept; see `symphony.acceptance.choose_best`.
            **keywords: see `stream`.
        """
        terms = acceptance.choose(
            num_molecules, until_valid, accept, max_draws, diverse, best
        )
        if terms is not None:
            return self._accepted(Gate(terms, num_molecules), seed, **keywords)
        drawn = self.stream(num_molecules, seed, **keywords)
        finished = [manifest.finish(sample) for sample in drawn]
        num_valid = sum(record["valid"] for _, record in finished)
        self.summary = self.summary._replace(num_valid=num_valid)
        return [mol for mol, _ in finished if mol is not None]

    def _accepted(self, gate: Gate, seed: int, **keywords: Any) -> list[Any]:
        """Returns the molecules that a gate accepts, until it has enough."""
        kept, num_valid = [], 0
        drawn = self.stream(end_of(gate.num_wanted, gate), seed, **keywords)
        with contextlib.closing(drawn):
            for sample in drawn:
                mol, record = manifest.finish(sample, gate.terms.preset)
                sdf = "" if mol is None else to_sdf(mol)
                reason = gate.judge(sample, record["smiles"], sdf)
                num_valid += record["valid"]
                kept += [(sample, mol)] if reason is None else []
                if gate.is_done:
                    break
        if gate.terms.until_valid and len(kept) < gate.num_wanted:
            logging.warning("%s; raise max_draws", gate.describe())
        self.summary = self.summary._replace(
            num_valid=num_valid,
            num_accepted=gate.num_accepted,
            num_duplicates=gate.rejected[acceptance.DUPLICATE],
        )
        if gate.terms.best is None:
            return [mol for _, mol in kept]
        chosen = acceptance.choose_best([one for one, _ in kept], gate.num_best)
        return [mol for place, (_, mol) in enumerate(kept) if place in chosen]

    def edit(
        self,
        molecules: Any,
        remove: str | Sequence[int],
        num_molecules: int = 1,
        seed: int = 0,
        **keywords: Any,
    ) -> list[Any]:
        """Regrows a part of molecules; returns RDKit molecules as `sample` does.

        Args:
            molecules: a file, an RDKit molecule with a conformer, or several of these.
            remove: atoms to remove, counted from 0; their hydrogens go with them.
            num_molecules: draws for each, or accepted molecules with `until_valid`.
            seed: seed of the random numbers.
            **keywords: `keep_formula`, `formula`, `num_atoms`, `max_heavy`,
                `elements`, `basin`, `num_slots`; and those of `sample` that say what
                is accepted, for each molecule.
        """
        from symphony import editing

        return self._changed(
            partial(editing.regrow, remove=remove), molecules, num_molecules, seed,
            **keywords,
        )  # fmt: skip

    def complete(
        self, molecules: Any, num_molecules: int = 1, seed: int = 0, **keywords: Any
    ) -> list[Any]:
        """Adds what molecules lack; returns RDKit molecules as `sample` does.

        Args:
            molecules: a file, an RDKit molecule with a conformer, or several of these.
            num_molecules: draws for each, or accepted molecules with `until_valid`.
            seed: seed of the random numbers.
            **keywords: `formula`, `num_atoms`, `max_heavy`, `elements`, `attach`,
                `num_slots`; and those of `sample` that say what is accepted. Without
                the first of them, only hydrogens are added.
        """
        from symphony import editing

        return self._changed(
            editing.complete, molecules, num_molecules, seed, basin=True, **keywords
        )

    def _changed(
        self,
        changer_of: Callable[..., Any],
        molecules: Any,
        num_molecules: int,
        seed: int,
        basin: bool = False,
        num_slots: int | None = None,
        **keywords: Any,
    ) -> list[Any]:
        from symphony import editing, rounds

        given = {n: keywords.pop(n) for n in acceptance.CHOICES if n in keywords}
        terms = acceptance.choose(num_molecules, **given)
        with pinned():
            changer = changer_of(self.weights, **keywords)
            job = editing.make_job(
                self.weights, molecules, changer, num_molecules, seed, num_slots, basin
            )
        mols, self.summary = rounds.collect(job, terms)
        return mols

    def sample_positions(
        self, num_molecules: int, seed: int = 0, **keywords: Any
    ) -> list[Sample]:
        """Returns every molecule, those without bonds or without end among them."""
        return list(self.stream(num_molecules, seed, **keywords))

    def stream(
        self,
        num_molecules: int,
        seed: int = 0,
        *,
        first: int = 0,
        num_slots: int | None = None,
        refine: bool | Refiner = False,
        **keywords: Any,
    ) -> Iterator[Sample]:
        """Yields the molecules `first..num_molecules - 1` of a seed, in order.

        Args:
            num_molecules: index after the last one.
            seed: seed of the random numbers.
            first: index of the first one.
            num_slots: molecules under construction at a time; see `draw`.
            refine: true or a `Refiner` for refined molecules.
            **keywords: see `symphony.options.choose`.
        """
        options = choose(self.weights, **keywords)
        refiner = load_refiner() if refine is True else refine or None
        if refiner is not None:
            check_refiner(self.weights, options, refiner)
        drawn = draw(self.weights, options, seed, first, num_molecules, num_slots)
        return self._counted(step_by_step(refined(drawn, refiner)))

    def _counted(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Yields molecules and keeps `summary` up to them."""
        summary = self.summary = Summary(0, 0, None)
        for sample in samples:
            summary = self.summary = Summary(
                summary.num_molecules + 1, summary.num_finished + sample.stopped, None
            )
            yield sample


def to_sdf(mol: Any) -> str:
    """Returns the record of an SDF of a molecule."""
    from rdkit import Chem

    return Chem.SDWriter.GetText(mol)


def end_of(num_molecules: int, gate: Gate | None) -> int:
    """Returns how many molecules of a seed are drawn, at most."""
    most = None if gate is None else gate.terms.max_draws
    return min(num_molecules if most is None else most, MOST)


def load(name_or_path: str | os.PathLike[str] = "qm9") -> Sampler:
    """Returns a sampler; see `symphony.load`."""
    cli.use_compilation_cache()
    with pinned():
        return Sampler(load_weights(name_or_path))


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
    check_numbers(seed, end, num_slots)
    return _draw(weights, options, seed, first, end, num_slots)


def choose_slots(num_slots: int | None) -> int:
    """Returns the number of molecules built at a time; the device's where None."""
    if num_slots is not None:
        return num_slots
    on_cpu = jax.default_backend() == "cpu"
    return CPU_SLOTS if on_cpu else ACCELERATOR_SLOTS


def check_refiner(weights: Weights, options: Options, refiner: Refiner) -> None:
    """Raises `UsageError` if molecules may have elements that a refiner cannot."""
    unseen = {*weights.unseen} - {*([] if options.core is None else options.core[0])}
    known = {*weights.config.data.species} - unseen
    denoiser.check_species(refiner, sorted(known), f"molecules of {weights.name}")


def refined(samples: Iterator[Sample], refiner: Refiner | None) -> Iterator[Sample]:
    """Yields molecules refined, or as they are without a refiner, in order.

    The atoms of a fragment stay where they are.
    """
    if refiner is None:
        yield from samples
        return
    while batch := list(itertools.islice(samples, denoiser.BATCH)):
        moved = denoiser.refine(
            refiner,
            [one.atomic_numbers for one in batch],
            [one.positions for one in batch],
            [np.arange(len(one.atomic_numbers)) < one.num_fixed for one in batch],
            [one.index for one in batch],
            batch[0].seed,
        )
        for one, positions in zip(batch, moved, strict=True):
            yield one._replace(
                positions=positions, moved=root_mean_square(positions - one.positions)
            )


def root_mean_square(moves: HostPositions) -> float:
    """Returns the root of the mean squared length.

    >>> root_mean_square(np.array([[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]]))
    5.0
    """
    return float(np.sqrt(np.mean(np.sum(np.square(moves), axis=-1))))


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
            targets=asking.targets_of(options.properties, seed, one.index),
            log_of_atoms=_atoms_last(one, num_fixed),
        )  # fmt: skip


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
            targets=asking.targets_of(options.properties, seed, one.index),
            log_of_atoms=_atoms_last(one, count),
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
        goals = asking.targets_of(options.properties, seed, index)
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
