"""Charges and conformers: from files to splits and batches."""

import jax
import numpy as np
import pytest

from common.errors import UsageError
from configs.symphony import tiny
from symphony import build, data, drawing, manifest, molfile, options, records, train
from symphony.chemistry import bonds
from symphony.data.molecules import concatenate, find_conformers, ids_of
from symphony.evaluate import conventions, samples
from symphony.weights import Weights
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


AMMONIUM = (
    np.array([7, 1, 1, 1, 1], np.uint8),
    np.array(
        [[0, 0, 0], [0.59, 0.59, 0.59], [-0.59, -0.59, 0.59], [-0.59, 0.59, -0.59],
         [0.59, -0.59, -0.59]],
        np.float32,
    ),
)  # fmt: skip


def test_bonds_are_those_of_the_charge():
    for preset in ("xyz2mol", "xyz2mol_hueckel", "strict"):
        assert bonds.perceive(*AMMONIUM, preset) is None
        assert bonds.write_smiles(bonds.perceive(*AMMONIUM, preset, 1)) == "[NH4+]"
        found = bonds.perceive_all([AMMONIUM] * 2, preset, charges=[0, 1])
        assert [one.status == "valid" for one in found] == [False, True]


def test_files_of_an_ion_state_its_charge(tmp_path):
    ion = records.Sample(0, 3, *AMMONIUM, stopped=True, log_likelihood=-1.0, charge=1)
    path = tmp_path / "ions.sdf"
    with molfile.open_output(str(path), {"seed": 3}, False) as output:
        for one in manifest.with_bonds(iter([ion])):
            assert manifest.write(output, *one)
    assert '"charge": 1' in path.with_suffix(".jsonl").read_text()
    for name in ("ions.sdf", "ions.extxyz"):
        again, _ = data.read_molecules(
            tmp_path / name, (1, 7), 9, properties=("charge",)
        )
        assert again.properties["charge"].tolist() == [1.0]
    judged = samples.read_samples(path)
    found = conventions.perceive(
        judged.molecules, ["strict"], judged.faults, charges=judged.charges
    )
    assert [one.smiles for one in found["xyz2mol_hueckel"]] == ["[H][N+]([H])([H])[H]"]
    assert bonds.judge_strictly(*found["xyz2mol_hueckel"]).status == "valid"


def weights_of(*conditions):
    config = tiny.get_config()
    config.model.conditions = ("noise_std", *conditions)
    model, params = (
        build.make_model(config),
        build.init_params(config, jax.random.key(0)),
    )
    return Weights("tiny", config, model, params, "", "")


def test_weights_of_neutral_molecules_make_no_ions():
    neutral = weights_of()
    with pytest.raises(UsageError, match=r"--charge: expected 0, as tiny .* found 1"):
        options.choose(neutral, charge=1)
    assert options.choose(neutral).charge == 0


def test_molecules_have_the_charge_that_is_asked_for():
    weights = weights_of("charge")
    asked = options.choose(weights, charge=-1, max_atoms=8)
    assert asked.conditions == {"charge": -1.0}
    (drawn,) = drawing.draw(weights, asked, 0, 0, 1, 1)
    assert drawn.charge == -1
    assert options.choose(weights).conditions == {"charge": 0.0}
    with pytest.raises(UsageError, match="--condition: expected no charge"):
        options.choose(weights, conditions={"charge": 1.0})
