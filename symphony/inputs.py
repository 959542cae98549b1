"""The file of molecules of a command: its first word, or a flag."""

import argparse

from common.errors import UsageError

FORMATS = "molecules: .sdf, .xyz, .extxyz or .npz"


def add_input(
    parser: argparse.ArgumentParser, name: str = "molecules", told: str = FORMATS
) -> None:
    """Adds the first word, and the flag of the same name.

    Args:
        parser: parser of the command.
        name: name of the flag.
        told: help of the first word.
    """
    parser.add_argument(name, nargs="?", help=told)
    flag = f"{name}_flag"
    parser.add_argument(f"--{name}", dest=flag, help="the same, by its name")


def input_of(flags: argparse.Namespace, name: str = "molecules") -> str:
    """Returns the file of molecules: the first word, or the flag.

    >>> input_of(argparse.Namespace(molecules="in.sdf", molecules_flag=None))
    'in.sdf'

    Raises:
        UsageError: Both were given, or none.
    """
    given = [getattr(flags, name), getattr(flags, f"{name}_flag")]
    given = [value for value in given if value is not None]
    if len(given) != 1:
        found = "none" if not given else f"both {given[0]} and --{name}={given[1]}"
        raise UsageError(
            f"expected a file of molecules as first word or --{name}, found {found}"
        )
    return given[0]
