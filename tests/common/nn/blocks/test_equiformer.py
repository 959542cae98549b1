"""The attention blocks: sums, the cutoff, and graphs with nothing to attend to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.attention import AttentionLogits, attention_weights
from common.nn.blocks import BLOCKS, make_block
from common.nn.blocks.equiformer_v1 import MLPAttention
from common.nn.blocks.frame_attention import FrameAttention
from tests.common.nn.random_inputs import (
    CUTOFF,
    applied,
    dense_graph,
    features,
    positions,
    randomised,
    rotate,
    rotation,
)

IRREPS = "4x0e+4x1o"
FIELDS = {
    "equiformer_v1": {},
    "equiformer_v2": {"resolution": 12},
    "equiformer_v3": {},
}
names = pytest.mark.parametrize("name", FIELDS)
graph_of = functools.partial(dense_graph, max_degree=1)


@functools.cache
def block(name, smooth=True):
    """A block with two heads and random parameters."""
    fields = {"num_heads": 2, "num_logit_channels": 4, **FIELDS[name]}
    if name != "equiformer_v3":
        fields["smooth"] = smooth
    module = make_block(name, irreps=IRREPS, **fields)
    return applied(module, features(IRREPS, 4), graph_of(positions(4)))


@functools.cache
def logits_of(name):
    """The logits of attention with two heads and random parameters."""
    if name == "equiformer_v1":
        module = MLPAttention(IRREPS, "clebsch_gordan", 2, 4, smooth=True)
    else:
        resolution = FIELDS[name].get("resolution", 0)
        module = FrameAttention(2, 4, 2, resolution, smooth=True)

    def rows(x, graph):
        near = {i: jnp.broadcast_to(a, (4, *a.shape)) for i, a in x.items()}
        where = graph.harmonics if name == "equiformer_v1" else graph.vectors
        return near, x, where, graph.feats, graph.envelope

    given = rows(features(IRREPS, 4), graph_of(positions(4)))
    parameters = randomised(jax.jit(module.init)(jax.random.key(1), *given))
    keep = lambda found, _: isinstance(found, AttentionLogits)

    @jax.jit
    def run(x, graph):
        _, state = module.apply(parameters, *rows(x, graph), capture_intermediates=keep)
        return jax.tree.leaves(state["intermediates"])[0]

    return run


@names
def test_attention_is_invariant_and_its_rows_sum_to_one(name):
    x, where, turn = features(IRREPS, 4), positions(4), rotation()
    graph = graph_of(where)
    logits = logits_of(name)(x, graph)
    turned = logits_of(name)(rotate(x, turn), graph_of(where @ turn.T))
    # Where there is no edge a frame has no direction, and a logit no meaning.
    exists = np.asarray(graph.envelope) > 0.0
    np.testing.assert_allclose(turned[exists], logits[exists], atol=5e-5)
    weights = attention_weights(logits, graph.envelope, smooth=False)
    np.testing.assert_allclose(jnp.sum(weights, axis=1), 1.0, rtol=1e-5)
    assert float(jnp.std(logits)) > 0.01


@pytest.mark.parametrize(
    ("name", "smooth"),
    [(name, True) for name in FIELDS]
    + [("equiformer_v1", False), ("equiformer_v2", False)],
)
def test_only_smooth_attention_lets_a_neighbour_go_without_a_jump(name, smooth):
    x, run = features(IRREPS, 3), block(name) if smooth else block(name, smooth=False)

    @jax.jit
    @jax.value_and_grad
    def energy(distance):
        where = jnp.array([[0.0, 0.0, 0.0], [0.0, -1.5, 0.5], [0.6, 0.8, 0.0]])
        out = run(x, graph_of(where.at[2].multiply(distance)))
        return sum(jnp.sum(jnp.sin(part[0])) for part in out.values())

    before, after = energy(CUTOFF * (1 - 3e-4)), energy(CUTOFF * (1 + 3e-4))
    jumps = [abs(float(a - b)) for a, b in zip(before, after, strict=True)]
    if smooth:
        assert jumps[0] < 1e-5
        assert jumps[1] < 1e-3
    else:
        assert jumps[0] > 1e-2


@names
def test_heads_need_not_divide_the_channels(name):
    x, graph = features(IRREPS, 4), graph_of(positions(4))
    module = make_block(name, irreps=IRREPS, num_heads=3)
    out, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), x, graph)
    assert {i: a.shape for i, a in out.items()} == {i: a.shape for i, a in x.items()}


def test_published_widths_belong_to_version_1_alone():
    x, graph = features("8x0e+4x1o", 4), graph_of(positions(4))
    module = make_block("equiformer_v1", irreps="8x0e+4x1o")
    out, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), x, graph)
    assert {i: a.shape for i, a in out.items()} == {i: a.shape for i, a in x.items()}
    for name in ("equiformer_v2", "equiformer_v3"):
        module = make_block(name, irreps="8x0e+4x1o")
        with pytest.raises(ValueError, match="all with one number of channels"):
            jax.eval_shape(module.init, jax.random.key(0), x, graph)
        assert not BLOCKS[name].module.uses_product
