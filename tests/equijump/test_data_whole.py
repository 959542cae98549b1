"""Tests of molecules made whole, and of frames that are no molecules."""

import mdtraj
import numpy as np
import pytest

from common.errors import UsageError
from equijump.data import frames
from tests.equijump.test_data_frames import make
from tests.equijump.test_data_topology import ALANINE_DIPEPTIDE

BOXES = {
    "cube": ((2.2, 2.2, 2.2), (90.0, 90.0, 90.0)),
    "bricks": ((2.2, 2.6, 3.0), (90.0, 90.0, 90.0)),
    "octahedron": ((2.4, 2.4, 2.4), (70.53, 109.47, 70.53)),
}


pytestmark = pytest.mark.usefixtures("fresh_cache")


def wrapped(trajectory, box):
    """The trajectory in a box, each atom put back into it by itself."""
    lengths, angles = box
    moved = trajectory.slice(range(trajectory.n_frames))
    count = moved.n_frames
    moved.unitcell_lengths, moved.unitcell_angles = [lengths] * count, [angles] * count
    edges = moved.unitcell_vectors.astype(np.float64)
    shifts = np.random.default_rng(0).uniform(0, 3, size=(count, 1, 3))
    fractions = np.einsum("fai,fij->faj", moved.xyz + shifts, np.linalg.inv(edges))
    moved.xyz = np.einsum("fai,fij->faj", fractions % 1.0, edges).astype(np.float32)
    return moved


def inner(positions):
    """Distances inside each frame, which a shift of the molecule leaves."""
    return np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)


@pytest.mark.parametrize("suffix", [".xtc", ".h5", ".dcd"])
@pytest.mark.parametrize("box", BOXES)
def test_a_molecule_over_the_edge_of_its_box_is_made_whole(
    tmp_path, topology, box, suffix
):
    plain = make(topology, count=40)
    split = wrapped(plain, BOXES[box])
    assert inner(10 * split.xyz).max() > 15.0
    split.save(str(tmp_path / f"run{suffix}"))
    spacing = 2.0 if suffix == ".dcd" else 0.0
    (found,) = frames.read_trajectories([tmp_path / f"run{suffix}"], topology, spacing)
    np.testing.assert_allclose(
        inner(found.positions[:]), inner(10 * plain.xyz), atol=0.03
    )


def test_starts_are_made_whole(tmp_path, topology):
    wrapped(make(topology, count=3), BOXES["cube"]).save(str(tmp_path / "run.h5"))
    _, found = frames.read_structures(tmp_path / "run.h5", None, 3)
    assert inner(found).max() < 12.0


def test_a_molecule_that_is_whole_stays_where_it_is(tmp_path, topology):
    made = make(topology)
    made.unitcell_lengths, made.unitcell_angles = [[0.9] * 3] * 7, [[90.0] * 3] * 7
    made.save(str(tmp_path / "run.h5"))
    (found,) = frames.read_trajectories([tmp_path / "run.h5"], topology)
    np.testing.assert_array_equal(found.positions[:], made.xyz * np.float32(10))


def change(frame, atom, value):
    def spoil(xyz):
        xyz[frame, atom] += value

    return spoil


SPOILT = [
    (
        change(5, 0, 3.0),
        r"ACE1:CH3-ACE1:C of \d+\.\d+ Å in frame 5.*trjconv -pbc whole",
    ),
    (change(5, 0, 1e29), r"found one of 1e\+30 Å in frame 5, counted from 0; the file"),
    (change(5, 4, [0.2, 0, 0]), "in frame 5"),
    (lambda xyz: np.multiply(xyz, 10, out=xyz), "as of Å where nm belong; divide"),
    (lambda xyz: np.divide(xyz, 10, out=xyz), "as of nm where Å belong; divide"),
    (
        lambda xyz: np.multiply(xyz, 1.8897, out=xyz),
        "as of bohr where Å belong; divide",
    ),
    (lambda xyz: np.multiply(xyz, 18.897, out=xyz), "as of bohr where nm belong"),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILT)
def test_a_frame_that_is_no_molecule_is_told(tmp_path, topology, spoil, told):
    path = tmp_path / "run.h5"
    make(topology, change=spoil).save(str(path))
    with pytest.raises(UsageError, match=told):
        frames.read_trajectories([path], topology)
    with pytest.raises(UsageError, match=told):
        frames.read_structures(path, None, 7)
    with pytest.raises(UsageError, match=told):
        frames.from_mdtraj(mdtraj.load(str(path)), "start", 7)


def test_a_split_first_frame_without_a_box_is_told_with_the_bond(tmp_path, topology):
    make(topology, change=change(0, 0, 3.0)).save(str(tmp_path / "run.h5"))
    told = r"found CH3 C O in ACE1 .* with CH3-C of .* Å; split over .* -pbc whole"
    with pytest.raises(UsageError, match=told):
        frames.read_trajectories([tmp_path / "run.h5"], topology)


