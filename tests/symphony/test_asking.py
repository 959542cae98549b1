"""Asking for properties: what is refused, the targets, and the guided law."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from configs.symphony import tiny
from symphony import asking, build, drawing, guidance, manifest, options, records
from symphony.columns import Column
from symphony.sampler import Sampler
from symphony.weights import Weights
from tests.symphony import small

GAP = Column("gap", "Eh", 0.25, 0.05, 0.15, 0.4, 1000)
LOG_P = Column("logP", "", 0.5, 1.0, -2.0, 3.0, 900)


@functools.cache
def weights():
    """Returns a small network with properties that count."""
    config = tiny.get_config()
    config.data.properties = ("gap", "logP")
    params = build.init_params(config, jax.random.key(0))
    rng = np.random.default_rng(0)

    def moved(path, leaf):
        name = jax.tree_util.keystr(path)
        std = 0.03 if "vectors" in name or "fine_outputs" in name else 0.2
        return leaf + std * rng.normal(size=leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(moved, params)
    model = build.make_model(config)
    return Weights("small", config, model, params, "", "", columns=(GAP, LOG_P))


def plain():
    model, params = small.model_and_params()
    return Weights("plain", small.make_config(), model, params, "", "")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["gap"], "expected name=number or name=low:high, found 'gap'"),
        (["gap="], "expected name=number or name=low:high"),
        (["gap=1", "gap=2"], "expected gap once"),
    ],
)
def test_flags_of_another_form_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        asking.parse(texts)


@pytest.mark.parametrize(
    ("given", "strength", "message"),
    [
        ({"Gap": "1"}, 1.0, r"one of gap \(Eh, 0.15 to 0.4\), logP \(-2 to 3\), found"),
        ({"gap": "wide"}, 1.0, "expected gap as a number or as low:high, found 'wide'"),
        ({"gap": "0.3:0.2"}, 1.0, "expected gap as a number or as low:high"),
        ({"gap": float("nan")}, 1.0, "expected gap as a number"),
        ({"gap": (0.1, 0.2, 0.3)}, 1.0, "expected gap as a number"),
        ({"gap": 0.2}, -1.0, "--guidance: expected 0 to 100"),
        ({"gap": 0.2}, float("nan"), "--guidance: expected 0 to 100"),
        ({}, 2.0, "--guidance: expected --property beside it, found none"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, strength, message):
    with pytest.raises(UsageError, match=message):
        options.choose(weights(), property=given, guidance=strength)


def test_weights_without_properties_say_so():
    with pytest.raises(UsageError, match="no property, as plain was trained without"):
        options.choose(plain(), property={"gap": 1.0})


@pytest.mark.parametrize(("word", "warns"), [("0.5", 1), ("0.2:0.41", 1), ("0.3", 0)])
def test_a_target_outside_the_data_is_a_warning(word, warns, caplog):
    chosen = options.choose(weights(), property={"gap": word})
    assert caplog.text.count("not within 1 to 99 %") == warns
    assert ("gap (Eh, 0.15 to 0.4)" in caplog.text) == warns
    assert chosen.properties[0]["gap"][0] in (0.5, 0.2, 0.3)


def test_a_range_draws_a_target_for_each_molecule():
    asked = [{"gap": (0.2, 0.3), "logP": (2.0, 2.0)}]
    drawn = [asking.targets_of(asked, 3, index) for index in range(500)]
    gaps = np.array([one["gap"] for one in drawn])
    assert {one["logP"] for one in drawn} == {2.0}
    assert 0.2 <= gaps.min() < 0.202
    assert 0.298 < gaps.max() <= 0.3
    assert gaps.mean() == pytest.approx(0.25, abs=0.005)
    assert drawn[7] == asking.targets_of(asked, 3, 7)
    assert drawn[7]["gap"] != asking.targets_of(asked, 4, 7)["gap"]
    # What else is asked for changes no target.
    assert asking.targets_of([{"gap": (0.2, 0.3)}], 3, 7)["gap"] == drawn[7]["gap"]


def test_several_targets_come_in_turn():
    several = [{"gap": 0.2, "logP": 1.0}, {"gap": 0.3, "logP": -1.0}]
    asked = options.choose(weights(), property=several).properties
    found = [asking.targets_of(asked, 0, index) for index in range(4)]
    assert found == several + several
    with pytest.raises(UsageError, match="expected the same properties of every"):
        options.choose(weights(), property=[{"gap": 0.2}, {"logP": 1.0}])


def test_scores_are_in_the_order_of_the_network():
    scores = asking.scores_of({"logP": 2.5}, (GAP, LOG_P))
    np.testing.assert_allclose(scores, [0.0, 2.0])
    np.testing.assert_allclose(asking.scores_of({"gap": 0.2}, (GAP, LOG_P)), [-1.0, 0])


def test_the_guided_law_of_logits_is_the_power_of_the_two_laws():
    rng = np.random.default_rng(0)
    shown, hidden = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    law = jax.nn.softmax(guidance.steer(shown, hidden, 1.7))
    expected = jax.nn.softmax(shown) ** 1.7 * jax.nn.softmax(hidden) ** -0.7
    np.testing.assert_allclose(law, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_array_equal(guidance.steer(shown, hidden, 1.0), shown)


def test_the_guided_law_of_a_density_is_the_power_of_the_two_densities():
    log_normal = lambda x, mean, std: -0.5 * ((x - mean) / std) ** 2

    def one(key):
        draw = jax.random.normal  # With properties shown: mean 0, deviation 1.
        ratio = lambda x: log_normal(x, 0.0, 1.0) - log_normal(x, -1.0, 2.0)
        return guidance.choose(key, draw, ratio, 2.0)

    drawn = jax.vmap(one)(jax.random.split(jax.random.key(0), 20_000))
    # Precisions and means add: 2 * 1 - 1 / 4, and (2 * 0 + 1 / 4) over that.
    assert drawn.mean() == pytest.approx(0.25 / 1.75, abs=0.03)
    assert drawn.std() == pytest.approx(1.75**-0.5, abs=0.03)


def test_the_manifest_states_what_was_asked_if_something_was():
    chosen = options.choose(weights(), property={"gap": "0.2:0.3"}, guidance=1.5)
    head = json.loads(json.dumps(manifest.header(weights(), chosen, 0)))
    assert head["settings"]["properties"] == [{"gap": [0.2, 0.3]}]
    assert head["settings"]["guidance"] == 1.5
    head = manifest.header(weights(), options.choose(weights()), 0)
    assert not {"properties", "guidance"} & head["settings"].keys()


@pytest.fixture(scope="module")
def drawn():
    """Returns molecules for a low and a high gap, at guidance 1 and at 3."""
    draw = functools.partial(Sampler(weights()).sample_positions, 6, seed=1)
    draw = functools.partial(draw, max_atoms=8, num_slots=4)
    asked = {"gap": (0.1, 0.4)}
    return {
        "free": draw(),
        "asked": draw(property=asked),
        "again": draw(property=asked),
        "guided": draw(property=asked, guidance=3.0),
    }


def test_targets_are_written_beside_molecules(drawn):
    for name in ("asked", "guided"):
        targets = [dict(one.targets)["gap"] for one in drawn[name]]
        assert len({*targets}) == len(targets)
        record = records.record_of(drawn[name][2], None)
        assert record["target_gap"] == targets[2]
    assert "target_gap" not in records.record_of(drawn["free"][2], None)


def test_what_is_asked_for_decides_the_molecules(drawn):
    likelihoods = {k: [one.log_likelihood for one in v] for k, v in drawn.items()}
    assert likelihoods["asked"] == likelihoods["again"]
    for name in ("free", "guided"):
        assert likelihoods["asked"] != likelihoods[name]
    assert np.isfinite(likelihoods["guided"]).all()
    assert all(np.isfinite(one.positions).all() for one in drawn["guided"])


def test_every_slot_has_the_scores_of_its_own_molecule(drawn):
    alone = Sampler(weights()).sample_positions(
        6, seed=1, first=5, max_atoms=8, num_slots=4, property={"gap": (0.1, 0.4)}
    )
    np.testing.assert_allclose(
        alone[0].positions, drawn["asked"][5].positions, atol=1e-4
    )
    given = drawing._settings(
        weights().config, options.choose(weights(), property={"gap": 0.2})
    )
    assert given.conditions["gap"].mask
    assert not given.conditions["logP"].mask
