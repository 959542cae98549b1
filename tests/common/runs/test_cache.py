"""The folder of downloaded and parsed data."""

from pathlib import Path

from common.runs.cache import cache_folder


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "symphony-equijump" / "data"
    assert not cache_folder().exists()  # Asking makes nothing.


def test_without_a_setting_it_lies_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "symphony-equijump" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder().is_relative_to(tmp_path / ".cache")
