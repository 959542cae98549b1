"""Tests of finding weights, and of settings compared with an earlier command's."""

from pathlib import Path

import pytest

from common.errors import UsageError
from common.runs import weights


def test_a_packaged_name_wins_over_a_folder(tmp_path, monkeypatch):
    packaged = tmp_path / "packaged"
    for folder in (packaged / "small", tmp_path / "small", tmp_path / "other"):
        folder.mkdir(parents=True)
    (packaged / "small" / "weights.npz").touch()
    monkeypatch.chdir(tmp_path)
    assert weights.locate("small", packaged) == packaged / "small"
    assert weights.locate("./small", packaged) == Path("small")
    assert weights.locate("other", packaged) == Path("other")
    with pytest.raises(UsageError, match=r"--checkpoint: .*\(small\), found neither"):
        weights.locate("nowhere", packaged)


def test_the_first_setting_that_differs_is_named():
    begun = {"seed": 1, "settings": {"lag": 10.0, "every": 1}, "name": "a"}
    free = frozenset({"name"})
    weights.check_same(Path("out"), begun, begun | {"name": "b"}, free)
    other = {"seed": 1, "settings": {"lag": 20.0, "every": 2}}
    with pytest.raises(UsageError, match=r"out: was begun with lag = 10.0, found 20.0"):
        weights.check_same(Path("out"), begun, other, free)
    with pytest.raises(UsageError, match="more = None, found 3"):
        weights.check_same(Path("out"), begun, begun | {"more": 3}, free)
