"""Internal coordinates of heavy atoms: which atoms they take, and their values.

Which atoms follows from slots and bonds; MDTraj computes the values. Lengths are in Å,
torsions in radians from -pi to pi, by the convention of IUPAC.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import mdtraj
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from mdtraj.geometry import dihedral

from equijump.data.frames import ANGSTROM_PER_NM
from equijump.data.packed import let_go
from equijump.data.residues import CA_SLOT, RESIDUES, element_of, slot_of
from equijump.data.topology import System, nearby

PROTEIN_SIZE = 10
"""Amino acids from which a system counts as a protein, not as a small peptide."""

CONTACT_DISTANCE = 8.0  # Å
GDT_DISTANCES = (1.0, 2.0, 4.0, 8.0)  # Å, of the total score.
_VDW_RADII = {"C": 1.70, "N": 1.55, "O": 1.52, "P": 1.80, "S": 1.80, "Se": 1.90}
"""Å (Bondi 1964)."""
_CHI = (
    dihedral.CHI1_ATOMS, dihedral.CHI2_ATOMS, dihedral.CHI3_ATOMS, dihedral.CHI4_ATOMS,
    dihedral.CHI5_ATOMS,
)  # fmt: skip
_SYMMETRIC = frozenset(
    (("ASP", "chi2"), ("GLU", "chi3"), ("PHE", "chi2"), ("TYR", "chi2"),
     ("PTR", "chi2"), ("ARG", "chi5"))
)  # fmt: skip
"""Torsions of two atoms whose names mean nothing, alike after half a turn."""

MOST_NUMBERS = 1_000_000
"""Coordinates in memory at once."""

Positions = Float[np.ndarray, "num_frames num_atoms 3"]


class Torsions(NamedTuple):
    """The torsions of a system.

    Attributes:
        kinds: phi, psi, omega, chi1 ... of each.
        residues: number of the residue each belongs to; omega to the later one.
        atoms: four atoms of each.
    """

    kinds: tuple[str, ...]
    residues: tuple[int, ...]
    atoms: Int[np.ndarray, "num_torsions 4"]


def residue_label(system: System, index: int) -> str:
    """Returns a name as ALA2, counted from 1 over all chains."""
    return f"{RESIDUES[system.tokens[index] - 1].name}{index + 1}"


def _side_chain(
    atom_of: Mapping[str | None, Any],
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields name and atoms of the torsions of a side chain, by atoms of its slots."""
    for number, choices in enumerate(_CHI, start=1):
        there = [names for names in choices if set(names) <= atom_of.keys()]
        if there:
            yield f"chi{number}", tuple(atom_of[name] for name in there[0])


def find_torsions(system: System) -> Torsions:
    """Lists torsions of backbone and side chains; caps serve as neighbours."""
    rows, chains = system.slot_atoms, system.chains
    found = []
    for index, (token, row) in enumerate(zip(system.tokens, rows, strict=True)):
        n, ca, c = row[:3]
        has_before = index > 0 and chains[index - 1] == chains[index]
        has_after = index + 1 < len(rows) and chains[index] == chains[index + 1]
        if has_before:
            ca_before = rows[index - 1, CA_SLOT]
            c_before = _end_of(system, index - 1, "C")
        if has_before and n >= 0 and c_before != ca_before:
            found.append(("omega", index, (ca_before, c_before, n, ca)))
        if has_before and n >= 0 and c >= 0:
            found.append(("phi", index, (c_before, n, ca, c)))
        if has_after and n >= 0:
            found.append(("psi", index, (n, ca, c, _end_of(system, index + 1, "N"))))
        atom_of = dict(zip(RESIDUES[token - 1].slots, row, strict=False))
        found += [(chi, index, atoms) for chi, atoms in _side_chain(atom_of)]
    kinds, residues, atoms = zip(*found, strict=True) if found else ((), (), ())
    return Torsions(kinds, residues, np.array(atoms, np.int32).reshape(-1, 4))


