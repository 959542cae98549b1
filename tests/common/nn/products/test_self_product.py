"""The product inside a node against e3nn-jax, and the multilinear form under it."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import from_irreps_array, irreps_of, to_irreps_array
from common.nn.products import fully_connected, multilinear, self_product
from common.nn.products.spec import make_spec
from common.so3.irreps import format_irreps, uniform
from tests.common.nn.random_inputs import assert_close, features, normal


def setting(max_degree, group, seed=0):
    irreps = format_irreps(uniform(max_degree, 3, group))
    x, y = features(irreps, 2, seed=seed), features(irreps, 2, seed=seed + 1)
    spec = make_spec(irreps_of(x), irreps_of(y), irreps_of(x))
    shape = (self_product.num_weights(spec),)
    return x, y, jax.random.normal(jax.random.key(seed + 2), shape), spec


def of_e3nn(x, y, weights, spec):
    total = {}
    for index, (i, j, k) in enumerate(self_product.paths(spec)):
        w = weights[3 * index : 3 * index + 3]
        for channel in range(3):
            one = (
                to_irreps_array({a: z[a][..., channel, None]})
                for a, z in ((i, x), (j, y))
            )
            part = e3nn.tensor_product(*one, filter_ir_out=[e3nn.Irrep(*k)])
            part = from_irreps_array(part)[k] * w[channel]
            total.setdefault(k, [0.0] * 3)[channel] += part
    return {k: jnp.concatenate(total[k], axis=-1) for k in sorted(total)}


@pytest.mark.parametrize("group", ["O3", "SO3"])
@pytest.mark.parametrize("max_degree", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_product_equals_e3nn_in_value_and_gradient(max_degree, group):
    *floats, spec = setting(max_degree, group)

    def both(form):
        loss = lambda *f: sum(jnp.sum(jnp.cos(a)) for a in form(*f, spec).values())
        return form(*floats, spec), jax.jit(jax.grad(loss, (0, 1, 2)))(*floats)

    assert_close(both(self_product.product), both(of_e3nn))


@pytest.mark.parametrize("module", [self_product, fully_connected])
def test_dense_tables_and_sparse_terms_agree(module):
    x, y, _, spec = setting(2, "O3")
    weights = normal(2, module.num_weights(spec), seed=2)
    dense = module.product(x, y, weights, spec, max_terms=0)
    assert_close(dense, module.product(x, y, weights, spec, max_terms=10_000))


def test_weights_may_differ_from_node_to_node():
    x, y, weights, spec = setting(1, "O3")
    both = jnp.stack([weights, 2.0 * weights])
    found = self_product.product(x, y, both, spec)
    expected = self_product.product(x, y, weights, spec)
    scaled = {i: a * jnp.array([1.0, 2.0])[:, None, None] for i, a in expected.items()}
    assert_close(found, scaled)


FORM = multilinear.Form(
    terms=(
        multilinear.Term((0, 0, 1, 0), 2.0),
        multilinear.Term((1, 1, 0, 0), -1.0),
        multilinear.Term((1, 1, 1, 1), 0.5),
    ),
    sizes=(2, 2, 2, 2),
)


def plain(w, x, y):
    """The same form, written out."""
    first = 2.0 * w[..., 0, :] * x[..., 0, :] * y[..., 1, :]
    first -= w[..., 1, :] * x[..., 1, :] * y[..., 0, :]
    second = 0.5 * w[..., 1, :] * x[..., 1, :] * y[..., 1, :]
    return jnp.stack([first, second], axis=-2)


def arrays(*batch):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (*batch, 2, 3)) for key in keys]


def ours(w, x, y):
    return multilinear.apply(FORM, w, x, y)


def test_form_is_the_sum_of_its_terms():
    np.testing.assert_allclose(ours(*arrays(4)), plain(*arrays(4)), atol=1e-6)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian])
def test_derivatives_are_those_of_the_plain_sum(derivative):
    for place in range(3):
        found = derivative(ours, place)(*arrays())
        np.testing.assert_allclose(
            found, derivative(plain, place)(*arrays()), atol=1e-5
        )


def test_third_derivative_mixes_all_slots():
    def third(form):
        one = lambda s: jnp.sum(form(*(s * a for a in arrays())))
        return jax.grad(jax.grad(jax.grad(one)))(1.0)

    np.testing.assert_allclose(third(ours), third(plain), rtol=1e-5)


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, 0), (0, None, 0), (1, 0, None)])
def test_batches_along_any_axis(axes):
    given = [
        a[0] if axis is None else jnp.moveaxis(a, 0, axis)
        for a, axis in zip(arrays(4), axes, strict=True)
    ]
    found = jax.vmap(ours, axes)(*given)
    np.testing.assert_allclose(found, jax.vmap(plain, axes)(*given), atol=1e-6)
    total = lambda f: lambda *a: jnp.sum(jnp.sin(jax.vmap(f, axes)(*a)))
    slopes = [jax.grad(total(f), (0, 1, 2))(*given) for f in (ours, plain)]
    assert_close(*slopes)


def test_weights_without_batch_get_the_sum_of_gradients():
    w, x, y = arrays(4)
    slopes = [
        jax.grad(lambda w, f=f: jnp.sum(jnp.cos(f(w, x, y))))(w[0])
        for f in (ours, plain)
    ]
    assert_close(*slopes)
