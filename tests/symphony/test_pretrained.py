"""What the packaged weights do for a chemist; slow, since it samples in earnest."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import symphony
from common.runs import checkpoints
from symphony import build, data, likelihood
from symphony.chemistry import bonds
from symphony.evaluate.distributions import jensen_shannon
from symphony.kinds.denoiser import sample as denoiser
from symphony.kinds.denoiser.sample import load_refiner
from symphony.manifest import BOND_PRESET
from symphony.model import Symphony
from symphony.orders import Cut
from symphony.weights import PRETRAINED, load_weights
from tests.symphony import small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def held_out():
    weights = load_weights("qm9")
    species = tuple(weights.config.data.species)
    molecules, _ = data.read_molecules("qm9-sample", species, 29, split="validation")
    # QM9 is ordered by size.
    shuffled = np.random.default_rng(0).permutation(len(molecules.num_atoms))
    return weights, data.select(molecules, shuffled)


def atoms_of(molecules, index):
    atoms = slice(molecules.offsets[index], molecules.offsets[index + 1])
    return molecules.atomic_numbers[atoms], molecules.positions[atoms]


def test_noise_is_taken_off(held_out):
    """Of held-out molecules, but for what no denoiser can tell."""
    _, molecules = held_out
    refiner = load_refiner()
    numbers, positions = zip(*(atoms_of(molecules, i) for i in range(32)), strict=True)
    rng = np.random.default_rng(0)
    noised = [x + np.float32(0.05) * rng.normal(size=x.shape) for x in positions]
    free = [np.zeros(len(x), bool) for x in positions]
    found = denoiser.refine(refiner, numbers, noised, free, range(32), seed=0)

    def error(clouds):
        """Of distances up to 3 Å: of bonds and angles."""
        parts = []
        for x, clean in zip(clouds, positions, strict=True):
            apart = lambda z: np.linalg.norm(z[:, None] - z[None], axis=-1)
            parts.append((apart(x) - apart(clean))[apart(clean) < 3.0])
        return np.sqrt(np.mean(np.square(np.concatenate(parts))))

    assert error(found) < 0.7 * error(noised)


def test_a_hydrogen_taken_away_comes_back(held_out):
    _, molecules = held_out
    sampler = symphony.load("qm9")
    rng = np.random.default_rng(0)
    valid, same = [], []
    for index in range(100):
        numbers, positions = atoms_of(molecules, index)
        taken = rng.choice(np.flatnonzero(numbers == 1))
        core = np.delete(numbers, taken), np.delete(positions, taken, axis=0)
        (grown,) = sampler.sample_positions(1, seed=index, fragment=core)
        np.testing.assert_array_equal(grown.positions[: len(core[0])], core[1])
        mol = bonds.perceive(grown.atomic_numbers, grown.positions, BOND_PRESET)
        valid.append(mol is not None and grown.stopped)
        near = np.linalg.norm(grown.positions - positions[taken], axis=1).min() < 0.3
        same.append(len(grown.positions) == len(numbers) and near)
    assert np.mean(valid) >= 0.9
    assert np.mean(same) >= 0.9


def test_the_probability_of_stopping_is_calibrated(held_out):
    weights, molecules = held_out
    config = weights.config
    packed = data.pack(molecules, tuple(config.data.species), (29,))

    @jax.jit
    @jax.vmap
    def stops(batch, key):
        drawn: Cut = build.draw_cut(config, key, *batch[:3])
        model: Symphony = weights.model.bind(weights.params)
        _, now = likelihood.step_features(model, drawn, small.NO_NOISE)
        log_total = jax.nn.logsumexp(now.focus_species, axis=(1, 2))
        return jnp.exp(now.stop - jnp.logaddexp(log_total, now.stop))

    predicted, true = [], []
    for index, batch in enumerate(data.batches_in_order(packed, 50)):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 50)
        found = np.asarray(stops(batch, keys))
        count = batch.node_mask.sum(axis=1, keepdims=True)
        steps = np.arange(29)
        predicted.append(found[steps < count])
        true.append(np.broadcast_to(steps == count - 1, found.shape)[steps < count])
    predicted, true = np.concatenate(predicted), np.concatenate(true)
    assert len(true) == molecules.num_atoms.sum()
    bins = np.minimum((10 * predicted).astype(int), 9)
    gaps = [
        abs(predicted[bins == b].mean() - true[bins == b].mean()) * np.mean(bins == b)
        for b in np.unique(bins)
    ]
    assert sum(gaps) < 0.05
    # It tells complete molecules from fragments, and does not only know the average.
    assert predicted[true].mean() > 0.8
    assert predicted[~true].mean() < 0.05


def test_likelihood_knows_the_data_from_what_resembles_it(held_out):
    weights, molecules = held_out
    config = weights.config
    table = tuple(config.data.species)
    known, _ = data.read_molecules("qm9-sample", table, 29, split="train")

    @jax.jit
    @jax.vmap
    def cost(batch, key):
        model = weights.model.bind(weights.params)
        return build.kind_of(config).totals(config, model, batch, key, train=False)

    def nats_per_step(batch):
        totals = cost(batch, jax.random.split(jax.random.key(0), len(batch.species)))
        return float(jnp.sum(totals["nll"]) / jnp.sum(totals["num_steps"]))

    batches = [
        data.pack(data.choose_molecules(m, 400), table, (29,))[0]
        for m in (known, molecules)
    ]
    trained, unseen = map(nats_per_step, batches)
    species = np.stack(
        [
            np.where(mask, rng.permutation(row[mask])[np.cumsum(mask) - 1], 0)
            for rng, row, mask in zip(
                map(np.random.default_rng, range(400)),
                batches[1].species,
                batches[1].node_mask,
                strict=True,
            )
        ]
    )
    shuffled = nats_per_step(batches[1]._replace(species=species.astype(np.int32)))
    assert trained < unseen + 0.05
    assert shuffled > unseen + 3.0


def test_sizes_are_those_of_the_data():
    _, _, meta = checkpoints.load_stored(PRETRAINED / "qm9")[:3]
    sizes = {int(size): count for size, count in meta["size_counts"].items()}
    drawn = symphony.load("qm9").sample_positions(1_000, seed=2)
    found = Counter(len(sample.positions) for sample in drawn)
    assert jensen_shannon(found, sizes) < 0.02


def test_cold_draws_are_valid_more_often_than_free_ones(held_out):
    sampler = symphony.load("qm9")

    def share(**keywords):
        drawn = sampler.sample_positions(150, seed=1, num_slots=16, **keywords)
        found = [
            s.stopped
            and bonds.perceive(s.atomic_numbers, s.positions, BOND_PRESET) is not None
            for s in drawn
        ]
        return np.mean(found)

    free = share()
    assert free >= 0.6
    assert share(basin_temperature=0.1) > free
    assert share(temperature_position=0.5) > free
