"""Energy models: forces and stress are slopes, curvature too, and losses by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from common.nn import energy_loss
from common.nn.energy import (
    EnergyModel,
    Structure,
    hessian_vector,
    make_structure,
    predict,
)
from tests.common.nn.random_inputs import normal, randomised, rotation

CUTOFF = 4.0
CELL = np.array([[5.0, 0.0, 0.0], [0.5, 5.0, 0.0], [0.0, 0.3, 5.0]])
SPECIES = jnp.array([0, 1, 1, 0])
WHERE = 1.5 * normal(4, 3, seed=3)

MODEL = EnergyModel(
    atomic_numbers=(1, 6), atom_energies=(-1.0, -2.0), energy_scale=0.5,
    irreps="4x0e+2x1o+2x2e", num_layers=2, max_degree=2, cutoff=CUTOFF,
    num_radial_basis=4, num_hidden=4, avg_num_neighbors=4.0,
)  # fmt: skip


def structure_of(positions, cell=CELL):
    return make_structure(np.asarray(positions), SPECIES, CUTOFF, cell, 16)


@functools.cache
def params():
    init = jax.jit(MODEL.init)
    return randomised(init(jax.random.key(0), structure_of(WHERE), WHERE))


def compiled(function):
    """Compiles a function of an energy function, a structure and more."""

    @jax.jit
    def run(params, *arguments):
        energy_fn = lambda s: jnp.sum(MODEL.apply(params, s).energy)
        return function(energy_fn, *arguments)

    return lambda *arguments: run(params(), *arguments)


energy_of = compiled(lambda energy_fn, structure: energy_fn(structure))
answer = compiled(predict)
column = compiled(hessian_vector)


@jax.jit
def apply(params, structure, told):
    return MODEL.apply(params, structure, told)


def test_forces_and_stress_are_slopes_of_the_energy():
    structure, step = structure_of(WHERE), 1e-2
    found = answer(structure)
    direction = normal(4, 3, seed=4)
    ends = [
        energy_of(structure._replace(positions=WHERE + sign * step * direction))
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(-jnp.vdot(found.forces, direction), slope, rtol=2e-3)
    strain = np.array([[0.3, 0.2, 0.0], [0.2, -0.5, 0.1], [0.0, 0.1, 0.4]])
    ends = []
    for sign in (1, -1):
        deform = jnp.asarray(np.eye(3) + sign * step * strain, jnp.float32)
        moved = structure.positions @ deform, structure.cell @ deform
        ends.append(energy_of(structure._replace(positions=moved[0], cell=moved[1])))
    slope = (ends[0] - ends[1]) / (2 * step) / np.linalg.det(CELL)
    np.testing.assert_allclose(jnp.vdot(found.stress, strain), slope, rtol=5e-3)
    np.testing.assert_allclose(found.stress, found.stress.T, atol=1e-6)


def test_energy_does_not_see_turns_mirrors_shifts_and_cells():
    expected, turn = energy_of(structure_of(WHERE)), rotation(-1)
    turned = structure_of(WHERE @ turn.T + 0.7, CELL @ np.asarray(turn).T)
    np.testing.assert_allclose(energy_of(turned), expected, rtol=1e-5)
    other_image = WHERE.at[2].add(jnp.asarray(CELL[0], jnp.float32))
    np.testing.assert_allclose(
        energy_of(structure_of(other_image)), expected, rtol=1e-5
    )


def test_a_doubled_cell_has_twice_the_energy():
    once = energy_of(structure_of(WHERE))
    both = np.concatenate([WHERE, WHERE + CELL[0]])
    cell = CELL * np.array([[2.0], [1.0], [1.0]])
    species = jnp.concatenate([SPECIES, SPECIES])
    twice = energy_of(make_structure(both, species, CUTOFF, cell, 16))
    np.testing.assert_allclose(twice, 2.0 * once, rtol=1e-5)


def test_lone_atoms_have_the_energies_of_lone_atoms():
    far = structure_of(100.0 * jnp.eye(4, 3), None)
    found = apply(params(), far, jnp.zeros_like(WHERE)).energy
    # What a lone atom's features give is the same for all of its species.
    np.testing.assert_allclose(found[0], found[3], rtol=1e-6)
    zeroed = jax.tree.map(jnp.zeros_like, params())
    found = apply(zeroed, far, jnp.zeros_like(WHERE)).energy
    np.testing.assert_allclose(found, [-1.0, -2.0, -2.0, -1.0])


def test_curvature_is_the_slope_of_the_forces():
    structure, direction, step = structure_of(WHERE), normal(4, 3, seed=4), 5e-3
    ends = [
        answer(structure._replace(positions=WHERE + sign * step * direction)).forces
        for sign in (1, -1)
    ]
    numeric = (ends[1] - ends[0]) / (2 * step)
    found = column(structure, direction)
    scale = np.abs(numeric).max()
    np.testing.assert_allclose(found / scale, numeric / scale, atol=1e-2)


def test_noise_is_told_as_vectors_that_turn():
    turn, forces = rotation(-1), normal(4, 3, seed=7)
    noise = lambda where, told: (
        MODEL.apply(params(), structure_of(where, None), told).noise
    )
    expected = noise(WHERE, forces) @ turn.T
    np.testing.assert_allclose(
        noise(WHERE @ turn.T, forces @ turn.T), expected, atol=1e-5
    )
    changed = noise(WHERE, 2.0 * forces) @ turn.T
    assert np.abs(changed - expected).max() > 1e-3


def test_random_columns_are_an_unbiased_estimate_of_the_curvature():
    matrix = normal(12, 12, seed=5)
    well = lambda s: (
        0.5 * s.positions.ravel() @ (matrix + matrix.T) @ s.positions.ravel()
    )
    structure = structure_of(WHERE, None)
    wanted = jnp.zeros((4, 3))
    errors = [
        energy_loss.curvature_error(well, structure, jnp.array(k), wanted)
        for k in range(12)
    ]
    np.testing.assert_allclose(
        np.mean(errors), np.abs(matrix + matrix.T).mean(), rtol=1e-4
    )


def test_forces_tell_the_noise_of_a_harmonic_well():
    """With F = -k x told, x + noise gives the noise; without, the floor is known."""
    rng, spread, std = np.random.default_rng(0), 0.3, 0.2
    still = spread * rng.normal(size=(20_000, 3))
    structure = Structure(
        jnp.asarray(still, jnp.float32), jnp.zeros(20_000, int),
        jnp.ones(20_000, bool), None,
    )  # fmt: skip
    moved, told, noise, chosen = energy_loss.corrupt(
        jax.random.key(0), structure, -5.0 * structure.positions, std, share=0.5
    )
    assert abs(float(chosen.mean()) - 0.5) < 0.02
    informed = (moved.positions + told / 5.0) / std
    assert energy_loss.noise_error(informed, noise, chosen) < 1e-6
    ignorant = moved.positions * std / (std**2 + spread**2)
    floor = spread**2 / (std**2 + spread**2)
    error = energy_loss.noise_error(ignorant, noise, chosen)
    np.testing.assert_allclose(error, floor, rtol=0.05)
    unmoved = jnp.where(chosen[:, None], 0.0, moved.positions - structure.positions)
    assert not np.any(unmoved)
    assert not np.any(jnp.where(chosen[:, None], 0.0, told))
