"""Bonds of sampled molecules, and the files of these.

RDKit is imported by the processes that perceive bonds.
"""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from common.commands import cli, outcome
from common.errors import RunError
from common.runs.weights import versions
from symphony import molfile
from symphony.acceptance import BOND_PRESET as BOND_PRESET
from symphony.acceptance import NOT_BEST, Gate, choose_best
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner
from symphony.options import Options
from symphony.records import Sample as Sample
from symphony.records import finish as finish
from symphony.records import (
    name_of,
    numbers_of,
    numbers_of_atoms,
    properties_of,
    record_of,
)
from symphony.weights import Weights

BOND_SECONDS, CLOCK_FACTOR = 10.0, 10
"""CPU time for the bonds of one molecule; the clock may show a multiple of it."""

MAX_WORKERS = 8
"""Processes that perceive bonds; more start only where many molecules wait."""

MOST_CRASHES = 8
"""Molecules in a row whose process may die before the fault is taken to be its own."""

CRASH, TIMEOUT = "crash", "timeout"
"""What the processes answer where they could not judge the bonds of a molecule."""


def with_bonds(
    samples: Iterator[Sample], preset: str = BOND_PRESET
) -> Iterator[tuple[Sample, str | None, str]]:
    """Yields molecules with their SMILES and their record of an SDF, in order.

    Bonds are perceived in other processes while the next molecules are built; one that
    takes longer than `BOND_SECONDS`, or whose process dies, is `unjudged`.

    Raises:
        RunError: The processes die of everything that they are given.
    """
    yield from _without_lost_workers(_perceived(samples, preset))


def _without_lost_workers(
    found: Iterator[tuple[Sample, str | None, str]],
) -> Iterator[tuple[Sample, str | None, str]]:
    """Yields what is found; a crash only once a molecule after it was judged.

    So nothing is written of molecules that a command which runs again can still judge.
    """
    held: list[tuple[Sample, str | None, str]] = []
    some_judged = False
    for one in found:
        if one[0].unjudged == CRASH:
            held.append(one)
            _check_crashes(held, MOST_CRASHES)
            continue
        some_judged = True
        yield from held
        held.clear()
        yield one
    _check_crashes(held, MOST_CRASHES if some_judged else 1)
    yield from held


def _check_crashes(held: list[tuple[Sample, str | None, str]], most: int) -> None:
    if len(held) >= most:
        raise RunError(
            f"the processes that perceive bonds died at {len(held)} molecules in a "
            f"row, from number {held[0][0].index} on; nothing is written of these. "
            "Look for what ends the processes, as a limit of memory, and run again"
        )


def _perceived(
    samples: Iterator[Sample], preset: str
) -> Iterator[tuple[Sample, str | None, str]]:
    """Yields molecules with their SMILES and their record of an SDF, in order."""
    from symphony.chemistry import pool

    module = "symphony.chemistry.worker"
    most = min(os.cpu_count() or 1, MAX_WORKERS)
    waiting: deque[Sample] = deque()

    def pair(answer: dict[str, Any] | str) -> tuple[Sample, str | None, str]:
        sample = waiting.popleft()
        if isinstance(answer, str):
            return sample._replace(unjudged=answer), None, ""
        return sample, answer["smiles"], answer["sdf"]

    with pool.Stream(module, most, CLOCK_FACTOR * BOND_SECONDS) as stream:
        for sample in samples:
            waiting.append(sample)
            stream.submit(_bond_task(sample, preset))
            yield from map(pair, stream.ready())
        yield from map(pair, stream.rest())


def _bond_task(sample: Sample, preset: str = BOND_PRESET) -> dict[str, Any]:
    return {
        "preset": preset,
        "time_limit": BOND_SECONDS,
        "atomic_numbers": sample.atomic_numbers.tolist(),
        "positions": sample.positions.tolist(),
        "name": name_of(sample),
        "properties": properties_of(sample),
        "charge": sample.charge,
    }


