"""Tests of sources of published sets, on tiny files in their layouts."""

import json

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump.data import molecules, sources
from equijump.data.sources import bioemu, mdcath, mdgen, packing, timewarp
from tests.equijump import published
from tests.equijump.test_data_sources import settings

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def told(monkeypatch):
    """Lines that a source has logged of what it left out."""
    lines = []
    monkeypatch.setattr(
        packing.logging, "info", lambda text, *a: lines.append(text % a)
    )
    return lines


@pytest.fixture
def ala2(topology):
    return mdtraj.load(str(topology))


def read(entry, **given):
    data = settings((entry,))
    data.update(given)
    return list(sources.read(data))


def in_angstrom(start, count, seed=0):
    return 10.0 * published.shaken(start, count, seed)


# mdCATH


@pytest.mark.parametrize("text", [str, bytes])
def test_mdcath_has_a_trajectory_for_each_replica(tmp_path, ala2, text, told):
    runs = {(t, n): in_angstrom(ala2, 4, t + n) for t in (320, 450) for n in (0, 1)}
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, runs, text=text)
    found = read(f"mdcath:{tmp_path}/*.h5")
    assert [t.name for t in found] == [
        f"1abcA00_{t}_{n}" for t in (320, 450) for n in (0, 1)
    ]
    for one, ((temperature, _), positions) in zip(found, runs.items(), strict=True):
        assert one.conditions == {"temperature": temperature}
        assert (one.spacing, one.times) == (1000.0, None)
        expected = positions[:, one.system.kept]
        np.testing.assert_allclose(one.positions[:], expected, atol=1e-4)
    assert len({t.checksum for t in found}) == 4
    assert told == []


def test_mdcath_reads_chosen_temperatures_and_folders(tmp_path, ala2):
    runs = {(t, 0): in_angstrom(ala2, 4, t) for t in (320, 348, 450)}
    published.write_mdcath(tmp_path / "mdcath_dataset_1abcA00.h5", ala2, runs)
    found = read(f"mdcath:{tmp_path}@320,450")
    assert [t.conditions["temperature"] for t in found] == [320.0, 450.0]
    with pytest.raises(UsageError, match="1 files without a replica at 300 K"):
        read(f"mdcath:{tmp_path}@300")


@pytest.mark.parametrize("tail", [2e7, 0.0, np.nan])
def test_tails_of_mdcath_are_cut_and_empty_replicas_skipped(
    tmp_path, ala2, tail, told, monkeypatch
):
    monkeypatch.setattr(mdcath, "_CHUNK", 3 * ala2.n_atoms * 2)
    cut = in_angstrom(ala2, 7)
    cut[5:] = tail
    nothing = np.full((3, ala2.n_atoms, 3), tail)
    runs = {
        (320, 0): cut,
        (320, 1): None,
        (320, 2): nothing[:0],
        (320, 3): nothing,
        (320, 4): cut[4:],
    }
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, runs)
    (found,) = read(f"mdcath:{path}")
    np.testing.assert_allclose(
        found.positions[:], cut[:5, found.system.kept], atol=1e-4
    )
    where = f"(as in {path})"
    assert told == [
        "mdcath: 1 trajectories of 1 files; left out: 2 tails of frames that are no "
        f"molecule {where}; 1 trajectories of one frame {where}; 3 replicas that are "
        f"empty {where}"
    ]


def test_a_cap_that_mdcath_counts_to_the_first_residue_is_a_residue(tmp_path, ala2):
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, {(320, 0): in_angstrom(ala2, 3)}, cap=True)
    (found,) = read(f"mdcath:{path}")
    assert found.system.residue_names == ("ACE", "ALA", "NME")
    assert len(found.system.bonds) == 9


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def misname(path):
    path.write_bytes(b"not HDF5")


@pytest.mark.parametrize("damage", [truncate, misname])
def test_damaged_files_of_mdcath_are_told(tmp_path, ala2, damage):
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, {(320, 0): in_angstrom(ala2, 3)})
    damage(path)
    with pytest.raises(
        UsageError, match=r"1abcA00\.h5: expected an HDF5 file of mdCATH"
    ):
        read(f"mdcath:{path}")


