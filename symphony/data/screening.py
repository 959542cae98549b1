"""Records that cannot be used: found, counted by the reason, and told.

Positions are in Å. Nothing here reads a file.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool

from common.errors import UsageError
from symphony.arrays import AtomicNumbers
from symphony.data import plausibility
from symphony.data.elements import SYMBOLS
from symphony.data.molecules import Records, SkipReport, select, to_species
from symphony.data.neighbours import MIN_DISTANCE, any_of_molecule, nearest

MAX_BAD_FRACTION = 0.05
MAX_COORDINATE = 1e4  # Å
MAX_DISTANCE = 20.0  # Å; an atom that is farther from every other is taken for damage
_NAMES_SHOWN = 5


DRAWING = "all z alike, as in a drawing (2D)"
_ELEMENT = "an element outside"
UNIT = "lengths that look like {} in the place of Å"
ADVICE = {
    DRAWING: (
        "positions in three dimensions, found drawings (2D)",
        "make positions, as by RDKit's Chem.AddHs and AllChem.EmbedMolecule; turn a "
        "planar molecule out of its plane",
    ),
    **{
        UNIT.format(unit.name): (
            f"positions in Å, found lengths that look like {unit.name}",
            f"multiply the positions by {unit.factor:g}",
        )
        for unit in (plausibility.NANOMETRE, plausibility.BOHR, plausibility.PICOMETRE)
    },
}
"""For some reasons, what is expected and found, and the remedy."""


def _unknown(species_table: tuple[int, ...], atomic_numbers: AtomicNumbers) -> str:
    """Returns the reason to refuse a molecule that has one of these elements."""

    def names(numbers: Iterable[int]) -> str:
        known = range(1, len(SYMBOLS) + 1)
        words = (SYMBOLS[n - 1] if n in known else f"number {n}" for n in numbers)
        return ", ".join(words)

    elements = np.unique(atomic_numbers).tolist()
    expected = names(species_table) if len(species_table) < 20 else "the periodic table"
    examples = f", such as {names(elements[:6])}" if elements else ""
    return f"{_ELEMENT} {expected}{examples}"


def faults(
    records: Records, species_table: tuple[int, ...], max_atoms: int
) -> dict[str, Bool[np.ndarray, " num_molecules"]]:
    """Returns for each reason to refuse a molecule which molecules it concerns.

    A molecule is counted once, for the first reason that holds.

    Args:
        records: records that a reader found.
        species_table: atomic numbers that are known.
        max_atoms: largest number of atoms.
    """
    molecules = records.molecules
    finite = np.isfinite(molecules.positions).all(axis=1)
    with np.errstate(invalid="ignore"):
        far = (np.abs(molecules.positions) > MAX_COORDINATE).any(axis=1)
    known = to_species(molecules.atomic_numbers, species_table) >= 0
    reasons = {
        "no atoms": molecules.num_atoms == 0,
        f"more than {max_atoms} atoms": molecules.num_atoms > max_atoms,
        "a position that is not finite": any_of_molecule(molecules, ~finite),
        f"a position beyond {MAX_COORDINATE:g} Å": any_of_molecule(molecules, far),
        _unknown(species_table, molecules.atomic_numbers[~known]): any_of_molecule(
            molecules, ~known
        ),
    }
    refused = np.any(list(reasons.values()), axis=0)
    for reason, bad in _geometry_faults(records, ~refused).items():
        reasons[reason] = np.zeros(len(refused), bool)
        reasons[reason][~refused] = bad
    seen = np.zeros(len(refused), bool)
    for reason, concerned in reasons.items():
        reasons[reason] = concerned & ~seen
        seen |= concerned
    return reasons


def _geometry_faults(
    records: Records, chosen: Bool[np.ndarray, " num_molecules"]
) -> dict[str, Bool[np.ndarray, " num_chosen"]]:
    """Returns what is wrong with the geometry of the chosen molecules."""
    molecules = select(records.molecules, chosen)
    tags = None if records.tags is None else records.tags[chosen]
    distances = nearest(molecules)
    drawn = plausibility.are_drawings(Records(molecules, None, (), tags), distances)
    units = plausibility.in_unit(molecules, distances)
    apart = any_of_molecule(
        molecules, (distances > MAX_DISTANCE) & np.isfinite(distances)
    )
    close = any_of_molecule(molecules, distances < MIN_DISTANCE)
    return {
        DRAWING: drawn,
        **{UNIT.format(unit.name): bad for unit, bad in units.items()},
        f"atoms less than {MIN_DISTANCE} Å apart": close,
        f"an atom more than {MAX_DISTANCE:g} Å from all others": apart,
    }


def describe(report: SkipReport) -> str:
    """Returns one line: how many records were skipped, why, and the first of them."""
    parts = []
    for reason, names in list(report.skipped.items())[:_NAMES_SHOWN]:
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = ", ..." if len(names) > _NAMES_SHOWN else ""
        parts.append(f"{len(names)} with {reason} ({shown}{more})")
    rest = list(report.skipped.values())[_NAMES_SHOWN:]
    if rest:
        parts.append(f"{sum(map(len, rest))} with others")
    total = sum(map(len, report.skipped.values()))
    head = f"skipped {total} of {report.num_records} records"
    return f"{head}: {'; '.join(parts)}" if parts else head


def unreadable_by_reason(records: Records) -> dict[str, tuple[str, ...]]:
    """Returns the names of the records that could not be read, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in records.unreadable:
        reasons.setdefault(f"a fault in {reason}", []).append(name)
    return {reason: tuple(names) for reason, names in reasons.items()}


