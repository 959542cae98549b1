"""Tests of the scales of a run, and of the loss with them, where slots hold bonds."""

import jax
import numpy as np
import pytest

from configs.equijump import tiny
from equijump import build, train
from equijump.data import pairs, splits
from equijump.data.residues import TOKENS
from equijump.measure import measure


@pytest.fixture(scope="module", params=["parent", "chain"])
def run(request):
    config = tiny.get_config()
    config.model.cloud = request.param
    config.data.lags = (10.0, 50.0, 10.0)
    segments = splits.load_segments(config)
    config.model.residue_types = segments.num_types
    found = measure(segments, align=True, ensemble=True, cloud=request.param)
    return config, segments, found


def test_each_slot_has_a_scale_at_each_lag(run):
    _, segments, found = run
    assert found.lags.tolist() == [10.0, 50.0]
    assert found.vectors.shape == (2, segments.num_types + 1, 14)
    for values in (found.positions, found.vectors, found.lengths, found.ensemble):
        assert np.isfinite(values).all()
    ala = found.vectors[:, TOKENS["ALA"], 4]
    assert 0.0 < ala[0] < ala[1] < 1.5


def test_bonds_have_their_lengths(run):
    lengths = run[2].lengths[TOKENS["ALA"]]
    np.testing.assert_allclose(lengths[[2, 3, 4]], [1.53, 1.23, 1.53], atol=0.03)


def test_the_shape_at_bonds_is_that_of_alanine(run):
    mean, std = run[2].shape[:, TOKENS["ALA"], 2]  # From CA to C.
    assert mean[0] == pytest.approx(1.53, abs=0.03)
    assert mean[1] == pytest.approx(np.cos(np.radians(180.0 - 110.0)), abs=0.06)
    assert 0.02 < std[0] < 0.05
    assert 0.02 < std[1] < 0.12


def test_the_loss_is_finite_with_and_without_a_source(run):
    config, segments, found = run
    batch = pairs.batch_at(segments.training, segments.lags, 8, 3, seed=0, step=0)
    batch.conditions["lag"].mask[:4] = False
    batch.source[:4] = 0.0
    params = build.init_params(config, jax.random.key(0))
    errors = jax.jit(train.make_errors(config, found))
    values = np.asarray(errors(params, batch, jax.random.split(jax.random.key(1), 8)))
    assert np.isfinite(values).all()
    assert 0.1 < values.mean() < 10.0
