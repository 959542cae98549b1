"""Irreps, their notation, and the paths of products counted by hand."""

import pytest

from common.so3 import irreps
from common.so3.irreps import PSEUDOVECTOR, SCALAR, VECTOR, Irrep


def names(paths):
    return [tuple(map(str, path)) for path in paths]


@pytest.mark.parametrize(("group", "count"), [("O3", 11), ("SO3", 15)])
def test_paths_of_degree_two_are_counted_by_hand(group, count):
    kept = irreps.harmonic_irreps(2, group)
    paths = irreps.product_paths(kept, kept, kept)
    assert len(paths) == count
    assert [p[2] for p in paths] == sorted(p[2] for p in paths)


def test_cross_product_is_a_pseudovector():
    found = irreps.product_paths([VECTOR], [VECTOR], [SCALAR, VECTOR, PSEUDOVECTOR])
    assert names(found) == [("1o", "1o", "0e"), ("1o", "1o", "1e")]


def test_both_parities_double_the_paths():
    both = [Irrep(l, p) for l in range(2) for p in (1, -1)]
    natural = irreps.harmonic_irreps(1)
    paths = irreps.product_paths(both, natural, both)
    # Of degrees: (0,0,0), (0,1,1), (1,0,1), (1,1,0), (1,1,1), in either parity.
    assert len(paths) == 10


def test_unknown_group_is_refused():
    with pytest.raises(ValueError, match="'O3' or 'SO3', found 'O2'"):
        irreps.harmonic_irreps(1, "O2")


def test_notation_goes_round():
    text = "64x0o+128x0e+32x1e+8x2o"  # Sorted: odd before even.
    assert irreps.format_irreps(irreps.parse(text)) == text
    assert irreps.parse("2x1o + 3x0e") == {SCALAR: 3, VECTOR: 2}


@pytest.mark.parametrize("text", ["8x0", "x1o", "8x1z", "8x0e+", "8x0e+2x0e"])
def test_bad_notation_is_refused(text):
    with pytest.raises(ValueError, match="irreps: expected"):
        irreps.parse(text)


def test_degrees_are_stacked_one_after_the_other():
    assert irreps.degree_slices(2)[2] == slice(4, 9)
