"""Tests of the table of sources, and of trajectories in files."""

import json
import shutil

import numpy as np
import pytest

from common.errors import UsageError
from configs.equijump import tiny
from equijump.data import sources
from equijump.data.sources import ornstein_uhlenbeck, trajectories
from equijump.replicas import stem_of
from tests.equijump.test_data_pairs import make_trajectory


def settings(entries, temperatures=()):
    data = tiny.get_config().data
    data.sources, data.temperatures = entries, temperatures
    return data


@pytest.fixture
def toy(monkeypatch):
    """A source of as many trajectories as its argument says."""

    def read(argument, data):
        for number in range(int(argument or 1)):
            made = make_trajectory(start=1_000 * number)
            yield made._replace(name=f"toy_{number}", conditions={"gap": 2.0 + number})

    monkeypatch.setitem(sources.SOURCES, "toy", read)


def test_a_source_is_one_row_and_has_its_argument(toy):
    found = list(sources.read(settings(("toy", "toy:2"))))
    assert [t.name for t in found] == ["toy_0", "toy_0", "toy_1"]


def test_what_a_source_states_comes_with_its_trajectories(toy):
    first, second = sources.read(settings(("toy:2",)))
    assert first.conditions == {"temperature": 300.0, "gap": 2.0}
    assert second.conditions == {"temperature": 300.0, "gap": 3.0}


@pytest.mark.parametrize(
    ("given", "expected"), [((), [300, 300]), ((310.0,), [310, 310]), ((1, 2), [1, 2])]
)
def test_temperatures_of_the_config_belong_to_entries(toy, given, expected):
    found = sources.read(settings(("toy", "toy"), given))
    assert [t.conditions["temperature"] for t in found] == expected


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (
            {"charm": 1.0},
            "toy: expected conditions among temp.*, found charm",
        ),
        ({"lag": 1.0}, "found lag"),
        ({"gap": -1.0}, "toy: expected a gap of 0 to 20 eV, found -1"),
        ({"temperature": float("nan")}, "expected a temperature of 1 to 100000 K"),
    ],
)
def test_a_condition_that_the_table_does_not_have_is_told(
    monkeypatch, conditions, told
):
    made = make_trajectory()._replace(name="toy", conditions=conditions)
    monkeypatch.setitem(sources.SOURCES, "toy", lambda argument, data: [made])
    with pytest.raises(UsageError, match=told):
        list(sources.read(settings(("toy",))))


def test_the_ornstein_uhlenbeck_process_has_its_moments():
    (found,) = sources.read(settings(("ou:1",)))
    atoms = found.positions.reshape(-1, 2, 4, 3)
    carbon = atoms[:, :, 1]
    vectors = (atoms - carbon[:, :, None])[:, :, [0, 2, 3]]
    assert np.std(vectors) == pytest.approx(ornstein_uhlenbeck.VECTOR, rel=0.03)
    assert np.std(carbon) == pytest.approx(ornstein_uhlenbeck.POSITION, rel=0.1)
    lagged = np.mean(vectors[20:] * vectors[:-20]) / np.var(vectors)
    assert lagged == pytest.approx(np.exp(-1.0), abs=0.03)
    np.testing.assert_allclose(carbon.sum(axis=1), 0.0, atol=1e-5)


def test_the_ornstein_uhlenbeck_process_is_the_same_at_each_call():
    first, second = (next(ornstein_uhlenbeck.read("", settings(()))) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert first.checksum == second.checksum


def test_a_number_of_processes_is_a_number():
    with pytest.raises(UsageError, match="expected ou or ou:<number>, found ou:many"):
        list(sources.read(settings(("ou:many",))))


def test_a_packaged_name_goes_before_a_pattern(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ala2_300K").touch()
    assert len(trajectories.find("ala2_300K")) == 8
    assert trajectories.find("./ala2_300K") == [trajectories.Path("ala2_300K")]


def test_patterns_find_files_in_order_and_nothing_is_told(tmp_path):
    for name in ("b_2.xtc", "b_1.xtc", "c.pdb"):
        (tmp_path / name).touch()
    found = trajectories.find(f"{tmp_path}/*.xtc")
    assert [path.name for path in found] == ["b_1.xtc", "b_2.xtc"]
    with pytest.raises(UsageError, match=r"found none at .*give yours by --config"):
        trajectories.find(f"{tmp_path}/*.h5")


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("run.xtc", (), "run.pdb"),
        ("run_3.xtc", (), "run.pdb"),
        ("run_3.xtc", ("run_3.pdb",), "run_3.pdb"),
        ("run_b.xtc", (), "run_b.pdb"),
        ("a.b_1.xtc", (), "a.b.pdb"),
    ],
)
def test_a_file_lies_beside_its_trajectory_or_its_replicas(
    tmp_path, name, files, expected
):
    for file in files:
        (tmp_path / file).touch()
    assert trajectories.beside(tmp_path / name, ".pdb") == tmp_path / expected


def packaged_copy(folder):
    shutil.copy(trajectories.PACKAGED / "ala2_300K_0.xtc", folder / "run_0.xtc")
    shutil.copy(trajectories.PACKAGED / "ala2_300K.pdb", folder / "run.pdb")
    return settings((f"{folder}/*.xtc",))


