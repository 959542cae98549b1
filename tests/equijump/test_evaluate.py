"""Tests of trajectories judged against a reference: every figure on a known case."""

import base64
import json
import math

import mdtraj
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial import distance
from scipy.spatial.transform import Rotation

from common.errors import RunError
from equijump import cli
from equijump.data import features
from equijump.evaluate import (
    correlations,
    geometry,
    inputs,
    kinetics,
    measure,
    resampling,
    sides,
    validity,
    viewer,
)
from equijump.evaluate import report as write_report

PDB = inputs.PACKAGED / "ala2_300K.pdb"
FEW = measure.Settings(num_resamples=2)

# Å, of 5AWL (PDB, CC0).
CHIGNOLIN_CARBONS = np.array(
    [
        (24.935, 20.652, 10.774),
        (21.801, 19.381, 9.017),
        (18.477, 20.539, 10.432),
        (16.223, 17.660, 11.537),
        (13.040, 19.289, 10.212),
        (14.200, 20.806, 6.941),
        (17.256, 18.676, 6.039),
        (19.242, 21.760, 5.125),
        (22.762, 22.680, 6.241),
        (23.135, 25.467, 8.794),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def packaged():
    """Eight trajectories of 10 ns, one frame each 5 ps."""
    files = sorted(inputs.PACKAGED.glob("ala2_300K_*.xtc"))
    return inputs.read("--reference", files, None, 0.0, finite=True)


def thin(replicas, spacing):
    """Keeps frames, from the first on, at a larger spacing in ps."""
    every = round(spacing / replicas.spacing)
    kept = tuple(positions[::every] for positions in replicas.positions)
    return replicas._replace(positions=kept, spacing=spacing)


def some(replicas, *chosen):
    return replicas._replace(
        names=tuple(replicas.names[i] for i in chosen),
        positions=tuple(replicas.positions[i] for i in chosen),
    )


def changed(replicas, change):
    """Replicas of which the first went through `change`, which works in place."""
    first = np.array(replicas.positions[0])
    change(first)
    return replicas._replace(positions=(first, *replicas.positions[1:]))


def save(replicas, folder, suffix=".xtc", order=range(10)):
    """Writes each trajectory, with atoms in an order of the packaged PDB's."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for line in PDB.read_text().splitlines() if line.startswith("ATOM")]
    path = folder / "start.pdb"
    path.write_text("\n".join([*(lines[index] for index in order), "END", ""]))
    topology = mdtraj.load(str(path)).topology
    columns = np.argsort(replicas.system.kept)[list(order)]
    for index, positions in enumerate(replicas.positions):
        times = replicas.spacing * np.arange(1, len(positions) + 1)
        made = mdtraj.Trajectory(positions[:, columns] / 10.0, topology, times)
        made.save(str(folder / f"rollout_{index}{suffix}"))
    return str(folder / f"rollout_*{suffix}")


# Divergences


def test_jensen_shannon_is_zero_symmetric_bounded_and_scipys_squared():
    rng = np.random.default_rng(0)
    p, q = rng.gamma(0.3, size=(2, 50))
    found = resampling.jensen_shannon(p, q)
    assert resampling.jensen_shannon(p, 7.0 * p) == pytest.approx(0.0, abs=1e-15)
    assert found == pytest.approx(float(resampling.jensen_shannon(q, p)))
    assert np.sqrt(found) == pytest.approx(distance.jensenshannon(p, q))
    apart = resampling.jensen_shannon(np.array([1, 0]), np.array([0, 5]))
    assert apart == pytest.approx(np.log(2.0))


def test_floor_of_independent_frames_is_that_of_counting_noise():
    num_bins, num_frames, num_units = 40, 500, 8
    counts = np.random.default_rng(0).multinomial(
        num_frames, np.full(num_bins, 1 / num_bins), num_units
    )
    halves = resampling.draw(4, num_units, 200, seed=0).halves
    assert np.all(halves.sum(axis=1) == num_units // 2)
    size = num_frames * num_units / 2
    expected = (num_bins - 1) / 8 * (1 / size + 1 / size)
    assert resampling.floor_of(counts, halves) == pytest.approx(expected, rel=0.2)


def test_values_beyond_the_edges_count_in_the_end_bins():
    edges = np.linspace(0.0, 1.0, 5)
    values = np.array([[-3.0], [0.1], [0.6], [0.99], [8.0]])
    assert resampling.bins_of(values, (edges,)).tolist() == [0, 0, 2, 3, 3]


# Markov models

CHAIN = np.array([[0.90, 0.10, 0.00], [0.05, 0.90, 0.05], [0.00, 0.20, 0.80]])
WEIGHTS = np.array([2.0, 4.0, 1.0]) / 7.0  # In detailed balance with it.
SETS = {name: np.arange(3) == i for i, name in enumerate("abc")}


def chain_model(power=1, lag=1):
    matrix = np.linalg.matrix_power(CHAIN, power)
    return kinetics.fit_msm(1e4 * WEIGHTS[:, None] * matrix, lag)


def test_a_known_chain_gives_its_weights_time_scales_and_passage_times():
    msm = chain_model(power=4, lag=4)
    np.testing.assert_allclose(kinetics.stationary(msm, 3), WEIGHTS, atol=1e-8)
    eigenvalues = np.sort(np.linalg.eigvals(CHAIN).real)[::-1]
    np.testing.assert_allclose(
        kinetics.time_scales(msm, 3)[:2], -1.0 / np.log(eigenvalues[1:]), rtol=1e-6
    )
    assert np.isnan(kinetics.time_scales(msm, 3)[2])
    jumps = np.linalg.matrix_power(CHAIN, 4)
    expected = 4 * np.linalg.solve(np.eye(2) - jumps[:2, :2], np.ones(2))
    found = kinetics.passage_times(msm, SETS)
    assert found["a to c"] == pytest.approx(expected[0], rel=1e-6)
    assert found["b to c"] == pytest.approx(expected[1], rel=1e-6)


def test_a_markov_chain_passes_the_test_of_chapman_and_kolmogorov():
    predicted = kinetics.stay_probabilities(chain_model(), SETS, 5)
    estimated = kinetics.stay_probabilities(chain_model(power=5, lag=5), SETS, 1)
    for name in SETS:
        assert predicted[name] == pytest.approx(estimated[name], rel=1e-6)
        assert 0.1 < predicted[name] < 0.9


def test_transitions_are_counted_within_units_in_a_sliding_window():
    units = [np.array([0, 0, 1, 0]), np.array([1, 1, 1])]
    counts = kinetics.count_transitions(units, 2, 1)
    assert counts.toarray().tolist() == [[1, 1, 1, 0], [0, 0, 0, 2]]
    counts = kinetics.count_transitions(units, 2, 2)
    assert counts.toarray().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]


def test_states_that_do_not_connect_have_no_model():
    assert kinetics.fit_msm(np.diag([5.0, 3.0]), 1) is None
    assert np.isnan(kinetics.passage_times(None, SETS)["a to b"])


def autoregressive(rng, factor, count):
    noise = rng.normal(size=count)
    values = [0.0]
    for x in noise:
        values.append(factor * values[-1] + (1 - factor**2) ** 0.5 * x)
    return np.array(values[1:])


def test_tica_finds_the_slow_one_of_two_mixed_signals():
    rng = np.random.default_rng(0)
    slow = [autoregressive(rng, 0.98, 4000) for _ in range(3)]
    fast = [3.0 * rng.normal(size=4000) for _ in range(3)]
    mixed = [np.stack([s + f, s - f], axis=1) for s, f in zip(slow, fast, strict=True)]
    tica = features.fit_tica(mixed, lambda x: x, 5, dim=1)
    found = np.concatenate([tica.transform(unit)[:, 0] for unit in mixed])
    assert abs(np.corrcoef(found, np.concatenate(slow))[0, 1]) > 0.99


def test_autocorrelation_of_a_known_process_and_its_time_to_1_over_e():
    rng = np.random.default_rng(0)
    units = [autoregressive(rng, 0.9, 20_000)[:, None] for _ in range(4)]
    sums, terms = correlations.correlation_sums(units, 31)
    direct = sum(np.sum(u[:-3] * u[3:]) for u in (units[0] - np.mean(units),))
    assert sums[0, 3] == pytest.approx(direct)
    found = correlations.autocorrelation(sums, terms, np.ones((1, 4), int))[0]
    np.testing.assert_allclose(found, 0.9 ** np.arange(31), atol=0.05)
    assert correlations.time_below(found, np.exp(-1.0)) == pytest.approx(9.5, rel=0.1)
    assert np.isnan(correlations.time_below(np.ones(5), 0.5))


@pytest.mark.parametrize(
    ("phi", "psi", "basin"),
    [
        (-1.2, -0.7, "alphaR"), (-1.2, 1.1, "beta"), (-1.2, -2.1, "beta"),
        (1.0, 0.5, "phi>0"), (2.7, 0.5, "beta"), (-2.5, 2.8, "beta"),
    ],
)  # fmt: skip
def test_basins_have_the_bounds_they_state(phi, psi, basin):
    assert kinetics.BASINS[kinetics.basin_of(np.array(phi), np.array(psi))] == basin


# Geometry


def test_rmsd_and_gdt_are_mdtrajs_and_those_of_known_displacements():
    native = CHIGNOLIN_CARBONS
    rng = np.random.default_rng(0)
    moved = (
        native + rng.normal(size=(20, 10, 3)) * np.linspace(0.1, 4, 20)[:, None, None]
    )
    found = geometry.fold_measures(moved, native)
    theirs = mdtraj.Trajectory(moved / 10, None), mdtraj.Trajectory(native / 10, None)
    np.testing.assert_allclose(found["rmsd"], 10 * mdtraj.rmsd(*theirs), atol=1e-3)
    np.testing.assert_allclose(
        found["rg"], 10 * mdtraj.compute_rg(theirs[0]), atol=1e-3
    )
    centred = native - native.mean(axis=0)
    for frame, score in zip(moved, found["gdt_ts"], strict=True):
        frame = frame - frame.mean(axis=0)
        turn, _ = Rotation.align_vectors(centred, frame)
        away = np.linalg.norm(turn.apply(frame) - centred, axis=1)
        shares = [np.mean(away < limit) for limit in (1.0, 2.0, 4.0, 8.0)]
        assert score == pytest.approx(np.mean(shares), abs=1e-6)


def test_fold_is_whole_after_a_rigid_motion_and_lost_when_stretched():
    native = CHIGNOLIN_CARBONS
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    found = geometry.fold_measures(np.stack([native @ turn + 9, 3 * native]), native)
    assert found["rmsd"][0] == pytest.approx(0.0, abs=1e-3)
    assert found["gdt_ts"][0] == found["native_contacts"][0] == 1.0
    assert found["native_contacts"][1] < 0.2
    assert found["rg"][1] == pytest.approx(3 * found["rg"][0], rel=1e-4)


def test_a_fold_without_a_contact_has_no_share_of_them():
    line = 5.0 * np.arange(12.0)[:, None] * np.eye(3)[:1]
    found = geometry.fold_measures(np.stack([line, line + 1.0]), line)
    assert np.isnan(found["native_contacts"]).all()


def test_a_mirror_image_is_not_superposed():
    mirror = CHIGNOLIN_CARBONS * np.array([-1.0, 1.0, 1.0])
    found = geometry.fold_measures(mirror[None], CHIGNOLIN_CARBONS)
    assert found["rmsd"][0] > 1.0


def test_torsions_of_the_dipeptide_are_mdtrajs(packaged):
    torsions = geometry.find_torsions(packaged.system)
    assert sorted(torsions.kinds) == ["omega", "omega", "phi", "psi"]
    loaded = mdtraj.load(str(inputs.PACKAGED / "ala2_300K_0.xtc"), top=str(PDB))
    places = geometry.pairs_of_phi_and_psi(torsions)[1]
    found = geometry.torsions_of(packaged.positions[0][:50], torsions.atoms)
    for place, compute in zip(
        places, (mdtraj.compute_phi, mdtraj.compute_psi), strict=True
    ):
        expected = compute(loaded[:50], periodic=False)[1][:, 0]
        np.testing.assert_allclose(found[:, place], expected, atol=1e-3)


# Sides


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [(10.0, 1.0, 10.0), (10.0, 4.0, 20.0), (0.5, 0.75, 1.5), (2.00001, 5.0, 10.0)],
)
def test_the_common_spacing_is_the_smallest_common_multiple(first, second, common):
    assert inputs.common_spacing(first, second) == common


def test_a_finer_reference_keeps_its_frames_and_the_step_of_both(packaged):
    fine, others = some(packaged, 0, 1), some(packaged, 2, 3)
    coarse = thin(fine, 10.0)
    prepared = sides.prepare(coarse, others, 0.0, 0)
    assert prepared.spacing == 10.0
    assert [lag * prepared.spacing for lag in prepared.lags] == [10.0, 20.0, 50.0]
    assert len(prepared.sides["reference"].positions[0]) == 2000
    report = measure.evaluate(coarse, fine, measure.Settings(num_resamples=5))
    (basins,) = report["basins"].values()
    rates = [basins[name]["crossings_per_ns"]["value"] for name in sides.NAMES]
    scales = [report["models"][n]["time_scales"][0][0]["value"] for n in sides.NAMES]
    decays = [report["correlations"]["cos psi"][n]["decay_time"] for n in sides.NAMES]
    np.testing.assert_allclose(*rates, rtol=0.1)
    np.testing.assert_allclose(*scales, rtol=0.1)
    np.testing.assert_allclose(*(decay["value"] for decay in decays), rtol=0.1)
    times = [report[name]["nanoseconds"] for name in sides.NAMES]
    np.testing.assert_allclose(*times, rtol=1e-3)
    counts = report["distributions"]["TIC1"]["counts"]
    assert sum(counts["reference"]) == 3999  # The first trajectory lacks a frame.
    assert sum(counts["trajectory"]) == 2000


def test_a_single_trajectory_is_cut_into_blocks(packaged):
    prepared = sides.prepare(some(packaged, 1), some(packaged, 2), 0.0, 0)
    lengths = [len(block) for block in prepared.sides["trajectory"].states]
    assert lengths == [200] * sides.NUM_BLOCKS


# Validity


def scale_bond(positions):
    """Moves CB away from CA."""
    positions[500:, 7] += 0.3 * (positions[500:, 7] - positions[500:, 4])


def break_bond(positions):
    positions[700, 7] += 2.0 * (positions[700, 7] - positions[700, 4])


def collapse(positions):
    positions[900:] = 0.0


def lose_number(positions):
    positions[3, 0, 0] = np.nan


def mirror(positions):
    positions[..., 0] *= -1.0


def mirror_once(positions):
    positions[100:110, :, 0] *= -1.0


def judge(trajectory, reference):
    return measure.evaluate(trajectory, reference, FEW)


def test_a_stretched_bond_shows_in_lengths_and_costs_no_replica(packaged):
    report = judge(changed(some(packaged, 0, 1), scale_bond), some(packaged, 2, 3))
    assert report["trajectory"]["lost"] == []
    assert report["validity"]["reference"]["bond_rms"] < 0.03
    assert report["validity"]["trajectory"]["bond_rms"] > 0.08
    assert report["validity"]["trajectory"]["worst_bond"] > 0.4


@pytest.mark.parametrize(
    ("change", "frame", "reason"),
    [
        (break_bond, 700, "a bond CA-CB of"),
        (collapse, 900, "of 0.00 Å, not"),
        (lose_number, 3, "not finite"),
    ],
)
def test_a_broken_replica_is_counted_and_left_out(packaged, change, frame, reason):
    ours = changed(some(packaged, 0, 1, 4), change)
    whole, (lost,) = sides.keep_whole(ours, some(packaged, 2, 3))
    assert whole.names == packaged.names[1:2] + packaged.names[4:5]
    assert (lost.name, lost.frame) == (packaged.names[0], frame)
    assert reason in lost.reason
    with pytest.raises(RunError, match="0 of 1 replicas stayed whole"):
        sides.keep_whole(some(ours, 0), some(packaged, 2, 3))


def validity_of(packaged, change):
    norm = validity.norm_of(packaged.positions[2:4], packaged.system)
    ours = changed(some(packaged, 0), change)
    return validity.measure(ours.positions, ours.system, norm, 5.0)


def test_a_mirror_image_has_the_wrong_hand_everywhere(packaged):
    found = validity_of(packaged, mirror)
    assert found["wrong_hand_fraction"] == 1.0
    assert found["flips_per_ns"] == {"ALA2": 0.0}
    assert found["bond_rms"] < 0.03


def test_flips_of_handedness_are_counted(packaged):
    found = validity_of(packaged, mirror_once)
    assert found["wrong_hand_frames"] == {"ALA2": 10}
    assert found["flips_per_ns"]["ALA2"] == pytest.approx(2 / 9.99)
    whole = validity_of(packaged, lambda positions: None)
    assert whole["wrong_hand_fraction"] == 0.0


def test_clashes_are_seen_and_md_has_at_most_one_in_a_thousand(packaged):
    def fold_up(positions):
        positions[:50, 0] = positions[:50, 9] + np.array([1.0, 0, 0], np.float32)

    assert validity_of(packaged, fold_up)["clash_fraction"] >= 0.025
    norm = validity.norm_of(packaged.positions, packaged.system)
    found = validity.measure(packaged.positions, packaged.system, norm, 5.0)
    assert found["clash_fraction"] <= validity.CLASH_QUANTILE


# The whole


def slowest(report, name):
    return report["models"][name]["time_scales"][0][0]["value"]


def test_frames_left_out_without_telling_speed_up_the_dynamics(packaged):
    ours = some(packaged, 0, 1, 2, 3)
    skipped = tuple(positions[::4] for positions in ours.positions)
    report = judge(ours._replace(positions=skipped), ours)
    ratio = slowest(report, "reference") / slowest(report, "trajectory")
    assert ratio == pytest.approx(4.0, rel=0.25)
    (entry,) = report["basins"].values()
    crossings = [entry[name]["crossings_per_ns"]["value"] for name in sides.NAMES]
    assert crossings[0] > 2.0 * crossings[1]


def test_a_frozen_trajectory_has_no_time_scale_and_is_far_from_the_reference(packaged):
    def freeze(positions):
        positions[:] = positions[0]

    report = judge(changed(some(packaged, 1), freeze), some(packaged, 2, 3))
    assert slowest(report, "trajectory") is None
    assert report["models"]["trajectory"]["connected_states"] == 0
    entry = report["distributions"]["ALA2 phi, psi"]
    assert entry["js"] > 0.5
    assert entry["js_msm_reweighted"] is None
    assert json.dumps(report, allow_nan=False)
    assert "Ramachandran maps" in write_report.to_html(report)


@pytest.fixture(scope="module")
def folder(packaged, tmp_path_factory):
    """Four files against the packaged default, through the command."""
    folder = tmp_path_factory.mktemp("evaluate")
    thinned = thin(some(packaged, 4, 5, 6, 7), 10.0)
    pattern = save(thinned, folder / "run", order=(2, 1, 0, 6, 5, 4, 3, 7, 9, 8))
    output = str(folder / "report")
    arguments = [f"--trajectory={pattern}", f"--output={output}", "--num_resamples=10"]
    assert cli.main(["evaluate", *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report" / "report.json").read_text("utf-8"))


def test_half_of_the_reference_agrees_with_the_whole(report):
    entry = report["distributions"]["ALA2 phi, psi"]
    assert entry["js"] < entry["floor"] < 0.03
    assert entry["low"] <= entry["js"] <= entry["high"]
    assert entry["root"] == pytest.approx(math.sqrt(entry["js"]))
    assert abs(entry["js_msm_reweighted"] - entry["js"]) < 0.01
    for name in sides.NAMES:
        first = report["models"][name]["time_scales"][0][0]
        assert first["low"] < first["high"]
        assert 180 < first["value"] < 300
        basins = report["basins"]["ALA2"][name]["weights"]
        assert sum(entry["value"] for entry in basins.values()) == pytest.approx(1.0)
    assert report["models"]["lags"] == [10.0, 20.0, 50.0]


def test_the_page_needs_nothing_beside_it_and_has_all_parts(folder):
    page = (folder / "report" / "report.html").read_text("utf-8")
    for part in (
        "Ramachandran maps", "Free energies", "Implied time-scales", "Autocorrelations",
        "nats", "floor", "alphaR: phi below 0", "getContext", "data-scene",
        "replicas lost", "Slow coordinates", "molecule-library",
    ):  # fmt: skip
        assert part in page
    assert page.count("data:image/png;base64,") == 5
    assert "http:" not in page
    assert "https:" not in page


def test_the_viewer_has_the_frames_of_the_trajectory(folder, packaged):
    report = json.loads((folder / "report" / "report.json").read_text("utf-8"))
    scene = report["viewer"]["trajectory"]
    values = np.frombuffer(base64.b64decode(scene["positions"]), "<i2") * 0.01
    found = values.reshape(scene["num_frames"], len(scene["elements"]), 3)
    ours = packaged.positions[4][::10]
    assert scene["spacing"] == 50.0
    assert len(found) == viewer.NUM_FRAMES
    for bond in scene["bonds"]:
        lengths = [
            np.linalg.norm(x[:, bond[0]] - x[:, bond[1]], axis=1) for x in (found, ours)
        ]
        np.testing.assert_allclose(*lengths, atol=0.04)
    np.testing.assert_allclose(found.mean(axis=1), 0.0, atol=0.02)


def test_a_replica_without_numbers_from_its_first_frame_on_is_read(packaged, tmp_path):
    def spoil(positions):
        positions[:] = np.nan

    ours = changed(thin(some(packaged, 0, 1, 2), 100.0), spoil)
    files = inputs.find_files("--trajectory", [save(ours, tmp_path, ".h5")])
    found = inputs.read("--trajectory", files, str(PDB), 0.0, finite=False)
    whole, (lost,) = sides.keep_whole(found, packaged)
    assert len(whole.names) == 2
    assert lost.frame == 0


def save_peptide(folder):
    """Four trajectories of ten residues that sway slowly along one direction."""
    molecule = Chem.AddHs(Chem.MolFromSequence("AGAGAGAGAG"))
    assert AllChem.EmbedMolecule(molecule, randomSeed=1) == 0
    path = folder / "peptide.pdb"
    path.write_text(Chem.MolToPDBBlock(Chem.RemoveHs(molecule)))
    start = mdtraj.load(str(path))
    rng = np.random.default_rng(0)
    direction = np.zeros(start.xyz[0].shape)
    direction[:, 0] = start.xyz[0, :, 1] - start.xyz[0, :, 1].mean()
    for index in range(4):
        sway = 0.1 * autoregressive(rng, 0.95, 400)[:, None, None]
        xyz = start.xyz + sway * direction + 0.002 * rng.normal(size=start.xyz.shape)
        times = 10.0 * np.arange(1, 401)
        mdtraj.Trajectory(xyz, start.topology, times).save(
            str(folder / f"peptide_{index}.h5")
        )
    return sorted(folder.glob("peptide_*.h5")), path


def test_a_protein_is_judged_by_its_fold_and_by_clusters(tmp_path):
    files, path = save_peptide(tmp_path)
    ours = inputs.read("--trajectory", files[:2], None, 0.0, finite=False)
    theirs = inputs.read("--reference", files[2:], None, 0.0, finite=True)
    native = inputs.read_native(path, theirs.system)
    report = measure.evaluate(ours, theirs, FEW, native)
    assert {"rmsd", "gdt_ts", "rg", "native_contacts"} <= report["distributions"].keys()
    assert "k-means clusters" in report["models"]["states"]
    assert report["distributions"]["rmsd"]["means"]["reference"]["value"] < 1.0
    assert slowest(report, "reference") == pytest.approx(-10 / np.log(0.95), rel=0.5)
    assert report["models"]["reference"]["passage_times"].keys() == {
        "slow A to slow B", "slow B to slow A",
    }  # fmt: skip


def save_glycine(folder):
    """Glycine with caps: the packaged molecule without its CB."""
    start = mdtraj.load(str(inputs.PACKAGED / "ala2_300K_0.xtc"), top=str(PDB))[:50]
    start = start.atom_slice([a.index for a in start.topology.atoms if a.name != "CB"])
    next(r for r in start.topology.residues if r.name == "ALA").name = "GLY"
    folder.mkdir()
    start.save(str(folder / "glycine.xtc"))
    start[0].save(str(folder / "glycine.pdb"))
    return folder / "glycine.xtc"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trajectory=nowhere/*.xtc"], "--trajectory: expected files, found none"),
        (["--trajectory=RUN", "--reference=no*.xtc"], "--reference: expected files"),
        (["--trajectory=RUN", "--lag=7"], "--lag: expected a multiple of 10 ps"),
        (["--trajectory=RUN", "--lag=-1"], "--lag: expected 0 or more, found -1"),
        (["--trajectory=RUN", "--lag=9000"], "--trajectory: expected more than 1800"),
        (["--trajectory=RUN", "--num_resamples=1"], "expected 2 or more, found 1"),
        (["--trajectory=RUN", "--topology=no.pdb"], "found no no.pdb"),
        (["--trajectory=RUN", "--native=no.pdb"], "found no no.pdb"),
        (["--trajectory=RUN", "--refrence=a"], "did you mean --reference"),
        (["--reference=a"], "--trajectory"),
        (["--trajectory=GLY", "--suite=mdgen"], "--suite: expected --reference"),
        (
            ["--trajectory=GLY", "--reference=PACKAGED"],
            "--trajectory: expected ACE-ALA-NME (10 heavy atoms), found ACE-GLY-NME",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(
    arguments, told, folder, tmp_path, capsys
):
    files = {
        "RUN": folder / "run" / "rollout_*.xtc",
        "GLY": save_glycine(tmp_path / "glycine"),
        "PACKAGED": inputs.PACKAGED / "ala2_300K_*.xtc",
    }
    for name, path in files.items():
        arguments = [argument.replace(f"={name}", f"={path}") for argument in arguments]
    output = tmp_path / "report"
    assert cli.main(["evaluate", *arguments, f"--output={output}"]) == 2
    err = [
        line for line in capsys.readouterr().err.splitlines() if "packing" not in line
    ]
    assert len(err) == 1
    assert told in err[0]
    assert not output.exists()
