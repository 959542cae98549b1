"""Sampled molecules, their bonds, and what is written of them.

RDKit is imported by the processes that perceive bonds, and by `finish`.
"""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from common.commands import cli, outcome
from common.errors import RunError
from common.runs.weights import versions
from symphony import molfile
from symphony.acceptance import BOND_PRESET as BOND_PRESET
from symphony.acceptance import NOT_BEST, Gate, choose_best
from symphony.arrays import AtomicNumbers, HostPositions
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner
from symphony.options import Options
from symphony.weights import Weights

BOND_SECONDS, CLOCK_FACTOR = 10.0, 10
"""CPU time for the bonds of one molecule; the clock may show a multiple of it."""

MAX_WORKERS = 8
"""Processes that perceive bonds; more start only where many molecules wait."""

MOST_CRASHES = 8
"""Molecules in a row whose process may die before the fault is taken to be its own."""

CRASH, TIMEOUT = "crash", "timeout"
"""What the processes answer where they could not judge the bonds of a molecule."""


class Sample(NamedTuple):
    """A molecule as the network left it; the atoms of a user's fragment come first.

    Attributes:
        index: number of the molecule of the seed.
        seed: seed of the random numbers.
        atomic_numbers: nuclear charges.
        positions: positions of the atoms, in Å.
        stopped: false if it would have grown beyond the largest number of atoms.
        log_likelihood: log-likelihood in nats of the path by which it was built,
            without a fragment's own atoms, positions per Å³. Of a refined molecule it
            is that of the molecule before; None of one from a file.
        moved: root mean square move of the atoms by refinement, in Å; None without.
        name: name in the file that it was read from, if it was.
        unjudged: why nothing is known of its bonds, `crash` or `timeout`; None where
            they were judged, or not yet looked at.
        log_constrained: log-likelihood in nats of the same path under the law that the
            wishes of a user leave; None where there are none.
        reason: why it did not stop, where there are wishes.
        num_fixed: atoms of a fragment, which come first and never move.
        targets: numbers of the properties that it was asked to have, by name.
        log_of_atoms: part of each atom in `log_likelihood`, of the step that placed it;
            NaN for the atoms of a fragment. The rest is the part of stopping.
    """

    index: int
    seed: int
    atomic_numbers: AtomicNumbers
    positions: HostPositions
    stopped: bool
    log_likelihood: float | None
    moved: float | None = None
    name: str | None = None
    unjudged: str | None = None
    log_constrained: float | None = None
    reason: str | None = None
    num_fixed: int = 0
    targets: Mapping[str, float] = MappingProxyType({})
    log_of_atoms: Float[np.ndarray, " num_atoms"] | None = None


def finish(sample: Sample, preset: str = BOND_PRESET) -> tuple[Any, dict[str, Any]]:
    """Perceives the bonds of a molecule.

    Args:
        sample: molecule.
        preset: convention for the bonds, see `symphony.chemistry.bonds.perceive`.

    Returns:
        An RDKit molecule with properties, or None if the convention finds no bonds; and
        the molecule's record for the manifest.
    """
    from symphony.chemistry import bonds

    mol = bonds.perceive(sample.atomic_numbers, sample.positions, preset)
    record = _record(sample, None if mol is None else bonds.write_smiles(mol))
    if mol is not None:
        fields = {**_properties(sample), "smiles": record["smiles"]}
        bonds.set_properties(mol, _name(sample), fields)
    return mol, record


def _record(sample: Sample, smiles: str | None) -> dict[str, Any]:
    """Returns the line of the manifest."""
    record = {
        "index": sample.index,
        "seed": sample.seed,
        "num_atoms": len(sample.atomic_numbers),
        "formula": molfile.formula(sample.atomic_numbers),
        "stopped": sample.stopped,
        "valid": smiles is not None and sample.stopped,
        "smiles": smiles,
    }
    words = {"unjudged": sample.unjudged, "unfinished": sample.reason}
    words = {name: word for name, word in words.items() if word is not None}
    of_atoms = {
        f"{molfile.ATOMS}{name}": [None if np.isnan(x) else round(x, 4) for x in values]
        for name, values in _of_atoms(sample).items()
    }
    return {**record, **words, **_numbers(sample), **of_atoms}


