"""Molecules as arrays, their screening, and the packaged sample."""

import hashlib

import numpy as np
import pytest

from common.errors import UsageError
from symphony import data
from symphony.data.molecules import Unreadable
from symphony.data.neighbours import MIN_DISTANCE, coincident
from symphony.data.screening import faults, screen

TABLE = (1, 6, 7, 8, 9)


def line_of(num_atoms, spacing=1.0):
    return np.arange(num_atoms)[:, None] * np.array([[spacing, 0.0, 0.0]])


def molecules_of(sizes, numbers=6):
    positions = np.concatenate([line_of(size) for size in sizes])
    return data.make_molecules(
        np.array(sizes), np.full(len(positions), numbers), positions
    )


def test_selection_keeps_each_molecules_own_atoms():
    molecules = molecules_of([3, 1, 4, 2])
    molecules.positions[:, 1] = np.repeat(np.arange(4), molecules.num_atoms)
    chosen = data.select(molecules, np.array([2, 0]))
    np.testing.assert_array_equal(chosen.num_atoms, [4, 3])
    np.testing.assert_array_equal(chosen.offsets, [0, 4, 7])
    np.testing.assert_array_equal(chosen.positions[:, 1], [2, 2, 2, 2, 0, 0, 0])
    np.testing.assert_array_equal(chosen.names, ["2", "0"])
    by_mask = data.select(molecules, np.array([True, False, True, False]))
    np.testing.assert_array_equal(by_mask.num_atoms, [3, 4])


def test_a_part_of_the_data_is_drawn_at_random_and_always_the_same():
    molecules = data.platonic_solids()
    everything = data.concatenate([molecules] * 40)
    part = data.choose_molecules(everything, 100)
    np.testing.assert_array_equal(
        part.num_atoms, data.choose_molecules(everything, 100).num_atoms
    )
    # Not the first hundred, which would repeat five sizes in order.
    assert not np.array_equal(part.num_atoms, everything.num_atoms[:100])
    assert len(data.choose_molecules(molecules, 9).num_atoms) == 5


def test_concatenation_of_parts_gives_the_whole():
    molecules = molecules_of([3, 1, 4])
    parts = [data.select(molecules, np.array([index])) for index in range(3)]
    for whole, joined in zip(molecules, data.concatenate(parts), strict=True):
        np.testing.assert_array_equal(whole, joined)


def test_checksum_sees_every_array_but_the_names():
    molecules = molecules_of([3, 2])
    reference = data.checksum(molecules)
    assert data.checksum(molecules_of([3, 2])) == reference
    moved = molecules.positions + np.float32(1e-4)
    assert data.checksum(molecules._replace(positions=moved)) != reference
    other = molecules.atomic_numbers + np.uint8(1)
    assert data.checksum(molecules._replace(atomic_numbers=other)) != reference
    assert data.checksum(molecules_of([2, 3])) != reference
    renamed = molecules._replace(names=np.array(["a", "b"]))
    assert data.checksum(renamed) == reference


def test_species_are_indices_into_the_table():
    found = data.to_species(np.array([9, 1, 16, 6], np.uint8), TABLE)
    np.testing.assert_array_equal(found, [4, 0, -1, 1])


def test_coincidence_begins_at_the_stated_distance():
    for spacing, expected in (
        (0.99 * MIN_DISTANCE, True),
        (1.01 * MIN_DISTANCE, False),
    ):
        pair = data.make_molecules(np.array([2]), np.array([1, 1]), line_of(2, spacing))
        assert coincident(pair)[0] == expected


def test_reach_is_of_heavy_atoms_alone_where_they_come_first():
    """Two carbons with a hydrogen between them, and atoms in a line."""
    bridge = [[0.0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]]
    line = [[0.0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]]
    gap = [[0.0, 0, 0], [1.5, 0, 0], [4.0, 0, 0]]
    lone = [[5.0, 5.0, 5.0]]
    hydrogen = [[0.0, 0, 0], [0.7, 0, 0]]
    molecules = data.make_molecules(
        np.array([3, 3, 3, 1, 2]),
        np.array([6, 1, 6, 6, 6, 6, 6, 6, 6, 1, 1, 1]),
        np.array(bridge + line + gap + lone + hydrogen),
    )
    found = data.unreachable(molecules, 0.6, 2.0, heavy_first=True)
    np.testing.assert_array_equal(found, [True, False, True, False, False])
    found = data.unreachable(molecules, 0.6, 2.0, heavy_first=False)
    np.testing.assert_array_equal(found, [False, False, True, False, False])
    found = data.unreachable(molecules, 0.8, 3.0, heavy_first=True)
    np.testing.assert_array_equal(found, [False, False, False, False, True])


