"""Buckets, packing, and batches as a function of (seed, step)."""

import itertools
import time

import numpy as np
import pytest

from symphony import data

TABLE = (1, 6)


def random_molecules(seed, num_molecules, largest):
    rng = np.random.default_rng(seed)
    num_atoms = rng.integers(1, largest + 1, num_molecules)
    total = num_atoms.sum()
    numbers = rng.choice(TABLE, total)
    positions = rng.normal(size=(total, 3))
    positions[:, 0] = np.repeat(np.arange(num_molecules), num_atoms)
    return data.make_molecules(num_atoms, numbers, positions)


def identities(batch):
    """Returns the index of the molecule in each row, which x tells."""
    return np.round(batch.positions[:, 0, 0]).astype(int).tolist()


def padded_pairs(num_atoms, buckets):
    sizes = np.array(buckets)[np.searchsorted(buckets, num_atoms)]
    return int((sizes**2).sum())


def test_buckets_waste_least_among_all_choices():
    num_atoms = np.random.default_rng(0).integers(3, 12, 200)
    chosen = data.choose_buckets(num_atoms, 3)
    largest = num_atoms.max()
    every = itertools.combinations(range(3, largest), 2)
    best = min(padded_pairs(num_atoms, (*pair, largest)) for pair in every)
    assert chosen[-1] == largest
    assert padded_pairs(num_atoms, chosen) == best


def test_no_more_buckets_than_sizes():
    assert data.choose_buckets(np.array([5, 5, 7]), 5) == (5, 7)
    assert data.choose_buckets(np.array([9]), 5) == (9,)


def test_packing_keeps_every_atom_and_pads_with_zeros():
    molecules = random_molecules(0, 50, 9)
    packed = data.pack(molecules, TABLE, (4, 6, 9))
    assert sum(len(bucket.species) for bucket in packed) == 50
    for bucket in packed:
        for row, index in enumerate(identities(bucket)):
            size = molecules.num_atoms[index]
            atoms = slice(molecules.offsets[index], molecules.offsets[index + 1])
            assert bucket.node_mask[row].sum() == size
            assert bucket.node_mask[row, :size].all()
            np.testing.assert_array_equal(
                bucket.positions[row, :size], molecules.positions[atoms]
            )
            np.testing.assert_array_equal(
                np.array(TABLE)[bucket.species[row, :size]],
                molecules.atomic_numbers[atoms],
            )
            assert not bucket.positions[row, size:].any()
            assert not bucket.species[row, size:].any()


def test_molecule_too_large_for_every_bucket_cannot_be_packed():
    with pytest.raises(ValueError, match="at most 8 atoms"):
        data.pack(random_molecules(0, 50, 9), TABLE, (4, 8))


def test_fill_ratio_counts_atoms_against_slots():
    molecules = data.make_molecules(np.array([1, 3]), np.ones(4, int), np.ones((4, 3)))
    assert data.fill_ratio(data.pack(molecules, TABLE, (4,))) == 0.5


def test_qm9_fills_more_than_seven_tenths_of_its_padding():
    molecules, _ = data.read_molecules("qm9-sample", (1, 6, 7, 8, 9), 29)
    buckets = data.choose_buckets(molecules.num_atoms)
    packed = data.pack(molecules, (1, 6, 7, 8, 9), buckets)
    assert len(buckets) == 5
    assert data.fill_ratio(packed) > 0.9


def test_batch_depends_on_seed_and_step_alone():
    packed = data.pack(random_molecules(0, 100, 9), TABLE, (5, 9))
    later = data.batch_at(packed, 8, seed=3, step=1234)
    for step in (0, 7, 55):
        data.batch_at(packed, 8, seed=3, step=step)
    again = data.batch_at(packed, 8, seed=3, step=1234)
    for first, second in zip(later, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert identities(data.batch_at(packed, 8, seed=4, step=1234)) != identities(later)


def test_epochs_without_rest_show_every_molecule_once():
    molecules = random_molecules(1, 64, 4)
    packed = data.pack(molecules, TABLE, (4,))
    assert data.steps_per_epoch(packed, 16) == 4
    orders = []
    for epoch in range(3):
        steps = range(4 * epoch, 4 * epoch + 4)
        seen = [i for s in steps for i in identities(data.batch_at(packed, 16, 0, s))]
        assert sorted(seen) == list(range(64))
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]


def test_a_part_of_a_batch_has_the_rows_of_the_whole():
    packed = data.pack(random_molecules(2, 130, 9), TABLE, (3, 6, 9))
    for step in range(20):
        batch = data.batch_at(packed, 12, 3, step)
        part = data.batch_at(packed, 12, 3, step, np.arange(6, 12))
        assert identities(part) == identities(batch)[6:]


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300])
def test_every_molecule_is_shown_equally_often_in_the_long_run(batch_size):
    molecules = random_molecules(2, 130, 9)
    packed = data.pack(molecules, TABLE, (3, 6, 9))
    num_steps = 20 * 130 // batch_size
    shown = np.zeros(130, int)
    for step in range(num_steps):
        batch = data.batch_at(packed, batch_size, 0, step)
        assert len(batch.species) == batch_size
        np.add.at(shown, identities(batch), 1)
    # Unshown rest of a bucket: less than one batch, for each of its molecules.
    tolerance = 2 + batch_size // min(len(bucket.species) for bucket in packed)
    assert np.ptp(shown) <= 2 * tolerance
    assert abs(shown.mean() - num_steps * batch_size / 130) < 1e-9


def test_an_epoch_visits_the_buckets_in_proportion_and_random_order():
    molecules = random_molecules(3, 1000, 10)
    packed = data.pack(molecules, TABLE, (2, 10))
    num_steps = data.steps_per_epoch(packed, 10)
    widths = [
        data.batch_at(packed, 10, 0, step).species.shape[1] for step in range(num_steps)
    ]
    assert abs(widths.count(2) - len(packed[0].species) / 10) <= 1
    assert len(set(widths[:25])) == 2
    assert widths != sorted(widths)


def test_one_molecule_fills_any_batch():
    molecules = random_molecules(0, 1, 5)
    packed = data.pack(molecules, TABLE, (5,))
    assert identities(data.batch_at(packed, 32, 0, 1000)) == [0] * 32


def test_validation_sees_every_molecule_once_and_the_rest_is_masked():
    packed = data.pack(random_molecules(4, 53, 9), TABLE, (5, 9))
    batches = list(data.batches_in_order(packed, 8))
    assert all(len(batch.species) == 8 for batch in batches)
    seen = []
    for batch in batches:
        real = batch.node_mask.any(axis=1)
        seen += np.array(identities(batch))[real].tolist()
        assert not batch.positions[~real].any()
    assert sorted(seen) == list(range(53))


def test_batches_outpace_training():
    packed = data.pack(random_molecules(5, 20_000, 20), TABLE, (8, 14, 20))
    data.batch_at(packed, 64, 0, 0)
    begin = time.process_time()
    for step in range(300):
        data.batch_at(packed, 64, 0, step)
    assert 300 * 64 / (time.process_time() - begin) > 20_000
