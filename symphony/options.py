"""Options of the sampler, checked. Positions are in Å."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from common.errors import UsageError
from symphony import asking, data, wishes
from symphony.conditions import check as check_conditions
from symphony.conditions import names_read
from symphony.data.elements import ATOMIC_NUMBERS, SYMBOLS
from symphony.weights import Weights, warn_of_unseen
from symphony.wishes import Wishes

# As a user gives it: atomic numbers and positions, of any type of number.
Given = tuple[Any, Any]
Core = tuple[UInt8[np.ndarray, " num_given"], Float[np.ndarray, "num_given 3"]]


BASIN_TEMPERATURE = 0.1
"""Basin temperature of `--basin`."""

MAX_ATOMS = 500
"""Largest molecule that is built; the sampler keeps features of all pairs."""


class Options(NamedTuple):
    """Options that decide the molecules of a seed, besides the weights.

    Attributes:
        temperature_focus: temperature of stopping, focus and species.
        temperature_position: temperature of the density of positions.
        basin_temperature: temperature of each mode of the position; its weight stays.
        max_atoms: largest size; a molecule that would grow beyond it is ended.
        core: atomic numbers and positions (Å) that every molecule starts from.
        conditions: numbers of the properties that molecules shall have, by name.
        wishes: formula, size, elements and atoms that may grow; see `Wishes`.
        properties: ranges of targets by name of property, which molecules have in
            turn; see `symphony.asking`.
        guidance: strength of the guidance towards them; see `symphony.guidance`.
        candidates: draws for each molecule, of which one is kept; see `asking.nearest`.
    """

    temperature_focus: float
    temperature_position: float
    basin_temperature: float
    max_atoms: int
    core: Core | None
    conditions: dict[str, float]
    wishes: Wishes = Wishes()
    properties: tuple[asking.Asked, ...] = ()
    guidance: float = 1.0
    candidates: int = 1

    @property
    def charge(self) -> int:
        """Charge of every molecule, in e."""
        return round(self.conditions.get("charge", 0.0))


def choose(
    weights: Weights,
    temperature_focus: float = 1.0,
    temperature_position: float = 1.0,
    basin_temperature: float = 1.0,
    max_atoms: int | None = None,
    start: str | None = None,
    fragment: Any = None,
    basin: bool = False,
    conditions: Mapping[str, float] | None = None,
    property: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    guidance: float = 1.0,
    candidates: int = 1,
    charge: int = 0,
    **asked: Any,
) -> Options:
    """Checks what is asked of a sampler.

    Args:
        weights: trained model.
        temperature_focus: temperature of stopping, focus and species.
        temperature_position: inverse of the power of the density of positions.
        basin_temperature: temperature of each mode of the position; its weight stays.
        max_atoms: largest number of atoms; the config's where None.
        start: symbol of the element of the first atom.
        fragment: file with one molecule (.sdf, .xyz, .npz), or its atomic numbers
            and positions in Å, or an RDKit molecule with a conformer. Its atoms come
            first and never move.
        basin: true for a basin temperature of `BASIN_TEMPERATURE`.
        conditions: numbers by the names of conditions; others are unknown.
        property: targets by the names of properties, each a number, a pair of numbers
            to draw from, or a word as `2:3`; in the units of the training data. Of
            several such mappings, molecules have one each, in turn.
        guidance: strength of the guidance towards them; 1 is the law as trained.
        candidates: draws for each molecule; the one that the network foresees nearest
            to the targets is kept.
        charge: charge of every molecule, in e.
        **asked: what molecules shall be: `formula`, `num_atoms`, `max_heavy`,
            `elements`, `attach`, `keep_hydrogens`; see `symphony.wishes.read`.

    Raises:
        UsageError: A value is out of range, or the fragment cannot be used.
    """
    config = weights.config
    if basin and basin_temperature == 1.0:
        basin_temperature = BASIN_TEMPERATURE
    temperatures = (temperature_focus, temperature_position, basin_temperature)
    _check_temperatures(*temperatures)
    if max_atoms is None:
        max_atoms = int(config.sample.max_atoms)
    if not 1 <= max_atoms <= MAX_ATOMS:
        raise UsageError(f"--max_atoms: expected 1 to {MAX_ATOMS}, found {max_atoms}")
    given = {name: float(value) for name, value in (conditions or {}).items()}
    given |= _charge_of(charge, given, weights)
    check_conditions(given, names_read(config), weights.name)
    targets = asking.read(property, guidance, weights, candidates)
    wanted = wishes.read(**asked)
    core = _choose_core(weights, max_atoms, start, fragment, wanted)
    _check_wishes(wanted, weights, max_atoms, core)
    return Options(*temperatures, max_atoms, core, given, wanted, *targets)


def _charge_of(
    charge: int, given: Mapping[str, float], weights: Weights
) -> dict[str, float]:
    """Returns the condition of the charge, of weights that are given one."""
    if "charge" in given:
        raise UsageError("--condition: expected no charge, found one; use --charge")
    if "charge" in names_read(weights.config):
        return {"charge": float(charge)}
    if charge:
        raise UsageError(
            f"--charge: expected 0, as {weights.name} was trained on neutral molecules "
            f"alone, found {charge}; choose other weights by --checkpoint"
        )
    return {}


def _check_wishes(
    wanted: Wishes, weights: Weights, max_atoms: int, core: Core | None
) -> None:
    if not wanted:
        return
    species = tuple(weights.config.data.species)
    if core is None:
        wishes.check(wanted, weights, max_atoms)
        return
    wishes.check_attach(wanted, *core, species)
    wishes.check(wanted, weights, max_atoms, wishes.staying(wanted, *core))
    if _cannot_grow(wanted, weights.config.data, core[0]):
        raise UsageError(
            "--formula: expected a fragment without hydrogens, which these weights "
            "place last, found some; name by --attach the atoms that may grow, and the "
            "hydrogens are set aside"
        )


def check_change(
    wanted: Wishes, weights: Weights, max_atoms: int, core: Core, name: str
) -> None:
    """Refuses what cannot become of the molecule of a name; see `wishes.check`."""
    table = tuple(weights.config.data.species)
    molecule = data.make_molecules(np.array([len(core[0])]), *core)
    try:
        _check_geometry(molecule, weights.config, "atoms that stay")
        wishes.check_attach(wanted, *core, table)
        wishes.check(wanted, weights, max_atoms, wishes.staying(wanted, *core))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _cannot_grow(wanted: Wishes, config: Any, numbers: UInt8[np.ndarray, " n"]) -> bool:
    """Returns whether heavy atoms have to come that cannot: after a hydrogen."""
    if wanted.formula is None or wanted.attach is not None or not config.heavy_first:
        return False
    own = np.sum(numbers > 1)
    heavy = sum(count for number, count in wanted.formula.items() if number > 1)
    return bool(np.any(numbers == 1) and heavy > own)


def _check_temperatures(focus: float, position: float, basin: float) -> None:
    names = ("temperature_focus", "temperature_position", "basin_temperature")
    for name, value in zip(names, (focus, position, basin), strict=True):
        if not 1e-6 <= value <= 1e6:
            raise UsageError(f"--{name}: expected 1e-6 to 1e6, found {value}")
    if position != 1.0 and basin != 1.0:
        raise UsageError(
            "expected one of --temperature_position and --basin_temperature, found both"
        )


def _choose_core(
    weights: Weights,
    max_atoms: int,
    start: str | None,
    fragment: Any,
    wanted: Wishes,
) -> Core | None:
    """Returns the atoms that molecules start from; see `choose`."""
    if start is not None and fragment is not None:
        raise UsageError("expected one of --start and --fragment, found both")
    data_config = weights.config.data
    if hasattr(fragment, "GetConformer"):
        fragment = of_rdkit(fragment)
    if start is not None:
        core = _single_atom(start, data_config)
    elif isinstance(fragment, tuple):
        core = _check_core(*fragment, weights, max_atoms)
    elif fragment is not None:
        core = _read_core(fragment, weights, max_atoms)
    else:
        return None
    warn_of_unseen(weights, core[0], "start" if start else "fragment")
    if wanted.attach is None:
        _warn_of_hydrogens(data_config, core[0])
    return core


def _warn_of_hydrogens(config: Any, atomic_numbers: UInt8[np.ndarray, " n"]) -> None:
    """Logs that a fragment with hydrogens will get no heavy atom, if it is so."""
    if config.heavy_first and np.any(atomic_numbers == 1):
        logging.warning(
            "fragment: it has hydrogens, and these weights place every heavy atom "
            "before the first hydrogen: only hydrogens will be added; leave all of "
            "them out for the fragment to grow, or name the atoms that may by --attach"
        )


def of_rdkit(mol: Any, what: str = "fragment") -> Given:
    """Returns atomic numbers and positions of an RDKit molecule's first conformer."""
    if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        raise UsageError(
            f"{what}: expected a molecule with a conformer in three dimensions, found "
            "none"
        )
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return np.array(numbers, np.int64), mol.GetConformer().GetPositions()


