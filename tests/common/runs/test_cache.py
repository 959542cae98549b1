"""The folder of downloaded and parsed data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.runs import cache
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


def test_what_is_in_a_cache_that_cannot_be_written_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    (folder / "frames").mkdir(parents=True)
    (folder / "frames" / "known.json").touch()
    monkeypatch.setattr(cache, "is_writable", lambda folder: False)
    cache._temporary.cache_clear()
    assert cache_folder("frames/known.json") == folder
    other = cache_folder("frames/new.json")
    assert other != folder
    assert other.is_dir()
    assert cache_folder() == other


def test_a_folder_below_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    assert cache.is_writable(tmp_path / "new" / "deep")
    assert not cache.is_writable(tmp_path / "file" / "deep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lend")
def test_capabilities_count_where_a_folder_is_asked_for(tmp_path):
    tmp_path.chmod(0o700)
    code = (
        "import os, sys; from pathlib import Path; from common.runs import cache\n"
        "os.setresuid(12345, 0, 0)\n"
        "print(cache.is_writable(Path(sys.argv[1])))"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
