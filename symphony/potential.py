r"""Energy models in use: weights, structures of any size, energies, forces, curvature.

`answer(load_potential("workdir/energy_qm9"), numbers, positions)` gives energy and
forces. Structures are padded to a few sizes, for each of which one program is compiled.
Å, eV.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Num

from common.commands import cli
from common.errors import UsageError
from common.nn.energy import (
    EnergyModel,
    Prediction,
    Structure,
    hessian_vector,
    make_structure,
    predict,
)
from common.nn.neighbours import Neighbours
from common.runs import weights
from symphony.data.elements import SYMBOLS
from symphony.data.molecules import to_species
from symphony.kinds.energy.build import make_model
from symphony.weights import PRETRAINED

ATOMS, NEIGHBOURS = 8, 16
"""Numbers of which the padded sizes are multiples."""

Numbers = Integer[np.ndarray, " num_atoms"]
HostPositions = Num[np.ndarray, "num_atoms 3"]
Cell = Num[np.ndarray, "3 3"] | None


class Potential(NamedTuple):
    """A trained energy model.

    Attributes:
        name: name as the user gave it.
        model: network, which gives energies relative to lone atoms.
        params: averaged parameters.
        atom_energies: energy of a lone atom of each species, in eV.
    """

    name: str
    model: EnergyModel
    params: Any
    atom_energies: tuple[float, ...]


class Answer(NamedTuple):
    """What a structure has.

    Attributes:
        energy: energy in eV, in double precision: a total of thousands of eV has
            errors of meV in single precision.
        forces: forces in eV/Å.
        stress: stress in eV/Å³, positive under tension; None if nothing is periodic.
    """

    energy: float
    forces: Float[Array, "num_atoms 3"]
    stress: Float[Array, "3 3"] | None


def load_potential(
    name_or_path: str | os.PathLike[str], flag: str = "--checkpoint"
) -> Potential:
    """Loads packaged weights by their name, or any by the path of their folder.

    Args:
        name_or_path: name, or path as `workdir/energy_qm9`.
        flag: flag that the user gave it to, for the message of an error.

    Raises:
        UsageError: There are no such weights, or they are of another kind.
    """
    trained = weights.load(name_or_path, PRETRAINED, ("energy",), flag)
    model = weights.build(trained, lambda trained: make_model(trained.config))
    lone = tuple(trained.config.data.atom_energies)
    return Potential(trained.name, model, trained.params, lone)


def structure_of(
    potential: Potential, numbers: Numbers, positions: HostPositions, cell: Cell = None
) -> Structure:
    """Returns a structure, padded.

    Args:
        potential: energy model, whose cutoff and species count.
        numbers: atomic numbers.
        positions: positions in Å.
        cell: cell vectors as rows, in Å; None if nothing is periodic.

    Raises:
        UsageError: It has elements that the model does not know.
    """
    species = to_species(numbers, potential.model.atomic_numbers)
    if (species < 0).any():
        names = lambda found: ", ".join(SYMBOLS[n - 1] for n in sorted(found))
        unknown = {*np.asarray(numbers)[species < 0].tolist()}
        raise UsageError(
            f"expected elements that {potential.name} was trained on "
            f"({names(potential.model.atomic_numbers)}), found {names(unknown)}"
        )
    found = make_structure(positions, species, potential.model.cutoff, cell, NEIGHBOURS)
    missing = -len(numbers) % ATOMS
    pad = lambda a: jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1))
    near = Neighbours(*map(pad, found.neighbours))
    rows = {name: pad(getattr(found, name)) for name in ("positions", "species")}
    return found._replace(neighbours=near, node_mask=pad(found.node_mask), **rows)


def answer(
    potential: Potential, numbers: Numbers, positions: HostPositions, cell: Cell = None
) -> Answer:
    """Returns energy, forces and stress; arguments as of `structure_of`."""
    structure = structure_of(potential, numbers, positions, cell)
    found = _predict(potential.model, potential.params, structure)
    species = to_species(numbers, potential.model.atomic_numbers)
    lone = sum(potential.atom_energies[index] for index in species)
    energy = float(found.energy) + lone
    return Answer(energy, found.forces[: len(numbers)], found.stress)


def curvature(
    potential: Potential, numbers: Numbers, positions: HostPositions, cell: Cell = None
) -> Float[np.ndarray, "num_coordinates num_coordinates"]:
    """Returns the Hessian in eV/Å², a column at a time; arguments as of `answer`."""
    structure = structure_of(potential, numbers, positions, cell)
    size = positions.size
    units = np.eye(size, structure.positions.size, dtype=np.float32)
    columns = [
        _column(potential.model, potential.params, structure, unit.reshape(-1, 3))
        for unit in units
    ]
    matrix = np.stack(columns).reshape(size, -1)[:, :size]
    return (matrix + matrix.T) / 2.0


def export(
    potential: Potential,
    path: Path,
    num_atoms: int,
    num_neighbours: int,
    periodic: bool,
) -> None:
    """Writes a program of energy and forces that JAX runs without this project.

    Its arguments are positions, species, mask, senders, shifts, mask of the edges and,
    where periodic, the cell; its energy is relative to lone atoms.
    `jax.export.deserialize(path.read_bytes()).call` runs it.

    Args:
        potential: energy model; its parameters are in the program.
        path: file to write.
        num_atoms: atoms of a structure, the padded ones included.
        num_neighbours: neighbours of each.
        periodic: true for structures with a cell.
    """
    shape = jax.ShapeDtypeStruct
    edges = num_atoms, num_neighbours
    arguments = [
        shape((num_atoms, 3), jnp.float32), shape((num_atoms,), jnp.int32),
        shape((num_atoms,), bool), shape(edges, jnp.int32),
        shape((*edges, 3), jnp.float32), shape(edges, bool),
    ]  # fmt: skip
    arguments += [shape((3, 3), jnp.float32)] if periodic else []

    def run(*arrays: Array) -> tuple[Array | None, ...]:
        positions, species, mask, senders, shifts, near, *cell = arrays
        table = Neighbours(senders, shifts, near)
        structure = Structure(positions, species, mask, table, *cell)
        return tuple(_predict(potential.model, potential.params, structure))

    program = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))
    with cli.atomic_path(path) as partial_path:
        partial_path.write_bytes(program(*arguments).serialize())


def _energy(model: EnergyModel, params: Any, structure: Structure) -> Float[Array, ""]:
    return jnp.sum(model.apply(params, structure).energy)


@partial(jax.jit, static_argnums=0)
def _predict(model: EnergyModel, params: Any, structure: Structure) -> Prediction:
    return predict(partial(_energy, model, params), structure)


@partial(jax.jit, static_argnums=0)
def _column(
    model: EnergyModel, params: Any, structure: Structure, unit: Array
) -> Float[Array, "num_nodes 3"]:
    return hessian_vector(partial(_energy, model, params), structure, unit)
