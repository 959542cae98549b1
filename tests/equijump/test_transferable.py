"""Tests of what a network of several peptides was trained on."""

import json

import numpy as np
import pytest

from equijump import transferable
from equijump.transferable import Transferable
from tests.equijump.test_data_topology_order import make_system

KNOWN = Transferable(("ACE-ALA-NME", "ACE-GLY-ALA-NME", "ACE-GLY-NME"), False)


def system(*names, chains=None):
    return make_system(names, chains=chains)


def test_several_sequences_make_a_network_transferable():
    systems = [system("ACE", name, "NME") for name in ("GLY", "ALA", "GLY")]
    found = transferable.of_systems([*systems, system("ACE", "GLY", "ALA", "NME")])
    assert found == KNOWN
    assert found.residues == {"ACE", "ALA", "GLY", "NME"}
    assert (found.lengths, found.num_chains) == ((1, 2), 1)


def test_one_sequence_does_not():
    same = [system("ACE", "ALA", "NME")] * 3
    assert transferable.of_systems(same) is None
    assert transferable.of_systems([]) is None


def test_metadata_keep_what_is_known():
    record = json.loads(json.dumps(transferable.to_json(KNOWN, [10.0], [300.0, 300.0])))
    assert transferable.from_json(record) == KNOWN
    assert record["residues"] == ["ACE", "ALA", "GLY", "NME"]
    assert (record["lengths"], record["lags_ps"]) == ([1, 2], [10.0])
    assert record["temperatures_K"] == [300.0, 300.0]
    assert transferable.from_json(None) is None


@pytest.mark.parametrize("sequences", [[], ["ACE-XYZ-NME"]])
def test_damaged_metadata_are_refused(sequences):
    record = {"sequences": sequences, "has_free_ends": False}
    with pytest.raises(ValueError, match=r"training sequence"):
        transferable.from_json(record)


def test_chains_are_told_apart():
    two = system("ACE", "ALA", "GLY", "NME", chains=[0, 0, 1, 1])
    assert transferable.sequence_of(two) == "ACE-ALA/GLY-NME"
    assert transferable.num_residues("ACE-ALA/GLY-NME") == 2
    assert transferable.pairs_of("ACE-ALA/GLY-NME") == [("ACE", "ALA"), ("GLY", "NME")]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("ACE", "ALA", "NME"), []),
        (("ACE", "ALA", "ALA", "NME"), []),
        (("ACE", "ALA", "ALA", "GLY", "NME"), ["3 residues (trained on 1 to 2)"]),
        (("ACE", "TRP", "NME"), ["residues TRP"]),
        (("ACE", "ALA"), ["free ends, C of ALA2 (--add_caps puts ACE and NME on)"]),
    ],
)
def test_what_lies_outside_is_told(names, told):
    assert transferable.outside(KNOWN, system(*names)) == told


def test_free_ends_that_were_trained_on_are_inside():
    free = KNOWN._replace(has_free_ends=True)
    assert transferable.outside(free, system("ALA", "GLY")) == []


def test_chains_bonds_and_protonation_lie_outside():
    both = system("ACE", "ALA", "NME", "ACE", "GLY", "NME", chains=[0, 0, 0, 1, 1, 1])
    assert transferable.outside(KNOWN, both, ["ASH4"]) == [
        "2 chains (trained on 1)", "protonation of ASH4",
    ]  # fmt: skip
    known = Transferable(("ACE-CYS-CYS-NME", "ACE-CYS-NME"), False)
    cysteines = system("ACE", "CYS", "CYS", "NME")
    bridge = cysteines.slot_atoms[[1, 2], 5]
    bonds = np.concatenate([cysteines.bonds, [bridge]]).astype(np.int32)
    found = transferable.outside(known, cysteines._replace(bonds=bonds))
    assert found == ["bonds between side chains, as disulphides"]


def test_commands_that_make_a_network_are_told_with_their_times():
    short = transferable.how_to_make(system("ACE", "ALA", "NME"), "--sequence=A")
    assert "equijump simulate --sequence=A --caps --replicas=8 --length=7.5" in short
    assert "equijump sample --checkpoint=run --sequence=A" in short
    free = transferable.how_to_make(system("ALA", "GLY"), "--sequence=AG --no-add_caps")
    assert "equijump simulate --sequence=AG --replicas" in free
    assert "--checkpoint=run --sequence=AG --no-add_caps" in free
    file = transferable.how_to_make(system(*["ALA"] * 20), "--start=mine.pdb")
    assert "equijump simulate --pdb=mine.pdb" in file
    hours = lambda text: float(text.split("about ")[1].split()[0])
    assert hours(file) > 10 * hours(short)
