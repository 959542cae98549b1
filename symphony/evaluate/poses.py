"""PoseBusters' fast tests of single molecules, where the extra `eval` is installed."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from rdkit import Chem

CONFIG = "mol_fast"
MAX_MOLECULES = 200  # A tenth of a second each.


class PoseChecks(NamedTuple):
    """Fractions of the molecules tested that pass each test, and all of them.

    A test without an answer counts as failed; `num_undefined` molecules have one.
    """

    version: str
    config: str
    num_molecules: int
    num_undefined: int
    all_passed: float
    passed: dict[str, float]


def is_installed() -> bool:
    """Returns true if PoseBusters can be imported."""
    return importlib.util.find_spec("posebusters") is not None


def check(mols: Sequence[Chem.Mol]) -> PoseChecks | None:
    """Tests molecules; None if PoseBusters is not installed or there are none.

    Args:
        mols: sanitized molecules, with explicit hydrogens and one conformer in Å.
    """
    if not is_installed() or not mols:
        return None
    from posebusters import PoseBusters  # An optional dependency.

    answers = PoseBusters(config=CONFIG).bust(list(mols), None, None)
    passed = answers == True  # noqa: E712 (Elementwise; a missing answer is false.)
    return PoseChecks(
        version=importlib.metadata.version("posebusters"),
        config=CONFIG,
        num_molecules=len(mols),
        num_undefined=int(answers.isna().any(axis=1).sum()),
        all_passed=float(passed.all(axis=1).mean()),
        passed={str(name): float(passed[name].mean()) for name in passed.columns},
    )
