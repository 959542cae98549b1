"""Samples molecules: `symphony sample`, and the sampler behind `symphony.load`.

Molecule `i` of a seed is the same however many are asked for. Positions are in Å.
RDKit is imported by the processes that perceive bonds, and by `Sampler.sample`.
"""

import argparse
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from common.commands import cli
from common.errors import UsageError
from common.runs.weights import versions
from symphony import build, data, molfile
from symphony.conditions import names_of, parse, some_known
from symphony.generate import Finished, Settings, Start, generate
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import Refiner, load_refiner
from symphony.options import Core, Options, choose
from symphony.weights import Weights, load_weights

CPU_SLOTS, ACCELERATOR_SLOTS = 16, 256
"""Molecules under construction at a time: more gain nothing on a CPU."""

BOND_PRESET = "xyz2mol_hueckel"
BOND_SECONDS, CLOCK_FACTOR = 10.0, 10
"""CPU time for the bonds of one molecule; the clock may show a multiple of it."""

MAX_WORKERS = 8
"""Processes that perceive bonds; more start only where many molecules wait."""

_ORDER_STREAM = 1_000_000  # Beyond every step of a molecule.


class Sample(NamedTuple):
    """A molecule as the network left it; the atoms of a user's fragment come first.

    Attributes:
        index: Which molecule of the seed this is.
        seed: Of the random numbers.
        atomic_numbers: Nuclear charges.
        positions: Å.
        stopped: False if it would have grown beyond the largest number of atoms.
        log_likelihood: Nats of the path by which it was built, positions per Å³; a
            fragment's own atoms count nothing. Of a refined molecule it is that of the
            molecule before; None of one from a file.
        moved: Å, root mean square that refinement moved the atoms; None without.
        name: In the file that it was read from, if it was.
    """

    index: int
    seed: int
    atomic_numbers: UInt8[np.ndarray, " num_atoms"]
    positions: Float[np.ndarray, "num_atoms 3"]
    stopped: bool
    log_likelihood: float | None
    moved: float | None = None
    name: str | None = None


