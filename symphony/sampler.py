"""The sampler behind `symphony.load` and `symphony sample`.

Molecule `i` of a seed is the same however many are asked for. Positions are in Å.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from common.commands import cli
from common.commands.environment import pinned, step_by_step
from symphony import acceptance, bounds, drawing, manifest
from symphony.acceptance import Gate
from symphony.arrays import HostPositions
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner, load_refiner
from symphony.manifest import Sample
from symphony.options import Options, choose
from symphony.weights import Weights, load_weights


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
        score: bool = False,
        **keywords: Any,
    ) -> Iterator[Sample]:
        """Yields the molecules `first..num_molecules - 1` of a seed, in order.

        Args:
            num_molecules: index after the last one.
            seed: seed of the random numbers.
            first: index of the first one.
            num_slots: molecules under construction at a time; see `drawing.draw`.
            refine: true or a `Refiner` for refined molecules.
            score: true for the bound over orders as well; see `symphony.bounds`.
            **keywords: see `symphony.options.choose`.
        """
        options = choose(self.weights, **keywords)
        refiner = load_refiner() if refine is True else refine or None
        if refiner is not None:
            check_refiner(self.weights, options, refiner)
        drawn = drawing.draw(
            self.weights, options, seed, first, num_molecules, num_slots
        )
        made = refined(drawn, refiner)
        made = bounds.scored(made, self.weights, options) if score else made
        return self._counted(step_by_step(made))

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
    return min(num_molecules if most is None else most, drawing.MOST)


def load(name_or_path: str | os.PathLike[str] = "qm9") -> Sampler:
    """Returns a sampler; see `symphony.load`."""
    cli.use_compilation_cache()
    with pinned():
        return Sampler(load_weights(name_or_path))


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
