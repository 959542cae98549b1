"""Old runs and weights in today's names: one table for configs and parameters.

It is applied where checkpoints and packaged weights are read, nowhere else. A row
applies once the default config of its kind has the new field, or lacks the old one.
Who adds a field to a default config adds a row; without one, old runs are refused.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import ml_collections

from common import __version__
from common.errors import UsageError
from common.runs import config as configs

SYMPHONY = ("symphony", "paper", "denoiser")
ALL = (*SYMPHONY, "energy", "equijump")


class Added(NamedTuple):
    """A field that configs did not have, with the value that means "as before"."""

    kinds: tuple[str, ...]
    field: str
    value: Any


class Renamed(NamedTuple):
    """A field with another name, and the new value for each old one; None keeps all."""

    kinds: tuple[str, ...]
    field: str
    new: str
    values: Mapping[Any, Any] | None = None


class Removed(NamedTuple):
    """A field that went, the value that is still served, and who serves the others.

    Attributes:
        kinds: kinds of model that had it.
        field: full name.
        value: value that means "as today".
        version: last version of this package that knew others.
    """

    kinds: tuple[str, ...]
    field: str
    value: Any
    version: str


class Moved(NamedTuple):
    """A part of the paths of parameters that has another name.

    Attributes:
        kinds: kinds of model that had it.
        pattern: regular expression of the part.
        new: new name; None if the parameter went.
        splits: true if each row of an array is one of its own, `<new>_<row>`.
        sign: part that some path has if names are old; none where empty.
    """

    kinds: tuple[str, ...]
    pattern: str
    new: str | None
    splits: bool = False
    sign: str = ""


FIELDS: tuple[Added | Renamed | Removed, ...] = (
    Renamed(
        ("equijump",),
        "model.has_temperature",
        "model.conditions",
        {False: ("lag",), True: ("lag", "temperature")},
    ),
    Renamed(("equijump",), "data.trajectories", "data.sources"),
    Removed(("symphony",), "model.causal", True, "0.1.0"),
    Removed(("symphony",), "model.learned_stop", True, "0.1.0"),
    Removed(("equijump",), "loss.bond_weight", 0.0, "0.1.0"),
    Removed(("equijump",), "loss.clash_weight", 0.0, "0.1.0"),
    Added(("symphony",), "model.conditions", ("noise_std",)),
    Added(("equijump",), "model.conditions", ("lag",)),
    Added(("equijump",), "model.cloud", "ca"),
    Added(("equijump",), "model.refresh_neighbours", False),
    Added(("symphony", "denoiser"), "model.block", "symphony"),
    Added(("equijump",), "model.block", "equijump"),
    Added(("symphony", "denoiser", "equijump"), "model.product", "scalar"),
    Added(SYMPHONY, "train.start_from", ""),
    Added(ALL, "train.loggers", ()),
    Added(("symphony",), "model.num_neighbors", 0),
    Added(SYMPHONY, "data.mixed", ()),
    Added(("symphony",), "data.properties", ()),
    Added(("symphony",), "data.labelled_only", False),
    Added(("equijump",), "data.ensemble_share", 0.0),
    Added(("equijump",), "data.num_clusters", 0),
    Added(("equijump",), "loss.alignment", "single"),
    Added(("equijump",), "loss.unroll", 0),
    Added(("equijump",), "loss.median_level", 0.0),
    Added(("equijump",), "model.refinements", 0),
    Added(("equijump",), "sample.repulsion", 0.0),
    Added(("equijump",), "data.select", ""),
    Added(("equijump",), "data.weights", ()),
    Added(("equijump",), "data.split", "trajectory"),
    Added(("equijump",), "data.identity", 0.4),
    Added(("equijump",), "data.crop", 0),
    Added(("equijump",), "data.crop_kind", "sequence"),
    Added(("equijump",), "model.residue_types", 22),
    Added(ALL, "train.shard_parameters", False),
)

PARAMS = (
    Moved(("denoiser",), r"TrunkLayer_(\d+)", r"layers_\1"),
    Moved(("symphony",), r"embed_noise", r"embed_conditions/noise_std"),
    Moved(("equijump",), r"embed_(lag|temperature)", r"embed_conditions/\1"),
    Moved(("equijump",), r"last/kernel_0", None),
    Moved(
        ("paper",),
        r"(focus_blocks_\d+)/Linear_1",
        r"\1/Linear_2",
        sign=r"focus_blocks_0/Dense_0",
    ),
    Moved(
        ("paper",), r"(focus_blocks_\d+)/Dense_(\d+)/kernel", r"\1/Linear_1/kernel_\2"
    ),
    Moved(
        ("paper",),
        r"(position_blocks_\d+)/DegreeLinear_(\d+)/kernel",
        r"\1/Linear_\2/kernel",
        splits=True,
    ),
    Moved(
        ("paper",),
        r"(position_linear_\d+|signal_linear)/kernel",
        r"\1/kernel",
        splits=True,
    ),
)

Value = TypeVar("Value")


def update_config(
    config: ml_collections.ConfigDict, source: str, version: str, resumes: bool = False
) -> ml_collections.ConfigDict:
    """Returns a stored config with the fields of today; of an unknown kind, as it is.

    >>> config = configs.default_of("equijump")
    >>> del config.loss.alignment
    >>> update_config(config, "workdir/old", "0.1.0").loss.alignment
    'single'

    Args:
        config: config as it was stored.
        source: place where it was stored, for the message of an error.
        version: version of this package that wrote it.
        resumes: true if training goes on with it, so that a removed field outside of
            the model matters too.

    Raises:
        UsageError: It has a value that this version cannot serve, or lacks one.
    """
    kind = configs.kind_of(config)
    if kind is None:
        return config
    default = configs.flat(configs.default_of(kind))
    values = configs.flat(config)
    for row in FIELDS:
        if kind in row.kinds:
            _apply(row, values, default, source, resumes)
    if resumes and version == "0.1.0" and values.get("data.ensemble_share"):
        raise UsageError(
            f"{source}: expected config.data.ensemble_share = 0, since hidden sources "
            f"are encoded anew, found {values['data.ensemble_share']:g}; version "
            f"{version} reads it"
        )
    for name in default.keys() - values.keys():
        raise UsageError(
            f"{source}: expected config.{name}, which version {__version__} needs, "
            f"found none; version {version} reads it"
        )
    for name, value in default.items():
        if wanted := configs.wanted_type(values[name], value):
            raise UsageError(
                f"{source}: expected config.{name} as {wanted}, found {values[name]!r}"
            )
    return _nested(values)


def _apply(
    row: Added | Renamed | Removed,
    values: dict[str, Any],
    default: Mapping[str, Any],
    source: str,
    resumes: bool,
) -> None:
    """Applies one row to the values of a config, by their full names."""
    if isinstance(row, Added):
        if row.field in default:
            values.setdefault(row.field, row.value)
    elif row.field in default or row.field not in values:
        return
    elif isinstance(row, Renamed):
        if row.new in default:
            value = values.pop(row.field)
            values[row.new] = value if row.values is None else row.values[value]
    else:
        found = values.pop(row.field)
        if found != row.value and (resumes or row.field.startswith("model.")):
            raise UsageError(
                f"{source}: expected config.{row.field} = {row.value}, found {found}; "
                f"version {row.version} reads it"
            )


def _nested(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns a config from values by their full names."""
    nested = ml_collections.ConfigDict()
    for name, value in values.items():
        *groups, last = name.split(".")
        node = nested
        for group in groups:
            if group not in node:
                node[group] = ml_collections.ConfigDict()
            node = node[group]
        node[last] = value
    return nested


def update_paths(kind: str | None, arrays: Mapping[str, Value]) -> dict[str, Value]:
    """Returns arrays under the paths that the parameters of a kind have today.

    >>> update_paths("denoiser", {"params/TrunkLayer_2/kernel": 0})
    {'params/layers_2/kernel': 0}

    Args:
        kind: kind of model, see `common.runs.config.kind_of`.
        arrays: arrays by path, as `params/Dense_0/kernel`.
    """
    found = dict(arrays)
    for row in PARAMS:
        if kind in row.kinds:
            found = _move(row, found)
    return found


def _move(row: Moved, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Applies one row to arrays by path."""
    part, sign = (
        re.compile(rf"(?<![^/])(?:{text})(?![^/])") for text in (row.pattern, row.sign)
    )
    found: dict[str, Any] = {}
    is_old = not row.sign or any(map(sign.search, arrays))
    for path, array in arrays.items():
        if not is_old or not part.search(path):
            found[path] = array
        elif row.splits:
            new = part.sub(row.new, path)
            found |= {f"{new}_{index}": own for index, own in enumerate(array)}
        elif row.new is not None:
            found[part.sub(row.new, path)] = array
    return found
