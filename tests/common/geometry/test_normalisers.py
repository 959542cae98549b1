"""Normalisers of point groups against the tables, and axes."""

import pytest

from common.geometry.cloud_symmetry import identify
from common.geometry.normalisers import axes, conjugators
from common.geometry.point_groups import point_group

NORMALISERS = {
    "C2v": "D4h", "C3v": "D6h", "D2": "Oh", "D3": "D6h", "D4": "D8h", "D2h": "Oh",
    "D3h": "D6h", "D4h": "D8h", "T": "Oh", "Td": "Oh", "O": "Oh", "I": "Ih",
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALISERS)
def test_normalisers_are_those_of_the_tables(name):
    group = point_group(name)
    found = conjugators(group, group)
    # Which of several positions the larger group takes does not matter to its name.
    assert identify(found)[0] == NORMALISERS[name]


def test_axes_are_counted_once():
    assert [len(axes(point_group(name))) for name in ("C1", "S6", "D3", "I")] == [
        0,
        1,
        4,
        31,
    ]
