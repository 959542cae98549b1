"""ACE and NME put on the ends of chains, in the planes of their peptide bonds.

Lengths are in nm and angles in degrees here, as OpenMM has lengths; imports OpenMM.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from openmm import app, unit

Point = Float[np.ndarray, "3"]

_CARBON_NITROGEN, _CARBON_OXYGEN = 0.1335, 0.1229
_CARBON_METHYL, _NITROGEN_METHYL = 0.1522, 0.1449
_PHI = (-70.0, -120.0, -150.0, 60.0)
"""Of which the one is taken that keeps the cap farthest from other atoms."""
_PSI = 140.0  # Where no oxygen tells.
_ON_NITROGEN = frozenset(("H", "HN", "HT", "H1", "H2", "H3", "HT1", "HT2", "HT3"))
_ON_CARBON = frozenset(("OXT", "OT2", "HXT"))


class _Atom(NamedTuple):
    """An atom of a cap: name, element, place."""

    name: str
    element: Any
    place: Point


def add_caps(
    topology: Any, positions: Float[np.ndarray, "num_atoms 3"]
) -> tuple[Any, Float[np.ndarray, "new_num_atoms 3"]]:
    """Returns a protein with ACE before each chain and NME after it.

    Ends that are capped stay. What a free end has and a capped one lacks goes. Bonds
    are those of the names.

    Args:
        topology: topology of OpenMM, all chains of it amino acids and caps.
        positions: nm.
    """
    made, places = app.Topology(), []
    for chain in topology.chains():
        added = made.addChain(chain.id)
        residues = list(chain.residues())
        first, last = residues[0], residues[-1]
        if first.name != "ACE":
            _add(made, added, places, "ACE", first, _ace(first, positions))
        for residue in residues:
            copied = made.addResidue(
                residue.name, added, residue.id, residue.insertionCode
            )
            is_free = residue is first and residue.name != "ACE"
            surplus = _ON_NITROGEN if is_free else frozenset()
            if residue is last and residue.name != "NME":
                surplus = surplus | _ON_CARBON
            for atom in residue.atoms():
                if atom.name not in surplus:
                    made.addAtom(atom.name, atom.element, copied)
                    places.append(positions[atom.index])
        if last.name != "NME":
            _add(made, added, places, "NME", last, _nme(last, positions))
    places = np.array(places)
    made.createStandardBonds()
    made.createDisulfideBonds(places * unit.nanometer)
    return made, places


def _add(
    made: Any, chain: Any, places: list[Point], name: str, end: Any, atoms: list[_Atom]
) -> None:
    number = int(end.id) + (1 if name == "NME" else -1)
    residue = made.addResidue(name, chain, str(number))
    for atom in atoms:
        made.addAtom(atom.name, atom.element, residue)
        places.append(atom.place)


def _ace(residue: Any, positions: Float[np.ndarray, "num_atoms 3"]) -> list[_Atom]:
    """Returns the atoms of ACE before a residue; none where that lacks a backbone."""
    x = {atom.name: positions[atom.index] for atom in residue.atoms()}
    if not {"N", "CA", "C"} <= x.keys():
        return []
    angles = _PHI
    if residue.name == "PRO" and "CD" in x:
        angles = (_dihedral(x["CD"], x["N"], x["CA"], x["C"]) + 180.0,)
    own = {atom.index for atom in residue.atoms() if atom.name in _ON_NITROGEN}
    own |= {atom.index for atom in residue.atoms() if atom.name in ("N", "CA")}
    others = np.delete(positions, sorted(own), axis=0)
    candidates = [_ace_at(x, phi) for phi in angles]
    return max(candidates, key=lambda atoms: _clearance(atoms, others))


def _ace_at(x: dict[str, Point], phi: float) -> list[_Atom]:
    carbon = place(x["C"], x["CA"], x["N"], _CARBON_NITROGEN, 121.7, phi)
    at = lambda length, angle, turn: place(x["CA"], x["N"], carbon, length, angle, turn)
    methyl, oxygen = (
        at(_CARBON_METHYL, 116.6, 180.0), at(_CARBON_OXYGEN, 122.7, 0.0)
    )  # fmt: skip
    return [
        _Atom("CH3", app.element.carbon, methyl),
        _Atom("C", app.element.carbon, carbon),
        _Atom("O", app.element.oxygen, oxygen),
    ]


def _nme(residue: Any, positions: Float[np.ndarray, "num_atoms 3"]) -> list[_Atom]:
    """Returns the atoms of NME after a residue; none where that lacks a backbone."""
    x = {atom.name: positions[atom.index] for atom in residue.atoms()}
    if not {"N", "CA", "C"} <= x.keys():
        return []
    psi = _PSI
    if "O" in x:
        psi = _dihedral(x["N"], x["CA"], x["C"], x["O"]) + 180.0
    nitrogen = place(x["N"], x["CA"], x["C"], _CARBON_NITROGEN, 116.6, psi)
    methyl = place(x["CA"], x["C"], nitrogen, _NITROGEN_METHYL, 121.9, 180.0)
    return [
        _Atom("N", app.element.nitrogen, nitrogen),
        _Atom("C", app.element.carbon, methyl),
    ]


def _clearance(atoms: list[_Atom], others: Float[np.ndarray, "num_others 3"]) -> float:
    """Returns the distance of a cap from the nearest of other atoms, in nm."""
    places = np.array([atom.place for atom in atoms])
    return np.linalg.norm(places[:, None] - others, axis=-1).min(initial=np.inf)


def place(
    a: Point, b: Point, c: Point, length: float, angle: float, turn: float
) -> Point:
    """Returns the place of an atom bonded to `c`, by its internal coordinates.

    >>> x, y, z = np.eye(3)
    >>> place(y, 0 * x, x, length=2.0, angle=90.0, turn=180.0).round(3).tolist()
    [1.0, -2.0, 0.0]

    Args:
        a: place of the atom that the torsion begins at.
        b: place of the atom bonded to `c`.
        c: place of the atom that the new one is bonded to.
        length: distance from `c`.
        angle: angle at `c`, in degrees.
        turn: torsion about the bond of `b` and `c`, in degrees.
    """
    angle, turn = np.radians(angle), np.radians(turn)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, along)
    away = -np.cos(angle) * along
    aside = np.cos(turn) * across + np.sin(turn) * normal
    return c + length * (away + np.sin(angle) * aside)


def _dihedral(a: Point, b: Point, c: Point, d: Point) -> float:
    """Returns a torsion in degrees."""
    one, two, three = b - a, c - b, d - c
    first, second = np.cross(one, two), np.cross(two, three)
    y = np.linalg.norm(two) * (one @ second)
    return float(np.degrees(np.arctan2(y, first @ second)))