def test_mdcath_without_its_text_or_with_other_atoms_is_told(tmp_path, ala2):
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    runs = {(320, 0): in_angstrom(ala2, 3)}
    published.write_mdcath(path, ala2, runs, drop=("pdbProteinAtoms",))
    with pytest.raises(UsageError, match="no text pdbProteinAtoms, but 1abcA00"):
        read(f"mdcath:{path}")
    published.write_mdcath(path, ala2, {(320, 0): runs[320, 0][:, :-1]})
    with pytest.raises(
        UsageError, match=r"positions of the 10 atoms .* found an array"
    ):
        read(f"mdcath:{path}")


# Timewarp

BURSTS = [n * 10_000 + m for n in (1, 2, 3) for m in (0, 1, 10, 100, 1000)]


def test_timewarp_has_the_times_of_its_steps(tmp_path):
    start = published.peptide("AG")
    published.write_timewarp(tmp_path, "AG", start, BURSTS)
    (found,) = read(f"timewarp:{tmp_path}/*-traj-arrays.npz")
    np.testing.assert_allclose(found.times, 5e-4 * np.array(BURSTS))
    assert found.spacing == pytest.approx(np.median(np.diff(found.times)))
    assert found.conditions == {"temperature": 310.0}
    assert found.name == "AG"
    assert found.system.residue_names == ("ALA", "GLY")
    expected = 10.0 * published.shaken(start, len(BURSTS))[:, found.system.kept]
    np.testing.assert_allclose(found.positions[:], expected, atol=1e-4)


def test_even_steps_of_timewarp_need_no_times(tmp_path):
    steps = 10_000 * np.arange(1, 6)
    published.write_timewarp(tmp_path, "AG", published.peptide("AG"), steps)
    (found,) = read(f"timewarp:{tmp_path}")
    assert (found.times, found.spacing) == (None, 5.0)


def test_frames_of_timewarp_that_are_not_later_are_left_out(tmp_path, told):
    steps = [10_000, 20_000, 20_000, 15_000, 30_000]
    start = published.peptide("AG")
    path = published.write_timewarp(tmp_path, "AG", start, steps)
    (found,) = read(f"timewarp:{tmp_path}")
    assert (len(found.positions), found.spacing, found.times) == (3, 5.0, None)
    expected = 10.0 * published.shaken(start, 5)[[0, 1, 4]][:, found.system.kept]
    np.testing.assert_allclose(found.positions[:], expected, atol=1e-4)
    assert told == [
        "timewarp: 1 trajectories of 1 files; left out: 2 frames that are not later "
        f"than those before (as in {path})"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ("step", "time")}, "found no step and no time, but energies"),
        ({"drop": ("positions",)}, "found no 'positions'"),
        ({"time": np.arange(15.0)}, "times that are not 0.0005 ps for each step"),
        ({"step": np.arange(3)}, r"step of shape \(3,\)"),
        ({"positions": np.zeros((15, 3, 3), np.float32)}, "the 10 atoms of AG-traj-st"),
    ],
)
def test_what_is_no_file_of_timewarp_is_told(tmp_path, change, message):
    published.write_timewarp(tmp_path, "AG", published.peptide("AG"), BURSTS, **change)
    with pytest.raises(UsageError, match=message):
        read(f"timewarp:{tmp_path}")


def test_timewarp_by_times_alone_and_without_a_topology(tmp_path):
    start = published.peptide("AG")
    path = published.write_timewarp(tmp_path, "AG", start, BURSTS, drop=("step",))
    (found,) = read(f"timewarp:{tmp_path}")
    np.testing.assert_allclose(found.times, 5e-4 * np.array(BURSTS))
    (tmp_path / "AG-traj-state0.pdb").unlink()
    with pytest.raises(UsageError, match=r"expected AG-traj-state0\.pdb"):
        read(f"timewarp:{tmp_path}")
    path.rename(tmp_path / "AG.npz")
    with pytest.raises(UsageError, match="expected a name that ends in -traj-arrays"):
        read(f"timewarp:{tmp_path}")


# MDGen


