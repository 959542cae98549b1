"""Tests of what a sampler is asked, without a network."""

import numpy as np
import pytest

from common.errors import UsageError
from configs.equijump import tiny
from equijump import build, options, sample, sampler, starts
from equijump.weights import Molecule, Weights
from tests.equijump.test_data_topology_order import make_system

NAMES = ("ACE", "ALA", "NME")
SYSTEM = make_system(NAMES)


def make_weights(systems=None, ranges=None, **values):
    """Weights of a config with other values, by their names in it."""
    config = tiny.get_config()
    config.update_from_flattened_dict(values)
    starts = np.float32(np.random.default_rng(0).normal(size=(4, 10, 3)))
    return Weights(
        name="made",
        config=config,
        params=None,
        statistics=build.Statistics(*np.ones((3, 1))),
        molecules=systems or {"ala2": Molecule(SYSTEM, starts)},
        checksum="ab",
        config_checksum="cd",
        ranges=ranges or {},
    )


@pytest.fixture
def warned(monkeypatch):
    """Lines of warnings."""
    lines = []
    record = lambda text, *values: lines.append(text % values)
    monkeypatch.setattr(options.logging, "warning", record)
    return lines


def choose(weights=None, **asked):
    return options.choose(weights or make_weights(), **asked)


def test_by_default_all_is_as_in_the_config():
    found = choose()
    assert found.name == "ala2"
    assert found.conditions == {"lag": 10.0, "temperature": 300.0}
    first = build.TRANSPORTS["foellmer"].METHODS[0]
    assert (found.num_steps, found.method) == (10, first)
    assert (found.every, found.max_redraws) == (1, options.MAX_REDRAWS)
    assert found.frame_time == 10.0


def test_replicas_take_starts_in_turn():
    weights = make_weights()
    starts = weights.molecules["ala2"].starts
    found = choose(weights, replicas=6)
    np.testing.assert_array_equal(found.starts, starts[[0, 1, 2, 3, 0, 1]])


def test_without_a_gate_nothing_is_redrawn():
    assert choose(gate=False).max_redraws is None
    assert choose(max_redraws=0).max_redraws == 0


def test_times_of_frames_are_those_of_the_jumps_between():
    assert choose(every=4).frame_time == 40.0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"replicas": 0}, "--replicas: expected 1 to 10000, found 0"),
        ({"replicas": 10_001}, "--replicas: expected 1 to 10000, found 10001"),
        ({"num_steps": 1}, "--num_steps: expected 2 to 1000, found 1"),
        ({"every": 0}, "--every: expected 1 to 1000000, found 0"),
        ({"max_redraws": -1}, "--max_redraws: expected 0 to 1000, found -1"),
        ({"method": "leap"}, "--method: expected one of .*, found leap"),
        ({"lag": 9.99}, r"--lag: expected 10 ps, .*, found 9\.99"),
        ({"system": "trpcage"}, "--system: expected one of ala2, found trpcage"),
        ({"ensemble": True}, r"--ensemble: expected weights trained with"),
    ],
)
def test_values_out_of_range_are_told(asked, told):
    with pytest.raises(UsageError, match=told):
        choose(**asked)


@pytest.mark.parametrize("lag", [5.0, 20.0])
def test_any_of_several_lags_is_allowed(lag):
    weights = make_weights(**{"data.lags": (5.0, 20.0)})
    assert choose(weights, lag=lag).conditions["lag"] == lag
    with pytest.raises(UsageError, match="--lag: expected 5, 20 ps"):
        choose(weights, lag=10.0)


def test_a_lag_of_a_microsecond_is_a_lag():
    weights = make_weights(**{"data.lags": (1e6,)})
    found = choose(weights)
    assert found.conditions["lag"] == found.frame_time == 1e6


def with_ensemble():
    ranges = {"temperature": [300.0, 300.0]}
    return make_weights(ranges=ranges, **{"data.ensemble_share": 0.5})


def test_an_ensemble_of_an_early_version_is_refused():
    weights = make_weights(**{"data.ensemble_share": 0.5})
    assert choose(weights).conditions["lag"] == 10.0
    with pytest.raises(UsageError, match="expected weights of version 0"):
        choose(weights, ensemble=True)


def test_an_ensemble_has_no_lag():
    found = choose(with_ensemble(), ensemble=True, every=3)
    assert found.conditions == {"temperature": 300.0}
    assert found.frame_time == 3.0


def test_the_temperature_is_inside_that_of_training():
    names = {"model.conditions": ("lag", "temperature")}
    weights = make_weights(**{"data.temperatures": (300.0, 400.0), **names})
    assert choose(weights).conditions["temperature"] == 300.0
    assert choose(weights, temperature=350.0).conditions["temperature"] == 350.0
    found = choose(weights, temperature=299.0)
    assert found.conditions["temperature"] == 300.0
    assert found.outside == ("temperature of 299 K (rolled out at 300 K)",)
    assert choose(weights, temperature=300.0).outside == ()


