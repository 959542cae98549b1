"""Properties from files to batches, and from a user to the sampler."""

import io

import numpy as np
import pytest

from common.errors import UsageError
from common.nn import conditions as table
from configs.symphony import tiny
from symphony import conditions, data, drawing, likelihood, manifest, options, train
from symphony.data.molecules import concatenate
from symphony.data.xyz import read_xyz
from symphony.weights import Weights
from tests.symphony import small
from tests.symphony.test_data_qm9 import in_form
from tests.symphony.test_data_readers import WATER, v2000, v3000, xyz

SPECIES = (1, 6, 7, 8, 9)
VALUES = [1.25, np.nan, 2.5]


@pytest.fixture(autouse=True)
def _dipole(monkeypatch):
    """A property is one row of the table."""
    row = table.property_between(0.0, 10.0, "D")
    monkeypatch.setitem(table.CONDITIONS, "dipole", row)


def field(value, record):
    if np.isnan(value):
        return record
    return record.replace("$$$$", f">  <dipole> (1)\n{value}\n\n$$$$")


def write(folder, form):
    """Writes three waters, the second without a dipole moment."""
    path = folder / f"waters.{form}"
    if form == "npz":
        numbers = np.array([8, 1, 1] * 3, np.uint8)
        waters = np.tile(WATER, (3, 1)).astype(np.float32)
        made = data.make_molecules(np.full(3, 3), numbers, waters, None, {})
        data.write_npz(made._replace(properties={"dipole": np.float32(VALUES)}), path)
    elif form == "sdf":
        path.write_text("".join(field(value, v2000()) for value in VALUES))
    elif form == "mol":
        path.write_text("".join(field(value, v3000()) for value in VALUES))
    else:
        comments = ["dipole=1.25 name=a", "name=dipole", 'x=1 dipole="2.5"']
        path.write_text("".join(map(xyz, comments)))
    return path


def read(path, names=("dipole",), **options):
    return data.read_molecules(path, SPECIES, 29, properties=names, **options)[0]


@pytest.mark.parametrize("form", ["npz", "sdf", "mol", "extxyz"])
def test_a_property_of_any_file_ends_in_the_batch(tmp_path, form):
    molecules = read(write(tmp_path, form))
    np.testing.assert_allclose(molecules.properties["dipole"], VALUES)
    (batch,) = data.pack(molecules, SPECIES, (4,))
    known = batch.conditions["dipole"]
    np.testing.assert_array_equal(known.mask, [True, False, True])
    np.testing.assert_allclose(known.value, [1.25, 0.0, 2.5])


@pytest.mark.parametrize("form", ["npz", "sdf", "extxyz"])
def test_what_is_not_asked_for_is_not_read(tmp_path, form):
    molecules = read(write(tmp_path, form), ())
    assert molecules.properties == {}
    assert data.pack(molecules, SPECIES, (4,))[0].conditions == {}


def test_a_config_that_names_a_property_trains_on_it(tmp_path):
    config = tiny.get_config()
    config.data.path = str(write(tmp_path, "extxyz"))
    config.model.conditions = ("noise_std", "dipole")
    packed, held_out, _ = train.load_data(config)
    assert packed[0].conditions["dipole"].mask.sum() == 2
    assert held_out[0].conditions.keys() == {"dipole"}


def test_batches_carry_conditions_with_their_molecules(tmp_path):
    packed = data.pack(read(write(tmp_path, "npz")), SPECIES, (4,))
    for step in range(4):
        batch = data.batch_at(packed, 2, 0, step)
        value, mask = batch.conditions["dipole"]
        assert value.shape == mask.shape == (2,)
        assert {*value[mask].tolist()} <= {1.25, 2.5}
    *_, last = data.batches_in_order(packed, 2)
    np.testing.assert_array_equal(last.conditions["dipole"].mask, [True, False])
    np.testing.assert_array_equal(last.node_mask[1], False)


def test_selected_and_joined_molecules_keep_their_properties(tmp_path):
    molecules = read(write(tmp_path, "npz"))
    last_first = data.select(molecules, np.array([2, 0]))
    np.testing.assert_allclose(last_first.properties["dipole"], [2.5, 1.25])
    joined = concatenate([last_first, molecules])
    np.testing.assert_allclose(joined.properties["dipole"], [2.5, 1.25, *VALUES])
    drawn = data.choose_molecules(molecules, 2)
    assert len(drawn.properties["dipole"]) == 2


def test_the_checksum_is_of_properties_too_where_there_are_some(tmp_path):
    path = write(tmp_path, "npz")
    plain, with_dipole = read(path, ()), read(path)
    unlike = with_dipole._replace(properties={"dipole": np.float32([1.0, 2.0, 3.0])})
    assert data.checksum(plain) == data.checksum(with_dipole._replace(properties={}))
    assert len({data.checksum(m) for m in (plain, with_dipole, unlike)}) == 3


def test_made_sets_have_no_property(caplog):
    solids = data.read_molecules("tetris", (1,), 8, properties=("dipole",))[0]
    assert np.isnan(solids.properties["dipole"]).all()
    assert "no molecule has the property dipole" in caplog.text


