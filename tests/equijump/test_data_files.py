"""Tests of which files are found and read, and of what is said of others."""

import gzip
import zipfile

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from configs.equijump import tiny
from equijump.data import files, frames
from equijump.data.sources import trajectories
from equijump.evaluate import inputs
from tests.equijump.test_data_frames import make
from tests.equijump.test_data_topology import ALANINE_DIPEPTIDE

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def topology(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = folder / "ala2.pdb"
    path.write_text(ALANINE_DIPEPTIDE)
    return path


def beside(path, suffix):
    """A topology of a trajectory, in one of the formats."""
    if suffix == ".pdb.gz":
        path.with_name(f"{path.stem}.pdb.gz").write_bytes(
            gzip.compress(ALANINE_DIPEPTIDE.encode())
        )
        return
    pdb = path.with_suffix(".pdb")
    pdb.write_text(ALANINE_DIPEPTIDE)
    if suffix != ".pdb":
        mdtraj.load(str(pdb)).save(str(path.with_suffix(suffix)))
        pdb.unlink()


@pytest.mark.parametrize("suffix", [".pdb", ".gro", ".pdb.gz", ".cif"])
def test_train_sample_and_evaluate_find_the_topology_beside(tmp_path, topology, suffix):
    path = tmp_path / "run.xtc"
    make(topology).save(str(path))
    try:
        beside(path, suffix)
    except ImportError as error:  # A format that MDTraj writes with further packages.
        pytest.skip(f"MDTraj does not write {suffix}: {error}")
    data = tiny.get_config().data
    (trained,) = trajectories.read(str(path), data)
    judged = inputs.read("--trajectory", [path], None, 0.0, finite=False)
    system, starts = frames.read_structures(path, None, 2)
    assert len(trained.positions) == len(judged.positions[0]) == 7
    assert starts.shape == (2, 10, 3)
    assert len(system.tokens) == 3


@pytest.mark.parametrize("suffix", [".gro", ".pdb", ".h5"])
def test_a_file_with_names_of_atoms_needs_no_topology(tmp_path, topology, suffix):
    path = tmp_path / f"run{suffix}"
    make(topology).save(str(path))
    data = tiny.get_config().data
    data.spacing = 2.0
    (trained,) = trajectories.read(str(path), data)
    assert trained.positions.shape == (7, 10, 3)


PSF = """PSF

       1 !NTITLE
 REMARKS none

      10 !NATOM
{atoms}

       9 !NBOND: bonds
       1       2       2       3       2       4       4       5
       5       6       5       7       7       8       7       9
       9      10

"""


def test_a_psf_serves_as_topology_of_both_sides(tmp_path, topology):
    rows = [line for line in ALANINE_DIPEPTIDE.splitlines() if line[:4] == "ATOM"]
    masses = {"C": 12.011, "N": 14.007, "O": 15.999}
    lines = [
        f"{k:8d} A    {x[22:26].strip():<4} {x[17:20]:<4} {x[12:16].strip():<4} "
        f"{x[77]:<4} {0.0:10.6f} {masses[x[77]]:13.4f} {0:11d}"
        for k, x in enumerate(rows, start=1)
    ]
    (tmp_path / "run.psf").write_text(PSF.format(atoms="\n".join(lines)))
    path = tmp_path / "run.dcd"
    make(topology).save(str(path))
    found = inputs.read("--trajectory", [path], None, 2.0, finite=False)
    assert found.positions[0].shape == (7, 10, 3)


def test_the_flag_of_the_topology_is_named(tmp_path, topology):
    path = tmp_path / "run.xtc"
    make(topology).save(str(path))
    with pytest.raises(UsageError, match=r"--config\.data\.topology: .* found 0 files"):
        list(trajectories.read(str(path), tiny.get_config().data))
    for flag, name in (("--trajectory", "--topology"), ("--reference", "--reference_")):
        with pytest.raises(UsageError, match=f"^{name}"):
            inputs.read(flag, [path], None, 0.0, finite=True)
    with pytest.raises(UsageError, match=r"^--topology: expected the topology of"):
        frames.read_structures(path, None, 1)


def save_container(path, kind):
    if kind == "mdcath":
        import tables

        with tables.open_file(str(path), "w") as file:
            file.root._v_attrs["layout"] = "mdcath-only-protein-v1.0"
            file.create_group(file.root, "1abcA00")
    elif kind == "misato":
        import tables

        with tables.open_file(str(path), "w") as file:
            group = file.create_group(file.root, "11GS")
            file.create_array(group, "trajectory_coordinates", np.zeros((2, 3, 3)))
    elif kind == "atlas":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("1a2b_A_R1.xtc", b"")
            file.writestr("1a2b_A.pdb", b"")
    elif kind == "gz":
        path.write_bytes(gzip.compress(b"any"))
    elif kind == "mdgen":
        np.save(path, np.zeros((2, 4, 14, 3), np.float16))
    else:
        names = {
            "timewarp": ("positions", "step", "time"),
            "peptides": ("high", "low", "spacing_ps"),
            "bioemu": ("pos", "node_orientations", "sequence"),
            "mdshare": ("arr_0", "arr_1"),
        }
        np.savez(path, **{name: np.zeros(2) for name in names[kind]})


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("a.h5", "mdcath", "an HDF5 file of mdCATH.*mdcath:PATH.*docs/data.md"),
        ("a.h5", "misato", "an HDF5 file of MISATO"),
        ("AAA-traj-arrays.npz", "timewarp", "arrays of Timewarp.*timewarp:PATH"),
        ("A.npz", "peptides", "a packed set of peptides.*peptides:PATH"),
        ("b.npz", "bioemu", "samples of BioEmu.*samples.xtc"),
        ("a.npz", "mdshare", "arrays arr_0, arr_1 without names of atoms"),
        ("a.npy", "mdgen", "an array of MDGen: 14 atoms.*mdgen:PATH"),
        ("a.zip", "atlas", "an archive of ATLAS with 1 trajectories; unpack it"),
        ("a.xtc.gz", "gz", "a compressed file; unpack it by gunzip"),
    ],
)
def test_containers_of_other_sets_are_named(tmp_path, topology, name, kind, told):
    path = tmp_path / name
    save_container(path, kind)
    data = tiny.get_config().data
    for of in ("", str(topology)):
        data.topology = of
        with pytest.raises(UsageError, match=rf"{name}: expected .*{told}") as raised:
            list(trajectories.read(str(path), data))
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match=told):
        frames.read_structures(path, topology, 1)


