"""Charges and conformers: from files to splits and batches."""

import numpy as np
import pytest

from common.errors import UsageError
from configs.symphony import tiny
from symphony import data, train
from symphony.data.molecules import concatenate, find_conformers, ids_of
from tests.symphony.test_data_readers import WATER, v2000, xyz

SPECIES = (1, 8)
OXIDES = np.array([8, 1, 1], np.uint8)


def waters(count, **arrays):
    positions = np.tile(WATER, (count, 1)).astype(np.float32)
    positions[:, 0] += np.repeat(np.arange(count), 3)
    made = data.make_molecules(np.full(count, 3), np.tile(OXIDES, count), positions)
    return made._replace(**arrays)


def identities(batch):
    return np.round(batch.positions[:, 0, 0]).astype(int)


def read(path, names=("charge",), **options):
    return data.read_molecules(path, SPECIES, 9, properties=names, **options)[0]


@pytest.mark.parametrize("name", ["charge", "total_charge", "formal_charge"])
def test_an_archive_states_charges_under_one_of_three_names(tmp_path, name):
    path = tmp_path / "ions.npz"
    data.write_npz(waters(3, properties={name: np.float32([0, -1, 2])}), path)
    assert read(path).properties["charge"].tolist() == [0.0, -1.0, 2.0]


def test_the_charge_of_an_sdf_is_the_sum_of_its_formal_charges(tmp_path, caplog):
    path = tmp_path / "ions.sdf"
    ion = v2000("oxide").replace("M  END", "M  CHG  2   1  -1   2  -1\nM  END")
    path.write_text(v2000() + ion)
    assert read(path).properties["charge"].tolist() == [0.0, -2.0]
    assert "charge" not in caplog.text
    read(path, ())
    assert "1 molecule has a net charge" in caplog.text


def test_an_extended_xyz_states_its_charge_and_counts_as_neutral_without(tmp_path):
    path = tmp_path / "ions.extxyz"
    path.write_text(xyz("charge=-1 name=a") + xyz("name=b"))
    assert read(path).properties["charge"].tolist() == [-1.0, 0.0]


def test_a_charge_of_another_unit_is_refused(tmp_path):
    path = tmp_path / "ions.extxyz"
    path.write_text(xyz("charge=-1.6e3"))
    with pytest.raises(UsageError, match="expected charge of -20 to 20 e, found -1600"):
        read(path)


def test_records_of_one_name_and_the_same_atoms_are_conformers(tmp_path):
    names = np.array(["a", "b", "a", "a"])
    found = find_conformers(waters(4, names=names))
    assert ids_of(found).tolist() == [0, 1, 0, 0]
    other = found.atomic_numbers.copy()
    other[:3] = other[[1, 0, 2]]  # The same atoms in another order.
    found = find_conformers(waters(4, names=names, atomic_numbers=other))
    assert ids_of(found).tolist() == [0, 1, 2, 2]
    assert find_conformers(waters(4)).molecule_id is None


def test_conformers_of_a_molecule_are_in_one_split(tmp_path):
    ids = np.random.default_rng(0).integers(30, size=120).astype(np.int32)
    path = tmp_path / "conformers.npz"
    data.write_npz(waters(120, molecule_id=ids), path)
    parts = {split: read(path, (), split=split) for split in data.SPLITS}
    assert sum(len(part.num_atoms) for part in parts.values()) == 120
    assert [len(np.unique(part.molecule_id)) for part in parts.values()] == [24, 3, 3]
    of_part = [set(part.molecule_id.tolist()) for part in parts.values()]
    assert not set.intersection(*of_part)
    assert len(set.union(*of_part)) == 30


def test_a_batch_draws_molecules_and_then_a_conformer_of_each():
    ids = np.array([0, 1, 1, 1, 2, 2, 0, 1], np.int32)
    packed = data.pack(waters(8, molecule_id=ids), SPECIES, (3,))
    assert data.num_molecules(packed[0]) == 3
    assert data.steps_per_epoch(packed, 3) == 1
    shown = np.zeros(8, int)
    for step in range(2_000):
        rows = identities(data.batch_at(packed, 3, 0, step))
        assert sorted(ids[rows]) == [0, 1, 2]
        np.add.at(shown, rows, 1)
    expected = 2_000 / np.bincount(ids)[ids]
    # Five standard deviations of a binomial number.
    assert np.all(np.abs(shown - expected) < 5 * np.sqrt(expected))
    again = identities(data.batch_at(packed, 3, 0, 7))
    assert again.tolist() == identities(data.batch_at(packed, 3, 0, 7)).tolist()


def test_every_conformer_is_validated():
    ids = np.array([1, 0, 1, 1], np.int32)
    packed = data.pack(waters(4, molecule_id=ids), SPECIES, (3,))
    batches = list(data.batches_in_order(packed, 3))
    masks = np.concatenate([batch.node_mask[:, 0] for batch in batches])
    rows = np.concatenate([identities(batch) for batch in batches])[masks]
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_numbers_of_molecules_stay_apart_where_sets_are_joined():
    ids = np.array([0, 0, 1], np.int32)
    joined = concatenate([waters(3, molecule_id=ids), waters(2)])
    assert joined.molecule_id.tolist() == [0, 0, 1, 2, 3]
    assert concatenate([waters(3), waters(2)]).molecule_id is None
    chosen = data.select(joined, np.array([4, 1]))
    assert chosen.molecule_id.tolist() == [3, 0]
    assert data.checksum(joined) != data.checksum(concatenate([waters(3), waters(2)]))


def test_a_config_mixes_molecules_of_other_data_in(tmp_path):
    paths = [tmp_path / name for name in ("few.npz", "many.npz")]
    for path, count in zip(paths, (4, 15), strict=True):
        data.write_npz(waters(count, molecule_id=np.zeros(count, np.int32)), path)
    config = tiny.get_config()
    config.data.path = str(paths[0])
    config.data.mixed = ((str(paths[1]), 5),)
    config.model.conditions = ("noise_std", "charge")
    train.check_config(config)
    packed, held_out, _ = train.load_data(config)
    assert len(packed[0].species) == 9
    assert data.num_molecules(packed[0]) == 2
    assert packed[0].conditions["charge"].mask.all()
    assert sum(len(bucket.species) for bucket in held_out) == 4


@pytest.mark.parametrize("wrong", ["qm9", ("qm9", 0), ("qm9",), (5, 5)])
def test_what_is_mixed_in_has_a_number(wrong):
    config = tiny.get_config()
    config.data.mixed = (wrong,)
    with pytest.raises(UsageError, match="expected pairs of data and how many"):
        train.check_config(config)
