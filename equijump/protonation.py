"""Protonation of the residues of a file, where it is not that of pH 7."""

from typing import Any

from equijump.data.residues import ALIASES, token_of

_STATES = frozenset((
    "ASH", "ASPH", "ASPP", "GLH", "GLUH", "GLUP", "LYN", "LYSN", "LSN", "CYM", "HIP",
    "HSP", "HISH", "HISP", "ARN", "ARGN", "TYM",
))  # fmt: skip
_ACIDIC = {"ASP": ("HD1", "HD2"), "GLU": ("HE1", "HE2")}


def unusual(topology: Any) -> list[str]:
    """Returns the residues whose names or hydrogens are not those of pH 7.

    Args:
        topology: topology of MDTraj; files without hydrogens tell by names alone.
    """
    return [str(r) for r in topology.residues if token_of(r.name) and _is_unusual(r)]


def _is_unusual(residue: Any) -> bool:
    name = residue.name.strip().upper()
    if name in _STATES:
        return True
    kind = ALIASES.get(name, name)
    hydrogens = {a.name for a in residue.atoms if a.name.startswith("H")}
    if kind == "HIS":
        return {"HD1", "HE2"} <= hydrogens
    if kind == "LYS":
        return {"HZ1", "HZ2"} <= hydrogens and "HZ3" not in hydrogens
    return any(atom in hydrogens for atom in _ACIDIC.get(kind, ()))