def screen(
    records: Records,
    species_table: tuple[int, ...],
    max_atoms: int,
    source: str,
    strict: bool,
) -> tuple[Records, SkipReport]:
    """Returns the records that can be used, and a report on the others.

    Args:
        records: records that a reader found.
        species_table: atomic numbers that the model knows.
        max_atoms: size of the largest bucket.
        source: name of the file, for messages.
        strict: true to make one bad record an error, for molecules that a user wants
            scored or completed.

    Raises:
        UsageError: No record is left, more than 5 % are bad, or one is and `strict`.
    """
    skipped = unreadable_by_reason(records)
    good = np.ones(len(records.molecules.num_atoms), bool)
    for reason, bad in faults(records, species_table, max_atoms).items():
        if bad.any():
            skipped[reason] = tuple(records.molecules.names[bad].tolist())
            good &= ~bad
    report = SkipReport(len(good) + len(records.unreadable), skipped)
    check_share(report, int(good.sum()), source, strict)
    if skipped:
        records = records._replace(
            molecules=select(records.molecules, good),
            split=None if records.split is None else records.split[good],
            unreadable=(),
            tags=None if records.tags is None else records.tags[good],
        )
    return records, report


def check_share(report: SkipReport, num_good: int, source: str, strict: bool) -> None:
    """Raises `UsageError` where too many records are bad; see `screen`."""
    num_bad = report.num_records - num_good
    line = describe(report)
    count_of = lambda reason: len(report.skipped[reason])
    worst = max(report.skipped, key=count_of, default="")
    what, remedy = ADVICE.get(worst, ("", ""))
    if worst.startswith(_ELEMENT):
        remedy = "config.data.species says which elements weights are trained for"
    head = f"{source}: expected {what}: " if what else f"{source}: "
    tail = f"; {remedy}" if remedy else ""
    if num_bad and strict:
        shown = line.replace("skipped", "cannot use")
        raise UsageError(f"{head}{shown}; each molecule must be usable here{tail}")
    if num_bad > MAX_BAD_FRACTION * report.num_records:
        limit = f"at most {MAX_BAD_FRACTION:.0%} may be bad"
        raise UsageError(f"{head}{line}; {limit}{tail}")
    if not num_good:
        raise UsageError(f"{source}: expected at least one molecule, found none")
