"""One test over the table of blocks: symmetry, order, padding, derivatives, cutoff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.blocks import BLOCKS, Block, make_block
from common.nn.features import irreps_of, take
from common.nn.graph import make_graph, select_receivers
from common.nn.products import MESSAGE_PRODUCTS
from common.so3.irreps import format_irreps, parse
from common.so3.vectors import safe_norm
from tests.common.nn.random_inputs import (
    CUTOFF,
    applied,
    assert_close,
    dense_graph,
    features,
    normal,
    positions,
    rotate,
    rotation,
    sparse_graph,
)

IRREPS = {"O3": "4x0e+4x1o+4x2e", "SO3": "4x0e+4x1e+4x2e"}
LOW = "4x0e+4x1o"  # Of derivatives: with more degrees they mostly compile.
names = pytest.mark.parametrize("name", BLOCKS)
CONDITION = jax.nn.one_hot(jnp.array([0, 1, 1, 2, 0]), 3)


@functools.cache
def bound(name, irreps, max_degree=2, group="O3"):
    """A block with random parameters, as a function of features, graph, condition.

    Parameters are drawn by their shapes: compiling initialisers takes as long again.
    """
    module = make_block(name, irreps=irreps, avg_num_neighbors=3.0)
    x, graph = features(irreps, 5), dense_graph(positions(5), max_degree, group)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, graph, CONDITION)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32)
    return functools.partial(module.apply, jax.tree.map(draw, shapes))


@functools.cache
def block(name, group="O3"):
    return jax.jit(bound(name, IRREPS[group], group=group))


@functools.cache
def derivatives(name):
    """Energy, its slope, the square of that and its slope, of positions.

    A hard cutoff takes the place of the envelope where asked for.
    """
    x, apply = features(LOW, 5), bound(name, LOW, 1)

    def energy(where, mask, is_hard):
        graph = dense_graph(where, 1, mask=mask)
        near = safe_norm(graph.vectors) < CUTOFF
        hard = near & ~jnp.eye(5, dtype=bool)
        graph = graph._replace(envelope=jnp.where(is_hard, hard, graph.envelope))
        out = apply(x, graph, CONDITION)
        return sum(jnp.sum(jnp.sin(part)) for part in out.values())

    def squared(*arguments):
        value, slope = jax.value_and_grad(energy)(*arguments)
        return jnp.sum(jnp.square(slope)), (value, slope)

    both = jax.jit(jax.value_and_grad(squared, has_aux=True))

    def run(where, mask=True, is_hard=False):
        mask = jnp.full(5, True) & mask
        (square, (value, slope)), second = both(where, mask, jnp.asarray(is_hard))
        return value, slope, square, second

    return run


@names
@pytest.mark.parametrize(("group", "sign"), [("O3", 1), ("O3", -1), ("SO3", 1)])
def test_blocks_rotate_and_reflect_as_declared(name, group, sign):
    x, where, turn = features(IRREPS[group], 5), positions(5), rotation(sign)
    run = block(name, group)
    turned = run(rotate(x, turn), dense_graph(where @ turn.T, 2, group), CONDITION)
    expected = rotate(run(x, dense_graph(where, 2, group), CONDITION), turn)
    assert irreps_of(expected) == parse(IRREPS[group])
    assert_close(turned, expected, 5e-5)


def test_special_rotations_alone_tell_left_from_right():
    x, where, mirror = features(IRREPS["SO3"], 5), positions(5), rotation(-1)
    run = block("equijump", "SO3")
    flip = lambda x: {i: a * (-1) ** i.degree for i, a in rotate(x, -mirror).items()}
    mirrored = run(flip(x), dense_graph(where @ mirror.T, 2, "SO3"), CONDITION)
    plain = flip(run(x, dense_graph(where, 2, "SO3"), CONDITION))
    worst = max(float(jnp.max(jnp.abs(mirrored[i] - plain[i]))) for i in plain)
    assert worst > 0.05


@names
def test_blocks_do_not_see_the_order_of_nodes(name):
    x, where, order = (
        features(IRREPS["O3"], 5),
        positions(5),
        jnp.array([3, 0, 4, 1, 2]),
    )
    run = block(name)
    shuffled = run(take(x, order), dense_graph(where[order]), CONDITION[order])
    assert_close(shuffled, take(run(x, dense_graph(where), CONDITION), order))


@names
def test_selected_receivers_among_padding_get_what_they_would_among_all(name):
    x, where, run = features(IRREPS["O3"], 5), positions(5), block(name)
    pad = lambda a: jnp.concatenate([a, jnp.full((2, *a.shape[1:]), 0.7)])
    graph, rows = dense_graph(pad(where), mask=jnp.arange(7) < 5), jnp.array([4, 1])
    found = run(jax.tree.map(pad, x), select_receivers(graph, rows), CONDITION[rows])
    assert_close(found, take(run(x, dense_graph(where), CONDITION), rows))


@names
def test_tables_of_senders_change_nothing(name):
    x, run = features(IRREPS["O3"], 5), block(name)
    found = run(x, sparse_graph(positions(5)), CONDITION)
    assert_close(found, run(x, dense_graph(positions(5)), CONDITION))


@names
def test_a_condition_changes_the_receivers_it_belongs_to(name):
    x, graph, run = features(IRREPS["O3"], 5), dense_graph(positions(5)), block(name)
    before = run(x, graph, CONDITION)
    after = run(x, graph, CONDITION.at[2].set(jnp.array([0.0, 0.0, 1.0])))
    moved = sum(jnp.sum(jnp.abs(after[i] - before[i]), (1, 2)) for i in before)
    np.testing.assert_array_equal(moved > 1e-4, [False, False, True, False, False])


@names
@pytest.mark.parametrize("product", MESSAGE_PRODUCTS)
def test_every_declared_product_serves_every_block(name, product):
    fields = {"irreps": IRREPS["O3"], "product": product}
    if product not in (BLOCKS[name].products or MESSAGE_PRODUCTS):
        with pytest.raises(ValueError, match="product: expected one of"):
            make_block(name, **fields)
        return
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    run = make_block(name, **fields).init_with_output
    shapes = jax.eval_shape(run, jax.random.key(0), x, graph)[0]
    assert {i: a.shape for i, a in shapes.items()} == {i: a.shape for i, a in x.items()}


LINES = {
    "coincident": positions(5).at[1].set(positions(5)[0]).at[4].set(100.0),
    "along the pole": jnp.array([[0.0], [1.0], [2.0], [-1.0], [100.0]]) * jnp.eye(3)[1],
    "in one line": jnp.array([[0.0], [1.0], [1.0], [-1.0], [100.0]])
    * jnp.array([0.3, 0.5, -0.7]),
}


@names
def test_two_derivatives_are_finite_for_lone_coincident_and_absent_atoms(name):
    for case, where in LINES.items():
        for mask in (True, False):
            found = derivatives(name)(where, mask)
            assert all(np.all(np.isfinite(part)) for part in found), case
            np.testing.assert_array_equal(found[1][4], 0.0, case)
            np.testing.assert_array_equal(found[3][4], 0.0, case)


@names
def test_nodes_without_any_sender_are_served(name):
    x, apply, table = features(LOW, 3), bound(name, LOW, 1), jnp.zeros((3, 0), int)
    feats, envelope = jnp.ones((3, 0, 6)), jnp.ones((3, 0))
    graph = make_graph(jnp.ones((3, 0, 3)), feats, envelope, 1, senders=table)
    energy = lambda x: sum(
        jnp.sum(jnp.sin(part)) for part in apply(x, graph, CONDITION[:3]).values()
    )
    found = jax.jit(jax.value_and_grad(energy))(x)
    assert all(np.all(np.isfinite(part)) for part in jax.tree.leaves(found))


@names
def test_forces_can_be_learnt_from(name):
    run, where, step = derivatives(name), positions(5), 4e-3
    direction = normal(*where.shape, seed=5) / 4.0
    *_, slope = run(where)
    ends = [run(where + sign * step * direction)[2] for sign in (1, -1)]
    numeric = (ends[0] - ends[1]) / (2 * step)
    expected = float(jnp.vdot(slope, direction))
    np.testing.assert_allclose(numeric, expected, rtol=0.05, atol=0.05 * abs(expected))


@pytest.mark.parametrize("name", [n for n, row in BLOCKS.items() if row.is_smooth])
def test_neighbours_cross_the_cutoff_without_a_jump(name):
    run, where, margin = derivatives(name), 0.4 * positions(5), 1e-3
    away = jnp.array([0.6, -0.8, 0.0])
    away *= jnp.where(jnp.vdot(jnp.mean(where[1:4], 0) - where[0], away) > 0, -1.0, 1.0)
    at = lambda distance: where.at[4].set(where[0] + distance * away)
    inside, outside = run(at(CUTOFF - margin)), run(at(CUTOFF + margin))
    np.testing.assert_array_equal(outside[1][4], 0.0)
    np.testing.assert_allclose(inside[0], outside[0], atol=1e-4)
    # The same with a hard cutoff, which is felt.
    hard = run(at(CUTOFF - margin), is_hard=True)
    norm = jnp.linalg.norm
    assert norm(hard[1][4]) > 1e-3
    assert norm(inside[1][4]) < 0.02 * norm(hard[1][4])


@pytest.mark.parametrize("name", ["nequip", "e3schnet"])
def test_published_widths_can_be_held(name):
    irreps = "8x0e+4x1o+2x2e+1x3o"
    module = make_block(name, irreps=irreps)
    x, graph = features("8x0e", 5), dense_graph(positions(5), 3)
    turn, run = rotation(-1), applied(module, x, graph)
    assert irreps_of(run(x, graph)) == parse(irreps)
    turned = run(x, dense_graph(positions(5) @ turn.T, 3))
    assert_close(turned, rotate(run(x, graph), turn))


@pytest.mark.parametrize("name", ["tfn", "allegro", "mace"])
def test_irreps_may_have_channels_of_their_own(name):
    irreps = "8x0e+4x1o+2x2e+1x3o"
    module = make_block(name, irreps=irreps)
    x, graph = features("8x0e", 5), dense_graph(positions(5), 3)
    shapes = jax.eval_shape(module.init_with_output, jax.random.key(0), x, graph)[0]
    assert {i: part.shape[-1] for i, part in shapes.items()} == parse(irreps)


def test_a_fresh_block_with_zeros_returns_its_receivers():
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    module = make_block("symphony", irreps=IRREPS["O3"], zero_init=True)
    assert_close(module.init_with_output(jax.random.key(0), x, graph)[0], x, atol=0.0)


def test_a_row_may_name_the_products_that_serve_it(monkeypatch):
    row = Block(BLOCKS["symphony"].module, products=("so2",))
    monkeypatch.setitem(BLOCKS, "framed", row)
    assert make_block("framed", irreps=IRREPS["O3"], product="so2").product == "so2"
    with pytest.raises(ValueError, match="expected one of so2 for the block framed"):
        make_block("framed", irreps=IRREPS["O3"], product="scalar")


def test_unknown_rows_are_refused():
    with pytest.raises(ValueError, match="block: expected one of symphony"):
        make_block("transformer")
    x, graph = features(IRREPS["O3"], 5), dense_graph(positions(5))
    module = make_block("symphony", irreps=format_irreps(irreps_of(x)), product="cross")
    with pytest.raises(ValueError, match="product: expected one of scalar"):
        module.init(jax.random.key(0), x, graph)
