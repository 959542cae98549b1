"""How little work may come to something before a command says so, or fails."""

import pytest

from common.commands import outcome
from common.errors import RunError


def test_a_half_is_enough(caplog):
    outcome.judge(5, 10, "molecules were judged")
    assert not caplog.records


def test_less_than_a_half_is_told(caplog):
    outcome.judge(4, 10, "molecules were judged")
    assert "only 4 of 10 molecules were judged (40.0%)" in caplog.text


def test_hardly_any_fails_with_the_remedy():
    with pytest.raises(RunError, match=r"0 of 200 draws passed \(0.0%\); smaller lag"):
        outcome.judge(0, 200, "draws passed", "smaller lag")


def test_no_work_says_nothing(caplog):
    outcome.judge(0, 0, "draws passed")
    assert not caplog.records
