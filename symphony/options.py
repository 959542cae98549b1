"""What is asked of the sampler besides the weights, checked. Positions are in Å."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from common import cli
from symphony import data
from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS
from symphony.weights import Weights

# As a user gives it: atomic numbers and positions, of any type of number.
Given = tuple[Any, Any]
Core = tuple[UInt8[np.ndarray, " num_given"], Float[np.ndarray, "num_given 3"]]


class Options(NamedTuple):
    """What decides the molecules of a seed, besides the weights.

    Attributes:
        temperature_focus: Of stopping, focus and species.
        temperature_position: Of the density of positions.
        basin_temperature: Narrows every mode of the position, keeps its weight.
        max_atoms: A molecule that reaches it without stopping is ended.
        core: Atomic numbers and positions (Å) that every molecule starts from.
    """

    temperature_focus: float
    temperature_position: float
    basin_temperature: float
    max_atoms: int
    core: Core | None


def choose(
    weights: Weights,
    temperature_focus: float = 1.0,
    temperature_position: float = 1.0,
    basin_temperature: float = 1.0,
    max_atoms: int | None = None,
    start: str | None = None,
    fragment: str | os.PathLike[str] | Given | None = None,
) -> Options:
    """Checks what is asked of a sampler.

    Args:
        weights: The trained model.
        temperature_focus: Of stopping, focus and species.
        temperature_position: The density of positions is raised to its inverse.
        basin_temperature: Narrows every mode of the position, keeps its weight.
        max_atoms: Largest size; the config's where None.
        start: Symbol of the element of the first atom.
        fragment: A file with one molecule (.sdf, .xyz, .npz), or its atomic numbers
            and positions in Å. Its atoms come first and never move.

    Raises:
        UsageError: A value is out of range, or the fragment cannot be used.
    """
    config = weights.config
    temperatures = {
        "temperature_focus": temperature_focus,
        "temperature_position": temperature_position,
        "basin_temperature": basin_temperature,
    }
    for name, value in temperatures.items():
        if not 0.0 < value < np.inf:
            raise cli.UsageError(f"--{name}: expected a number above 0, found {value}")
    if temperature_position != 1.0 and basin_temperature != 1.0:
        raise cli.UsageError(
            "expected one of --temperature_position and --basin_temperature, found both"
        )
    if max_atoms is None:
        max_atoms = int(config.sample.max_atoms)
    if not 1 <= max_atoms <= 10_000:
        raise cli.UsageError(f"--max_atoms: expected 1 to 10000, found {max_atoms}")
    if start is not None and fragment is not None:
        raise cli.UsageError("expected one of --start and --fragment, found both")
    core = None
    if start is not None:
        core = _single_atom(start, tuple(config.data.species))
    elif isinstance(fragment, tuple):
        core = _check_core(*fragment, weights, max_atoms)
    elif fragment is not None:
        core = _read_core(fragment, weights, max_atoms)
    return Options(**temperatures, max_atoms=max_atoms, core=core)


def _single_atom(symbol: str, species_table: tuple[int, ...]) -> Core:
    number = ATOMIC_NUMBERS.get(symbol.capitalize(), 0)
    if number not in species_table:
        known = ", ".join(SYMBOLS[n - 1] for n in species_table)
        raise cli.UsageError(f"--start: expected one of {known}; found {symbol!r}")
    return np.array([number], np.uint8), np.zeros((1, 3), np.float32)


def _read_core(path: str | os.PathLike[str], weights: Weights, max_atoms: int) -> Core:
    species = tuple(weights.config.data.species)
    # One atom less: a fragment that leaves no room could not be continued.
    found, _ = data.read_molecules(Path(path), species, max_atoms - 1, strict=True)
    if len(found.num_atoms) != 1:
        raise cli.UsageError(
            f"{path}: expected one molecule to start from, found {len(found.num_atoms)}"
        )
    _check_connected(found.positions, weights.config.data.cutoff, str(path))
    return found.atomic_numbers, found.positions


def _check_core(
    atomic_numbers: Any, positions: Any, weights: Weights, max_atoms: int
) -> Core:
    """Screens a fragment given as arrays like one from a file."""
    species = tuple(weights.config.data.species)
    numbers = np.asarray(atomic_numbers, np.uint8)
    positions = np.asarray(positions, np.float32)
    if positions.shape != (*numbers.shape, 3):
        raise cli.UsageError(
            "fragment: expected an atomic number and three coordinates for each atom, "
            f"found shapes {numbers.shape} and {positions.shape}"
        )
    molecules = data.make_molecules(np.array([len(numbers)]), numbers, positions)
    records = data.Records(molecules, None, ())
    data.molecules.screen(records, species, max_atoms - 1, "fragment", strict=True)
    _check_connected(molecules.positions, weights.config.data.cutoff, "fragment")
    return molecules.atomic_numbers, molecules.positions


def _check_connected(
    positions: Float[np.ndarray, "num_atoms 3"], cutoff: float, source: str
) -> None:
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    near = distances < cutoff
    reached = near[0]
    for _ in range(len(positions)):
        reached = near[reached].any(axis=0)
    if not reached.all():
        raise cli.UsageError(
            f"{source}: expected atoms that hang together over steps below {cutoff} Å, "
            f"found {int(reached.sum())} of {len(reached)} within reach of the first"
        )
