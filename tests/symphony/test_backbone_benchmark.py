"""The time of a step, of which compilation is no part."""

import pytest

from benchmarks.backbone_training import seconds_of_a_step
from common.runs.metrics import MetricsWriter
from common.runs.training import Elapsed


def test_the_time_of_a_step_lacks_compilation(tmp_path):
    seconds = iter([60.0, 62.0, 64.0, 125.0, 127.0, 130.0])
    with MetricsWriter(tmp_path, lambda: Elapsed(next(seconds), 0.0)) as writer:
        for step in (5, 10, 15, 20, 25, 25):
            writer.write(step, {"loss": 1.0})
    assert seconds_of_a_step(tmp_path) == pytest.approx(0.4)
