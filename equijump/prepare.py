"""A peptide or a PDB file becomes a molecule with all its atoms, ready for OpenMM.

Residues that the force fields do not know are named, and so are rings. Units are nm.
"""

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import openmm
import pdbfixer
import PeptideBuilder
from absl import logging
from Bio.PDB import PDBIO
from jaxtyping import Float
from openmm import app, unit
from scipy.spatial import cKDTree

from common.errors import UsageError
from equijump.caps import add_caps
from equijump.data.files import num_alternatives
from equijump.data.parts import BEADS
from equijump.data.whole import describe_unit
from equijump.variants import Place, read_states, variants

ANGLES = {"extended": (-120.0, 140.0), "helix": (-57.0, -47.0)}
"""Dihedrals phi and psi, in degrees, of the starts that can be built."""

STANDARD = frozenset((
    "ACE", "NME", "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE",
    "LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
))  # fmt: skip
"""Residues that the force fields know."""

LONGEST_BOND = 0.3  # nm; of S and S 0.2
LONGEST_LINK, LONGEST_CARBON_LINK = 0.19, 0.16
"""nm, up to which atoms of two residues count as bonded: any, and without sulphur."""

_LINKS = {"N": ("C", "CG", "CD"), "O": ("C", "CG", "CD"), "S": ("C", "CA", "CB")}
"""Carbons that are bonded to such an atom where a chain is closed to a ring."""

_WATER = ("HOH", "WAT", "SOL", "TIP3", "TP3", "T3P", "H2O", "DOD")
_PROTONATED = {"LYN": "LYS", "CYM": "CYS"}  # OpenMM knows the names of all others.


class Molecule(NamedTuple):
    """A molecule with all its atoms.

    Attributes:
        topology: topology of OpenMM.
        positions: nm.
    """

    topology: Any
    positions: Float[np.ndarray, "num_atoms 3"]


def build_peptide(sequence: str, caps: bool, start: str) -> str:
    """Returns the heavy atoms of a peptide as the text of a PDB file.

    A cap is what remains of a glycine at either end.

    Args:
        sequence: one letter for each residue.
        caps: true for ACE before the sequence and NME after it.
        start: key of `ANGLES`.
    """
    letters = f"G{sequence}G" if caps else sequence
    phi, psi = ([angle] * (len(letters) - 1) for angle in ANGLES[start])
    structure = PeptideBuilder.make_structure(letters, phi, psi)
    if caps:
        first, *_, last = structure[0]["A"]
        _make_cap(first, "ACE", surplus=("N",), methyl="CH3")
        _make_cap(last, "NME", surplus=("C", "O"), methyl="C")
    writer, text = PDBIO(), io.StringIO()
    writer.set_structure(structure)
    writer.save(text)
    return text.getvalue()


def _make_cap(residue: Any, name: str, surplus: Sequence[str], methyl: str) -> None:
    for atom in surplus:
        residue.detach_child(atom)
    residue.resname = name
    residue["CA"].fullname = f" {methyl:<3}"


def prepare(
    text: str,
    source: str,
    *,
    replace: bool = False,
    built: bool = False,
    caps: bool = False,
    ph: float | None = None,
) -> Molecule:
    """Completes the heavy atoms of a protein and adds hydrogens.

    What is neither an amino acid nor a cap, nor bonded to one, goes. The same text
    gives the same molecule.

    Args:
        text: contents of a PDB file; of several models the first counts.
        source: origin of the text, for the message of an error.
        replace: true to replace modified amino acids by the ones they come from, and to
            leave out what else is bonded to the protein.
        built: true of `build_peptide`, whose side chains may clash.
        caps: true to put ACE and NME on ends of chains that have none.
        ph: pH of residues whose state the file does not tell; 7 if None.

    Raises:
        UsageError: There is no protein, a chain has a gap or is a ring, or a residue is
            none of the force fields'.
    """
    reference = openmm.Platform.getPlatformByName("Reference")
    fixer = _parse(text, source, reference)
    if not built:
        _check_positions(fixer, source)
        _check_rings(Molecule(fixer.topology, in_nm(fixer.positions)), source)
    try:
        _keep_protein(fixer, source, replace)
        if caps:
            topology, positions = add_caps(fixer.topology, in_nm(fixer.positions))
            fixer.topology, fixer.positions = topology, positions * unit.nanometer
        _check_chains(Molecule(fixer.topology, in_nm(fixer.positions)), source)
        _add_heavy(fixer, source)
        states = {} if built else read_states(text)
        return _add_hydrogens(fixer, states, source, 7.0 if ph is None else ph)
    except UsageError:
        raise
    except Exception as error:  # pdbfixer and OpenMM raise errors of many kinds.
        raise UsageError(
            f"{source}: expected a protein whose missing atoms can be built, found "
            f"{short(error)}"
        ) from error


