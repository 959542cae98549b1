"""Trained weights by the name of a packaged model or by the folder of a run."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from common import __version__
from common.commands import reading
from common.commands.environment import check_platform
from common.errors import UsageError
from common.runs import checkpoints
from common.runs import config as configs
from common.runs.training import named_leaves

Model = TypeVar("Model")


class Trained(NamedTuple):
    """What is known of a trained model before its network is made.

    Attributes:
        name: name as the user gave it.
        path: folder found.
        config: config of the run.
        params: averaged parameters.
        meta: metadata as given to `checkpoints.save`.
        checksum: SHA-256 of the parameters, by name and in float32.
        config_checksum: SHA-256 of the config.
    """

    name: str
    path: Path
    config: ml_collections.ConfigDict
    params: Any
    meta: dict[str, Any]
    checksum: str
    config_checksum: str


def load(
    name_or_path: str | os.PathLike[str],
    packaged: Path,
    kinds: Sequence[str],
    flag: str = "--checkpoint",
) -> Trained:
    """Loads packaged weights by their name, or any by the path of their folder.

    A name without a separator that is packaged means the packaged weights, even where
    a folder of that name lies in the current one.

    >>> import tempfile
    >>> config = configs.default_of("equijump")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine")
    ...     checkpoints.save_packaged(path, {"bias": jnp.zeros(2)}, config, {"step": 3})
    ...     trained = load("mine", Path(folder), kinds=["equijump"])
    >>> trained.name, trained.meta["step"]
    ('mine', 3)

    Args:
        name_or_path: name as `qm9`, or path as `workdir/qm9`.
        packaged: folder with a folder for each packaged model.
        kinds: kinds of model that will do, see `common.runs.config.DEFAULTS`.
        flag: flag that the user gave it to, for the message of an error.

    Raises:
        UsageError: There is nothing of that name, or it cannot be read.
    """
    path = locate(name_or_path, packaged, flag)
    check_platform()
    stored = checkpoints.load_stored(path)
    kind = configs.kind_of(stored.config)
    if kind not in kinds:
        raise UsageError(
            f"{flag}: expected weights of kind {' or '.join(kinds)}, found "
            f"{kind or 'another kind'} in {name_or_path}; give others, or leave "
            f"{flag} out"
        )
    params = jax.device_put(stored.params)
    return Trained(str(name_or_path), path, *stored._replace(params=params))


def build(trained: Trained, make: Callable[[Trained], Model]) -> Model:
    """Returns what `make` builds of trained weights.

    >>> config = ml_collections.ConfigDict({"width": 8})
    >>> trained = Trained("mine", Path("mine"), config, {}, {}, "", "")
    >>> build(trained, lambda trained: trained.config.width)
    8

    Raises:
        UsageError: Its network cannot be built, or the metadata lacks a value.
    """
    what = f"the config and the metadata of a trained {configs.kind_of(trained.config)}"
    with reading.refusing(trained.path, f"{what} model"):
        return make(trained)


def adopt(fresh: Any, given: Any, source: str) -> Any:
    """Returns fresh parameters with the given ones in their places.

    Those that the network has beyond the given ones stay fresh, and are named.

    >>> fresh = {"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))}
    >>> adopt(fresh, {"bias": jnp.ones(2)}, "others")["bias"].tolist()
    [1.0, 1.0]

    Args:
        fresh: parameters of the network that is trained.
        given: parameters to start from.
        source: name of the given ones.

    Raises:
        UsageError: The given parameters are of another network.
    """
    ours, theirs = (dict(named_leaves(tree)) for tree in (fresh, given))
    for path, leaf in sorted(theirs.items()):
        expected = f"of shape {ours[path].shape}" if path in ours else "absent"
        if expected != f"of shape {leaf.shape}":
            raise UsageError(
                "config.train.start_from: expected the network of config.model, with "
                f"{path} {expected}, found {leaf.shape} in {source}"
            )
    added = ", ".join(sorted(ours.keys() - theirs.keys()))
    if added:
        logging.warning("not in the weights of %s, and fresh: %s", source, added)
    logging.info("starting from the weights of %s", source)
    leaves = [jnp.asarray((ours | theirs)[path]) for path in ours]
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves)


def locate(
    name_or_path: str | os.PathLike[str], packaged: Path, flag: str = "--checkpoint"
) -> Path:
    """Returns the folder of packaged weights or of a run; see `load`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(locate(folder, Path("pretrained")) == Path(folder))
    True
    """
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
    """Returns the versions that a result depends on, by name.

    >>> list(versions("symphony", "numpy"))
    ['symphony', 'python', 'numpy']
    """
    return {
        program: __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def check_same(
    path: Path, begun: dict[str, Any], wanted: dict[str, Any], free: frozenset[str]
) -> None:
    """Raises `UsageError` at the first setting that differs from an earlier command's.

    >>> check_same(Path("out.sdf"), {"seed": 1}, {"seed": 1}, frozenset())

    Args:
        path: file that the earlier command wrote, for the message.
        begun: JSON values with which it was begun.
        wanted: values of this command.
        free: names that may differ.
    """
    for name, was, now in reading.differences(begun, wanted, free):
        raise UsageError(
            f"{path}: was begun with {name} = {was}, found {now}; give --overwrite or "
            "another --output"
        )
