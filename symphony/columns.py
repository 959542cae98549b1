"""Numeric columns of files as conditions of a network: `config.data.properties`.

A network sees standard scores: a number less the mean over the training molecules, by
their standard deviation. Checkpoints keep both, with unit and range.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from common.errors import UsageError
from common.nn.conditions import Known
from symphony import conditions
from symphony.arrays import RandomKey
from symphony.data.molecules import Molecules, select
from symphony.data.words import shown

SHARE_NONE, SHARE_ALL = 0.1, 0.45
"""Shares of training molecules of which no property is shown, and of which all are; of
the others each is shown with probability 1/2."""

META = "properties"
"""Entry of a checkpoint's metadata."""


class Column(NamedTuple):
    """A column of the training molecules, in the unit of their file.

    Attributes:
        name: name in the file.
        unit: unit that the file states; empty if it states none.
        mean: mean over the training molecules that have a value.
        std: their standard deviation.
        low: 1 % of them are below.
        high: 1 % of them are above.
        num_known: how many they are.
    """

    name: str
    unit: str
    mean: float
    std: float
    low: float
    high: float
    num_known: int


def names_of(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the columns that the network of a config is conditioned on.

    >>> names_of(ml_collections.ConfigDict({"data": {"properties": ("gap",)}}))
    ('gap',)
    """
    return tuple(config.data.properties) if "properties" in config.data else ()


def check_names(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for names that no column can have, or that come twice."""
    names = names_of(config)
    taken = {"name", "units", "noise_std", *conditions.names_of(config)}
    for place, name in enumerate(names):
        is_word = name.isprintable() and not {*name} & {*"=<> \t\"'"}
        if not (name and is_word) or name in names[:place] or name in taken:
            raise UsageError(
                "config.data.properties: expected names of numeric columns, each once "
                f"and none of config.model.conditions, found {name!r}"
            )


def measure(molecules: Molecules, names: Sequence[str], source: str) -> list[Column]:
    """Returns the columns of training molecules.

    Args:
        molecules: training molecules, with their properties.
        names: names of the columns.
        source: file of the molecules, for messages.

    Raises:
        UsageError: Fewer than two molecules have a value, or all have the same.
    """
    columns = []
    for name in names:
        values = molecules.properties[name].astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values) < 2 or np.ptp(values) == 0.0:
            others = f"{len(values)} numbers" if len(values) < 2 else f"{values[0]:g}"
            raise UsageError(
                f"{source}: expected different numbers in the column {name} of "
                f"config.data.properties, found {others} alone"
            )
        low, high = np.percentile(values, [1.0, 99.0])
        unit = molecules.units.get(name, "")
        numbers = map(float, (values.mean(), values.std(), low, high))
        columns.append(Column(name, unit, *numbers, len(values)))
    return columns


def keep_labelled(config: ml_collections.ConfigDict, molecules: Molecules) -> Molecules:
    """Returns the molecules that a run learns from.

    With `config.data.labelled_only`, those that have a value of some property; else
    all.

    Raises:
        UsageError: None has.
    """
    names = names_of(config)
    if not (names and config.data.labelled_only):
        return molecules
    known = [np.isfinite(molecules.properties[name]) for name in names]
    labelled = np.any(known, axis=0)
    if not labelled.any():
        raise UsageError(
            f"{config.data.path}: expected values of {shown(names)}, as "
            "config.data.labelled_only asks, found none"
        )
    return select(molecules, np.flatnonzero(labelled))


def standardise(molecules: Molecules, columns: Sequence[Column]) -> Molecules:
    """Returns molecules with standard scores in the place of some columns."""
    scores = {
        one.name: np.float32((molecules.properties[one.name] - one.mean) / one.std)
        for one in columns
    }
    return molecules._replace(properties={**molecules.properties, **scores})


def to_meta(columns: Sequence[Column]) -> dict[str, Any]:
    """Returns the entry of a checkpoint's metadata; none without columns.

    >>> to_meta([])
    {}
    """
    return {META: [one._asdict() for one in columns]} if columns else {}


def from_meta(
    meta: Mapping[str, Any], config: ml_collections.ConfigDict
) -> tuple[Column, ...]:
    """Returns the columns that weights were trained with.

    Raises:
        ValueError: The metadata does not have those of the config.
    """
    columns = tuple(Column(**row) for row in meta.get(META, ()))
    if tuple(one.name for one in columns) != names_of(config):
        raise ValueError(
            f"no {META} in the metadata for those of config.data.properties "
            f"({shown(names_of(config))})"
        )
    return columns


def hide(
    key: RandomKey, given: Mapping[str, Known], names: Sequence[str]
) -> dict[str, Known]:
    """Hides some properties of a training molecule; see `SHARE_NONE`.

    So the network learns the law for any subset of them, also for none. What is hidden
    stays to be foreseen, under the name that `truth_of` gives.

    Args:
        key: key of the draw.
        given: conditions of the molecule; the unlabelled ones are hidden already.
        names: names of the properties.
    """
    key_all, key_each = jax.random.split(key)
    coin = jax.random.uniform(key_all)
    each = jax.random.bernoulli(key_each, 0.5, (len(names),))
    is_shown = jnp.where(coin < SHARE_NONE + SHARE_ALL, coin >= SHARE_NONE, each)
    found = dict(given)
    for name, mask in zip(names, is_shown, strict=True):
        found[name] = Known(given[name].value, given[name].mask & mask)
        found[truth_of(name)] = given[name]
    return found


def truth_of(name: str) -> str:
    """Returns the name under which `hide` keeps what the file states of a property.

    >>> truth_of("gap")
    'true gap'
    """
    return f"true {name}"


def truths(given: Mapping[str, Known], names: Sequence[str]) -> dict[str, Known]:
    """Returns what the file states of a molecule, whether any of it is hidden or not.

    >>> truths({"gap": Known(jnp.ones(()), jnp.array(True))}, ["gap"])["gap"].value
    Array(1., dtype=float32)
    """
    return {name: given.get(truth_of(name), given[name]) for name in names}
