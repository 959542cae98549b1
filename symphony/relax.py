"""Relaxes molecules: `--relax` of `symphony sample`, `score` and `evaluate`. Å, eV."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, outcome
from common.errors import UsageError
from symphony import molfile

COMMAND = "symphony sample"
NO_BONDS = "no bonds were perceived"
NAMES = ("mmff", "gfn2", "energy")
TOTAL = ("gfn2", "energy")
"""Methods whose energies of different molecules can be compared."""
HELP = "mmff, gfn2 or energy: relaxed molecules beside, as <name>_mmff.sdf"
EXTRA = {"gfn2": "tblite"}
OF_DRAWN = ("log_likelihood", "standard_error", "effective_orders", "taken_back")
"""Properties of the structure as it was drawn, which a relaxed one has not."""


def paths_of(path: str | Path, method: str) -> tuple[Path, Path]:
    """Returns where relaxed molecules lie, and how they were made.

    >>> [one.name for one in paths_of("mine.sdf", "mmff")]
    ['mine_mmff.sdf', 'mine_mmff.json']
    """
    path = Path(path)
    output = path.with_name(f"{path.stem}_{method}.sdf")
    return output, output.with_suffix(".json")


def check(
    path: str | Path, method: str | None, overwrite: bool, command: str = COMMAND
) -> None:
    """Asks, before any work, whether molecules can be relaxed and written.

    Args:
        path: output beside which the relaxed molecules are to lie.
        method: one of `NAMES`; nothing is relaxed where None.
        overwrite: true to replace what stands there.
        command: name of the command that writes.

    Raises:
        UsageError: The method is unknown or not installed, or a file is another's.
    """
    if method is None:
        return
    check_method(method)
    output, record = paths_of(path, method)
    cli.check_own(command, record, [output], overwrite)


def check_method(method: str) -> None:
    """Raises `UsageError` for a method that is unknown or not installed."""
    if method not in NAMES:
        raise UsageError(f"--relax: expected one of {', '.join(NAMES)}, found {method}")
    if method in EXTRA and importlib.util.find_spec(EXTRA[method]) is None:
        raise UsageError(
            f"--relax={method}: expected {EXTRA[method]} to be installed, found none; "
            f"pip install {EXTRA[method]}, or give --relax=mmff"
        )


def run(path: str | Path, method: str) -> str:
    """Relaxes all molecules of an SDF into a file beside it; returns what was done.

    Raises:
        RunError: Hardly any could be relaxed.
    """
    from rdkit import Chem

    mols = list(Chem.SDMolSupplier(str(path), removeHs=False))
    named = [(mol.GetProp("_Name"), mol) for mol in mols]
    return write(path, method, relax_each(named, method), COMMAND)


def relax_each(named: Sequence[tuple[str, Any]], method: str) -> list[tuple[str, Any]]:
    """Relaxes RDKit molecules; returns `Relaxed`, or why there is none, beside names.

    Args:
        named: names and molecules with bonds; None where no bonds are known.
        method: one of `NAMES`.
    """
    from symphony.chemistry import relaxing

    found: list[tuple[str, Any]] = []
    with cli.progress(len(named), f"relaxing by {method}", "molecules") as advance:
        for name, mol in named:
            try:
                one = NO_BONDS if mol is None else relaxing.relax(mol, method)
            except relaxing.NoValueError as error:
                one = str(error)
            found.append((name, one))
            advance()
    return found


def write(
    path: str | Path, method: str, found: Sequence[tuple[str, Any]], command: str
) -> str:
    """Writes relaxed molecules beside an output; returns what was done.

    Args:
        path: the output.
        method: one of `NAMES`.
        found: what `relax_each` returned.
        command: name of the command that writes.

    Raises:
        RunError: Hardly any could be relaxed.
    """
    output, record = paths_of(path, method)
    faults = {name: one for name, one in found if isinstance(one, str)}
    relaxed = [one for _, one in found if not isinstance(one, str)]
    how = {"method": method, "unit": "eV", "without_energy": faults}
    ranks = _ranks(relaxed) if method in TOTAL else [None] * len(relaxed)
    pairs = zip(relaxed, ranks, strict=True)
    text = "".join(_to_sdf(one, method, rank) for one, rank in pairs)
    cli.write_own(command, record, how, {output: text})
    outcome.judge(
        len(relaxed), len(found), f"molecules were relaxed by {method}",
        f"{record} names the reasons",
    )  # fmt: skip
    mean = sum(one.energy_change for one in relaxed) / max(len(relaxed), 1)
    return (
        f"{output}: {len(relaxed)} of {len(found)} molecules relaxed by {method}, mean "
        f"energy change {mean:.3f} eV"
    )


def _ranks(relaxed: Sequence[Any]) -> list[int]:
    """Returns the place of each by its energy among those of its formula, from 1."""
    from rdkit.Chem import rdMolDescriptors

    formulas = [rdMolDescriptors.CalcMolFormula(one.mol) for one in relaxed]
    energies: dict[str, list[float]] = {}
    for formula, one in zip(formulas, relaxed, strict=True):
        energies.setdefault(formula, []).append(one.energy)
    return [
        1 + sum(energy < one.energy for energy in energies[formula])
        for formula, one in zip(formulas, relaxed, strict=True)
    ]


def _to_sdf(found: Any, method: str, rank: int | None) -> str:
    """Returns a relaxed molecule as a record of an SDF."""
    from rdkit import Chem

    relaxed = found.mol
    for name in list(relaxed.GetPropNames()):
        if name.startswith((molfile.ATOMS, *OF_DRAWN)):
            relaxed.ClearProp(name)
    relaxed.SetProp("relax_method", method)
    relaxed.SetProp("relax_energy_change_eV", f"{found.energy_change:.5f}")
    if rank is not None:
        relaxed.SetProp("relax_energy_eV", f"{found.energy:.5f}")
        relaxed.SetProp("relax_rank", str(rank))
    relaxed.SetProp("relax_rmsd", f"{found.rmsd:.4f}")
    relaxed.SetProp("relax_converged", json.dumps(found.is_converged))
    return Chem.SDWriter.GetText(relaxed)
