"""Tests of scores beside samples, with a scorer that compiles nothing."""

import numpy as np
import pytest

from common.errors import UsageError
from symphony import bounds, likelihood, records, weights
from symphony.likelihood import OrderTerms
from symphony.options import Options
from symphony.records import Sample
from tests.symphony import small

NOTHING = Options(**dict.fromkeys(Options._fields))._replace(conditions={})


def sample(index, stopped=True, count=3):
    numbers = np.array([6] + [1] * (count - 1), np.uint8)
    positions = np.arange(3.0 * count, dtype=np.float32).reshape(-1, 3)
    parts = np.full(count, -1.0, np.float32)
    return Sample(index, 0, numbers, positions, stopped, -4.0, log_of_atoms=parts)


@pytest.fixture
def calls(monkeypatch):
    """Inputs of a scorer that gives every atom its number of placed ones, in nats."""
    found = []

    def run(keys, positions, species, node_mask, near, conditions):
        found.append((keys, positions, near, conditions))
        placed = np.tile(-1.0 * np.asarray(node_mask), (len(keys), 1))
        ones = np.ones(len(keys))
        return OrderTerms(placed, -0.5 * ones, 0.0 * ones, ones > 0)

    monkeypatch.setattr(likelihood, "scorer_of", lambda weights, num_draws: run)
    return found


def given():
    model, params = small.model_and_params()
    return weights.Weights("small", small.make_config(), model, params, "", "")


def test_finished_molecules_have_a_score_and_others_none(calls):
    drawn = iter([sample(0), sample(1, stopped=False), sample(2, count=9)])
    first, second, third = bounds.scored(drawn, given(), NOTHING)
    assert first.score.bound == pytest.approx(-3.5)
    assert second.score is None
    assert third.score.bound == pytest.approx(-9.5)
    assert [call[1].shape[0] for call in calls] == [8, 16]
    assert len(calls[0][0]) == bounds.NUM_ORDERS


def test_what_is_drawn_for_a_score_depends_on_its_own_index(calls):
    list(bounds.scored(iter([sample(0), sample(3)]), given(), NOTHING))
    list(bounds.scored(iter([sample(3)]), given(), NOTHING))
    assert (calls[1][0] == calls[2][0]).all()
    assert not (calls[0][0] == calls[1][0]).all()


def test_files_name_the_bound_apart_from_the_path(calls):
    (one,) = bounds.scored(iter([sample(0)]), given(), NOTHING)
    record = records.record_of(one, "C")
    assert record["log_likelihood"] == -4.0
    assert record["log_likelihood_over_orders"] == -3.5
    assert record["effective_orders"] == bounds.NUM_ORDERS
    assert record["atom.dprop.mean_log_likelihood"] == [-1.0] * 3
    fields = records.properties_of(one)
    assert fields["atom.dprop.mean_log_likelihood"].split() == ["-1.0000"] * 3
    assert fields["log_likelihood_over_orders"] == -3.5


def test_weights_that_cannot_score_are_told_at_once():
    wrong = given()._replace(model=None, name="mine")
    with pytest.raises(UsageError, match="mine: expected a model of kind symphony"):
        bounds.scored(iter([]), wrong, NOTHING)
