"""One molecule step by step, as a page has it: its order, and what the network says.

A file of `symphony sample` has the atoms in the order in which they were placed; for
any other an order is drawn by the law of training. Positions are in Å.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Int

from common.commands.reading import DAMAGE, parse_json
from common.errors import UsageError
from common.pages import embed
from symphony import build, data
from symphony.arrays import AtomicNumbers, HostPositions
from symphony.conditions import names_of, some_known
from symphony.data.elements import SYMBOLS
from symphony.evaluate.samples import Samples
from symphony.model import Symphony
from symphony.view import cards, steps
from symphony.weights import Weights, load_weights

MAX_ATOMS = 200
"""Largest molecule that is shown; the network keeps features of all pairs."""

_FOLDER = Path(__file__).parent
_LOG_UNIT = 0.001


class Origin(NamedTuple):
    """How a molecule came to be.

    Attributes:
        is_sampled: true if `symphony sample` wrote it, in the order of placement.
        header: head of the manifest; empty where there is none.
        num_given: atoms of the user's fragment, which come first.
    """

    is_sampled: bool
    header: Mapping[str, Any]
    num_given: int


def origin_of(drawn: Samples) -> Origin:
    """Returns how the molecules of a file came to be, by the manifest beside it."""
    if drawn.manifest is None:
        return Origin(False, {}, 0)
    with Path(drawn.source).with_suffix(".jsonl").open("rb") as file:
        try:
            header = parse_json(file.readline())
            given = len(header.get("settings", {}).get("start", ()))
        except DAMAGE:
            return Origin(False, {}, 0)
    # Refined molecules are of any file, in the order of that.
    is_sampled = "settings" in header and "molecules_sha256" not in header
    return Origin(is_sampled, header if is_sampled else {}, given if is_sampled else 0)


def choose_weights(origin: Origin, checkpoint: str | None) -> Weights:
    """Returns the weights that drew a molecule, or those asked for.

    Raises:
        UsageError: They cannot be loaded, or are of another kind of model.
    """
    weights = load_weights(checkpoint or origin.header.get("checkpoint", "qm9"))
    if not isinstance(weights.model, Symphony):
        raise UsageError(
            f"--checkpoint: expected weights of kind symphony, found {weights.name} of "
            f"kind {weights.config.kind}"
        )
    drew = origin.header.get("weights_sha256", weights.checksum)
    if drew != weights.checksum:
        logging.warning(
            "the molecules were drawn by other weights than %s; give --checkpoint with "
            "those for their own probabilities",
            weights.name,
        )
    return weights


def make(
    drawn: Samples, index: int, weights: Weights, origin: Origin, seed: int
) -> dict[str, Any]:
    """Returns all steps of a molecule as JSON values; see `build_up.js`.

    Args:
        drawn: molecules of a file.
        index: number of the molecule.
        weights: trained model.
        origin: how the molecules came to be.
        seed: seed of a drawn order, and of the positions drawn at each step.

    Raises:
        UsageError: There is no such molecule, or the network cannot build it.
    """
    numbers, positions = _atoms_of(drawn, index, weights)
    order = _order_of(weights, numbers, positions, origin, seed)
    is_own = origin.is_sampled and np.array_equal(order, np.arange(len(order)))
    numbers, positions = numbers[order], positions[order]
    first, found = _evaluate(weights, numbers, positions, origin, seed)
    symbols = [SYMBOLS[number - 1] for number in weights.config.data.species]
    axes = cards.axes_of(positions)
    seen = steps.directions() @ axes
    count = len(numbers)
    return {
        "name": str(drawn.names[index]),
        "checkpoint": weights.name,
        "order": "file" if is_own else "drawn",
        "is_refined": "refine" in origin.header.get("settings", {}),
        "stopped": not is_own or drawn.manifest[index].get("stopped") is not False,
        "num_given": origin.num_given if is_own else 0,
        "atoms": order.tolist(),
        "species": symbols,
        "first": np.round(np.asarray(first), 5).tolist(),
        "directions": embed.pack(seen, 0.001),
        "log_unit": _LOG_UNIT,
        **cards.picture(numbers, positions),
        "steps": [_to_json(found, step, axes, count) for step in range(count)],
    }


def _atoms_of(
    drawn: Samples, index: int, weights: Weights
) -> tuple[AtomicNumbers, HostPositions]:
    total = len(drawn.shown)
    if index >= total:
        raise UsageError(
            f"--build_up: expected 0 to {total - 1}, a molecule of {drawn.source}, "
            f"found {index}"
        )
    numbers, positions = drawn.shown[index]
    known = tuple(weights.config.data.species)
    unknown = sorted({*numbers.tolist()} - {*known})
    names = ", ".join(SYMBOLS[number - 1] for number in known)
    if unknown or not np.all(np.isfinite(positions)):
        found = ", ".join(_symbol(number) for number in unknown)
        raise UsageError(
            f"--build_up: expected atoms of {names} that {weights.name} knows, at "
            f"finite positions, found {found or 'others'} in molecule {index}"
        )
    if not 1 <= len(numbers) <= MAX_ATOMS:
        raise UsageError(
            f"--build_up: expected 1 to {MAX_ATOMS} atoms, found {len(numbers)} in "
            f"molecule {index}"
        )
    return numbers, positions.astype(np.float32)


def _symbol(number: int) -> str:
    return SYMBOLS[number - 1] if 0 < number <= len(SYMBOLS) else f"element {number}"


def _order_of(
    weights: Weights,
    numbers: AtomicNumbers,
    positions: HostPositions,
    origin: Origin,
    seed: int,
) -> Int[np.ndarray, " num_atoms"]:
    """Returns the order of placement: of the file where it is one, else a drawn one."""
    order = np.arange(len(numbers))
    if origin.is_sampled and _can_be_placed(weights, positions):
        return order
    config = ml_collections.FrozenConfigDict(weights.config)
    arrays = _padded(weights, numbers, positions)
    draw = jax.jit(build.draw_cut, static_argnums=0)
    drawn = draw(config, jax.random.key(seed), *arrays)
    if not bool(drawn.complete):
        raise UsageError(
            "--build_up: expected atoms that hang together over the steps of "
            f"{weights.name}, below {config.data.cutoff} Å, found parts"
        )
    return np.asarray(drawn.order)[: len(numbers)]


def _can_be_placed(weights: Weights, positions: HostPositions) -> bool:
    """Returns whether each atom has an earlier one at a distance of a step."""
    lengths = np.linalg.norm(positions[:, None] - positions, axis=-1)
    low, high = weights.model.min_radius, weights.model.max_radius
    near = np.tril((lengths > low) & (lengths < high), -1)
    return bool(np.all(near[1:].any(axis=1)))


def _padded(
    weights: Weights, numbers: AtomicNumbers, positions: HostPositions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns centred positions, species and mask; similar sizes share a program."""
    count, missing = len(numbers), -len(numbers) % 8
    centred = (positions - positions.mean(axis=0)).astype(np.float32)
    species = data.to_species(numbers, tuple(weights.config.data.species))
    return (
        np.pad(centred, ((0, missing), (0, 0))),
        np.pad(species, (0, missing)),
        np.arange(count + missing) < count,
    )


