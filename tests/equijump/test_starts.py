"""Tests of what replicas begin with: files, sequences, and which weights serve them."""

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump import builder, options, protonation, starts, transferable
from equijump.data.topology import to_topology
from equijump.transferable import Transferable
from tests.equijump.test_data_topology_order import make_system
from tests.equijump.test_options import make_weights

KNOWN = Transferable(("ACE-ALA-NME", "ACE-GLY-ALA-NME"), False)


def general(**more):
    """Weights of several peptides, with no systems of their own."""
    return make_weights()._replace(transferable=KNOWN, molecules={}, **more)


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(starts.logging, "warning", lambda t, *a: lines.append(t % a))
    return lines


def file_of(folder, *names, name="mine.pdb", count=1, seed=0):
    found = builder.build(names, count, seed)
    made = mdtraj.Trajectory(found.positions / 10.0, to_topology(found.system))
    made.save(str(folder / name))
    return folder / name


def test_a_sequence_gives_each_replica_a_start_with_caps(told):
    found = options.choose(general(), replicas=3, sequence="GA", seed=4)
    assert (found.name, found.system.residue_names[0]) == ("GA", "ACE")
    apart = lambda x: np.linalg.norm(x[:, None] - x, axis=-1)
    assert np.abs(apart(found.starts[0]) - apart(found.starts[1])).max() > 0.5
    again = options.choose(general(), replicas=1, sequence="GA", seed=4)
    np.testing.assert_array_equal(again.starts, found.starts[:1])
    other = options.choose(general(), replicas=1, sequence="GA", seed=5)
    assert np.abs(other.starts - found.starts[:1]).max() > 0.1
    assert told == []


def test_a_sequence_without_caps_is_told(told):
    found = options.choose(general(), sequence="GA", add_caps=False)
    assert found.system.residue_names == ("GLY", "ALA")
    assert found.outside == (
        "free ends, N of GLY1, C of ALA2 (--add_caps puts ACE and NME on)",
    )
    (line,) = told
    assert line.startswith("GA: outside the training of made: free ends")


@pytest.mark.parametrize("add_caps", [None, True])
def test_a_file_is_capped_where_asked(add_caps, tmp_path, told):
    path = file_of(tmp_path, "GLY", "ALA")
    found = options.choose(general(), start=path, add_caps=add_caps)
    assert found.name == "mine"
    assert len(found.system.tokens) == (4 if add_caps else 2)
    assert len(told) == (0 if add_caps else 1)


def test_several_files_of_one_system_go_in_turn(tmp_path, told):
    paths = [
        file_of(tmp_path, "ACE", "ALA", "NME", name=f"{seed}.pdb", seed=seed)
        for seed in range(3)
    ]
    found = options.choose(general(), replicas=3, start=paths)
    alone = options.choose(general(), start=paths[2])
    np.testing.assert_array_equal(found.starts[2], alone.starts[0])


def test_files_of_different_systems_are_told(tmp_path, told):
    first = file_of(tmp_path, "ACE", "ALA", "NME", name="a.pdb")
    other = file_of(tmp_path, "ACE", "GLY", "NME", name="b.pdb")
    with pytest.raises(UsageError, match=r"b\.pdb: expected the system of .*a\.pdb"):
        options.choose(general(), replicas=2, start=[first, other])


def test_a_system_that_has_starts_of_its_own_keeps_its_name(told):
    weights = make_weights()._replace(transferable=KNOWN)
    assert options.choose(weights, sequence="A").name == "ala2"
    assert options.choose(weights, sequence="G").name == "G"
    with pytest.raises(UsageError, match=r"found ACE-GLY-NME.*to make one: equijump"):
        options.choose(weights, sequence="G", system="ala2")


def test_a_network_without_systems_needs_a_start():
    with pytest.raises(UsageError, match="expected --sequence or --start, since made"):
        options.choose(general())
    with pytest.raises(UsageError, match="--system: expected --start or --sequence"):
        options.choose(general(), system="ala2")


def test_a_residue_that_the_network_cannot_read_is_refused_with_commands(told):
    system = make_system(["ACE", "SEP", "NME"])
    one = starts.Given(
        "mine.pdb", "--start=mine.pdb", system, np.zeros((1, len(system.kept), 3), "f4")
    )
    with pytest.raises(UsageError, match=r"found SEP .*equijump simulate --pdb=mine"):
        options.choose(general(), given=[one])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"start": "a.pdb", "sequence": "A"}, "--start or --sequence, found both"),
        ({"add_caps": True}, "--add_caps: expected --start or --sequence"),
        ({"sequence": "A", "add_caps": False}, "two residues or more without caps"),
        ({"sequence": "A", "select": "all"}, "--select: expected --start"),
        ({"sequence": "AB"}, "--sequence: expected one-letter codes"),
        ({"start": []}, "--start: expected a file"),
    ],
)
def test_what_does_not_belong_together_is_told(asked, text):
    with pytest.raises(UsageError, match=text):
        options.choose(general(), **asked)


def given(*names):
    return [starts.Given("mine.pdb", "--start=mine.pdb", make_system(names), None)]


def test_weights_are_picked_by_what_they_serve():
    packaged = ["ala2", "peptides"]
    assert starts.default_for([], packaged) == "ala2"
    assert starts.default_for(given("ACE", "ALA", "NME"), packaged) == "ala2"
    assert starts.default_for(given("ACE", "GLY", "NME"), packaged) == "peptides"
    assert starts.default_for(given("ALA", "ALA"), packaged) == "peptides"
    both = given("ACE", "ALA", "NME") + given("ACE", "GLY", "NME")
    assert starts.default_for(both, packaged) == "peptides"


