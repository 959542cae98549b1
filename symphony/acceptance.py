"""Which sampled molecules are kept: `--until_valid`, `--accept`, `--diverse`, `--best`.

A gate judges molecules in the order of their draws and counts; they keep the index of
their draw, so that a seed gives the same ones however many are asked for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.errors import RunError, UsageError

BOND_PRESET = "xyz2mol_hueckel"
"""Convention by which bonds are perceived where nothing else is said."""

EDM, POSEBUSTERS, STRICT = "edm", "posebusters", "strict"
NAMES = (BOND_PRESET, STRICT, EDM, POSEBUSTERS)
CHOICES = ("until_valid", "accept", "max_draws", "diverse")
"""Flags, and keywords of `choose`."""

DRAWS_FOR_EACH = 1000
"""Draws for each molecule that is asked for, at most, where nothing else is said."""

UNFINISHED, INVALID, DUPLICATE = "unfinished", "invalid", "duplicate"
NOT_BEST = "not_best"


class Terms(NamedTuple):
    """What is accepted, and how long it is tried.

    Attributes:
        accept: one of `NAMES`.
        until_valid: true to go on until as many are accepted as are asked for.
        max_draws: draws, at most, where `until_valid`.
        diverse: true for no two of one canonical SMILES.
        best: how many of the accepted are kept, by `choose_best`; all where None.
    """

    accept: str = BOND_PRESET
    until_valid: bool = False
    max_draws: int | None = None
    diverse: bool = False
    best: int | None = None

    @property
    def preset(self) -> str:
        """The convention by which bonds are perceived."""
        return BOND_PRESET if self.accept == POSEBUSTERS else self.accept


def choose(
    num_molecules: int,
    until_valid: bool = False,
    accept: str | None = None,
    max_draws: int | None = None,
    diverse: bool = False,
    best: int | None = None,
) -> Terms | None:
    """Checks what is asked; None where every draw is a molecule.

    Args:
        num_molecules: molecules that are asked for.
        until_valid: true to go on until as many are accepted.
        accept: one of `NAMES`; the first where None.
        max_draws: draws, at most; `DRAWS_FOR_EACH` for each where None.
        diverse: true for no two of one canonical SMILES.
        best: how many of the accepted are kept; all where None.

    Raises:
        UsageError: A value is out of range, or PoseBusters is not installed.
    """
    if accept is not None and accept not in NAMES:
        raise UsageError(
            f"--accept: expected one of {', '.join(NAMES)}; found {accept!r}"
        )
    if max_draws is not None and not until_valid:
        raise UsageError("--max_draws: expected --until_valid beside it, found none")
    if max_draws is not None and max_draws < num_molecules:
        raise UsageError(
            f"--max_draws: expected at least --num_molecules, {num_molecules}, found "
            f"{max_draws}"
        )
    if best is not None and not 1 <= best <= num_molecules:
        raise UsageError(
            f"--best: expected 1 to --num_molecules, {num_molecules}, found {best}"
        )
    if not (until_valid or diverse or accept is not None or best is not None):
        return None
    if accept == POSEBUSTERS:
        _check_posebusters()
    most = max_draws or DRAWS_FOR_EACH * num_molecules
    most = most if until_valid else None
    return Terms(accept or BOND_PRESET, until_valid, most, diverse, best)


def choose_best(samples: Sequence[Any], count: int) -> set[int]:
    """Returns the places of the best molecules, by log-likelihood for each drawn atom.

    The mean over all molecules of as many atoms is taken off: larger ones are the less
    likely, atom for atom, and a choice without it would be one of sizes.

    Args:
        samples: molecules as they were drawn, `symphony.manifest.Sample`.
        count: how many to choose.

    Raises:
        UsageError: A molecule has no log-likelihood.
    """
    known = [one.log_likelihood for one in samples]
    if None in known:
        raise UsageError("--best: expected molecules with a log-likelihood, found none")
    sizes = np.array([len(one.atomic_numbers) for one in samples], int)
    drawn = np.maximum(sizes - [one.num_fixed for one in samples], 1)
    score = np.array(known, np.float64) / drawn
    for size in np.unique(sizes):
        score[sizes == size] -= score[sizes == size].mean()
    return set(np.argsort(-score, kind="stable")[:count].tolist())


def _check_posebusters() -> None:
    import importlib.util

    if importlib.util.find_spec("posebusters") is None:
        raise UsageError(
            "--accept=posebusters: expected PoseBusters to be installed, found none; "
            "pip install posebusters, or choose another convention"
        )


class Gate:
    """Judges and counts molecules.

    Attributes:
        terms: what is accepted.
        num_wanted: molecules that are asked for.
        num_draws: draws judged so far.
        num_accepted: accepted ones among them.
        rejected: number of the others by the reason.
    """

    def __init__(self, terms: Terms, num_wanted: int) -> None:
        self.terms, self.num_wanted = terms, num_wanted
        self.reset()

    def reset(self) -> None:
        """Forgets what was judged."""
        self.num_draws = self.num_accepted = 0
        self.rejected: Counter[str] = Counter()
        self._seen: set[str] = set()

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Counts what an earlier command judged."""
        for record in records:
            reason = record.get("rejected")
            reason = None if reason == NOT_BEST else reason
            self._count(reason, record["smiles"])

    def judge(self, sample: Any, smiles: str | None, sdf: str) -> str | None:
        """Returns why a molecule is rejected, None of an accepted one, and counts it.

        Args:
            sample: molecule as it was drawn, a `symphony.manifest.Sample`.
            smiles: canonical SMILES; None where no bonds were perceived.
            sdf: its record of an SDF.
        """
        reason = self._find_fault(sample, smiles, sdf)
        self._count(reason, smiles)
        return reason

    def judge_again(self, record: Mapping[str, Any]) -> str | None:
        """Returns why a molecule of a manifest is rejected, as `judge` does.

        It may have been judged before, by a gate without `diverse`.
        """
        reason, smiles = record.get("rejected"), record["smiles"]
        if "accepted" not in record:
            reason = None if record["stopped"] else UNFINISHED
            reason = reason or record.get("unjudged")
            reason = reason or (INVALID if smiles is None else None)
        # PoseBusters is asked last.
        is_seen = self.terms.diverse and smiles in self._seen
        if is_seen and reason in (None, POSEBUSTERS):
            reason = DUPLICATE
        self._count(reason, smiles)
        return reason

    def _find_fault(self, sample: Any, smiles: str | None, sdf: str) -> str | None:
        if not sample.stopped:
            return UNFINISHED
        if sample.unjudged is not None:
            return sample.unjudged
        if smiles is None:
            return INVALID
        if self.terms.diverse and smiles in self._seen:
            return DUPLICATE
        if self.terms.accept == POSEBUSTERS and not _passes_posebusters(sdf):
            return POSEBUSTERS
        return None

    def _count(self, reason: str | None, smiles: str | None) -> None:
        self.num_draws += 1
        if reason is not None:
            self.rejected[reason] += 1
            return
        self.num_accepted += 1
        if smiles is not None:
            self._seen.add(smiles)

    @property
    def num_reached(self) -> int:
        """What counts towards the number that is asked for."""
        return self.num_accepted if self.terms.until_valid else self.num_draws

    @property
    def is_done(self) -> bool:
        """True once as many are accepted, or drawn, as are asked for."""
        return self.num_reached >= self.num_wanted or self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """True if as many were drawn as may be."""
        most = self.terms.max_draws
        return most is not None and self.num_draws >= most

    def describe(self) -> str:
        """Returns the acceptance so far, in words."""
        share = self.num_accepted / max(self.num_draws, 1)
        reasons = ", ".join(f"{n} {name}" for name, n in sorted(self.rejected.items()))
        return (
            f"accepted {self.num_accepted} of {self.num_draws} draws ({share:.1%}, "
            f"{self.terms.accept}){f'; rejected: {reasons}' if reasons else ''}"
        )

    @property
    def num_best(self) -> int:
        """How many of the accepted are kept in the end."""
        return min(self.terms.best or self.num_accepted, self.num_accepted)

    def describe_best(self) -> str:
        """Returns the selection, in words; empty where all are kept."""
        if self.terms.best is None:
            return ""
        share = self.num_best / max(self.num_accepted, 1)
        return (
            f"; kept the best {self.num_best} of {self.num_accepted} ({share:.1%}) by "
            "log-likelihood per atom less the mean of the size"
        )

    def check(self) -> None:
        """Raises `RunError` if fewer were accepted than are asked for."""
        if self.terms.until_valid and self.num_accepted < self.num_wanted:
            raise RunError(
                f"{self.describe()}; {self.num_wanted} were asked for, and --max_draws="
                f"{self.terms.max_draws} is reached; what was accepted stays; run "
                "again with a larger --max_draws"
            )


def _passes_posebusters(sdf: str) -> bool:
    """Returns whether a molecule passes PoseBusters' fast tests."""
    from rdkit import Chem

    from symphony.evaluate import poses

    supplier = Chem.SDMolSupplier()
    supplier.SetData(sdf, removeHs=False)
    checks = poses.check([supplier[0]])
    return checks is not None and checks.all_passed == 1.0
