"""What a user asks molecules to be: formula, size, elements, atoms that may grow.

Checked before any work; `symphony.starts` makes the arrays of `symphony.limits` of it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.errors import UsageError
from symphony import formula as formulas
from symphony import valence
from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS
from symphony.limits import UNLIMITED
from symphony.weights import Weights

_NUMBER = re.compile(r"\s*[0-9]{1,9}\s*")


class Wishes(NamedTuple):
    """What molecules shall be; None where nothing is asked. All counts are of a whole.

    Attributes:
        formula: number of atoms by atomic number, met exactly.
        num_atoms: least and largest number of atoms.
        max_heavy: largest number of atoms heavier than hydrogen.
        elements: atomic numbers of the atoms that are added.
        attach: atoms of the fragment that may grow, counted from 0.
        keep_hydrogens: true if hydrogens of `attach` stay where valence allows.
    """

    formula: Mapping[int, int] | None = None
    num_atoms: tuple[int, int] | None = None
    max_heavy: int | None = None
    elements: tuple[int, ...] | None = None
    attach: tuple[int, ...] | None = None
    keep_hydrogens: bool = False

    def __bool__(self) -> bool:
        """Returns whether anything is asked."""
        return any(value is not None and value is not False for value in self)


def read(
    formula: str | None = None,
    num_atoms: str | int | Sequence[int] | None = None,
    max_heavy: int | None = None,
    elements: str | Sequence[str] | None = None,
    attach: str | Sequence[int] | None = None,
    keep_hydrogens: bool = False,
) -> Wishes:
    """Returns what the values of the flags, or keywords, ask for.

    >>> read(formula="H2O", num_atoms="3-5").num_atoms
    (3, 5)

    Raises:
        UsageError: A value has another form.
    """
    return Wishes(
        formula=None if formula is None else formulas.parse(formula),
        num_atoms=None if num_atoms is None else _read_range(num_atoms),
        max_heavy=max_heavy,
        elements=None if elements is None else _read_elements(elements),
        attach=None if attach is None else read_atoms(attach, "--attach"),
        keep_hydrogens=keep_hydrogens,
    )


def _read_range(value: str | int | Sequence[int]) -> tuple[int, int]:
    text = str(value) if isinstance(value, str | int) else "-".join(map(str, value))
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", text)
    if not found or not 1 <= int(found[1]) <= int(found[2] or found[1]):
        raise UsageError(
            f"--num_atoms: expected a number or a range, as 18 or 12-20, found {text!r}"
        )
    return int(found[1]), int(found[2] or found[1])


def _read_elements(value: str | Sequence[str]) -> tuple[int, ...]:
    words = value.split(",") if isinstance(value, str) else value
    words = [word.strip() for word in words if word.strip()]
    unknown = [word for word in words if word not in ATOMIC_NUMBERS]
    if unknown or not words:
        raise UsageError(
            f"--elements: expected symbols of elements, as C,N,O,H; found "
            f"{unknown[0] if unknown else value!r}"
        )
    return tuple(dict.fromkeys(ATOMIC_NUMBERS[word] for word in words))


def read_atoms(value: str | Sequence[int], flag: str) -> tuple[int, ...]:
    """Returns different numbers of atoms, in order.

    >>> read_atoms("3,5,3", "--attach")
    (3, 5)
    """
    words = value.split(",") if isinstance(value, str) else value
    words = [word for word in words if str(word).strip()]
    if not words or not all(
        re.fullmatch(r"\s*[0-9]{1,9}\s*", str(word)) for word in words
    ):
        raise UsageError(
            f"{flag}: expected numbers of atoms from 0, as 3,5; found {value!r}"
        )
    return tuple(sorted({int(word) for word in words}))


def check(
    wishes: Wishes,
    weights: Weights,
    max_atoms: int,
    core: Sequence[int] | np.ndarray = (),
) -> None:
    """Refuses what no molecule can be, or no molecule of these weights.

    Args:
        wishes: what is asked.
        weights: trained model.
        max_atoms: largest number of atoms.
        core: atomic numbers of the atoms of a fragment that stay for certain.

    Raises:
        UsageError: It cannot be done.
    """
    if wishes.keep_hydrogens and wishes.attach is None:
        raise UsageError("--keep_hydrogens: expected --attach beside it, found none")
    if wishes.attach is not None and not len(core):
        raise UsageError("--attach: expected --fragment beside it, found none")
    if wishes.keep_hydrogens and not weights.config.data.heavy_first:
        raise UsageError(
            f"--keep_hydrogens: expected weights that place heavy atoms first, found "
            f"{weights.name}; leave it out"
        )
    if wishes.max_heavy is not None and not 1 <= wishes.max_heavy <= UNLIMITED:
        raise UsageError(
            f"--max_heavy: expected 1 to {UNLIMITED}, found {wishes.max_heavy}"
        )
    known, unseen = tuple(weights.config.data.species), weights.unseen
    if wishes.elements is not None:
        what = f"--elements={','.join(SYMBOLS[n - 1] for n in wishes.elements)}"
        formulas.check_elements(wishes.elements, known, unseen, what)
    if wishes.formula is not None:
        _check_formula(wishes, known, unseen, max_atoms, core)
    _check_size(wishes, max_atoms)
    _check_core(wishes, core)


def _check_formula(
    wishes: Wishes,
    known: Sequence[int],
    unseen: Sequence[int],
    max_atoms: int,
    core: Sequence[int] | np.ndarray,
) -> None:
    counts = wishes.formula
    text = f"--formula={formulas.write(counts)}"
    formulas.check_elements([*counts], known, unseen, text)
    total, heavy = sum(counts.values()), sum(counts.values()) - counts.get(1, 0)
    if total > max_atoms:
        raise UsageError(
            f"{text}: expected at most {max_atoms} atoms, found {total}; raise "
            "--max_atoms"
        )
    if not heavy:
        raise UsageError(f"{text}: expected an atom heavier than hydrogen, found none")
    if fault := formulas.find_fault(counts):
        raise UsageError(
            f"{text}: expected a molecule that there can be, found {fault}"
        )
    low, high = wishes.num_atoms or (total, total)
    if not low <= total <= high:
        raise UsageError(
            f"{text}: expected {low} to {high} atoms by --num_atoms, found {total}"
        )
    outside = {*counts} - {*(wishes.elements or counts)} - {*core}
    if outside:
        raise UsageError(
            f"{text}: expected elements of --elements, found "
            f"{', '.join(SYMBOLS[n - 1] for n in sorted(outside))}"
        )
    if heavy > (wishes.max_heavy or heavy):
        raise UsageError(
            f"{text}: expected at most {wishes.max_heavy} heavy atoms, as --max_heavy "
            f"says, found {heavy}"
        )


def _check_size(wishes: Wishes, max_atoms: int) -> None:
    """Refuses a size that is too large, or that a number of heavy atoms cannot have."""
    if wishes.num_atoms is None:
        return
    low, high = wishes.num_atoms
    if high > max_atoms:
        raise UsageError(
            f"--num_atoms: expected at most {max_atoms}, found {high}; raise "
            "--max_atoms"
        )
    if high < 2:
        raise UsageError(f"--num_atoms: expected at least 2 atoms, found {high}")
    if wishes.max_heavy is not None and low > 3 * wishes.max_heavy + 2:
        raise UsageError(
            f"--num_atoms: expected at most {3 * wishes.max_heavy + 2} atoms for "
            f"--max_heavy={wishes.max_heavy}, found {low}"
        )


def _check_core(wishes: Wishes, core: Sequence[int] | np.ndarray) -> None:
    """Refuses a core that is more than the molecule may be, or has elements beyond."""
    counts = Counter(int(number) for number in core)
    total = sum(counts.values())
    num_heavy = total - counts.get(1, 0)
    if wishes.max_heavy is not None and num_heavy > wishes.max_heavy:
        raise UsageError(
            f"--max_heavy: expected at least the {num_heavy} heavy atoms of the "
            f"fragment, found {wishes.max_heavy}"
        )
    if wishes.num_atoms is not None and wishes.num_atoms[1] < total:
        raise UsageError(
            f"--num_atoms: expected at least the {total} atoms of the fragment that "
            f"stay, found {wishes.num_atoms[1]}"
        )
    wanted = wishes.formula or counts
    if over := [n for n in counts if counts[n] > wanted.get(n, 0)]:
        raise UsageError(
            f"--formula={formulas.write(wanted)}: expected at least the atoms of the "
            f"fragment that stay, {formulas.write(counts)}; found fewer of "
            f"{', '.join(SYMBOLS[n - 1] for n in over)}"
        )


def staying(wishes: Wishes, numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns the atomic numbers of the atoms of a core that stay for certain."""
    if wishes.attach is None or not np.any(numbers > 1):
        return numbers
    anew = np.isin(parents_of(numbers, positions), wishes.attach) & (numbers == 1)
    return numbers[~anew]


