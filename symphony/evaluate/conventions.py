"""Validity, uniqueness and novelty by several named conventions, side by side.

The same molecules score up to 30 points apart under conventions in use; a figure
means nothing without its convention's name and the version of RDKit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import rdkit
from absl import logging

from symphony.chemistry import bonds, edm, geom_drugs, pool
from symphony.evaluate import samples

EDM, GEOM_DRUGS = "edm", "geom_drugs"
NAMES = (EDM, "xyz2mol", "xyz2mol_hueckel", "strict", GEOM_DRUGS)
DEFINITIONS = {
    EDM: (
        "bonds by EDM's distance table, margins 10/5/3 pm, no aromatic bonds; valid if "
        "RDKit sanitizes the largest fragment, implicit hydrogens allowed"
    ),
    "xyz2mol": (
        "rdDetermineBonds.DetermineBonds(charge=0, useHueckel=False, "
        f"allowChargedFragments=True, maxIterations={bonds.MAX_ITERATIONS})"
    ),
    "xyz2mol_hueckel": (
        "rdDetermineBonds.DetermineBonds(charge=0, useHueckel=True, "
        f"allowChargedFragments=True, maxIterations={bonds.MAX_ITERATIONS})"
    ),
    "strict": (
        "valid by xyz2mol_hueckel, and one fragment, no formal charges, no radicals"
    ),
    GEOM_DRUGS: (
        "the revised GEOM-Drugs evaluation on the bonds of xyz2mol_hueckel: valid if "
        "sanitized and one fragment; stable if the number of aromatic bonds and the "
        "orders of the others are in the table for the element and the formal charge"
    ),
}
DERIVED = {
    bonds.STRICT: (bonds.STRICT_PARENT, bonds.judge_strictly),
    GEOM_DRUGS: (geom_drugs.PARENT, geom_drugs.judge),
}
"""Conventions that judge what another perceives, and how."""
BOND_PRESET = "xyz2mol_hueckel"
"""Convention by whose bonds everything else is measured; strained cages need it."""

Advance = Callable[[str, int], None]  # Convention, molecules done.


UNJUDGED = ("crash", "timeout")
"""Reasons for which nothing is known of a molecule, valid or not."""


class Score(NamedTuple):
    """One convention's figures; fractions in [0, 1], None where undefined."""

    definition: str
    rdkit_version: str
    num_molecules: int
    num_valid: int
    num_unique: int
    num_novel: int | None
    valid: float | None  # Of the molecules that were judged.
    valid_standard_error: float | None
    unique: float | None  # Of the valid.
    valid_and_unique: float | None  # Of those that were judged.
    novel: float | None  # Of the unique.
    failures: dict[str, int]
    num_judged: int
    atom_stability: float | None = None
    molecule_stability: float | None = None


class Judgement(NamedTuple):
    """Scores by convention, and each molecule's perceptions by convention."""

    scores: dict[str, Score]
    perceptions: dict[str, list[bonds.Perception]]


def _count_novel(
    perceptions: Sequence[bonds.Perception], reference_graphs: set[str] | None
) -> int | None:
    """Counts the distinct valid molecules whose graphs are not in the data."""
    if reference_graphs is None:
        return None
    first = {p.smiles: p.graph_smiles for p in perceptions if p.status == "valid"}
    return sum(graph not in reference_graphs for graph in first.values())


def _score(
    name: str,
    perceptions: Sequence[bonds.Perception],
    reference_graphs: set[str] | None,
    stability: edm.Stability | None,
) -> Score:
    counts = bonds.summarize(perceptions)
    num_unique = counts.num_unique
    num_judged = counts.num_molecules - num_unjudged(counts.failures)
    share = counts.num_valid / num_judged if num_judged else None
    num_novel = _count_novel(perceptions, reference_graphs)
    has_novelty = num_novel is not None and num_unique
    return Score(
        definition=DEFINITIONS[name],
        rdkit_version=rdkit.__version__,
        num_molecules=counts.num_molecules,
        num_valid=counts.num_valid,
        num_unique=num_unique,
        num_novel=num_novel,
        valid=share,
        valid_standard_error=_standard_error(share, num_judged),
        unique=counts.unique if counts.num_valid else None,
        valid_and_unique=num_unique / num_judged if num_judged else None,
        novel=num_novel / num_unique if has_novelty else None,
        failures=counts.failures,
        num_judged=num_judged,
        atom_stability=stability.atom_stability if stability else None,
        molecule_stability=stability.molecule_stability if stability else None,
    )


def num_unjudged(failures: Mapping[str, int]) -> int:
    """Returns how many molecules crashed a process or took too long.

    >>> num_unjudged({"valence": 3, "timeout": 1})
    1
    """
    return sum(failures.get(reason, 0) for reason in UNJUDGED)


def _standard_error(share: float | None, count: int) -> float | None:
    return None if share is None else math.sqrt(share * (1 - share) / count)


