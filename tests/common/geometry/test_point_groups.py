"""Point groups by name: their orders, and that they are groups."""

import numpy as np
import pytest

from common.geometry.point_groups import equal, point_group

ORDERS = {
    "C1": 1, "Ci": 2, "Cs": 2, "C2": 2, "C3": 3, "C2v": 4, "C3v": 6, "C2h": 4, "C3h": 6,
    "D2": 4, "D3": 6, "D4": 8, "D2h": 8, "D3h": 12, "D4h": 16, "D6h": 24, "D2d": 8,
    "D3d": 12, "S4": 4, "S6": 6, "T": 12, "Td": 24, "Th": 24, "O": 24, "Oh": 48,
    "I": 60, "Ih": 120,
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_groups_have_their_order_and_are_closed(name):
    group = point_group(name)
    assert len(group) == ORDERS[name]
    np.testing.assert_allclose(group[0], np.eye(3))
    products = (group[:, None] @ group).reshape(-1, 3, 3)
    assert equal(products, group).any(axis=1).all()
    transposed = np.swapaxes(group, 1, 2)
    np.testing.assert_allclose(
        group @ transposed, np.broadcast_to(np.eye(3), group.shape), atol=1e-12
    )


@pytest.mark.parametrize("name", ["X3", "C0", "S3", "D3v", "Tv", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="point group"):
        point_group(name)
