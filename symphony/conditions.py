"""Conditions of Symphony's networks: those read from files, those that a user gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections

from common.errors import UsageError
from common.nn.conditions import CONDITIONS, Known


def names_of(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the conditions that the network of a config is given.

    Raises:
        UsageError: A name is no row of `CONDITIONS`.
    """
    # Only some kinds of model take conditions.
    names = tuple(config.model.conditions) if "conditions" in config.model else ()
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise UsageError(
            f"config.model.conditions: expected some of {', '.join(CONDITIONS)}; "
            f"found {unknown[0]!r}"
        )
    return names


def names_read(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns those of `names_of` that readers take from files."""
    return tuple(name for name in names_of(config) if CONDITIONS[name].is_read)


def parse(texts: Sequence[str]) -> dict[str, float]:
    """Returns the numbers of flags of the form `name=number`.

    Raises:
        UsageError: A text has another form, or a name comes twice.

    >>> parse(["gap=6.5"])
    {'gap': 6.5}
    """
    values: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(
                f"--condition: expected name=number, found {text!r}"
            ) from error
        if name in values:
            raise UsageError(f"--condition: expected {name} once, found it twice")
        values[name] = value
    return values


def check(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Raises `UsageError` for a condition that weights do not have, or out of range.

    Args:
        given: numbers by name.
        names: names of the conditions that the network has.
        what: name of the weights, for messages.
    """
    for name, value in given.items():
        if name not in names:
            known = f"one of {', '.join(names)}" if names else "no condition"
            raise UsageError(
                f"--condition: expected {known}, as {what} was trained, found {name}; "
                "leave it out, or choose other weights by --checkpoint"
            )
        row = CONDITIONS[name]
        if not row.low <= value <= row.high:
            raise UsageError(
                f"--condition: expected {name} of {row.low:g} to {row.high:g} "
                f"{row.unit}, found {value:g}"
            )


def some_known(given: Mapping[str, float], names: Sequence[str]) -> dict[str, Known]:
    """Returns all conditions of a network, those that are not given as unknown.

    >>> some_known({"gap": 6.5}, ("gap", "temperature"))["temperature"].mask
    Array(False, dtype=bool)
    """
    return {
        name: Known(jnp.float32(given.get(name, 0.0)), jnp.array(name in given))
        for name in names
    }
