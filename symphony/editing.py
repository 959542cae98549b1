"""Molecules that are changed: what `symphony edit` and `complete` share.

`without_atoms` makes the target of a molecule that regrows a part, `with_hydrogens` of
one that only lacks hydrogens. A `Job` has many of them, and `draw` builds what becomes
of them. Positions are in Å.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import UsageError
from symphony import data, drawing, options, targets, wishes
from symphony.data.elements import SYMBOLS
from symphony.manifest import Sample
from symphony.options import Core, Options
from symphony.targets import Target
from symphony.valence import VALENCES, bonds_of
from symphony.weights import Weights, warn_of_unseen
from symphony.wishes import Wishes


class Change(NamedTuple):
    """What shall become of one molecule.

    Attributes:
        core: atomic numbers and positions (Å) of the atoms that stay.
        wishes: what the whole shall be.
        spare: hydrogens that each atom of the core may bear in all; by its bonds where
            None.
    """

    core: Core
    wishes: Wishes
    spare: np.ndarray | None = None


Changer = Callable[[Core, tuple[int, ...], str], Change]
"""`(molecule, species table, name) -> Change`."""

Item = tuple[int, int]
"""Number of a molecule, and number of one of its draws."""


def regrow(
    weights: Weights,
    remove: str | Sequence[int],
    keep_formula: bool = False,
    formula: str | None = None,
    num_atoms: str | int | Sequence[int] | None = None,
    max_heavy: int | None = None,
    elements: str | Sequence[str] | None = None,
) -> Changer:
    """Returns what `symphony edit` does to a molecule, by its flags."""
    asked = wishes.read(formula, num_atoms, max_heavy, elements)
    removed = wishes.read_atoms(remove, "--remove")
    heavy_first = bool(weights.config.data.heavy_first)
    return without_atoms(removed, keep_formula, asked, heavy_first)


def complete(
    weights: Weights,
    formula: str | None = None,
    num_atoms: str | int | Sequence[int] | None = None,
    max_heavy: int | None = None,
    elements: str | Sequence[str] | None = None,
    attach: str | Sequence[int] | None = None,
) -> Changer:
    """Returns what `symphony complete` does to a molecule, by its flags."""
    asked = wishes.read(formula, num_atoms, max_heavy, elements, attach)
    if not asked:
        return with_hydrogens
    heavy_first = bool(weights.config.data.heavy_first)

    def change(molecule: Core, species: tuple[int, ...], name: str) -> Change:
        attach = asked.attach
        if attach is None:
            spare = wishes.open_valences(*molecule, species)
            attach = tuple(int(atom) for atom in spare.nonzero()[0])
        grown = asked._replace(attach=attach, keep_hydrogens=heavy_first)
        return Change(molecule, grown)

    return change


def without_atoms(
    removed: Sequence[int], keep_formula: bool, asked: Wishes, heavy_first: bool
) -> Changer:
    """Returns what takes atoms off a molecule, with their hydrogens, to regrow them.

    What was bonded to them may grow. Its own hydrogens stay where valence allows.

    Args:
        removed: atoms to remove, counted from 0.
        keep_formula: true if the whole shall have the formula that it had.
        asked: what else the whole shall be.
        heavy_first: true for weights that place heavy atoms before hydrogens.
    """

    def change(molecule: Core, species: tuple[int, ...], name: str) -> Change:
        numbers, positions = molecule
        _check_removed(removed, numbers, name)
        gone = np.isin(wishes.parents_of(numbers, positions), removed)
        gone |= np.isin(np.arange(len(numbers)), removed)
        bonded = bonds_of(numbers, positions, species).bonded
        grows = ~gone & (numbers > 1) & bonded[:, gone].any(axis=1)
        if not grows.any():
            raise UsageError(
                f"--remove: expected some atoms of {name} to stay that are bonded to "
                "those removed, found none"
            )
        place = np.cumsum(~gone) - 1
        wanted = asked._replace(
            attach=tuple(place[grows].tolist()), keep_hydrogens=heavy_first
        )
        if keep_formula:
            wanted = wanted._replace(formula=dict(Counter(numbers.tolist())))
        return Change((numbers[~gone], positions[~gone]), wanted)

    return change


def _check_removed(removed: Sequence[int], numbers: np.ndarray, name: str) -> None:
    last = len(numbers) - 1
    if max(removed) > last:
        raise UsageError(
            f"--remove: expected atoms of {name} from 0 ({SYMBOLS[numbers[0] - 1]}) to "
            f"{last} ({SYMBOLS[numbers[last] - 1]}), found {max(removed)}"
        )


def with_hydrogens(molecule: Core, species: tuple[int, ...], name: str) -> Change:
    """Returns what gives a molecule the hydrogens that its open valences lack.

    How many each atom lacks is by the lengths of its bonds. Where the sum makes an odd
    number of electrons, one of them is wrong, and the network decides.
    """
    numbers, positions = molecule
    spare = wishes.open_valences(numbers, positions, species)
    owners = wishes.parents_of(numbers, positions)[numbers == 1]
    missing = int(np.sum(spare - np.bincount(owners, minlength=len(numbers))))
    count, num_heavy = len(numbers), int(np.sum(numbers > 1))
    wanted = Wishes(num_atoms=(count + missing,) * 2, max_heavy=num_heavy)
    known = all(int(number) in VALENCES for number in numbers)
    electrons = int(np.sum(numbers, dtype=np.int64)) + missing
    if not known or electrons % 2 == 0:
        return Change(molecule, wanted, spare)
    low, high = count + max(missing - 1, 0), count + missing + 1
    low += (electrons - missing + low - count) % 2
    free = np.full(len(numbers), max(VALENCES.values()))
    return Change(molecule, wanted._replace(num_atoms=(low, high)), free)


class Job(NamedTuple):
    """Molecules, and what shall become of them.

    Attributes:
        weights: trained model.
        options: temperatures and largest size.
        changes: what shall become of each molecule.
        names: names of the molecules.
        number: draws of each, or accepted ones.
        seed: seed of the random numbers.
        num_slots: molecules under construction at a time; the device's where None.
    """

    weights: Weights
    options: Options
    changes: list[Change]
    names: list[str]
    number: int
    seed: int
    num_slots: int | None


def make_job(
    weights: Weights,
    source: Any,
    changer: Changer,
    number: int,
    seed: int,
    num_slots: int | None,
    basin: bool,
) -> Job:
    """Returns molecules with what shall become of them, all checked.

    Args:
        weights: trained model.
        source: file of molecules, an RDKit molecule with a conformer, or several.
        changer: what changes a molecule.
        number: draws of each, or accepted ones.
        seed: seed of the random numbers.
        num_slots: molecules under construction at a time; the device's where None.
        basin: true to narrow the modes of positions.

    Raises:
        UsageError: A molecule or a number cannot be used.
    """
    molecules, told = _molecules_of(source, tuple(weights.config.data.species))
    warn_of_unseen(weights, molecules.atomic_numbers, told)
    changes = _changes_of(molecules, weights, changer, told)
    drawing.check_numbers(seed, len(changes) * number, num_slots)
    chosen = options.choose(
        weights, basin=basin, max_atoms=_most_atoms(weights, changes)
    )
    names = [str(name) for name in molecules.names]
    for change, name in zip(changes, names, strict=True):
        options.check_change(
            change.wishes, weights, chosen.max_atoms, change.core, name
        )
    return Job(weights, chosen, changes, names, number, seed, num_slots)


def _molecules_of(source: Any, species: tuple[int, ...]) -> tuple[data.Molecules, str]:
    """Returns the molecules of a file or of RDKit, and a word for messages."""
    most = options.MAX_ATOMS - 1
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        molecules, _ = data.read_molecules(path, species, most, strict=True, part=True)
        return molecules, str(source)
    mols = [source] if hasattr(source, "GetConformer") else list(source)
    if not mols:
        raise UsageError("molecules: expected one or more, found none")
    given = [options.to_arrays(*options.of_rdkit(mol, "molecules")) for mol in mols]
    molecules = data.make_molecules(
        np.array([len(numbers) for numbers, _ in given]),
        np.concatenate([numbers for numbers, _ in given]),
        np.concatenate([positions for _, positions in given]),
    )
    titles = [mol.GetProp("_Name") if mol.HasProp("_Name") else "" for mol in mols]
    names = [title or str(index) for index, title in enumerate(titles)]
    records = data.Records(molecules._replace(names=np.array(names)), None, ())
    data.screen(records, species, most, "molecules", strict=True)
    return records.molecules, "molecules"


def _changes_of(
    molecules: data.Molecules, weights: Weights, changer: Changer, source: str
) -> list[Change]:
    """Returns what shall become of each molecule."""
    species = tuple(weights.config.data.species)
    changes = []
    for index, name in enumerate(molecules.names):
        atoms = slice(*molecules.offsets[index : index + 2])
        numbers, positions = molecules.atomic_numbers[atoms], molecules.positions[atoms]
        if not np.any(numbers > 1):
            raise UsageError(
                f"{source}: expected molecules with a heavy atom, found {name} without"
            )
        changes.append(changer((numbers, positions), species, str(name)))
    return changes


def _most_atoms(weights: Weights, changes: Sequence[Change]) -> int:
    """Returns the largest number of atoms: the config's, or that of a larger core."""
    wanted = [change.wishes for change in changes]
    sizes = [len(change.core[0]) + 1 for change in changes]
    sizes += [one.num_atoms[1] for one in wanted if one.num_atoms is not None]
    sizes += [sum(one.formula.values()) for one in wanted if one.formula is not None]
    return max(int(weights.config.sample.max_atoms), *sizes)


