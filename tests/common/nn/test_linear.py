"""The linear map against e3nn-jax, norms and gates: symmetry and edges."""

import functools

import e3nn_jax as e3nn
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.features import from_irreps_array, irreps_of, to_irreps_array
from common.nn.gate import gate
from common.nn.linear import Linear
from common.nn.mlp import MLP
from common.nn.norm import RMSNorm
from common.so3.irreps import SCALAR, VECTOR, Irrep, format_irreps
from tests.common.nn.random_inputs import (
    applied,
    assert_close,
    features,
    rotate,
    rotation,
)

IRREPS = "6x0e+6x1o+6x2e"
BOTH = "4x0e+3x0o+2x1e+5x1o"


def test_linear_equals_e3nn_in_value_and_gradient():
    x, module = features(IRREPS, 5), Linear(4)
    parameters = module.init(jax.random.key(1), x)
    peer = e3nn.flax.Linear("4x0e+4x1o+4x2e")
    # e3nn divides by the root of the fan-in, which the core's initialiser does.
    renamed = {
        f"w[{l},{l}] 6x{ir},4x{ir}": parameters["params"][f"kernel_{l}"] * 6**0.5
        for l, ir in enumerate(("0e", "1o", "2e"))
    }
    ours = jax.jit(functools.partial(module.apply, parameters))
    theirs = jax.jit(
        lambda x: from_irreps_array(peer.apply({"params": renamed}, to_irreps_array(x)))
    )
    assert_close(ours(x), theirs(x))
    loss = lambda f: lambda x: sum(jnp.sum(jnp.cos(a)) for a in f(x).values())
    assert_close(jax.grad(loss(ours))(x), jax.grad(loss(theirs))(x))


def test_linear_gives_each_irrep_its_own_width():
    x = features("3x0e+2x1o", 5)
    out = applied(Linear("128x0e+64x1o+32x2e"), x)(x)
    assert format_irreps(irreps_of(out)) == "128x0e+64x1o+32x2e"
    np.testing.assert_array_equal(out[Irrep(2, 1)], 0.0)


def test_linear_drops_what_the_output_lacks():
    x = features(IRREPS, 5)
    assert set(applied(Linear("4x0e"), x)(x)) == {SCALAR}


def test_linear_tells_parities_apart_by_name():
    x = features(BOTH, 5)
    names = Linear(2).init(jax.random.key(0), x)["params"]
    assert sorted(names) == ["kernel_0e", "kernel_0o", "kernel_1e", "kernel_1o"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("module", [Linear(4), RMSNorm()])
@pytest.mark.parametrize("irreps", [IRREPS, BOTH])
def test_layers_rotate_and_reflect_with_the_features(module, sign, irreps):
    x, turn = features(irreps, 5), rotation(sign)
    function = applied(module, x)
    assert_close(function(rotate(x, turn)), rotate(function(x), turn))


def test_norm_makes_the_mean_square_one():
    x = jax.tree.map(lambda a: 7.0 * a, features(BOTH, 5))
    out = RMSNorm().apply(RMSNorm().init(jax.random.key(0), x), x)
    squares = jnp.stack([jnp.mean(a**2, axis=(1, 2)) for a in out.values()])
    np.testing.assert_allclose(jnp.mean(squares, axis=0), 1.0, rtol=1e-5)


def test_norm_of_an_empty_node_is_zero_with_finite_gradient():
    x = jax.tree.map(lambda a: a.at[1].set(0.0), features(IRREPS, 5))
    module = RMSNorm()
    parameters = module.init(jax.random.key(0), x)
    total = lambda x: sum(jnp.sum(a) for a in module.apply(parameters, x).values())
    for out in module.apply(parameters, x).values():
        np.testing.assert_array_equal(out[1], 0.0)
    for gradient in jax.grad(total)(x).values():
        assert np.all(np.isfinite(gradient))


def test_gate_acts_on_scalars_by_silu_and_scales_the_rest():
    x = features("2x0e+3x1o", 5)
    gates = {VECTOR: jax.random.normal(jax.random.key(6), (5, 1, 3))}
    out = gate(x, gates)
    np.testing.assert_allclose(out[SCALAR], nn.silu(x[SCALAR]), atol=1e-6)
    expected = nn.sigmoid(gates[VECTOR]) * x[VECTOR]
    np.testing.assert_allclose(out[VECTOR], expected, atol=1e-6)


def test_mlp_without_bias_keeps_zero():
    out = applied(MLP((8, 3), use_bias=False), jnp.ones((2, 4)))(jnp.zeros((2, 4)))
    np.testing.assert_array_equal(out, jnp.zeros((2, 3)))
