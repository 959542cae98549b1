"""Exact heads of transports for targets that can be solved: mixtures of normals."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from equijump.transport import heads, paths


def draw_noise(key):
    return jax.random.normal(key, (1, 14, 3))


def expected_end(path, t, noise, modes, x_0, x_t):
    """E[x_1 | x_t, x_0], each number on its own.

    `modes` are (weight, mean, std) of the normals, each a number or broadcast.
    """
    at = path(t)
    seen = x_t - at.alpha * x_0
    logits, ends = [], []
    for weight, mean, std in modes:
        variance = (at.beta * std) ** 2 + (at.gamma * noise) ** 2 + 1e-20
        beyond = seen - at.beta * mean
        logits.append(
            jnp.log(weight) - 0.5 * jnp.log(variance) - 0.5 * beyond**2 / variance
        )
        ends.append(mean + at.beta * std**2 / variance * beyond)
    shares = jax.nn.softmax(jnp.stack(logits), axis=0)
    return jnp.sum(shares * jnp.stack(ends), axis=0)


def predict_exactly(transport, noise, modes, x_0):
    """The function that samplers ask, with nothing but the truth in it."""

    def predict(x_t, t):
        at, rate = transport.path(t), heads.rates(transport.path, t)
        end = expected_end(transport.path, t, noise, modes, x_0, x_t)
        gamma = jnp.where(at.gamma > 0.0, at.gamma, 1.0)
        z = (x_t - at.alpha * x_0 - at.beta * end) / (gamma * noise)
        drift = rate.alpha * x_0 + rate.beta * end + rate.gamma * noise * z
        found = {"end": end, "noise": z, "drift": drift}
        return tuple(found[head] for head in transport.HEADS)

    return predict


@cache
def make_jump(transport, modes_of, num_steps, method=""):
    """Returns `(x_0, spread, noise, law=..., seed=0) -> ends`, compiled once.

    Every number is a target of its own, of the modes `modes_of(x_0, law)`; `spread` is
    that of the displacement.
    """
    method = method or transport.METHODS[0]

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None, None, None))
    def run(key, x_0, spread, noise, law):
        scales = paths.Scales(jnp.full((14, 1), spread), jnp.full((14, 1), noise))
        predict = predict_exactly(transport, noise, modes_of(x_0, law), x_0)
        return transport.jump(
            paths.Request(predict, draw_noise, key, x_0, scales, num_steps, method)
        )

    def jump(x_0, spread, noise, law=(), seed=0):
        keys = jax.random.split(jax.random.key(seed), len(x_0))
        x_0, *numbers = jax.tree.map(jnp.float32, (x_0, spread, noise, law))
        return np.asarray(run(keys, x_0, *numbers))

    return jump


def normal(x_0, law):
    """One mode, around `law[0]` times the source, of spread `law[1]`."""
    return [(1.0, law[0] * x_0, law[1])]


def two_basins(x_0, law):
    """Wherever the source is."""
    return [(0.85, 0.8, 0.1), (0.15, -1.0, 0.15)]


def double_well(x_0, law):
    """The end stays on its side of zero with a probability of .9."""
    up = jnp.where(x_0 > 0, 0.9, 0.1)
    return [(up, 1.0, 0.1), (1.0 - up, -1.0, 0.1)]