def _parse(text: str, source: str, platform: openmm.Platform) -> Any:
    """Returns the PDBFixer of a PDB file, and tells what of it is left out."""
    lines = text.splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    if not atoms or "_atom_site." in text:
        found = "mmCIF" if atoms else "no line of an atom"
        raise UsageError(
            f"{source}: expected a PDB file, found {found}; write others as PDB, "
            "e.g. by gmx editconf or gemmi convert, and unpack .gz"
        )
    try:
        fixer = pdbfixer.PDBFixer(pdbfile=io.StringIO(text), platform=platform)
    except Exception as error:  # The parser raises whatever it stumbles over.
        raise UsageError(
            f"{source}: expected a PDB file, found {short(error)}; write it anew"
        ) from error
    models = sum(line.startswith("MODEL ") for line in lines)
    if models > 1:
        logging.info("%s: of %d models the first is taken", source, models)
    others = num_alternatives(atoms) if models < 2 else 0
    if others:
        logging.info("%s: left out: %d alternative places of atoms", source, others)
    return fixer


def _check_positions(fixer: Any, source: str) -> None:
    """Raises `UsageError` for positions of no molecule, as of beads or in nm."""
    positions = 10.0 * in_nm(fixer.positions)  # Å
    finite = np.isfinite(positions).all(axis=1)
    atoms = list(fixer.topology.atoms())
    if not finite.all():
        first = atoms[int(np.argmin(finite))]
        raise UsageError(
            f"{source}: expected finite positions, found others at {first.name} of "
            f"{first.residue.name}{first.residue.id}; leave the atom out"
        )
    if {atom.name for atom in atoms if atom.residue.name not in _WATER} <= BEADS:
        raise UsageError(
            f"{source}: expected all heavy atoms, found beads, or CA alone; build them "
            "anew, e.g. by cg2all or backward"
        )
    if len(atoms) > 1 and not np.ptp(positions, axis=0).any():
        raise UsageError(
            f"{source}: expected positions of a molecule, found all atoms at one place"
        )
    largest = max(fixer.topology.residues(), key=lambda r: len(list(r.atoms())))
    heavy = [a.index for a in largest.atoms() if a.element is not app.element.hydrogen]
    unit_found = describe_unit(positions[heavy], None)
    if unit_found:
        raise UsageError(f"{source}: expected lengths in Å, found {unit_found}")


def _keep_protein(fixer: Any, source: str, replace: bool) -> None:
    """Replaces and removes residues that the force fields do not know."""
    for residue in fixer.topology.residues():
        residue.name = _PROTONATED.get(residue.name, residue.name)
    fixer.findNonstandardResidues()
    planned = dict(fixer.nonstandardResidues)
    molecule = Molecule(fixer.topology, in_nm(fixer.positions))
    foreign = [
        residue
        for residue in fixer.topology.residues()
        if residue.name not in STANDARD and residue not in planned
    ]
    bonded = _bonded(molecule, foreign, planned)
    changes = [f"{r.name}{r.id} would become {name}" for r, name in planned.items()]
    changes += [f"{r.name}{r.id} would be removed" for r in bonded]
    if changes and not replace:
        more = f" and {len(changes) - 4} more" if len(changes) > 4 else ""
        raise UsageError(
            f"{source}: expected residues that the force fields know, found others: "
            f"{', '.join(changes[:4])}{more}; --replace_nonstandard does so"
        )
    for change in changes:
        logging.warning("%s: %s, as asked", source, change.replace("would ", "will "))
    fixer.replaceNonstandardResidues()
    modeller = app.Modeller(fixer.topology, fixer.positions)
    foreign = [r for r in modeller.topology.residues() if r.name not in STANDARD]
    if foreign:
        names = ", ".join(sorted({residue.name for residue in foreign}))
        logging.info("%s: %d residues removed (%s)", source, len(foreign), names)
    modeller.delete(foreign)
    fixer.topology, fixer.positions = modeller.topology, modeller.positions


def _bonded(
    molecule: Molecule, foreign: Sequence[Any], planned: Mapping[Any, str]
) -> list[Any]:
    """Returns the foreign residues with an atom as near to the protein as a bond.

    Water is never bonded, wherever a file puts it.
    """
    heavy = [
        a for a in molecule.topology.atoms() if a.element is not app.element.hydrogen
    ]
    kept = [
        a.index for a in heavy if a.residue.name in STANDARD or a.residue in planned
    ]
    if not kept:
        return []
    tree = cKDTree(molecule.positions[kept])
    bonded = {
        atom.residue
        for atom in heavy
        if atom.residue in foreign
        and atom.residue.name not in _WATER
        and tree.query(molecule.positions[atom.index])[0] < LONGEST_LINK
    }
    return [residue for residue in foreign if residue in bonded]


