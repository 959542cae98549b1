"""Distances between the distributions of samples and of data.

Bond lengths and angles by maximum mean discrepancy, each with the floor that data
against data leaves; species, environments, rings and sizes by Jensen-Shannon
divergence. Lengths in Å. No function changes its inputs.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import distance

from symphony.chemistry.bonds import Molecule, Perception
from symphony.data.elements import SYMBOLS
from symphony.evaluate import bispectrum

BANDWIDTHS = np.logspace(-3, 3, 30)  # γ of exp(-γ d²), in Å⁻² for bond lengths.
NUM_DRAWS = 1_000  # With replacement, from either side.
NUM_BATCHES = 10
NUM_MOLECULES = 1_000  # The first valid ones enter the distributions.
NUM_LISTED = 10  # The commonest kinds of bond and environment in the reference.
MIN_COUNT = 20  # Instances on either side below which no distance is given.

_SHIFT = 13  # A step of the table: 1/1024 of a power of two.
_FIRST, _LAST = (int(np.float32(end).view(np.int32)) >> _SHIFT for end in (1e-12, 1e6))
_STEPS = (np.arange(_FIRST, _LAST + 2, dtype=np.int32) << _SHIFT).view(np.float32)  # d²
_TABLE = np.sum(np.exp(-BANDWIDTHS * _STEPS[:, None].astype(np.float64)), axis=1)
_VALUE = _TABLE[:-1].astype(np.float32)
_SLOPE = (np.diff(_TABLE) / 2**_SHIFT).astype(np.float32)


class Discrepancy(NamedTuple):
    """An MMD with what it is measured against; None where there are too few."""

    mmd: float | None
    floor: float | None  # One half of the reference against the other.
    num_samples: int
    num_reference: int


def kernel_sum(squared: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    r"""Returns $\sum_\gamma \exp(-\gamma d^2)$ over the 30 bandwidths.

    Interpolated in a table, to about 1e-7 of the largest. The bits of a float count up
    with its value, 1,024 steps of the table to each power of two, so that they are the
    place in it.
    """
    bits = np.asarray(squared, np.float32).view(np.int32)
    bits = np.clip(bits, _FIRST << _SHIFT, _LAST << _SHIFT) - (_FIRST << _SHIFT)
    place = bits >> _SHIFT
    return _VALUE[place] + _SLOPE[place] * (bits & (2**_SHIFT - 1))


def mmd(
    samples: Float[np.ndarray, "num_samples dim"],
    reference: Float[np.ndarray, "num_reference dim"],
    seed: int = 0,
) -> float:
    r"""Returns the maximum mean discrepancy of two sets of vectors.

    $\sqrt{\sum_\gamma (\overline{k}_{XX} + \overline{k}_{YY} - 2\overline{k}_{XY})}$
    with biased means over 1,000 draws with replacement from either side, averaged
    over 10 batches: the definition of Daigavane et al. (arXiv 2311.16199).
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(NUM_BATCHES):
        x = samples[rng.integers(len(samples), size=NUM_DRAWS)].astype(np.float64)
        y = reference[rng.integers(len(reference), size=NUM_DRAWS)].astype(np.float64)
        squared = _mean_within(x) + _mean_within(y)
        between = distance.cdist(x, y, "sqeuclidean")
        squared -= 2.0 * float(np.mean(kernel_sum(between), dtype=np.float64))
        values.append(np.sqrt(max(squared, 0.0)))
    return float(np.mean(values))


def _mean_within(points: Float[np.ndarray, "num_points dim"]) -> float:
    """Returns the mean of the summed kernel over all ordered pairs, selves included."""
    pairs = kernel_sum(distance.pdist(points, "sqeuclidean"))
    num_points = len(points)
    total = 2.0 * float(np.sum(pairs, dtype=np.float64)) + num_points * len(BANDWIDTHS)
    return total / num_points**2


def compare(
    samples: Mapping[str, Float[np.ndarray, "_ dim"]],
    reference: Mapping[str, Float[np.ndarray, "_ dim"]],
    listed: Sequence[str],
) -> dict[str, Discrepancy]:
    """Returns the MMD of each listed kind, and the floor from halves of the data."""
    results = {}
    for kind in listed:
        data = reference[kind]
        drawn = samples.get(kind, data[:0])
        enough = min(len(drawn), len(data)) >= MIN_COUNT
        halves = data[0::2], data[1::2]
        results[kind] = Discrepancy(
            mmd=mmd(drawn, data) if enough else None,
            floor=mmd(*halves) if len(data) >= 2 * MIN_COUNT else None,
            num_samples=len(drawn),
            num_reference=len(data),
        )
    return results