def _end_of(system: System, index: int, name: str) -> int:
    """Returns the N or C by which a residue binds its neighbour; of caps too."""
    return int(system.slot_atoms[index, slot_of(int(system.tokens[index]), name)])


def find_symmetric(
    system: System, torsions: Torsions
) -> Bool[np.ndarray, " num_torsions"]:
    """Returns which torsions are alike after half a turn, see `folded`.

    They are chi2 of ASP, PHE and TYR, chi3 of GLU and chi5 of ARG.
    """
    names = [RESIDUES[system.tokens[residue] - 1].name for residue in torsions.residues]
    found = [pair in _SYMMETRIC for pair in zip(names, torsions.kinds, strict=True)]
    return np.array(found, bool)


def folded(
    angles: Float[np.ndarray, "num_frames num_torsions"],
    is_symmetric: Bool[np.ndarray, " num_torsions"],
) -> Float[np.ndarray, "num_frames num_torsions"]:
    """Puts torsions that are alike after half a turn between -pi / 2 and pi / 2.

    >>> angles = np.radians([[170.0, 170.0]])
    >>> np.degrees(folded(angles, np.array([True, False]))).round().tolist()
    [[-10.0, 170.0]]
    """
    half = np.mod(angles + np.pi / 2, np.pi) - np.pi / 2
    return np.where(is_symmetric, half, angles).astype(angles.dtype)


def pairs_of_phi_and_psi(torsions: Torsions) -> dict[int, tuple[int, int]]:
    """Returns the places of phi and psi of each residue that has both.

    >>> atoms = np.zeros((3, 4), np.int32)
    >>> pairs_of_phi_and_psi(Torsions(("psi", "phi", "psi"), (0, 1, 1), atoms))
    {1: (1, 2)}
    """
    place = {
        (kind, residue): index
        for index, (kind, residue) in enumerate(
            zip(torsions.kinds, torsions.residues, strict=True)
        )
    }
    return {
        residue: (index, place["psi", residue])
        for (kind, residue), index in place.items()
        if kind == "phi" and ("psi", residue) in place
    }


def find_angles(
    bonds: Int[np.ndarray, "num_bonds 2"],
) -> Int[np.ndarray, "num_angles 3"]:
    """Lists two bonds that share an atom, which stands in the middle.

    >>> find_angles(np.array([[0, 1], [1, 2], [2, 3]])).tolist()
    [[0, 1, 2], [1, 2, 3]]
    """
    partners: dict[int, list[int]] = {}
    for first, second in bonds.tolist():
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    found = [
        (first, middle, last)
        for middle, around in sorted(partners.items())
        for first, last in itertools.combinations(sorted(around), 2)
    ]
    return np.array(found, np.int32).reshape(-1, 3)


def find_distant_pairs(
    bonds: Int[np.ndarray, "num_bonds 2"], num_atoms: int
) -> Int[np.ndarray, "num_pairs 2"]:
    """Lists pairs of atoms with more than three bonds between them.

    >>> find_distant_pairs(np.array([[0, 1], [1, 2], [2, 3], [3, 4]]), 5).tolist()
    [[0, 4]]
    """
    return np.argwhere(np.triu(~nearby(bonds, num_atoms))).astype(np.int32)


def find_centres(
    system: System,
) -> tuple[tuple[int, ...], Int[np.ndarray, "num_centres 4"]]:
    """Lists residues with a CB, and their CA, N, C and CB."""
    residues, atoms = [], []
    for index, (token, row) in enumerate(
        zip(system.tokens, system.slot_atoms, strict=True)
    ):
        slots = RESIDUES[token - 1].slots
        if "CB" in slots:
            residues.append(index)
            n, ca, c = row[:3]
            atoms.append((ca, n, c, row[slots.index("CB")]))
    return tuple(residues), np.array(atoms, np.int32).reshape(-1, 4)


