"""Samples molecules: `symphony sample`."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from common.commands import cli
from symphony import manifest, molfile, sampler
from symphony.conditions import parse
from symphony.kinds.denoiser.sample import load_refiner
from symphony.options import choose
from symphony.weights import load_weights


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `symphony sample` and returns the exit status.

    Args:
        argv: The arguments after the command; those of the process where None.
    """
    arguments = _parser().parse_args(argv)
    for path in molfile.paths_of(arguments.output):
        cli.check_apart(path, arguments.fragment)
    weights = load_weights(arguments.checkpoint)
    options = choose(
        weights,
        arguments.temperature_focus,
        arguments.temperature_position,
        arguments.basin_temperature,
        arguments.max_atoms,
        arguments.start,
        arguments.fragment,
        arguments.basin,
        parse(arguments.condition),
    )
    seed, total = arguments.seed, arguments.num_molecules
    sampler.check_numbers(seed, total, arguments.num_slots)
    refiner = None
    if arguments.refine:
        refiner = load_refiner(arguments.refiner, "--refiner")
        sampler.check_refiner(weights, options, refiner)
    cli.announce_device()
    head = manifest.header(weights, options, seed, refiner)
    slots = arguments.num_slots

    def make(first: int) -> Iterator[manifest.Sample]:
        drawn = sampler.draw(weights, options, seed, first, total, slots)
        return sampler.refined(drawn, refiner, options)

    with molfile.open_output(arguments.output, head, arguments.overwrite) as output:
        written = manifest.write_all(output, make, total, "sampling")
    everything = molfile.paths_of(arguments.output).extxyz
    manifest.tell(
        arguments.output, written, f"; all, with those that failed, in {everything}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.argument_parser(
        "symphony sample",
        "Builds molecules. Run again after an interruption, it goes on.",
    )
    add = parser.add_argument
    add("--checkpoint", default="qm9", help="packaged weights or a run's folder")
    add("--num_molecules", type=int, default=100, help="how many, failed ones counted")
    add("--seed", type=int, default=0, help="of the random numbers")
    add("--output", default="molecules.sdf", help="an SDF; .extxyz and .jsonl beside")
    add(
        "--temperature_focus",
        type=float,
        default=1.0,
        help="of stopping, focus and species; 1 is what was trained",
    )
    add(
        "--temperature_position",
        type=float,
        default=1.0,
        help="of the density of positions; 1 is what was trained",
    )
    add(
        "--basin_temperature",
        type=float,
        default=1.0,
        help="narrows each mode of the position and keeps its weight; 1 does nothing",
    )
    add("--basin", action="store_true", help="--basin_temperature=0.1")
    add("--refine", action="store_true", help="lay some noise over each and denoise it")
    add(
        "--refiner", default="refine_qm9", help="weights of --refine, or a run's folder"
    )
    add("--start", default=None, help="symbol of the element of the first atom")
    add(
        "--fragment",
        default=None,
        help="file with one molecule (.sdf, .xyz, .npz) to start from",
    )
    add(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="property that molecules shall have, as gap=6.5; once for each",
    )
    add("--max_atoms", type=int, default=None, help="largest size; by the config")
    add(
        "--num_slots",
        type=int,
        default=None,
        help=f"molecules built at a time (default: {sampler.CPU_SLOTS} on a CPU, "
        f"{sampler.ACCELERATOR_SLOTS} elsewhere)",
    )
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("symphony sample", main))
