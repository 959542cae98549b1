"""Bispectra, discrepancies and divergences against values known otherwise."""

import math

import e3nn_jax as e3nn
import numpy as np
import pytest
from scipy.spatial import distance
from scipy.spatial.transform import Rotation

from symphony.chemistry import bonds
from symphony.evaluate import bispectrum, distributions
from symphony.evaluate.samples import read_reference


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    monkeypatch.setattr(distributions, "NUM_BATCHES", 2)


@pytest.fixture(scope="module")
def neighbours():
    return np.random.default_rng(0).normal(size=(5, 4, 3))


def test_bispectrum_agrees_with_e3nn(neighbours):
    irreps = e3nn.s2_irreps(4, p_val=1, p_arg=-1)
    basis = e3nn.reduced_symmetric_tensor_product_basis(
        irreps, 3, keep_ir=["0e", "0o"]
    ).array
    for vectors in neighbours:
        delta = e3nn.s2_dirac(vectors, 4, p_val=1, p_arg=-1).array.sum(axis=0)
        expected = np.einsum("ijkz,i,j,k->z", basis, delta, delta, delta)
        found = bispectrum.bispectra(vectors[None])[0]
        np.testing.assert_allclose(
            np.sort(np.abs(found)), np.sort(np.abs(expected)), atol=1e-6
        )


def test_bispectrum_is_invariant_to_rotation_and_order(neighbours):
    values = bispectrum.bispectra(neighbours)
    rotation = Rotation.random(random_state=1).as_matrix()
    turned = (neighbours @ rotation.T)[:, ::-1]
    np.testing.assert_allclose(bispectrum.bispectra(turned), values, atol=1e-12)


def test_bispectrum_ignores_lengths_and_sees_handedness(neighbours):
    values = bispectrum.bispectra(neighbours)
    np.testing.assert_allclose(bispectrum.bispectra(2.0 * neighbours), values)
    mirrored = bispectrum.bispectra(neighbours * [-1.0, 1.0, 1.0])
    odd = [sum(triple) % 2 == 1 for triple in bispectrum.triples()]
    assert len(odd) == 15
    assert sum(odd) == 1
    signs = np.where(odd, -1.0, 1.0)
    np.testing.assert_allclose(mirrored, signs * values, atol=1e-12)


def test_bispectrum_sees_a_bend_of_five_degrees():
    def angle(degrees):
        radians = math.radians(degrees)
        return np.array([[[1.0, 0, 0], [math.cos(radians), math.sin(radians), 0]]])

    straight = bispectrum.bispectra(angle(109.5))
    bent = bispectrum.bispectra(angle(114.5))
    assert np.linalg.norm(bent - straight) > 0.02 * np.linalg.norm(straight)


def test_kernel_agrees_with_thirty_exponentials():
    squared = np.concatenate([[0.0], np.logspace(-14, 7, 1000)])
    expected = np.exp(-distributions.BANDWIDTHS[:, None] * squared).sum(axis=0)
    np.testing.assert_allclose(distributions.kernel_sum(squared), expected, atol=1e-5)


def test_mmd_is_the_definition(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(distributions, "NUM_BATCHES", 1)
    x, y = rng.normal(1.5, 0.02, (300, 1)), rng.normal(1.53, 0.02, (400, 1))

    draws = np.random.default_rng(3)
    a, b = x[draws.integers(300, size=1000)], y[draws.integers(400, size=1000)]
    total = 0.0
    for gamma in np.logspace(-3, 3, 30):
        within, other, between = (
            np.exp(-gamma * distance.cdist(p, q, "sqeuclidean")).mean()
            for p, q in ((a, a), (b, b), (a, b))
        )
        total += abs(within + other - 2 * between)
    assert distributions.mmd(x, y, seed=3) == pytest.approx(math.sqrt(total), rel=1e-3)


def test_mmd_sees_a_shift_of_a_hundredth_of_an_angstrom():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(1.09, 0.01, (2000, 1)) for _ in range(2))
    floor = distributions.mmd(first, second)
    assert floor < 0.05
    assert distributions.mmd(first + 0.01, second) > 4 * floor


def test_jensen_shannon_is_in_nats_without_a_root():
    assert distributions.jensen_shannon({"a": 5}, {"b": 1}) == pytest.approx(
        math.log(2)
    )
    assert distributions.jensen_shannon({"a": 1, "b": 3}, {"a": 2, "b": 6}) == 0.0
    expected = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    found = distributions.jensen_shannon({"a": 1}, {"a": 1, "b": 1})
    assert found == pytest.approx(expected)
    assert distributions.jensen_shannon({}, {"a": 1}) is None


def test_kinds_of_bonds_and_environments_are_counted_by_hand():
    # Methanol without a hydrogen: H3C-O.
    positions = np.array(
        [[0.0, 0, 0], [1.4, 0, 0], [-0.4, 1, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9]],
        np.float32,
    )
    molecule = np.array([6, 8, 1, 1, 1], np.uint8), positions
    found = bonds.Perception(
        "valid", bonds=((0, 1, 1.0), (0, 2, 1.0), (3, 0, 1.0), (4, 0, 1.0))
    )
    lengths = distributions.bond_lengths([molecule], [found])
    assert {kind: len(values) for kind, values in lengths.items()} == {
        "C-O 1.0": 1,
        "C-H 1.0": 3,
    }
    assert lengths["C-O 1.0"][0, 0] == pytest.approx(1.4)
    around = distributions.environments([molecule], [found])
    assert distributions.group_counts(around) == {"C:H3,O1": 1, "O:C1": 1, "H:C1": 3}
    assert around["C:H3,O1"].shape == (1, 4, 3)


def test_data_against_data_stays_below_the_floor():
    molecules = read_reference("qm9-sample").molecules[:600]
    found = bonds.perceive_all(molecules, "xyz2mol")
    valid = [pair for pair in zip(molecules, found, strict=True) if pair[1].bonds]
    halves = [
        distributions.bond_lengths(*zip(*half, strict=True))
        for half in (valid[0::2], valid[1::2])
    ]
    compared = distributions.compare(*halves, ["C-H 1.0", "C-C 1.0", "C-O 1.0"])
    limits = {"C-H 1.0": 0.04, "C-C 1.0": 0.25, "C-O 1.0": 0.25}
    for kind, entry in compared.items():
        assert entry.mmd < limits[kind]
        assert entry.floor < 2 * limits[kind]
    shifted = {kind: lengths + 0.02 for kind, lengths in halves[0].items()}
    for entry in distributions.compare(shifted, halves[1], list(limits)).values():
        assert entry.mmd > 0.25


def test_distributions_leave_their_inputs_alone(neighbours):
    vectors = neighbours.copy()
    vectors.setflags(write=False)
    bispectrum.bispectra(vectors)
    lengths = np.random.default_rng(0).normal(1.5, 0.1, (50, 1))
    before = lengths.copy()
    distributions.compare({"a": lengths}, {"a": lengths}, ["a"])
    np.testing.assert_array_equal(lengths, before)
