"""Ideal bonds, angles and torsions of the amino acids, and atoms placed by them.

Lengths are in Å, angles in degrees; they are means of ff14SB at 300 K, rounded. A row
`CG:CB:CA:N 1.54 114 chi1` places CG at 1.54 Å from CB, with an angle of 114 degrees at
CB to CA, and a torsion of chi1 about CA-CB. Rings close within .02 Å.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "*#batch 3"]
Angles = float | Float[np.ndarray, "*#batch"]


class Row(NamedTuple):
    """Place of an atom, from three others.

    Attributes:
        atom: name of the atom.
        bonded: atom that it is bonded to.
        angle_to: atom at the other side of the angle.
        torsion_to: fourth atom of the torsion.
        length: length of the bond, in Å.
        angle: angle at `bonded`, in degrees.
        torsion: torsion in degrees, or the name of one that may turn.
    """

    atom: str
    bonded: str
    angle_to: str
    torsion_to: str
    length: float
    angle: float
    torsion: float | str


N_CA, CA_C, C_N, C_O = 1.465, 1.54, 1.337, 1.235
"""Bonds of the backbone."""

C_N_CA, N_CA_C, CA_C_N, CA_C_O = 123.5, 112.0, 117.0, 120.5
"""Its angles."""

_CB = "CB:CA:C:N 1.543 111.4 123.7"
_PHENYL = (
    "CG:CB:CA:N 1.52 115 chi1; CD1:CG:CB:CA 1.407 120 chi2; CD2:CG:CB:CD1 1.407 120 "
    "180; CE1:CD1:CG:CB 1.407 120 180; CE2:CD2:CG:CB 1.407 120 180; CZ:CE1:CD1:CG "
    "1.407 120 0"
)
_SIDE_CHAINS = {
    "ALA": "",
    "ARG": (
        "CG:CB:CA:N 1.541 114.3 chi1; CD:CG:CB:CA 1.537 112.5 chi2; NE:CD:CG:CB 1.48 "
        "111.9 chi3; CZ:NE:CD:CG 1.323 126 chi4; NH1:CZ:NE:CD 1.304 122 0; "
        "NH2:CZ:NE:CD 1.304 120 180"
    ),
    "ASN": (
        "CG:CB:CA:N 1.525 114 chi1; OD1:CG:CB:CA 1.225 122 chi2; ND2:CG:CB:OD1 1.317 "
        "118 180"
    ),
    "ASP": (
        "CG:CB:CA:N 1.542 114.5 chi1; OD1:CG:CB:CA 1.256 119 chi2; OD2:CG:CB:OD1 1.256 "
        "119 180"
    ),
    "CYS": "SG:CB:CA:N 1.82 112 chi1",
    "GLN": (
        "CG:CB:CA:N 1.543 114.7 chi1; CD:CG:CB:CA 1.532 114 chi2; OE1:CD:CG:CB 1.227 "
        "122.5 chi3; NE2:CD:CG:OE1 1.318 118 180"
    ),
    "GLU": (
        "CG:CB:CA:N 1.541 115 chi1; CD:CG:CB:CA 1.545 114 chi2; OE1:CD:CG:CB 1.257 119 "
        "chi3; OE2:CD:CG:OE1 1.257 119 180"
    ),
    "GLY": "",
    "HIS": (
        "CG:CB:CA:N 1.513 114.8 chi1; ND1:CG:CB:CA 1.379 125.5 chi2; CD2:CG:CB:ND1 "
        "1.371 126.3 180; CE1:ND1:CG:CB 1.344 107.5 180; NE2:CD2:CG:CB 1.404 106.5 180"
    ),
    "ILE": (
        "CG1:CB:CA:N 1.549 112 chi1; CG2:CB:CA:CG1 1.541 111.7 -124; CD1:CG1:CB:CA "
        "1.536 114.5 chi2"
    ),
    "LEU": (
        "CG:CB:CA:N 1.545 115.7 chi1; CD1:CG:CB:CA 1.533 111.7 chi2; CD2:CG:CB:CD1 "
        "1.533 110.7 -121.5"
    ),
    "LYS": (
        "CG:CB:CA:N 1.541 114 chi1; CD:CG:CB:CA 1.538 112.4 chi2; CE:CD:CG:CB 1.537 "
        "111.5 chi3; NZ:CE:CD:CG 1.489 111.9 chi4"
    ),
    "MET": (
        "CG:CB:CA:N 1.538 114 chi1; SD:CG:CB:CA 1.819 114.5 chi2; CE:SD:CG:CB 1.817 "
        "100.7 chi3"
    ),
    "PHE": _PHENYL,
    "PRO": "CG:CB:CA:N 1.53 103.8 chi1; CD:CG:CB:CA 1.527 103.1 chi2",
    "SER": "OG:CB:CA:N 1.421 111.3 chi1",
    "THR": "OG1:CB:CA:N 1.416 110.7 chi1; CG2:CB:CA:OG1 1.533 113 -121.5",
    "TRP": (
        "CG:CB:CA:N 1.503 115.5 chi1; CD1:CG:CB:CA 1.354 125.5 chi2; CD2:CG:CB:CD1 "
        "1.465 128.0 180; NE1:CD1:CG:CB 1.383 109.6 180; CE2:CD2:CG:CB 1.429 107.5 "
        "180; CE3:CD2:CG:CB 1.414 134 0; CZ2:CE2:CD2:CG 1.403 122.2 180; "
        "CZ3:CE3:CD2:CG 1.41 119.2 180; CH2:CZ2:CE2:CD2 1.406 117.8 0"
    ),
    "TYR": f"{_PHENYL}; OH:CZ:CE1:CD1 1.36 120 180",
    "VAL": "CG1:CB:CA:N 1.537 112 chi1; CG2:CB:CA:CG1 1.537 112 123",
}
_BETA = {"PRO": "CB:CA:C:N 1.537 111.4 117.6"}


def _parse(text: str) -> tuple[Row, ...]:
    rows = []
    for line in filter(None, (part.strip() for part in text.split(";"))):
        names, length, angle, torsion = line.split()
        turns = torsion if torsion.startswith("chi") else float(torsion)
        rows.append(Row(*names.split(":"), float(length), float(angle), turns))
    return tuple(rows)


SIDE_CHAINS = {
    name: _parse("" if name == "GLY" else f"{_BETA.get(name, _CB)}; {text}")
    for name, text in _SIDE_CHAINS.items()
}
"""Rows of the side chain of each amino acid, CB first; a row needs those before it."""

OXYGEN = Row("O", "C", "CA", "N", C_O, CA_C_O, "psi")
"""Row of the oxygen of the backbone; its torsion is psi, turned by 180 degrees."""

CLOSURES = {"CD-N": 1.47, "CE1-NE2": 1.34, "NE1-CE2": 1.383, "CH2-CZ3": 1.395}
"""Bonds that close rings, beside those of rows, and the length that they come to."""

_STAGGERED = (-63.0, -177.0, 62.0)
_CHI = {
    "ARG": (_STAGGERED, (-177.0, -65.0, 65.0), (-177.0, -65.0, 65.0), (180.0, 90.0)),
    "ASN": (_STAGGERED, (-50.0, 50.0, 130.0, -130.0)),
    "ASP": (_STAGGERED, (-20.0, 20.0, 160.0, -160.0)),
    "CYS": (_STAGGERED,),
    "GLN": (_STAGGERED, (-177.0, -65.0, 65.0), (0.0, 60.0, -60.0)),
    "GLU": (_STAGGERED, (-177.0, -65.0, 65.0), (-45.0, 45.0)),
    "HIS": (_STAGGERED, (-75.0, 75.0, 105.0, -105.0)),
    "ILE": (_STAGGERED, (170.0, -62.0)),
    "LEU": ((-65.0, -177.0), (175.0, 65.0)),
    "LYS": (_STAGGERED, *3 * ((-177.0, -67.0, 67.0),)),
    "MET": (_STAGGERED, (-177.0, -65.0, 65.0), (-72.0, 72.0, 180.0)),
    "PHE": (_STAGGERED, (-88.0, 88.0)),
    "SER": (_STAGGERED,),
    "THR": ((60.0, -58.0),),
    "TRP": (_STAGGERED, (-95.0, 95.0)),
    "TYR": (_STAGGERED, (-88.0, 88.0)),
    "VAL": (_STAGGERED,),
}
"""Torsions at which each chi is at rest."""

PUCKERS = ((27.6, -34.8, -70.0), (-27.6, 34.8, -58.0))
"""chi1, chi2 and phi of the two forms of proline's ring."""