def test_coincidence_looks_at_no_other_molecule():
    assert not coincident(molecules_of([1, 1, 2, 2])).any()


def spoil(reason, molecules, index):
    """Gives the molecule one fault and returns a word of the reason expected."""
    first = molecules.offsets[index]
    if reason == "nan":
        molecules.positions[first + 1, 2] = np.nan
        return "not finite"
    if reason == "inf":
        molecules.positions[first, 0] = np.inf
        return "not finite"
    if reason == "coincident":
        molecules.positions[first + 1] = molecules.positions[first]
        return "apart"
    molecules.atomic_numbers[first] = 16
    return "element"


@pytest.mark.parametrize("reason", ["nan", "inf", "coincident", "element"])
def test_bad_molecule_is_skipped_counted_and_named(reason):
    molecules = molecules_of([3] * 40)
    word = spoil(reason, molecules, 7)
    records, report = screen(
        data.Records(molecules, None, ()), TABLE, 29, "set.sdf", strict=False
    )
    assert len(records.molecules.num_atoms) == 39
    assert "7" not in records.molecules.names
    assert report.num_records == 40
    ((found, names),) = report.skipped.items()
    assert word in found
    assert names == ("7",)
    assert "skipped 1 of 40 records" in data.describe(report)
    with pytest.raises(UsageError, match=word):
        screen(data.Records(molecules, None, ()), TABLE, 29, "set.sdf", strict=True)


def test_molecule_above_the_largest_bucket_is_skipped_and_an_empty_one_too():
    molecules = molecules_of([3] * 58 + [30, 0])
    records, report = screen(
        data.Records(molecules, None, ()), TABLE, 29, "set.sdf", strict=False
    )
    assert len(records.molecules.num_atoms) == 58
    assert report.skipped == {"no atoms": ("59",), "more than 29 atoms": ("58",)}


def test_molecule_with_two_faults_is_counted_once():
    molecules = molecules_of([3, 3])
    spoil("nan", molecules, 0)
    spoil("element", molecules, 0)
    found = faults(data.Records(molecules, None, ()), TABLE, 29)
    assert sum(int(concerned.sum()) for concerned in found.values()) == 1


def test_more_than_a_twentieth_of_bad_records_is_an_error():
    molecules = molecules_of([3] * 40)
    spoil("nan", molecules, 0)
    spoil("nan", molecules, 1)
    records = data.Records(molecules, None, ())
    screen(records, TABLE, 29, "set.sdf", strict=False)  # 5 % exactly.
    unreadable = (Unreadable("x", "line 7: found nothing"),)
    records = records._replace(unreadable=unreadable)
    with pytest.raises(UsageError, match=r"set\.sdf: skipped 3 of 41 .* at most 5%"):
        screen(records, TABLE, 29, "set.sdf", strict=False)


def test_skipped_records_leave_their_split_with_them():
    molecules = molecules_of([3] * 20)
    spoil("nan", molecules, 4)
    split = np.arange(20, dtype=np.int8)
    records, _ = screen(
        data.Records(molecules, split, ()), TABLE, 29, "set.sdf", strict=False
    )
    np.testing.assert_array_equal(records.split, np.delete(np.arange(20), 4))


def test_no_molecule_left_is_an_error():
    empty = data.select(molecules_of([3]), np.array([False]))
    with pytest.raises(UsageError, match="expected at least one molecule"):
        screen(data.Records(empty, None, ()), TABLE, 29, "set.sdf", strict=False)


def test_log_names_the_first_of_many(caplog):
    report = data.SkipReport(1000, {"no atoms": tuple(f"m{i}" for i in range(30))})
    line = data.describe(report)
    assert "30 with no atoms (m0, m1, m2, m3, m4, ...)" in line
    assert "\n" not in line


def test_packaged_sample_is_the_one_of_its_data_card():
    path = data.sources.qm9.PACKAGED / "qm9_sample.npz"
    card = (data.sources.qm9.PACKAGED / "DATA_CARD.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    train, report = data.read_molecules("qm9-sample", TABLE, 29, split="train")
    assert len(train.num_atoms) == 5000
    assert not report.skipped
    validation, _ = data.read_molecules("qm9-sample", TABLE, 29, split="validation")
    assert len(validation.num_atoms) == 500
    assert not set(train.names) & set(validation.names)
    assert path.stat().st_size < 1.2e6
