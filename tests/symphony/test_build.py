"""From a config to a model, its loss, and programs compiled once per bucket."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import training
from configs.symphony import ethanol, qm9_cpu, tiny
from symphony import build, data, generate, train
from tests.symphony.small import chain


def make_batch(seeds, num_atoms, num_nodes):
    """One molecule per seed, padded."""
    missing = num_nodes - num_atoms
    chains = [chain(seed, num_atoms) for seed in seeds]
    return data.Batch(
        np.stack([np.pad(x, [(0, missing), (0, 0)]) for x, _ in chains]),
        np.stack([np.pad(s, (0, missing)) for _, s in chains]).astype(np.int32),
        np.arange(num_nodes) < np.full((len(seeds), 1), num_atoms),
    )


@functools.cache
def tiny_params():
    return build.init_params(tiny.get_config(), jax.random.key(0))


def test_an_unknown_kind_is_refused_by_name():
    config = tiny.get_config()
    config.kind = "dance"
    with pytest.raises(ValueError, match=r"symphony.*dance"):
        build.make_model(config)


def test_both_trunks_have_the_same_parameters():
    shapes = []
    for causal in (True, False):
        config = qm9_cpu.get_config()
        config.model.causal = causal
        init = functools.partial(build.init_params, config)
        shapes.append(jax.eval_shape(init, jax.random.key(0)))
    assert shapes[0] == shapes[1]


def test_loss_is_nats_per_step_and_a_mean_over_independent_molecules():
    config = tiny.get_config()
    loss_fn = jax.jit(build.make_loss(config, 8.0))
    batch = make_batch([0, 1, 2], 5, 6)
    keys = jax.random.split(jax.random.key(1), 3)
    loss, totals = loss_fn(tiny_params(), batch, keys)
    assert float(loss) == pytest.approx(float(totals["nll"]) / 8.0, rel=1e-5)
    assert float(totals["num_steps"]) == 5
    alone = []
    for index in range(3):
        one = jax.tree.map(lambda x, i=index: x[i : i + 1], batch)
        alone.append(float(loss_fn(tiny_params(), one, keys[index : index + 1])[0]))
    assert float(loss) == pytest.approx(np.mean(alone), rel=1e-5)
    assert np.ptp(alone) > 1e-3


def test_a_step_is_compiled_once_per_bucket():
    config = tiny.get_config()
    config.train.optimizer = "adam"
    optimizer = training.make_optimizer(config.train)
    loss_fn = build.make_loss(config, 8.0)
    train_step = training.make_train_step(loss_fn, optimizer, 0.99)
    state = training.make_state(tiny_params(), optimizer)
    buckets = [make_batch([i, i + 1], n, n) for i in range(3) for n in (4, 6)]
    for step in range(20):
        batch = buckets[step % len(buckets)]
        state, metrics = train_step(state, batch, jax.random.key(0))
        assert np.isfinite(metrics["loss"])
    assert train_step.num_compilations() == 2
    assert int(state.step) == 20
    assert int(state.first_bad_step) == -1


def superposed_rmsd(positions, reference):
    """Å, after the best rotation; a mirror image counts as the same."""
    a, b = positions - positions.mean(0), reference - reference.mean(0)
    left, _, right = np.linalg.svd(a.T @ b)
    return np.sqrt(np.mean(np.sum(np.square(a @ left @ right - b), axis=1)))


def heavy_skeleton(positions, species):
    """Orders the heavy atoms C, C, O along the chain; None if there are others."""
    if sorted(species.tolist()) != [0] * 6 + [1, 1, 3]:
        return None
    oxygen = positions[species == 3][0]
    carbons = positions[species == 1]
    far = np.argsort(-np.linalg.norm(carbons - oxygen, axis=1))
    return np.concatenate([carbons[far], oxygen[None]])


@pytest.mark.slow
def test_one_molecule_is_learned_by_heart(tmp_path):
    """Ethanol alone: 95 % of samples at temperature one are ethanol, to 0.05 Å."""
    from symphony.evaluate.bonds import perceive

    config = ethanol.get_config()
    assert config.train.num_steps <= 2_000
    state = train.train(config, tmp_path)
    original, _ = data.read_molecules(config.data.path, tuple(config.data.species), 9)
    nothing = generate.Start(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    samples = list(
        generate.generate(
            build.kind_of(config).decoder,
            build.make_model(config),
            state.ema_params,
            iter(range(100)),
            0,
            generate.Settings(
                focus_temperature=jnp.ones(()),
                position_temperature=jnp.ones(()),
                basin_temperature=jnp.ones(()),
                noise_std=jnp.zeros(()),
                max_atoms=jnp.array(12, jnp.int32),
                species_mask=jnp.ones(5, bool),
            ),
            lambda index: nothing,
            capacity=12,
        )
    )
    numbers = np.array(config.data.species, np.uint8)
    species = np.searchsorted(numbers, original.atomic_numbers)
    reference = heavy_skeleton(original.positions, species)
    hits = []
    for sample in samples:
        skeleton = heavy_skeleton(sample.positions, sample.species)
        if not sample.stopped or skeleton is None:
            continue
        molecule = perceive(
            numbers[sample.species], sample.positions, "xyz2mol_hueckel"
        )
        if molecule is not None:
            hits.append((smiles_of(molecule), superposed_rmsd(skeleton, reference)))
    distances = [rmsd for smiles, rmsd in hits if smiles == "CCO"]
    assert len(samples) == 100
    assert len(distances) >= 95
    assert np.mean(np.array(distances) < 0.05) >= 0.95


def smiles_of(molecule):
    from rdkit import Chem

    return Chem.MolToSmiles(Chem.RemoveHs(molecule))
