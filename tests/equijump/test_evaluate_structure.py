"""Tests of the structure of frames, by MDTraj or by formulas written out."""

import itertools

import mdtraj
import numpy as np
import pytest

from equijump.data import frames
from equijump.data.topology import in_slot_order, slot_order
from equijump.evaluate import folding, inputs, mdgen, measure, structure

NAMES = ("N", "CA", "C", "O", "CB")


def place(a, b, c, length, angle, torsion):
    """Returns the atom that is bonded to c, at an angle with b and a torsion from a."""
    angle, torsion = np.radians([angle, torsion])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    turned = np.cos(torsion) * np.cross(normal, axis) + np.sin(torsion) * normal
    return c + length * (-np.cos(angle) * axis + np.sin(angle) * turned)


def polyalanine(size, phi, psi):
    """Returns a PDB text of alanines with ideal bonds."""
    start = [(0.0, 0.0, 0.0), (1.46, 0.0, 0.0), (2.01, 1.42, 0.0)]
    chain = [np.array(atom) for atom in start]
    for _ in range(size):
        chain.append(place(*chain[-3:], 1.33, 116.6, psi))
        chain.append(place(*chain[-3:], 1.46, 121.7, 180.0))
        chain.append(place(*chain[-3:], 1.53, 111.0, phi))
    lines = []
    for i in range(size):
        n, ca, c = chain[3 * i : 3 * i + 3]
        cb = place(c, n, ca, 1.53, 110.5, -122.5)
        o = place(n, ca, c, 1.23, 120.4, psi + 180.0)
        for name, atom in zip(NAMES, (n, ca, c, o, cb), strict=True):
            numbers = "".join(f"{x:8.3f}" for x in atom)
            lines.append(
                f"ATOM  {len(lines) + 1:5d}  {name:<3} ALA A{i + 1:4d}    {numbers}"
                f"  1.00  0.00           {name[0]}"
            )
    return "\n".join([*lines, "END", ""])


@pytest.fixture(scope="module")
def helix(tmp_path_factory):
    """System and atoms of an ideal helix of fourteen alanines, in Å, and its file."""
    path = tmp_path_factory.mktemp("helix") / "helix.pdb"
    path.write_text(polyalanine(14, phi=-60.0, psi=-45.0))
    system, positions = frames.read_structures(path, None, 1)
    ordered = positions[:, slot_order(system)].astype(np.float64)
    return in_slot_order(system), ordered[0], path


def measured(system, native, positions):
    probes = structure.find_probes(system, native, positions[0])
    names = structure.names_of(probes)
    total = structure._Total(probes)
    values = structure._measure_unit(positions, probes, names, total)
    return dict(zip(names, values.T, strict=True)), total, probes


def test_a_helix_is_a_helix_with_its_hydrogen_bonds(helix):
    system, native, path = helix
    found, total, _ = measured(system, native, native[None])
    loaded = mdtraj.load(str(path))
    letters = mdtraj.compute_dssp(loaded)[0]
    assert (total.helix == (letters == "H")).all()
    assert total.helix.sum() >= 10
    assert found["helix"][0] == pytest.approx(np.mean(letters == "H"))
    bonds = mdtraj.kabsch_sander(loaded)[0]
    assert found["hydrogen_bonds"][0] == np.sum(bonds.data < -0.5) >= 10
    assert found["strand"][0] == 0.0


def test_size_is_mdtrajs_and_the_end_is_where_it_is(helix):
    system, native, path = helix
    found, _, _ = measured(system, native, native[None])
    carbons = mdtraj.load(str(path)).atom_slice(
        [a.index for a in mdtraj.load(str(path)).topology.atoms if a.name == "CA"]
    )
    assert found["rg"][0] == pytest.approx(10 * mdtraj.compute_rg(carbons)[0], rel=1e-4)
    ends = 10 * np.linalg.norm(carbons.xyz[0, -1] - carbons.xyz[0, 0])
    assert found["end_to_end"][0] == pytest.approx(ends, rel=1e-4)


def test_q_is_the_formula_over_all_pairs_of_heavy_atoms(helix):
    system, native, _ = helix
    rng = np.random.default_rng(0)
    frame = native * 1.3 + rng.normal(0.0, 0.3, native.shape)
    found, _, probes = measured(system, native, np.stack([native, frame]))
    residue = {
        atom: i for i, row in enumerate(system.slot_atoms) for atom in row if atom >= 0
    }
    terms = []
    for a, b in itertools.combinations(range(len(native)), 2):
        first = np.linalg.norm(native[a] - native[b])
        if first < 4.5 and abs(residue[a] - residue[b]) > 3:
            now = np.linalg.norm(frame[a] - frame[b])
            terms.append(1.0 / (1.0 + np.exp(5.0 * (now - 1.8 * first))))
    assert len(terms) == len(probes.contacts) > 10
    assert found["q"][0] == pytest.approx(1.0, abs=2e-3)
    assert found["q"][1] == pytest.approx(np.mean(terms), abs=1e-5)


