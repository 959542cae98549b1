"""Tests of how configs are found and checked."""

import copy
import re
import tomllib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from common.commands import training
from common.errors import UsageError
from common.runs import config as configs
from common.runs.config import Range, Rules
from common.runs.defaults import train_group
from equijump import rules
from equijump import train as equijump_train
from symphony import build
from symphony import train as symphony_train

ROOT = Path(__file__).resolve().parents[3]
DEFAULT = {
    "seed": 0,
    "data": {"path": "qm9", "lags": (10.0,), "align": True, "species": (1, 6)},
    "train": {"num_steps": 3, "rate": 0.1, "optimizer": "adam"},
}
RULES = Rules(
    {
        "seed": Range(0, 9),
        "data.lags": Range(1.0),
        "train.num_*": Range(1),
        "train.optimizer": ("adam", "muon"),
    }
)
NAMES = [
    (path.parent.name, path.stem)
    for path in sorted((ROOT / "configs").glob("*/*.py"))
]  # fmt: skip


def changed(**values):
    config = copy.deepcopy(DEFAULT)
    for name, value in values.items():
        group, _, field = name.partition("__")
        node = config[group] if field else config
        node[field or group] = value
    return ConfigDict(config)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"train__num_step": 3}, "train.num_step: .*perhaps config.train.num_steps"),
        ({"trian": 3}, "config.trian: expected a known field"),
        ({"train__num_steps": 3.0}, "num_steps: expected a whole number, found 3.0"),
        ({"train__num_steps": True}, "num_steps: expected a whole number, found True"),
        ({"train__num_steps": 0}, "num_steps: expected 1 or more, found 0"),
        ({"train__rate": "x"}, "rate: expected a finite number, found x"),
        ({"train__rate": float("nan")}, "rate: expected a finite number, found nan"),
        ({"train__rate": False}, "rate: expected a finite number, found False"),
        ({"train__optimizer": "lion"}, "expected one of adam, muon, found lion"),
        ({"train__optimizer": 1}, "optimizer: expected a text, as 'adam', found 1"),
        ({"data__align": 1}, "align: expected True or False, as True, found 1"),
        ({"data__lags": 10.0}, "lags: expected several values, found 10.0"),
        ({"data__lags": ("x",)}, "lags: expected several values, each a finite number"),
        ({"data__lags": (10.0, 0.5)}, "data.lags: expected 1 or more, found"),
        ({"data__species": (1, "H")}, "species: expected several values, each a whole"),
        ({"seed": -1}, "config.seed: expected 0 to 9, found -1"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, told):
    with pytest.raises(UsageError, match=told) as raised:
        configs.check(changed(**values), ConfigDict(DEFAULT), RULES)
    assert "\n" not in str(raised.value)


def test_whole_numbers_lists_and_any_length_will_do():
    config = changed(train__rate=1, data__lags=[5, 20], data__species=())
    before = config.to_dict()
    configs.check(config, ConfigDict(DEFAULT), RULES)
    assert config.to_dict() == before


@pytest.mark.parametrize("name", ["seed", "train.num_steps", "data"])
def test_a_missing_field_is_named_with_an_example(name):
    config = ConfigDict(DEFAULT)
    *groups, last = name.split(".")
    del (config[groups[0]] if groups else config)[last]
    with pytest.raises(UsageError, match=rf"config.{name}.*such as .*, found none"):
        configs.check(config, ConfigDict(DEFAULT), RULES)


def test_values_that_do_not_go_together_are_told_last():
    def even(config):
        if config.train.num_steps % 2:
            raise UsageError("config.train.num_steps: expected an even number")

    rules = RULES._replace(across=(even,))
    configs.check(changed(train__num_steps=4), ConfigDict(DEFAULT), rules)
    with pytest.raises(UsageError, match="even"):
        configs.check(changed(), ConfigDict(DEFAULT), rules)
    with pytest.raises(UsageError, match="seed"):
        configs.check(changed(seed=-1), ConfigDict(DEFAULT), rules)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_config_has_the_fields_of_training_that_all_kinds_share(package, name):
    shared = train_group()
    train = configs.find(package, name).get_config().train
    assert {*shared} <= {*train}
    assert all(type(train[field]) is type(shared[field]) for field in shared)


def test_a_default_of_training_is_replaced_for_one_config_alone():
    assert train_group(num_steps=7).num_steps == 7
    assert train_group().num_steps != 7


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_config_passes_the_checks_from_any_folder(
    package, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flags = training.training_flags(
        f"{package} train", "Trains.", [f"--config={name}", "--workdir=w"]
    )
    train = {"symphony": symphony_train, "equijump": equijump_train}[package]
    train.check_config(flags.config)
    assert flags.config.to_dict() == configs.find(package, name).get_config().to_dict()


@pytest.mark.parametrize("given", [["--config", "tiny"], ["-config=tiny"]])
def test_a_name_may_be_given_as_any_flag_and_overridden(given):
    more = ["--config.train.num_steps=7", "--workdir=w"]
    flags = training.training_flags("symphony train", "Trains.", [*given, *more])
    assert flags.config.train.num_steps == 7
    assert flags.config.data.path == "qm9-sample"


def test_an_unknown_name_is_answered_with_the_nearest():
    told = r"demo, druglike, energy_qm9, ethanol, .*perhaps ethanol\), found ethanal"
    with pytest.raises(UsageError, match=told):
        configs.path_of("symphony", "ethanal")


def test_every_kind_of_model_has_its_default():
    assert configs.DEFAULTS.keys() == build.KINDS.keys() | {"equijump"}
    for kind in configs.DEFAULTS:
        assert configs.kind_of(configs.default_of(kind)) == kind
    assert configs.kind_of(ConfigDict({"kind": "dance"})) is None
    assert configs.kind_of(ConfigDict({"model": {}})) is None


def test_no_package_reads_a_config_with_a_default_of_its_own():
    for package in ("common", "symphony", "equijump"):
        for path in (ROOT / package).rglob("*.py"):
            hidden = re.search(r"\bconfig(\.\w+)*\.get\(", path.read_text())
            assert not hidden, f"{path}: {hidden}"


def test_a_wheel_takes_the_configs_of_each_package_along():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    wheel = build["build"]["targets"]["wheel"]
    folders = {f"configs/{package}": f"{package}/configs" for package, _ in NAMES}
    assert wheel["force-include"] == folders
    assert all((ROOT / name / "py.typed").is_file() for name in wheel["packages"])


def test_a_text_among_numbers_is_told():
    config = configs.default_of("equijump")
    config.data.temperatures = ("abc",)
    with pytest.raises(UsageError, match="temperatures: expected a number, found"):
        configs.check(config, configs.default_of("equijump"), rules.RULES)
