"""The residues EquiJump knows: atoms in a fixed order of slots, and their bonds.

A residue is a token with slots for heavy atoms: N, CA, C, O, then its side chain. Caps
are tokens too: the methyl carbon, or the only atom that is left, stands in the slot of
CA. Hydrogens, and the second oxygen of a chain's end, have no slot. A type is added by
one row at the end of a table: tokens of old weights stay, and they know the first so
many.
"""

from collections.abc import Iterable
from typing import NamedTuple

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


# The same of modified amino acids; new ones come last, behind those of old weights.
_MODIFIED = {
    "MSE": "CA-CB CB-CG CG-SE SE-CE",
    "NLE": "CA-CB CB-CG CG-CD CD-CE",
    "NVA": "CA-CB CB-CG CG-CD",
    "ORN": "CA-CB CB-CG CG-CD CD-NE",
    "HYP": "CA-CB CB-CG CG-CD CD-N CG-OD1",
    "AIB": "CA-CB1 CA-CB2",
    "ABA": "CA-CB CB-CG",
    "SEP": "CA-CB CB-OG OG-P P-O1P P-O2P P-O3P",
    "TPO": "CA-CB CB-OG1 CB-CG2 OG1-P P-O1P P-O2P P-O3P",
    "PTR": (
        "CA-CB CB-CG CG-CD1 CD1-CE1 CE1-CZ CZ-OH CZ-CE2 CE2-CD2 CG-CD2 OH-P P-O1P "
        "P-O2P P-O3P"
    ),
    "MLY": "CA-CB CB-CG CG-CD CD-CE CE-NZ NZ-CH1 NZ-CH2",
    "M3L": "CA-CB CB-CG CG-CD CD-CE CE-NZ NZ-CM1 NZ-CM2 NZ-CM3",
    "ALY": "CA-CB CB-CG CG-CD CD-CE CE-NZ NZ-CH CH-OH CH-CH3",
    "CME": "CA-CB CB-SG SG-SD SD-CE CE-CZ CZ-OH",
    "CSO": "CA-CB CB-SG SG-OD",
    "SAR": "N-CN",
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
    *(_amino_acid(name, side) for name, side in _MODIFIED.items()),
    Residue("NH2", (None, "N"), ()),
    Residue("FOR", (None, "C", None, "O"), _parse("C-O")),
)
"""All types; the token of a residue is its place here plus one, 0 is padding."""

NUM_TYPES = len(_SIDE_CHAINS) + 2
"""Types of networks whose data have no modified residue: the first so many."""

NUM_TOKENS = NUM_TYPES + 1
NUM_SLOTS = max(len(residue.slots) for residue in RESIDUES[:NUM_TYPES])
"""Tokens and slots of these."""


def num_types_for(tokens: Iterable[int]) -> int:
    """Returns how many types a network must know: the first ones, or the whole table.

    >>> num_types_for([TOKENS["ALA"]]), num_types_for([TOKENS["PTR"]]) == len(RESIDUES)
    (22, True)
    """
    return NUM_TYPES if max(tokens, default=0) <= NUM_TYPES else len(RESIDUES)


def num_slots_of(num_types: int) -> int:
    """Returns the slots of the largest of the first types.

    >>> num_slots_of(NUM_TYPES)
    14
    """
    return max(len(residue.slots) for residue in RESIDUES[:num_types])


def num_types_of(num_slots: int) -> int:
    """Returns the types of a network whose residues have so many slots.

    >>> num_types_of(NUM_SLOTS) == NUM_TYPES
    True
    """
    return NUM_TYPES if num_slots == NUM_SLOTS else len(RESIDUES)


STANDARD = frozenset((*_SIDE_CHAINS, "ACE", "NME"))
"""The twenty amino acids and the caps of force fields."""

CAPS = frozenset(("ACE", "NME", "NH2", "FOR"))

_OTHER_NAMES = {
    "HIS": "HID HIE HIP HSD HSE HSP HISA HISB HISH HISD HISE HIS1 HIS2",
    "CYS": "CYX CYM CYS1 CYS2 CYSH",
    "ASP": "ASH ASPH ASPP",
    "GLU": "GLH GLUH GLUP",
    "LYS": "LYN LYSH LSN LYP",
    "ARG": "ARN ARGN",
    "TYR": "TYM",
    "NME": "NMA NMT NAC CT3 CBX",
    "NH2": "NHE CT2",
    "SEP": "S1P SP1 SP2",
    "TPO": "T1P THP1 THP2",
    "PTR": "Y1P TP1 TP2",
}

ALIASES = {
    alias: name for name, aliases in _OTHER_NAMES.items() for alias in aliases.split()
}
"""Other names of the same heavy atoms, as force fields give them."""

TOKENS = {residue.name: index for index, residue in enumerate(RESIDUES, start=1)}
TOKENS |= {alias: TOKENS[name] for alias, name in ALIASES.items()}


_ALIKE = {
    "ASP": "OD1-OD2", "GLU": "OE1-OE2", "ARG": "NH1-NH2",
    "PHE": "CD1-CD2 CE1-CE2", "TYR": "CD1-CD2 CE1-CE2", "PTR": "CD1-CD2 CE1-CE2",
}  # fmt: skip
"""Atoms whose names mean nothing: one exchange a type turns it into itself."""


def exchanges(num_types: int) -> list[list[int]]:
    """Returns, by token, the slot whose atom each slot has after the exchange.

    >>> exchanges(NUM_TYPES)[TOKENS["ASP"]][4:8]
    [4, 5, 7, 6]
    """
    num_slots = num_slots_of(num_types)
    found = [list(range(num_slots)) for _ in range(num_types + 1)]
    for name, text in _ALIKE.items():
        if (token := TOKENS[name]) > num_types:
            continue
        for first, second in _parse(text):
            a, b = slot_of(token, first), slot_of(token, second)
            found[token][a], found[token][b] = b, a
    return found


def token_of(name: str) -> int | None:
    """Returns the token of a residue's name in a file, None for another residue.

    Names of Amber for the ends of chains begin with N or C.

    >>> token_of("NALA") == token_of("ala") == TOKENS["ALA"]
    True
    """
    name = name.strip().upper()
    if name in TOKENS:
        return TOKENS[name]
    if len(name) == 4 and name[0] in "NC":
        return TOKENS.get(name[1:])
    return None


def element_of(name: str) -> str:
    """Returns the element of an atom by its name in the table.

    >>> element_of("SE"), element_of("SD"), element_of("P")
    ('Se', 'S', 'P')
    """
    return "Se" if name == "SE" else name[0]


def is_link(token: int, name: str) -> bool:
    """Returns whether a type has the N, or the C, that binds to its neighbour.

    >>> is_link(TOKENS["NME"], "C"), is_link(TOKENS["NH2"], "N")
    (False, True)
    """
    return name in RESIDUES[token - 1].slots


def slot_of(token: int, name: str) -> int:
    """Returns the slot of an atom in a type.

    >>> slot_of(TOKENS["NH2"], "N")
    1
    """
    return RESIDUES[token - 1].slots.index(name)
