"""One test over the table of blocks: symmetry, padding, receivers, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import BLOCKS, make_block
from common.nn.features import irreps_of, take
from common.nn.graph import select_receivers
from common.nn.products import PRODUCTS
from common.so3.irreps import format_irreps, parse
from tests.common.nn.random_inputs import (
    applied,
    assert_close,
    dense_graph,
    features,
    normal,
    positions,
    rotate,
    rotation,
)

IRREPS = {"O3": "4x0e+4x1o+4x2e", "SO3": "4x0e+4x1e+4x2e"}
names = pytest.mark.parametrize("name", BLOCKS)
CONDITION = jax.nn.one_hot(jnp.array([0, 1, 1, 2, 0]), 3)


@functools.cache
def block(name, group="O3", product="", conditioned=False):
    """A block with random parameters, as a function of features, graph, condition."""
    fields = {"product": product} if product else {}
    module = make_block(name, irreps=IRREPS[group], avg_num_neighbors=3.0, **fields)
    x, graph = features(IRREPS[group], 5), dense_graph(positions(5), 2, group)
    condition = CONDITION if conditioned else None
    return applied(module, x, graph, condition)


@names
@pytest.mark.parametrize(("group", "sign"), [("O3", 1), ("O3", -1), ("SO3", 1)])
def test_blocks_rotate_and_reflect_as_declared(name, group, sign):
    x, where, turn = features(IRREPS[group], 5), positions(5), rotation(sign)
    run = block(name, group)
    turned = run(rotate(x, turn), dense_graph(where @ turn.T, 2, group))
    assert_close(turned, rotate(run(x, dense_graph(where, 2, group)), turn), 5e-5)


def test_special_rotations_alone_tell_left_from_right():
    x, where, mirror = features(IRREPS["SO3"], 5), positions(5), rotation(-1)
    run = block("equijump", "SO3")
    flip = lambda x: {i: a * (-1) ** i.degree for i, a in rotate(x, -mirror).items()}
    mirrored = run(flip(x), dense_graph(where @ mirror.T, 2, "SO3"))
    plain = flip(run(x, dense_graph(where, 2, "SO3")))
    worst = max(float(jnp.max(jnp.abs(mirrored[i] - plain[i]))) for i in plain)
    assert worst > 0.05


@names
def test_blocks_do_not_see_padding(name):
    x, where, run = features(IRREPS["O3"], 5), positions(5), block(name)
    pad = lambda a: jnp.concatenate([a, jnp.full((2, *a.shape[1:]), 0.7)])
    graph = dense_graph(pad(where), mask=jnp.arange(7) < 5)
    padded = run(jax.tree.map(pad, x), graph)
    expected = run(x, dense_graph(where))
    assert_close({i: a[:5] for i, a in padded.items()}, expected)


@names
def test_selected_receivers_get_what_they_would_among_all(name):
    x, graph, run = features(IRREPS["O3"], 5), dense_graph(positions(5)), block(name)
    rows = jnp.array([4, 1])
    assert_close(run(x, select_receivers(graph, rows)), take(run(x, graph), rows))


@names
def test_a_condition_changes_the_receivers_it_belongs_to(name):
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    run = block(name, conditioned=True)
    before = run(x, graph, CONDITION)
    after = run(x, graph, CONDITION.at[2].set(jnp.array([0.0, 0.0, 1.0])))
    moved = sum(jnp.sum(jnp.abs(after[i] - before[i]), (1, 2)) for i in before)
    np.testing.assert_array_equal(moved > 1e-4, [False, False, True, False, False])


@names
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_serves_every_block(name, product):
    module = make_block(name, irreps=IRREPS["O3"], product=product)
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    shapes = jax.eval_shape(module.init_with_output, jax.random.key(0), x, graph)[0]
    assert {i: a.shape for i, a in shapes.items()} == {i: a.shape for i, a in x.items()}


@names
def test_gradients_are_finite_for_lone_coincident_and_absent_atoms(name):
    x, run = features(IRREPS["O3"], 5), block(name)
    energy = lambda where, mask: sum(
        jnp.sum(jnp.sin(a)) for a in run(x, dense_graph(where, mask=mask)).values()
    )
    where = positions(5).at[1].set(positions(5)[0]).at[4].set(100.0)
    for mask in (jnp.ones(5, bool), jnp.zeros(5, bool)):
        slope = jax.jit(jax.grad(energy))(where, mask)
        assert np.all(np.isfinite(slope))
        np.testing.assert_array_equal(slope[4], 0.0)


@names
def test_forces_can_be_learnt_from(name):
    x, run, where = features(IRREPS["O3"], 5), block(name), positions(5)
    energy = lambda where: sum(
        jnp.sum(jnp.sin(a)) for a in run(x, dense_graph(where)).values()
    )
    loss = jax.jit(lambda where: jnp.sum(jnp.square(jax.grad(energy)(where))))
    slope = jax.jit(jax.grad(loss))(where)
    direction = normal(*where.shape, seed=5) / 4.0
    step = 4e-3
    numeric = (loss(where + step * direction) - loss(where - step * direction)) / (
        2 * step
    )
    expected = float(jnp.vdot(slope, direction))
    np.testing.assert_allclose(numeric, expected, rtol=0.05, atol=0.05 * abs(expected))


@pytest.mark.parametrize("name", ["nequip", "e3schnet"])
def test_published_widths_can_be_held(name):
    irreps = "8x0e+4x1o+2x2e+1x3o"
    module = make_block(name, irreps=irreps)
    x, graph = features("8x0e", 5), dense_graph(positions(5), 3)
    turn, run = rotation(-1), applied(module, x, graph)
    assert irreps_of(run(x, graph)) == parse(irreps)
    turned = run(x, dense_graph(positions(5) @ turn.T, 3))
    assert_close(turned, rotate(run(x, graph), turn))


def test_a_fresh_block_with_zeros_returns_its_receivers():
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    module = make_block("symphony", irreps=IRREPS["O3"], zero_init=True)
    assert_close(module.init_with_output(jax.random.key(0), x, graph)[0], x, atol=0.0)


def test_unknown_rows_are_refused():
    with pytest.raises(ValueError, match="block: expected one of symphony"):
        make_block("transformer")
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    module = make_block("symphony", irreps=format_irreps(irreps_of(x)), product="cross")
    with pytest.raises(ValueError, match="product: expected one of scalar"):
        module.init(jax.random.key(0), x, graph)
