"""Flags of `equijump simulate`: what there is, what is refused, what is recorded.

Nothing here needs OpenMM.
"""

import argparse
import hashlib
import math
from pathlib import Path
from typing import Any

from common.commands import cli, shards
from common.errors import UsageError
from equijump import replicas
from equijump.simulation import Plan

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SOLVENTS = ("obc2", "gbn2", "none")
STARTS = ("extended", "helix")
MODELS = ("all-atom", "go")
CONTACTS = ("gaussian", "lennard-jones")
UNITS = ("real", "reduced")
FORMAT_VERSION = 1

LONGEST_STEP = 2.5  # fs, with hydrogens of their own mass
HEAVY_HYDROGEN = 2.0  # amu, from which longer steps are taken
_HOTTEST = 20.0  # In epsilon: above it no structure is left.
_NOT_RECORDED = ("output", "processes", "find_folding_temperature", "shard")


def each(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """Returns the arguments of each molecule, as if it were the only one.

    Of several sequences each has a folder of its own in that of `--output`.

    Raises:
        UsageError: Two of them would have the same folder.
    """
    sequences = (arguments.sequence or "").split(",")
    if len(sequences) == 1:
        return [arguments]
    found: dict[str, argparse.Namespace] = {}
    for sequence in sequences:
        check_sequence(sequence)
        stem = replicas.stem_of(sequence, None, arguments.caps)
        if stem in found:
            raise UsageError(
                "--sequence: expected sequences that differ in their first letters, "
                f"found {sequence[:20]} twice; leave one out"
            )
        output = str(Path(arguments.output, stem))
        own = {**vars(arguments), "sequence": sequence, "output": output}
        found[stem] = argparse.Namespace(**own)
    return list(found.values())


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Checks what can be checked without OpenMM.

    Raises:
        UsageError: A flag has a value that it cannot have.
    """
    _check_source(arguments)
    _check_model(arguments)
    _check_numbers(arguments)
    step = arguments.step / 1000  # ps
    of_step, of_spacing = (
        f"--step={arguments.step:g} fs", f"--spacing={arguments.spacing:g} ps"
    )  # fmt: skip
    count = lambda name: multiple(
        f"--{name}", getattr(arguments, name), step, "ps", of_step
    )
    return Plan(
        stem=replicas.stem_of(arguments.sequence, arguments.pdb, arguments.caps),
        steps_per_frame=count("spacing"),
        equilibration_steps=count("equilibration"),
        num_frames=multiple(
            "--length", arguments.length, arguments.spacing / 1000, "ns", of_spacing
        ),
        spacing=arguments.spacing,
    )


def _check_source(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` unless there is one molecule, and flags that belong to it."""
    if (arguments.sequence is None) == (arguments.pdb is None):
        found = "neither" if arguments.pdb is None else "both"
        raise UsageError(f"expected --sequence or --pdb, found {found}")
    if arguments.sequence is not None:
        check_sequence(arguments.sequence)
    elif not replicas.pdb_path(arguments.pdb).is_file():
        raise UsageError(f"--pdb: expected a file, found none at {arguments.pdb}")
    if arguments.pdb is None:
        for name in ("replace_nonstandard", "ph"):
            if getattr(arguments, name) not in (None, False):
                raise UsageError(f"--{name}: expected --pdb beside it, found none")
    if arguments.permittivity != 1.0 and arguments.solvent != "none":
        raise UsageError(
            "--permittivity: expected --solvent=none beside it, found "
            f"{arguments.solvent}, which has its own"
        )


def _check_model(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for flags of one model beside the other."""
    if arguments.model != "go":
        for name, default in (
            ("contacts", CONTACTS[0]), ("units", UNITS[0]), ("epsilon", 2.0),
            ("find_folding_temperature", False),
        ):  # fmt: skip
            if getattr(arguments, name) != default:
                raise UsageError(f"--{name}: expected --model=go beside it, found none")
        return
    if arguments.pdb is None:
        raise UsageError(
            "--model=go: expected the native structure as --pdb, found --sequence"
        )
    for name in ("caps", "hydrogen_mass", "ph"):
        if getattr(arguments, name):
            raise UsageError(
                f"--{name}: expected --model=all-atom beside it, found go, which has "
                "no hydrogens and no caps but those of --pdb"
            )
    if arguments.units == "reduced" and arguments.temperature > _HOTTEST:
        raise UsageError(
            "--temperature: expected kT in units of epsilon, about 1, found "
            f"{arguments.temperature:g}; --find_folding_temperature finds a good one"
        )


def _check_numbers(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for a number out of range, and for one residue alone."""
    positive = (
        "temperature", "friction", "step", "spacing", "length", "permittivity",
        "epsilon",
    )  # fmt: skip
    for name in positive:
        value = getattr(arguments, name)
        if not 0.0 < value < math.inf:
            raise UsageError(f"--{name}: expected a positive number, found {value}")
    for name in ("equilibration", "hydrogen_mass"):
        value = getattr(arguments, name)
        if not 0.0 <= value < math.inf:
            raise UsageError(f"--{name}: expected 0 or more, found {value}")
    if arguments.ph is not None and not 0.0 <= arguments.ph <= 14.0:
        raise UsageError(f"--ph: expected 0 to 14, found {arguments.ph}")
    _check_hydrogens(arguments)
    for name, least in (("replicas", 1), ("processes", 0)):
        value = getattr(arguments, name)
        if value < least:
            raise UsageError(f"--{name}: expected {least} or more, found {value}")
    if not 0 <= arguments.seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {arguments.seed}")
    if arguments.pdb is None and len(arguments.sequence) == 1 and not arguments.caps:
        raise UsageError(
            "--sequence: one uncapped residue has no parameters: give --caps"
        )


def _check_hydrogens(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` for hydrogens too light for the step, or too heavy."""
    mass, step = arguments.hydrogen_mass, arguments.step
    if mass and not 1.0 <= mass <= 4.0:
        raise UsageError(f"--hydrogen_mass: expected 1 to 4 amu, found {mass:g}")
    if step > LONGEST_STEP and mass < HEAVY_HYDROGEN and arguments.model != "go":
        found = f"hydrogens of {mass:g} amu" if mass else "hydrogens of their own mass"
        raise UsageError(
            f"--step={step:g}: expected {LONGEST_STEP:g} fs at most with {found}; "
            "give --hydrogen_mass=3, with which --step=4 is stable"
        )


def check_sequence(sequence: str) -> None:
    """Raises `UsageError` unless each letter is that of an amino acid."""
    if not sequence:
        raise UsageError("--sequence: expected one letter or more, found none")
    for place, letter in enumerate(sequence, start=1):
        if letter not in LETTERS:
            raise UsageError(
                f"--sequence: expected letters of {LETTERS}, found {letter!r} at "
                f"place {place}"
            )


def multiple(flag: str, value: float, part: float, unit: str, of: str) -> int:
    """Returns how many parts make up a value; both have the same unit.

    >>> multiple("--spacing", 1.0, 0.002, "ps", "--step=2 fs")
    500
    """
    count = round(value / part)
    if abs(value / part - count) > 1e-6 * max(count, 1):
        raise UsageError(f"{flag}: expected a multiple of {of}, found {value:g} {unit}")
    return count


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what decides the trajectories, as JSON values."""
    flags = {k: v for k, v in sorted(vars(arguments).items()) if k not in _NOT_RECORDED}
    if not arguments.replace_nonstandard:  # Of which older records do not know.
        del flags["replace_nonstandard"]
    described = {"format": FORMAT_VERSION, "flags": flags}
    if arguments.pdb is not None:
        contents = replicas.pdb_path(arguments.pdb).read_bytes()
        described["pdb_sha256"] = hashlib.sha256(contents).hexdigest()
    return described


class _Join(argparse.Action):
    """Joins the values of a flag that is given more than once."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: Any = None
    ) -> None:
        before = getattr(namespace, self.dest)
        joined = values if before is None else f"{before},{values}"
        setattr(namespace, self.dest, joined)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = cli.argument_parser(
        "equijump simulate",
        "Makes trajectories with OpenMM. Run again after an interruption, it goes on.",
    )
    _add_molecule(parser)
    _add_model(parser)
    _add_dynamics(parser)
    add = parser.add_argument
    add("--replicas", type=int, default=1, help="how many trajectories")
    add(
        "--processes", type=int, default=0,
        help="replicas that run at a time; as many as there are cores if 0",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="of velocities and noise")
    add("--platform", help="of OpenMM; the fastest one here if not given")
    add(
        "--heavy",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write no hydrogens",
    )
    shards.add_flag(parser)
    add("-o", "--output", required=True, help="folder")
    return parser


def _add_molecule(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--sequence",
        action=_Join,
        help="one letter for each residue; several, as in AA,AK, each get a folder",
    )
    add("--caps", action="store_true", help="ACE before each chain, NME after it")
    add("--start", choices=STARTS, default="extended", help="how a sequence is built")
    add("--pdb", help="protein to simulate instead; a file, or the packaged cln025")
    add(
        "--replace_nonstandard",
        action="store_true",
        help="replace modified residues of --pdb by those that they come from",
    )
    add(
        "--ph", type=float,
        help="by which hydrogens of --pdb are added, where its names and hydrogens "
        "do not tell; 7 if not given",
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", choices=MODELS, default=MODELS[0], help="go: of --pdb's structure")
    add("--contacts", choices=CONTACTS, default=CONTACTS[0], help="of --model=go")
    add(
        "--units", choices=UNITS, default=UNITS[0],
        help="of --model=go; reduced: --temperature is kT over epsilon",
    )  # fmt: skip
    add(
        "--epsilon", type=float, default=2.0,
        help="unit of energy of --model=go, kJ/mol, in real units",
    )  # fmt: skip
    add(
        "--find_folding_temperature",
        action="store_true",
        help="find where half of --model=go is folded; no trajectories are kept",
    )
    add("--force_field", default="ff14SB", help="name, or an XML file of OpenMM")
    add("--solvent", choices=SOLVENTS, default="obc2", help="implicit one, or none")
    add("--permittivity", type=float, default=1.0, help="relative, without solvent")
    add("--restrain", help="atoms held where they begin, in MDTraj's language")


def _add_dynamics(parser: argparse.ArgumentParser) -> None:
    number = lambda name, default, told: parser.add_argument(
        name, type=float, default=default, help=told
    )
    number("--temperature", 300.0, "K")
    number("--friction", 1.0, "1/ps")
    number("--step", 2.0, "fs")
    number("--hydrogen_mass", 0.0, "amu, taken from the atom it is on; its own if 0")
    number("--spacing", 1.0, "ps from frame to frame")
    number("--length", 1.0, "ns of each replica")
    number("--equilibration", 100.0, "ps before the first frame, not written")
