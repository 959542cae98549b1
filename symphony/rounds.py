"""Draws of several molecules until enough of each are accepted.

Each molecule has a gate of its own. Draws are made ahead in rounds, since it is not
known which are accepted; their order, and what is kept, do not depend on the rounds.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from absl import logging

from common.commands import cli
from common.commands.environment import step_by_step
from symphony import acceptance, editing, manifest, molfile
from symphony.acceptance import Gate, Terms
from symphony.drawing import MOST
from symphony.editing import Item, Job
from symphony.manifest import Sample
from symphony.sampler import Summary, to_sdf

FIRST, LARGEST = 16, 1024
"""Draws of the first round and of the largest, if there may be so many."""


class Gates:
    """A gate for each molecule.

    Attributes:
        terms: what is accepted.
        number: accepted ones, or draws, that are asked for of each.
        each: the gates.
    """

    def __init__(self, terms: Terms, number: int, count: int) -> None:
        self.terms, self.number = terms, number
        self.each = [Gate(terms, number) for _ in range(count)]

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Counts what an earlier command judged."""
        for record in records:
            self.each[record["molecule"]].restore([record])

    def ahead(self, least: int) -> list[Item]:
        """Returns the next draws of the molecules that lack some.

        They take turns of `number` draws, the same ones wherever it begins.

        Args:
            least: draws to return, if there may be so many.
        """
        lacking = [n for n, gate in enumerate(self.each) if not gate.is_done]
        turns = max(1, -(-least // (self.number * max(len(lacking), 1))))
        most = min(self.terms.max_draws or self.number, MOST // len(self.each))
        items = []
        for which in lacking:
            begin = self.each[which].num_draws
            end = (begin // self.number + turns) * self.number
            items += [(which, turn) for turn in range(begin, min(end, most))]
        return sorted(items, key=lambda item: (item[1] // self.number, item))

    @property
    def is_done(self) -> bool:
        """True once all are."""
        return all(gate.is_done for gate in self.each)

    def together(self) -> Gate:
        """Returns one gate with the counts of all."""
        whole = Gate(self.terms, self.number * len(self.each))
        for gate in self.each:
            whole.num_draws += gate.num_draws
            whole.num_accepted += gate.num_accepted
            whole.rejected.update(gate.rejected)
        return whole


def judged(
    gates: Gates, make: Callable[[list[Item]], Iterator[Any]]
) -> Iterator[tuple[int, Any]]:
    """Yields the number of a molecule and what was drawn of it, until all are done.

    Args:
        gates: gates, to be told of each before the next one.
        make: function of pairs of molecule and draw that yields them in order.
    """
    least = FIRST
    while items := gates.ahead(least):
        least = min(2 * least, LARGEST)
        with contextlib.closing(make(items)) as made:
            for (which, _), one in zip(items, made, strict=True):
                if not gates.each[which].is_done:
                    yield which, one
                if gates.is_done:
                    return


def write_all(
    output: molfile.Output,
    make: Callable[[list[Item]], Iterator[Sample]],
    gates: Gates,
    doing: str,
) -> None:
    """Makes the molecules that an output lacks and writes them; see `manifest`.

    Args:
        output: open files.
        make: function of pairs of molecule and draw that yields samples in order.
        gates: judges of which molecules the SDF gets.
        doing: word for the progress, as `editing`.
    """
    gates.restore(output.records)
    index = output.num_done
    total = gates.number * len(gates.each)
    reached = sum(gate.num_reached for gate in gates.each)
    perceive = lambda items: manifest.with_bonds(make(items), gates.terms.preset)
    with cli.progress(total, doing, "molecules", completed=reached) as advance:
        for which, (sample, smiles, sdf) in judged(gates, perceive):
            gate = gates.each[which]
            done, sample = gate.num_reached, sample._replace(index=index)
            sdf = molfile.renumber(sdf, index)
            reason = gate.judge(sample, smiles, sdf)
            manifest.write_judged(output, sample, smiles, sdf, reason, molecule=which)
            index += 1
            if gate.num_reached > done:
                advance()


def collect(job: Job, terms: Terms | None) -> tuple[list[Any], Summary]:
    """Returns what becomes of molecules as RDKit molecules, and counts.

    Args:
        job: molecules.
        terms: what is accepted; those with bonds where None.
    """
    if terms is None:
        drawn = step_by_step(editing.draw_all(job))
        pairs = [(one, *manifest.finish(one)) for one in drawn]
        mols = [mol for _, mol, _ in pairs if mol is not None]
        finished = sum(one.stopped for one, *_ in pairs)
        num_valid = sum(record["valid"] for *_, record in pairs)
        return mols, Summary(len(pairs), finished, num_valid)
    return _accepted(job, Gates(terms, job.number, len(job.changes)))


def _accepted(job: Job, gates: Gates) -> tuple[list[Any], Summary]:
    """Returns the molecules that gates accept, those of one after another."""
    mols: list[list[Any]] = [[] for _ in gates.each]
    num_finished = num_valid = index = 0
    make = lambda items: step_by_step(editing.draw(job, items))
    for which, sample in judged(gates, make):
        sample, index = sample._replace(index=index), index + 1
        mol, record = manifest.finish(sample, gates.terms.preset)
        text = "" if mol is None else to_sdf(mol)
        reason = gates.each[which].judge(sample, record["smiles"], text)
        mols[which] += [mol] if reason is None else []
        num_finished += sample.stopped
        num_valid += record["valid"]
    whole = gates.together()
    if gates.terms.until_valid and whole.num_accepted < whole.num_wanted:
        logging.warning("%s; raise max_draws", whole.describe())
    summary = Summary(
        whole.num_draws,
        num_finished,
        num_valid,
        whole.num_accepted,
        whole.rejected[acceptance.DUPLICATE],
    )
    return [mol for own in mols for mol in own], summary
