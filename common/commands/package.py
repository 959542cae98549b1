"""What both models share of packaging the averaged weights of a run for others."""

import argparse
import sys
from pathlib import Path
from typing import Any

import ml_collections

from common.commands import cli
from common.errors import UsageError


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
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="folder of the run")
    add("--output", type=Path, required=True, help="folder to write, made if missing")
    add(
        "--which",
        choices=("best", "latest"),
        default="best",
        help="checkpoint: of least validation loss, or the last one",
    )
    add("--half", action="store_true", help="store 16-bit floats, half the size")
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
        UsageError: There is no such run, or the output is the folder of one.
    """
    from common.runs import checkpoints

    if (flags.output / "checkpoints").exists():
        raise UsageError(
            f"--output: expected a folder of its own, found the one of a run: "
            f"{flags.output}"
        )
    return checkpoints.load_stored(flags.workdir, flags.which)[:3]


def write(
    flags: argparse.Namespace,
    config: ml_collections.ConfigDict,
    params: Any,
    meta: dict[str, Any],
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
    """
    from common.runs import checkpoints

    checkpoints.save_packaged(flags.output, params, config, meta, flags.half)
    size = (flags.output / "weights.npz").stat().st_size
    sys.stdout.write(
        f"{flags.output}: step {meta['step']}, {size / 1e6:.2g} MB of weights\n"
    )
