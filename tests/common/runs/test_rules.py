"""Rules that hold for the configs of every kind of model."""

from fnmatch import fnmatchcase

import ml_collections
import pytest

from common.errors import UsageError
from common.runs import config as configs
from common.runs import rules
from equijump import rules as equijump_rules
from symphony import build


def sizes(batch_size, num_devices, num_microbatches):
    return ml_collections.ConfigDict(
        {
            "train": {
                "batch_size": batch_size,
                "num_devices": num_devices,
                "num_microbatches": num_microbatches,
            }
        }
    )


def of_kind(kind):
    return equijump_rules.RULES if kind == "equijump" else build.KINDS[kind].rules


@pytest.mark.parametrize("kind", configs.DEFAULTS)
def test_every_number_of_a_config_has_a_range(kind):
    patterns = of_kind(kind).values
    for name, value in configs.flat(configs.default_of(kind)).items():
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, int | float) and not isinstance(first, bool):
            assert any(fnmatchcase(name, pattern) for pattern in patterns), name


@pytest.mark.parametrize("name", ["sources", "lags"])
def test_data_of_nothing_are_refused(name):
    config = configs.default_of("equijump")
    config.data[name] = ()
    with pytest.raises(UsageError, match=f"data.{name}: expected one or more"):
        configs.check(config, configs.default_of("equijump"), of_kind("equijump"))


@pytest.mark.parametrize("counts", [(8, 1, 1), (8, 2, 4), (6, 2, 3), (8, 4, 1)])
def test_batches_that_divide_are_accepted(counts):
    rules.check_batch_size(sizes(*counts))


@pytest.mark.parametrize(
    ("counts", "multiple"), [((7, 1, 2), 2), ((6, 4, 1), 4), ((8, 2, 6), 6)]
)
def test_batches_that_do_not_divide_are_told_with_the_multiple(counts, multiple):
    with pytest.raises(UsageError, match=f"expected a multiple of {multiple} "):
        rules.check_batch_size(sizes(*counts))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("train.num_steps", 0, "1 or more"),
        ("train.ema_decay", 1.5, "0 to 1"),
        ("train.optimizer", "sgd", "one of adam, muon"),
        ("train.learning_rate", -1.0, "0 to 1000"),
        ("model.block", "schnet", "one of symphony, equijump, e3schnet, nequip"),
        ("seed", 2**32, "0 to 4.29497e"),
    ],
)
def test_values_out_of_range_are_told_by_name(name, value, told):
    default = configs.default_of("equijump")
    config = default.copy_and_resolve_references()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UsageError, match=rf"config\.{name}: expected {told}"):
        configs.check(config, default, configs.Rules(rules.VALUES))


def given(*names):
    return ml_collections.ConfigDict({"model": {"conditions": names}})


@pytest.mark.parametrize("names", [("lag",), ("gap", "lag"), ("lag", "temperature")])
def test_one_condition_of_training_and_any_of_files_are_accepted(names):
    assert rules.needs_condition("lag")(given(*names)) is None


@pytest.mark.parametrize("names", [(), ("gap",), ("lag", "noise_std"), ("lag", "lag")])
def test_conditions_that_no_batch_has_are_refused(names):
    with pytest.raises(UsageError, match=r"config\.model\.conditions: expected lag "):
        rules.needs_condition("lag")(given(*names))


def test_a_kind_without_conditions_needs_none():
    config = ml_collections.ConfigDict({"model": {}})
    assert rules.needs_condition("lag")(config) is None
