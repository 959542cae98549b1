"""Energy models in use: padding, elements, ASE, and a program for others."""

import functools

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs

from common.errors import UsageError
from common.nn.energy import EnergyModel, make_structure
from common.runs import checkpoints
from common.runs import config as configs
from symphony import potential as potentials
from symphony.chemistry.calculator import EnergyCalculator
from symphony.kinds.energy.build import make_model

CELL = 6.0 * np.eye(3)
LONE = (-1e7, -2e7)  # In single precision, of which 1 eV would be lost.
WHERE = np.array([[0.0, 0.0, 0.1], [1.1, 0.0, -0.5], [-0.8, 0.2, -0.5]])


def config_of():
    config = configs.default_of("energy")
    config.data.update(species=(1, 8), atom_energies=LONE)
    config.model.update(irreps="4x0e+4x1o", num_layers=2, max_degree=1, cutoff=3.0)
    config.model.update(num_radial_basis=4, num_hidden=4, energy_scale=5.0)
    config.model.update(block="symphony", product="scalar")
    return config


@functools.cache
def potential():
    model = make_model(config_of())
    empty = potentials.Potential("mine", model, {}, LONE)
    structure = potentials.structure_of(empty, np.array([8, 1, 1]), WHERE, CELL)
    return empty._replace(params=jax.jit(model.init)(jax.random.key(3), structure))


def atoms_of(pbc=True):
    atoms = ase.Atoms([8, 1, 1], WHERE, cell=CELL, pbc=pbc)
    atoms.calc = EnergyCalculator(potential())
    return atoms


def test_padding_changes_nothing():
    numbers = np.array([8, 1, 1])
    padded = potentials.structure_of(potential(), numbers, WHERE, CELL)
    assert padded.node_mask.tolist() == [True] * 3 + [False] * 5
    found = potentials.answer(potential(), numbers, WHERE, CELL)
    assert found.forces.shape == (3, 3)
    _, model, params, _ = potential()
    bare = make_structure(WHERE, np.array([1, 0, 0]), model.cutoff, CELL)
    energies = jax.jit(model.apply)(params, bare).energy
    relative = found.energy - (2.0 * LONE[0] + LONE[1])
    np.testing.assert_allclose(relative, energies.sum(), rtol=1e-6)


def test_relaxation_dynamics_and_modes_follow_the_energy():
    atoms = atoms_of()
    atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(3, 3)))
    total = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.5 * fs).run(20)
    assert abs(atoms.get_total_energy() - total) < 2e-3
    assert atoms.get_stress().shape == (6,)
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(steps=5)
    assert atoms.get_potential_energy() < before
    matrix = atoms.calc.get_hessian(atoms)
    # A crystal that is shifted as a whole has the energy that it had.
    np.testing.assert_allclose(matrix.reshape(9, 3, 3).sum(1), 0.0, atol=2e-3)
    assert atoms.calc.vibrations(atoms).get_energies().shape == (9,)


def test_what_is_not_known_is_refused():
    atoms = ase.Atoms("He", [[0, 0, 0]])
    atoms.calc = EnergyCalculator(potential())
    with pytest.raises(UsageError, match=r"trained on \(H, O\), found He"):
        atoms.get_potential_energy()
    with pytest.raises(UsageError, match="in all directions or in none"):
        atoms_of((True, True, False)).get_potential_energy()


def test_weights_load_by_their_folder(tmp_path):
    checkpoints.save_packaged(tmp_path / "mine", potential().params, config_of(), {})
    loaded = potentials.load_potential(tmp_path / "mine")
    assert loaded.model == potential().model


def test_an_exported_program_runs_without_the_model(tmp_path):
    path = tmp_path / "energy.bin"
    structure = potentials.structure_of(potential(), np.array([8, 1, 1]), WHERE, CELL)
    num_atoms, num_neighbours = structure.neighbours.senders.shape
    potentials.export(potential(), path, num_atoms, num_neighbours, periodic=True)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    energy, forces, _ = program.call(
        structure.positions, structure.species, structure.node_mask,
        *structure.neighbours, structure.cell,
    )  # fmt: skip
    found = potentials.answer(potential(), np.array([8, 1, 1]), WHERE, CELL)
    relative = found.energy - (2.0 * LONE[0] + LONE[1])
    np.testing.assert_allclose(energy, relative, rtol=1e-6)
    np.testing.assert_allclose(forces[:3], found.forces, atol=1e-5)
    assert isinstance(potential().model, EnergyModel)
    assert not jnp.any(forces[3:])
