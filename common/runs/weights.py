"""Trained weights by the name of a packaged model or by the folder of a run."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from common import __version__
from common.errors import UsageError
from common.runs import checkpoints


class Trained(NamedTuple):
    """What is known of a trained model before its network is made.

    Attributes:
        path: The folder found.
        config: The run's.
        params: Averaged parameters.
        meta: As given to `checkpoints.save`.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
    """

    path: Path
    config: ml_collections.ConfigDict
    params: Any
    meta: dict[str, Any]
    checksum: str
    config_checksum: str


def load(
    name_or_path: str | os.PathLike[str], packaged: Path, flag: str = "--checkpoint"
) -> Trained:
    """Loads packaged weights by their name, or any by the path of their folder.

    A name without a separator that is packaged means the packaged weights, even where
    a folder of that name lies in the current one.

    Args:
        name_or_path: As `qm9` or `workdir/qm9`.
        packaged: Folder with a folder for each packaged model.
        flag: What the user gave it to, for the message of an error.

    Raises:
        UsageError: There is nothing of that name, or it cannot be read.
    """
    path = locate(name_or_path, packaged, flag)
    config, params, meta = checkpoints.load_params(path)
    text = json.dumps(config.to_dict(), sort_keys=True)
    return Trained(
        path=path,
        config=config,
        params=jax.device_put(params),
        meta=meta,
        checksum=checkpoints.params_checksum(params),
        config_checksum=hashlib.sha256(text.encode()).hexdigest(),
    )


def locate(
    name_or_path: str | os.PathLike[str], packaged: Path, flag: str = "--checkpoint"
) -> Path:
    """Returns the folder of packaged weights or of a run; see `load`."""
    text = os.fspath(name_or_path)
    named = packaged / text
    if Path(text).name == text and (named / "weights.npz").is_file():
        return named
    if Path(text).is_dir():
        return Path(text)
    names = sorted(path.parent.name for path in packaged.glob("*/weights.npz"))
    raise UsageError(
        f"{flag}: expected the folder of a training run or packaged weights "
        f"({', '.join(names) or 'none are packaged'}), found neither at {text}"
    )


def versions(program: str, *libraries: str) -> dict[str, str]:
    """Returns the versions that a result depends on, by name."""
    return {
        program: __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def check_same(
    path: Path, begun: dict[str, Any], wanted: dict[str, Any], free: frozenset[str]
) -> None:
    """Raises `UsageError` at the first setting that differs from an earlier command's.

    Args:
        path: What the earlier command wrote, for the message.
        begun: JSON values with which it was begun.
        wanted: Those of this command.
        free: Names that may differ.
    """
    for name in [name for name in {**begun, **wanted} if name not in free]:
        was, now = begun.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            check_same(path, was, now, free)
        elif was != now:
            raise UsageError(
                f"{path}: was begun with {name} = {was}, found {now}; give "
                "--overwrite or another --output"
            )