def test_a_network_that_is_not_given_the_temperature_has_one(warned):
    weights = make_weights(**{"data.temperatures": (300.0, 400.0)})
    assert choose(weights, temperature=300.0).conditions["temperature"] == 300.0
    assert warned == []
    found = choose(weights, temperature=400.0)
    assert found.conditions["temperature"] == 300.0
    assert warned == [
        "--temperature=400: the rollout of made is at 300 K, since the network is not "
        "told the temperature; train on data at 400 K"
    ]
    head = sample.header(weights, found, 0, "xtc")
    assert head["settings"]["temperature"] == 300.0
    assert head["outside_training"] == ["temperature of 400 K (rolled out at 300 K)"]


@pytest.mark.parametrize("temperature", [0.0, -300.0, np.nan, np.inf])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(UsageError, match=r"--temperature: expected 1 to 100000 K"):
        choose(temperature=temperature)


def with_temperatures(low, high):
    """Weights whose data state their temperatures in files of their own."""
    names = {"model.conditions": ("lag", "temperature")}
    return make_weights(ranges={"temperature": [low, high]}, **names)


def test_a_rollout_is_at_the_one_temperature_of_its_weights(warned):
    found = choose(with_temperatures(300.0, 300.0), temperature=310.0)
    assert found.conditions["temperature"] == 300.0
    assert "is at 300 K, the nearest of its training" in warned[0]


def test_temperatures_that_only_the_data_state_may_be_asked():
    weights = with_temperatures(280.0, 400.0)
    assert choose(weights).conditions["temperature"] == 300.0
    assert choose(weights, temperature=400.0).conditions["temperature"] == 400.0
    found = choose(weights, conditions={"temperature": 280.0})
    assert found.conditions["temperature"] == 280.0
    found = choose(weights, conditions={"temperature": 401.0})
    assert found.conditions["temperature"] == 400.0
    assert found.outside == ("temperature of 401 K (rolled out at 400 K)",)


@pytest.mark.parametrize(
    ("low", "high", "usual"), [(350.0, 400.0, 350.0), (200.0, 250.0, 250.0)]
)
def test_the_usual_temperature_is_the_nearest_of_training(low, high, usual):
    assert choose(with_temperatures(low, high)).conditions["temperature"] == usual


def test_other_conditions_are_inside_those_of_training():
    names = {"model.conditions": ("lag", "gap")}
    weights = make_weights(ranges={"gap": [2.0, 5.0]}, **names)
    assert choose(weights, conditions={"gap": 5.0}).conditions["gap"] == 5.0
    with pytest.raises(UsageError, match="expected gap=2 to 5 eV, for which the"):
        choose(weights, conditions={"gap": 5.5})


def with_gap():
    return make_weights(**{"model.conditions": ("lag", "gap")})


def test_another_condition_is_a_row_and_a_name():
    found = choose(with_gap(), conditions={"gap": 3.5})
    assert found.conditions == {"lag": 10.0, "temperature": 300.0, "gap": 3.5}


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (None, "--condition: expected gap=0 to 20 eV, .*, found none"),
        ({"gap": 21.0}, r"--condition: expected gap=0 to 20 eV, .*, found 21\.0"),
        ({"gap": float("nan")}, "found nan"),
        ({"gap": 1.0, "charm": 2.0}, "expected one of temperature, gap.*found charm"),
        ({"gap": 1.0, "lag": 10.0}, "expected one of temperature, gap.*found lag"),
    ],
)
def test_conditions_that_cannot_be_are_told(conditions, told):
    with pytest.raises(UsageError, match=told):
        choose(with_gap(), conditions=conditions)


def test_a_condition_the_network_is_not_given_is_told():
    with pytest.raises(UsageError, match="expected one of temperature, which"):
        choose(conditions={"gap": 1.0})


def two_systems():
    glycine = Molecule(make_system(["GLY"] * 14), np.zeros((1, 56, 3), np.float32))
    alanine = Molecule(SYSTEM, np.zeros((1, 10, 3), np.float32))
    return {"gly": glycine, "ala2": alanine}


def test_of_several_systems_one_is_named():
    weights = make_weights(two_systems())
    assert choose(weights, system="gly").name == "gly"
    with pytest.raises(UsageError, match="--system as one of gly, ala2; found neither"):
        choose(weights)


def match(system, known=None):
    positions = np.zeros((1, len(system.kept), 3), np.float32)
    given = starts.Given("a.pdb", "--start=a.pdb", system, positions)
    return starts.match(known or two_systems(), given)


def test_a_start_is_matched_by_its_residues():
    assert match(make_system(NAMES, chains=[2, 2, 2]))[0] == "ala2"


def test_a_start_of_another_system_is_told_with_those_there_are():
    told = (
        r"a\.pdb: expected a system that the network was trained on \(gly: GLY-.*-"
        r"\.\.\. \(14 residues\); ala2: ACE-ALA-NME\), found ALA-ALA"
    )
    with pytest.raises(UsageError, match=told):
        match(make_system(["ALA", "ALA"]))


