"""Symmetric couplings: their number, their span and their scale."""

import numpy as np
import pytest

from common.so3.clebsch_gordan import clebsch_gordan
from common.so3.irreps import Irrep, harmonic_irreps
from common.so3.symmetric import symmetric_couplings

NATURAL = harmonic_irreps(2)
BOTH = (Irrep(0, -1), Irrep(0, 1), Irrep(1, -1), Irrep(1, 1))
SETS = pytest.mark.parametrize("irreps", [NATURAL, harmonic_irreps(2, "SO3"), BOTH])
ORDERS = pytest.mark.parametrize("order", [1, 2, 3])


def values(irreps, order, x):
    """Polynomials of all paths at points x `[num_points, dim]`, by irrep."""
    monomials, tables = symmetric_couplings(irreps, irreps, order)
    products = np.prod(x[:, monomials], axis=-1)
    return {i: np.einsum("pma,na->pnm", table, products) for i, table in tables.items()}


@SETS
@ORDERS
def test_paths_are_as_many_as_characters_say(irreps, order):
    theta = 2.0 * np.pi * (np.arange(64) + 0.5) / 64

    def character(some, power):
        """Trace of the power of a turn by theta, without and with an inversion."""
        angle = power * theta[:, None]
        sign = np.array([1, -1]) ** power
        return sum(
            sum(np.cos(m * angle) for m in range(-i.degree, i.degree + 1))
            * np.where(i.parity == 1, 1, sign)
            for i in some
        )

    one, two, three = (character(irreps, power) for power in (1, 2, 3))
    of_power = [one, (one**2 + two) / 2, (one**3 + 3 * one * two + 2 * three) / 6]
    measure = (1.0 - np.cos(theta))[:, None] / 128
    tables = symmetric_couplings(irreps, irreps, order).tables
    for irrep in irreps:
        expected = np.sum(measure * of_power[order - 1] * character([irrep], 1))
        np.testing.assert_allclose(len(tables[irrep]), expected, atol=1e-9)


def test_numbers_of_paths_known_by_hand():
    # Powers of a vector: degrees 0 and 2; then 1 and 3.
    every = harmonic_irreps(3)
    count = lambda order: [
        len(t)
        for t in symmetric_couplings((Irrep(1, -1),), every, order).tables.values()
    ]
    assert count(2) == [1, 0, 1, 0]
    assert count(3) == [0, 1, 0, 1]


@SETS
@pytest.mark.parametrize("order", [2, 3])
def test_paths_span_the_iterated_products(irreps, order):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, sum(i.dim for i in irreps)))
    parts = dict(
        zip(
            irreps, np.split(x, np.cumsum([i.dim for i in irreps])[:-1], 1), strict=True
        )
    )
    found = {irrep: [] for irrep in irreps}

    def multiply(irrep, part, left):
        if left == 0:
            if irrep in found:
                found[irrep].append(part)
            return
        for other in irreps:
            lowest, highest = (
                abs(irrep.degree - other.degree),
                irrep.degree + other.degree,
            )
            for degree in range(lowest, highest + 1):
                table = clebsch_gordan(irrep.degree, other.degree, degree)
                product = np.einsum("abc,na,nb->nc", table, part, parts[other])
                parity = irrep.parity * other.parity
                multiply(Irrep(degree, parity), product, left - 1)

    for irrep in irreps:
        multiply(irrep, parts[irrep], order - 1)
    for irrep, ours in values(irreps, order, x).items():
        ours = ours.reshape(len(ours), -1)
        iterated = np.reshape(found[irrep], (len(found[irrep]), -1))
        rank = lambda rows: np.linalg.matrix_rank(rows, tol=1e-8) if len(rows) else 0
        assert rank(ours) == rank(iterated) == len(ours)
        assert rank(np.concatenate([ours, iterated])) == len(ours)


@ORDERS
def test_paths_have_unit_second_moment(order):
    x = np.random.default_rng(0).normal(size=(40_000, 9))
    for paths in values(NATURAL, order, x).values():
        moments = np.mean(paths**2, axis=(1, 2))
        np.testing.assert_allclose(moments, 1.0, rtol=0.1)