def _evaluate(
    weights: Weights,
    numbers: AtomicNumbers,
    positions: HostPositions,
    origin: Origin,
    seed: int,
) -> tuple[Any, steps.Step]:
    config = weights.config
    asked = origin.header.get("settings", {}).get("conditions", {})
    given = {"noise_std": config.sample.noise_std, **asked}
    conditions = some_known(given, names_of(config))
    arrays = _padded(weights, numbers, positions)
    run = steps.make_steps(weights.model)
    first, found = run(weights.params, *arrays, conditions, jax.random.key(seed))
    return first, jax.tree.map(np.asarray, found)


def _to_json(
    found: steps.Step, step: int, axes: np.ndarray, count: int
) -> dict[str, Any]:
    """Returns one step; with all atoms placed there is nothing more to place."""
    one = jax.tree.map(lambda x: x[step], found)
    chances = one.focus_species[: step + 1]
    said = {
        "stop": round(float(one.stop), 5),
        "species": np.round(chances.sum(axis=0), 5).tolist(),
        "foci": np.round(chances.sum(axis=1), 5).tolist(),
    }
    if step + 1 == count:
        return said
    total = float(one.log_likelihood)
    shells = [
        {
            "radius": round(float(radius), 3),
            "height": round(float(height), 3),
            "values": embed.pack(np.clip(values, -30.0, 30.0), _LOG_UNIT),
        }
        for radius, height, values in zip(
            one.radii, one.heights, one.shells, strict=True
        )
        if height > 0
    ]
    return {
        **said,
        "focus": int(one.focus),
        "log_likelihood": round(total, 3) if np.isfinite(total) else None,
        "shells": shells,
        "draws": embed.pack(one.draws @ axes),
    }


def to_html(built: Mapping[str, Any]) -> str:
    """Returns the molecule step by step, with its data and scripts."""
    scripts = (embed.SHARED, _FOLDER / "build_up.js")
    return "\n".join(
        [
            embed.style(_FOLDER / "build_up.css"),
            embed.block("build-up", built),
            '<section class="steps" data-of="build-up"></section>',
            *map(embed.script, scripts),
        ]
    )
