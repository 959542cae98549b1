"""Units of numeric columns, as files of molecules state them: one text for all.

An SDF has it in the data field `units`, extended XYZ in the comment as `units="..."`,
a NumPy archive in an array `units` of one text. A pure number has no entry.
"""

from collections.abc import Mapping

FIELD = "units"


def parse_units(text: str) -> dict[str, str]:
    """Returns units by the names of columns; words of another form are passed over.

    >>> parse_units("gap:eV dipole:D")
    {'gap': 'eV', 'dipole': 'D'}
    """
    pairs = (word.partition(":") for word in text.split())
    return {name: unit for name, _, unit in pairs if name and unit}


def format_units(units: Mapping[str, str]) -> str:
    """Returns the text that `parse_units` reads.

    >>> format_units({"gap": "eV", "logP": ""})
    'gap:eV'
    """
    return " ".join(f"{name}:{unit}" for name, unit in units.items() if unit)
