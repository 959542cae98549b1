"""Molecules of a file that are changed: what `symphony edit` and `complete` share.

`without_atoms` makes the target of a molecule that regrows a part, `with_hydrogens` of
one that only lacks hydrogens. Positions are in Å.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.commands import cli
from common.errors import UsageError
from symphony import data, manifest, molfile, options, sampler, targets, wishes
from symphony.data.elements import SYMBOLS
from symphony.manifest import Sample
from symphony.options import Core, Options
from symphony.targets import Target
from symphony.valence import VALENCES, bonds_of
from symphony.weights import Weights, load_weights, warn_of_unseen
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


def add_flags(parser: argparse.ArgumentParser, output: str) -> None:
    """Adds the flags that both commands have."""
    add = parser.add_argument
    add("molecules", nargs="?", help="file (.sdf, .xyz, .extxyz, .npz)")
    add("--molecules", dest="molecules_flag", help="the same, by its name")
    add("-o", "--output", default=output, help="an SDF; .extxyz and .jsonl beside")
    add("--num_molecules", type=int, default=1, help="for each molecule of the file")
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--seed", type=int, default=0, help="of the random numbers")
    add("--formula", help="of the whole, as C7H10O2")
    add("--num_atoms", help="of the whole, with hydrogens, as 18 or 12-20")
    add("--max_heavy", type=int, default=None, help="atoms heavier than hydrogen")
    add("--elements", help="that may be added, as C,N,O,H")
    add("--num_slots", type=int, default=None, help="molecules built at a time")
    add("--overwrite", action="store_true", help="replace what --output has")


def input_of(flags: argparse.Namespace) -> str:
    """Returns the file of molecules: the first word, or `--molecules`."""
    given = [x for x in (flags.molecules, flags.molecules_flag) if x is not None]
    if len(given) != 1:
        found = "none" if not given else f"both {given[0]} and --molecules={given[1]}"
        raise UsageError(
            f"expected a file of molecules as first word or --molecules, found {found}"
        )
    return given[0]


def run(
    flags: argparse.Namespace,
    make_changer: Callable[[Weights], Changer],
    basin: bool,
    doing: str,
) -> int:
    """Runs a command that changes the molecules of a file; returns the exit status.

    Args:
        flags: flags of the command.
        make_changer: function of the weights that returns what changes a molecule.
        basin: true to narrow the modes of positions.
        doing: word for the progress.
    """
    source = input_of(flags)
    molfile.check(flags.output, source)
    weights = load_weights(flags.checkpoint)
    changer = make_changer(weights)
    changes, names = _read_changes(source, weights, changer)
    total = len(changes) * flags.num_molecules
    sampler.check_numbers(flags.seed, total, flags.num_slots)
    chosen = options.choose(
        weights, basin=basin, max_atoms=_most_atoms(weights, changes)
    )
    for change, name in zip(changes, names, strict=True):
        options.check_change(
            change.wishes, weights, chosen.max_atoms, change.core, name
        )
    cli.announce_device()
    make = partial(
        grow, weights, chosen, changes, names, flags.num_molecules, flags.seed,
        flags.num_slots,
    )  # fmt: skip
    head = _header(weights, chosen, flags, changes)
    with molfile.open_output(flags.output, head, flags.overwrite) as output:
        written = manifest.write_all(output, make, total, doing)
    everything = molfile.paths_of(flags.output).extxyz
    manifest.tell(
        flags.output, written, f"; all, with those that failed, in {everything}"
    )
    return 0


def _read_changes(
    source: str, weights: Weights, changer: Changer
) -> tuple[list[Change], list[str]]:
    """Returns what shall become of each molecule of a file, and their names."""
    species = tuple(weights.config.data.species)
    molecules, _ = data.read_molecules(
        Path(source), species, options.MAX_ATOMS - 1, strict=True, part=True
    )
    warn_of_unseen(weights, molecules.atomic_numbers, source)
    changes = []
    for index, name in enumerate(molecules.names):
        atoms = slice(*molecules.offsets[index : index + 2])
        numbers, positions = molecules.atomic_numbers[atoms], molecules.positions[atoms]
        if not np.any(numbers > 1):
            raise UsageError(
                f"{source}: expected molecules with a heavy atom, found {name} without"
            )
        changes.append(changer((numbers, positions), species, str(name)))
    return changes, [str(name) for name in molecules.names]


def _most_atoms(weights: Weights, changes: Sequence[Change]) -> int:
    """Returns the largest number of atoms: the config's, or that of a larger core."""
    wanted = [change.wishes for change in changes]
    sizes = [len(change.core[0]) + 1 for change in changes]
    sizes += [one.num_atoms[1] for one in wanted if one.num_atoms is not None]
    sizes += [sum(one.formula.values()) for one in wanted if one.formula is not None]
    return max(int(weights.config.sample.max_atoms), *sizes)


def grow(
    weights: Weights,
    chosen: Options,
    changes: Sequence[Change],
    names: Sequence[str],
    number: int,
    seed: int,
    num_slots: int | None,
    first: int = 0,
) -> Iterator[Sample]:
    """Yields what becomes of molecules, those of one input after another.

    Args:
        weights: trained model.
        chosen: temperatures and largest size.
        changes: what shall become of each molecule.
        names: names of the molecules.
        number: draws for each.
        seed: seed of the random numbers.
        num_slots: molecules under construction at a time; the device's where None.
        first: index of the first draw.
    """
    capacity = sampler.capacity_of(chosen)
    known: dict[int, Target] = {}

    def target_of(index: int) -> Target:
        which = index // number
        if which not in known:
            core, asked, spare = changes[which]
            known[which] = targets.make_target(
                core, asked, weights.config, capacity, spare
            )
        return known[which]

    slots = sampler.choose_slots(num_slots)
    indices = range(first, len(changes) * number)
    drawn = sampler.draw_targets(weights, chosen, seed, indices, slots, target_of)
    for one in drawn:
        name = names[one.index // number]
        name = name if number == 1 else f"{name}_{one.index % number}"
        yield one._replace(name=name)


def _header(
    weights: Weights,
    chosen: Options,
    flags: argparse.Namespace,
    changes: Sequence[Change],
) -> dict[str, Any]:
    """Returns what decides the molecules."""
    head = manifest.header(weights, chosen, flags.seed)
    cores = data.make_molecules(
        np.array([len(change.core[0]) for change in changes]),
        np.concatenate([change.core[0] for change in changes]),
        np.concatenate([change.core[1] for change in changes]),
    )
    asked = {
        name: getattr(flags, name)
        for name in ("remove", "keep_formula", "formula", "num_atoms", "max_heavy")
        if getattr(flags, name, None)
    }
    return {
        **head,
        "settings": {**head["settings"], **asked, "for_each": flags.num_molecules},
        "molecules_sha256": data.checksum(cores),
    }
