"""Configs of experiments: found by their name, and checked before a run.

A config is a Python file with `get_config()`. Those of a package lie in
`configs/<package>` of a checkout and in `<package>/configs` of an installed wheel.
"""

import difflib
import importlib.util
import math
import numbers
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from common.errors import UsageError

DEFAULTS = {
    "symphony": ("symphony", "qm9_cpu"),
    "paper": ("symphony", "qm9_paper"),
    "denoiser": ("symphony", "refine_qm9"),
    "energy": ("symphony", "energy_qm9"),
    "equijump": ("equijump", "ala2"),
}
"""Package and name of the default config of each kind of model. It has every field."""


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float = math.inf


class Rules(NamedTuple):
    """What the values of a config must be, beside their types.

    Attributes:
        values: range or choices of fields, by name; `*` in a name stands for anything.
            The rule of a field with several values holds for each of them.
        across: functions that raise `UsageError` if values do not go together.
    """

    values: Mapping[str, Range | tuple[str, ...]]
    across: tuple[Callable[[ml_collections.ConfigDict], None], ...] = ()


def path_of(package: str, name: str) -> Path:
    """Returns the file of a config.

    >>> path_of("equijump", "ala2").name
    'ala2.py'

    Args:
        package: `symphony` or `equijump`.
        name: name of the config, as `qm9_cpu`.

    Raises:
        UsageError: The package has no such config.
    """
    root = Path(__file__).parents[2]
    folders = root / package / "configs", root / "configs" / package
    known = {path.stem: path for folder in folders for path in folder.glob("*.py")}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" (perhaps {near[0]})" if near else ""
        raise UsageError(
            f"--config: expected the path of a .py file or one of "
            f"{', '.join(sorted(known))}{meant}, found {name}"
        )
    return known[name]


def find(package: str, name: str) -> ModuleType:
    """Returns a config's module, from which another config may start.

    >>> find("equijump", "ala2").get_config().seed
    0
    """
    path = path_of(package, name)
    spec = importlib.util.spec_from_file_location(f"{package}_config_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kind_of(config: ml_collections.ConfigDict) -> str | None:
    """Returns the kind of model that a config describes, None if it is not known.

    >>> kind_of(ml_collections.ConfigDict({"transport": {}}))
    'equijump'
    """
    if "kind" in config:
        return config.kind if config.kind in DEFAULTS else None
    return "equijump" if "transport" in config else None


def default_of(kind: str) -> ml_collections.ConfigDict:
    """Returns the default config of a kind of model.

    >>> default_of("denoiser").kind
    'denoiser'
    """
    return find(*DEFAULTS[kind]).get_config()


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the values of a config by their full names.

    >>> flat(ml_collections.ConfigDict({"seed": 0, "train": {"num_steps": 3}}))
    {'seed': 0, 'train.num_steps': 3}
    """

    def walk(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        parts = (walk(v, f"{name}.{k}" if name else k) for k, v in value.items())
        return {key: item for part in parts for key, item in part.items()}

    return walk(config.to_dict(), "")


def check(
    config: ml_collections.ConfigDict, default: ml_collections.ConfigDict, rules: Rules
) -> None:
    """Compares a config with the default one of its kind, and its values with rules.

    >>> default = ml_collections.ConfigDict({"num_steps": 1, "rate": 0.1})
    >>> check(default, default, Rules({"rate": Range(0.0, 1.0)}))

    Args:
        config: config of a run.
        default: config with the same fields, and values of the same types.
        rules: rules of the kind of model.

    Raises:
        UsageError: A field is missing or unknown, or a value cannot be used.
    """
    found, expected = flat(config), flat(default)
    for name in found.keys() - expected.keys():
        near = difflib.get_close_matches(name, expected, n=1)
        meant = f" (perhaps config.{near[0]})" if near else ""
        raise UsageError(f"config.{name}: expected a known field{meant}, found {name}")
    for name, value in expected.items():
        if name not in found:
            raise UsageError(
                f"config.{name}: expected a value, such as {value!r}, found none"
            )
        _check_value(name, found[name], value, rules)
    for rule in rules.across:
        rule(config)


def _check_value(name: str, value: Any, default: Any, rules: Rules) -> None:
    """Raises `UsageError` if a value is of another type or against a rule."""
    wanted = wanted_type(value, default)
    for pattern, rule in rules.values.items():
        if wanted is None and fnmatchcase(name, pattern):
            items = value if isinstance(value, tuple | list) else (value,)
            wanted = next(filter(None, (_wanted(item, rule) for item in items)), None)
    if wanted is not None:
        raise UsageError(f"config.{name}: expected {wanted}, found {value}")


def wanted_type(value: Any, default: Any) -> str | None:
    """Returns what a value should be, None if it is of the default's type.

    >>> wanted_type(0.5, 2), wanted_type(3, 2)
    ('a whole number', None)

    Args:
        value: value of a config.
        default: value of the same field in the default config.
    """
    if isinstance(default, tuple | list):
        if not isinstance(value, tuple | list):
            return "several values"
        pairs = ((item, first) for item in value for first in default[:1])
        found = next(filter(None, (wanted_type(*pair) for pair in pairs)), None)
        return found and f"several values, each {found}"
    if isinstance(default, bool) or not isinstance(default, numbers.Real):
        of_type = isinstance(value, type(default))
        known = _TYPES.get(type(default), f"a {type(default).__name__}")
        return None if of_type else f"{known}, as {default!r}"
    whole = isinstance(default, numbers.Integral)
    is_number = isinstance(value, numbers.Integral if whole else numbers.Real)
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
        return "a whole number" if whole else "a finite number"
    return None


_TYPES = {bool: "True or False", str: "a text"}


def _wanted(value: Any, rule: Range | tuple[str, ...]) -> str | None:
    """Returns what a value should be, None if the rule allows it."""
    if not isinstance(rule, Range):
        return None if value in rule else f"one of {', '.join(filter(None, rule))}"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return "a number"
    if rule.low <= value <= rule.high:
        return None
    return f"{rule.low:g} {'or more' if rule.high == math.inf else f'to {rule.high:g}'}"
