"""Sampled molecules, and what their files tell of each. Positions in Å.

RDKit is imported by `finish` alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from symphony import molfile
from symphony.acceptance import BOND_PRESET
from symphony.arrays import AtomicNumbers, HostPositions

NAN = float("nan")


class Sample(NamedTuple):
    """A molecule as the network left it; the atoms of a user's fragment come first.

    Attributes:
        index: number of the molecule of the seed.
        seed: seed of the random numbers.
        atomic_numbers: nuclear charges.
        positions: positions of the atoms, in Å.
        stopped: false if it would have grown beyond the largest number of atoms.
        log_likelihood: log-likelihood in nats of the path by which it was built,
            without a fragment's own atoms, positions per Å³. Of a refined molecule it
            is that of the molecule before; None of one from a file.
        moved: root mean square move of the atoms by refinement, in Å; None without.
        name: name in the file that it was read from, if it was.
        unjudged: why nothing is known of its bonds, `crash` or `timeout`; None where
            they were judged, or not yet looked at.
        log_constrained: log-likelihood in nats of the same path under the law that the
            wishes of a user leave; None where there are none.
        reason: why it did not stop, where there are wishes.
        num_fixed: atoms of a fragment, which come first and never move.
        targets: numbers of the properties that it was asked to have, by name.
        forecast: the properties that the network foresees of it, by name, in the units
            of its training data.
        log_of_atoms: part of each atom in `log_likelihood`, of the step that placed it;
            NaN for the atoms of a fragment. The rest is the part of stopping.
        num_redrawn: draws and atoms that were taken back, where there are wishes.
        score: its `symphony.likelihood.Score`, over random orders; None where it was
            not asked for, or the molecule is unfinished.
        charge: charge that it was asked to have, in e.
    """

    index: int
    seed: int
    atomic_numbers: AtomicNumbers
    positions: HostPositions
    stopped: bool
    log_likelihood: float | None
    moved: float | None = None
    name: str | None = None
    unjudged: str | None = None
    log_constrained: float | None = None
    reason: str | None = None
    num_fixed: int = 0
    targets: Mapping[str, float] = MappingProxyType({})
    forecast: Mapping[str, float] = MappingProxyType({})
    log_of_atoms: Float[np.ndarray, " num_atoms"] | None = None
    num_redrawn: int | None = None
    score: Any = None
    charge: int = 0


def finish(sample: Sample, preset: str = BOND_PRESET) -> tuple[Any, dict[str, Any]]:
    """Perceives the bonds of a molecule.

    Args:
        sample: molecule.
        preset: convention for the bonds, see `symphony.chemistry.bonds.perceive`.

    Returns:
        An RDKit molecule with properties, or None if the convention finds no bonds; and
        the molecule's record for the manifest.
    """
    from symphony.chemistry import bonds

    atoms = sample.atomic_numbers, sample.positions
    mol = bonds.perceive(*atoms, preset, sample.charge)
    record = record_of(sample, None if mol is None else bonds.write_smiles(mol))
    if mol is not None:
        fields = {**properties_of(sample), "smiles": record["smiles"]}
        bonds.set_properties(mol, name_of(sample), fields)
    return mol, record


def record_of(sample: Sample, smiles: str | None) -> dict[str, Any]:
    """Returns the line of the manifest."""
    record = {
        "index": sample.index,
        "seed": sample.seed,
        "num_atoms": len(sample.atomic_numbers),
        "formula": molfile.formula(sample.atomic_numbers),
        "stopped": sample.stopped,
        "valid": smiles is not None and sample.stopped,
        "smiles": smiles,
    }
    words = {"unjudged": sample.unjudged, "unfinished": sample.reason}
    words = {name: word for name, word in words.items() if word is not None}
    of_atoms = {
        f"{molfile.ATOMS}{name}": [None if np.isnan(x) else round(x, 4) for x in values]
        for name, values in numbers_of_atoms(sample).items()
    }
    return {**record, **words, **numbers_of(sample), **of_atoms}


def numbers_of(sample: Sample) -> dict[str, float]:
    """Returns log-likelihoods, properties, what was taken back or moved."""
    numbers = {}
    known = {
        "log_likelihood": sample.log_likelihood,
        "log_likelihood_constrained": sample.log_constrained,
    }
    for name, value in known.items():
        if value is not None:
            numbers[_full_name(sample, name)] = round(value, 4)
    if sample.num_redrawn is not None:
        numbers["taken_back"] = sample.num_redrawn
    if sample.charge:
        numbers["charge"] = sample.charge
    if sample.moved is not None:
        numbers["moved"] = round(sample.moved, 4)
    targets = {f"target_{name}": value for name, value in sample.targets.items()}
    forecast = {f"forecast_{name}": value for name, value in sample.forecast.items()}
    return {**numbers, **_scores_of(sample), **targets, **forecast}


def _scores_of(sample: Sample) -> dict[str, float]:
    """Returns what `symphony score` would write, under the names of its columns.

    The bound has another one, since `log_likelihood` is that of the path.
    """
    if sample.score is None:
        return {}
    found = {
        "log_likelihood_over_orders": sample.score.bound,
        "standard_error": sample.score.standard_error,
        "effective_orders": sample.score.effective_orders,
    }
    return {name: round(x, 4) for name, x in found.items() if np.isfinite(x)}


def _full_name(sample: Sample, name: str) -> str:
    """Returns the name of a log-likelihood, which is not that of a refined molecule."""
    return name if sample.moved is None else f"{name}_before_refinement"


def numbers_of_atoms(sample: Sample) -> dict[str, list[float]]:
    """Returns the numbers that each atom has, by name; NaN where one has none."""
    found = {}
    if sample.log_of_atoms is not None:
        found[_full_name(sample, "log_likelihood")] = sample.log_of_atoms.tolist()
    if sample.score is not None:
        terms = np.where(np.isfinite(sample.score.per_atom), sample.score.per_atom, NAN)
        found["mean_log_likelihood"] = terms.tolist()
    return found


def properties_of(sample: Sample) -> dict[str, Any]:
    """Returns the fields of a molecule with bonds, but for its SMILES."""
    record = record_of(sample, "")
    names = ("seed", "index", "stopped", "valid")
    lists = {
        f"{molfile.ATOMS}{k}": molfile.to_list(v)
        for k, v in numbers_of_atoms(sample).items()
    }
    return {**numbers_of(sample), **{name: record[name] for name in names}, **lists}


def name_of(sample: Sample) -> str:
    """Returns the name of a molecule in its files."""
    if sample.name is not None:
        return sample.name
    return f"seed{sample.seed}_{sample.index}"
