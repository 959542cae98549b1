"""Tests of old configs and parameters, read in today's names."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.runs import checkpoints, old_names, training
from common.runs import config as configs

ROOT = Path(__file__).resolve().parents[3]
PACKAGED = sorted(ROOT.glob("*/pretrained/*"))


def update(config, **named):
    return old_names.update_config(config, "somewhere", "0.0.1", **named)


@pytest.fixture
def tomorrow(monkeypatch):
    """Default configs with the fields that later versions bring."""
    of_today = configs.default_of

    def default_of(kind):
        config = of_today(kind)
        config.model.block = config.model.product = "anything"
        if kind in ("symphony", "equijump"):
            config.model.conditions = ()
        if kind == "equijump" and "has_temperature" in config.model:
            del config.model.has_temperature
        return config

    monkeypatch.setattr(configs, "default_of", default_of)


@pytest.mark.parametrize("folder", PACKAGED, ids=lambda path: path.name)
def test_packaged_weights_have_todays_fields_and_all_their_values(folder):
    stored = checkpoints.load_stored(folder)
    record = json.loads((folder / "config.json").read_text())
    assert stored.checksum == record["weights_sha256"]
    found = configs.flat(stored.config)
    default = configs.default_of(configs.kind_of(stored.config))
    assert found.keys() == configs.flat(default).keys()
    for group, values in record["config"].items():
        kept = dict(values) if isinstance(values, dict) else {}
        for name in kept.keys() & stored.config[group].keys() if kept else ():
            value = stored.config[group][name]
            assert kept[name] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("kind", configs.DEFAULTS)
def test_a_config_of_today_stays_as_it_is(kind):
    config = configs.default_of(kind)
    assert update(config).to_dict() == config.to_dict()


def test_a_config_of_another_program_stays_as_it_is():
    config = configs.default_of("symphony")
    config.kind = "dance"
    del config.model.cutoff
    assert update(config) is config


def test_a_field_that_came_later_means_as_before():
    config = configs.default_of("equijump")
    del config.loss.alignment, config.data.ensemble_share
    found = update(config)
    assert found.loss.alignment == "single"
    assert found.data.ensemble_share == 0.0


@pytest.mark.parametrize(
    ("kind", "block", "conditions"),
    [
        ("symphony", "symphony", ("noise_std",)),
        ("denoiser", "symphony", None),
        ("equijump", "equijump", ("lag",)),
    ],
)
def test_networks_without_a_named_block_have_that_of_their_time(
    kind, block, conditions, request
):
    config = configs.default_of(kind)
    for name in ("block", "product", "conditions"):
        if name in config.model:
            del config.model[name]
    request.getfixturevalue("tomorrow")
    found = update(config).model.to_dict()
    assert (found["block"], found["product"]) == (block, "scalar")
    assert "conditions" not in found or found["conditions"] == conditions
    assert ("conditions" in found) == (conditions is not None)


@pytest.mark.parametrize("told", [False, True])
def test_a_network_told_the_temperature_has_it_as_a_condition(told, tomorrow):
    config = configs.default_of("equijump")
    del config.model.conditions, config.model.block, config.model.product
    config.model.has_temperature = told
    expected = ("lag", "temperature") if told else ("lag",)
    found = update(config).model
    assert found.conditions == expected
    assert "has_temperature" not in found


@pytest.mark.parametrize("name", ["causal", "learned_stop"])
def test_a_trunk_that_went_is_refused_with_the_version_that_has_it(name):
    config = configs.default_of("symphony")
    config.model[name] = True
    assert name not in update(config).model
    config.model[name] = False
    with pytest.raises(UsageError, match=rf"{name} = True, found False; version 0.1.0"):
        update(config)


def test_a_term_of_the_loss_that_went_matters_to_training_alone():
    config = configs.default_of("equijump")
    config.loss.bond_weight = 100.0
    assert "bond_weight" not in update(config).loss
    with pytest.raises(UsageError, match=r"bond_weight = 0.0, found 100.0; version"):
        update(config, resumes=True)


def test_training_with_hidden_sources_goes_on_in_its_own_version():
    config = configs.default_of("equijump")
    config.data.ensemble_share = 0.25
    old_names.update_config(config, "run", "0.1.0")
    old_names.update_config(config, "run", "0.2.0", resumes=True)
    with pytest.raises(UsageError, match=r"run: .*ensemble_share = 0, .*found 0.25"):
        old_names.update_config(config, "run", "0.1.0", resumes=True)


def test_a_config_that_lacks_a_field_is_refused_with_its_version():
    config = configs.default_of("paper")
    del config.model.num_radii
    told = r"somewhere: expected config.model.num_radii, .*found none; version 0.0.1"
    with pytest.raises(UsageError, match=told):
        update(config)


def test_paths_are_renamed_part_by_part_and_by_kind():
    before = {
        "params/params/TrunkLayer_0/kernel": 0,
        "opt_state/1/mu/params/TrunkLayer_12/Dense_0/bias": 1,
        "params/params/MyTrunkLayer_0/kernel": 2,
    }
    after = {
        "params/params/layers_0/kernel": 0,
        "opt_state/1/mu/params/layers_12/Dense_0/bias": 1,
        "params/params/MyTrunkLayer_0/kernel": 2,
    }
    assert old_names.update_paths("denoiser", before) == after
    assert old_names.update_paths("symphony", before) == before
    assert old_names.update_paths(None, before) == before


def test_blocks_of_the_published_model_have_the_names_of_today():
    block = "opt_state/1/mu/params/focus_blocks_0"
    before = {
        f"{block}/Linear_0/kernel_0": 0,
        f"{block}/Dense_0/kernel": 1,
        f"{block}/Dense_2/kernel": 2,
        f"{block}/Linear_1/kernel_0": 3,
        f"{block}/MLP_0/Dense_0/kernel": 4,
    }
    after = {
        f"{block}/Linear_0/kernel_0": 0,
        f"{block}/Linear_1/kernel_0": 1,
        f"{block}/Linear_1/kernel_2": 2,
        f"{block}/Linear_2/kernel_0": 3,
        f"{block}/MLP_0/Dense_0/kernel": 4,
    }
    assert old_names.update_paths("paper", before) == after
    assert old_names.update_paths("paper", after) == after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("position_linear_1/kernel", "position_linear_1/kernel"),
        ("signal_linear/kernel", "signal_linear/kernel"),
        (
            "position_blocks_2/DegreeLinear_3/kernel",
            "position_blocks_2/Linear_3/kernel",
        ),
    ],
)
def test_the_matrices_of_all_degrees_become_one_for_each(old, new):
    matrices = np.arange(12.0).reshape(3, 2, 2)
    found = old_names.update_paths("paper", {f"params/{old}": matrices})
    assert list(found) == [f"params/{new}_{degree}" for degree in range(3)]
    np.testing.assert_array_equal(np.stack(list(found.values())), matrices)
    again = old_names.update_paths("paper", found)
    assert list(again) == list(found)


def test_the_radial_kernel_of_a_position_block_stays():
    before = {"params/position_blocks_0/kernel": np.ones((2, 3))}
    assert list(old_names.update_paths("paper", before)) == list(before)


def state_of(name):
    config = configs.default_of("denoiser")
    params = {"params": {name: {"kernel": jnp.arange(6.0).reshape(2, 3)}}}
    optimizer = training.make_optimizer(config.train)
    return config, training.make_state(params, optimizer)


def test_an_old_run_is_gone_on_with_under_new_paths(tmp_path):
    config, old = state_of("TrunkLayer_0")
    del config.train.start_from  # As in the first configs.
    with checkpoints.make_manager(tmp_path) as manager:
        checkpoints.save(manager, old, config, {}, 0.5)
    with checkpoints.make_manager(tmp_path) as manager:
        found = checkpoints.restore(manager, state_of("layers_0")[1])
    today = configs.default_of("denoiser")
    assert checkpoints.changed_values(found.config, today) == {}
    ours, theirs = jax.tree.leaves(found.state), jax.tree.leaves(old)
    for leaf, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(leaf, expected)
    stored = checkpoints.load_stored(tmp_path)
    assert stored.params["params"].keys() == {"layers_0"}
    # Manifests that were begun with these weights know them by this checksum.
    assert stored.checksum == checkpoints.params_checksum(old.params)


def test_an_old_run_of_another_network_is_refused_in_one_line(tmp_path):
    config, old = state_of("Dense_0")
    with checkpoints.make_manager(tmp_path) as manager:
        checkpoints.save(manager, old, config, {}, 0.5)
    told = r"expected .*layers_0/kernel of shape .*found nothing; version \S+ wrote it"
    with (
        checkpoints.make_manager(tmp_path) as manager,
        pytest.raises(UsageError, match=told),
    ):
        checkpoints.restore(manager, state_of("layers_0")[1])
