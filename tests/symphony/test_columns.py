"""Columns of files as properties of a network: scores, hiding, the same start."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from common.errors import UsageError
from common.nn.conditions import Known, known
from common.runs import weights as trained_weights
from configs.symphony import tiny
from symphony import build, columns, data, loss, train
from symphony.property_inputs import Forecast, log_density
from tests.symphony import small
from tests.symphony.small import NUM_NODES, chain, cut_of
from tests.symphony.test_data_readers import WATER, xyz
from tests.symphony.test_model import orthogonal_matrices

NAMES = ("gap", "logP")


def waters(**properties):
    count = len(next(iter(properties.values())))
    numbers = np.array([8, 1, 1] * count, np.uint8)
    made = np.tile(WATER, (count, 1)).astype(np.float32)
    units = {"gap": "Eh"}
    values = {name: np.float32(column) for name, column in properties.items()}
    return data.make_molecules(
        np.full(count, 3), numbers, made, None, values, units
    )  # fmt: skip


GAPS = [0.1, 0.2, np.nan, 0.3, 0.4]
LOG_P = [1.0, np.nan, np.nan, -1.0, 2.0]


def config_of(path, names=NAMES):
    config = tiny.get_config()
    config.data.update(path=str(path), properties=names)
    return config


def test_a_column_is_measured_over_what_is_known():
    (gap,) = columns.measure(waters(gap=GAPS), ("gap",), "waters.npz")
    assert gap[:2] == ("gap", "Eh")
    assert gap.num_known == 4
    assert gap.mean == pytest.approx(0.25)
    assert gap.std == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4]))
    assert (gap.low, gap.high) == pytest.approx((0.103, 0.397))
    scores = columns.standardise(waters(gap=GAPS), [gap]).properties["gap"]
    assert np.nanmean(scores) == pytest.approx(0.0, abs=1e-6)
    assert np.nanstd(scores) == pytest.approx(1.0)
    assert np.isnan(scores[2])


@pytest.mark.parametrize("values", [[np.nan, np.nan], [1.0, np.nan], [2.0, 2.0]])
def test_a_column_that_says_nothing_is_refused(values):
    with pytest.raises(
        UsageError, match="expected different numbers in the column gap"
    ):
        columns.measure(waters(gap=values), ("gap",), "waters.npz")


@pytest.mark.parametrize("form", ["npz", "xyz"])
def test_columns_of_any_unit_end_in_the_batch_as_scores(tmp_path, form):
    path = tmp_path / f"waters.{form}"
    if form == "npz":
        data.write_npz(waters(gap=GAPS, logP=LOG_P), path)
    else:
        words = [
            f'gap={g} logP={p} units="gap:Eh "'
            for g, p in zip(GAPS, LOG_P, strict=True)
        ]
        path.write_text("".join(map(xyz, words)))
    packed, held_out, meta = train.load_data(config_of(path))
    batch = packed[0].conditions
    np.testing.assert_array_equal(batch["gap"].mask, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(batch["logP"].mask, [1, 0, 0, 1, 1])
    std = np.std([0.1, 0.2, 0.3, 0.4])
    assert batch["gap"].value[0] == pytest.approx(-0.15 / std, rel=1e-5)
    assert held_out[0].conditions.keys() == {*NAMES}
    gap, log_p = columns.from_meta(meta, config_of(path))
    assert (gap.unit, log_p.unit) == ("Eh", "")
    assert gap.mean == pytest.approx(0.25)
    assert log_p.num_known == 3


def test_a_run_of_the_labelled_alone_leaves_the_others_out(tmp_path):
    data.write_npz(waters(gap=GAPS, logP=LOG_P), tmp_path / "waters.npz")
    config = config_of(tmp_path / "waters.npz")
    config.data.labelled_only = True
    packed, held_out, meta = train.load_data(config)
    assert meta["num_molecules"] == 4  # The third has neither.
    for batch in (packed[0], held_out[0]):
        shown = batch.conditions["gap"].mask | batch.conditions["logP"].mask
        assert shown.all()
    config.data.properties = ()
    assert train.load_data(config)[2]["num_molecules"] == 5
    config.data.properties = ("gap",)
    none = waters(gap=np.full(5, np.nan))
    with pytest.raises(UsageError, match="expected values of gap, as"):
        columns.keep_labelled(config, none)


def test_weights_without_the_columns_of_their_config_are_refused():
    config = config_of("qm9-sample")
    with pytest.raises(ValueError, match=r"config.data.properties \(gap, logP\)"):
        columns.from_meta({}, config)
    config.data.properties = ()
    assert columns.from_meta({}, config) == ()


@pytest.mark.parametrize(
    "names", [("",), ("gap", "gap"), ("a=b",), ("noise_std",), ("my gap",)]
)
def test_names_that_no_column_has_are_refused(names):
    config = config_of("qm9-sample", names)
    with pytest.raises(UsageError, match=r"config.data.properties: expected names"):
        train.check_config(config)
    config.data.properties = ("3",)
    train.check_config(config)


def test_a_condition_cannot_be_a_property_too():
    config = config_of("qm9-sample", ("gap",))
    config.model.conditions = ("noise_std", "gap")
    with pytest.raises(UsageError, match="and none of config"):
        train.check_config(config)


def test_any_subset_is_shown_and_what_is_unlabelled_never():
    given = {
        "gap": Known(jnp.float32(1.0), jnp.array(True)),
        "logP": Known(jnp.float32(1.0), jnp.array(True)),
        "dipole": Known(jnp.float32(0.0), jnp.array(False)),
        "noise_std": Known(jnp.float32(0.1), jnp.array(True)),
    }
    hide = functools.partial(columns.hide, names=("gap", "logP", "dipole"))
    drawn = jax.vmap(hide, (0, None))(jax.random.split(jax.random.key(0), 4000), given)
    gap, log_p = np.asarray(drawn["gap"].mask), np.asarray(drawn["logP"].mask)
    assert not drawn["dipole"].mask.any()
    assert drawn["noise_std"].mask.all()
    rest = 1.0 - columns.SHARE_NONE - columns.SHARE_ALL
    both = columns.SHARE_ALL + rest / 4.0
    np.testing.assert_allclose(np.mean(gap & log_p), both, atol=0.03)
    np.testing.assert_allclose(np.mean(gap & ~log_p), rest / 4.0, atol=0.03)
    np.testing.assert_allclose(np.mean(~gap & log_p), rest / 4.0, atol=0.03)


def with_properties():
    """Returns a network with properties, from the weights of one without."""
    config = small.make_config()
    config.data.properties = NAMES
    fresh = build.init_params(config, jax.random.key(1))
    given = small.model_and_params()[1]
    return build.make_model(config), trained_weights.adopt(fresh, given, "small")


def terms_of(model):
    drawn = cut_of(*chain(3, 5), NUM_NODES)

    @jax.jit
    def terms(params, conditions):
        bound = model.bind(params)
        placed = np.arange(NUM_NODES) <= np.arange(NUM_NODES)[:, None]
        placed &= drawn.node_mask
        atoms = drawn.species, drawn.positions, drawn.node_mask, placed
        feats, now = bound.embed_steps(*atoms, conditions)
        return feats, now.stop, now.focus_species, bound.first_logits(conditions)

    return terms


def test_a_start_from_weights_without_properties_gives_the_same_numbers():
    plain, params = small.model_and_params()
    expected = terms_of(plain)(params, small.NO_NOISE)
    model, adopted = with_properties()
    function = terms_of(model)
    scores = {
        name: jnp.float32(value) for name, value in zip(NAMES, (1.5, -9.0), strict=True)
    }
    shown = {**small.NO_NOISE, **known(scores)}
    hidden = {name: Known(one.value, one.mask & (name == "noise_std"))
              for name, one in shown.items()}  # fmt: skip
    for conditions in (shown, hidden):
        jax.tree.map(
            np.testing.assert_array_equal, function(adopted, conditions), expected
        )
    # Once the last layers are not zero, what is shown counts, and what is hidden not.
    moved = jax.tree.map(lambda leaf: leaf + 0.1, adopted)
    values = lambda given: np.asarray(function(moved, given)[1])
    assert np.abs(values(shown) - values(hidden)).max() > 1e-3
    other = {**hidden, "gap": Known(jnp.float32(2.0), jnp.array(False))}
    np.testing.assert_array_equal(values(other), values(hidden))
    one = {**hidden, "gap": shown["gap"]}
    assert np.abs(values(one) - values(hidden)).max() > 1e-3
    assert np.abs(values(one) - values(shown)).max() > 1e-3


def test_runs_without_properties_have_none_of_the_layers():
    config = ml_collections.ConfigDict(small.make_config())
    assert "property_inputs" not in small.model_and_params()[1]["params"]
    assert columns.names_of(config) == ()


def test_a_forecast_is_of_the_fragment_and_not_of_what_is_asked():
    model, params = with_properties()
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    drawn = cut_of(*chain(3, 5), NUM_NODES)

    @jax.jit
    def terms(conditions, rotation, shift):
        noise = jnp.zeros((NUM_NODES, 3))
        bound = model.bind(moved)
        turned = drawn._replace(positions=drawn.positions @ rotation.T + shift)
        return loss.step_terms(bound, turned, conditions, noise, jax.random.key(0))

    scores = known({"gap": jnp.float32(1.5), "logP": jnp.float32(-1.0)})
    shown = {**small.NO_NOISE, **scores}
    hidden = {**shown, **{name: one._replace(mask=~one.mask)
                          for name, one in scores.items()}}  # fmt: skip
    truths = {columns.truth_of(name): one for name, one in scores.items()}
    still = np.eye(3, dtype=np.float32), 0.0
    now, unasked = terms(shown, *still), terms(hidden | truths, *still)
    np.testing.assert_array_equal(now.forecast, unasked.forecast)
    for rotation in orthogonal_matrices(3):
        turned = terms(shown, np.float32(rotation), 2.0)
        np.testing.assert_allclose(turned.forecast, now.forecast, rtol=1e-4, atol=1e-4)
    assert np.abs(now.focus - unasked.focus).max() > 1e-3
    # What the file does not state is not foreseen.
    assert not terms(hidden, *still).forecast.any()
    totals = loss.totals(now)
    parts = ("focus", "radial", "coarse", "fine")
    summed = now.first + sum(totals[name] for name in parts)
    np.testing.assert_allclose(totals["nll"], summed, rtol=1e-6)
    assert totals["forecast"] == pytest.approx(float(now.forecast.sum()), rel=1e-6)


def test_the_best_forecast_is_the_law_of_the_scores():
    """The likelihood of many draws of a normal law is highest at its own moments."""
    scores = 0.3 + 0.5 * np.random.default_rng(0).normal(size=4000)
    truths = {"gap": Known(jnp.float32(scores[0]), jnp.array(True))}

    def mean_nll(mean, log_std):
        law = Forecast(jnp.full((1, 1), mean), jnp.full((1, 1), log_std))
        given = lambda x: {"gap": truths["gap"]._replace(value=x)}
        one = lambda x: log_density(law, given(x))[0, 0]
        return -jnp.mean(jax.vmap(one)(jnp.float32(scores)))

    slopes = jax.grad(mean_nll, (0, 1))(np.mean(scores), np.log(np.std(scores)))
    np.testing.assert_allclose(slopes, 0.0, atol=1e-3)
    assert mean_nll(0.3, -0.2) > mean_nll(0.3, np.log(0.5))


def test_the_forecast_is_trained_beside_the_likelihood():
    config = small.make_config()
    config.data.properties = NAMES
    _, params = with_properties()
    molecules = waters(gap=GAPS, logP=LOG_P)
    scored = columns.standardise(molecules, columns.measure(molecules, NAMES, ""))
    (batch,) = data.pack(scored, tuple(config.data.species), (NUM_NODES,))
    keys = jax.random.split(jax.random.key(0), len(GAPS))
    value, totals = jax.jit(build.make_loss(config, 4.0))(params, batch, keys)
    expected = totals["nll"] + loss.FORECAST_WEIGHT * totals["forecast"]
    assert value == pytest.approx(float(expected) / 4.0, rel=1e-6)
    assert abs(totals["forecast"]) > 1e-3