def test_fluctuations_are_those_about_the_mean_after_superposition(helix):
    system, native, _ = helix
    rng = np.random.default_rng(1)
    shifts = np.zeros((400, *native.shape))
    carbons = system.slot_atoms[:, 1]
    shifts[:, carbons[6], 2] = rng.normal(0.0, 1.0, 400)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    _, total, _ = measured(system, native, (native + shifts) @ turn + 7.0)
    found = total.rmsf()
    assert np.argmax(found) == 6
    assert found[6] == pytest.approx(0.9, abs=0.15)  # Some of it is superposed away.
    assert np.delete(found, 6).max() < 0.3


def test_contacts_are_shares_of_frames(helix):
    system, native, _ = helix
    stretched = native * 4.0
    _, total, probes = measured(system, native, np.stack([native, stretched]))
    carbons = native[system.slot_atoms[:, 1]]
    apart = np.linalg.norm(carbons[:, None] - carbons, axis=-1)
    near = apart[tuple(probes.pairs.T)] < 8.0
    assert (total.contacts / total.frames == np.where(near, 0.5, 0.0)).all()


def test_caps_and_short_peptides_have_what_they_can_have(tmp_path):
    path = tmp_path / "two.pdb"
    path.write_text(polyalanine(2, phi=-60.0, psi=-45.0))
    system, positions = frames.read_structures(path, None, 1)
    positions = positions[:, slot_order(system)].astype(np.float64)
    found, _, _ = measured(in_slot_order(system), None, positions)
    assert set(found) == {"rg", "end_to_end", "hydrogen_bonds"}
    found, _, _ = measured(in_slot_order(system), positions[0], positions)
    assert {"rmsd", "gdt_ts"} < set(found)
    assert "q" not in found
    assert found["rmsd"][0] == pytest.approx(0.0, abs=1e-3)


def test_folds_go_from_core_to_core_and_take_their_time():
    shares = np.array([0.2] * 10 + [0.5, 0.64, 0.5] + [0.9] * 20 + [0.4] + [0.1] * 5)
    counted = folding.counts_of(shares)
    assert counted.tolist() == [39.0, 23.0, 18.0, 21.0, 1.0, 1.0]
    found = folding._measure([shares] * 3, np.full((4, 3), 1), spacing=2.0)
    assert found["folded"]["value"] == pytest.approx(23 / 39)
    assert found["folding_time"]["value"] == pytest.approx(36.0)
    assert found["unfolding_time"]["value"] == pytest.approx(42.0)
    assert (found["foldings"], found["unfoldings"]) == (3, 3)
    never = folding._measure([np.full(9, 0.9)], np.ones((2, 1), int), spacing=1.0)
    assert never["folded"]["value"] == 1.0
    assert np.isnan(never["folding_time"]["value"])


@pytest.fixture(scope="module")
def report(helix):
    """Trajectories of a helix that is stretched and comes back, on both sides."""
    system, native, _ = helix
    rng = np.random.default_rng(0)
    melted = native * np.array([1.0, 1.0, 1.2])
    sway = lambda factor: (
        native
        + factor[:, None, None] * (melted - native)
        + rng.normal(0.0, 0.02, (len(factor), *native.shape))
    ).astype(np.float32)
    course = lambda: np.cumsum(rng.normal(0.0, 0.1, 80))
    side = lambda: inputs.Replicas(
        ("a", "b"), system, tuple(sway(np.sin(course())) for _ in range(2)), 10.0
    )
    settings = measure.Settings(num_resamples=5, suite="mdgen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdgen, "NUM_STATES", 3)
        return measure.evaluate(side(), side(), settings, native)


def test_a_report_has_the_structure_of_both_sides(report):
    found = report["structure"]
    assert found["native"] == "the file given"
    assert found["residues"][0] == "ALA1"
    assert len(found["residues"]) == len(found["rmsf"]["trajectory"]) == 14
    assert len(found["contacts"]["reference"]) == 14 * 13 // 2
    series = found["series"]["trajectory"]
    assert len(series) == 2
    assert series[0]["times"][:2] == [0.0, 10.0]
    assert {"rmsd", "rg", "q", "helix", "hydrogen_bonds"} <= series[0].keys()
    names = report["distributions"]
    assert {"q", "rmsd", "end_to_end", "TIC1, TIC2"} <= names.keys()
    assert report["folding"]["reference"]["folded"]["value"] == 1.0


def test_a_suite_of_mdgen_stands_beside_its_floor(report):
    found = report["mdgen"]
    assert 0.0 < found["trajectory"]["backbone"] < 0.8326
    assert found["trajectory"]["side_chain"] is None  # Alanine has none.
    assert 0.0 < found["floor"]["backbone"] < 0.8326
    assert found["decorrelation"].keys() == {"trajectory", "reference"}