def commonest(groups: Mapping[str, np.ndarray], count: int = NUM_LISTED) -> list[str]:
    """Returns the kinds with the most instances, in a fixed order."""
    kinds = [kind for kind in groups if len(groups[kind]) >= 2 * MIN_COUNT]
    return sorted(kinds, key=lambda kind: (-len(groups[kind]), kind))[:count]


def jensen_shannon(
    first: Mapping[Hashable, int], second: Mapping[Hashable, int]
) -> float | None:
    """Returns the Jensen-Shannon divergence of two histograms, in nats.

    Natural logarithm, no square root: between 0 and log 2. None if one is empty.
    """
    keys = sorted(set(first) | set(second), key=repr)
    p, q = (np.array([float(h.get(key, 0)) for key in keys]) for h in (first, second))
    if not p.sum() or not q.sum():
        return None
    p, q = p / p.sum(), q / q.sum()
    mean = (p + q) / 2

    def entropy_to_mean(r: np.ndarray) -> float:
        present = r > 0
        return float(np.sum(r[present] * np.log(r[present] / mean[present])))

    return max(0.0, (entropy_to_mean(p) + entropy_to_mean(q)) / 2)


def bond_kind(first: int, second: int, order: float) -> str:
    """Names a kind of bond, as `C-N 1.5`; carbon first, then by the alphabet."""
    symbols = sorted(
        (SYMBOLS[first - 1], SYMBOLS[second - 1]), key=lambda s: (s != "C", s)
    )
    return f"{symbols[0]}-{symbols[1]} {order:.1f}"


def bond_lengths(
    molecules: Sequence[Molecule], perceptions: Sequence[Perception]
) -> dict[str, Float[np.ndarray, "_ 1"]]:
    """Groups the lengths of all bonds in Å by elements and order."""
    groups: dict[str, list[float]] = {}
    for (numbers, positions), perception in zip(molecules, perceptions, strict=True):
        for i, j, order in perception.bonds:
            kind = bond_kind(int(numbers[i]), int(numbers[j]), order)
            length = np.linalg.norm(positions[i].astype(np.float64) - positions[j])
            groups.setdefault(kind, []).append(float(length))
    return {kind: np.array(lengths)[:, None] for kind, lengths in groups.items()}


def environments(
    molecules: Sequence[Molecule], perceptions: Sequence[Perception]
) -> dict[str, Float[np.ndarray, "_ _ 3"]]:
    """Groups the vectors to bonded atoms in Å by central element and neighbours.

    A kind reads `C:C2,H2`: a carbon bonded to two carbons and two hydrogens. Atoms
    without bonds are left out.
    """
    groups: dict[str, list[np.ndarray]] = {}
    for (numbers, positions), perception in zip(molecules, perceptions, strict=True):
        bonded: dict[int, list[int]] = {}
        for i, j, _ in perception.bonds:
            bonded.setdefault(i, []).append(j)
            bonded.setdefault(j, []).append(i)
        for center, others in bonded.items():
            counts = Counter(SYMBOLS[int(numbers[other]) - 1] for other in others)
            around = ",".join(f"{symbol}{counts[symbol]}" for symbol in sorted(counts))
            kind = f"{SYMBOLS[int(numbers[center]) - 1]}:{around}"
            groups.setdefault(kind, []).append(positions[others] - positions[center])
    return {kind: np.stack(vectors) for kind, vectors in groups.items()}


def bispectra(
    groups: Mapping[str, Float[np.ndarray, "_ _ 3"]], listed: Sequence[str]
) -> dict[str, Float[np.ndarray, "_ 15"]]:
    """Returns the invariants of the listed kinds of environment."""
    return {
        kind: bispectrum.bispectra(groups[kind]) for kind in listed if kind in groups
    }


def species_counts(molecules: Sequence[Molecule]) -> Counter[str]:
    """Counts atoms by element."""
    return Counter(
        SYMBOLS[int(number) - 1] for numbers, _ in molecules for number in numbers
    )


def size_counts(molecules: Sequence[Molecule]) -> Counter[int]:
    """Counts molecules by number of atoms; those without atoms are left out."""
    return Counter(len(numbers) for numbers, _ in molecules if len(numbers))


def ring_counts(perceptions: Sequence[Perception]) -> Counter[int]:
    """Counts rings by size, over the smallest set of smallest rings."""
    return Counter(size for perception in perceptions for size in perception.ring_sizes)


def group_counts(groups: Mapping[str, np.ndarray]) -> Counter[str]:
    """Counts the instances of each kind."""
    return Counter({kind: len(values) for kind, values in groups.items()})
