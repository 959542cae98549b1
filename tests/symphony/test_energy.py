"""The kind of model that learns energies: its labels, its data, its training."""

import ase
import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from common.errors import UsageError
from common.runs import config as configs
from symphony import build, data, train
from symphony.kinds.energy import build as energy

NUMBERS = np.array([8, 1, 1])
SHAPE = np.array([[0.0, 0.0, 0.1], [0.8, 0.0, -0.5], [-0.8, 0.0, -0.5]])
SPRING, LONE = 3.0, {1: -13.0, 8: -2_000_000.0}
"""Of a harmonic molecule, in eV/Å²; and energies of lone atoms, large ones, in eV."""


def molecules(count=8, seed=0):
    """Returns positions, energies, forces, coordinates and columns of the Hessian."""
    rng = np.random.default_rng(seed)
    moves = 0.1 * rng.normal(size=(count, 3, 3))
    energies = 0.5 * SPRING * np.sum(moves**2, axis=(1, 2)) + LONE[8] + 2 * LONE[1]
    coordinates = rng.integers(0, 9, count)
    columns = SPRING * np.eye(9)[coordinates].reshape(count, 3, 3)
    return SHAPE + moves, energies, -SPRING * moves, coordinates, columns


@pytest.fixture
def archive(tmp_path):
    positions, energies, forces, coordinates, columns = molecules()
    count = len(positions)
    flat = lambda a: a.reshape(-1, 3).astype(np.float32)
    np.savez(
        tmp_path / "mine.npz",
        num_atoms=np.full(count, 3), atomic_numbers=np.tile(NUMBERS, count),
        positions=flat(positions), energy=energies, forces=flat(forces),
        hessian_coordinate=coordinates, hessian_column=flat(columns),
    )  # fmt: skip
    return tmp_path / "mine.npz"


def config_of(path, **loss):
    config = configs.default_of("energy")
    config.data.update(path=str(path), species=(1, 8), num_buckets=1)
    config.data.atom_energies = (LONE[1], LONE[8])
    config.model.update(irreps="4x0e+4x1o", num_layers=2, max_degree=1)
    config.model.update(block="symphony", product="scalar")  # Compiled in no time.
    config.model.update(num_radial_basis=4, num_hidden=4)
    config.loss.update(loss)
    config.train.update(num_steps=4, batch_size=4, num_microbatches=1, log_every=2)
    config.train.update(eval_every=4, checkpoint_every=4, num_validation=4)
    return config


def test_forces_and_energies_of_archives_and_frames_are_the_same(archive, tmp_path):
    positions, energies, forces, *_ = molecules()
    frames = []
    for where, value, slopes in zip(positions, energies, forces, strict=True):
        atoms = ase.Atoms(NUMBERS, where)
        atoms.calc = SinglePointCalculator(atoms, energy=value, forces=slopes)
        frames.append(atoms)
    ase.io.write(tmp_path / "mine.extxyz", frames, format="extxyz")
    found = [
        data.read_molecules(path, (1, 8), 9, labels=(("energy",), ("forces",)))[0]
        for path in (archive, tmp_path / "mine.extxyz")
    ]
    for one in found:
        labels = one.labels
        np.testing.assert_allclose(labels.of_molecules["energy"], energies, atol=1e-4)
        np.testing.assert_allclose(
            labels.of_atoms["forces"], forces.reshape(-1, 3), atol=1e-5
        )


def test_labels_follow_their_molecules_through_screening_and_batches(archive):
    labels = ("energy", "hessian_coordinate"), ("forces", "hessian_column")
    whole, _ = data.read_molecules(archive, (1, 8), 9, labels=labels)
    config = config_of(archive, hessian_weight=1.0)
    some = data.select(energy.prepare(config, whole), np.array([5, 2]))
    (batch,) = data.pack(some, (1, 8), (4,))
    *_, forces, coordinates, columns = molecules()
    expected = 0.5 * np.sum(forces**2, axis=(1, 2)) / SPRING
    # The lone atoms, millions of eV, went in double precision.
    np.testing.assert_allclose(
        batch.targets["energy"].value, expected[[5, 2]], rtol=1e-5
    )
    np.testing.assert_allclose(
        batch.vectors["forces"][:, :3], forces[[5, 2]], rtol=1e-5
    )
    assert not batch.vectors["forces"][:, 3].any()
    found = batch.targets["hessian_coordinate"].value
    np.testing.assert_array_equal(found, coordinates[[5, 2]])
    np.testing.assert_allclose(
        batch.vectors["hessian_column"][:, :3], columns[[5, 2]], rtol=1e-5
    )


def zero_params(config):
    """Parameters that are zero, of a network that so has no energy of its own."""
    shapes = jax.eval_shape(
        lambda key: build.init_params(config, key), jax.random.key(0)
    )
    return jax.tree.map(lambda a: jnp.zeros(a.shape), shapes)


def test_errors_of_a_network_without_energy_are_the_labels(archive):
    config = config_of(archive, hessian_weight=1.0, noise_weight=1.0)
    whole, _ = data.read_molecules(archive, (1, 8), 9, labels=energy.labels_of(config))
    (batch,) = data.pack(energy.prepare(config, whole), (1, 8), (4,))
    one = jax.tree.map(lambda a: jnp.asarray(a[0]), batch)
    model = build.make_model(config)

    @jax.jit
    def totals(params, key):
        bound = model.bind(params)
        return energy.molecule_totals(config, bound, one, key, train=True)

    found = totals(zero_params(config), jax.random.key(0))
    _, _, forces, _, columns = molecules()
    value = 0.5 * np.sum(forces[0] ** 2) / SPRING
    norms = np.linalg.norm(forces[0], axis=-1)
    np.testing.assert_allclose(found["energy_error"], value / 3, rtol=1e-4)
    np.testing.assert_allclose(found["force_norm_error"], norms.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        found["force_error"], np.abs(forces[0]).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(found["hessian_error"], columns[0].mean(), rtol=1e-4)
    terms = 20 * (found["energy_error"] + found["force_norm_error"])
    terms += found["hessian_error"] + found["noise_error"]
    np.testing.assert_allclose(found["weighted_error"], terms, rtol=1e-5)
    assert found["noise_error"] > 0.0


@pytest.mark.slow
def test_training_tells_every_term(archive, tmp_path):
    config = config_of(archive, hessian_weight=1.0, noise_weight=1.0)
    state = train.train(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(state.step) == 4
    for name in ("energy_error", "force_error", "hessian_error", "noise_error"):
        assert any(f'"{name}"' in line for line in lines), name
    assert not any("validation_noise_error" in line for line in lines)


def test_missing_labels_and_energies_are_refused(archive, tmp_path):
    read = lambda path, *labels: data.read_molecules(path, (1, 8), 9, labels=labels)
    with pytest.raises(UsageError, match="expected an array charge, found"):
        read(archive, ("charge",), ())
    with pytest.raises(UsageError, match=r"expected forces as numbers of shape \(8,\)"):
        read(archive, ("forces",), ())
    frame = tmp_path / "plain.xyz"
    ase.io.write(frame, ase.Atoms(NUMBERS, SHAPE), format="extxyz")
    with pytest.raises(UsageError, match="expected energy of every frame, found none"):
        read(frame, ("energy",), ())
    config = config_of(archive)
    config.data.atom_energies = ()
    whole, _ = read(archive, ("energy",), ("forces",))
    with pytest.raises(UsageError, match="least squares over these molecules give"):
        energy.prepare(config, whole)