def test_a_format_that_mdtraj_does_not_read_is_told_what_to_do(tmp_path, topology):
    path = tmp_path / "run.mae"
    path.write_text("any")
    with pytest.raises(UsageError, match="convert it to XTC, e"):
        frames.read_trajectories([path], topology)


def test_the_end_of_a_name_tells_the_format(tmp_path):
    assert files.suffix_of(tmp_path / "a.b.XTC") == ".xtc"
    assert files.suffix_of(tmp_path / "a.pdb.gz") == ".pdb.gz"


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("run.PDB", lambda text: text, "a name in capitals; rename it to run.pdb"),
        ("run.pdb", gzip.compress, "a compressed file; rename it to run.pdb.gz"),
        ("run.pdb.gz", lambda text: text, "not compressed; rename it to run.pdb"),
        ("run.pdb", lambda text: b"", "expected a topology, found an empty file"),
        (
            "run.pdb",
            lambda text: b"END\n",
            "no atoms, damage, or another format; write",
        ),
        ("run.rst7", lambda text: text, "expected the topology of"),
    ],
)
def test_what_a_name_hides_is_told(tmp_path, name, change, told):
    path = tmp_path / name
    path.write_bytes(change(ALANINE_DIPEPTIDE.encode()))
    with pytest.raises(UsageError, match=told) as caught:
        frames.read_structures(path, None, 1)
    assert "\n" not in str(caught.value)


def test_models_of_different_atoms_are_told(tmp_path):
    rows = [line for line in ALANINE_DIPEPTIDE.splitlines() if line[:4] == "ATOM"]
    models = [
        ["MODEL        1", *rows, "ENDMDL"],
        ["MODEL        2", *rows[:-2], "ENDMDL"],
    ]
    path = tmp_path / "models.pdb"
    path.write_text("\n".join([*models[0], *models[1], "END", ""]))
    with pytest.raises(UsageError, match="models of different atoms; keep those"):
        frames.read_structures(path, None, 2)


def test_a_restart_of_one_frame_is_no_trajectory(tmp_path, topology):
    make(topology, count=1).save(str(tmp_path / "run.rst7"))
    with pytest.raises(UsageError, match="a format that it does not read; convert it"):
        frames.read_trajectories([tmp_path / "run.rst7"], topology)


def test_a_folder_is_no_structure(tmp_path):
    with pytest.raises(
        UsageError, match="expected a file of a structure, found a folder"
    ):
        frames.read_structures(tmp_path, None, 1)


@pytest.mark.parametrize("name", ["run.pdb", "run.pdb.gz"])
def test_alternative_places_are_told(tmp_path, name):
    pack = gzip.compress if name.endswith(".gz") else bytes
    rows = [row for row in ALANINE_DIPEPTIDE.splitlines() if row.startswith("ATOM")]
    twice = [row[:16] + mark + row[17:] for mark in "AB" for row in rows[4:6]]
    text = "\n".join(
        ["MODEL        1", *rows[:4], *twice, *rows[6:], "ENDMDL", "END", ""]
    )
    path = tmp_path / name
    path.write_bytes(pack(text.encode()))
    assert files.notes_of(path) == ["left out: 2 alternative places of atoms"]
    system, _ = frames.read_structures(path, None, 1)
    assert len(system.kept) == 10
    path.write_bytes(pack(ALANINE_DIPEPTIDE.encode()))
    assert files.notes_of(path) == []