def check_attach(
    wishes: Wishes,
    numbers: np.ndarray,
    positions: np.ndarray,
    species: tuple[int, ...],
    flag: str = "--attach",
) -> None:
    """Refuses atoms that do not exist, are hydrogens, or have no valence to give.

    Args:
        wishes: what is asked.
        numbers: atomic numbers of the core.
        positions: positions of its atoms, in Å.
        species: atomic numbers of the species table.
        flag: flag that named the atoms.
    """
    name = lambda atom: f"{atom} ({SYMBOLS[numbers[atom] - 1]})"
    last = len(numbers) - 1
    for atom in wishes.attach or ():
        if atom > last:
            raise UsageError(
                f"{flag}: expected atoms from {name(0)} to {name(last)}, found {atom}"
            )
        if numbers[atom] == 1:
            raise UsageError(
                f"{flag}: expected atoms heavier than hydrogen, found atom {name(atom)}"
            )
    spare = open_valences(numbers, positions, species)
    for atom in wishes.attach or ():
        if spare[atom] == 0:
            raise UsageError(
                f"{flag}: expected atoms with a hydrogen or an open valence, found "
                f"atom {name(atom)}, whose bonds to heavy atoms fill its valence"
            )


def open_valences(
    numbers: np.ndarray, positions: np.ndarray, species: tuple[int, ...]
) -> np.ndarray:
    """Returns how many hydrogens each heavy atom of a molecule has or needs.

    Those that the molecule has count, and more where the lengths of bonds to heavy
    atoms leave a valence open. Hydrogens themselves have none.
    """
    heavy = numbers > 1
    counts = np.zeros(len(numbers), np.int64)
    if not heavy.any():
        return counts
    elements = numbers[heavy].astype(np.uint8)
    needed = valence.bonds_of(elements, positions[heavy], species).needed
    counts[heavy] = needed
    owners = parents_of(numbers, positions)
    found = np.bincount(owners[~heavy], minlength=len(numbers))
    return np.where(heavy, np.maximum(counts, found), 0)


def parents_of(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns the heavy atom nearest to each hydrogen; itself for the others."""
    heavy = np.flatnonzero(numbers > 1)
    apart = np.linalg.norm(positions[:, None] - positions[None, heavy], axis=-1)
    nearest = heavy[np.argmin(apart, axis=1)]
    return np.where(numbers > 1, np.arange(len(numbers)), nearest)


def most_of(wishes: Wishes, species: tuple[int, ...], core: np.ndarray) -> np.ndarray:
    """Returns how many atoms of each species there may be, the core's counted."""
    if wishes.formula is not None:
        most = np.array([wishes.formula.get(n, 0) for n in species])
    else:
        most = np.full(len(species), UNLIMITED)
    if wishes.elements is not None:
        own = np.array([np.sum(core == n) for n in species])
        most = np.where(np.isin(species, wishes.elements), most, np.minimum(most, own))
    return most.astype(np.int32)