def reference_graphs(
    reference: samples.Reference,
    names: Sequence[str],
    num_workers: int,
    time_limit: float,
    on_done: pool.OnDone | None = None,
) -> dict[str, set[str]]:
    """Returns the SMILES that count as known, by convention.

    The reference's own SMILES where it has them; otherwise what the distance table
    makes of it for `"edm"`, and for the others what `"xyz2mol"` perceives, or
    `"xyz2mol_hueckel"`, the slow one, where that fails.
    """
    if reference.smiles:
        return dict.fromkeys(names, samples.canonical_graphs(reference.smiles))
    graphs = {}
    if EDM in names:
        graphs[EDM] = _graphs(edm.validity(reference.molecules).perceptions)
    others = [name for name in names if name != EDM]
    if others:
        perceived = partial(
            bonds.perceive_all, num_workers=num_workers, time_limit=time_limit
        )
        molecules, charges = reference.molecules, reference.charges
        first = perceived(molecules, "xyz2mol", on_done=on_done, charges=charges)
        failed = [place for place, one in enumerate(first) if one.status != "valid"]
        second = perceived(
            [molecules[place] for place in failed],
            "xyz2mol_hueckel",
            charges=charges and [charges[place] for place in failed],
        )
        _warn_of_unjudged(second, len(reference.molecules))
        graphs |= dict.fromkeys(others, _graphs([*first, *second]))
    return graphs


def _warn_of_unjudged(perceptions: Sequence[bonds.Perception], total: int) -> None:
    count = sum(perception.status in UNJUDGED for perception in perceptions)
    if count:
        logging.warning(
            "the bonds of %d of %d molecules of the data could not be judged (crash or "
            "time limit): novel is an upper bound; raise --time_limit",
            count, total,
        )  # fmt: skip


def _graphs(perceptions: Sequence[bonds.Perception]) -> set[str]:
    return {p.graph_smiles for p in perceptions if p.status == "valid"}


def judge(
    molecules: Sequence[bonds.Molecule],
    names: Sequence[str] = NAMES,
    known_graphs: dict[str, set[str]] | None = None,
    faults: Sequence[str | None] | None = None,
    num_workers: int = 1,
    time_limit: float = 10.0,
    advance: Advance | None = None,
    charges: Sequence[int] | None = None,
) -> Judgement:
    """Scores molecules by each convention.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        names: conventions, of `NAMES`.
        known_graphs: graphs by `reference_graphs`; without it novelty is not computed.
        faults: reason why a molecule has no geometry; see `samples.Samples`.
        num_workers: number of worker processes.
        time_limit: CPU seconds for one molecule.
        advance: callback after every molecule done in a worker.
        charges: charge of each molecule, in e; all are neutral where None.
    """
    found = perceive(
        molecules, names, faults, num_workers, time_limit, advance, charges
    )
    return score(molecules, found, names, known_graphs)


def perceive(
    molecules: Sequence[bonds.Molecule],
    names: Sequence[str] = NAMES,
    faults: Sequence[str | None] | None = None,
    num_workers: int = 1,
    time_limit: float = 10.0,
    advance: Advance | None = None,
    charges: Sequence[int] | None = None,
) -> dict[str, list[bonds.Perception]]:
    """Returns what conventions perceive, but for those that judge another's bonds.

    See `judge` for the arguments.
    """
    needed = {DERIVED[name][0] if name in DERIVED else name for name in names}
    found = {}
    for name in (EDM, *bonds.PRESETS):
        if name not in needed:
            continue
        if name == EDM:
            perceived = edm.validity(molecules).perceptions
        else:
            on_done = None if advance is None else partial(advance, name)
            perceived = bonds.perceive_all(
                molecules, name, num_workers, time_limit, on_done, charges
            )
        found[name] = _with_faults(perceived, faults)
    return found


def score(
    molecules: Sequence[bonds.Molecule],
    perceived: Mapping[str, list[bonds.Perception]],
    names: Sequence[str] = NAMES,
    known_graphs: dict[str, set[str]] | None = None,
) -> Judgement:
    """Scores molecules by what was perceived of them.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        perceived: by `perceive`.
        names: conventions, of `NAMES`.
        known_graphs: graphs by `reference_graphs`; without it novelty is not computed.
    """
    perceptions = dict(perceived)
    for name, (parent, judge_one) in DERIVED.items():
        if name in names:
            perceptions[name] = [judge_one(one) for one in perceived[parent]]
    scores = {}
    for name in (known for known in NAMES if known in names):
        stable = None
        if name == EDM:
            stable = edm.stability(molecules)
        elif name == GEOM_DRUGS:
            stable = geom_drugs.stability(molecules, perceived[geom_drugs.PARENT])
        graphs = (known_graphs or {}).get(name)
        scores[name] = _score(name, perceptions[name], graphs, stable)
    return Judgement(scores, perceptions)


def _with_faults(
    perceptions: list[bonds.Perception], faults: Sequence[str | None] | None
) -> list[bonds.Perception]:
    if faults is None:
        return perceptions
    return [
        perception if fault is None else bonds.Perception(fault)
        for perception, fault in zip(perceptions, faults, strict=True)
    ]
