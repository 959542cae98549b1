"""Relaxes the molecules of an SDF: `--relax` of `symphony sample`."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from common.commands import cli, outcome
from common.errors import UsageError
from symphony import molfile

COMMAND = "symphony sample"
NAMES = ("mmff", "gfn2")
EXTRA = {"gfn2": "tblite"}


def paths_of(path: str | Path, method: str) -> tuple[Path, Path]:
    """Returns where relaxed molecules lie, and how they were made.

    >>> [one.name for one in paths_of("mine.sdf", "mmff")]
    ['mine_mmff.sdf', 'mine_mmff.json']
    """
    path = Path(path)
    output = path.with_name(f"{path.stem}_{method}.sdf")
    return output, output.with_suffix(".json")


def check(path: str | Path, method: str | None, overwrite: bool) -> None:
    """Asks, before any work, whether molecules can be relaxed and written.

    Args:
        path: SDF of the molecules as they are.
        method: one of `NAMES`; nothing is relaxed where None.
        overwrite: true to replace what stands there.

    Raises:
        UsageError: The method is unknown or not installed, or a file is another's.
    """
    if method is None:
        return
    if method not in NAMES:
        raise UsageError(f"--relax: expected {' or '.join(NAMES)}, found {method}")
    if method in EXTRA and importlib.util.find_spec(EXTRA[method]) is None:
        raise UsageError(
            f"--relax={method}: expected {EXTRA[method]} to be installed, found none; "
            "install the extra eval, or give --relax=mmff"
        )
    output, record = paths_of(path, method)
    cli.check_own(COMMAND, record, [output], overwrite)


def run(path: str | Path, method: str) -> str:
    """Relaxes all molecules of an SDF into a file beside it; returns what was done.

    Raises:
        RunError: Hardly any could be relaxed.
    """
    from rdkit import Chem

    output, record = paths_of(path, method)
    supplier = Chem.SDMolSupplier(str(path), removeHs=False)
    texts, changes, faults = [], [], {}
    with cli.progress(len(supplier), f"relaxing by {method}", "molecules") as advance:
        for mol in supplier:
            text, found = _relax_one(mol, method)
            texts.append(text)
            if isinstance(found, float):
                changes.append(found)
            else:
                faults[mol.GetProp("_Name")] = found
            advance()
    how = {"method": method, "unit": "eV", "without_energy": faults}
    cli.write_own(COMMAND, record, how, {output: "".join(texts)})
    outcome.judge(
        len(changes), len(texts), f"molecules were relaxed by {method}",
        f"{record} names the reasons",
    )  # fmt: skip
    mean = sum(changes) / max(len(changes), 1)
    return (
        f"{output}: {len(changes)} of {len(texts)} molecules relaxed by {method}, mean "
        f"energy change {mean:.3f} eV"
    )


def _relax_one(mol: Any, method: str) -> tuple[str, float | str]:
    """Returns a record of an SDF, and the change of energy, or why there is none."""
    from rdkit import Chem

    from symphony.chemistry import relaxing

    try:
        found = relaxing.relax(mol, method)
    except relaxing.NoValueError as error:
        return "", str(error)
    relaxed = found.mol
    # These belong to the structure as it was drawn.
    for name in list(relaxed.GetPropNames()):
        if name.startswith((molfile.ATOMS, "log_likelihood")):
            relaxed.ClearProp(name)
    relaxed.SetProp("relax_method", method)
    relaxed.SetProp("relax_energy_change_eV", f"{found.energy_change:.5f}")
    relaxed.SetProp("relax_rmsd", f"{found.rmsd:.4f}")
    relaxed.SetProp("relax_converged", json.dumps(found.is_converged))
    return Chem.SDWriter.GetText(relaxed), found.energy_change
