"""The compiled cutting law against plain loops, enumeration and chemistry."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from symphony import data
from symphony.orders import MOST_GUMBEL, CutNoise, Law, cut, draw_cut_noise
from tests.symphony import orders_numpy as twin

TABLE = (1, 6, 7, 8, 9)
IS_HEAVY = np.array([False, True, True, True, True])
H, C, N, O, F = range(5)
TOLERANCE, CUTOFF = 0.125, 5.0

PROPANE = np.array(
    [
        [1.272, -0.260, 0.000],
        [0.000, 0.588, 0.000],
        [-1.272, -0.260, 0.000],
        [1.322, -0.905, 0.884],
        [1.322, -0.905, -0.884],
        [2.170, 0.366, 0.000],
        [-1.322, -0.905, 0.884],
        [-1.322, -0.905, -0.884],
        [-2.170, 0.366, 0.000],
        [0.000, 1.248, 0.876],
        [0.000, 1.248, -0.876],
    ],
    np.float32,
)
PROPANE_SPECIES = np.array([C] * 3 + [H] * 8)

# Fluoramine, whose only heavy neighbours are N and F, and hydrazine.
FLUORAMINE = np.array(
    [[0, 0, 0], [1.43, 0, 0], [-0.36, 0.95, 0], [-0.36, -0.4, 0.86]], np.float32
)
HYDRAZINE = np.array(
    [
        [0.72, 0, 0],
        [-0.72, 0, 0],
        [1.04, 0.96, 0.1],
        [1.04, -0.4, 0.88],
        [-1.04, -0.96, 0.1],
        [-1.04, 0.4, 0.88],
    ],
    np.float32,
)


@functools.partial(jax.jit, static_argnames="heavy_first")
def cut_batch(noise, positions, species, node_mask, heavy_first):
    law = Law(jnp.asarray(IS_HEAVY), TOLERANCE, CUTOFF, heavy_first)
    one = functools.partial(cut, law=law)
    return jax.vmap(one)(noise, positions, species, node_mask)


def cut_one(noise, positions, species, node_mask=None, heavy_first=False):
    node_mask = np.ones(len(species), bool) if node_mask is None else node_mask
    batch = jax.tree.map(lambda x: x[None], (noise, positions, species, node_mask))
    return jax.tree.map(lambda x: x[0], cut_batch(*batch, heavy_first=heavy_first))


def cut_often(positions, species, count, heavy_first=False, seed=0, few=False):
    keys = jax.random.split(jax.random.key(seed), count)
    noise = jax.vmap(draw_cut_noise, (0, None))(keys, len(species))
    if few:  # As of a large molecule.
        large = jax.vmap(draw_cut_noise, (0, None))(keys, MOST_GUMBEL + 1)
        noise = CutNoise(noise.first, large.edges[:, : len(species)])
    copies = [np.repeat(x[None], count, 0) for x in (positions, species)]
    mask = np.ones((count, len(species)), bool)
    return jax.device_get(cut_batch(noise, *copies, mask, heavy_first=heavy_first))


@pytest.fixture(scope="module", params=[False, True], ids=["any", "heavy_first"])
def qm9_cuts(request):
    """200 molecules of the packaged sample, with their noise and compiled cuts."""
    molecules, _ = data.read_molecules("qm9-sample", TABLE, 29, split="train")
    chosen = np.random.default_rng(0).permutation(len(molecules.num_atoms))[:200]
    (batch,) = data.pack(data.select(molecules, chosen), TABLE, (29,))
    keys = jax.random.split(jax.random.key(1), len(chosen))
    noise = jax.vmap(draw_cut_noise, (0, None))(keys, 29)
    cuts = cut_batch(noise, *batch[:3], heavy_first=request.param)
    return request.param, batch, jax.device_get(noise), jax.device_get(cuts)


def rows(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_cuts_equal_plain_loops_on_200_molecules(qm9_cuts):
    heavy_first, batch, noise, cuts = qm9_cuts
    law = twin.Law(TOLERANCE, CUTOFF, heavy_first)
    for index in range(200):
        molecule, result = rows(batch, index), rows(cuts, index)
        n = molecule.node_mask.sum()
        expected = twin.cut(
            noise.first[index],
            noise.edges[index],
            molecule.positions[:n],
            molecule.species[:n],
            IS_HEAVY,
            law,
        )
        assert result.order[:n].tolist() == expected.order
        assert result.focus[: n - 1].tolist() == expected.focus[: n - 1]
        assert bool(result.complete) is expected.complete
        np.testing.assert_allclose(result.labels[:n, :n], expected.labels, atol=1e-6)
        np.testing.assert_allclose(result.log_law[:n], expected.log_law, atol=1e-5)
        np.testing.assert_allclose(result.log_first, expected.log_first, atol=1e-5)
        np.testing.assert_array_equal(
            result.positions[:n], molecule.positions[expected.order]
        )
        np.testing.assert_array_equal(
            result.species[:n], molecule.species[expected.order]
        )


def test_every_order_visits_each_atom_once(qm9_cuts):
    _, batch, _, cuts = qm9_cuts
    for molecule, order in zip(batch.node_mask, cuts.order, strict=True):
        n = molecule.sum()
        assert sorted(order[:n].tolist()) == list(range(n))
    assert np.array_equal(cuts.node_mask, batch.node_mask)
    assert cuts.complete.all()


def test_every_atom_is_reached_from_a_placed_neighbour(qm9_cuts):
    _, _, _, cuts = qm9_cuts
    step = np.arange(28)
    places = cuts.node_mask[:, 1:]
    assert np.all((cuts.focus[:, :-1] <= step)[places])
    from_focus = np.take_along_axis(cuts.positions, cuts.focus[:, :-1, None], axis=1)
    distances = np.linalg.norm(cuts.positions[:, 1:] - from_focus, axis=-1)
    assert distances[places].max() < 2.0
    of_focus = np.take_along_axis(
        cuts.labels[:, :-1], cuts.focus[:, :-1, None, None], axis=2
    )[:, :, 0]
    drawn = np.take_along_axis(of_focus, cuts.species[:, 1:, None], axis=2)[..., 0]
    assert np.all(drawn[places] > 0)


def test_labels_sum_to_one_except_at_the_last_step(qm9_cuts):
    _, _, _, cuts = qm9_cuts
    places = np.pad(cuts.node_mask[:, 1:], ((0, 0), (0, 1)))
    sums = cuts.labels.sum(axis=(2, 3))
    np.testing.assert_allclose(sums[places], 1.0, atol=1e-5)
    assert np.all(cuts.labels[~places] == 0)
    unplaced = np.arange(29) > np.arange(29)[:, None]
    assert np.all(cuts.labels[:, unplaced] == 0)


def test_heavy_first_places_no_hydrogen_before_the_last_heavy_atom(qm9_cuts):
    heavy_first, _, _, cuts = qm9_cuts
    heavy = IS_HEAVY[cuts.species] & cuts.node_mask
    after = np.arange(29) >= heavy.sum(axis=1)[:, None]
    early_hydrogens = np.any(heavy & after)
    assert early_hydrogens != heavy_first


@pytest.mark.parametrize(
    ("positions", "species"),
    [(FLUORAMINE, [N, F, H, H]), (HYDRAZINE, [N, N, H, H, H, H])],
    ids=["fluoramine", "hydrazine"],
)
def test_heavy_first_knows_heavy_atoms_of_every_index(positions, species):
    species = np.array(species)
    cuts = cut_often(positions, species, 64, heavy_first=True)
    assert np.all(IS_HEAVY[cuts.species[:, :2]])
    assert {tuple(order[:2]) for order in cuts.order} == {(0, 1), (1, 0)}
    # Without the rule a nitrogen takes the shorter bonds to hydrogen first.
    free = cut_often(positions, species, 64)
    after_nitrogen = free.species[free.order[:, 0] == 0, 1]
    assert len(after_nitrogen) > 0
    assert np.all(after_nitrogen == H)


def test_heavy_first_crosses_a_bridge_of_hydrogen():
    positions = np.array([[0, 0, 0], [3, 0, 0], [6, 0, 0]], np.float32)
    cuts = cut_often(positions, np.array([C, H, C]), 16, heavy_first=True)
    assert cuts.complete.all()
    assert np.all(cuts.order[:, 1] == 1)


@pytest.mark.parametrize("few", [False, True], ids=["small", "large"])
def test_propane_follows_the_enumerated_law(few):
    heavy = IS_HEAVY[PROPANE_SPECIES]
    law = twin.Law(TOLERANCE, CUTOFF, False)
    expected = twin.law_of_first_two_steps(PROPANE, heavy, law)
    assert sum(expected.values()) == pytest.approx(1.0)
    counts = dict.fromkeys(expected, 0)
    num_chunks, size = 5, 4_000
    for seed in range(num_chunks):
        cuts = cut_often(PROPANE, PROPANE_SPECIES, size, seed=seed, few=few)
        order, focus = cuts.order, cuts.focus
        for row in range(size):
            path = order[row].tolist()
            first_edge = (path[focus[row, 0]], path[1])
            counts[path[0], first_edge, (path[focus[row, 1]], path[2])] += 1
    observed = np.array([counts[path] for path in expected])
    mean = num_chunks * size * np.array(list(expected.values()))
    assert len(expected) == 28
    assert mean.min() > 20
    assert stats.chisquare(observed, mean).pvalue > 1e-3


def test_log_law_is_that_of_the_next_atom_and_adds_up_to_one_over_orders():
    positions = np.array(
        [[0, 0, 0], [1.0, 0, 0], [1.05, 1.0, 0], [0.05, 1.06, 0.0]], np.float32
    )
    species = np.array([C, C, N, O])
    law = twin.Law(TOLERANCE, CUTOFF, False)
    heavy = IS_HEAVY[species]
    cuts = cut_often(positions, species, 400)
    found = {}
    for order, first, steps in zip(
        cuts.order, cuts.log_first, cuts.log_law, strict=True
    ):
        found[tuple(order.tolist())] = first + steps.sum()
    for order, log_probability in found.items():
        expected = twin.log_law_of_order(order, positions, heavy, law)
        assert log_probability == pytest.approx(expected, abs=1e-5)
    # Two foci may reach the same atom, so the law of an atom exceeds that of an edge.
    every = itertools.permutations(range(4))
    logs = [twin.log_law_of_order(order, positions, heavy, law) for order in every]
    possible = np.isfinite(logs)
    assert possible.sum() == len(found)
    assert np.exp(list(found.values())).sum() == pytest.approx(1.0, abs=1e-5)


def test_padding_changes_nothing():
    noise = draw_cut_noise(jax.random.key(3), 4)
    species = np.array([N, F, H, H])
    small = cut_one(noise, FLUORAMINE, species)
    wide = CutNoise(
        *(jnp.pad(x, [(0, 3)] * x.ndim, constant_values=9.0) for x in noise)
    )
    large = cut_one(
        wide,
        np.pad(FLUORAMINE, [(0, 3), (0, 0)], constant_values=0.5),
        np.pad(species, (0, 3), constant_values=C),
        np.arange(7) < 4,
    )
    for name, value in small._asdict().items():
        corner = tuple(slice(size) for size in value.shape)
        np.testing.assert_array_equal(getattr(large, name)[corner], value, err_msg=name)
    assert np.all(large.positions[4:] == 0)
    assert np.all(large.labels[:, 4:] == 0)


def test_a_single_atom_is_a_complete_order():
    noise = draw_cut_noise(jax.random.key(0), 3)
    result = cut_one(
        noise, np.ones((3, 3), np.float32), np.full(3, O), np.arange(3) < 1
    )
    assert bool(result.complete)
    assert float(result.log_first) == 0.0
    assert np.all(result.labels == 0)
    assert np.all(result.log_law == 0)


def test_atoms_out_of_reach_make_the_order_incomplete():
    positions = np.array([[0, 0, 0], [1, 0, 0], [9, 0, 0]], np.float32)
    cuts = cut_often(positions, np.array([C, C, C]), 8)
    assert not cuts.complete.any()