def _add_heavy(fixer: Any, source: str) -> None:
    """Adds the heavy atoms that are missing, and tells them."""
    fixer.missingResidues = {}
    fixer.findMissingAtoms()
    built = [
        f"{atom.name} of {residue.name}{residue.id}"
        for residue, atoms in fixer.missingAtoms.items()
        for atom in atoms
    ]
    if built:
        more = f" and {len(built) - 6} more" if len(built) > 6 else ""
        told = f"{', '.join(built[:6])}{more}"
        logging.warning(
            "%s: heavy atoms were missing and are built: %s; look at the topology that "
            "is written", source, told,
        )  # fmt: skip
    fixer.addMissingAtoms(seed=0)


def _add_hydrogens(
    fixer: Any, states: Mapping[Place, str], source: str, ph: float
) -> Molecule:
    """Returns the molecule with the hydrogens of its states, else of the pH."""
    reference = openmm.Platform.getPlatformByName("Reference")
    modeller = app.Modeller(fixer.topology, fixer.positions)
    random.seed(0)  # Modeller draws where hydrogens are before it relaxes them.
    told = variants(modeller.topology, states, source)
    modeller.addHydrogens(pH=ph, variants=told, platform=reference)
    modeller.topology.setPeriodicBoxVectors(None)
    return Molecule(modeller.topology, in_nm(modeller.positions))


def _check_rings(molecule: Molecule, source: str) -> None:
    """Raises `UsageError` for a bond that closes a ring over several residues.

    Of these the force fields know disulphides alone.
    """
    atoms = [a for a in molecule.topology.atoms() if a.residue.name in STANDARD]
    heavy = [a for a in atoms if a.element is not app.element.hydrogen]
    for one, other in _near(molecule, heavy):
        carbon, partner = (one, other) if one.element.symbol == "C" else (other, one)
        if carbon.name not in _LINKS.get(partner.element.symbol, ()):
            continue
        ahead = partner.residue.index - carbon.residue.index
        is_chain = (carbon.name, partner.name, ahead) == ("C", "N", 1)
        if ahead == 0 or is_chain or partner.name == "O":
            continue
        first, last = (
            f"{a.name} of {a.residue.name}{a.residue.id}" for a in (one, other)
        )
        raise UsageError(
            f"{source}: expected an open chain, found a ring, closed by a bond of "
            f"{first} and {last}: cyclic peptides are not simulated here; make their "
            "trajectories with another program"
        )


def _near(molecule: Molecule, atoms: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of atoms as near to each other as in a bond."""
    if len(atoms) < 2:
        return
    tree = cKDTree(molecule.positions[[atom.index for atom in atoms]])
    for i, j in sorted(tree.query_pairs(LONGEST_LINK)):
        apart = np.linalg.norm(
            molecule.positions[atoms[i].index] - molecule.positions[atoms[j].index]
        )
        has_sulphur = "S" in (atoms[i].element.symbol, atoms[j].element.symbol)
        if has_sulphur or apart < LONGEST_CARBON_LINK:
            yield atoms[i], atoms[j]


def _check_chains(molecule: Molecule, source: str) -> None:
    """Raises `UsageError` if there is no residue, or a bond between two is too long."""
    if molecule.topology.getNumResidues() == 0:
        raise UsageError(f"{source}: expected amino acids, found none")
    for chain in molecule.topology.chains():
        ends = [{a.name: a.index for a in r.atoms()} for r in chain.residues()]
        names = [f"{r.name}{r.id}" for r in chain.residues()]
        if len(names) == 1:
            raise UsageError(
                f"{source}: one uncapped residue has no parameters, found {names[0]} "
                f"alone in chain {chain.id}: give ACE and NME with it"
            )
        for i in range(len(ends) - 1):
            bond = [ends[i].get("C"), ends[i + 1].get("N")]
            apart = np.inf
            if None not in bond:
                apart = np.linalg.norm(np.subtract(*molecule.positions[bond]))
            if apart > LONGEST_BOND:
                raise UsageError(
                    f"{source}: expected unbroken chains, found a gap between "
                    f"{names[i]} and {names[i + 1]} of chain {chain.id}; build what is "
                    "missing, e.g. by Modeller, or put TER or caps there"
                )


def in_nm(quantity: Any) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns positions of OpenMM as an array."""
    return np.array(quantity.value_in_unit(unit.nanometer), np.float64).reshape(-1, 3)


def short(error: BaseException) -> str:
    """Returns an error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