class Sampler:
    """Trained weights and the three ways to ask them for molecules.

    Each takes, besides the number of molecules and the seed, the keywords of `choose`;
    `num_slots`, the number of molecules under construction at a time; and `refine`,
    true or a `Refiner` for refined molecules.

    Attributes:
        weights: See `Weights`.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def sample(self, num_molecules: int, seed: int = 0, **keywords: Any) -> list[Any]:
        """Returns as RDKit molecules those whose bonds could be perceived.

        Each has one conformer and the properties that `symphony sample` writes.
        """
        drawn = self.stream(num_molecules, seed, **keywords)
        finished = [finish(sample) for sample in drawn]
        return [mol for mol, _ in finished if mol is not None]

    def sample_positions(
        self, num_molecules: int, seed: int = 0, **keywords: Any
    ) -> list[Sample]:
        """Returns every molecule, those without bonds or without end among them."""
        return list(self.stream(num_molecules, seed, **keywords))

    def stream(
        self,
        num_molecules: int,
        seed: int = 0,
        *,
        first: int = 0,
        num_slots: int | None = None,
        refine: bool | Refiner = False,
        **keywords: Any,
    ) -> Iterator[Sample]:
        """Yields the molecules `first..num_molecules - 1` of a seed, in order."""
        options = choose(self.weights, **keywords)
        refiner = load_refiner() if refine is True else refine or None
        if refiner is not None:
            check_refiner(self.weights, options, refiner)
        drawn = draw(self.weights, options, seed, first, num_molecules, num_slots)
        return refined(drawn, refiner, options)


def load(name_or_path: str | os.PathLike[str] = "qm9") -> Sampler:
    """Returns a sampler; see `symphony.load`."""
    cli.use_compilation_cache()
    return Sampler(load_weights(name_or_path))


def draw(
    weights: Weights,
    options: Options,
    seed: int,
    first: int,
    end: int,
    num_slots: int | None,
) -> Iterator[Sample]:
    """Returns an iterator over the molecules `first..end - 1` of a seed, in order.

    Args:
        weights: The trained model.
        options: See `choose`.
        seed: Of the random numbers.
        first: Index of the first molecule.
        end: Index after the last one.
        num_slots: Molecules under construction at a time. It changes no molecule but
            for the rounding of floats. The device decides where it is None.

    Raises:
        UsageError: A number is out of range; before anything is drawn.
    """
    if num_slots is None:
        on_cpu = jax.default_backend() == "cpu"
        num_slots = CPU_SLOTS if on_cpu else ACCELERATOR_SLOTS
    check_numbers(seed, end, num_slots)
    return _draw(weights, options, seed, first, end, num_slots)


def check_refiner(weights: Weights, options: Options, refiner: Refiner) -> None:
    """Raises `UsageError` if molecules may have elements that a refiner cannot."""
    unseen = {*weights.unseen} - {*([] if options.core is None else options.core[0])}
    known = {*weights.config.data.species} - unseen
    denoiser.check_species(refiner, sorted(known), f"molecules of {weights.name}")


def refined(
    samples: Iterator[Sample], refiner: Refiner | None, options: Options
) -> Iterator[Sample]:
    """Yields molecules refined, or as they are without a refiner, in order.

    The atoms of a fragment stay where they are.
    """
    if refiner is None:
        yield from samples
        return
    num_fixed = 0 if options.core is None else len(options.core[0])
    while batch := list(itertools.islice(samples, denoiser.BATCH)):
        moved = denoiser.refine(
            refiner,
            [one.atomic_numbers for one in batch],
            [one.positions for one in batch],
            [np.arange(len(one.atomic_numbers)) < num_fixed for one in batch],
            [one.index for one in batch],
            batch[0].seed,
        )
        for one, positions in zip(batch, moved, strict=True):
            yield one._replace(
                positions=positions, moved=root_mean_square(positions - one.positions)
            )


def root_mean_square(moves: Float[np.ndarray, "num_atoms 3"]) -> float:
    """Returns the root of the mean squared length."""
    return float(np.sqrt(np.mean(np.sum(np.square(moves), axis=-1))))


def check_numbers(seed: int, num_molecules: int, num_slots: int | None) -> None:
    """Raises `UsageError` for numbers that no sampler can do with."""
    if num_molecules < 1 or (num_slots is not None and num_slots < 1):
        slots = "" if num_slots is None else f" and {num_slots}"
        raise UsageError(
            "expected --num_molecules and --num_slots of at least 1, found "
            f"{num_molecules}{slots}"
        )
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed: expected 0 to {2**32 - 1}, found {seed}")


def _draw(
    weights: Weights,
    options: Options,
    seed: int,
    first: int,
    end: int,
    num_slots: int,
) -> Iterator[Sample]:
    config = weights.config
    order_of = _orders(weights, options.core, seed)
    species_table = np.array(config.data.species, np.uint8)
    finished = generate(
        build.kind_of(config).decoder,
        weights.model,
        weights.params,
        iter(range(first, end)),
        seed,
        _settings(config, options),
        partial(_start, options.core, order_of, config),
        mode=_mode(options),
        num_slots=num_slots,
        capacity=4 * -(-options.max_atoms // 4),
    )
    for molecule in _in_order(finished, first):
        positions = molecule.positions
        if options.core is not None:
            positions = _put_back(molecule, options.core, order_of(molecule.index))
        numbers = species_table[molecule.species]
        if options.core is not None:
            given = options.core[0]
            numbers = np.concatenate([given, numbers[len(given) :]])
        yield Sample(
            index=molecule.index,
            seed=seed,
            atomic_numbers=numbers,
            positions=positions,
            stopped=molecule.stopped,
            log_likelihood=molecule.log_likelihood,
        )


def _settings(config: Any, options: Options) -> Settings:
    given = {"noise_std": config.sample.noise_std, **options.conditions}
    return Settings(
        focus_temperature=jnp.float32(options.temperature_focus),
        position_temperature=jnp.float32(options.temperature_position),
        basin_temperature=jnp.float32(options.basin_temperature),
        conditions=some_known(given, names_of(config)),
        max_atoms=jnp.int32(options.max_atoms),
    )


def _mode(options: Options) -> str:
    if options.temperature_position != 1.0:
        return "tempered"
    return "basin" if options.basin_temperature != 1.0 else "exact"


def _centre(core: Core) -> Float[np.ndarray, " 3"]:
    return core[1].astype(np.float64).mean(axis=0)


def _orders(
    weights: Weights, core: Core | None, seed: int
) -> Callable[[int], Int[np.ndarray, " num_given"]]:
    """Returns the function that draws in which order a molecule takes the core in.

    The draw is by the law of the cut in training, and depends on seed and index alone.
    """
    if core is None:
        return lambda index: np.zeros(0, np.int32)
    config = ml_collections.FrozenConfigDict(weights.config)
    species = data.to_species(core[0], tuple(config.data.species))
    positions = (core[1] - _centre(core)).astype(np.float32)
    # Fragments of similar size share one compiled program.
    count = len(species)
    missing = -count % 8
    arrays = (
        np.pad(positions, ((0, missing), (0, 0))),
        np.pad(species, (0, missing)),
        np.arange(count + missing) < count,
    )

    def order(index: int) -> Int[np.ndarray, " num_given"]:
        return np.asarray(_order(config, seed, index, *arrays))[:count]

    return order


@partial(jax.jit, static_argnums=0)
def _order(
    config: ml_collections.FrozenConfigDict,
    seed: Int[Array, ""] | int,
    index: Int[Array, ""] | int,
    *arrays: Any,
) -> Int[Array, " num_nodes"]:
    key = jax.random.fold_in(jax.random.key(seed), index)
    return build.draw_cut(config, jax.random.fold_in(key, _ORDER_STREAM), *arrays).order


def _start(
    core: Core | None,
    order_of: Callable[[int], Int[np.ndarray, " num_given"]],
    config: Any,
    index: int,
) -> Start:
    if core is None:
        return Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    order = order_of(index)
    species = data.to_species(core[0], tuple(config.data.species))
    positions = (core[1] - _centre(core)).astype(np.float32)
    return Start(positions[order], species[order])


def _put_back(
    molecule: Finished, core: Core, order: Int[np.ndarray, " num_given"]
) -> Float[np.ndarray, "num_atoms 3"]:
    """Returns positions in the frame of the core, whose own atoms are as given."""
    drawn = molecule.positions[len(order) :] + _centre(core)
    return np.concatenate([core[1], drawn.astype(np.float32)])


def _in_order(finished: Iterator[Finished], first: int) -> Iterator[Finished]:
    """Holds molecules back until those before them have come."""
    waiting: dict[int, Finished] = {}
    due = first
    for molecule in finished:
        waiting[molecule.index] = molecule
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def finish(sample: Sample) -> tuple[Any, dict[str, Any]]:
    """Perceives the bonds of a molecule.

    Returns:
        An RDKit molecule with properties, or None if the convention `xyz2mol_hueckel`
        finds no bonds; and the molecule's record for the manifest.
    """
    from symphony.evaluate import bonds

    mol = bonds.perceive(sample.atomic_numbers, sample.positions, BOND_PRESET)
    record = _record(sample, None if mol is None else bonds.write_smiles(mol))
    if mol is not None:
        fields = {**_properties(sample), "smiles": record["smiles"]}
        bonds.set_properties(mol, _name(sample), fields)
    return mol, record


def _record(sample: Sample, smiles: str | None) -> dict[str, Any]:
    """Returns the line of the manifest."""
    record = {
        "index": sample.index,
        "seed": sample.seed,
        "num_atoms": len(sample.atomic_numbers),
        "formula": molfile.formula(sample.atomic_numbers),
        "stopped": sample.stopped,
        "valid": smiles is not None and sample.stopped,
        "smiles": smiles,
    }
    return {**record, **_numbers(sample)}


def _numbers(sample: Sample) -> dict[str, float]:
    """Returns the log-likelihood, and how far refinement moved the molecule."""
    numbers = {}
    if sample.log_likelihood is not None:
        name = "log_likelihood"
        name = name if sample.moved is None else f"{name}_before_refinement"
        numbers[name] = round(sample.log_likelihood, 4)
    if sample.moved is not None:
        numbers["moved"] = round(sample.moved, 4)
    return numbers


def _properties(sample: Sample) -> dict[str, Any]:
    """Returns the fields of a molecule with bonds, but for its SMILES."""
    record = _record(sample, "")
    names = ("seed", "index", "stopped", "valid")
    return {**_numbers(sample), **{name: record[name] for name in names}}


def _name(sample: Sample) -> str:
    if sample.name is not None:
        return sample.name
    return f"seed{sample.seed}_{sample.index}"


def with_bonds(samples: Iterator[Sample]) -> Iterator[tuple[Sample, str | None, str]]:
    """Yields molecules with their SMILES and their record of an SDF, in order.

    Bonds are perceived in other processes while the next molecules are built; one that
    takes longer than `BOND_SECONDS` counts as without bonds.
    """
    from symphony.evaluate import pool

    module = "symphony.evaluate.worker"
    most = min(os.cpu_count() or 1, MAX_WORKERS)
    waiting: deque[Sample] = deque()

    def pair(answer: dict[str, Any] | str) -> tuple[Sample, str | None, str]:
        found = {"smiles": None, "sdf": ""} if isinstance(answer, str) else answer
        return waiting.popleft(), found["smiles"], found["sdf"]

    with pool.Stream(module, most, CLOCK_FACTOR * BOND_SECONDS) as stream:
        for sample in samples:
            waiting.append(sample)
            stream.submit(_bond_task(sample))
            yield from map(pair, stream.ready())
        yield from map(pair, stream.rest())


def _bond_task(sample: Sample) -> dict[str, Any]:
    return {
        "preset": BOND_PRESET,
        "time_limit": BOND_SECONDS,
        "atomic_numbers": sample.atomic_numbers.tolist(),
        "positions": sample.positions.tolist(),
        "name": _name(sample),
        "properties": _properties(sample),
    }


def write(output: molfile.Output, sample: Sample, smiles: str | None, sdf: str) -> bool:
    """Appends a molecule to the files; returns whether it is valid."""
    record = _record(sample, smiles)
    names = ("index", "seed", "stopped", "valid", *_numbers(sample))
    frame = molfile.to_extxyz(
        sample.atomic_numbers,
        sample.positions,
        {"name": _name(sample), **{name: record[name] for name in names}},
    )
    molfile.append(output, record, sdf, frame)
    return record["valid"]


def header(
    weights: Weights, options: Options, seed: int, refiner: Refiner | None = None
) -> dict[str, Any]:
    """Returns what decides the molecules, for the head of the manifest."""
    settings = options._asdict()
    core = settings.pop("core")
    if not options.conditions:
        del settings["conditions"]
    if core is not None:
        atoms = zip(core[0].tolist(), core[1].tolist(), strict=True)
        settings["start"] = [[number, *position] for number, position in atoms]
    if refiner is not None:
        settings["refine"] = denoiser.settings_of(refiner)
    return {
        "checkpoint": weights.name,
        "weights_sha256": weights.checksum,
        "config_sha256": weights.config_checksum,
        "seed": seed,
        "settings": settings,
        "bonds": BOND_PRESET,
        "versions": versions("symphony", "jax", "numpy", "rdkit"),
    }


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
    check_numbers(seed, total, arguments.num_slots)
    refiner = None
    if arguments.refine:
        refiner = load_refiner(arguments.refiner, "--refiner")
        check_refiner(weights, options, refiner)
    cli.announce_device()
    head = header(weights, options, seed, refiner)
    with molfile.open_output(arguments.output, head, arguments.overwrite) as output:
        done = output.num_done
        if done >= total:
            sys.stdout.write(f"{arguments.output}: all {done} molecules are done\n")
            return 0
        num_valid = 0
        drawn = draw(weights, options, seed, done, total, arguments.num_slots)
        drawn = refined(drawn, refiner, options)
        with cli.progress(total, "sampling", "molecules", completed=done) as advance:
            for sample, smiles, sdf in with_bonds(drawn):
                num_valid += write(output, sample, smiles, sdf)
                advance()
    before = f", {done} were there before" if done else ""
    sys.stdout.write(
        f"{arguments.output}: {num_valid} valid molecules ({BOND_PRESET}) of "
        f"{total - done}{before}; all, with those that failed, in "
        f"{Path(arguments.output).with_suffix('.extxyz')}\n"
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
        help=f"molecules built at a time (default: {CPU_SLOTS} on a CPU, "
        f"{ACCELERATOR_SLOTS} elsewhere)",
    )
    add("--overwrite", action="store_true", help="replace what --output has")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run("symphony sample", main))
