"""Tests of rollouts of peptides that no weights were trained on, by a tiny network."""

import json

import mdtraj
import numpy as np
import pytest

import equijump
from common.errors import UsageError
from equijump import builder, confidence, outcome, package, sample, sampler, weights
from equijump import starts as starts_of
from equijump.data import frames
from equijump.data.topology import to_topology
from equijump.transferable import Transferable
from tests.equijump.test_confidence import measured
from tests.equijump.test_sample import shake

KNOWN = Transferable(("ACE-ALA-NME", "ACE-GLY-ALA-NME"), False)
DYNAMICS = "ff14SB, OBC2, 300 K, friction 1/ps, not water"


@pytest.fixture(scope="module")
def peptides(finished, tmp_path_factory):
    """The network of six steps, packaged as one of several peptides."""
    folder = tmp_path_factory.mktemp("weights") / "peptides"
    of_run = weights.of_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "of_run", lambda config: (of_run(config)[0], KNOWN))
        given = [f"--workdir={finished[0]}", f"--output={folder}", "--no-starts"]
        assert package.main([*given, f"--dynamics={DYNAMICS}"]) == 0
    return folder


@pytest.fixture
def shaken(monkeypatch):
    monkeypatch.setattr(sampler, "make_jump", lambda *_: shake)


@pytest.fixture
def installed(peptides, monkeypatch, tmp_path):
    """The same as `peptides` beside the weights of the package."""
    for path in (peptides, weights.PRETRAINED / "ala2"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path)


def run(folder, *more, num_jumps=3):
    given = [f"--output={folder}", f"--num_jumps={num_jumps}", "--replicas=2", *more]
    assert sample.main(given) == 0
    return json.loads((folder / "sample.json").read_text())


def two_chains(path, bridged=False):
    """Writes two peptides side by side, their cysteines bonded if asked."""
    found = builder.build(("ACE", "CYS", "NME"), 1, 0)
    topology = to_topology(found.system)
    first = mdtraj.Trajectory(found.positions / 10.0, topology)
    second = mdtraj.Trajectory(found.positions / 10.0, topology)
    second.xyz = -first.xyz if bridged else first.xyz + 1.2
    if bridged:  # Turned by half a turn about an axis beside the sulphur.
        sulphur = first.xyz[0, found.system.atom_names.index("SG")]
        away = (sulphur - first.xyz[0].mean(axis=0)) / np.linalg.norm(
            sulphur - first.xyz[0].mean(axis=0)
        )
        second.xyz = first.xyz.copy()
        axis = np.cross(away, [0.0, 0.0, 1.0])
        axis /= np.linalg.norm(axis)
        about = second.xyz[0] - sulphur
        turned = 2.0 * np.outer(about @ axis, axis) - about
        second.xyz[0] = turned + sulphur + 0.204 * away
    first.stack(second).save(str(path))
    return path


def test_metadata_of_several_peptides_are_packaged(peptides):
    assert sorted(p.name for p in peptides.iterdir()) == ["config.json", "weights.npz"]
    record = json.loads((peptides / "config.json").read_text())["meta"]
    assert record["systems"] == []
    assert record["transferable"]["sequences"] == list(KNOWN.sequences)
    assert record["transferable"]["lags_ps"] == [10.0]
    loaded = weights.load_weights(peptides)
    assert loaded.transferable == KNOWN
    assert (loaded.dynamics, loaded.molecules) == (DYNAMICS, {})
    again = peptides.parent / "again"
    assert package.main([f"--workdir={peptides}", f"--output={again}"]) == 0
    assert weights.load_weights(again).transferable == KNOWN


def test_starts_cannot_be_left_out_of_one_system(finished, tmp_path):
    with pytest.raises(UsageError, match="--no-starts: expected a run of several"):
        package.main(
            [f"--workdir={finished[0]}", f"--output={tmp_path}", "--no-starts"]
        )


def test_a_sequence_is_rolled_out(peptides, shaken, tmp_path, capsys):
    asked = [f"--checkpoint={peptides}", "--sequence=GA"]
    record = run(tmp_path / "out", *asked)
    assert record["settings"]["system"] == "GA"
    assert record["dynamics"] == DYNAMICS
    assert record["outside_training"] == []
    assert record["confidence"] is None
    told = capsys.readouterr().out
    assert f"times and weights are those of {DYNAMICS}\n" in told
    assert "confidence: not calibrated\n" in told
    found = mdtraj.load(tmp_path / "out/GA_1.xtc", top=tmp_path / "out/GA.pdb")
    assert [r.name for r in found.topology.residues] == ["ACE", "GLY", "ALA", "NME"]
    assert found.n_frames == 4
    longer = run(tmp_path / "out", *asked, num_jumps=5)
    assert longer["result"]["num_jumps"] == 5


def test_a_calibration_is_told_with_the_rollout(peptides, shaken, tmp_path, capsys):
    checksum = weights.load_weights(peptides).checksum
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in peptides.iterdir():
        (folder / path.name).symlink_to(path)
    record = confidence.write(confidence.fit(measured(20), 10.0), checksum)
    (folder / confidence.FILE).write_text(json.dumps(record))
    made = run(tmp_path / "out", f"--checkpoint={folder}", "--sequence=GA")
    assert made["confidence"]["num_peptides"] == 20
    assert "confidence: JS of phi/psi about" in capsys.readouterr().out
    drawn = equijump.load(folder)
    drawn.sample(3, sequence="GA")
    assert drawn.summary.confidence.js[0] == pytest.approx(
        made["confidence"]["js"]["estimate"]
    )


def test_weights_are_picked_by_the_sequence(installed, shaken, tmp_path):
    assert run(tmp_path / "a", "--sequence=GA")["checkpoint"] == "peptides"
    assert run(tmp_path / "b", "--sequence=A")["checkpoint"] == "ala2"
    assert run(tmp_path / "c")["checkpoint"] == "ala2"
    drawn = equijump.load()
    (one,) = drawn.sample(2, sequence="GA")
    assert (one.n_residues, drawn.weights.name) == (4, "peptides")
    (other,) = drawn.sample(2)
    assert (other.n_residues, drawn.weights.name) == (3, "ala2")


def test_without_weights_for_a_sequence_commands_are_told():
    with pytest.raises(UsageError, match=r"GA: .*to make one: equijump simulate"):
        equijump.load("ala2").sample(2, sequence="GA")


def test_two_chains_are_rolled_out_by_the_network(peptides, tmp_path, monkeypatch):
    """Caps and a disulphide pass through as well."""
    monkeypatch.setattr(outcome, "check", lambda summary: None)
    told = []
    monkeypatch.setattr(starts_of.logging, "warning", lambda t, *a: told.append(t % a))
    path = two_chains(tmp_path / "two.pdb", bridged=True)
    drawn = equijump.load(peptides)
    (made,) = drawn.sample(3, start=path, num_steps=2, gate=False)
    assert (made.n_chains, made.n_residues, made.n_frames) == (2, 6, 4)
    assert np.isfinite(made.xyz).all()
    assert np.abs(made.xyz[1] - made.xyz[0]).max() > 1e-3
    bonds = {tuple(sorted((a.name, b.name))) for a, b in made.topology.bonds}
    assert ("SG", "SG") in bonds
    (line,) = told
    assert "2 chains (trained on 1); bonds between side chains, as disulphides" in line


def test_two_chains_are_not_bonded_end_to_end(tmp_path):
    path = two_chains(tmp_path / "two.pdb")
    system, _ = frames.read_structures(path, None, 1)
    assert system.chains.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(system.bonds) == 2 * 10
