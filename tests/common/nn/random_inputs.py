"""Random features and graphs, shared by the tests of layers, products and blocks.

Arrays are drawn with NumPy and functions are compiled whole: many small programs would
take most of the time of the tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from common.nn import features as ft
from common.nn.graph import make_graph
from common.nn.radial import bessel_basis, polynomial_envelope
from common.so3.irreps import parse
from common.so3.vectors import safe_norm

CUTOFF = 4.0

rotate = jax.jit(ft.rotate)
harmonics = jax.jit(ft.harmonics, static_argnums=(1, 2))


def normal(*shape, seed=0):
    """Returns standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def features(irreps, *batch, seed=0):
    """Returns standard normal features of irreps like `"4x0e+2x1o"`."""
    return {
        irrep: normal(*batch, irrep.dim, count, seed=seed + 10 * place)
        for place, (irrep, count) in enumerate(parse(irreps).items())
    }


def positions(num_nodes, seed=0):
    return normal(num_nodes, 3, seed=100 + seed)


@functools.partial(jax.jit, static_argnums=(1, 2))
def dense_graph(where, max_degree=2, group="O3", mask=None):
    """Returns the graph of all pairs of positions, with 6 Bessel functions."""
    vectors = where[:, None] - where[None]
    distances = safe_norm(vectors)
    real = ~jnp.eye(len(where), dtype=bool)
    real = real if mask is None else real & mask[:, None] & mask
    envelope = polynomial_envelope(distances, CUTOFF) * real
    basis = bessel_basis(distances, 6, CUTOFF)
    return make_graph(vectors, basis, envelope, max_degree, group)


@functools.partial(jax.jit, static_argnums=(1, 2))
def sparse_graph(where, max_degree=2, group="O3"):
    """Returns the same graph as a table of the other nodes."""
    count = len(where)
    table = np.array([[j for j in range(count) if j != i] for i in range(count)])
    senders = jnp.asarray(table)
    vectors = where[:, None] - where[senders]
    distances = safe_norm(vectors)
    envelope = polynomial_envelope(distances, CUTOFF)
    basis = bessel_basis(distances, 6, CUTOFF)
    return make_graph(vectors, basis, envelope, max_degree, group, senders)


def rotation(sign=1, seed=9):
    """Returns a random rotation, times an inversion if the sign is -1."""
    turn = Rotation.random(random_state=seed).as_matrix()
    return jnp.asarray(sign * turn, jnp.float32)


def randomised(parameters, seed=1):
    """Adds noise to every parameter: constants at initialisation hide faults."""
    rng = np.random.default_rng(seed)
    noise = lambda a: 0.3 * rng.normal(size=a.shape).astype(np.float32)
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a) + noise(a)), parameters)


def applied(module, *arguments):
    """Returns a module with random parameters, compiled."""
    parameters = randomised(jax.jit(module.init)(jax.random.key(1), *arguments))
    return jax.jit(functools.partial(module.apply, parameters))


def assert_close(x, y, atol=2e-5):
    """Asserts that two trees are equal to a tolerance, relative to their size."""
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        scale = max(1.0, float(np.abs(b).max(initial=0.0)))
        np.testing.assert_allclose(a / scale, b / scale, atol=atol)
