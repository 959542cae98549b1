r"""Irreducible representations of O(3), and the paths of their products.

An irrep has a degree l, with 2l + 1 components, and a parity: the factor, 1 or -1, that
an inversion of space gives it. Spherical harmonics have the *natural* parity $(-1)^l$.
A network that need not behave under inversions (SO(3)) calls every irrep even. The rule
$p_1 p_2 = p_3$ then allows every path, the cross product among them, so that left and
right hands differ. The irreps of the features alone decide the group.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

Group: TypeAlias = str
"""`"O3"` or `"SO3"`."""


class Irrep(NamedTuple):
    """An irreducible representation.

    >>> Irrep(1, -1).dim, str(Irrep(1, -1))
    (3, '1o')

    Attributes:
        degree: degree l.
        parity: 1 if even under inversion, -1 if odd.
    """

    degree: int
    parity: int

    @property
    def dim(self) -> int:
        """Number of components, 2l + 1."""
        return 2 * self.degree + 1

    def __str__(self) -> str:
        return f"{self.degree}{'e' if self.parity == 1 else 'o'}"


SCALAR, VECTOR, PSEUDOVECTOR = Irrep(0, 1), Irrep(1, -1), Irrep(1, 1)
Irreps: TypeAlias = Mapping[Irrep, int]
"""Irreps of features, with the number of channels of each."""

Path: TypeAlias = tuple[Irrep, Irrep, Irrep]
"""Irreps of the first factor, of the second one and of the product."""


def parse(text: str) -> dict[Irrep, int]:
    """Returns the irreps of a text in e3nn's notation, sorted.

    >>> parse("128x0e + 64x1o")
    {Irrep(degree=0, parity=1): 128, Irrep(degree=1, parity=-1): 64}

    Args:
        text: terms `<channels>x<degree><e or o>` with `+` between them, each irrep
        once.

    Raises:
        ValueError: A term has another form, or an irrep comes twice.
    """
    found: dict[Irrep, int] = {}
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(\d+)x(\d+)([eo])\s*", term)
        if match is None:
            raise ValueError(
                f"irreps: expected terms like 64x1o, found {term.strip()!r}"
            )
        irrep = Irrep(int(match[2]), 1 if match[3] == "e" else -1)
        if irrep in found:
            raise ValueError(f"irreps: expected each irrep once, found {irrep} twice")
        found[irrep] = int(match[1])
    return dict(sorted(found.items()))


def format_irreps(irreps: Irreps) -> str:
    """Returns irreps in e3nn's notation.

    >>> format_irreps(uniform(2, 8))
    '8x0e+8x1o+8x2e'
    """
    return "+".join(f"{irreps[irrep]}x{irrep}" for irrep in sorted(irreps))


def harmonic_irreps(max_degree: int, group: Group = "O3") -> tuple[Irrep, ...]:
    """Lists the irreps of spherical harmonics up to a degree.

    >>> [str(irrep) for irrep in harmonic_irreps(2)]
    ['0e', '1o', '2e']
    >>> [str(irrep) for irrep in harmonic_irreps(2, "SO3")]
    ['0e', '1e', '2e']

    Args:
        max_degree: largest degree.
        group: `"O3"` for natural parities, `"SO3"` to call all of them even.

    Raises:
        ValueError: The group is another one.
    """
    if group not in ("O3", "SO3"):
        raise ValueError(f"expected the group 'O3' or 'SO3', found {group!r}")
    odd = -1 if group == "O3" else 1
    return tuple(Irrep(l, odd if l % 2 else 1) for l in range(max_degree + 1))


def uniform(
    max_degree: int, num_channels: int, group: Group = "O3"
) -> dict[Irrep, int]:
    """Returns the irreps of `harmonic_irreps`, all with one number of channels.

    >>> format_irreps(uniform(1, 4, "SO3"))
    '4x0e+4x1e'
    """
    return dict.fromkeys(harmonic_irreps(max_degree, group), num_channels)


def product_paths(
    x: Iterable[Irrep], y: Iterable[Irrep], out: Iterable[Irrep]
) -> tuple[Path, ...]:
    r"""Lists the paths of a tensor product, ordered by output first.

    >>> vector = Irrep(1, -1)
    >>> [str(out) for *_, out in product_paths([vector], [vector], [SCALAR, vector])]
    ['0e']

    Args:
        x: irreps of the first factor.
        y: irreps of the second factor.
        out: irreps kept in the product.

    Returns:
        Triples with $|l_1 - l_2| \le l_3 \le l_1 + l_2$ and $p_1 p_2 = p_3$.
    """
    return tuple(
        (i, j, k)
        for k, i, j in itertools.product(out, x, y)
        if abs(i.degree - j.degree) <= k.degree <= i.degree + j.degree
        and i.parity * j.parity == k.parity
    )


def degree_slices(max_degree: int) -> tuple[slice, ...]:
    """Returns the rows of each degree where degrees 0 to `max_degree` are stacked.

    >>> degree_slices(1)
    (slice(0, 1, None), slice(1, 4, None))
    """
    return tuple(slice(l * l, (l + 1) ** 2) for l in range(max_degree + 1))
