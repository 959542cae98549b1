"""Specs of products and weights of edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.products import PRODUCTS, scalar, self_product
from common.nn.products import spec as specs
from common.nn.products.spec import RadialWeights, make_spec
from common.so3.irreps import SCALAR, VECTOR, uniform


def test_a_spec_is_sorted_and_hashable():
    one = make_spec({VECTOR: 2, SCALAR: 3}, {SCALAR: 1}, [VECTOR, SCALAR])
    other = make_spec({SCALAR: 3, VECTOR: 2}, {SCALAR: 1}, [SCALAR, VECTOR])
    assert one == other
    assert hash(one) == hash(other)


def test_slices_of_weights_lie_one_after_the_other():
    weights = jnp.arange(12.0).reshape(2, 6)
    parts = list(specs.split_weights(weights, (1, 2, 3)))
    np.testing.assert_array_equal(jnp.concatenate(parts, -1), weights)
    assert [part.shape[-1] for part in parts] == [1, 2, 3]


def test_radial_weights_are_the_product_with_their_kernel():
    radial, kernel = jnp.ones((2, 3, 4)), jnp.arange(8.0).reshape(4, 2)
    found = specs.as_array(RadialWeights(radial, kernel))
    np.testing.assert_array_equal(found[0, 0], jnp.sum(kernel, axis=0))
    weights = jnp.ones((2, 3, 5))
    assert specs.as_array(weights) is weights


def test_unequal_channels_are_refused_where_one_number_is_needed():
    unequal = make_spec({SCALAR: 8, VECTOR: 4}, uniform(1, 1), [SCALAR, VECTOR])
    for module in (scalar, self_product):
        with pytest.raises(ValueError, match=r"found \[4, 8\]"):
            module.num_weights(unequal)


@pytest.mark.parametrize("module", [scalar, self_product])
def test_paths_to_one_irrep_are_added_up(module):
    spec = make_spec(*[uniform(2, 8)] * 3)
    assert module.irreps_out(spec) == uniform(2, 8)
    assert module.num_weights(spec) == 8 * len(module.paths(spec))


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_shapes_of_a_product_are_those_that_its_row_tells(name):
    row, irreps = PRODUCTS[name], uniform(2, 4)
    spec = make_spec(irreps, uniform(2, 1), irreps)
    shape = jax.ShapeDtypeStruct
    x = {i: shape((5, i.dim, 4), jnp.float32) for i in irreps}
    y = {i: shape((5, i.dim, 1), jnp.float32) for i in irreps}
    weights = shape((5, row.num_weights(spec)), jnp.float32)
    found = jax.eval_shape(lambda *given: row.product(*given, spec), x, y, weights)
    told = {i: (5, i.dim, count) for i, count in row.irreps_out(spec).items()}
    assert {i: part.shape for i, part in found.items()} == told
