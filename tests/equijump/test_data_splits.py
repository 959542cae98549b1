"""Tests of the division of data, and of what a run must go on with."""

import numpy as np
import pytest

from common.errors import UsageError
from configs.equijump import tiny
from equijump import train
from equijump.data import pairs, sources, splits
from equijump.data.residues import RESIDUES, TOKENS
from tests.equijump.test_data_pairs import GLYCINE, doubled, make_trajectory


def make_config(**data):
    config = tiny.get_config()
    config.data.sources, config.data.lags = ("toy",), (2.0,)
    config.data.update(data)
    return config


@pytest.fixture
def toy(monkeypatch):
    """Reads the trajectories that it is given."""

    def use(*made):
        monkeypatch.setitem(sources.SOURCES, "toy", lambda argument, data: made)

    return use


def named(count, num_frames=200, temperature=300.0, token=1):
    return [
        doubled(make_trajectory(num_frames, token=token))._replace(
            name=f"{token}_{temperature:g}_{number}",
            checksum=f"{token} {temperature} {number}",
            conditions={"temperature": temperature},
        )
        for number in range(count)
    ]


def names(segments):
    return [s.trajectory.name for s in segments]


def test_the_last_of_each_system_and_temperature_validate(toy):
    toy(*named(3), *named(3, temperature=350.0), *named(4, token=GLYCINE))
    found = splits.load_segments(make_config(held_out=2))
    assert names(found.validation) == [
        "1_300_1", "1_300_2", "1_350_1", "1_350_2", "8_300_2", "8_300_3",
    ]  # fmt: skip
    assert not set(names(found.training)) & set(names(found.validation))
    assert len(found.training) == 4


def test_few_trajectories_are_divided_by_time(toy):
    toy(*named(2))
    found = splits.load_segments(make_config(held_out=2))
    assert [(s.start, s.stop) for s in found.validation] == [(160, 200)] * 2
    assert all(s.stop <= 160 - 2 for s in found.training)


def test_short_trajectories_are_told_by_name(toy):
    toy(*named(3), *named(1, num_frames=10, temperature=310.0))
    with pytest.raises(UsageError, match="1_310_0: expected more than 20 frames"):
        splits.load_segments(make_config(lags=(4.0,)))


def test_a_residue_alone_is_told(toy):
    toy(*(make_trajectory()._replace(name=f"a_{k}") for k in range(3)))
    with pytest.raises(UsageError, match=r"a_0: expected two residues .* found ALA"):
        splits.load_segments(make_config())


def test_a_type_that_the_network_does_not_know_is_told(toy):
    toy(*named(3, token=TOKENS["MSE"]))
    config = make_config()
    assert splits.load_segments(config).num_types == len(RESIDUES)
    config.model.residue_types = 22
    with pytest.raises(UsageError, match=r"300_0: .* found MSE as residue 1; train"):
        splits.load_segments(config)


def test_slots_are_as_many_as_the_data_need(toy):
    toy(*named(3), *named(3, token=TOKENS["PTR"]))
    found = splits.load_segments(make_config())
    batch = pairs.batch_at(found.training, found.lags, 4, 2, seed=0, step=0)
    assert batch.source.shape == (4, 2, 16, 3)
    toy(*named(3))
    found = splits.load_segments(make_config())
    assert (found.num_types, found.training[0].trajectory.system.slot_atoms.shape) == (
        22,
        (2, 14),
    )


def test_at_least_one_trajectory_validates():
    with pytest.raises(UsageError, match="held_out: expected 1 or more, found 0"):
        train.check_config(make_config(held_out=0))


def test_each_trajectory_is_long_enough_at_its_own_spacing(toy):
    first, *rest = named(3, num_frames=40)
    toy(first, *(t._replace(spacing=first.spacing / 4) for t in rest))
    with pytest.raises(UsageError, match="1_300_1: expected more than 80 frames"):
        splits.load_segments(make_config(lags=(4.0,)))


def test_gaps_between_blocks_are_by_the_spacing_of_each(toy):
    first, second = named(2)
    toy(first, second._replace(spacing=first.spacing / 4))
    found = splits.load_segments(make_config(held_out=2, lags=(4.0,)))
    gaps = [v.start - t.stop for t, v in zip(*found[:2], strict=True)]
    assert gaps == [3, 9]


def test_unrolled_jumps_need_longer_trajectories(toy):
    toy(*named(3, num_frames=18))
    config = make_config(held_out=1)
    assert splits.load_segments(config).training
    config.loss.unroll = 3
    with pytest.raises(UsageError, match="expected more than 20 frames"):
        splits.load_segments(config)


def test_a_condition_of_the_model_must_be_stated(toy):
    toy(*named(3))
    config = make_config()
    config.model.conditions = ("lag", "gap")
    with pytest.raises(UsageError, match=r"expected gap of a traj.*found temperature"):
        splits.load_segments(config)
    toy(*(t._replace(conditions={"gap": 3.0}) for t in named(3)))
    found = splits.load_segments(config)
    batch = pairs.batch_at(found.training, found.lags, 4, 2, seed=0, step=0)
    np.testing.assert_array_equal(batch.conditions["gap"].value, 3.0)
    assert batch.conditions["gap"].mask.all()


def test_sources_are_weighed_by_clusters(toy):
    made = named(3, num_frames=400)
    rng = np.random.default_rng(0)
    for trajectory in made:
        trajectory.positions[:] = rng.normal(size=trajectory.positions.shape)
    toy(*made)
    found = splits.load_segments(make_config(num_clusters=2, held_out=1))
    assert all(s.weights is not None for s in found.training)
    assert all(s.weights is None for s in found.validation)


def described(toy, made, **data):
    toy(*made)
    return splits.describe(splits.load_segments(make_config(**data)))


def test_the_same_data_has_the_same_checksums(toy):
    assert described(toy, named(4)) == described(toy, named(4))


def test_another_division_changes_both_checksums_but_not_that_of_all(toy):
    one, two = (described(toy, named(4), held_out=n) for n in (1, 2))
    assert one["training_checksum"] != two["training_checksum"]
    assert one["validation_checksum"] != two["validation_checksum"]
    assert one["data_checksum"] == two["data_checksum"]
    assert (one["held_out"], two["held_out"]) == (["1_300_3"], ["1_300_2", "1_300_3"])


def test_files_that_change_places_change_checksums(toy):
    first, second, third = named(3)
    one = described(toy, [first, second, third], held_out=1)
    two = described(toy, [first, third, second], held_out=1)
    assert one["training_checksum"] != two["training_checksum"]
    assert one["data_checksum"] == two["data_checksum"]


def test_another_temperature_changes_checksums(toy):
    made = [t._replace(conditions={}) for t in named(3)]
    one = described(toy, made, temperatures=(300.0,))
    two = described(toy, made, temperatures=(310.0,))
    assert one["training_checksum"] != two["training_checksum"]


def test_the_range_of_each_condition_of_training_is_described(toy):
    warm = [t._replace(conditions={"temperature": 350.0, "gap": 4.5}) for t in named(3)]
    found = described(toy, named(3) + warm, held_out=1)
    expected = {"temperature": [300.0, 350.0], "gap": [4.5, 4.5]}
    assert found["conditions"] == expected