@pytest.mark.parametrize("form", ["sdf", "zip", "tar"])
def test_the_gap_of_qm9_is_in_ev(tmp_path, monkeypatch, form):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = in_form(form, tmp_path)
    for _ in range(2):  # The second time from the cache, if there is one.
        gaps = read(path, ("gap",)).properties["gap"]
        assert gaps[0] == pytest.approx(0.5048 * 27.211386, rel=1e-5)
        assert np.isfinite(gaps).all()


def test_a_property_in_another_unit_is_refused(tmp_path):
    path = tmp_path / "waters.xyz"
    path.write_text(xyz("dipole=1850 name=water"))
    match = "expected dipole of 0 to 10 D, found 1850 \\(molecule water\\)"
    with pytest.raises(UsageError, match=match):
        read(path)


@pytest.mark.parametrize("form", ["sdf", "xyz"])
def test_a_property_that_is_no_number_makes_a_record_unreadable(tmp_path, form):
    path = tmp_path / f"waters.{form}"
    bad = v2000("bad").replace("$$$$", "> <dipole>\nlarge\n\n$$$$")
    path.write_text(bad if form == "sdf" else xyz("dipole=large"))
    with pytest.raises(
        UsageError, match=r"1 with a fault in line \d+: expected dipole as a number"
    ):
        read(path)


def test_a_property_of_text_in_an_npz_is_refused(tmp_path):
    path = write(tmp_path, "npz")
    with np.load(path) as archive:
        arrays = {**archive, "dipole": np.array(["a", "b", "c"])}
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match="expected dipole as numbers, found <U1"):
        read(path)
    np.savez(path, **{**arrays, "dipole": np.zeros(2)})
    with pytest.raises(UsageError, match=r"expected dipole of shape \(3,\)"):
        read(path)


def test_names_are_regular_expressions_nowhere():
    frames = io.BytesIO(xyz("aXb=3").encode())
    molecules = read_xyz(frames, "text", ("a.b",)).molecules
    assert np.isnan(molecules.properties["a.b"]).all()


def test_an_unknown_condition_of_a_config_is_an_error():
    config = tiny.get_config()
    config.model.conditions = ("noise_std", "colour")
    with pytest.raises(UsageError, match="found 'colour'"):
        conditions.names_of(config)


def test_kinds_without_the_field_take_no_conditions():
    config = tiny.get_config()
    config.model = {k: v for k, v in config.model.items() if k != "conditions"}
    assert conditions.names_of(config) == ()
    assert conditions.names_read(config) == ()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["gap"], "expected name=number, found 'gap'"),
        (["gap=wide"], "expected name=number, found 'gap=wide'"),
        (["gap=1", "gap=2"], "expected gap once"),
    ],
)
def test_flags_of_another_form_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        conditions.parse(texts)


def weights_given(*names):
    config = small.make_config()
    config.model.conditions = names
    model, params = small.model_and_params()
    return Weights("small", config, model, params, "", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gap": 3.0}, "expected one of dipole, as small was trained, found gap"),
        ({"noise_std": 0.1}, "expected one of dipole"),
        ({"dipole": 11.0}, "expected dipole of 0 to 10 D, found 11"),
        ({"dipole": float("nan")}, "expected dipole of 0 to 10 D, found nan"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        options.choose(weights_given("noise_std", "dipole"), conditions=given)


def test_weights_without_conditions_say_so():
    with pytest.raises(UsageError, match="--condition: expected no condition"):
        options.choose(weights_given("noise_std"), conditions={"gap": 3.0})


def test_the_sampler_gets_what_is_given_and_masks_the_rest():
    weights = weights_given("noise_std", "dipole", "gap")
    asked = options.choose(weights, conditions={"gap": 3.0})
    settings = drawing._settings(weights.config, asked)
    assert settings.conditions.keys() == {"noise_std", "dipole", "gap"}
    assert settings.conditions["noise_std"].mask
    assert settings.conditions["gap"].value == 3.0
    assert not settings.conditions["dipole"].mask


def test_the_manifest_states_conditions_if_there_are_some():
    weights = weights_given("noise_std", "gap")
    head = manifest.header(weights, options.choose(weights, conditions={"gap": 3.0}), 0)
    assert head["settings"]["conditions"] == {"gap": 3.0}
    head = manifest.header(weights, options.choose(weights), 0)
    assert "conditions" not in head["settings"]


def test_scores_are_under_the_properties_of_the_file(tmp_path):
    molecules = read(write(tmp_path, "npz"))
    first, second = (likelihood._conditions_of(molecules, index) for index in (0, 1))
    assert first["dipole"].value == 1.25
    assert first["dipole"].mask
    assert not second["dipole"].mask


def test_a_condition_that_no_molecule_states_is_not_trained_on():
    config = tiny.get_config()
    config.data.path = "ethanol"
    config.model.conditions = ("noise_std", "dipole")
    with pytest.raises(
        UsageError, match=r"ethanol: expected dipole, .*found it of none"
    ):
        train.load_data(config)
