"""Heads: blocks of irreps and back, symmetry, padding, overlaps and a Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from e3nn_jax import clebsch_gordan

from benchmarks import overlaps
from common.nn.features import harmonics, irreps_of
from common.nn.heads import HEADS, make_head
from common.nn.heads.blocks import block_irreps, from_blocks, to_blocks, to_matrix
from common.so3.irreps import SCALAR, Irrep, format_irreps
from common.so3.wigner import wigner_matrices
from tests.common.nn.random_inputs import (
    applied,
    assert_close,
    features,
    normal,
    rotate,
    rotation,
)

DEGREES = (0, 1, 2)
NODES, PAIRS = "2x0e+2x1o", "2x0e+2x1o+2x1e+2x2e"
MASK = jnp.arange(4) < 3


def block_rotation(turn, degrees):
    """Returns the matrix by which the orbitals of one node turn."""
    own = wigner_matrices(turn, max(degrees))
    return jax.scipy.linalg.block_diag(*(own[l] for l in degrees))


def test_blocks_and_irreps_are_one_another():
    blocks = normal(2, 9, 9)
    x = from_blocks(blocks, DEGREES)
    assert irreps_of(x) == block_irreps(DEGREES)
    np.testing.assert_allclose(to_blocks(x, DEGREES), blocks, atol=1e-6)
    squares = sum(jnp.sum(part**2) for part in x.values())
    np.testing.assert_allclose(squares, jnp.sum(blocks**2), rtol=1e-5)


def test_a_block_is_the_sum_of_couplings_of_e3nn():
    x = features("1x0e+1x1e+1x2e")
    expected = sum(
        np.einsum("abm,m->ab", clebsch_gordan(1, 1, l), x[Irrep(l, 1)][:, 0])
        * (2 * l + 1) ** 0.5
        for l in range(3)
    )
    np.testing.assert_allclose(to_blocks(x, (1,)), expected, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_blocks_rotate_as_d_b_d_transposed(sign):
    turn = rotation(sign)
    x = features(format_irreps(block_irreps(DEGREES)), 2)
    own = block_rotation(turn, DEGREES)
    expected = own @ to_blocks(x, DEGREES) @ own.T
    np.testing.assert_allclose(to_blocks(rotate(x, turn), DEGREES), expected, atol=2e-5)


def test_even_irreps_have_room_for_every_path():
    assert format_irreps(block_irreps((0, 1), "SO3")) == "2x0e+3x1e+1x2e"


@pytest.fixture(scope="module", params=HEADS)
def head(request):
    """A head with random parameters, and the degrees of its blocks."""
    name = request.param
    fields, degrees = ({"degrees": (0, 1)}, (0, 1)) if name == "blocks" else ({}, (1,))
    x, pairs = features(NODES, 4), features(PAIRS, 4, 4, seed=3)
    return applied(make_head(name, **fields), x, pairs, MASK), degrees


@pytest.mark.parametrize("sign", [1, -1])
def test_heads_turn_with_their_features(head, sign):
    function, degrees = head
    x, pairs, turn = features(NODES, 4), features(PAIRS, 4, 4, seed=3), rotation(sign)
    own = block_rotation(turn, degrees)
    expected = own @ function(x, pairs, MASK) @ own.T
    assert_close(function(rotate(x, turn), rotate(pairs, turn), MASK), expected)


def test_matrices_are_symmetric_and_padding_is_zero(head):
    function, _ = head
    x, pairs = features(NODES, 4), features(PAIRS, 4, 4, seed=3)
    blocks = function(x, pairs, MASK)
    matrix = to_matrix(blocks)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    np.testing.assert_array_equal(blocks[3], 0.0)
    np.testing.assert_array_equal(blocks[:, 3], 0.0)
    other = jax.tree.map(lambda a: a.at[3].set(7.0), x)
    more = jax.tree.map(lambda a: a.at[3].set(7.0).at[:, 3].set(-5.0), pairs)
    np.testing.assert_array_equal(function(other, more, MASK), blocks)


def test_nodes_take_their_blocks_along(head):
    function, _ = head
    order = np.array([2, 0, 1, 3])
    x, pairs = features(NODES, 4), features(PAIRS, 4, 4, seed=3)
    mixed = jax.tree.map(lambda a: a[order], x)
    of_pairs = jax.tree.map(lambda a: a[order][:, order], pairs)
    blocks = function(x, pairs, MASK)
    assert_close(function(mixed, of_pairs, MASK), blocks[order][:, order])


def test_both_derivatives_are_finite_at_zero(head):
    function, _ = head
    zero = jax.tree.map(jnp.zeros_like, (features(NODES, 4), features(PAIRS, 4, 4)))
    total = lambda given: jnp.sum(function(*given, MASK) ** 2)
    slope = lambda given: sum(
        jnp.sum(a**2) for a in jax.tree.leaves(jax.grad(total)(given))
    )
    for leaf in jax.tree.leaves(jax.jit(jax.grad(slope))(zero)):
        assert np.all(np.isfinite(leaf))


def test_a_translation_costs_no_energy():
    x, pairs = features(NODES, 4), features(PAIRS, 4, 4, seed=3)
    function = applied(make_head("hessian"), x, pairs, MASK)
    blocks = np.asarray(function(x, pairs, MASK))
    assert np.abs(blocks).max() > 0.1
    np.testing.assert_allclose(blocks.sum(axis=1), 0.0, atol=1e-5)


def test_the_hessian_of_a_pair_potential_is_reproduced():
    """Radial functions are given; the head is to put them in their places."""
    x, head = normal(4, 3), make_head("hessian")
    # The sum of r^4 over pairs has no singularity: first slope 4 r^3, second 12 r^2.
    energy = lambda x: 0.5 * jnp.sum(jnp.sum((x[:, None] - x) ** 2, axis=-1) ** 2)
    wanted = jnp.transpose(jax.jit(jax.hessian(energy))(x), (0, 2, 1, 3))
    squared = jnp.sum((x[:, None] - x) ** 2, axis=-1)[..., None, None]
    rows = harmonics(x[:, None] - x, 2)
    pairs = {SCALAR: squared, Irrep(2, 1): rows[Irrep(2, 1)] * squared}
    nodes = {SCALAR: jnp.zeros((4, 1, 1))}
    # B = -(8 r r^T + 4 r^2) = -(20 / 3) r^2 - 8 (r r^T - r^2 / 3), in components: the
    # orthonormal matrices are 1 / sqrt(3), and sqrt(2 / 15) of the harmonics.
    weights = {
        "kernel_0": -20.0 / 3.0 * 3.0**0.5,
        "kernel_2": -8.0 * (2.0 / 15.0) ** 0.5,
    }
    full = jax.eval_shape(head.init, jax.random.key(0), nodes, pairs, jnp.ones(4, bool))
    parameters = jax.tree.map(lambda a: jnp.zeros(a.shape), full)
    own = parameters["params"]["BlockHead_0"]["pairs"]
    for name, value in weights.items():
        own[name] = jnp.full((1, 1), value)
    found = jax.jit(head.apply)(parameters, nodes, pairs, jnp.ones(4, bool))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_overlaps_of_gaussians_are_reproduced():
    figures = overlaps.heads()
    assert figures["formaldehyde, exact radial functions"] < 1e-6
    assert figures["rotated: S - D S Dᵀ"] < 1e-6
    assert figures["unseen clouds, 24 Gaussians fitted"] < 1e-3


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="expected one of blocks, hessian"):
        make_head("orbitals")
