"""Asking for properties: what is refused, the targets, and the guided law."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UsageError
from common.nn.conditions import Known
from configs.symphony import tiny
from symphony import (
    asking,
    build,
    decisions,
    drawing,
    guidance,
    manifest,
    options,
    records,
)
from symphony.columns import Column
from symphony.sampler import Sampler
from symphony.slots import Fragment
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


def fragment_of(num_atoms):
    positions, species = small.chain(3, num_atoms)
    missing = [(0, 8 - num_atoms), (0, 0)]
    return Fragment(
        jnp.pad(jnp.asarray(positions), missing),
        jnp.pad(jnp.asarray(species, jnp.int32), missing[0]),
        jnp.array(num_atoms, jnp.int32),
    )


def known_of(gap):
    asked = {"gap": Known(jnp.float32(gap), jnp.array(True))}
    hidden = {"logP": Known(jnp.zeros(()), jnp.array(False))}
    return {**small.NO_NOISE, **asked, **hidden}


def cached(model, fragment, conditions):
    cache = decisions.empty_cache(model, 8)
    for count in range(1, int(fragment.num_atoms) + 1):
        part = fragment._replace(num_atoms=jnp.array(count, jnp.int32))
        cache = decisions.extend_cache(model, cache, part, conditions)
    return cache


def test_what_is_foreseen_after_a_draw_is_what_the_network_says_once_it_is_placed():
    model, conditions = weights().model.bind(weights().params), known_of(0.7)
    after = fragment_of(4)
    before = after._replace(num_atoms=jnp.array(3, jnp.int32))
    cache = cached(model, before, conditions)
    vector = after.positions[3] - after.positions[1]
    radius = jnp.linalg.norm(vector)
    choice = decisions.Choice(jnp.array(False), jnp.array(1), after.species[3], 0.0)
    proposal = decisions.Proposal(choice, radius, vector / radius, None, None)
    ahead = guidance.look_ahead(model, cache, before, conditions, proposal)
    cache = decisions.extend_cache(model, cache, after, conditions)
    _, placed = decisions.embed_fragment(model, cache, after, conditions)
    mean, log_std = (leaf[0, 0] for leaf in placed.forecast)
    law = -0.5 * ((0.7 - mean) / jnp.exp(log_std)) ** 2 - log_std
    assert ahead == pytest.approx(float(law), rel=1e-4)


def test_guidance_weighs_draws_by_what_they_are_foreseen_to_become():
    model, conditions = weights().model.bind(weights().params), known_of(0.7)
    before = fragment_of(3)
    cache = cached(model, before, conditions)
    embedded = decisions.embed_fragment(model, cache, before, conditions)
    chosen = options.choose(weights(), property={"gap": 0.2})
    settings = drawing._settings(weights().config, chosen)

    @jax.jit
    def drawn(keys, strength):
        used = settings._replace(conditions=conditions, guidance=strength)
        arguments = (model, cache, before)
        one = lambda key: guidance.draw_next(
            *arguments, key, used, "exact", *embedded, None
        )
        steps = jax.vmap(one)(keys)
        grown = lambda step: before._replace(
            positions=before.positions.at[3].set(step.position),
            species=before.species.at[3].set(step.species),
            num_atoms=before.num_atoms + ~step.stop,
        )

        def foreseen(step):
            after = grown(step)
            longer = decisions.extend_cache(model, cache, after, conditions)
            longer = jax.tree.map(
                functools.partial(jnp.where, step.stop), cache, longer
            )
            _, now = decisions.embed_fragment(model, longer, after, conditions)
            return guidance.asked_log_density(
                now.forecast, conditions, model.properties
            )

        return jax.vmap(foreseen)(steps)

    keys = jax.random.split(jax.random.key(0), 800)
    free, guided = np.asarray(drawn(keys, 1.0)), np.asarray(drawn(keys, 13.0))
    weights_of_free = np.exp(12.0 * (free - free.max()))
    expected = np.sum(weights_of_free * free) / np.sum(weights_of_free)
    assert expected > free.mean() + 0.02
    # One of 16 falls a little short of the law of many.
    assert guided.mean() == pytest.approx(
        expected, abs=float(0.25 * (expected - free.mean()))
    )


def test_of_candidates_the_one_foreseen_nearest_is_kept():
    def sample(index, stopped, gap, log_p):
        zeros = np.zeros((1, 3), np.float32)
        return records.Sample(
            index, 0, np.array([6], np.uint8), zeros, stopped, -1.0,
            targets={"gap": 0.25}, forecast={"gap": gap, "logP": log_p},
        )  # fmt: skip

    drawn = [
        sample(6, True, 0.35, 0.0), sample(7, True, 0.3, 9.0),
        sample(8, False, 0.25, 0.0), sample(9, False, 0.1, 0.0),
        sample(10, False, 0.2, 0.0), sample(11, False, 0.4, 0.0),
    ]  # fmt: skip
    kept = list(asking.nearest(drawn, 3, (GAP, LOG_P)))
    assert [(one.index, one.forecast["gap"]) for one in kept] == [(2, 0.3), (3, 0.2)]


def test_the_manifest_states_what_was_asked_if_something_was():
    chosen = options.choose(weights(), property={"gap": "0.2:0.3"}, guidance=1.5)
    head = json.loads(json.dumps(manifest.header(weights(), chosen, 0)))
    assert head["settings"]["properties"] == [{"gap": [0.2, 0.3]}]
    assert head["settings"]["guidance"] == 1.5
    head = manifest.header(weights(), options.choose(weights()), 0)
    assert not {"properties", "guidance", "candidates"} & head["settings"].keys()


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


@pytest.mark.parametrize("name", ["free", "asked"])
def test_what_the_network_foresees_of_a_molecule_is_written(drawn, name):
    one = next(one for one in drawn[name] if one.stopped)
    count = len(one.positions)
    model = weights().model.bind(weights().params)
    table = {number: k for k, number in enumerate(tiny.get_config().data.species)}
    species = jnp.array([table[int(z)] for z in one.atomic_numbers], jnp.int32)
    hidden = Known(jnp.zeros(()), jnp.array(False))
    given = {**small.NO_NOISE, "gap": hidden, "logP": hidden}
    mask = jnp.ones(count, bool)
    placed = jnp.tril(jnp.ones((count, count), bool))
    positions = jnp.asarray(one.positions)
    _, steps = model.embed_steps(species, positions, mask, placed, given)
    expected = asking.values_of(np.asarray(steps.forecast.means[-1]), (GAP, LOG_P))
    assert dict(one.forecast) == pytest.approx(expected, abs=2e-4)
    assert records.record_of(one, None)["forecast_gap"] == one.forecast["gap"]


def test_candidates_of_a_molecule_have_its_targets_and_one_is_kept(drawn):
    draw = functools.partial(Sampler(weights()).sample_positions, seed=1, max_atoms=8)
    asked = {"gap": (0.1, 0.4)}
    kept = draw(6, num_slots=4, property=asked, candidates=2)
    assert [one.index for one in kept] == [*range(6)]
    targets = [dict(one.targets) for one in drawn["asked"]]
    assert [dict(one.targets) for one in kept] == targets
    # With one target, candidates are the draws of a call without.
    of_one = draw(3, num_slots=4, property={"gap": 0.2}, candidates=2)
    single = draw(6, num_slots=4, property={"gap": 0.2})
    found = [one.log_likelihood for one in of_one]
    expected = asking.nearest(single, 2, weights().columns)
    np.testing.assert_allclose(found, [x.log_likelihood for x in expected], rtol=1e-3)
    with pytest.raises(UsageError, match="--candidates: expected --property beside"):
        draw(6, candidates=2)
    with pytest.raises(UsageError, match="--candidates: expected 1 to 1000, found 0"):
        draw(6, property=asked, candidates=0)


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
