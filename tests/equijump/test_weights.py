"""Tests of the systems that come with the weights of a run, and of old records."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.nn.conditions import Known
from configs.equijump import tiny
from equijump import build, starts, weights
from equijump.data import sources
from equijump.data.residues import NUM_SLOTS
from tests.equijump.test_data_pairs import doubled, make_trajectory


def permuted(trajectory, order):
    """The same trajectory from a file that lists its atoms in another order."""
    place = np.append(np.argsort(order), -1).astype(np.int32)
    system = trajectory.system
    system = system._replace(
        slot_atoms=place[system.slot_atoms],
        kept=system.kept[order],
        atom_names=tuple(system.atom_names[i] for i in order),
    )
    return trajectory._replace(system=system, positions=trajectory.positions[:, order])


def labelled(number):
    """Every atom is where its slot says, in all frames."""
    made = doubled(make_trajectory(100))
    slots = np.argsort(made.system.slot_atoms[0, :4])
    made.positions[:] = np.tile(slots, 2)[:, None] + 10.0 * number
    return made._replace(name=f"toy_{number}.xtc", checksum=str(number))


@pytest.fixture
def mixed(monkeypatch):
    """Two trajectories that validate; the second lists its atoms in another order."""
    made = [
        labelled(0),
        labelled(1),
        permuted(labelled(2), np.array([2, 0, 3, 1, 7, 4, 6, 5])),
    ]
    monkeypatch.setitem(sources.SOURCES, "toy", lambda argument, data: made)
    config = tiny.get_config()
    config.data.sources, config.data.lags = ("toy",), (2.0,)
    return config


def test_starts_of_files_in_another_order_have_the_order_of_the_first(mixed):
    (molecule,) = weights.find_molecules(mixed).values()
    rows = molecule.system.slot_atoms[0, :4]
    placed = molecule.starts[:, rows, 0]
    assert {10.0, 20.0} == set(placed[:, 0].tolist())
    np.testing.assert_array_equal(placed - placed[:, :1], [[0, 1, 2, 3]] * len(placed))


def test_systems_are_named_as_their_files(mixed):
    assert list(weights.find_molecules(mixed)) == ["toy"]


def test_a_start_in_another_order_is_matched_by_the_same_function(mixed):
    known = weights.find_molecules(mixed)
    other = permuted(labelled(0), np.arange(8)[::-1])
    given = starts.Given("file", "--start=file", other.system, other.positions[:2])
    name, positions = starts.match(known, given)
    assert name == "toy"
    np.testing.assert_array_equal(
        positions[:, known["toy"].system.slot_atoms[0, :4], 0], [[0, 1, 2, 3]] * 2
    )


class Counted:
    """Positions that count what is read of them."""

    def __init__(self, positions):
        self.positions, self.sizes = positions, []

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        self.sizes.append(np.size(index))
        return self.positions[index]


def test_starts_are_read_one_by_one(mixed, monkeypatch):
    made = sources.SOURCES["toy"]("", None)
    counted = [t._replace(positions=Counted(t.positions)) for t in made]
    monkeypatch.setitem(sources.SOURCES, "toy", lambda argument, data: counted)
    weights.find_molecules(mixed)
    sizes = [size for t in counted for size in t.positions.sizes]
    assert sizes == [1] * weights.NUM_STARTS


def record(**more):
    return {"lags": [10.0, 1e6], "positions": [0.2, 3.0], "vectors": [0.3, 2.0], **more}


def test_old_statistics_have_hidden_sources_as_their_last_lag():
    found = build.read_statistics(record())
    np.testing.assert_array_equal(found.lags, [10.0])
    np.testing.assert_array_equal(found.ensemble, [3.0, 2.0])


@pytest.mark.parametrize("ensemble", [None, [5.0, 4.0]])
def test_a_lag_of_a_microsecond_is_one_as_any_other(ensemble):
    found = build.read_statistics(record(ensemble=ensemble))
    np.testing.assert_array_equal(found.lags, [10.0, 1e6])
    scales = build.scales_at(found, lag(1e6), 4.0)
    np.testing.assert_allclose(scales.displacement[1, 0], 3.0, rtol=1e-5)
    np.testing.assert_allclose(scales.noise, 4.0 * scales.displacement)
    again = build.read_statistics(build.write_statistics(found))
    np.testing.assert_array_equal(again.positions, found.positions)
    assert (again.ensemble is None) == (ensemble is None)


def lag(value, mask=True):
    return Known(jnp.float32(value), jnp.asarray(mask))


def test_a_hidden_source_has_its_own_scales():
    found = build.read_statistics(record(ensemble=[5.0, 4.0]))
    scales = build.scales_at(found, lag(10.0, False), 4.0)
    assert scales.displacement.shape == (NUM_SLOTS, 1)
    np.testing.assert_allclose(scales.displacement[:2, 0], [4.0, 5.0])
    np.testing.assert_array_equal(scales.noise, scales.displacement)


def test_statistics_of_other_names_are_told():
    with pytest.raises(ValueError, match="statistics named charm"):
        build.read_statistics(record(charm=[1.0]))


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Packaged weights whose metadata may be changed."""
    folder = tmp_path_factory.mktemp("weights") / "mine"
    shutil.copytree(weights.PRETRAINED / "ala2", folder)
    return folder, json.loads((folder / "config.json").read_text("utf-8"))


def changed(copied, **values):
    folder, record = copied
    meta = {**record["meta"], **values}
    (folder / "config.json").write_text(json.dumps({**record, "meta": meta}), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"systems": 5}, "5 as the names of its systems"),
        ({"systems": []}, r"\[\] as the names of its systems"),
        ({"systems": ["../ala2"]}, "as the names of its systems"),
        ({"systems": [None]}, "as the names of its systems"),
        ({"systems": ["ala3"]}, "ala3.xtc and ala3.pdb of its system ala3, found none"),
        ({"conditions": None}, "the metadata of a trained equijump model"),
        ({"conditions": {"temperature": 300}}, "the metadata of a trained"),
        ({"conditions": {"temperature": [1, 2, 3]}}, "the metadata of a trained"),
        ({"conditions": {"temperature": ["a", "b"]}}, "the metadata of a trained"),
        ({"conditions": {"temperature": [400, 300]}}, "temperature from 400 to 300"),
    ],
)
def test_damaged_metadata_are_told_in_one_line(copied, values, told):
    folder = changed(copied, **values)
    with pytest.raises(UsageError, match=told) as caught:
        weights.load_weights(folder)
    assert str(caught.value).startswith(f"{folder}: expected ")
    assert "\n" not in str(caught.value)