@pytest.mark.parametrize("sequence", ["ARND", "CQEG", "HILK", "MFPS", "TWYV"])
def test_mdgen_has_the_atoms_of_every_residue(tmp_path, sequence):
    start = published.peptide(sequence)
    positions = published.shaken(start, 4)
    array = published.to_atom14(sequence, start, positions)
    np.save(tmp_path / f"{sequence}_i100.npy", array)
    (found,) = read(f"mdgen:{tmp_path}/*.npy")
    assert (found.name, found.spacing) == (f"{sequence}_i100", pytest.approx(10.0))
    assert found.conditions == {"temperature": 350.0}
    # The second oxygen of the end is no atom of an array.
    assert len(found.system.kept) == start.n_atoms - 1
    letters = [start.topology.residue(n).name for n in range(4)]
    assert list(found.system.residue_names) == letters
    expected = 10.0 * positions[:, : start.n_atoms - 1]
    names = [a.name for a in start.topology.atoms][:-1]
    order = [list(found.system.atom_names).index(n) for n in ("N", "CA")]
    wanted = [names.index(n) for n in ("N", "CA")]
    np.testing.assert_allclose(
        found.positions[:][:, order], expected[:, wanted], atol=0.01
    )


def test_mdgen_of_atlas_has_its_sequence_in_a_table(tmp_path):
    start = published.peptide("HILK")
    array = published.to_atom14("HILK", start, published.shaken(start, 4))
    np.save(tmp_path / "1abc_A_R2_i40.npy", array)
    with pytest.raises(UsageError, match="or 1abc_A in a table name,seqres"):
        read(f"mdgen:{tmp_path}")
    mdgen._tables.cache_clear()
    (tmp_path / "atlas.csv").write_text("name,seqres,release\n1abc_A,HILK,2020\n")
    (found,) = read(f"mdgen:{tmp_path}")
    assert (found.name, found.spacing) == ("1abc_A_R2_i40", 400.0)
    assert found.conditions == {"temperature": 300.0}
    (found,) = read(f"mdgen:{tmp_path}", spacing=50.0)
    assert found.spacing == 50.0


def test_mdgen_skips_files_that_lack_atoms(tmp_path, told):
    start = published.peptide("HILK")
    array = published.to_atom14("HILK", start, published.shaken(start, 4))
    np.save(tmp_path / "HILK.npy", array)
    array[:, 2, 5] = 0.0
    np.save(tmp_path / "HILK_i100.npy", array)
    (found,) = read(f"mdgen:{tmp_path}")
    assert (found.name, found.spacing) == ("HILK", pytest.approx(0.1))
    assert told == [
        "mdgen: 1 trajectories of 2 files; left out: 1 files that lack atoms, as "
        f"LEU3-CG (as in {tmp_path / 'HILK_i100.npy'})"
    ]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 13, 3)), "expected an array of MDGen"),
        (np.zeros((3, 5, 14, 3)), "expected 5 amino acids"),
        (np.zeros((3, 4, 14, 3), object), "expected an array of MDGen"),
    ],
)
def test_what_is_no_array_of_mdgen_is_told(tmp_path, array, message):
    np.save(tmp_path / "HILK.npy", array, allow_pickle=True)
    with pytest.raises(UsageError, match=message):
        read(f"mdgen:{tmp_path}")


def test_a_cut_array_of_mdgen_is_told(tmp_path):
    np.save(tmp_path / "HILK.npy", np.zeros((3, 4, 14, 3), np.float16))
    content = (tmp_path / "HILK.npy").read_bytes()
    (tmp_path / "HILK.npy").write_bytes(content[:-10])
    with pytest.raises(UsageError, match=r"HILK\.npy: expected an array of MDGen"):
        read(f"mdgen:{tmp_path}")


# BioEmu


def test_clocks_of_bioemu_that_restart_make_pieces(tmp_path, ala2, told):
    clock = [0, 10_000, 20_000, 0, 10_000, 20_000, 30_000, 0]
    folder = published.write_bioemu(
        tmp_path / "sets" / "octa_1", ala2, [clock, [0, 10_000], [0, 10_000, 20_000]]
    )
    found = read(f"bioemu:{tmp_path}/sets")
    assert [(t.name, len(t.positions), t.spacing) for t in found] == [
        ("octa_1_traj_0_part0", 3, 10_000.0),
        ("octa_1_traj_0_part1", 4, 10_000.0),
        ("octa_1_traj_1", 2, 10_000.0),
        ("octa_1_traj_2", 3, 10_000.0),
    ]
    whole = 10.0 * published.shaken(ala2, 8)[:, found[0].system.kept]
    np.testing.assert_allclose(found[1].positions[:], whole[3:7], atol=0.01)
    assert found[0].conditions == {"temperature": 300.0}
    assert told == [
        "bioemu: 4 trajectories of 3 files; left out: 1 single frames between two "
        f"restarts of the clock (as in {folder / 'trajs' / 'traj_0.xtc'})"
    ]