def alpha_carbons(system: System) -> Int[np.ndarray, " num_amino_acids"]:
    """Returns the CA of each amino acid; the methyl carbons of caps are left out."""
    whole = np.all(system.slot_atoms[:, :3] >= 0, axis=1)
    return system.slot_atoms[whole, CA_SLOT]


def is_protein(system: System) -> bool:
    """Whether there are `PROTEIN_SIZE` amino acids or more."""
    return len(alpha_carbons(system)) >= PROTEIN_SIZE


def radii(system: System) -> Float[np.ndarray, " num_atoms"]:
    """Returns van der Waals radii in Å."""
    found = np.zeros(len(system.kept))
    for token, row in zip(system.tokens, system.slot_atoms, strict=True):
        for name, atom in zip(RESIDUES[token - 1].slots, row, strict=False):
            if name:
                found[atom] = _VDW_RADII[element_of(name)]
    return found


def chunks(positions: Positions) -> Iterator[Positions]:
    """Yields frames in chunks, so that a mapped file takes no memory for long.

    >>> [len(chunk) for chunk in chunks(np.zeros((400_000, 1, 3), np.float32))]
    [333333, 66667]
    """
    size = max(1, MOST_NUMBERS // (3 * positions.shape[1]))
    for first in range(0, len(positions), size):
        yield np.array(positions[first : first + size])
        let_go(positions)


def over_frames(
    function: Callable[..., Shaped[np.ndarray, " _ *rest"]],
    positions: Positions,
    *rest: Any,
) -> Shaped[np.ndarray, " num_frames *rest"]:
    """Returns `function(frames, *rest)` of all frames, which it gets in chunks.

    >>> over_frames(np.sum, np.ones((2, 1, 3)), (1, 2)).tolist()
    [3.0, 3.0]
    """
    return np.concatenate([function(chunk, *rest) for chunk in chunks(positions)])


def _trajectory(positions: Positions) -> mdtraj.Trajectory:
    return mdtraj.Trajectory(np.asarray(positions) / ANGSTROM_PER_NM, topology=None)


def torsions_of(
    positions: Positions, atoms: Int[np.ndarray, "num_torsions 4"]
) -> Float[np.ndarray, "num_frames num_torsions"]:
    """Computes torsions in radians.

    >>> corners = np.float64([[[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, -1, 0]]])
    >>> np.degrees(np.abs(torsions_of(corners, np.array([[0, 1, 2, 3]])))).round()
    array([[180.]], dtype=float32)
    """
    return mdtraj.compute_dihedrals(_trajectory(positions), atoms, periodic=False)


def angles_of(
    positions: Positions, atoms: Int[np.ndarray, "num_angles 3"]
) -> Float[np.ndarray, "num_frames num_angles"]:
    """Computes angles between bonds in degrees.

    >>> corner = np.float64([[[0, 1, 0], [0, 0, 0], [1, 0, 0]]])
    >>> angles_of(corner, np.array([[0, 1, 2]])).round(2).tolist()
    [[90.0]]
    """
    found = mdtraj.compute_angles(_trajectory(positions), atoms, periodic=False)
    return np.degrees(found)


def distances_of(
    positions: Positions, pairs: Int[np.ndarray, "num_pairs 2"]
) -> Float[np.ndarray, "num_frames num_pairs"]:
    """Computes distances in Å.

    >>> ends = np.float64([[[0, 0, 0], [3, 4, 0]]])
    >>> distances_of(ends, np.array([[0, 1]])).round(2).tolist()
    [[5.0]]
    """
    found = mdtraj.compute_distances(_trajectory(positions), pairs, periodic=False)
    return found * np.float32(ANGSTROM_PER_NM)


def handedness(
    positions: Positions, centres: Int[np.ndarray, "num_centres 4"]
) -> Int[np.ndarray, "num_frames num_centres"]:
    r"""Returns the sign of $(N - CA) \cdot ((C - CA) \times (CB - CA))$.

    It is 1 for an L amino acid and -1 for its mirror image.

    >>> centre = np.float64([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    >>> handedness(centre, np.array([[0, 1, 2, 3]])).tolist()
    [[1]]
    >>> handedness(-centre, np.array([[0, 1, 2, 3]])).tolist()
    [[-1]]
    """
    centre, *around = (positions[:, column] for column in centres.T)
    first, second, third = (atom - centre for atom in around)
    volumes = np.einsum("fcx,fcx->fc", first, np.cross(second, third))
    return np.sign(volumes).astype(int)


def all_pairs(num_points: int, apart: int = 1) -> Int[np.ndarray, "num_pairs 2"]:
    """Lists pairs of points whose numbers differ by `apart` or more.

    >>> all_pairs(4, apart=2).tolist()
    [[0, 2], [0, 3], [1, 3]]
    """
    return np.stack(np.triu_indices(num_points, apart), axis=1).astype(np.int32)


def superposed(
    positions: Positions, native: Float[np.ndarray, "num_atoms 3"]
) -> Positions:
    """Moves and turns each frame onto one structure; a mirror image stays one.

    >>> native = np.float64([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    >>> found = superposed(native[None] + 5.0, native)
    >>> bool(np.abs(found - native).max() < 1e-4)
    True
    """
    moved = _trajectory(positions).superpose(_trajectory(native[None]))
    return moved.xyz * np.float32(ANGSTROM_PER_NM)


def deviations(
    moved: Positions, native: Float[np.ndarray, "num_atoms 3"]
) -> dict[str, Float[np.ndarray, " num_frames"]]:
    """Returns `rmsd` and `gdt_ts` of frames that lie on the native structure.

    >>> native = np.zeros((2, 3))
    >>> found = deviations(np.float64([[[3.0, 0, 0], [0, 0, 0]]]), native)
    >>> found["rmsd"].round(2).tolist(), found["gdt_ts"].tolist()
    ([2.12], [0.75])
    """
    away = np.linalg.norm(moved - native, axis=-1)
    shares = [np.mean(away < limit, axis=-1) for limit in GDT_DISTANCES]
    return {
        "rmsd": np.sqrt(np.mean(away**2, axis=-1)),
        "gdt_ts": np.mean(shares, axis=0),
    }


def fold_measures(
    carbons: Positions, native: Float[np.ndarray, "num_atoms 3"]
) -> dict[str, Float[np.ndarray, " num_frames"]]:
    """Compares frames of a protein with its native structure.

    >>> line = 2.0 * np.arange(12.0)[:, None] * np.eye(3)[:1]
    >>> found = fold_measures(np.stack([line, line + 1.0]), line)
    >>> found["gdt_ts"].tolist(), found["rg"].round(2).tolist()
    ([1.0, 1.0], [6.9, 6.9])

    Args:
        carbons: alpha carbons of the amino acids, in Å.
        native: alpha carbons of the native structure, in Å.

    Returns:
        `rmsd` in Å after the best proper superposition; `gdt_ts`, the mean share of
        carbons within 1, 2, 4 and 8 Å of their place in that superposition; `rg`, the
        radius of gyration in Å, all carbons with one weight; `native_contacts`, the
        share of native pairs nearer than 8 Å, more than two residues apart, that are
        nearer than that, NaN where there is no such pair.
    """
    moved = superposed(carbons, native)
    centred = carbons - np.mean(carbons, axis=1, keepdims=True)
    pairs = all_pairs(len(native), apart=3)
    in_contact = distances_of(native[None], pairs)[0] < CONTACT_DISTANCE
    near = distances_of(carbons, pairs[in_contact]) < CONTACT_DISTANCE
    return {
        **deviations(moved, native),
        "rg": np.sqrt(np.mean(np.sum(centred**2, axis=-1), axis=-1)),
        "native_contacts": np.sum(near, axis=-1) / (near.shape[1] or np.nan),
    }