def write(
    output: molfile.Output,
    sample: Sample,
    smiles: str | None,
    sdf: str,
    verdict: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Appends a molecule to the files; returns whether it is valid.

    Args:
        output: open files.
        sample: molecule.
        smiles: canonical SMILES; None without bonds.
        sdf: its record of an SDF; empty where it is not to be there.
        verdict: what a gate says of it.
    """
    record = {**record_of(sample, smiles), **verdict}
    names = ("index", "seed", "stopped", "valid", "unfinished", "accepted", "rejected")
    names = [*names, *numbers_of(sample)]
    names = [name for name in names if name in record]
    frame = molfile.to_extxyz(
        sample.atomic_numbers,
        sample.positions,
        {"name": name_of(sample), **{name: record[name] for name in names}},
        numbers_of_atoms(sample),
    )
    molfile.append(output, record, sdf, frame)
    return record["valid"]


class Written(NamedTuple):
    """Counts of the molecules that a command added to its files.

    Attributes:
        num_before: molecules that were there before.
        num_valid: valid ones among those added.
        moved: move of each added molecule by refinement, in Å; None without.
        num_unjudged: added molecules whose bonds could not be judged.
    """

    num_before: int
    num_valid: int
    moved: list[float | None]
    num_unjudged: int = 0


def write_all(
    output: molfile.Output,
    make: Callable[[int], Iterator[Sample]],
    total: int,
    doing: str,
    gate: Gate | None = None,
) -> Written:
    """Makes the molecules that an output lacks, writes them, and shows progress.

    Args:
        output: open files.
        make: function of the index of the first molecule that yields the rest.
        total: number of molecules at the end.
        doing: word for the progress, as `sampling`.
        gate: judge of which molecules the SDF gets, and of when there are enough.
    """
    if gate is not None:
        return _write_accepted(output, make, doing, gate)
    done, num_valid, num_unjudged, moved = output.num_done, 0, 0, []
    if done >= total:
        return Written(done, 0, [])
    with cli.progress(total, doing, "molecules", completed=done) as advance:
        for sample, smiles, sdf in with_bonds(make(done)):
            num_valid += write(output, sample, smiles, sdf)
            num_unjudged += sample.unjudged is not None
            moved.append(sample.moved)
            advance()
    return Written(done, num_valid, moved, num_unjudged)


def _write_accepted(
    output: molfile.Output,
    make: Callable[[int], Iterator[Sample]],
    doing: str,
    gate: Gate,
) -> Written:
    """Writes molecules until the gate has enough; the SDF gets the accepted ones.

    The best are known once all are drawn: nothing is written of any before.
    """
    gate.restore(output.records)
    done, num_unjudged, moved = output.num_done, 0, []
    if gate.is_done:
        return Written(done, 0, [])
    begin = done
    if gate.terms.best is not None:
        gate.reset()
        begin = 0
    before, held = gate.num_accepted, []
    for one in _judged(make, doing, gate, begin):
        num_unjudged += one[0].unjudged is not None
        moved.append(one[0].moved)
        if gate.terms.best is None:
            write_judged(output, *one)
        else:
            held.append(one)
    _write_best(output, held, gate)
    return Written(done, gate.num_accepted - before, moved, num_unjudged)


_Judged = tuple[Sample, str | None, str, str | None]
"""A molecule, its SMILES, its record of an SDF, and why it is rejected."""


def _judged(
    make: Callable[[int], Iterator[Sample]], doing: str, gate: Gate, begin: int
) -> Iterator[_Judged]:
    """Yields molecules with what the gate says, until it has enough."""
    made = with_bonds(make(begin), gate.terms.preset)
    total = gate.num_wanted
    with (
        cli.progress(total, doing, "molecules", completed=gate.num_reached) as advance,
        contextlib.closing(made),
    ):
        for sample, smiles, sdf in made:
            done, reason = gate.num_reached, gate.judge(sample, smiles, sdf)
            yield sample, smiles, sdf, reason
            if gate.num_reached > done:
                advance()
            if gate.is_done:
                break


def _write_best(output: molfile.Output, held: list[_Judged], gate: Gate) -> None:
    """Writes all molecules that are held, the accepted as best or not."""
    passed = [place for place, one in enumerate(held) if one[3] is None]
    chosen = choose_best([held[place][0] for place in passed], gate.num_best)
    others = {place for rank, place in enumerate(passed) if rank not in chosen}
    for place, (sample, smiles, sdf, reason) in enumerate(held):
        if place >= output.num_done:
            reason = NOT_BEST if place in others else reason
            write_judged(output, sample, smiles, sdf, reason)


def write_judged(
    output: molfile.Output,
    sample: Sample,
    smiles: str | None,
    sdf: str,
    reason: str | None,
    **more: Any,
) -> None:
    """Appends a molecule to the files, to the SDF if it is accepted.

    Args:
        output: open files.
        sample: molecule.
        smiles: canonical SMILES; None without bonds.
        sdf: its record of an SDF.
        reason: why it is rejected, by `Gate.judge`; None of an accepted one.
        **more: further values for its line of the manifest.
    """
    verdict = {**more, "accepted": reason is None}
    verdict |= {} if reason is None else {"rejected": reason}
    write(output, sample, smiles, "" if reason else sdf, verdict)


def tell_accepted(path: str, gate: Gate, more: str) -> None:
    """Prints how many molecules were accepted, those of earlier commands counted.

    Raises:
        RunError: They are fewer than were asked for.
    """
    sys.stdout.write(f"{path}: {gate.describe()}{gate.describe_best()}{more}\n")
    gate.check()


def tell(path: str, written: Written, more: str) -> None:
    """Prints what was written, and further words on it.

    Raises:
        RunError: The bonds of hardly any molecule could be judged.
    """
    line = f"all {written.num_before} molecules are done"
    if written.moved:
        before = written.num_before
        before = f", {before} were there before" if before else ""
        count = f"{written.num_valid} valid molecules ({BOND_PRESET})"
        lost = f", {written.num_unjudged} not judged" if written.num_unjudged else ""
        line = f"{count} of {len(written.moved)}{lost}{before}{more}"
    sys.stdout.write(f"{path}: {line}\n")
    total = len(written.moved)
    outcome.judge(
        total - written.num_unjudged,
        total,
        "molecules had their bonds judged",
        f"the others took longer than {BOND_SECONDS:g} s or ended their process; "
        "--overwrite makes all anew",
    )


def header(
    weights: Weights,
    options: Options,
    seed: int,
    refiner: Refiner | None = None,
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Returns what decides the molecules, for the head of the manifest."""
    settings = options._asdict()
    core, wishes = settings.pop("core"), settings.pop("wishes")
    for name in ("conditions", "properties"):
        if not settings[name]:
            del settings[name]
    for name in ("guidance", "candidates"):
        if settings[name] == 1:
            del settings[name]
    if core is not None:
        atoms = zip(core[0].tolist(), core[1].tolist(), strict=True)
        settings["start"] = [[number, *position] for number, position in atoms]
    settings |= {k: v for k, v in wishes._asdict().items() if v not in (None, False)}
    if refiner is not None:
        settings["refine"] = denoiser.settings_of(refiner)
    if gate is not None:
        settings |= {"accept": gate.terms.accept, "diverse": gate.terms.diverse}
        # What is asked of `--best` is of all draws, as many as there are.
        best = {"best": gate.terms.best, "num_molecules": gate.num_wanted}
        settings |= {} if gate.terms.best is None else best
    return {
        "checkpoint": weights.name,
        "weights_sha256": weights.checksum,
        "config_sha256": weights.config_checksum,
        "seed": seed,
        "settings": settings,
        "bonds": BOND_PRESET if gate is None else gate.terms.preset,
        "versions": versions("symphony", "jax", "numpy", "rdkit"),
    }
