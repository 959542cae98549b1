"""Properties asked of molecules: `--property`, `--guidance` and `--candidates`.

Numbers are in the unit of the column that the weights were trained on.
"""

import itertools
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32

from common.errors import UsageError
from symphony.columns import META, Column
from symphony.records import Sample
from symphony.weights import PRETRAINED, Weights

Range = tuple[float, float]
Asked = dict[str, Range]
"""Lowest and highest target by name of property; twice the same for one number."""

MOST_GUIDANCE, MOST_CANDIDATES = 100.0, 1000
GOOD_GUIDANCE = "1: the conditional law; 1.5 to 3: closer to the targets, fewer valid"


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Returns the words of flags of the form `name=number` or `name=low:high`.

    Raises:
        UsageError: A text has another form, or a name comes twice.

    >>> parse(["gap=0.25", "logP=2:3"])
    {'gap': '0.25', 'logP': '2:3'}
    """
    words: dict[str, str] = {}
    for text in texts:
        name, equals, word = text.partition("=")
        if not equals or not name or not word:
            raise UsageError(
                f"--property: expected name=number or name=low:high, found {text!r}"
            )
        if name in words:
            raise UsageError(f"--property: expected {name} once, found it twice")
        words[name] = word
    return words


def read(
    given: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    guidance: float,
    weights: Weights,
    candidates: int = 1,
) -> tuple[tuple[Asked, ...], float, int]:
    """Checks the properties that are asked for.

    Args:
        given: a number, a pair of numbers or a word as `2:3`, by name; or several of
            them, of the same names, which molecules have in turn.
        guidance: strength of guidance, see `symphony.guidance`.
        weights: trained model.
        candidates: draws for each molecule, see `nearest`.

    Raises:
        UsageError: A name is unknown, or a number is none.
    """
    if not 0.0 <= guidance <= MOST_GUIDANCE:
        raise UsageError(
            f"--guidance: expected 0 to {MOST_GUIDANCE:g} ({GOOD_GUIDANCE}), found "
            f"{guidance:g}"
        )
    if not 1 <= candidates <= MOST_CANDIDATES:
        raise UsageError(
            f"--candidates: expected 1 to {MOST_CANDIDATES}, found {candidates}"
        )
    several = [given] if isinstance(given, Mapping) else list(given or ())
    asked = tuple(_read_one(one, weights) for one in several if one)
    if any(one.keys() != asked[0].keys() for one in asked):
        raise UsageError(
            "--property: expected the same properties of every molecule, found others "
            "of some"
        )
    steers = {"--guidance": guidance != 1.0, "--candidates": candidates != 1}
    for flag in (flag for flag, is_given in steers.items() if is_given and not asked):
        raise UsageError(
            f"{flag}: expected --property beside it, found none; {_expected(weights)}"
        )
    return asked, float(guidance), int(candidates)


def _read_one(given: Mapping[str, Any], weights: Weights) -> Asked:
    known = {one.name: one for one in weights.columns}
    asked = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"--property: {_expected(weights)}, found {name}")
        asked[name] = _range_of(name, value)
        _warn_outside(known[name], asked[name])
    return asked


def _expected(weights: Weights) -> str:
    """Returns the properties that weights know, in words."""
    if not weights.columns:
        return (
            f"expected no property, as {weights.name} was trained without any; choose "
            "other weights by --checkpoint"
        )
    return f"expected one of {', '.join(map(describe, weights.columns))}"


def describe(column: Column) -> str:
    """Returns a column in words: name, unit and range.

    >>> describe(Column("gap", "eV", 5.0, 1.0, 2.5, 8.25, 100))
    'gap (eV, 2.5 to 8.25)'
    """
    unit = f"{column.unit}, " if column.unit else ""
    return f"{column.name} ({unit}{column.low:.4g} to {column.high:.4g})"


def packaged() -> str:
    """Returns the properties of packaged weights, in words for a help."""
    found = []
    for path in sorted(PRETRAINED.glob("*/config.json")):
        stored = json.loads(path.read_text("utf-8"))
        rows = stored.get("meta", {}).get(META, ())
        words = ", ".join(describe(Column(**row)) for row in rows)
        found += [f"{path.parent.name}: {words}"] if words else []
    return "; ".join(found) or "none"


def _range_of(name: str, value: Any) -> Range:
    words = value.split(":") if isinstance(value, str) else np.ravel(value).tolist()
    try:
        numbers = [float(word) for word in words]
    except (TypeError, ValueError):
        numbers = []
    pair = (numbers * 2)[:2] if len(numbers) == 1 else numbers
    if len(pair) != 2 or not all(map(math.isfinite, pair)) or pair[0] > pair[1]:
        raise UsageError(
            f"--property: expected {name} as a number or as low:high, found {value!r}"
        )
    return pair[0], pair[1]


def _warn_outside(column: Column, asked: Range) -> None:
    low, high = asked
    if low < column.low or high > column.high:
        found = f"{low:g}" if low == high else f"{low:g}:{high:g}"
        logging.warning(
            "--property: %s=%s is not within 1 to 99 %% of the training data, %s; "
            "expect little of it",
            column.name, found, describe(column),
        )  # fmt: skip


def targets_of(asked: Sequence[Asked], seed: int, index: int) -> dict[str, float]:
    """Returns the targets of a molecule: of a range, uniform in it.

    Each is a function of its own name, the seed and the index of the molecule.

    >>> targets_of([{"gap": (0.25, 0.25)}], seed=0, index=3)
    {'gap': 0.25}
    """
    found = {}
    own = asked[index % len(asked)] if asked else {}
    for name, (low, high) in own.items():
        rng = np.random.default_rng((seed, index, zlib.crc32(name.encode())))
        found[name] = float(f"{low + (high - low) * rng.random():.6g}")
    return found


def scores_of(
    targets: Mapping[str, float], columns: Sequence[Column]
) -> Float32[np.ndarray, " num_properties"]:
    """Returns the targets as standard scores, zero where there is none."""
    scores = [
        (targets[one.name] - one.mean) / one.std if one.name in targets else 0.0
        for one in columns
    ]
    return np.array(scores, np.float32)


def values_of(
    scores: Float32[np.ndarray, " num_properties"] | None, columns: Sequence[Column]
) -> dict[str, float]:
    """Returns standard scores as numbers in the units of the columns.

    >>> values_of(np.float32([-1.0]), [Column("gap", "eV", 5.0, 2.0, 2.5, 8.25, 100)])
    {'gap': 3.0}
    """
    if scores is None:
        return {}
    pairs = zip(columns, scores, strict=True)
    return {one.name: round(one.mean + one.std * float(x), 4) for one, x in pairs}


def nearest(
    drawn: Iterable[Sample], candidates: int, columns: Sequence[Column]
) -> Iterator[Sample]:
    """Yields one of so many draws each: that foreseen nearest to its targets.

    Finished ones come before others. The distance is that of standard scores, over the
    properties that are asked for. No oracle is asked: what the network foresees of the
    whole molecule decides.

    Args:
        drawn: draws, those of a molecule one after another.
        candidates: draws for each molecule.
        columns: properties of the network.
    """
    iterator = iter(drawn)
    while group := list(itertools.islice(iterator, candidates)):
        best = min(group, key=lambda one: (not one.stopped, _distance(one, columns)))
        yield best._replace(index=group[0].index // candidates)


def _distance(one: Sample, columns: Sequence[Column]) -> float:
    stds = {column.name: column.std for column in columns}
    errors = [
        (one.forecast[name] - target) / stds[name]
        for name, target in one.targets.items()
    ]
    return math.hypot(*errors)
