"""What the training commands of both models do, once their config is read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from common.commands import cli
from common.runs import parallel


def run(
    command: str,
    description: str,
    check_config: Callable[[ml_collections.ConfigDict], None],
    train: Callable[[ml_collections.ConfigDict, Path], Any],
    argv: Sequence[str] | None = None,
) -> int:
    """Reads the flags, starts the devices, trains, and returns the exit status.

    >>> argv = ["--config=ala2", "--workdir=mine", "--config.train.num_devices=1"]
    >>> show = lambda config, workdir: print(workdir, config.seed)
    >>> check = lambda config: None
    >>> about = "Trains a model."
    >>> run("equijump train", about, check, show, argv)  # doctest: +ELLIPSIS
    device: ...
    mine 0
    0

    Args:
        command: name as typed, `symphony train`.
        description: purpose of the command, for the head of its help.
        check_config: function that raises `UsageError` for what cannot be used.
        train: function of the config and the folder of the run.
        argv: arguments after the command; `sys.argv[1:]` where None.
    """
    flags = cli.training_flags(command, description, argv)
    check_config(flags.config)
    if flags.config.train.num_devices > 1:
        parallel.set_num_cpu_devices(flags.config.train.num_devices)
    cli.announce_device()
    train(flags.config, Path(flags.workdir))
    return 0