@pytest.mark.parametrize("value", [1e29, np.nan])
def test_a_first_frame_that_is_damaged_is_told(tmp_path, topology, value):
    make(topology, change=change(0, 0, value)).save(str(tmp_path / "run.h5"))
    told = r"of ACE, bonded as there, found .* positions up to .* the file is damaged"
    with pytest.raises(UsageError, match=told):
        frames.read_trajectories([tmp_path / "run.h5"], topology)


def test_broken_frames_stay_where_they_are_to_be_judged(tmp_path, topology):
    make(topology, change=change(0, 0, 3.0)).save(str(tmp_path / "run.h5"))
    (found,) = frames.read_trajectories([tmp_path / "run.h5"], topology, finite=False)
    assert inner(found.positions[:1]).max() > 20.0


def test_another_unit_is_told_of_frames_to_be_judged(tmp_path, topology):
    tenfold = lambda xyz: np.multiply(xyz, 10, out=xyz)
    make(topology, change=tenfold).save(str(tmp_path / "run.h5"))
    with pytest.raises(UsageError, match="as of Å where nm belong; divide positions"):
        frames.read_trajectories([tmp_path / "run.h5"], topology, finite=False)


def test_hot_and_rounded_frames_pass(tmp_path, topology):
    made = make(topology, count=500)  # .1 Å on each axis, twice that of 500 K.
    made.xyz = np.round(made.xyz, 2)
    made.save(str(tmp_path / "run.xtc"))
    (found,) = frames.read_trajectories([tmp_path / "run.xtc"], topology)
    assert len(found.positions) == 500


def two_molecules(tmp_path):
    """Two dipeptides beside each other, of which the second drifts away."""
    path = tmp_path / "two.pdb"
    second = [
        f"{x[:21]}B{x[22:30]}{float(x[30:38]) + 8:8.3f}{x[38:]}"
        for x in ALANINE_DIPEPTIDE.splitlines()
        if x.startswith("ATOM")
    ]
    first = ALANINE_DIPEPTIDE.splitlines()[:-1]
    path.write_text("\n".join([*first, "TER", *second, "END", ""]))
    made = make(path, count=60)
    made.xyz[:, 10:, 1] += np.linspace(0.0, 1.5, 60)[:, None].astype(np.float32)
    return path, made


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("chunk", [7, 20_000])
def test_molecules_stay_together_from_frame_to_frame(tmp_path, box, chunk, monkeypatch):
    monkeypatch.setattr(frames.files, "CHUNK", chunk)
    topology, plain = two_molecules(tmp_path)
    wrapped(plain, BOXES[box]).save(str(tmp_path / "run.h5"))
    (found,) = frames.read_trajectories([tmp_path / "run.h5"], topology)
    np.testing.assert_allclose(
        inner(found.positions[:]), inner(10 * plain.xyz), atol=0.03
    )


def test_a_complex_in_one_piece_stays_as_it_is_however_long(tmp_path):
    """Three molecules in a row, whose ends are nearer to an image of each other."""
    _, plain = two_molecules(tmp_path)
    third = plain.atom_slice(range(10))
    third.xyz[:, :, 0] -= 0.8
    row = plain[:1].stack(third[:1])
    row.unitcell_lengths, row.unitcell_angles = [[2.9] * 3], [[90.0] * 3]
    row.save(str(tmp_path / "row.h5"))
    _, found = frames.read_structures(tmp_path / "row.h5", None, 1)
    np.testing.assert_allclose(found, 10 * row.xyz, atol=1e-4)
    row.xyz[:, 20:, 0] += 2.9
    row.save(str(tmp_path / "row.h5"))
    _, found = frames.read_structures(tmp_path / "row.h5", None, 1)
    row.xyz[:, 20:, 0] -= 2.9
    np.testing.assert_allclose(found, 10 * row.xyz, atol=1e-3)


def test_starts_have_the_images_that_touch(tmp_path):
    topology, plain = two_molecules(tmp_path)
    wrapped(plain[:5], BOXES["cube"]).save(str(tmp_path / "run.h5"))
    _, found = frames.read_structures(tmp_path / "run.h5", topology, 5)
    np.testing.assert_allclose(inner(found), inner(10 * plain.xyz[:5]), atol=0.03)


def test_molecules_that_never_jumped_stay_where_they_are(tmp_path):
    topology, plain = two_molecules(tmp_path)
    plain.xyz[:, 10:, 1] += np.linspace(0.0, 4.0, 60)[:, None].astype(np.float32)
    plain.unitcell_lengths, plain.unitcell_angles = [[2.2] * 3] * 60, [[90.0] * 3] * 60
    plain.save(str(tmp_path / "run.h5"))
    (found,) = frames.read_trajectories([tmp_path / "run.h5"], topology)
    np.testing.assert_array_equal(found.positions[:], plain.xyz * np.float32(10))
