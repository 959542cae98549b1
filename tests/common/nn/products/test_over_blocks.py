"""Sums over blocks of edges, and their derivatives, against all edges at once."""

import functools

import jax
import jax.numpy as jnp
import pytest

from common.nn.features import harmonics, irreps_of
from common.nn.graph import Graph
from common.nn.products import clebsch_gordan, gaunt, over_blocks
from common.nn.products.spec import RadialWeights, convolve_edges, make_spec
from tests.common.nn.random_inputs import assert_close, features

MOLECULES, NODES, RECEIVERS, SENDERS, WIDTH = 2, 5, 3, 4, 2


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def setting(product):
    x = [features("2x0e+2x1o", NODES, seed=seed) for seed in range(MOLECULES)]
    x = jax.tree.map(lambda *a: jnp.stack(a), *x)
    vectors = drawn(1, MOLECULES, RECEIVERS, SENDERS, 3)
    spec = make_spec(irreps_of(x), irreps_of(harmonics(vectors, 1)), irreps_of(x))
    weights = RadialWeights(
        drawn(2, MOLECULES, RECEIVERS, SENDERS, WIDTH),
        drawn(3, WIDTH, product.num_weights(spec)),
    )
    shape = MOLECULES, RECEIVERS, SENDERS
    senders = jax.random.randint(jax.random.key(4), shape, 0, NODES)
    return (x, vectors, weights), senders, spec


def sums(form, spec, senders, x, vectors, radial, kernel):
    """Sums of a batch of molecules that share a kernel."""
    ones = jnp.ones(senders.shape[1:])

    def one(senders, x, vectors, radial):
        graph = Graph(vectors, harmonics(vectors, 1), ones[..., None], ones, senders)
        return form(x, graph, RadialWeights(radial, kernel), spec)

    return jax.vmap(one)(senders, x, vectors, radial)


def loss(form, spec, senders, *floats):
    return sum(jnp.sum(jnp.cos(a)) for a in sums(form, spec, senders, *floats).values())


def forces(form, spec, senders, *floats):
    return jax.grad(loss, 4)(form, spec, senders, *floats)


def curvature(form, spec, senders, x, vectors, *weights):
    along = lambda v: probed(forces(form, spec, senders, x, v, *weights))
    return jax.grad(along)(vectors)


def probed(values):
    return jnp.vdot(values, drawn(5, *values.shape))


PATHS = clebsch_gordan, clebsch_gordan.convolve
ANY = gaunt, functools.partial(over_blocks.convolve, gaunt.product)
EVERY, KERNEL = (3, 4, 5, 6), (6,)  # What is not asked for is left out.
SOME = 2 * SENDERS  # Two receivers of three: half of the last block is empty.


@pytest.mark.parametrize(
    ("product", "blocked", "of", "arguments", "edges"),
    [(*PATHS, curvature, EVERY, SOME), (*PATHS, forces, KERNEL, SOME),
     (*PATHS, forces, EVERY, over_blocks.EVERY_EDGE), (*ANY, forces, EVERY, SOME),
     (*ANY, loss, KERNEL, SOME)],
    ids=["third", "second", "second, at once", "second, any", "first, any"],
)  # fmt: skip
def test_derivatives_are_those_of_all_edges_at_once(
    product, blocked, of, arguments, edges
):
    (x, vectors, weights), senders, spec = setting(product)

    @functools.partial(jax.jit, static_argnames="form")
    def slope(form, x, vectors, *weights):
        total = lambda *args: probed(of(*args))
        return jax.grad(total, arguments)(form, spec, senders, x, vectors, *weights)

    form = functools.partial(blocked, edges_per_block=edges)
    plain = functools.partial(convolve_edges, product.product)
    found, wanted = (slope(f, x, vectors, *weights) for f in (form, plain))
    assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(wanted)) > 0.1
    assert_close(found, wanted)
