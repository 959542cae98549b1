"""The training commands of both models: their flags, and what they do with them."""

import difflib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from common.commands import cli, hosts
from common.commands.files import with_home, with_home_in_flag
from common.errors import UsageError
from common.runs import config as configs
from common.runs import parallel

_PATHS = (
    ("data", "path"), ("data", "sources"), ("data", "topology"),
    ("train", "start_from"),
)  # fmt: skip
"""Values of configs that are paths, or patterns of them."""


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
    given = training_flags(command, description, argv)
    expand_paths(given.config)
    check_config(given.config)
    if given.config.train.num_devices > 1:
        parallel.set_num_cpu_devices(given.config.train.num_devices)
    with hosts.joined(command):
        cli.announce_device()
        train(given.config, Path(given.workdir))
    return 0


def expand_paths(config: ml_collections.ConfigDict) -> None:
    """Puts the home folder in the place of `~` at the start of each path of a config.

    >>> config = ml_collections.ConfigDict({"data": {"path": "~/qm9.npz"}})
    >>> expand_paths(config)
    >>> config.data.path == with_home("~/qm9.npz")
    True
    """

    def expanded(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(map(expanded, value))
        if not isinstance(value, str):
            return value
        source, colon, rest = value.partition(":")  # As in `files:~/md/*.xtc`.
        if colon and rest.startswith("~"):
            return f"{source}:{with_home(rest)}"
        return with_home(value)

    for group, field in _PATHS:
        if group in config and field in config[group]:
            config[group][field] = expanded(config[group][field])


def training_flags(
    command: str, description: str, argv: Sequence[str] | None = None
) -> flags.FlagValues:
    """Returns the flags of a training command: `.config`, a ConfigDict, and `.workdir`.

    `--config.a.b=value` replaces one value of the config.

    >>> argv = ["--config=ala2", "--workdir=mine", "--config.seed=3"]
    >>> training_flags("equijump train", "Trains a model.", argv).config.seed
    3

    Args:
      command: name as typed, `symphony train`; the first word is the package.
      description: purpose of the command, for the head of its help.
      argv: arguments after the command; `sys.argv[1:]` where None.

    Raises:
      UsageError: A flag is unknown, missing or ill-typed, or the config cannot be read.
    """
    given = list(map(with_home_in_flag, sys.argv[1:] if argv is None else argv))
    path_of = partial(configs.path_of, command.split()[0])
    argv = [command, *_with_path_of_config(given, path_of)]
    values = _define_training_flags(argv)
    if any(argument in ("-h", "--help") for argument in argv):
        _print_help(command, description, values)
        raise SystemExit(0)
    if rest := _parse(values, argv):
        raise UsageError(f"expected flags only, found {rest[0]!r}")
    return values


def _define_training_flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "Folder of the run: checkpoints, metrics.jsonl, config.json. "
        "A run found there is gone on with.", required=True, flag_values=values,
    )  # fmt: skip
    config_flags.DEFINE_config_file(
        "config", None, "Name of a config, or a .py file with get_config(). "
        "--config.a.b=value replaces one of its values.", flag_values=values,
        sys_argv=argv,
    )  # fmt: skip
    flags.mark_flag_as_required("config", flag_values=values)
    return values


def _parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Reads the flags and the config; returns the arguments that are no flags."""
    try:
        _, *rest = values(argv)
        values.config.keys()  # A file that is not there is reported at first use.
    except flags.Error:
        raise
    except Exception as error:  # The config is the user's program.
        raise UsageError(_fault_of_config(argv, error)) from error
    return rest


def _fault_of_config(argv: list[str], error: Exception) -> str:
    """Returns the message on a config, or on a name in the flags that it has not."""
    given = [word[9:].split("=")[0] for word in argv if word.startswith("--config.")]
    names = [name for name in given if name.split(".")[-1] in str(error)] or given
    if not names or not isinstance(error, KeyError | AttributeError):
        told = f"{type(error).__name__}: {cli.one_line(str(error))}"
        return f"--config: expected a config, found {told}"
    fields = configs.flat(configs.default_of(argv[0].split()[0]))
    near = difflib.get_close_matches(names[0], fields, n=1)
    meant = f" (perhaps config.{near[0]})" if near else ""
    return f"config.{names[0]}: expected a field that the config has{meant}, found none"


def _with_path_of_config(
    given: Sequence[str], path_of: Callable[[str], Path]
) -> list[str]:
    """Returns the arguments with the path of the config that is given by name."""
    argv = list(given)
    for index, argument in enumerate(argv):
        flag, equals, name = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals:  # The next argument is the value.
            name = "".join(argv.pop(index + 1) for _ in argv[index + 1 : index + 2])
        path = Path(name.partition(":")[0])  # What follows is for the config itself.
        if name and path.suffix != ".py":
            name = str(path_of(name))
        elif name and not path.is_file():
            raise UsageError(
                f"--config: expected the path of a .py file, found none at {path}; "
                f"configs of the package have names: --config={path.stem}"
            )
        argv[index] = f"--config={name}" if equals or name else flag
    return argv


def _print_help(command: str, description: str, values: flags.FlagValues) -> None:
    sys.stdout.write(f"usage: {command} [flags]\n\n{description}\n\nflags:\n")
    for name in values:
        flag = values[name]
        default = "" if flag.default is None else f" (default: {flag.default})"
        sys.stdout.write(f"  --{name}  {flag.help}{default}\n")
