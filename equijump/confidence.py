"""How far a rollout of a peptide is to be trusted, without a reference.

A calibration is fitted to peptides whose rollouts were judged (`benchmarks.confidence`)
and lies beside the weights as `calibration.json`. The logarithm of an error is a linear
function of features; the interval is that of the residuals of peptides which the fit
left out. Errors are the divergence of phi and psi (JS, nats), mean over residues, and
the factor by which slowest time-scales are off, median over residues.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from common.commands import reading
from equijump.transferable import (
    Transferable,
    names_of,
    num_residues,
    pairs_of,
)

FILE = "calibration.json"
FORMAT_VERSION = 1
COVERAGE = 0.8
"""Share of peptides whose error is inside the interval."""

FEATURES = ("refused", "new_residues", "new_pairs", "length", "disagreement")
"""Logarithm of draws per one that passed; shares of residues and of neighbours that no
training sequence has; logarithm of the number of residues; and that of how far two
networks are apart, where there are two."""

_WORDS = {
    "refused": "draws refused", "new_residues": "new residues",
    "new_pairs": "new pairs of neighbours", "disagreement": "disagreement of networks",
}  # fmt: skip

_MOST_FACTOR = 100.0
"""Factor beyond which an estimate of time-scales says no more than so much."""

ERRORS = ("js", "time")
_LEAST = {"js": 1e-5, "time": 0.01}
_RIDGE = 1.0
_LEAST_PEPTIDES = 8


class Line(NamedTuple):
    """Fit of one error: its logarithm over features of zero mean and unit spread.

    Attributes:
        offset: mean of the logarithm.
        slopes: slope for each feature.
        low: residual that one in ten peptides is below.
        high: residual that one in ten peptides is above.
    """

    offset: float
    slopes: tuple[float, ...]
    low: float
    high: float


class Calibration(NamedTuple):
    """Fit of measured errors.

    Attributes:
        lag: lag of the rollouts that were judged, in ps; the gate was on.
        num_peptides: number of peptides that were judged.
        features: names of the features.
        means: mean of each.
        spreads: spread of each, 1 where it is always the same.
        ranges: least and largest of each.
        errors: fit of each error, by name.
    """

    lag: float
    num_peptides: int
    features: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]
    errors: dict[str, Line]


class Measured(NamedTuple):
    """A peptide whose rollout was judged: its features and its errors by name."""

    features: Mapping[str, float]
    errors: Mapping[str, float]


class Estimate(NamedTuple):
    """An estimate of errors, each with the ends of an interval.

    Attributes:
        js: divergence of phi and psi in nats; None where it was not calibrated.
        time_factor: factor by which slowest time-scales are off, 1 for none.
        beyond: features outside of what was calibrated.
        num_peptides: number of peptides of the calibration.
    """

    js: tuple[float, float, float] | None
    time_factor: tuple[float, float, float] | None
    beyond: tuple[str, ...]
    num_peptides: int


def features_of(
    passed: float,
    sequence: str,
    transferable: Transferable,
    disagreement: float | None = None,
) -> dict[str, float]:
    """Returns the features of a rollout.

    >>> known = Transferable(("ACE-ALA-NME", "ACE-GLY-NME"), False)
    >>> found = features_of(0.5, "ACE-ALA-GLY-NME", known)
    >>> {name: round(value, 2) for name, value in found.items()}
    {'refused': 0.69, 'new_residues': 0.0, 'new_pairs': 0.33, 'length': 0.69}

    Args:
        passed: share of draws that the gate let pass.
        sequence: residues, see `equijump.transferable.sequence_of`.
        transferable: peptides that trained.
        disagreement: distance of what two networks make of the same start and noise,
            over the size of a jump; None where there is one network.
    """
    names, pairs = names_of(sequence), pairs_of(sequence)
    known = {pair for text in transferable.sequences for pair in pairs_of(text)}
    share = lambda new: sum(new) / max(len(new), 1)
    found = {
        "refused": -math.log(min(max(passed, 1e-3), 1.0)),
        "new_residues": share([name not in transferable.residues for name in names]),
        "new_pairs": share([pair not in known for pair in pairs]),
        "length": math.log(max(num_residues(sequence), 1)),
    }
    if disagreement is not None:
        found["disagreement"] = math.log(max(disagreement, 1e-6))
    return found


def fit(measured: Sequence[Measured], lag: float) -> Calibration:
    """Returns a calibration of peptides that were judged.

    Features that not all of them have are left out.

    Args:
        measured: peptides.
        lag: lag of their rollouts, in ps.

    Raises:
        ValueError: There are too few peptides.
    """
    if len(measured) < _LEAST_PEPTIDES:
        raise ValueError(f"{len(measured)} peptides, fewer than {_LEAST_PEPTIDES}")
    names = [n for n in FEATURES if all(n in one.features for one in measured)]
    table = np.array([[one.features[n] for n in names] for one in measured])
    means, spreads = table.mean(axis=0), table.std(axis=0)
    spreads = np.where(spreads > 1e-6, spreads, 1.0)
    errors = {}
    for error in ERRORS:
        rows = [i for i, one in enumerate(measured) if error in one.errors]
        if len(rows) >= _LEAST_PEPTIDES:
            values = [max(measured[i].errors[error], _LEAST[error]) for i in rows]
            errors[error] = _line((table[rows] - means) / spreads, np.log(values))
    return Calibration(
        lag=lag,
        num_peptides=len(measured),
        features=tuple(names),
        means=tuple(means.tolist()),
        spreads=tuple(spreads.tolist()),
        ranges=tuple(map(tuple, np.stack([table.min(0), table.max(0)], 1).tolist())),
        errors=errors,
    )


def _line(
    table: Float[np.ndarray, "num_peptides num_features"],
    values: Float[np.ndarray, " num_peptides"],
) -> Line:
    """Fits one error, and its residuals where each peptide is left out."""
    left_out = []
    for row in range(len(values)):
        others = np.arange(len(values)) != row
        offset, slopes = _ridge(table[others], values[others])
        left_out.append(values[row] - offset - table[row] @ slopes)
    edge = (1.0 - COVERAGE) / 2.0
    low = np.quantile(left_out, edge, method="lower")
    high = np.quantile(left_out, 1.0 - edge, method="higher")
    offset, slopes = _ridge(table, values)
    return Line(float(offset), tuple(slopes.tolist()), float(low), float(high))


def _ridge(
    table: Float[np.ndarray, "num_peptides num_features"],
    values: Float[np.ndarray, " num_peptides"],
) -> tuple[float, Float[np.ndarray, " num_features"]]:
    """Returns offset and slopes that fit with small slopes."""
    centre = table.mean(axis=0)
    moved = table - centre
    matrix = moved.T @ moved + _RIDGE * np.eye(table.shape[1])
    slopes = np.linalg.solve(matrix, moved.T @ (values - values.mean()))
    return float(values.mean() - centre @ slopes), slopes


def estimate(
    calibration: Calibration, features: Mapping[str, float]
) -> Estimate | None:
    """Returns what errors a rollout with some features is likely to have.

    None where a feature of the calibration is not known.
    """
    if not set(calibration.features) <= features.keys():
        return None
    values = np.array([features[name] for name in calibration.features])
    scaled = (values - calibration.means) / np.array(calibration.spreads)
    found: dict[str, tuple[float, float, float]] = {}
    for name, line in calibration.errors.items():
        middle = line.offset + float(scaled @ np.array(line.slopes))
        ends = (middle, middle + line.low, middle + line.high)
        found[name] = tuple(math.exp(min(value, 3.0)) for value in ends)
    edges = zip(calibration.features, values, calibration.ranges, strict=True)
    time = found.get("time")
    return Estimate(
        js=found.get("js") and tuple(min(x, math.log(2.0)) for x in found["js"]),
        time_factor=time and tuple(math.exp(min(x, 5.0)) for x in time),
        beyond=tuple(
            name for name, x, (low, high) in edges if not low - 1e-9 <= x <= high + 1e-9
        ),
        num_peptides=calibration.num_peptides,
    )


def leave_one_out(measured: Sequence[Measured]) -> list[Estimate | None]:
    """Returns the estimate of each peptide by a calibration that left it out."""
    return [
        estimate(fit([*measured[:row], *measured[row + 1 :]], 0.0), one.features)
        for row, one in enumerate(measured)
    ]


def describe(found: Estimate | None) -> str:
    """Returns an estimate in one line.

    >>> describe(Estimate((0.012, 0.008, 0.02), (1.2, 1.05, 1.5), ("length",), 42))
    'confidence: JS of phi/psi about 0.012 (0.008 to 0.02), slowest times off by a \
factor of 1.2 (1.05 to 1.5), by 42 measured peptides; beyond them in length'
    >>> describe(None)
    'confidence: not calibrated'
    """
    if found is None or (found.js is None and found.time_factor is None):
        return "confidence: not calibrated"
    parts = []
    if found.js is not None:
        parts.append(f"JS of phi/psi about {_interval(found.js, 2)}")
    if found.time_factor is not None:
        told = _interval(found.time_factor, 3, _MOST_FACTOR)
        parts.append(f"slowest times off by a factor of {told}")
    names = ", ".join(_WORDS.get(name, name) for name in found.beyond)
    beyond = f"; beyond them in {names}" if names else ""
    count = found.num_peptides
    return f"confidence: {', '.join(parts)}, by {count} measured peptides{beyond}"


def _interval(
    values: tuple[float, float, float], digits: int, most: float = math.inf
) -> str:
    """Returns an estimate with its interval in words, cut at a largest value.

    >>> _interval((1.2, 1.05, 1.5), 3), _interval((148.0, 90.0, 148.0), 3, 100.0)
    ('1.2 (1.05 to 1.5)', '100 or more')
    """
    if values[0] >= most:
        return f"{most:g} or more"
    middle, low, high = (f"{min(value, most):.{digits}g}" for value in values)
    return f"{middle} ({low} to {high}{' or more' if values[2] >= most else ''})"


def to_json(found: Estimate | None) -> dict[str, Any] | None:
    """Returns an estimate as `sample.json` has it."""
    if found is None:
        return None
    ends = ("estimate", "low", "high")
    interval = lambda x: None if x is None else dict(zip(ends, x, strict=True))
    return {
        "js": interval(found.js),
        "time_factor": interval(found.time_factor),
        "coverage": COVERAGE,
        "beyond": list(found.beyond),
        "num_peptides": found.num_peptides,
    }


def of_json(record: Mapping[str, Any]) -> Estimate:
    """Returns an estimate from what `to_json` made of it.

    >>> one = Estimate((0.012, 0.008, 0.02), None, ("length",), 42)
    >>> of_json(to_json(one)) == one
    True
    """
    ends = ("estimate", "low", "high")
    interval = lambda x: None if x is None else tuple(float(x[end]) for end in ends)
    return Estimate(
        js=interval(record["js"]),
        time_factor=interval(record["time_factor"]),
        beyond=tuple(map(str, record["beyond"])),
        num_peptides=int(record["num_peptides"]),
    )


def write(calibration: Calibration, weights_sha256: str) -> dict[str, Any]:
    """Returns a calibration as JSON values, see `read`."""
    errors = {name: line._asdict() for name, line in calibration.errors.items()}
    return {
        "format_version": FORMAT_VERSION,
        "weights_sha256": weights_sha256,
        "coverage": COVERAGE,
        **calibration._asdict(),
        "errors": errors,
    }


def read(folder: Path, weights_sha256: str) -> Calibration | None:
    """Returns the calibration beside weights; None where there is none of them.

    Args:
        folder: folder of the weights.
        weights_sha256: checksum of the parameters that it must be of.

    Raises:
        UsageError: The file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    what = "a calibration by benchmarks.confidence"
    record = reading.read_json(path, what)
    with reading.refusing(path, what):
        if record["format_version"] != FORMAT_VERSION:
            raise ValueError(f"version {record['format_version']}")
        if record["weights_sha256"] != weights_sha256:
            logging.warning(
                "%s: of other weights, and left out; write it anew by "
                "benchmarks.confidence", path,
            )  # fmt: skip
            return None
        return _of_json(record)


def _of_json(record: Mapping[str, Any]) -> Calibration:
    names = tuple(map(str, record["features"]))
    columns = [tuple(map(float, record[name])) for name in ("means", "spreads")]
    ranges = tuple((float(low), float(high)) for low, high in record["ranges"])
    errors = {
        name: Line(
            float(line["offset"]),
            tuple(map(float, line["slopes"])),
            float(line["low"]),
            float(line["high"]),
        )
        for name, line in record["errors"].items()
    }
    sizes = {len(ranges), *map(len, columns), *(len(x.slopes) for x in errors.values())}
    if sizes != {len(names)} or not set(names) <= set(FEATURES):
        raise ValueError(f"features {', '.join(names)}")
    lag, count = float(record["lag"]), int(record["num_peptides"])
    return Calibration(lag, count, names, *columns, ranges, errors)