def test_conditions_are_read_from_a_file_beside(tmp_path):
    data = packaged_copy(tmp_path)
    (tmp_path / "run.conditions.json").write_text('{"temperature": 310, "gap": 4.5}')
    (found,) = sources.read(data)
    assert found.conditions == {"temperature": 310.0, "gap": 4.5}
    own = tmp_path / "run_0.conditions.json"
    own.write_text(json.dumps({"temperature": 320}))
    (found,) = sources.read(data)
    assert found.conditions == {"temperature": 320.0}


@pytest.mark.parametrize("text", ["[1]", "{", '{"gap": "wide"}', '{"gap": null}'])
def test_damaged_conditions_are_told(tmp_path, text):
    (tmp_path / "run.conditions.json").write_text(text)
    with pytest.raises(UsageError, match=r"conditions\.json: expected a JSON object"):
        trajectories.read_conditions(tmp_path / "run.xtc")


def simulated(folder, **flags):
    values = {"pdb": None, "sequence": "A", "caps": True, "temperature": 400.0, **flags}
    (folder / "simulate.json").write_text(json.dumps({"flags": values}))
    return folder / "ace_a_nme_0.xtc"


def test_the_temperature_of_a_simulation_is_read(tmp_path):
    path = simulated(tmp_path)
    assert trajectories.read_conditions(path) == {"temperature": 400.0}
    other = simulated(tmp_path, pdb="x/1abc.pdb").with_name("1abc_2.xtc")
    assert trajectories.read_conditions(other) == {"temperature": 400.0}
    assert trajectories.read_conditions(path) == {}
    assert trajectories.read_conditions(tmp_path / "1abc_final.xtc") == {}


def test_the_temperature_of_a_long_sequence_is_read(tmp_path):
    sequence = "AQ" * 40
    simulated(tmp_path, sequence=sequence)
    name = f"{stem_of(sequence, None, caps=True)}_0.xtc"
    found = trajectories.read_conditions(tmp_path / name)
    assert found == {"temperature": 400.0}


def test_a_file_counts_before_a_pattern_and_folders_are_searched(tmp_path):
    for name in ("run[1].xtc", "run1.xtc"):
        (tmp_path / name).touch()
    (tmp_path / "run2.xtc").mkdir()
    assert trajectories.find(f"{tmp_path}/run[1].xtc") == [tmp_path / "run[1].xtc"]
    assert trajectories.find(f"{tmp_path}/run?.xtc") == [tmp_path / "run1.xtc"]
    (tmp_path / "run2.xtc" / "run.dcd").touch()
    (tmp_path / "run2.xtc" / "run.pdb").touch()
    names = [path.name for path in trajectories.find(str(tmp_path))]
    assert names == ["run1.xtc", "run.dcd", "run[1].xtc"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UsageError, match=r"files \*\.xtc, .* below .*empty, found none"
    ):
        trajectories.find(f"{tmp_path}/empty")


def test_the_temperature_of_a_rollout_is_read(tmp_path):
    record = {"settings": {"system": "ala2", "temperature": 350.0}}
    (tmp_path / "sample.json").write_text(json.dumps(record))
    found = trajectories.read_conditions(tmp_path / "ala2_3.xtc")
    assert found == {"temperature": 350.0}


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"flags": 3}', '{"flags": {}}'])
def test_a_record_that_says_nothing_is_left_alone(tmp_path, text):
    (tmp_path / "simulate.json").write_text(text)
    assert trajectories.read_conditions(tmp_path / "run_0.xtc") == {}


def test_two_temperatures_beside_a_trajectory_are_refused(tmp_path):
    path = simulated(tmp_path)
    beside = tmp_path / "ace_a_nme.conditions.json"
    beside.write_text('{"temperature": 300}')
    told = r"expected the temperature of simulate\.json .*, 400, found 300; correct"
    with pytest.raises(UsageError, match=told):
        trajectories.read_conditions(path)
    beside.write_text('{"temperature": 400, "gap": 2}')
    found = trajectories.read_conditions(path)
    assert found == {"temperature": 400.0, "gap": 2.0}


def test_another_temperature_than_beside_the_data_is_refused(tmp_path):
    data = packaged_copy(tmp_path)
    (tmp_path / "run.conditions.json").write_text('{"temperature": 310}')
    data.temperatures = (300.0,)
    told = r"run_0\.xtc: expected the 310 K .* found 300 K in --config\.data\.temp"
    with pytest.raises(UsageError, match=told):
        list(sources.read(data))
    data.temperatures = (310.0,)
    (found,) = sources.read(data)
    assert found.conditions == {"temperature": 310.0}


def test_an_unknown_temperature_is_told_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sources.logging, "info", lambda text, *a: told.append(text % a))
    data = packaged_copy(tmp_path)
    shutil.copy(tmp_path / "run_0.xtc", tmp_path / "run_1.xtc")
    assert [t.conditions["temperature"] for t in sources.read(data)] == [300.0, 300.0]
    assert told == [
        "temperature unknown, taken as 300 K, of 2 trajectories (run_0.xtc, ...); give "
        "--config.data.temperatures"
    ]


def test_the_packaged_temperature_is_known(monkeypatch):
    monkeypatch.setattr(sources.logging, "info", lambda *a: pytest.fail("told"))
    first = next(iter(sources.read(settings(("ala2_300K",)))))
    assert first.conditions == {"temperature": 300.0}