@pytest.mark.parametrize(
    ("step", "saved", "expected"),
    [(10.0, 10.0, 10_000.0), (1e7, 10.0, 10_000.0), (5_000.0, 10.0, 5_000.0),
     (5_000.0, None, 5_000.0)],
)  # fmt: skip
def test_clocks_of_bioemu_off_by_a_thousand_are_mended(
    tmp_path, ala2, step, saved, expected
):
    clock = step * np.arange(4)
    folder = published.write_bioemu(
        tmp_path / "one", ala2, [clock], save_traj_ns=saved, temperature_K=350
    )
    (found,) = read(f"bioemu:{folder}")
    assert found.spacing == pytest.approx(expected, rel=1e-5)
    assert found.conditions == {"temperature": 350.0}


def test_folders_that_are_none_of_bioemu_are_told(tmp_path, ala2):
    with pytest.raises(UsageError, match="expected folders of BioEmu, each with"):
        bioemu.find(str(tmp_path))
    folder = published.write_bioemu(tmp_path / "one", ala2, [[0, 10]])
    (folder / "dataset.json").write_text(json.dumps({"system_id": "one"}))
    with pytest.raises(UsageError, match=r"dataset\.json: .* found no 'temperature_K'"):
        read(f"bioemu:{tmp_path}")
    (folder / "dataset.json").write_text(json.dumps({"temperature_K": 300}))
    (folder / "topology.pdb").unlink()
    with pytest.raises(UsageError, match=r"expected topology\.pdb beside"):
        read(f"bioemu:{tmp_path}")


def test_files_of_bioemu_whose_clock_stands_still_are_skipped(tmp_path, ala2):
    published.write_bioemu(tmp_path / "one", ala2, [[0, 0, 0]])
    with pytest.raises(UsageError, match="1 files without a second frame at a later"):
        read(f"bioemu:{tmp_path}")


# ATLAS


def write_atlas(folder, start, names, step, count=4):
    folder.mkdir()
    start.save(str(folder / "1abc_A.pdb"))
    for number, name in enumerate(names):
        times = step * np.arange(count)
        xyz = published.shaken(start, count, number)
        mdtraj.Trajectory(xyz, start.topology, times).save(str(folder / name))


def test_atlas_trusts_times_and_takes_the_finer_of_two(tmp_path, ala2, told):
    names = [f"1abc_A_R{n}.xtc" for n in (1, 2)]
    write_atlas(tmp_path / "analysis", ala2, names, 100.0)
    names = ["1abc_A_prod_R1_fit.xtc", "1abc_A_prod_R3_fit.xtc"]
    write_atlas(tmp_path / "protein", ala2, names, 10.0)
    found = read(f"atlas:{tmp_path}")
    assert {t.name: t.spacing for t in found} == {
        "1abc_A_prod_R1_fit.xtc": 10.0,
        "1abc_A_R2.xtc": 100.0,
        "1abc_A_prod_R3_fit.xtc": 10.0,
    }
    assert found[0].conditions == {"temperature": 300.0}
    assert told == [
        "atlas: 3 trajectories of 4 files; left out: 1 replicas that are there at a "
        f"finer spacing too (as in {tmp_path / 'analysis' / '1abc_A_R1.xtc'})"
    ]


def test_other_names_are_none_of_atlas(tmp_path, ala2):
    write_atlas(tmp_path / "x", ala2, ["run.xtc"], 10.0)
    with pytest.raises(UsageError, match=r"run\.xtc: expected a replica of ATLAS"):
        read(f"atlas:{tmp_path}")


# What they share


def parts_of(trajectories):
    return [(one.name, len(one.positions)) for one in trajectories]


def test_a_bond_that_cannot_be_divides_a_trajectory(tmp_path, ala2, told, monkeypatch):
    monkeypatch.setattr(mdcath, "_CHUNK", 3 * ala2.n_atoms * 2)
    positions = in_angstrom(ala2, 9)
    positions[[3, 5, 8], 4] += 4.0
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, {(320, 0): positions, (320, 1): positions[:3]})
    found = read(f"mdcath:{path}")
    assert parts_of(found) == [
        ("1abcA00_320_0_part0", 3), ("1abcA00_320_0_part1", 2), ("1abcA00_320_1", 3),
    ]  # fmt: skip
    kept = found[1].system.kept
    np.testing.assert_allclose(found[1].positions[:], positions[6:8, kept], atol=1e-4)
    assert told == [
        "mdcath: 3 trajectories of 1 files; left out: 3 frames with a bond that cannot "
        f"be (as in {path}); 1 trajectories of one frame (as in {path})"
    ]


