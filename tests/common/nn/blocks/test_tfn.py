"""Tensor Field Networks tell tetrominoes apart, in any orientation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from common.nn.blocks import make_block
from common.nn.features import from_scalars, scalars_of
from common.nn.norm import RMSNorm
from tests.common.nn.random_inputs import dense_graph

STEPS = {  # Two hands, then square, line, corner, L, T and zigzag.
    "right": "001 100 110",
    "left": "001 100 1-0",
    "square": "100 010 110",
    "line": "001 002 003",
    "corner": "001 010 100",
    "L": "001 002 012",
    "T": "001 002 011",
    "zigzag": "100 110 210",
}
DIGITS = {"0": 0, "1": 1, "2": 2, "3": 3, "-": -1}
CUBES = np.array(
    [[[0, 0, 0], *([DIGITS[c] for c in cube] for cube in steps.split())]
     for steps in STEPS.values()], dtype=np.float32
)  # fmt: skip
IRREPS = {"O3": "8x0e+8x1o", "SO3": "8x0e+8x1e"}


class Classifier(nn.Module):
    """Three layers and a mean over the cubes."""

    group: str

    @nn.compact
    def __call__(self, where):
        graph, x = dense_graph(where, 1, self.group), from_scalars(jnp.ones((4, 1)))
        for _ in range(3):
            block = make_block("tfn", irreps=IRREPS[self.group], avg_num_neighbors=3.0)
            x = RMSNorm()(block(x, graph))
        return nn.Dense(len(CUBES))(jnp.mean(scalars_of(x), axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(("group", "tells_hands"), [("SO3", True), ("O3", False)])
def test_one_orientation_teaches_all(group, tells_hands):
    model, optimiser = Classifier(group), optax.adam(1e-2)
    every, labels = jax.vmap(model.apply, (None, 0)), jnp.arange(len(CUBES))
    cubes = jnp.asarray(CUBES)

    @jax.jit
    def train(key):
        loss = lambda parameters: jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                every(parameters, cubes), labels
            )
        )

        def step(_, state):
            parameters, moments = state
            slope = jax.grad(loss)(parameters)
            updates, moments = optimiser.update(slope, moments)
            return optax.apply_updates(parameters, updates), moments

        parameters = model.init(key, cubes[0])
        start = parameters, optimiser.init(parameters)
        return jax.lax.fori_loop(0, 150, step, start)[0]

    parameters, predict = train(jax.random.key(0)), jax.jit(every)
    for turn in Rotation.random(4, random_state=0).as_matrix():
        turned = jnp.asarray(CUBES @ turn.T + 1.0, jnp.float32)
        logits = predict(parameters, turned)
        is_right = jnp.argmax(logits, axis=-1) == labels
        assert np.all(is_right[2:])
        if tells_hands:
            assert np.all(is_right[:2])
        else:  # The same for both: one of two is right.
            np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)