def _numbers(sample: Sample) -> dict[str, float]:
    """Returns the log-likelihood, the targets, and how far refinement moved it."""
    numbers = {}
    known = {
        "log_likelihood": sample.log_likelihood,
        "log_likelihood_constrained": sample.log_constrained,
    }
    for name, value in known.items():
        if value is not None:
            numbers[_full_name(sample, name)] = round(value, 4)
    if sample.moved is not None:
        numbers["moved"] = round(sample.moved, 4)
    targets = {f"target_{name}": value for name, value in sample.targets.items()}
    return {**numbers, **targets}


def _full_name(sample: Sample, name: str) -> str:
    """Returns the name of a log-likelihood, which is not that of a refined molecule."""
    return name if sample.moved is None else f"{name}_before_refinement"


def _of_atoms(sample: Sample) -> dict[str, list[float]]:
    """Returns the numbers that each atom has, by name; NaN where one has none."""
    if sample.log_of_atoms is None:
        return {}
    return {_full_name(sample, "log_likelihood"): sample.log_of_atoms.tolist()}


def _properties(sample: Sample) -> dict[str, Any]:
    """Returns the fields of a molecule with bonds, but for its SMILES."""
    record = _record(sample, "")
    names = ("seed", "index", "stopped", "valid")
    lists = {
        f"{molfile.ATOMS}{k}": molfile.to_list(v) for k, v in _of_atoms(sample).items()
    }
    return {**_numbers(sample), **{name: record[name] for name in names}, **lists}


def _name(sample: Sample) -> str:
    if sample.name is not None:
        return sample.name
    return f"seed{sample.seed}_{sample.index}"


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
        "name": _name(sample),
        "properties": _properties(sample),
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
    record = {**_record(sample, smiles), **verdict}
    names = ("index", "seed", "stopped", "valid", "unfinished", "accepted", "rejected")
    names = [*names, *_numbers(sample)]
    names = [name for name in names if name in record]
    frame = molfile.to_extxyz(
        sample.atomic_numbers,
        sample.positions,
        {"name": _name(sample), **{name: record[name] for name in names}},
        _of_atoms(sample),
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
            _write_judged(output, *one)
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
    reached = lambda: gate.num_accepted if gate.terms.until_valid else gate.num_draws
    made = with_bonds(make(begin), gate.terms.preset)
    total = gate.num_wanted
    with (
        cli.progress(total, doing, "molecules", completed=reached()) as advance,
        contextlib.closing(made),
    ):
        for sample, smiles, sdf in made:
            done, reason = reached(), gate.judge(sample, smiles, sdf)
            yield sample, smiles, sdf, reason
            if reached() > done:
                advance()
            if gate.is_done:
                break


def _write_judged(
    output: molfile.Output, sample: Sample, smiles: str | None, sdf: str, reason: Any
) -> None:
    verdict = {"accepted": reason is None}
    verdict |= {} if reason is None else {"rejected": reason}
    write(output, sample, smiles, "" if reason else sdf, verdict)


def _write_best(output: molfile.Output, held: list[_Judged], gate: Gate) -> None:
    """Writes all molecules that are held, the accepted as best or not."""
    passed = [place for place, one in enumerate(held) if one[3] is None]
    chosen = choose_best([held[place][0] for place in passed], gate.num_best)
    others = {place for rank, place in enumerate(passed) if rank not in chosen}
    for place, (sample, smiles, sdf, reason) in enumerate(held):
        if place >= output.num_done:
            reason = NOT_BEST if place in others else reason
            _write_judged(output, sample, smiles, sdf, reason)


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
    if options.guidance == 1.0:
        del settings["guidance"]
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