def draw(job: Job, items: Sequence[Item]) -> Iterator[Sample]:
    """Yields what becomes of molecules, for each pair of a molecule and its draw.

    The index of a sample is that of its draw, whatever else is drawn.
    """
    capacity, count = drawing.capacity_of(job.options), len(job.changes)
    known: dict[int, Target] = {}

    def target_of(index: int) -> Target:
        which = index % count
        if which not in known:
            core, asked, spare = job.changes[which]
            config = job.weights.config
            known[which] = targets.make_target(core, asked, config, capacity, spare)
        return known[which]

    slots = drawing.choose_slots(job.num_slots)
    indices = [turn * count + which for which, turn in items]
    drawn = drawing.draw_targets(
        job.weights, job.options, job.seed, indices, slots, target_of
    )
    for (which, turn), one in zip(items, drawn, strict=True):
        name = job.names[which]
        yield one._replace(name=name if job.number == 1 else f"{name}_{turn}")


def draw_all(job: Job, first: int = 0) -> Iterator[Sample]:
    """Yields `job.number` draws of each molecule, those of one after another.

    Args:
        job: molecules.
        first: number of the first draw of all.
    """
    numbers = range(first, len(job.changes) * job.number)
    items = [divmod(index, job.number) for index in numbers]
    for index, one in zip(numbers, draw(job, items), strict=True):
        yield one._replace(index=index)
