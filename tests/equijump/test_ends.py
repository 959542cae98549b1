"""Tests of the ends of chains, and of caps that are put on."""

import numpy as np
import pytest

from common.errors import UsageError
from equijump import builder, ends, internal
from equijump.data import whole
from equijump.data.topology import is_same, nearby
from tests.equijump.test_data_topology_order import make_system


def built(*names, count=3, seed=1):
    return builder.build(names, count, seed)


def least(system, positions):
    far = ~nearby(system.bonds, len(system.kept))
    apart = [np.linalg.norm(x[:, None] - x, axis=-1)[far] for x in positions]
    return float(np.min(apart))


def test_ends_without_caps_are_free():
    found = ends.free_ends(make_system(["ALA", "GLY", "NME"]))
    assert found == [(0, "N")]
    assert ends.free_ends(make_system(["ACE", "ALA", "NH2"])) == []


def test_each_chain_has_its_ends():
    system = make_system(["ACE", "ALA", "GLY", "GLY"], chains=[0, 0, 1, 1])
    found = ends.free_ends(system)
    assert found == [(1, "C"), (2, "N"), (3, "C")]
    assert ends.describe(system, found) == "C of ALA2, N of GLY3, C of GLY4"


def test_a_ring_has_no_ends():
    system = make_system(["GLY", "GLY", "GLY"])
    c, n = system.slot_atoms[2, 2], system.slot_atoms[0, 0]
    closed = np.concatenate([system.bonds, [[c, n]]]).astype(np.int32)
    assert ends.free_ends(system._replace(bonds=closed)) == []


@pytest.mark.parametrize("names", [("GLY", "ALA", "TRP"), ("PRO", "ALA", "PRO")])
def test_caps_are_put_on_free_ends(names):
    system, positions = built(*names)
    capped, placed = ends.add_caps(system, positions, "mine.pdb")
    assert is_same(capped, builder.system_of(("ACE", *names, "NME")))
    assert capped.residue_names == ("ACE", *names, "NME")
    assert least(capped, placed) > 2.5
    bonds = whole.bonds_of(capped)
    whole.check("mine.pdb", placed, bonds, capped)
    lengths = np.sort(whole.lengths_of(placed, bonds), axis=1)
    ideal = built("ACE", *names, "NME", count=1)
    wanted = whole.lengths_of(ideal.positions, whole.bonds_of(ideal.system))
    wanted = np.broadcast_to(np.sort(wanted, axis=1), lengths.shape)
    np.testing.assert_allclose(lengths, wanted, atol=0.03)


def test_peptide_bonds_to_caps_are_trans_and_flat():
    system, positions = built("GLY", "ALA", "TRP")
    capped, placed = ends.add_caps(system, positions, "mine.pdb")
    at = lambda row, slot: placed[:, capped.slot_atoms[row, slot]]
    first = internal.torsion(at(0, 1), at(0, 2), at(1, 0), at(1, 1))
    last = internal.torsion(at(3, 1), at(3, 2), at(4, 0), at(4, 1))
    np.testing.assert_allclose(np.abs([first, last]), 180.0, atol=0.1)
    flat = internal.torsion(at(3, 0), at(3, 1), at(3, 2), at(3, 3))
    psi = internal.torsion(at(3, 0), at(3, 1), at(3, 2), at(4, 0))
    np.testing.assert_allclose(np.cos(np.radians(flat - psi)), -1.0, atol=1e-4)


def test_what_was_there_stays_where_it_was():
    system, positions = built("GLY", "ALA", "TRP")
    capped, placed = ends.add_caps(system, positions, "mine.pdb")
    for row in range(3):
        for slot in np.flatnonzero(system.slot_atoms[row] >= 0):
            if (row, slot) != (2, 3):  # The last oxygen may turn.
                now = placed[:, capped.slot_atoms[row + 1, slot]]
                before = positions[:, system.slot_atoms[row, slot]]
                np.testing.assert_array_equal(now, before)


def test_an_end_that_has_its_cap_keeps_it():
    system, positions = built("ACE", "ALA", "GLY")
    capped, placed = ends.add_caps(system, positions, "mine.pdb")
    assert capped.residue_names == ("ACE", "ALA", "GLY", "NME")
    again, same = ends.add_caps(capped, placed, "mine.pdb")
    assert again is capped
    assert same is placed


def test_bonds_between_side_chains_stay():
    system, positions = built("CYS", "GLY", "CYS")
    sulphurs = system.slot_atoms[[0, 2], 5]
    closed = np.concatenate([system.bonds, [sulphurs]]).astype(np.int32)
    capped, _ = ends.add_caps(system._replace(bonds=closed), positions, "mine.pdb")
    sulphurs = capped.slot_atoms[[1, 3], 5]
    assert sulphurs.tolist() in capped.bonds.tolist()
    assert len(capped.bonds) == len(closed) + 5


def test_a_cap_without_room_is_refused():
    system, positions = built("GLY", "GLY", count=1)
    wall = builder.system_of(("GLY", "GLY"))
    shell = np.random.default_rng(0).normal(size=(len(wall.kept), 3))
    shell *= 2.0 / np.linalg.norm(shell, axis=1, keepdims=True)
    both = np.concatenate([positions, (shell + positions[0, 0])[None]], axis=1)
    joined = _joined(system, wall)
    with pytest.raises(UsageError, match=r"mine\.pdb: expected room for ACE at GLY"):
        ends.add_caps(joined, both.astype(np.float32), "mine.pdb")


def _joined(first, second):
    shift = len(first.kept)
    moved = np.where(second.slot_atoms >= 0, second.slot_atoms + shift, -1)
    return first._replace(
        tokens=np.concatenate([first.tokens, second.tokens]),
        chains=np.concatenate([first.chains, second.chains + 1]),
        numbers=np.concatenate([first.numbers, second.numbers]),
        slot_atoms=np.concatenate([first.slot_atoms, moved]).astype(np.int32),
        bonds=np.concatenate([first.bonds, second.bonds + shift]),
        kept=np.arange(shift + len(second.kept), dtype=np.int32),
        residue_names=first.residue_names + second.residue_names,
        atom_names=first.atom_names + second.atom_names,
    )
