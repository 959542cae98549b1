"""A structure-based model of a protein: its native structure is the minimum.

All heavy atoms count. Bonds, angles and torsions are those of the structure, contacts
of the structure attract, all other pairs repel each other (Whitford et al. 2009,
Proteins 75, 430; contacts as Gaussians after Lammert, Schug and Onuchic 2009, Proteins
77, 881). Energies are in units of epsilon; lengths in nm. Imports OpenMM.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import openmm
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from common.errors import UsageError
from equijump.prepare import Molecule

CONTACTS = ("lennard-jones", "gaussian")

FARTHEST_CONTACT = 0.45  # nm
RESIDUES_APART = 3

_BOND, _ANGLE = 20_000.0, 80.0  # epsilon per nm^2 and per square radian
_STIFF = 40.0  # epsilon, of torsions in rings, of planes and of handedness
_REPULSION, _CORE = 0.1, 0.25  # epsilon, nm
_CUTOFF = 0.45  # nm, where the repulsion is a ten-thousandth of epsilon
_FEW_ATOMS = 200
"""Up to which a list of all pairs takes less time than finding those within reach."""
_WIDTH = 0.05  # nm, of a Gaussian contact
_SHARE_OF_CONTACTS = 2 / 3  # Of the energy of epsilon for each atom.
_BACKBONE = frozenset(("N", "CA", "C"))
_PARTIAL = frozenset((("C", "N"), ("CZ", "NE")))
"""Bonds that are not turned though they are in no ring."""


class Native(NamedTuple):
    """What a structure-based model takes from a native structure.

    Attributes:
        positions: nm.
        bonds: pairs of bonded atoms.
        angles: triples around a middle atom.
        torsions: four atoms of each torsion, the middle two bonded.
        strengths: of each torsion, in epsilon; 0 for one that cannot turn.
        planes: an atom with three bonds, then the three others.
        contacts: pairs in contact.
        excluded: pairs that are bonded, or up to three bonds apart.
    """

    positions: Float[np.ndarray, "num_atoms 3"]
    bonds: Int[np.ndarray, "num_bonds 2"]
    angles: Int[np.ndarray, "num_angles 3"]
    torsions: Int[np.ndarray, "num_torsions 4"]
    strengths: Float[np.ndarray, " num_torsions"]
    planes: Int[np.ndarray, "num_planes 4"]
    contacts: Int[np.ndarray, "num_contacts 2"]
    excluded: Int[np.ndarray, "num_excluded 2"]


def read_native(molecule: Molecule, source: str) -> Native:
    """Returns what the model needs of a molecule without hydrogens.

    Raises:
        UsageError: Nothing of it is in contact.
    """
    atoms = list(molecule.topology.atoms())
    pairs = [(a.index, b.index) for a, b in molecule.topology.bonds()]
    bonds = np.array(sorted(map(sorted, pairs)), int)
    apart = _bonds_apart(bonds, len(atoms))
    residues = np.array([atom.residue.index for atom in atoms])
    chains = np.array([atom.residue.chain.index for atom in atoms])
    contacts = find_contacts(molecule.positions, residues, chains, apart)
    if not len(contacts):
        raise UsageError(
            f"{source}: expected contacts of residues {RESIDUES_APART} or more apart, "
            "found none: without a fold there is no structure-based model; leave "
            "--model out"
        )
    torsions = list(_torsions(bonds, len(atoms)))
    names = [atom.name for atom in atoms]
    return Native(
        positions=molecule.positions,
        bonds=bonds,
        angles=_rows(_angles(bonds, len(atoms)), 3),
        torsions=_rows(torsions, 4),
        strengths=_strengths(torsions, names, residues, bonds),
        planes=_rows(_planes(bonds, len(atoms)), 4),
        contacts=contacts,
        excluded=np.argwhere(np.triu(apart <= 3, k=1)),
    )


def find_contacts(
    positions: Float[np.ndarray, "num_atoms 3"],
    residues: Int[np.ndarray, " num_atoms"],
    chains: Int[np.ndarray, " num_atoms"],
    apart: Float[np.ndarray, "num_atoms num_atoms"],
) -> Int[np.ndarray, "num_contacts 2"]:
    """Returns pairs within `FARTHEST_CONTACT`, far from each other along the chain.

    Args:
        positions: nm.
        residues: index of each atom's residue.
        chains: index of each atom's chain.
        apart: number of bonds between atoms.
    """
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    far = np.abs(residues[:, None] - residues) >= RESIDUES_APART
    far |= chains[:, None] != chains
    near = distances < FARTHEST_CONTACT
    return np.argwhere(np.triu(near & far & (apart > 3), k=1))


def fraction_native(
    positions: Float[np.ndarray, "*batch num_atoms 3"], native: Native
) -> Float[np.ndarray, "*batch"]:
    r"""Returns the fraction of native contacts $Q$ of Best, Hummer and Eaton 2013.

    $Q = \langle 1 / (1 + \exp(\beta (r - \lambda r_0))) \rangle$ with $\beta$ = 50/nm
    and $\lambda$ = 1.2, their value for structure-based models.

    Args:
        positions: nm.
        native: native structure.
    """
    lengths = lambda x: np.linalg.norm(
        x[..., native.contacts[:, 0], :] - x[..., native.contacts[:, 1], :], axis=-1
    )
    stretch = lengths(positions) - 1.2 * lengths(native.positions)
    formed = 1.0 / (1.0 + np.exp(np.minimum(50.0 * stretch, 50.0)))
    return np.asarray(formed.mean(-1))


def make_system(
    native: Native, masses: Iterable[float], epsilon: float, contacts: str
) -> openmm.System:
    """Returns the model as a system of OpenMM.

    Args:
        native: native structure.
        masses: mass of each atom, in amu.
        epsilon: unit of energy, in kJ/mol.
        contacts: one of `CONTACTS`.
    """
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    forces = _bonded(native, epsilon)
    forces += (_attraction(native, epsilon, contacts), _repulsion(native, epsilon))
    for force in forces:
        system.addForce(force)
    return system


def _bonded(native: Native, epsilon: float) -> tuple[openmm.Force, ...]:
    bonds = openmm.HarmonicBondForce()
    x = native.positions
    for i, j in native.bonds.tolist():
        bonds.addBond(i, j, float(np.linalg.norm(x[i] - x[j])), epsilon * _BOND)
    angles = openmm.HarmonicAngleForce()
    for i, j, k in native.angles.tolist():
        angles.addAngle(i, j, k, _angle(x[i], x[j], x[k]), epsilon * _ANGLE)
    torsions = openmm.PeriodicTorsionForce()
    for four, strength in zip(native.torsions.tolist(), native.strengths, strict=True):
        phase = _dihedral(*x[four])
        first = epsilon * float(strength or _STIFF)
        torsions.addTorsion(*four, 1, phase + np.pi, first)
        if strength:
            torsions.addTorsion(*four, 3, 3 * phase + np.pi, first / 2)
    for four in native.planes.tolist():
        phase = _dihedral(*x[four])
        torsions.addTorsion(*four, 1, phase + np.pi, epsilon * _STIFF)
    return bonds, angles, torsions


def _attraction(native: Native, epsilon: float, contacts: str) -> openmm.Force:
    """Returns the native contacts: all of one depth, `_SHARE_OF_CONTACTS` together."""
    depth = epsilon * _SHARE_OF_CONTACTS * len(native.positions) / len(native.contacts)
    if contacts == "gaussian":
        terms = (
            f"{depth}*((1+(core/r)^12)*(1-exp(-(r-r0)^2/{2 * _WIDTH**2}))-1);"
            f"core=min({_CORE},0.9*r0)"
        )
    else:
        terms = f"{depth}*(s*s-2*s);s=(r0/r)^6"
    force = openmm.CustomBondForce(terms)
    force.addPerBondParameter("r0")
    for i, j in native.contacts.tolist():
        apart = np.linalg.norm(native.positions[i] - native.positions[j])
        force.addBond(i, j, [float(apart)])
    return force


def _repulsion(native: Native, epsilon: float) -> openmm.Force:
    """Returns the repulsion of all pairs that are neither bonded nor in contact."""
    energy = f"{epsilon * _REPULSION}*({_CORE}/r)^12"
    num_atoms = len(native.positions)
    apart = np.concatenate([native.excluded, native.contacts])
    if num_atoms <= _FEW_ATOMS:
        repel = np.triu(np.ones((num_atoms, num_atoms), bool), k=1)
        repel[tuple(apart.T)] = False
        force = openmm.CustomBondForce(energy)
        for i, j in np.argwhere(repel).tolist():
            force.addBond(i, j, [])
        return force
    force = openmm.CustomNonbondedForce(energy)
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(_CUTOFF)
    for _ in range(num_atoms):
        force.addParticle([])
    for i, j in apart.tolist():
        force.addExclusion(i, j)
    return force


def _rows(found: Iterable[tuple[int, ...]], width: int) -> np.ndarray:
    return np.array(list(found), int).reshape(-1, width)


def _bonds_apart(bonds: np.ndarray, num_atoms: int) -> np.ndarray:
    ones = np.ones(len(bonds))
    graph = csr_array((ones, (bonds[:, 0], bonds[:, 1])), (num_atoms, num_atoms))
    return shortest_path(graph, directed=False, unweighted=True)


def _neighbours(bonds: np.ndarray, num_atoms: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(num_atoms)]
    for i, j in bonds.tolist():
        found[i].append(j)
        found[j].append(i)
    return found


def _angles(bonds: np.ndarray, num_atoms: int) -> Iterable[tuple[int, int, int]]:
    for middle, others in enumerate(_neighbours(bonds, num_atoms)):
        for i, k in combinations(sorted(others), 2):
            yield i, middle, k


def _torsions(bonds: np.ndarray, num_atoms: int) -> Iterable[tuple[int, ...]]:
    neighbours = _neighbours(bonds, num_atoms)
    for j, k in bonds.tolist():
        for i in neighbours[j]:
            for m in neighbours[k]:
                if len({i, j, k, m}) == 4:
                    yield i, j, k, m


def _planes(bonds: np.ndarray, num_atoms: int) -> Iterable[tuple[int, ...]]:
    for middle, others in enumerate(_neighbours(bonds, num_atoms)):
        for three in combinations(sorted(others), 3):
            yield middle, *three


def _strengths(
    torsions: list[tuple[int, ...]],
    names: list[str],
    residues: Int[np.ndarray, " num_atoms"],
    bonds: Int[np.ndarray, "num_bonds 2"],
) -> Float[np.ndarray, " num_torsions"]:
    """Returns the strength of each torsion, in epsilon.

    What contacts leave of the energy is shared by the bonds that turn, backbone twice
    as much as side chain; the torsions of a bond share alike.
    """
    rings = _bonds_in_rings(bonds, len(names))
    middles = [(j, k) for _, j, k, _ in torsions]
    weights = {}
    for j, k in set(middles):
        pair = tuple(sorted((names[j], names[k])))
        turns = (j, k) not in rings and pair not in _PARTIAL
        is_backbone = residues[j] == residues[k] and set(pair) <= _BACKBONE
        weights[j, k] = turns * (2.0 if is_backbone else 1.0)
    total = sum(weights.values()) or 1.0
    energy, counts = (1.0 - _SHARE_OF_CONTACTS) * len(names), Counter(middles)
    return np.array([
        energy * weights[middle] / total / counts[middle] for middle in middles
    ])  # fmt: skip


def _bonds_in_rings(bonds: np.ndarray, num_atoms: int) -> set[tuple[int, int]]:
    """Returns the bonds whose ends are near each other without them: rings to six."""
    neighbours = _neighbours(bonds, num_atoms)
    found = set()
    for i, j in bonds.tolist():
        reached = {i}
        for _ in range(5):
            reached |= {
                other
                for atom in reached
                for other in neighbours[atom]
                if {atom, other} != {i, j}
            }
        if j in reached:
            found.add((i, j))
    return found


def _angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    one, two = a - b, c - b
    cosine = one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """Returns a torsion in radians, signed as OpenMM does."""
    one, two, three = b - a, c - b, d - c
    first, second = np.cross(one, two), np.cross(two, three)
    x = np.linalg.norm(two) * (one @ second)
    return float(np.arctan2(x, first @ second))