def place(
    torsion_to: Points,
    angle_to: Points,
    bonded: Points,
    length: float,
    angle: float,
    torsion: Angles,
) -> Points:
    """Returns an atom by its bond, angle and torsion to three others.

    >>> corner = [np.array(p, float) for p in ((1, 0, 0), (0, 0, 0), (0, 1, 0))]
    >>> place(*corner, 1.0, 90.0, 0.0).round(6).tolist()
    [1.0, 1.0, 0.0]

    Args:
        torsion_to: fourth atom of the torsion, in Å.
        angle_to: atom at the other side of the angle.
        bonded: atom that it is bonded to.
        length: length of the bond.
        angle: angle at `bonded`, in degrees.
        torsion: torsion in degrees, one for each of the batch or for all.
    """
    axis = _unit(bonded - angle_to)
    normal = _unit(np.cross(angle_to - torsion_to, axis))
    turn, bend = np.radians(np.asarray(torsion))[..., None], np.radians(180.0 - angle)
    across = np.cos(turn) * np.cross(normal, axis) + np.sin(turn) * normal
    return bonded + length * (np.cos(bend) * axis + np.sin(bend) * across)


def _unit(vectors: Points) -> Points:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def place_row(
    row: Row, atoms: Mapping[str, Points], torsions: Mapping[str, Angles]
) -> Points:
    """Returns the atom of a row.

    Args:
        row: place of the atom.
        atoms: atoms of the residue by name, in Å.
        torsions: torsions that may turn, by name, in degrees.
    """
    before = (atoms[name] for name in (row.torsion_to, row.angle_to, row.bonded))
    turn = row.torsion
    torsion = torsions[turn] if isinstance(turn, str) else turn
    return place(*before, row.length, row.angle, torsion)


