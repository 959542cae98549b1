"""Tests of the division of data, and of what a run must go on with."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UsageError
from common.runs import loop
from configs.equijump import tiny
from equijump import train
from equijump.data import lags, mixture, pairs, sequences, sources, splits
from equijump.data.residues import RESIDUES, TOKENS
from tests.equijump.test_data_pairs import GLYCINE, doubled, make_trajectory
from tests.equijump.test_data_sequences import changed, random_text, system_of


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


def test_trajectories_that_are_too_short_are_left_out_and_told(toy, caplog):
    toy(*named(3), *named(1, num_frames=10, temperature=310.0))
    found = splits.load_segments(make_config(lags=(4.0,)))
    assert not [n for n in names(found.training + found.validation) if "310" in n]
    assert "1 of 4 trajectories are left out" in caplog.text
    assert "1_310_0: expected more than 20 frames for lags up to 4" in caplog.text


def test_a_lag_that_is_too_long_for_all_trajectories_is_told(toy):
    toy(*named(3, num_frames=20), *named(3, num_frames=10, temperature=310.0))
    with pytest.raises(UsageError, match=r"1_300_0: .* more than 40 frames .* 40"):
        splits.load_segments(make_config(lags=(4.0, 40.0)))


@pytest.mark.parametrize("law", [(0.5, 4.0), (4.0, 3.0), (2.0, 3.0)])
def test_a_lag_that_nothing_serves_is_told(toy, law):
    toy(*named(3))
    with pytest.raises(UsageError, match=r"multiples of 2 ps.* found (0.5|3) ps"):
        splits.load_segments(make_config(lags=law))


def test_a_lag_is_snapped_to_the_spacing_and_told(toy, caplog):
    fine = named(3)
    coarse = [t._replace(spacing=9.0) for t in named(3, temperature=310.0)]
    toy(*fine, *coarse)
    found = splits.load_segments(make_config(lags=(10.0,)))
    batch = pairs.batch_at(found.training, found.lags, 64, 2, seed=0, step=0)
    is_coarse = batch.conditions["temperature"].value == 310.0
    told = batch.conditions["lag"].value
    assert (set(told[is_coarse]), set(told[~is_coarse])) == ({9.0}, {10.0})
    assert "a lag of 10 ps is served as 9 ps by 1_310_0" in caplog.text


def test_data_of_two_spacings_serve_what_each_has(toy, caplog):
    coarse = [t._replace(spacing=100.0) for t in named(3, temperature=310.0)]
    toy(*named(3), *coarse)
    found = splits.load_segments(make_config(lags=(2.0, 1_000.0)))
    batch = pairs.batch_at(found.training, found.lags, 64, 2, seed=0, step=0)
    is_coarse = batch.conditions["temperature"].value == 310.0
    expected = np.where(is_coarse, 1_000.0, 2.0)
    np.testing.assert_array_equal(batch.conditions["lag"].value, expected)
    assert not caplog.text


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


def test_each_trajectory_is_long_enough_at_its_own_spacing(toy, caplog):
    first, *rest = named(3, num_frames=40)
    toy(first, *(t._replace(spacing=first.spacing / 4) for t in rest))
    found = splits.load_segments(make_config(lags=(4.0,), split="time"))
    assert names(found.training) == names(found.validation) == ["1_300_0"]
    assert "1_300_1: expected more than 80 frames" in caplog.text


def test_gaps_between_blocks_are_by_the_spacing_of_each(toy):
    first, second = named(2)
    toy(first, second._replace(spacing=first.spacing / 4))
    found = splits.load_segments(make_config(held_out=2, lags=(4.0,)))
    gaps = [v.start - t.stop for t, v in zip(*found[:2], strict=True)]
    assert gaps == [3, 9]


def test_unrolled_jumps_need_longer_trajectories(toy):
    toy(*named(3, num_frames=18))
    config = make_config(split="time")
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


def test_all_are_divided_by_time(toy):
    toy(*named(5), *named(2, token=GLYCINE))
    found = splits.load_segments(make_config(split="time", lags=(10.0,)))
    assert names(found.training) == names(found.validation)
    assert len(found.training) == 7
    assert {(s.start, s.stop) for s in found.training} == {(0, 154)}
    assert {(s.start, s.stop) for s in found.validation} == {(160, 200)}


def test_both_sides_of_a_cut_have_the_same_lags_and_a_longer_gap(toy):
    toy(*named(2), *(t._replace(spacing=0.2) for t in named(2, token=GLYCINE)))
    for law in ({"lags": (2.0, 16.0)}, {"lags": (2.0, 20.0), "log_uniform": True}):
        found = splits.load_segments(make_config(split="time", **law))
        for kept, held in zip(found.training, found.validation, strict=True):
            served = lags.served(found.lags, kept)
            assert served == lags.served(found.lags, held)
            spacing = kept.trajectory.spacing
            assert (held.start - kept.stop) * spacing > served.values[-1]


def test_uneven_times_are_divided_with_a_gap_in_time(toy):
    times = np.cumsum(np.tile([0.1, 0.1, 0.8], 100))
    toy(*(t._replace(times=times, spacing=0.1) for t in named(2, num_frames=300)))
    found = splits.load_segments(make_config(split="time", lags=(5.0,)))
    for kept, held in zip(found.training, found.validation, strict=True):
        assert times[held.start] - times[kept.stop - 1] > 5.0
    drawn = pairs.batch_at(found.validation, found.lags, 200, 2, seed=0, step=0)
    assert drawn.source[:, 0, 0, 0].min() >= 240


def of_sequence(text, number=0, caps=False, **changes):
    """A trajectory of some sequence."""
    system = system_of(text, caps)
    made = make_trajectory(100)._replace(system=system, name=f"{text}_{number}")
    shape = 100, len(system.tokens), 3
    return made._replace(
        positions=np.zeros(shape, np.float32), checksum=f"{text} {number}", **changes
    )


PEPTIDES = ("AG", "GA", "KR", "WW", "YV", "DE", "FY", "GYDPETGTWG")


def sequences_of(segments):
    return {
        chain for s in segments for chain in sequences.chains_of(s.trajectory.system)
    }


def test_whole_sequences_are_held_out_whatever_their_caps(toy):
    made = [of_sequence(t, k, k == 1) for t in PEPTIDES for k in range(2)]
    made.append(of_sequence("AG/DE"))
    toy(*made)
    for held_out in (1, 3, 6):
        found = splits.load_segments(make_config(split="sequence", held_out=held_out))
        assert not sequences_of(found.training) & sequences_of(found.validation)
        assert len(found.training + found.validation) == len(made)
        assert len(found.held_out) >= held_out
        assert all(s.stop == 100 for s in found.validation)


def test_what_is_held_out_is_written_and_does_not_depend_on_the_order(toy):
    made = [of_sequence(text) for text in PEPTIDES]
    one, two = (
        described(toy, some, split="sequence", held_out=3)
        for some in (made, made[::-1])
    )
    assert one["held_out_sequences"] == two["held_out_sequences"]
    assert one["held_out_checksum"] == two["held_out_checksum"]
    assert len(one["held_out_sequences"]) == 3
    other = described(toy, made, split="sequence", held_out=4)
    assert other["held_out_checksum"] != one["held_out_checksum"]
    with pytest.raises(UsageError, match=r"run: expected the held_out data that this"):
        loop._check_same_data(Path("run"), one, other)
    assert "held_out_checksum" not in described(toy, named(4))


def test_similar_sequences_are_held_out_together(toy):
    rng = np.random.default_rng(0)
    parents = [random_text(rng, 25) for _ in range(6)]
    texts = [t for p in parents for t in (p, changed(rng, p, 0.3), p[2:])]
    toy(*(of_sequence(text) for text in texts))
    config = make_config(split="cluster", held_out=2)
    found = splits.load_segments(config)
    assert len(found.validation) == 6
    held = {s.trajectory.name.split("_")[0] for s in found.validation}
    for place in range(0, 18, 3):
        assert len(held & set(texts[place : place + 3])) in (0, 3)
    config.data.identity = 0.99
    assert len(splits.load_segments(config).validation) < 6


def test_lags_of_a_range_are_its_ends(toy):
    toy(*named(3))
    found = splits.load_segments(make_config(lags=(4.0, 9.0, 40.0), log_uniform=True))
    assert found.lags == lags.Lags((4.0, 40.0), is_range=True)


@pytest.mark.parametrize("split", ["sequence", "cluster"])
def test_too_few_sequences_are_told(toy, split):
    toy(of_sequence("AG"), of_sequence("KR"))
    with pytest.raises(UsageError, match=f"less than 2, as many {split}s.* found 2"):
        splits.load_segments(make_config(split=split, held_out=2))


def test_a_copy_of_what_validates_does_not_train(toy):
    first, second, third = named(3)
    toy(first, second, third, first._replace(name="copy"))
    with pytest.raises(
        UsageError, match="found copy to validate, and its copy 1_300_0"
    ):
        splits.load_segments(make_config(held_out=1))


def test_entries_come_by_their_weights_and_their_systems_equally(monkeypatch):
    made = {
        "one": [*named(3), *named(3, token=GLYCINE, num_frames=400)],
        "two": named(3, token=4),
    }
    monkeypatch.setitem(
        sources.SOURCES, "toy", lambda argument, data: iter(made[argument])
    )
    config = make_config(
        sources=("toy:one", "toy:two"), weights=(1.0, 3.0), held_out=1,
        temperatures=(300.0, 300.0),
    )  # fmt: skip
    train.check_config(config)
    found = splits.load_segments(config)
    shares = {}
    for segment, share in zip(
        found.training, mixture.shares_of(found.training), strict=True
    ):
        token = int(segment.trajectory.system.tokens[0])
        shares[token] = shares.get(token, 0.0) + share
    assert shares == pytest.approx({1: 0.125, GLYCINE: 0.125, 4: 0.75})
    config.data.weights = ()
    every = mixture.shares_of(splits.load_segments(config).training)
    assert every.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(every, 1 / 6)


def test_long_systems_alone_are_cropped(toy):
    toy(*(of_sequence("GYDPETGTWG", k) for k in range(3)),
        *(of_sequence("AGK", k) for k in range(3)))  # fmt: skip
    found = splits.load_segments(make_config(crop=4, crop_kind="space", held_out=1))
    assert found.num_nodes == 4
    crops = {s.trajectory.name[:3]: s.crop for s in found.training + found.validation}
    assert crops == {"GYD": (4, True), "AGK": None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": (1.0, 2.0)}, "data.weights: expected none, or 1 as .* found 2"),
        ({"weights": (0.0,)}, "data.weights: expected"),
        ({"split": "random"}, "data.split: expected one of trajectory, time, seq"),
        ({"crop": 1}, "data.crop: expected 2 residues or more"),
        ({"crop_kind": "ball"}, "data.crop_kind: expected one of sequence, space"),
        ({"identity": 0.0}, "data.identity: expected 0.05 to 1"),
        ({"lags": (20.0, 4.0), "log_uniform": True}, "lags: expected the smallest and"),
    ],
)
def test_values_of_the_mixture_that_cannot_be_are_told(change, told):
    with pytest.raises(UsageError, match=told):
        train.check_config(make_config(**change))
