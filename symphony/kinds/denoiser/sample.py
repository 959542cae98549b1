r"""Refines molecules: lays a little noise over them and takes it off again.

The noise drowns the errors that a molecule came with, and what takes it off is a
denoiser that knows how molecules are, from $\sigma$ down to the least noise of its
training; it is applied there a few times more. What is larger
than the noise, bonds and shape, stays (as in Meng et al. 2022, arXiv:2108.01073, for
pictures). Atoms that are fixed have no noise and never move. Positions are in Å.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float, Integer, UInt8

from common.errors import UsageError
from common.generative import denoising
from common.generative.schedules import karras_schedule
from common.geometry import alignment
from common.runs import weights
from symphony.arrays import NodeMask, Positions, RandomKey, Species
from symphony.data.elements import SYMBOLS
from symphony.data.molecules import to_species
from symphony.kinds.denoiser.build import make_model
from symphony.kinds.denoiser.model import Denoiser, precision_of
from symphony.weights import PRETRAINED, unseen_of

BATCH = 32
"""Molecules at a time; with few of one size some are computed in vain."""

SIZE_STEP = 8
"""Atoms; molecules are padded to a multiple, for which one program serves."""


class Refiner(NamedTuple):
    """A trained denoiser, and how it is used.

    Attributes:
        name: name of the weights, as the user gave it.
        checksum: SHA-256 of the parameters.
        species: atomic numbers in the species table.
        unseen: atomic numbers of the table that no molecule of the training data had.
        model: network.
        params: averaged parameters.
        noise: noise that is laid over a molecule, in Å.
        num_steps: levels of noise on the way back.
        method: one of `denoising.METHODS`.
        num_final: denoisings at the least noise, at the end.
    """

    name: str
    checksum: str
    species: tuple[int, ...]
    unseen: tuple[int, ...]
    model: Denoiser
    params: Any
    noise: float
    num_steps: int
    method: str
    num_final: int


def load_refiner(
    name_or_path: str | os.PathLike[str] = "refine_qm9",
    flag: str = "--checkpoint",
    noise: float | None = None,
    num_steps: int | None = None,
    method: str | None = None,
) -> Refiner:
    """Loads a denoiser and checks how it is to be used.

    Args:
        name_or_path: packaged weights or the folder of a run.
        flag: flag that the user gave it to, for the message of an error.
        noise: noise in Å; the config's where None, as the rest.
        num_steps: levels of noise.
        method: one of `denoising.METHODS`.

    Raises:
        UsageError: There are no such weights, or a number is out of range.
    """
    trained = weights.load(name_or_path, PRETRAINED, ("denoiser",), flag)
    config = trained.config
    chosen = {"noise": noise, "num_steps": num_steps, "method": method}
    chosen = {k: config.refine[k] if v is None else v for k, v in chosen.items()}
    _check_use(config, name_or_path, **chosen)
    return Refiner(
        name=trained.name,
        checksum=trained.checksum,
        species=tuple(config.data.species),
        unseen=weights.build(trained, unseen_of),
        model=weights.build(trained, lambda trained: make_model(trained.config)),
        params=trained.params,
        num_final=int(config.refine.num_final),
        **chosen,
    )


def _check_use(
    config: ml_collections.ConfigDict,
    name: str | os.PathLike[str],
    noise: float,
    num_steps: int,
    method: str,
) -> None:
    """Raises `UsageError` for a use that the weights of a name are not made for."""
    low, high = float(config.loss.min_noise), float(config.loss.max_noise)
    if not low <= noise <= high:
        raise UsageError(
            f"noise of refinement: expected {low:g} to {high:g} Å, in which "
            f"{name} was trained, found {noise:g}"
        )
    if num_steps < 1:
        raise UsageError(f"--num_steps: expected 1 or more, found {num_steps}")
    if method not in denoising.METHODS:
        raise UsageError(
            f"--method: expected one of {', '.join(denoising.METHODS)}, found {method}"
        )


def settings_of(refiner: Refiner) -> dict[str, Any]:
    """Returns what decides refined molecules, for the head of a manifest."""
    return {
        "weights_sha256": refiner.checksum,
        "noise": refiner.noise,
        "num_steps": refiner.num_steps,
        "method": refiner.method,
        "num_final": refiner.num_final,
    }


def check_species(
    refiner: Refiner, atomic_numbers: Sequence[int] | UInt8[np.ndarray, " n"], what: str
) -> None:
    """Raises `UsageError` if there are elements that the denoiser does not know.

    Warns of those that it knows by name only.
    """
    names = lambda numbers: ", ".join(SYMBOLS[n - 1] for n in sorted(numbers))
    given = {*map(int, atomic_numbers)}
    if unseen := given & {*refiner.unseen}:
        logging.warning(
            "%s: no molecule that the weights %s were trained on has %s; what they do "
            "with it means little",
            what, refiner.name, names(unseen),
        )  # fmt: skip
    if unknown := given - {*refiner.species}:
        raise UsageError(
            f"{what}: expected elements that {refiner.name} was trained on "
            f"({names(refiner.species)}), found {names(unknown)}"
        )


def start_of_batch(index: int) -> int:
    """Returns the first molecule of the batch that a molecule is refined in.

    >>> start_of_batch(70)
    64
    """
    return index // BATCH * BATCH


def refine(
    refiner: Refiner,
    atomic_numbers: Sequence[UInt8[np.ndarray, " _num_atoms"]],
    positions: Sequence[Float[np.ndarray, "_num_atoms 3"]],
    fixed: Sequence[Bool[np.ndarray, " _num_atoms"]],
    indices: Sequence[int],
    seed: int,
) -> list[Float[np.ndarray, "_num_atoms 3"]]:
    """Returns the refined positions of at most `BATCH` molecules.

    Args:
        refiner: denoiser and its use, see `load_refiner`.
        atomic_numbers: atomic numbers of each molecule.
        positions: positions of the atoms, in Å.
        fixed: true for atoms that stay where they are.
        indices: numbers of the molecules; with the seed they decide the noise, whatever
            else is in the batch.
        seed: seed of the noise.
    """
    sizes = np.array([len(numbers) for numbers in atomic_numbers])
    capacity = int(-(-sizes.max() // SIZE_STEP) * SIZE_STEP)
    species = np.zeros((BATCH, capacity), np.int32)
    y = np.zeros((BATCH, capacity, 3), np.float32)
    is_fixed = np.zeros((BATCH, capacity), bool)
    for row, numbers in enumerate(atomic_numbers):
        atoms = row, slice(len(numbers))
        species[atoms] = to_species(numbers, refiner.species)
        y[atoms] = positions[row]
        is_fixed[atoms] = fixed[row]
    node_mask = np.arange(capacity) < np.pad(sizes, (0, BATCH - len(sizes)))[:, None]
    order = np.pad(np.asarray(indices, np.uint32), (0, BATCH - len(sizes)))
    levels = karras_schedule(refiner.num_steps, refiner.noise, refiner.model.min_noise)
    moved = _refine(
        refiner.model, refiner.method, refiner.params, levels, refiner.num_final,
        jax.random.key(seed), order, species, y, node_mask, is_fixed,
    )  # fmt: skip
    rows = zip(fixed, positions, np.asarray(moved)[: len(sizes)], strict=True)
    return [
        np.where(stays[:, None], before, after[: len(before)]).astype(np.float32)
        for stays, before, after in rows
    ]


@partial(jax.jit, static_argnums=(0, 1))
def _refine(
    model: Denoiser,
    method: str,
    params: Any,
    levels: Float[Array, " num_levels"],
    num_final: Integer[Array, ""] | int,
    key: RandomKey,
    indices: Integer[Array, " batch"],
    *molecules: Any,
) -> Float[Array, "batch num_nodes 3"]:
    def one(
        index: Integer[Array, ""],
        species: Species,
        x: Positions,
        node_mask: NodeMask,
        fixed: NodeMask,
    ) -> Positions:
        key_start, key_steps = jax.random.split(jax.random.fold_in(key, index))
        free = node_mask & ~fixed

        def draw_noise(key: RandomKey) -> Positions:
            noise = jnp.where(free[:, None], jax.random.normal(key, x.shape), 0.0)
            noise, _ = alignment.center(noise, node_mask, precision_of(fixed))
            return jnp.where(free[:, None], noise, 0.0)

        denoise = lambda y, sigma: model.apply(
            params, species, y, sigma, node_mask, fixed
        )
        start = x + levels[0] * draw_noise(key_start)
        y = denoising.sample(denoise, start, levels, method, draw_noise, key_steps)
        least = jnp.float32(model.min_noise)
        return jax.lax.fori_loop(0, num_final, lambda _, y: denoise(y, least), y)

    return jax.vmap(one)(indices, *molecules)
