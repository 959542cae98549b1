"""Words of files of molecules: symbols of elements and numbers, as programs write them.

What a library does not read is brought here into the form that it reads.
"""

import functools
import re
from collections.abc import Iterable

from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS

MAX_NAME_LENGTH = 80  # of an SDF title, by its specification
_EXPONENT = re.compile(r"(?<=[\d.])(?:[dD]|\*\^)(?=[+-]?\d)")
ISOTOPES = {"D": "H", "T": "H"}
"""Symbols of isotopes, and of their elements."""


class UnreadableError(ValueError):
    """A record that cannot be read: its line, what is expected, and what was found."""


def shown(names: Iterable[str], most: int = 20) -> str:
    r"""Returns names from a file for one line of a message.

    >>> shown(["names", "a\nb"]), shown([])
    ('a?b, names', 'nothing')
    """
    clean = ("".join(c if c.isprintable() else "?" for c in name) for name in names)
    return ", ".join(name[:40] for name in sorted(clean)[:most]) or "nothing"


def with_exponents(text: str) -> str:
    """Returns a text whose exponents of Fortran and Mathematica are written with e.

    >>> with_exponents("C -8.5D-01 1.2*^-6 D 0.")
    'C -8.5e-01 1.2e-6 D 0.'
    """
    return _EXPONENT.sub("e", text)


@functools.lru_cache(maxsize=4096)
def symbol_of(word: str) -> str | None:
    """Returns the symbol of the element that a word names in any case, or by number.

    >>> [symbol_of(word) for word in ("CL", "c", "6.0", "17", "D", "C1", "*")]
    ['Cl', 'C', 'C', 'Cl', 'H', None, None]
    """
    symbol = word.capitalize()
    if symbol in ATOMIC_NUMBERS:
        return ISOTOPES.get(symbol, symbol)
    if re.fullmatch(r"\d{1,3}(\.0*)?", word, re.ASCII):
        number = int(float(word))
        return SYMBOLS[number - 1] if 1 <= number <= len(SYMBOLS) else None
    return None


def no_element(word: str, atom: int, line: int) -> UnreadableError:
    """Returns the error of a word in the place of a symbol; atoms count from 1."""
    what = "expected the symbol of an element"
    label = re.fullmatch(r"([A-Za-z]{1,2})[\d(:+_-]\S*", word, re.ASCII)
    symbol = symbol_of(label.group(1)) if label else None
    other = "leave the atom out, or name its element"
    remedy = f"write {symbol} if it is one" if symbol else other
    return UnreadableError(
        f"line {line}: {what}, found {word[:20]!r} (atom {atom}); {remedy}"
    )


def not_kept(what: str, number: int, remedy: str = "") -> tuple[str, ...]:
    """Returns a remark on what some molecules of a file have and is not used, if any.

    >>> not_kept("isotopes", 2), not_kept("isotopes", 0)
    (('2 molecules have isotopes, which are not kept',), ())
    """
    if not number:
        return ()
    have = "molecule has" if number == 1 else "molecules have"
    return (f"{number} {have} {what}, which are not kept{remedy}",)


def number_of(word: str) -> float:
    """Returns a number.

    >>> number_of("1.5D+02")
    150.0

    Raises:
        ValueError: The word is none.
    """
    if "_" in word:
        raise ValueError("a number of Python, which no other program writes")
    return float(with_exponents(word))