def test_where_no_bond_can_be_a_file_is_refused(tmp_path, ala2):
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    positions = in_angstrom(ala2, 5)
    positions[:, 4] += 4.0
    published.write_mdcath(
        path, ala2, {(320, 0): in_angstrom(ala2, 5), (320, 1): positions}
    )
    with pytest.raises(UsageError, match=r"1abcA00/320/1\): expected bonds .* frame 0"):
        read(f"mdcath:{path}")


def test_a_first_frame_that_is_no_molecule_is_left_out(tmp_path, ala2, told):
    positions = in_angstrom(ala2, 4)
    positions[0, 4] += 4.0
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    published.write_mdcath(path, ala2, {(320, 0): positions})
    assert parts_of(read(f"mdcath:{path}")) == [("1abcA00_320_0", 3)]
    assert "left out: 1 frames with a bond that cannot be" in told[0]


def test_a_broken_frame_divides_timewarp_by_its_times(tmp_path, told):
    start = published.peptide("AG")
    positions = published.shaken(start, len(BURSTS))
    positions[5, 1] += 0.4
    published.write_timewarp(tmp_path, "AG", start, BURSTS, positions=positions)
    first, second = read(f"timewarp:{tmp_path}")
    assert parts_of([first, second]) == [("AG_part0", 5), ("AG_part1", 9)]
    np.testing.assert_allclose(second.times, 5e-4 * np.array(BURSTS[6:]))
    assert "1 frames with a bond that cannot be" in told[0]


def test_a_broken_frame_divides_files_of_mdgen(tmp_path, told):
    start = published.peptide("HILK")
    positions = published.shaken(start, 6)
    positions[2, 3] += 0.4
    array = published.to_atom14("HILK", start, positions)
    np.save(tmp_path / "HILK_i100.npy", array)
    found = read(f"mdgen:{tmp_path}")
    assert parts_of(found) == [("HILK_i100_part0", 2), ("HILK_i100_part1", 3)]
    assert "1 frames with a bond that cannot be" in told[0]


def test_a_broken_frame_divides_files_of_bioemu_and_atlas(tmp_path, ala2, monkeypatch):
    folder = published.write_bioemu(tmp_path / "one", ala2, [10_000.0 * np.arange(7)])
    path = folder / "trajs" / "traj_0.xtc"
    moved = mdtraj.load(str(path), top=str(folder / "topology.pdb"))
    moved.xyz[4, 4] += 0.4
    moved.save(str(path))
    (tmp_path / "protein").mkdir()
    ala2.save(str(tmp_path / "protein" / "1abc_A.pdb"))
    moved.save(str(tmp_path / "protein" / "1abc_A_R1.xtc"))
    found = read(f"bioemu:{tmp_path}/one")
    assert parts_of(found) == [("one_traj_0_part0", 4), ("one_traj_0_part1", 2)]
    lines = []
    monkeypatch.setattr(molecules.logging, "info", lambda text, *a: lines.append(a))
    found = read(f"atlas:{tmp_path}/protein")
    assert parts_of(found) == [("1abc_A_R1_part0", 4), ("1abc_A_R1_part1", 2)]
    assert len({one.checksum for one in found}) == 2
    assert [note for _, note in lines] == [
        "left out: 1 frames with a bond that cannot be"
    ]
    with pytest.raises(UsageError, match=r"expected bonds .* frame 4"):
        read(f"{tmp_path}/protein/*.xtc")


def test_what_is_selected_is_packed_apart(tmp_path):
    start = published.peptide("AG")
    published.write_timewarp(tmp_path, "AG", start, BURSTS)
    (found,) = read(f"timewarp:{tmp_path}")
    (part,) = read(f"timewarp:{tmp_path}", select="resname ALA")
    assert (len(found.system.tokens), len(part.system.tokens)) == (2, 1)
    assert found.checksum != part.checksum


def test_times_of_steps_go_before_those_of_a_clock():
    steps = np.array([10_000, 20_000])
    clock = np.array([5.0001, 10.0])
    assert timewarp.times_of({"step": steps, "time": clock}).tolist() == [5.0, 10.0]
