"""Formulas of molecules: how they are written, and which of them can be built."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from common.errors import UsageError
from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS
from symphony.valence import VALENCES

_PART = re.compile(r"([A-Z][a-z]?)([0-9]{0,9})")


def parse(text: str) -> dict[int, int]:
    """Returns the number of atoms of each element, by atomic number.

    >>> parse("C2H6O")
    {6: 2, 1: 6, 8: 1}

    Raises:
        UsageError: It is no formula, is charged, or has an unknown symbol.
    """
    if re.search(r"[+\-]", text):
        raise UsageError(
            f"--formula: expected a neutral molecule, found {text!r}; leave the charge "
            "out"
        )
    if not text or "".join(map("".join, _PART.findall(text))) != text:
        raise UsageError(
            f"--formula: expected symbols with numbers, as C7H10O2, found {text!r}"
        )
    counts: Counter[int] = Counter()
    for symbol, number in _PART.findall(text):
        if symbol not in ATOMIC_NUMBERS:
            raise UsageError(
                f"--formula: expected symbols of elements, found {symbol!r} in {text!r}"
            )
        counts[ATOMIC_NUMBERS[symbol]] += int(number or 1)
    if not all(counts.values()):
        raise UsageError(f"--formula: expected no element without atoms, found {text}")
    return dict(counts)


def write(counts: Mapping[int, int]) -> str:
    """Returns a formula in Hill's order.

    >>> write({8: 2, 1: 10, 6: 7})
    'C7H10O2'
    """
    symbols = {SYMBOLS[number - 1]: count for number, count in counts.items()}
    first = [name for name in ("C", "H") if "C" in symbols and name in symbols]
    names = first + sorted(symbols.keys() - {*first})
    return "".join(f"{n}{symbols[n] if symbols[n] > 1 else ''}" for n in names)


def find_fault(counts: Mapping[int, int]) -> str | None:
    """Returns why no neutral molecule has a formula, None where one may have it.

    Atoms have the valences of `symphony.valence`. A connected molecule needs as many
    bonds as atoms less one, an even sum of valences, and no atom with more bonds than
    all others offer.

    >>> find_fault({6: 2, 1: 9})
    '9 hydrogens are more than 2 other atoms bind, at most 6'
    >>> find_fault({6: 1, 1: 3})
    'an odd number of electrons'
    """
    if not {*counts} <= {*VALENCES}:
        return None  # Nothing is known of such elements.
    total = sum(VALENCES[number] * count for number, count in counts.items())
    num_atoms, hydrogens = sum(counts.values()), counts.get(1, 0)
    heavy = num_atoms - hydrogens
    most = total - hydrogens - 2 * (heavy - 1)
    if heavy and hydrogens > most:
        return (
            f"{hydrogens} hydrogens are more than {heavy} other atoms bind, at most "
            f"{most}"
        )
    if total % 2:
        return "an odd number of electrons"
    largest = max(VALENCES[number] for number in counts)
    if total < 2 * (num_atoms - 1) or (num_atoms > 1 and 2 * largest > total):
        return "its atoms cannot all be bound with their valences filled"
    if num_atoms == 1:
        return "an atom alone has no bond"
    return None


def check_elements(
    numbers: Sequence[int], known: Sequence[int], unseen: Sequence[int], what: str
) -> None:
    """Raises `UsageError` for elements that weights do not know, or never saw.

    Args:
        numbers: atomic numbers that are asked for.
        known: those of the species table.
        unseen: those of the table that no molecule of the training data had.
        what: flag and its value, for the message.
    """
    served = [number for number in known if number not in unseen]
    bad = [number for number in numbers if number not in served]
    if bad:
        names = lambda some: ", ".join(SYMBOLS[number - 1] for number in some)
        why = "never saw" if {*bad} <= {*known} else "do not know"
        raise UsageError(
            f"{what}: expected elements that the weights were trained on, "
            f"{names(served)}; found {names(bad)}, which they {why}; choose other "
            "weights by --checkpoint"
        )
