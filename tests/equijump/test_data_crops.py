"""Tests of crops: residues of long proteins, the same of source and target."""

import jax
import numpy as np
import pytest

from equijump.data import crops, pairs
from equijump.data.crops import Crop
from equijump.data.residues import TOKENS
from equijump.data.segments import Segment
from tests.equijump.test_data_pairs import make_trajectory

ACE, NME, ALA = TOKENS["ACE"], TOKENS["NME"], TOKENS["ALA"]
LAW = pairs.Lags((2.0,), is_range=False)


def folded(chains=((ACE, *[ALA] * 18, NME),), num_frames=40):
    """Chains of residues of one atom, along a line that turns back half-way."""
    tokens = np.concatenate([np.array(chain, np.int32) for chain in chains])
    count = len(tokens)
    made = make_trajectory(num_frames)
    slots = np.full((count, 14), -1, np.int32)
    slots[:, 1] = np.arange(count)
    system = made.system._replace(
        tokens=tokens,
        chains=np.repeat(np.arange(len(chains)), list(map(len, chains))).astype(
            np.int32
        ),
        numbers=np.concatenate([np.arange(len(c), dtype=np.int32) for c in chains]),
        slot_atoms=slots,
    )
    place = np.arange(count)
    x = np.minimum(place, count - 1 - place)
    points = np.stack([x, place >= count / 2, 0 * place], axis=1) + 0.25
    moves = np.arange(num_frames)[:, None, None] * np.array([0.0, 0.0, 1.0])
    positions = np.float32(3.0 * points + moves)
    return made._replace(system=system, positions=positions)


def cropped(trajectory, size, in_space=False):
    count = len(trajectory.positions)
    return Segment(trajectory, 0, count, crop=Crop(size, in_space))


def chosen(trajectory, size, in_space, draws):
    return crops.choose(
        trajectory.system,
        Crop(size, in_space),
        pairs.pad_slots(trajectory, np.zeros(len(draws), int), 20),
        np.asarray(draws),
    )


def test_a_stretch_is_contiguous_and_keeps_caps_with_their_residues():
    found = chosen(folded(), 6, False, np.linspace(0.0, 0.999, 200))
    assert np.all(np.diff(found, axis=1) == 1)
    starts = set(found[:, 0].tolist())
    assert starts == {0, *range(2, 13), 14}
    assert set(found.ravel().tolist()) == set(range(20))


def test_a_stretch_stays_in_its_chain():
    trajectory = folded(((ALA,) * 4, (ALA,) * 16))
    found = chosen(trajectory, 6, False, np.linspace(0.0, 0.999, 100))
    first = found[:, 0] < 4
    np.testing.assert_array_equal(found[first], [[0, 1, 2, 3, -1, -1]] * first.sum())
    assert np.mean(first) == pytest.approx(0.2)
    assert found[~first].min() == 4


def test_a_crop_in_space_has_what_is_nearest():
    trajectory = folded(((ALA,) * 20,))
    found = chosen(trajectory, 6, True, [5.5 / 20, 0.01])
    np.testing.assert_array_equal(found, [[4, 5, 6, 13, 14, 15], [0, 1, 2, 17, 18, 19]])


def test_a_crop_in_space_has_no_cap_without_its_residue():
    found = chosen(folded(), 5, True, np.linspace(0.0, 0.999, 100))
    for row in found.tolist():
        assert 0 not in row or 1 in row
        assert 19 not in row or 18 in row
        assert len(set(row)) == 5


@pytest.mark.parametrize("in_space", [False, True])
def test_source_target_and_frames_before_have_the_same_residues(in_space):
    trajectory = folded()
    segment = cropped(trajectory, 6, in_space)
    batch = pairs.batch_at([segment], LAW, 200, 8, seed=0, step=3, num_before=1)
    assert np.all((batch.tokens > 0).sum(axis=1) == 6)
    moved = batch.target[:, :6, 1] - batch.source[:, :6, 1]
    np.testing.assert_allclose(moved, np.tile([0.0, 0.0, 1.0], (200, 6, 1)), atol=1e-5)
    back = batch.source[:, :6, 1] - batch.before[:, 0, :6, 1]
    np.testing.assert_allclose(back, moved, atol=1e-5)
    kept = batch.numbers[:, :6]
    expected = 3.0 * np.minimum(kept, 19 - kept) + 0.75
    np.testing.assert_allclose(batch.source[:, :6, 1, 0], expected)
    np.testing.assert_array_equal(batch.tokens[:, :6], trajectory.system.tokens[kept])
    assert not batch.tokens[:, 6:].any()
    assert not batch.slot_mask[:, 6:].any()
    assert len({tuple(row) for row in kept.tolist()}) > 5


def test_crops_are_functions_of_seed_and_step():
    segments = [cropped(folded(), 6), cropped(folded(((ALA,) * 4, (ALA,) * 16)), 6)]
    draw = lambda step, rows=None: pairs.batch_at(
        segments, LAW, 32, 6, 1, step, 0, rows
    )
    jax.tree.map(np.testing.assert_array_equal, draw(1), draw(1))
    assert np.any(draw(1).numbers != draw(2).numbers)
    rows = np.array([3, 30, 3])
    part = jax.tree.map(lambda x: x[rows], draw(1))
    jax.tree.map(np.testing.assert_array_equal, draw(1, rows), part)


def test_a_chain_that_is_shorter_than_the_crop_is_padded():
    segment = cropped(folded(((ALA,) * 4, (ALA,) * 16)), 6)
    batch = pairs.batch_at([segment], LAW, 100, 6, seed=0, step=0)
    short = (batch.tokens > 0).sum(axis=1) == 4
    assert 0 < short.sum() < 100
    assert not batch.source[short, 4:].any()
    np.testing.assert_array_equal(batch.chains[short, 4:], -1)