@pytest.mark.parametrize("text", ["gap=1.5", "gap=+1.5e0", "gap=1.50"])
def test_a_condition_of_the_command_is_name_and_number(text):
    assert sample._condition(text) == ("gap", 1.5)


@pytest.mark.parametrize("text", ["gap", "gap=", "gap=wide", ""])
def test_a_condition_without_a_number_is_told(text):
    with pytest.raises(UsageError, match="--condition: expected NAME=VALUE"):
        sample._condition(text)


def test_conditions_may_be_repeated():
    given = sample._parser().parse_args(["--condition=gap=1", "--condition=x=2"])
    assert given.condition == ["gap=1", "x=2"]
    assert sample._parser().parse_args([]).condition == []


def test_the_command_has_all_that_python_has():
    given = vars(sample._parser().parse_args([]))
    assert set(options.Request.__annotations__) - {"conditions"} <= set(given)


@pytest.mark.parametrize(
    ("seed", "num_jumps", "every", "chunk", "told"),
    [
        (-1, 1, 1, 1, "--seed: expected 0 to 4294967295, found -1"),
        (2**32, 1, 1, 1, "--seed"),
        (0, 1, 1, 0, "--chunk: expected 1 or more, found 0"),
        (0, 0, 1, 1, "--num_jumps: expected 1 to 2147483647, found 0"),
        (0, 2**31, 1, 1, "--num_jumps: expected 1 to 2147483647"),
        (0, 10, 3, 1, "a multiple of --every=3, found 10"),
    ],
)
def test_numbers_no_rollout_can_do_with_are_told(seed, num_jumps, every, chunk, told):
    with pytest.raises(UsageError, match=told):
        sampler.check_numbers(seed, num_jumps, every, chunk)


def test_a_header_has_all_that_decides_and_no_array():
    weights = make_weights()
    found = sample.header(weights, choose(weights, replicas=3), 5, "xtc")
    assert (found["seed"], found["weights_sha256"]) == (5, "ab")
    settings = found["settings"]
    assert (settings["lag"], settings["temperature"]) == (10.0, 300.0)
    assert (settings["replicas"], settings["format"]) == (3, "xtc")
    assert len(settings["starts_sha256"]) == 64


def test_the_header_of_an_ensemble_has_no_lag():
    weights = with_ensemble()
    found = sample.header(weights, choose(weights, ensemble=True), 0, "xtc")
    assert found["settings"]["lag"] is None


@pytest.fixture
def files(monkeypatch):
    """Files of structures of one system, their x coordinates all of one number."""
    counts = {"a.pdb": 1, "b.xtc": 3, "c.xtc": 2}

    def read(path, topology, at_most, select, complete):
        number = 100.0 * "abc".index(path[0])
        values = number + np.arange(min(counts[path], at_most))
        ones = np.ones((1, 10, 3), np.float32)
        return SYSTEM, np.float32(values[:, None, None] * ones)

    monkeypatch.setattr(starts.frames, "read_structures", read)
    return list(counts)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        (1, [0]),
        (4, [0, 100, 200, 101]),
        (6, [0, 100, 200, 101, 201, 102]),
        (8, [0, 100, 200, 101, 201, 102, 0, 100]),
    ],
)
def test_replicas_go_round_the_files(files, replicas, expected):
    found = choose(replicas=replicas, start=files)
    assert found.starts[:, 0, 0].tolist() == expected


def test_structures_that_are_left_over_are_told(files, monkeypatch):
    told = []
    monkeypatch.setattr(starts.logging, "warning", lambda t, *a: told.append(t % a))
    choose(replicas=4, start=files)
    choose(replicas=6, start=files)
    assert [line for line in told if "strained" not in line] == [
        "--start: 4 replicas leave structures over: b.xtc (2 used), c.xtc (1 used); "
        "give more --replicas"
    ]


def test_a_start_that_is_bonded_otherwise_is_told():
    bonds = np.concatenate([SYSTEM.bonds, [[0, 9]]]).astype(np.int32)
    with pytest.raises(
        UsageError, match=r"found ACE-ALA-NME, with the bond CH3 of ACE"
    ):
        match(SYSTEM._replace(bonds=bonds))


def test_a_start_with_a_type_that_is_not_known_is_told_by_name(monkeypatch):
    system = make_system(["ACE", "NLE", "NME"])
    found = system, np.zeros((1, len(system.kept), 3), np.float32)
    monkeypatch.setattr(starts.frames, "read_structures", lambda *_: found)
    with pytest.raises(UsageError, match=r"a\.pdb: .* found NLE as residue 2; train"):
        choose(start="a.pdb")


@pytest.mark.parametrize("asked", [{"topology": "a.pdb"}, {"select": "protein"}])
def test_flags_of_a_start_need_one(asked):
    (name,) = asked
    with pytest.raises(UsageError, match=f"--{name}: expected --start beside it"):
        choose(**asked)
