"""Contractions: symmetry, scale, and the grid against all polynomials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.nn.contraction import CONTRACTIONS, Contraction
from common.so3.irreps import harmonic_irreps, parse
from tests.common.nn.random_inputs import (
    assert_close,
    features,
    normal,
    rotate,
    rotation,
)

NATURAL, SPECIAL = "2x0e+2x1o+2x2e", "2x0e+2x1e+2x2e"
BOTH = "2x0e+2x0o+2x1e+2x1o"
names = pytest.mark.parametrize("name", CONTRACTIONS)


def spec_of(irreps, order=3):
    return Contraction(tuple(parse(irreps)), tuple(parse(irreps)), order)


@functools.partial(jax.jit, static_argnums=(0, 3))
def contract(name, x, weights, spec):
    return CONTRACTIONS[name].contract(x, weights, spec)


@pytest.mark.parametrize(
    ("name", "irreps"),
    [("symmetric", NATURAL), ("symmetric", BOTH), ("grid", NATURAL), ("grid", SPECIAL)],
)
def test_contractions_rotate_and_reflect(name, irreps):
    x, spec = features(irreps, 3), spec_of(irreps)
    weights = normal(len(CONTRACTIONS[name].paths(spec)), 2)
    found = contract(name, x, weights, spec)
    assert list(found) == list(spec.out)
    for sign in (1, -1) if irreps != SPECIAL else (1,):
        turned = contract(name, rotate(x, rotation(sign)), weights, spec)
        assert_close(turned, rotate(found, rotation(sign)))


@names
def test_every_path_has_unit_second_moment(name):
    x, spec = features(NATURAL.replace("2x", "400x"), 40), spec_of(NATURAL)
    paths = CONTRACTIONS[name].paths(spec)
    for index in (0, *range(3, len(paths))):
        weights = jnp.zeros((len(paths), 400)).at[index].set(1.0)
        part = contract(name, x, weights, spec)[paths[index]]
        np.testing.assert_allclose(jnp.mean(jnp.square(part)), 1.0, rtol=0.15)


def test_the_grid_makes_some_of_all_polynomials():
    x, spec = features(SPECIAL.replace("2x", "1x"), 60), spec_of(SPECIAL)
    counts = {name: len(form.paths(spec)) for name, form in CONTRACTIONS.items()}
    assert counts["grid"] == 9  # One for each order and degree.
    assert counts["symmetric"] > 15
    rows = {}
    for name, count in counts.items():
        one = lambda w, name=name: contract(name, x, w[:, None], spec)
        found = jax.jit(jax.vmap(one))(jnp.eye(count))
        rows[name] = {i: np.asarray(a).reshape(count, -1) for i, a in found.items()}
    for irrep, ours in rows["grid"].items():
        every = rows["symmetric"][irrep].T
        missing = ours.T - every @ np.linalg.lstsq(every, ours.T, rcond=None)[0]
        np.testing.assert_allclose(missing, 0.0, atol=2e-4)


def test_the_grid_wants_each_degree_once():
    paths = CONTRACTIONS["grid"].paths
    with pytest.raises(ValueError, match="each degree once, with natural parities"):
        paths(spec_of(BOTH))
    odd = harmonic_irreps(1)
    with pytest.raises(ValueError, match="each degree once, with natural parities"):
        paths(Contraction(odd, tuple(parse("1x0e+1x1e")), 2))
