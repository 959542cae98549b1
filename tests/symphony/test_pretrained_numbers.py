"""Packaged weights give what they gave: numbers of version 0.1.0, and newer scores.

The discrete decisions are the same, and positions (Å) agree to 1e-4; log-likelihoods
agree to 1e-4 of their size, which is how far two versions of JAX lie apart. Molecule 15
of `qm9` never ends, and rounding decides its late atoms: version 0.1.0 itself gave
another one on Python 3.12.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

import symphony
from symphony import data
from symphony.kinds.denoiser import sample as denoiser
from symphony.likelihood import score_molecules
from symphony.weights import load_weights

STORED = np.load(Path(__file__).parent / "fixtures" / "pretrained_numbers.npz")
ENDLESS = {"qm9": (15,), "qm9_cpu": ()}


@pytest.fixture(scope="module")
def molecules():
    """Ten held-out molecules of QM9."""
    held_out, _ = data.read_molecules(
        "qm9-sample", (1, 6, 7, 8, 9), 29, split="validation"
    )
    return data.select(held_out, np.arange(0, 70, 7))


@pytest.mark.parametrize(
    "name", ["qm9_cpu", pytest.param("qm9", marks=pytest.mark.slow)]
)
def test_twenty_molecules_are_the_same(name):
    drawn = symphony.load(name).sample_positions(20, seed=0)
    sizes = STORED[f"{name}_sizes"]
    assert [len(one.positions) for one in drawn] == sizes.tolist()
    assert [one.stopped for one in drawn] == STORED[f"{name}_stopped"].tolist()
    ends = np.cumsum(sizes)
    for index, one in enumerate(drawn):
        if index in ENDLESS[name]:
            continue
        atoms = slice(ends[index] - sizes[index], ends[index])
        np.testing.assert_array_equal(
            one.atomic_numbers, STORED[f"{name}_numbers"][atoms]
        )
        np.testing.assert_allclose(
            one.positions, STORED[f"{name}_positions"][atoms], atol=1e-4
        )
        np.testing.assert_allclose(
            one.log_likelihood, STORED[f"{name}_nats"][index], rtol=1e-4
        )


def test_five_scores_are_the_same(molecules):
    """Those by even directions, and within their noise those of version 0.1.0.

    It drew eight independent directions, whose noise is about 0.5 nats for an order of
    a molecule; the orders are the same.
    """
    five = data.select(molecules, np.arange(5))
    scores = dict(score_molecules(load_weights("qm9"), five, 4, 8, 0))
    bounds = [scores[index].bound for index in range(5)]
    atoms = np.concatenate([scores[index].per_atom for index in range(5)])
    np.testing.assert_allclose(bounds, STORED["even_score_bound"], atol=1e-4)
    np.testing.assert_allclose(atoms, STORED["even_score_atoms"], atol=1e-4)
    np.testing.assert_allclose(bounds, STORED["score_bound"], atol=1.2)
    np.testing.assert_allclose(atoms, STORED["score_atoms"], atol=0.8)
    assert abs(np.mean(atoms - STORED["score_atoms"])) < 0.03


def test_ten_refined_molecules_are_the_same(molecules):
    rows = [slice(*ends) for ends in itertools.pairwise(molecules.offsets)]
    rng = np.random.default_rng(0)
    noised = [
        x + np.float32(0.05) * rng.normal(size=x.shape)
        for x in (molecules.positions[own] for own in rows)
    ]
    numbers = [molecules.atomic_numbers[own] for own in rows]
    free = [np.zeros(len(x), bool) for x in noised]
    refiner = denoiser.load_refiner()
    refined = denoiser.refine(refiner, numbers, noised, free, range(10), 0)
    np.testing.assert_allclose(np.concatenate(refined), STORED["refined"], atol=1e-4)