def _single_atom(symbol: str, config: Any) -> Core:
    number = ATOMIC_NUMBERS.get(symbol.capitalize(), 0)
    heavy = tuple(n for n in config.species if n > 1)
    # Where heavy atoms come first, nothing was ever built from a hydrogen.
    possible = heavy if config.heavy_first and heavy else tuple(config.species)
    if number not in possible:
        known = ", ".join(SYMBOLS[n - 1] for n in possible)
        raise UsageError(f"--start: expected one of {known}; found {symbol!r}")
    return np.array([number], np.uint8), np.zeros((1, 3), np.float32)


def _read_core(path: str | os.PathLike[str], weights: Weights, max_atoms: int) -> Core:
    species = tuple(weights.config.data.species)
    # One atom less: a fragment that leaves no room could not be continued.
    molecules, _ = data.read_molecules(
        Path(path), species, max_atoms - 1, strict=True, part=True
    )
    if len(molecules.num_atoms) != 1:
        raise UsageError(
            f"{path}: expected one molecule to start from, "
            f"found {len(molecules.num_atoms)}; give a file of one of them"
        )
    _check_geometry(molecules, weights.config, str(path))
    return molecules.atomic_numbers, molecules.positions


def _check_core(
    atomic_numbers: Any, positions: Any, weights: Weights, max_atoms: int
) -> Core:
    """Screens a fragment given as arrays like one from a file."""
    species = tuple(weights.config.data.species)
    numbers, positions = to_arrays(atomic_numbers, positions)
    molecules = data.make_molecules(np.array([len(numbers)]), numbers, positions)
    records = data.Records(molecules, None, ())
    data.screen(records, species, max_atoms - 1, "fragment", strict=True)
    _check_geometry(molecules, weights.config, "fragment")
    return molecules.atomic_numbers, molecules.positions


