"""Tests of packaged weights, and of the starts that come with them."""

import json

import jax
import mdtraj
import numpy as np
import pytest

from common.commands import cli
from common.errors import UsageError
from equijump import package, weights


@pytest.fixture(scope="module")
def run(finished):
    return weights.load_weights(finished[0])


def test_a_package_samples_as_its_run_does(run, loaded):
    """Weights, statistics and starts are those of the run, to the last bit."""
    assert loaded.checksum == run.checksum
    jax.tree.map(np.testing.assert_array_equal, loaded.params, run.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.statistics, run.statistics)
    assert list(loaded.molecules) == ["ala2"]
    assert list(run.molecules) == ["ala2_300K"]
    ours, theirs = loaded.molecules["ala2"], run.molecules["ala2_300K"]
    np.testing.assert_allclose(ours.starts, theirs.starts, atol=1e-4)
    for name in ("tokens", "chains", "slot_atoms", "bonds"):
        np.testing.assert_array_equal(
            getattr(ours.system, name), getattr(theirs.system, name)
        )
    assert ours.system.atom_names == theirs.system.atom_names


def test_starts_are_spread_over_what_validates(run, segments):
    starts = run.molecules["ala2_300K"].starts
    assert len(starts) == weights.NUM_STARTS
    held = np.concatenate([s.trajectory.positions for s in segments.validation])
    rows = [int(np.flatnonzero((held == start).all((1, 2)))[0]) for start in starts]
    assert np.ptp(np.diff(sorted(rows))) <= 1
    # Any few of them come from both trajectories.
    assert min(rows[:10]) < len(held) / 2 < max(rows[:10])


def test_a_package_is_small_and_names_no_file_of_the_machine(packaged):
    assert sorted(path.name for path in packaged.iterdir()) == [
        "ala2.pdb", "ala2.xtc", "config.json", "weights.npz",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in packaged.iterdir()) < 2e6
    config = json.loads((packaged / "config.json").read_text())["config"]
    assert (config["data"]["sources"], config["data"]["topology"]) == ([], "")
    assert mdtraj.load(packaged / "ala2.xtc", top=packaged / "ala2.pdb").n_atoms == 10


def test_half_precision_is_close(finished, loaded, tmp_path):
    given = [f"--workdir={finished[0]}", f"--output={tmp_path}", "--half"]
    assert package.main(given) == 0
    found = weights.load_weights(tmp_path)
    assert list(found.molecules) == ["ala2_300K"]
    for a, b in zip(*map(jax.tree.leaves, (found.params, loaded.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"workdir": "nowhere"}, "expected a training run"),
        ({"name": "../ala2"}, "--name: expected letters"),
        ({"output": "RUN"}, "--output: expected a folder of its own"),
    ],
)
def test_bad_usage_is_one_line(finished, changes, told, tmp_path, capsys):
    given = {"workdir": finished[0], "output": tmp_path / "out", **changes}
    given = [f"--{k}={finished[0] if v == 'RUN' else v}" for k, v in given.items()]
    assert cli.run("equijump package", package.main, given) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_config_of_another_model_is_told(packaged, tmp_path):
    record = json.loads((packaged / "config.json").read_text())
    del record["config"]["model"]["cutoff"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "weights.npz").write_bytes((packaged / "weights.npz").read_bytes())
    with pytest.raises(UsageError, match=r"expected config.model.cutoff.*found none"):
        weights.load_weights(tmp_path)


def test_the_packaged_weights_bring_their_starts_and_no_paths():
    loaded = weights.load_weights("ala2")
    assert len(loaded.molecules["ala2"].starts) == 100
    assert not loaded.config.data.sources
    assert loaded.config.data.lags == (10.0,)
    card = (weights.PRETRAINED / "ala2" / "MODEL_CARD.md").read_text("utf-8")
    count = sum(leaf.size for leaf in jax.tree.leaves(loaded.params))
    assert f"{count:,}" in card
