"""Samples molecules: `symphony sample`."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from common.commands import cli, shards
from common.errors import UsageError
from symphony import (
    acceptance,
    asking,
    bounds,
    drawing,
    likelihood,
    manifest,
    molfile,
    relax,
    sampler,
)
from symphony.acceptance import Gate
from symphony.conditions import parse
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner, load_refiner, start_of_batch
from symphony.manifest import Sample
from symphony.options import Options, choose
from symphony.weights import Weights, load_weights

CHOICES = (
    "temperature_focus", "temperature_position", "basin_temperature", "max_atoms",
    "start", "fragment", "basin", "formula", "num_atoms", "max_heavy", "elements",
    "attach", "keep_hydrogens", "guidance", "candidates", "charge",
)  # fmt: skip
TOGETHER = ("until_valid", "diverse", "best", "relax")
"""Flags that need all molecules of a run."""
WHOLE = (
    "symphony merge takes --diverse, --best and --relax, and puts parts together that "
    "were drawn without; --until_valid needs one process"
)
REFINER = "refine_qm9"
CONDITION_HELP = "name=number of a property, as gap=6.5; once for each"
PROPERTY_HELP = (
    "target of a property, as gap=0.25, or a range to draw from, as logP=2:3, in the "
    "unit of the training data; once for each. An unknown name lists those of "
    "--checkpoint. Packaged: "
)
KEEP_HELP = "those of --attach stay where valence allows; else they are drawn anew"
CANDIDATES_HELP = (
    "draws for each molecule; kept is the one that the network foresees nearest to "
    "--property"
)
BEST_HELP = "keep so many, by log-likelihood per atom less the mean of the size"
SCORE_HELP = "also the log-likelihood over orders, as symphony score writes it"
DIVERSE_HELP = "no two of one canonical SMILES"
DRAWS_HELP = (
    f"draws of --until_valid at most (default: {acceptance.DRAWS_FOR_EACH} for each)"
)
SLOTS_HELP = (
    f"molecules built at a time (default: {drawing.CPU_SLOTS} on a CPU, "
    f"{drawing.ACCELERATOR_SLOTS} elsewhere)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony sample` and returns the exit status.

    Args:
        argv: arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    shard = shards.read(arguments.shard)
    shards.refuse(arguments, TOGETHER, WHOLE)
    arguments.output = str(shards.path_of(Path(arguments.output), shard))
    molfile.check(arguments.output, arguments.fragment)
    relax.check(arguments.output, arguments.relax, arguments.overwrite)
    weights = load_weights(arguments.checkpoint)
    choices = {name: getattr(arguments, name) for name in CHOICES}
    given = {
        "conditions": parse(arguments.condition),
        "property": asking.parse(arguments.property),
    }
    options = choose(weights, **choices, **given)
    seed, total, slots = arguments.seed, arguments.num_molecules, arguments.num_slots
    drawing.check_numbers(seed, total, slots)
    unit = denoiser.BATCH if arguments.refine else 1
    part = shards.span(shard, total, unit)
    gate = make_gate(arguments, len(part))
    refiner = _load_refiner(arguments, weights, options)
    cli.announce_device()
    head = manifest.header(weights, options, seed, refiner, gate)
    score = _load_scorer(arguments, weights, options)
    if score is not None:
        head["settings"]["score"] = [bounds.NUM_ORDERS, bounds.NUM_DIRECTIONS]
    head |= shards.describe(shard, part, total)
    end = sampler.end_of(part.stop, gate)
    draw = partial(drawing.draw, weights, options, seed, end=end, num_slots=slots)
    make = lambda done: _make(draw, refiner, score, part.start + done)
    with molfile.open_output(arguments.output, head, arguments.overwrite) as output:
        written = manifest.write_all(output, make, len(part), "sampling", gate)
    if arguments.relax is not None:
        sys.stdout.write(relax.run(arguments.output, arguments.relax) + "\n")
    tell(arguments.output, written, gate)
    return 0


def make_gate(arguments: argparse.Namespace, total: int) -> Gate | None:
    """Returns the gate that flags ask for; None where every draw is a molecule.

    Args:
        arguments: flags of `symphony.acceptance`.
        total: number of molecules.
    """
    given = {name: getattr(arguments, name) for name in acceptance.CHOICES}
    terms = acceptance.choose(total, **given, best=getattr(arguments, "best", None))
    return None if terms is None else Gate(terms, total)


def tell(path: str, written: manifest.Written | None, gate: Gate | None) -> None:
    """Prints what was written or accepted, and where the molecules lie that failed."""
    everything = molfile.paths_of(path).extxyz
    if gate is not None:
        manifest.tell_accepted(path, gate, f"; all, with those, in {everything}")
        return
    more = f"; all, with those that failed, in {everything}"
    manifest.tell(path, written, more)


def _make(
    draw: Callable[[int], Iterator[Sample]],
    refiner: Refiner | None,
    score: Callable[[Iterator[Sample]], Iterator[Sample]] | None,
    first: int,
) -> Iterator[Sample]:
    """Yields molecules from the first on; a refined one is so in its own batch."""
    begin = first if refiner is None else start_of_batch(first)
    made = sampler.refined(draw(begin), refiner)
    made = itertools.islice(made, first - begin, None)
    return made if score is None else score(made)


def _load_scorer(
    arguments: argparse.Namespace, weights: Weights, options: Options
) -> Callable[[Iterator[Sample]], Iterator[Sample]] | None:
    """Returns what scores samples where it is asked; refuses weights that cannot."""
    if not arguments.score:
        return None
    likelihood.scorer_of(weights, bounds.NUM_DIRECTIONS)
    return partial(bounds.scored, weights=weights, options=options)


def _load_refiner(
    arguments: argparse.Namespace, weights: Weights, options: Options
) -> Refiner | None:
    if not arguments.refine:
        if arguments.refiner != REFINER:
            raise UsageError("--refiner: expected --refine beside it, found none")
        return None
    refiner = load_refiner(arguments.refiner, "--refiner")
    sampler.check_refiner(weights, options, refiner)
    return refiner


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "symphony sample",
        "Builds molecules. Run again after an interruption, it goes on.",
    )
    add = parser.add_argument
    number = partial(add, type=float, default=1.0)
    count = partial(add, type=int, default=None)
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--num_molecules", type=int, default=100, help="how many, failed ones counted")
    add("--seed", type=int, default=0, help="of the random numbers")
    add("-o", "--output", default="molecules.sdf", help=molfile.OUTPUT_HELP)
    number("--temperature_focus", help="of stop, focus and species; 1: as trained")
    number("--temperature_position", help="of the density of positions; 1: as trained")
    number("--basin_temperature", help="narrows each mode of the position; 1: does not")
    add("--basin", action="store_true", help="--basin_temperature=0.1")
    add("--refine", action="store_true", help="lay some noise over each and denoise it")
    add("--refiner", default=REFINER, help="weights of --refine, or a folder")
    add("--start", help="symbol of the element of the first atom")
    add("--fragment", help="file with one molecule to start from")
    add("--formula", help="of every molecule, as C7H10O2")
    add("--num_atoms", help="atoms with hydrogens, as 18 or 12-20")
    add("--charge", type=int, default=0, help="of every molecule, in e")
    count("--max_heavy", help="largest number of atoms heavier than hydrogen")
    add("--elements", help="that may be added, as C,N,O,H")
    add("--attach", help="atoms of --fragment that may grow, from 0, as 3,5")
    add("--keep_hydrogens", action="store_true", help=KEEP_HELP)
    add("--condition", action="append", default=[], help=CONDITION_HELP)
    told = PROPERTY_HELP + asking.packaged().replace("%", "%%")
    add("--property", action="append", default=[], help=told)
    number("--guidance", help=f"towards --property. {asking.GOOD_GUIDANCE}")
    add("--candidates", type=int, default=1, help=CANDIDATES_HELP)
    add_gate(parser)
    add("--best", type=int, default=None, help=BEST_HELP)
    add("--score", action="store_true", help=SCORE_HELP)
    add("--relax", help=relax.HELP)
    count("--max_atoms", help="largest size; by the config")
    count("--num_slots", help=SLOTS_HELP)
    shards.add_flag(parser)
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `symphony.acceptance`."""
    add = parser.add_argument
    names = ", ".join(acceptance.NAMES)
    add("--until_valid", action="store_true", help="go on until so many are accepted")
    add("--accept", help=f"what is: {names} (default: {acceptance.NAMES[0]})")
    add("--max_draws", type=int, default=None, help=DRAWS_HELP)
    add("--diverse", action="store_true", help=DIVERSE_HELP)


if __name__ == "__main__":
    sys.exit(cli.run("symphony sample", main))