def test_where_no_weights_serve_commands_are_told():
    with pytest.raises(UsageError, match=r"mine\.pdb: .*found ACE-GLY-NME; to make on"):
        starts.default_for(given("ACE", "GLY", "NME"), ["ala2"])


@pytest.mark.parametrize(
    ("source", "flag", "name"),
    [
        ("a/b c.pdb", "--start=x", "b_c"),
        (".pdb", "--start=x", "pdb"),
        ("GYD", "--sequence=GYD", "GYD"),
        ("ä.pdb", "--start=x", "start"),
    ],
)
def test_rollouts_are_named_by_what_they_start_from(source, flag, name):
    one = starts.Given(source, flag, make_system(["ALA"]), np.zeros((1, 5, 3), "f4"))
    assert starts.name_of(one) == name


def test_long_sequences_have_short_names_that_differ():
    one, other = (
        starts.Given(30 * "A" + end, "--sequence=", make_system(["ALA"]), None)
        for end in "AG"
    )
    assert len(starts.name_of(one)) < 40
    assert starts.name_of(one) != starts.name_of(other)


def hydrogens(name, *atoms):
    topology = mdtraj.Topology()
    residue = topology.add_residue(name, topology.add_chain(), 3)
    for atom in atoms:
        topology.add_atom(atom, None, residue)
    return protonation.unusual(topology)


@pytest.mark.parametrize(
    ("name", "atoms", "is_unusual"),
    [
        ("HIS", ("CA",), False),
        ("HIS", ("CA", "HE2"), False),
        ("HIS", ("CA", "HD1", "HE2"), True),
        ("HIP", ("CA",), True),
        ("ASP", ("CA", "HA"), False),
        ("ASP", ("CA", "HD2"), True),
        ("GLU", ("CA", "HE2"), True),
        ("LYS", ("CA", "HZ1", "HZ2", "HZ3"), False),
        ("LYN", ("CA",), True),
        ("HOH", ("O", "H1"), False),
    ],
)
def test_protonation_is_known_by_names_and_hydrogens(name, atoms, is_unusual):
    assert hydrogens(name, *atoms) == ([f"{name}3"] if is_unusual else [])


def test_selenomethionine_is_taken_as_methionine(tmp_path, told):
    system = make_system(["ACE", "MSE", "ALA", "NME"])
    positions = np.zeros((1, len(system.kept), 3), "f4")
    one = starts.Given("mine.pdb", "--start=mine.pdb", system, positions)
    found = options.choose(general(), given=[one])
    assert found.system.residue_names == ("ACE", "MET", "ALA", "NME")
    assert "SE" not in found.system.atom_names
    assert "SD" in found.system.atom_names
    assert told[0] == "mine.pdb: MSE2 taken as MET, which the network knows"


def test_commands_for_a_modified_residue_replace_it_and_start_from_what_is_written():
    system = make_system(["ACE", "SEP", "NME"])
    told = transferable.how_to_make(system, "--start=in/mine.pdb")
    assert "simulate --pdb=in/mine.pdb --replace_nonstandard --replicas" in told
    assert told.endswith("equijump sample --checkpoint=run --start=md/mine.pdb")
    usual = make_system(["ACE", "SER", "NME"])
    told = transferable.how_to_make(usual, "--start=in/mine.pdb")
    assert "nonstandard" not in told
    assert told.endswith("--start=in/mine.pdb")


def test_a_start_is_a_packaged_name_or_a_pattern_too(tmp_path, told):
    assert options.choose(general(), start="cln025").name == "cln025"
    for seed in range(3):
        name = f"a{seed}.pdb"
        file_of(tmp_path, "ACE", "ALA", "NME", name=name, seed=seed)
    found = options.choose(general(), replicas=3, start=str(tmp_path / "a?.pdb"))
    apart = [np.linalg.norm(x[0] - x[-1]) for x in found.starts]
    assert len(set(apart)) == 3
    with pytest.raises(UsageError, match=r"--start: expected files, found none at .*b"):
        options.choose(general(), start=str(tmp_path / "b?.pdb"))


def test_d_amino_acids_and_strain_are_told(tmp_path, told):
    found = builder.build(("ACE", "ALA", "NME"), 1, 0)
    mirrored = mdtraj.Trajectory(-found.positions / 10.0, to_topology(found.system))
    assert options.choose(general(), start=mirrored).outside == (
        "D handedness of ALA2",
    )
    long = found.positions.copy()
    long[:, 0] += 0.25 * (long[:, 0] - long[:, 1])
    options.choose(
        general(), start=mdtraj.Trajectory(long / 10.0, to_topology(found.system))
    )
    assert any("strained" in line and "minimise it first" in line for line in told)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ent", r"ends in \.ent; rename it to a\.pdb"),
        ("a.fasta", "give the letters by --sequence"),
        ("a", "tells no format"),
        ("a.sdf", r"ends in \.sdf; convert it to PDB"),
        ("a.pdb", "an empty file"),
        ("a.npz", "an empty file"),
    ],
)
def test_a_file_of_no_use_says_why(name, text, tmp_path):
    (tmp_path / name).write_text("" if text == "an empty file" else "ATOM")
    with pytest.raises(UsageError, match=text):
        options.choose(general(), start=tmp_path / name)
