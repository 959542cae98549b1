"""What both models share of packaging the averaged weights of a run for others."""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_collections

from common.commands import cli
from common.commands.files import digest, sealed
from common.errors import RunError, UsageError


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """Returns the flags of a command that packages a run.

    >>> flags = ["--workdir=run", "--output=mine"]
    >>> parser("symphony package", "Packages weights.").parse_args(flags).which
    'best'

    Args:
        command: name as typed, `symphony package`.
        description: purpose of the command, for the head of its help.
    """
    parser = cli.argument_parser(command, description)
    parser.set_defaults(command=command)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="folder of the run")
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder to write, made if missing",
    )
    add(
        "--which",
        choices=("best", "latest"),
        default="best",
        help="checkpoint: of least validation loss, or the last one",
    )
    add("--half", action="store_true", help="store 16-bit floats, half the size")
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


def read(
    flags: argparse.Namespace,
) -> tuple[ml_collections.ConfigDict, Any, dict[str, Any]]:
    """Returns config, averaged parameters and metadata of the run in the flags.

    >>> import contextlib, tempfile
    >>> import jax.numpy as jnp
    >>> from common.runs.checkpoints import save_packaged
    >>> flags = ["--workdir=run", "--output=mine"]
    >>> flags = parser("symphony package", "Packages weights.").parse_args(flags)
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    ...     save_packaged(flags.workdir, {"bias": jnp.zeros(2)}, {}, {"step": 3})
    ...     print(read(flags)[2]["step"])
    3

    Raises:
        UsageError: There is no such run, or the output is the folder of one, or holds
            files of others.
    """
    from common.runs import checkpoints

    cli.check_platform()
    if (flags.output / "checkpoints").exists():
        raise UsageError(
            f"--output: expected a folder of its own, found the one of a run: "
            f"{flags.output}"
        )
    check(flags)
    return checkpoints.load_stored(flags.workdir, flags.which)[:3]


def check(flags: argparse.Namespace, *more: str) -> None:
    """Asks whether the files of a package may be written; makes nothing.

    Args:
        flags: flags of the command.
        more: names of files beside the weights.

    Raises:
        UsageError: There is a file of another origin, or one that was edited.
    """
    names = ("weights.npz", *more)
    others = [flags.output / name for name in names]
    cli.check_own(flags.command, flags.output / "config.json", others, flags.overwrite)


def write(
    flags: argparse.Namespace,
    config: ml_collections.ConfigDict,
    params: Any,
    meta: dict[str, Any],
    write_more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Writes `weights.npz` and `config.json`, and tells their size.

    >>> import contextlib, tempfile
    >>> import jax.numpy as jnp
    >>> flags = ["--workdir=run", "--output=mine"]
    >>> flags = parser("symphony package", "Packages weights.").parse_args(flags)
    >>> config = ml_collections.ConfigDict()
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    ...     # doctest: +ELLIPSIS
    ...     write(flags, config, {"bias": jnp.zeros(2)}, {"step": 3})
    mine: step 3, ... MB of weights

    Args:
        flags: flags of the command.
        config: config of the run.
        params: averaged parameters.
        meta: metadata of the checkpoint.
        write_more: function that writes further files into a folder.
    """
    from common.runs import checkpoints

    output = flags.output
    with cli.made_folder(output), cli.locked(output), _beside(output) as folder:
        checkpoints.save_packaged(folder, params, config, meta, flags.half)
        write_more(folder)
        files = sorted(path for path in folder.iterdir() if path.name != "config.json")
        record = json.loads((folder / "config.json").read_text("utf-8"))
        digests = {path.name: digest(path) for path in files}
        text = sealed(flags.command, "config.json", record, digests)
        for path in files:
            with cli.atomic_path(output / path.name) as partial:
                shutil.move(path, partial)
        with cli.atomic_path(output / "config.json") as partial:
            partial.write_text(text, "utf-8")
    size = (output / "weights.npz").stat().st_size
    sys.stdout.write(f"{output}: step {meta['step']}, {size / 1e6:.2g} MB of weights\n")


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """Yields a temporary folder; a disk that fills up leaves the output as it was."""
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial-") as folder:
        try:
            yield Path(folder)
        except RunError as error:
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or str(error)
            raise RunError(
                f"{output}: cannot be written ({reason}); what stood there before is "
                "as it was"
            ) from cause