def draw_chi(name: str, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Returns side-chain torsions of a residue, in degrees, near where they rest.

    >>> sorted(draw_chi("LEU", np.random.default_rng(0), 2))
    ['chi1', 'chi2']

    Args:
        name: three letters.
        rng: random numbers.
        count: number of draws.
    """
    if name == "PRO":
        chosen = np.array(PUCKERS)[rng.integers(2, size=count)]
        return {"chi1": chosen[:, 0], "chi2": chosen[:, 1], "phi": chosen[:, 2]}
    rest = (rng.choice(values, size=count) for values in _CHI.get(name, ()))
    return {
        f"chi{number}": at + rng.normal(0.0, 7.0, count)
        for number, at in enumerate(rest, start=1)
    }


def torsion(a: Points, b: Points, c: Points, d: Points) -> np.ndarray:
    """Returns the torsion of four atoms, in degrees.

    >>> four = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]], float)
    >>> round(float(torsion(*four)))
    -90
    """
    axis = _unit(c - b)
    flat = lambda x: x - np.sum(x * axis, -1, keepdims=True) * axis
    one, other = flat(a - b), flat(d - c)
    sine = np.sum(np.cross(axis, one) * other, -1)
    return np.asarray(np.degrees(np.arctan2(sine, np.sum(one * other, -1))))
