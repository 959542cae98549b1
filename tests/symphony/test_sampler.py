"""What a sampler remembers of its last call."""

import numpy as np
import pytest

from symphony import drawing, sampler
from symphony.manifest import Sample
from symphony.options import Options
from symphony.sampler import Sampler, Summary
from symphony.weights import Weights

WATER = np.array([[0.0, 0, 0.117], [0, 0.757, -0.469], [0, -0.757, -0.469]], np.float32)
NUMBERS = np.array([8, 1, 1], np.uint8)


@pytest.fixture
def waters(monkeypatch):
    """A sampler whose odd molecules never end, and whose third is torn apart."""

    def draw(weights, options, seed, first, end, num_slots):
        for index in range(first, end):
            positions = WATER * np.float32(9.0 if index == 2 else 1.0)
            yield Sample(index, seed, NUMBERS, positions, index % 2 == 0, -1.0)

    options = Options(1.0, 1.0, 1.0, 9, None, {})
    monkeypatch.setattr(sampler, "choose", lambda weights, **keywords: options)
    monkeypatch.setattr(drawing, "draw", draw)
    return Sampler(Weights._make([None] * len(Weights._fields)))


def test_a_sampler_that_was_not_called_has_no_summary(waters):
    assert waters.summary is None


def test_the_summary_counts_finished_and_valid_molecules(waters):
    assert len(waters.sample(6)) == 5
    assert waters.summary == Summary(num_molecules=6, num_finished=3, num_valid=2)


def test_without_bonds_nothing_is_known_of_validity(waters):
    assert len(waters.sample_positions(3)) == 3
    assert waters.summary == Summary(3, 2, None)


def test_the_summary_of_a_stream_grows_with_it(waters):
    stream = waters.stream(9)
    next(stream)
    assert waters.summary == Summary(1, 1, None)
    next(stream)
    assert waters.summary == Summary(2, 1, None)
