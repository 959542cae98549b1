"""Checks annotations at run time and keeps compiled programs between test runs.

The environment is set here, before any test imports JAX; child processes inherit it.
"""

import gc
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

_CACHE = Path(__file__).resolve().parents[1] / ".jax_cache"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

install_import_hook(["common", "symphony", "equijump"], "beartype.beartype")


MOST_MAPPINGS = 25_000
"""Of memory, of 65,530 that Linux gives a process; a compiled program takes nine."""


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Gives compiled programs back after a module, before mappings are spent."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty cache of downloaded and packed data, for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
