"""Perceives bonds with whatever RDKit is installed; run by `benchmarks.quetzal`.

Standard input has a JSON object a line: an `xyz` block and a limit of CPU time. A line
of JSON leaves for each: the SMILES, or null. It imports nothing of this project, so
that an environment of its own, with an old RDKit, can run it.
"""

import json
import os
import signal
import sys

from rdkit import Chem, RDLogger, rdBase
from rdkit.Chem import rdDetermineBonds


def perceive(block: str) -> str | None:
    """Returns the SMILES, hydrogens explicit, that xyz2mol's defaults make of it."""
    mol = Chem.MolFromXYZBlock(block)
    if mol is None:
        return None
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=0)
        smiles = Chem.MolToSmiles(mol)
    except (ValueError, RuntimeError):
        return None
    return smiles if mol.GetNumBonds() else None


def main() -> None:
    """Answers every line; beyond its CPU time the system ends the process."""
    RDLogger.DisableLog("rdApp.*")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # C code writes there.
    answers.write(json.dumps({"rdkit": rdBase.rdkitVersion}) + "\n")
    answers.flush()
    for line in sys.stdin:
        task = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, task["time_limit"])
        smiles = perceive(task["xyz"])
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(json.dumps({"smiles": smiles}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
