"""The user's own table of block sizes."""

import pytest

from common.errors import UsageError
from common.nn.products import plan


@pytest.fixture
def own_table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan.bytes_per_block.cache_clear()
    path = plan.user_table()
    path.parent.mkdir(parents=True)
    yield path
    plan.bytes_per_block.cache_clear()


def test_the_table_of_the_user_comes_first(own_table):
    own_table.write_text('{"a device": 1000}')
    assert plan.bytes_per_block("a device") == 1000
    assert plan.bytes_per_block("another") is None


@pytest.mark.parametrize("text", ["", "[1]", '{"cpu": "much"}', '{"cpu": 0}'])
def test_a_table_that_is_none_is_told_in_one_line(own_table, text):
    own_table.write_text(text)
    with pytest.raises(UsageError, match="expected a JSON object of positive numbers"):
        plan.bytes_per_block("cpu")
