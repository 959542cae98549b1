"""Protonation states that a PDB file tells: by names of residues, or by hydrogens.

OpenMM reads HID and HIP alike as HIS, so that the text is asked. What a file leaves
open is decided by the pH.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

Place = tuple[str, str, str]
"""Chain, number and insertion code of a residue in a PDB file."""

_NAMES = {
    "ASH": "ASH", "GLH": "GLH", "LYN": "LYN", "HID": "HID", "HIE": "HIE", "HIP": "HIP",
    "HSD": "HID", "HSE": "HIE", "HSP": "HIP", "CYM": "CYX",
}  # fmt: skip
"""Names of protonation in force fields, and those of OpenMM's variants."""

_TITRATED = {
    "ASP": (("ASH", ("HD1", "HD2")),),
    "GLU": (("GLH", ("HE1", "HE2")),),
    "HIS": (("HID", ("HD1",)), ("HIE", ("HE2",))),
    "LYS": (("LYS", ("HZ1", "HZ2", "HZ3")),),
}
"""Variants of residues, and the hydrogens of which they have one."""


def read_states(text: str) -> dict[Place, str]:
    """Returns the states that a PDB file tells.

    >>> line = "ATOM      1  N   HIP A   5       0.000   0.000   0.000"
    >>> read_states(line)
    {('A', '5', ''): 'HIP'}

    Args:
        text: contents of the file; of several models the first counts.
    """
    atoms: dict[Place, tuple[str, set[str]]] = {}
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM", "HETATM")):
            place = line[21].strip(), line[22:26].strip(), line[26:27].strip()
            atoms.setdefault(place, (line[17:20].strip(), set()))
            atoms[place][1].add(line[12:16].strip())
    states = {place: _state(*found) for place, found in atoms.items()}
    return {place: state for place, state in states.items() if state is not None}


def _state(name: str, atoms: set[str]) -> str | None:
    """Returns the state of a residue, None where its pH decides."""
    if name in _NAMES:
        return _NAMES[name]
    found = [v for v, hydrogens in _TITRATED.get(name, ()) if atoms & set(hydrogens)]
    if name == "LYS" and found:
        ((_, hydrogens),) = _TITRATED["LYS"]
        return "LYS" if len(atoms & set(hydrogens)) == 3 else "LYN"
    return "HIP" if len(found) == 2 else found[0] if found else None


def variants(
    topology: Any, states: Mapping[Place, str], source: str
) -> Sequence[str | None]:
    """Returns the state of each residue for OpenMM's `addHydrogens`; None: by pH.

    Args:
        topology: topology of OpenMM, with the file's own chains and numbers.
        states: states by `read_states`.
        source: origin of the molecule, for what is told.
    """
    found = []
    for residue in topology.residues():
        place = residue.chain.id.strip(), residue.id, residue.insertionCode.strip()
        found.append(states.get(place))
    kept = [
        f"{residue.name}{residue.id} as {state}"
        for residue, state in zip(topology.residues(), found, strict=True)
        if state is not None
    ]
    if kept:
        more = f" and {len(kept) - 6} more" if len(kept) > 6 else ""
        told = f"{', '.join(kept[:6])}{more}"
        logging.info("%s: protonation is that of the file: %s", source, told)
    return found
