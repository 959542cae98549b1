"""Tests of what a rollout came to, and of when a command warns or fails for it."""

import numpy as np
import pytest
from absl import logging

from common.errors import RunError
from equijump import outcome
from equijump.rollout import State


def state(num_draws, num_accepted, broken_at):
    columns = (np.array(x, np.int32) for x in (num_draws, num_accepted, broken_at))
    return State(np.zeros((len(broken_at), 1, 14, 3)), *columns)


def summary(*columns, num_jumps=10):
    return outcome.summary_of(state(*columns), num_jumps, 2.5)


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr(
        logging, "warning", lambda line, *rest: told.append(line % rest)
    )
    return told


def test_what_came_of_a_rollout_is_summed_and_dated():
    found = summary([12, 12, 12], [9, 0, 9], [0, 7, 3])
    assert found == (10, 3, 36, 18, 2, {1: 17.5, 2: 7.5}, 10 + 6 + 2, None)
    assert outcome.to_json(found)["broken"] == {"1": 17.5, "2": 7.5}


def test_the_words_name_the_first_break_the_gate_and_what_never_moved():
    found = outcome.describe(summary([12] * 3, [9] * 3, [0, 7, 3]), has_gate=True)
    assert found == (
        "geometry broke in 2 of 3 replicas, first after 7.5 ps; the gate let 75.0% of "
        "draws pass"
    )
    whole = summary([10, 10], [10, 10], [0, 0])
    assert outcome.describe(whole, has_gate=False) == "no geometry is broken"
    frozen = outcome.describe(summary([110, 110], [0, 0], [0, 0]), has_gate=True)
    assert frozen == "2 of 2 replicas never moved; the gate let 0.0% of draws pass"


def test_a_rollout_that_moves_is_not_warned_of(warnings):
    outcome.check(summary([12, 20], [9, 8], [0, 0]))
    assert warnings == []


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (([110] * 4, [0] * 4, [0] * 4), "0 of 440 draws passed the gate (0.0%)"),
        (([110] * 4, [4, 0, 0, 0], [0] * 4), "4 of 440 draws passed the gate (0.9%)"),
        (
            ([10] * 4, [10] * 4, [1] * 4),
            "0 of 40 frames came before the geometry broke",
        ),
    ],
)
def test_where_nothing_came_of_a_rollout_it_fails_with_the_remedy(columns, told):
    with pytest.raises(RunError) as error:
        outcome.check(summary(*columns))
    assert told in str(error.value)
    assert "a smaller --lag or more training may help" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (([30, 30], [9, 9], [0, 0]), "only 18 of 60 draws passed the gate (30.0%)"),
        (([10, 5, 5], [9, 0, 0], [0, 0, 0]), "only 1 of 3 replicas moved (33.3%)"),
        (([10, 10], [10, 10], [4, 6]), "8 of 20 frames came before the geometry broke"),
        (([10, 10], [10, 10], [8, 9]), "only 0 of 2 replicas kept their geometry"),
    ],
)
def test_where_little_came_of_a_rollout_it_warns(columns, told, warnings):
    outcome.check(summary(*columns))
    assert any(told in line for line in warnings)


@pytest.mark.parametrize(
    ("drawn", "passed", "expected"),
    [(999, 0, False), (1_000, 9, True), (1_000, 10, False), (10**6, 0, True)],
)
def test_a_rollout_is_hopeless_after_a_thousand_draws(drawn, passed, expected):
    assert outcome.is_hopeless(state([drawn], [passed], [0])) is expected