def to_arrays(atomic_numbers: Any, positions: Any) -> Core:
    """Returns atoms that a user gave as arrays of the ordinary types."""
    numbers = np.asarray(atomic_numbers)
    if numbers.dtype.kind not in "iu" or np.any((numbers < 1) | (numbers > 118)):
        raise UsageError(
            "fragment: expected atomic numbers, integers of 1 to 118, found "
            f"{numbers.tolist()}"
        )
    numbers = numbers.astype(np.uint8)
    try:
        positions = np.asarray(positions, np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(f"fragment: expected positions in Å ({error})") from error
    if positions.shape != (*numbers.shape, 3):
        raise UsageError(
            "fragment: expected an atomic number and three coordinates for each atom, "
            f"found shapes {numbers.shape} and {positions.shape}"
        )
    return numbers, positions


def _check_geometry(core: data.Molecules, config: Any, source: str) -> None:
    """Raises `UsageError` for atoms too close for any step, or in parts."""
    closest, cutoff = float(config.model.min_radius), float(config.data.cutoff)
    if data.coincident(core, closest)[0]:
        raise UsageError(
            f"{source}: expected atoms at least {closest} Å apart, as the model places "
            "them, found two that are closer"
        )
    if data.unreachable(core, 0.0, cutoff, heavy_first=False)[0]:
        raise UsageError(
            f"{source}: expected atoms that hang together over steps below {cutoff} Å, "
            "found parts"
        )
