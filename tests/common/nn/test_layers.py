"""Equal layers in one loop give what they give one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.layers import scan_layers

ROWS = jax.random.normal(jax.random.key(2), (4, 3, 5))


class Stack(nn.Module):
    """Dense layers; each adds a row of its own and returns what it got."""

    widths: tuple[int, ...] = (5, 5, 5, 5)
    in_loop: bool = True

    @nn.compact
    def __call__(self, x):
        layers = [
            nn.Dense(width, name=f"layer_{i}") for i, width in enumerate(self.widths)
        ]
        step = lambda layer, x, row: (jnp.sin(layer(x) + row), x)
        if self.in_loop:
            return scan_layers(step, layers, x, ROWS[: len(layers)])
        seen = []
        for layer, row in zip(layers, ROWS, strict=False):
            seen.append(x)
            x = jnp.sin(layer(x) + row)
        return x, jnp.stack(seen)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (3, 5))


@pytest.mark.parametrize("widths", [(5, 5, 5, 5), (5, 5)])
def test_a_loop_gives_values_and_gradients_of_single_layers(x, widths):
    loop, single = Stack(widths), Stack(widths, in_loop=False)
    params = loop.init(jax.random.key(1), x)
    assert jax.tree.structure(params) == jax.tree.structure(
        single.init(jax.random.key(1), x)
    )
    total = lambda model: lambda p: sum(jnp.sum(y**2) for y in model.apply(p, x))
    values = [jax.value_and_grad(total(model))(params) for model in (loop, single)]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *values
    )


@pytest.mark.parametrize(
    ("widths", "loops"), [((5, 5, 5), 1), ((5, 5), 0), ((5, 5, 5, 1), 0)]
)
def test_only_three_and_more_equal_layers_go_in_a_loop(x, widths, loops):
    model = Stack(widths) if len(set(widths)) == 1 else Mixed(widths)
    params = model.init(jax.random.key(1), x)
    found = str(jax.make_jaxpr(model.apply)(params, x)).count("scan[")
    assert found == loops


class Mixed(nn.Module):
    """Dense layers of several widths, of which only sizes pass on."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        layers = [
            nn.Dense(width, name=f"layer_{i}") for i, width in enumerate(self.widths)
        ]
        step = lambda layer, total, _: (total + jnp.sum(layer(x)), None)
        return scan_layers(step, layers, jnp.zeros(()))[0]


def test_no_layer_changes_nothing(x):
    carry, results = scan_layers(lambda layer, x, row: (x, x), [], x)
    assert results is None
    np.testing.assert_array_equal(carry, x)
