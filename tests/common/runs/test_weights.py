"""Tests of finding weights, and of settings compared with an earlier command's."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.runs import checkpoints, weights
from common.runs import config as configs


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


def packaged_in(folder, name="mine", **changes):
    config = configs.default_of("equijump")
    config.update_from_flattened_dict(changes)
    params = {"Dense_0": {"bias": np.arange(3.0)}}
    checkpoints.save_packaged(folder / name, params, config, {"step": 3})
    return folder / name


def test_weights_load_by_name_and_by_path_alike(tmp_path):
    path = packaged_in(tmp_path, seed=7)
    by_name = weights.load("mine", tmp_path, ["equijump"])
    by_path = weights.load(path, tmp_path / "none", ["equijump"])
    assert (by_name.name, by_name.path) == ("mine", path)
    for trained in (by_name, by_path):
        assert (trained.config.seed, trained.meta["step"]) == (7, 3)
        np.testing.assert_array_equal(trained.params["Dense_0"]["bias"], range(3))
    assert by_name.checksum == by_path.checksum
    assert by_name.config_checksum == by_path.config_checksum


def test_another_config_has_another_checksum(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        packaged_in(tmp_path, name, seed=seed)
    one, two = (weights.load(n, tmp_path, ["equijump"]) for n in ("one", "two"))
    assert one.checksum == two.checksum
    assert one.config_checksum != two.config_checksum


def test_weights_of_another_kind_are_refused_with_the_flag(tmp_path):
    packaged_in(tmp_path)
    told = r"--start: expected weights of kind symphony or paper, found equijump"
    with pytest.raises(UsageError, match=told):
        weights.load("mine", tmp_path, ["symphony", "paper"], "--start")


def test_all_packaged_names_are_listed(tmp_path):
    for name in ("b", "a"):
        packaged_in(tmp_path, name)
    with pytest.raises(UsageError, match=r"\(a, b\), found neither at c"):
        weights.locate("c", tmp_path)
    with pytest.raises(UsageError, match="none are packaged"):
        weights.locate("c", tmp_path / "empty")


@pytest.mark.parametrize(
    "make",
    [
        lambda trained: trained.meta["statistics"],
        lambda trained: trained.config.no_such_field,
        lambda trained: float("wide"),
        lambda trained: len(3),
    ],
)
def test_what_cannot_be_built_is_told_with_its_folder(tmp_path, make):
    packaged_in(tmp_path)
    trained = weights.load("mine", tmp_path, ["equijump"])
    with pytest.raises(UsageError, match=r"mine: .* of a trained equijump model"):
        weights.build(trained, make)


def test_adopted_weights_keep_what_is_fresh():
    fresh = {"a": {"kernel": jnp.zeros((2, 3))}, "b": {"bias": jnp.zeros(2)}}
    given = {"a": {"kernel": np.ones((2, 3), np.float32)}}
    found = weights.adopt(fresh, given, "qm9")
    np.testing.assert_array_equal(found["a"]["kernel"], 1.0)
    np.testing.assert_array_equal(found["b"]["bias"], 0.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"a": np.ones(3)}, r"with a of shape \(2,\), found \(3,\) in qm9"),
        ({"c": np.ones(2)}, r"with c absent, found \(2,\) in qm9"),
    ],
)
def test_weights_of_another_network_are_not_adopted(given, told):
    with pytest.raises(UsageError, match=told):
        weights.adopt({"a": jnp.zeros(2)}, given, "qm9")


def test_versions_name_the_program_python_and_libraries():
    found = weights.versions("equijump", "numpy", "jax")
    assert list(found) == ["equijump", "python", "numpy", "jax"]
    assert found["numpy"] == np.__version__
    assert all(found.values())
