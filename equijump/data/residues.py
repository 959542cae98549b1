"""The residues EquiJump knows: atoms in a fixed order of slots, and their bonds.

A residue is a token with 14 slots for heavy atoms: N, CA, C, O, then its side chain.
Caps are tokens too: the methyl carbon stands in the slot of CA. Hydrogens, and the
second oxygen of a chain's end, have no slot.
"""

from typing import NamedTuple

NUM_SLOTS = 14
CA_SLOT = 1


class Residue(NamedTuple):
    """Heavy atoms of one residue type.

    Attributes:
        name: three letters, as in a PDB file.
        slots: atom name of each slot in use, None for one that stays empty.
        bonds: pairs of names of bonded atoms.
    """

    name: str
    slots: tuple[str | None, ...]
    bonds: tuple[tuple[str, str], ...]


_BACKBONE = "N-CA CA-C C-O"

# Bonds of the side chain, in the order that gives the slots.
_SIDE_CHAINS = {
    "ALA": "CA-CB",
    "ARG": "CA-CB CB-CG CG-CD CD-NE NE-CZ CZ-NH1 CZ-NH2",
    "ASN": "CA-CB CB-CG CG-OD1 CG-ND2",
    "ASP": "CA-CB CB-CG CG-OD1 CG-OD2",
    "CYS": "CA-CB CB-SG",
    "GLN": "CA-CB CB-CG CG-CD CD-OE1 CD-NE2",
    "GLU": "CA-CB CB-CG CG-CD CD-OE1 CD-OE2",
    "GLY": "",
    "HIS": "CA-CB CB-CG CG-ND1 ND1-CE1 CE1-NE2 NE2-CD2 CG-CD2",
    "ILE": "CA-CB CB-CG1 CG1-CD1 CB-CG2",
    "LEU": "CA-CB CB-CG CG-CD1 CG-CD2",
    "LYS": "CA-CB CB-CG CG-CD CD-CE CE-NZ",
    "MET": "CA-CB CB-CG CG-SD SD-CE",
    "PHE": "CA-CB CB-CG CG-CD1 CD1-CE1 CE1-CZ CZ-CE2 CE2-CD2 CG-CD2",
    "PRO": "CA-CB CB-CG CG-CD CD-N",
    "SER": "CA-CB CB-OG",
    "THR": "CA-CB CB-OG1 CB-CG2",
    "TRP": (
        "CA-CB CB-CG CG-CD1 CD1-NE1 NE1-CE2 CE2-CZ2 CZ2-CH2 CH2-CZ3 CZ3-CE3 CE3-CD2 "
        "CD2-CE2 CG-CD2"
    ),
    "TYR": "CA-CB CB-CG CG-CD1 CD1-CE1 CE1-CZ CZ-OH CZ-CE2 CE2-CD2 CG-CD2",
    "VAL": "CA-CB CB-CG1 CB-CG2",
}


def _parse(text: str) -> tuple[tuple[str, str], ...]:
    pairs = (bond.split("-") for bond in text.split())
    return tuple((first, second) for first, second in pairs)


def _amino_acid(name: str, side_chain: str) -> Residue:
    bonds = _parse(f"{_BACKBONE} {side_chain}")
    atoms = dict.fromkeys(atom for bond in bonds for atom in bond)
    return Residue(name, tuple(atoms), bonds)


RESIDUES = (
    *(_amino_acid(name, side) for name, side in _SIDE_CHAINS.items()),
    Residue("ACE", (None, "CH3", "C", "O"), _parse("CH3-C C-O")),
    Residue("NME", ("N", "CH3"), _parse("N-CH3")),
)
"""All types; the token of a residue is its place here plus one, 0 is padding."""

NUM_TOKENS = len(RESIDUES) + 1

ALIASES = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "HIS"),
    **dict.fromkeys(("CYX", "CYM"), "CYS"),
    **{"ASH": "ASP", "GLH": "GLU", "LYN": "LYS", "NMA": "NME"},
}
"""Other names of the same heavy atoms, as force fields give them."""

TOKENS = {residue.name: index for index, residue in enumerate(RESIDUES, start=1)}
TOKENS |= {alias: TOKENS[name] for alias, name in ALIASES.items()}
