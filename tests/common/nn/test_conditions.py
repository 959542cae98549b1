"""Conditions: the table, encodings, and unknown numbers, which add nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn import conditions
from common.nn.conditions import CONDITIONS, ConditionEmbedding, Known, known


def embed(names, values, width=4):
    module = ConditionEmbedding(names, width)
    shapes = {name: Known(jnp.ones(()), jnp.array(True)) for name in names}
    params = module.init(jax.random.key(0), shapes)
    return module.apply(params, values)


def all_known(**values):
    return known({name: jnp.array(value) for name, value in values.items()})


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_encodings_are_finite_at_both_ends_of_the_range(name):
    row = CONDITIONS[name]
    ends = jnp.array([max(row.low, 1e-3), row.high], jnp.float32)
    encoded = row.encode(ends)
    assert encoded.shape[0] == 2
    assert np.all(np.isfinite(encoded))


@pytest.mark.parametrize("name", ["lag", "temperature", "gap"])
def test_different_numbers_are_encoded_differently(name):
    low, high = CONDITIONS[name].encode(
        jnp.array([2.0, 4.0]) * 100.0 ** (name != "gap")
    )
    assert float(jnp.max(jnp.abs(high - low))) > 0.05


def test_an_unknown_number_adds_nothing_whatever_it_is():
    unknown = lambda value: {"lag": Known(jnp.array(value), jnp.array(False))}
    for value in (1.0, 500.0, -1.0):
        np.testing.assert_array_equal(embed(("lag",), unknown(value)), 0.0)


def test_conditions_add_up():
    both = all_known(lag=10.0, temperature=300.0)
    hidden = lambda name: both | {name: both[name]._replace(mask=jnp.array(False))}
    names = ("lag", "temperature")
    apart = [embed(names, hidden(name)) for name in names]
    np.testing.assert_allclose(embed(names, both), sum(apart), rtol=1e-5, atol=1e-6)


def test_conditions_that_are_not_named_are_ignored():
    one = embed(("lag",), all_known(lag=10.0))
    more = embed(("lag",), all_known(lag=10.0, gap=3.0))
    np.testing.assert_array_equal(one, more)


def test_known_numbers_are_single_precision_with_true_masks():
    found = known({"lag": jnp.array([1.0, 2.0], jnp.float16)})["lag"]
    assert found.value.dtype == jnp.float32
    assert found.mask.tolist() == [True, True]


def test_a_property_has_its_range_and_unit():
    row = conditions.property_between(-1.0, 2.0, "eV")
    assert (row.low, row.high, row.unit, row.is_read) == (-1.0, 2.0, "eV", True)
    assert row.encode(jnp.zeros(3)).shape == (3, 16)
