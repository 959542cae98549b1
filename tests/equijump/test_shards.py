"""Tests of rollouts and simulations in parts: joined, they are of one process."""

import shutil

import jax
import mdtraj
import numpy as np
import pytest

from common.commands import cli
from common.errors import UsageError
from equijump import (
    merge,
    options,
    outcome,
    sample,
    sampler,
    simulate,
    trajfile,
    weights,
)
from equijump.data.topology import to_topology
from tests.equijump.test_simulate import QUICK


def shake(params, cloud, chain, key):
    """Stands for the network, and compiles at once."""
    noise = jax.random.normal(key, cloud.shape)
    return cloud + 0.01 * noise * chain.slot_mask[..., None]


@pytest.fixture
def shaken(monkeypatch):
    monkeypatch.setattr(sampler, "make_jump", lambda *_: shake)


@pytest.fixture
def flags(packaged):
    return (
        f"--checkpoint={packaged}", "--chunk=4", "--seed=3", "--num_jumps=6",
        "--replicas=4",
    )  # fmt: skip


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "state.npz"}


def run(count, output, *flags):
    """Rolls out so many parts, the last one first."""
    for index in reversed(range(count)):
        shard = f"--shard={index}/{count}"
        assert sample.main([f"--output={output}", shard, *flags]) == 0
    assert not output.exists()
    return output


@pytest.mark.parametrize("suffix", trajfile.FORMATS)
def test_rollouts_of_parts_are_what_one_process_writes(
    shaken, flags, suffix, tmp_path, capsys
):
    flags = (*flags, f"--format={suffix}")
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    assert sample.main([f"--output={whole}", *flags]) == 0
    run(2, joined, *flags)
    assert sorted(p.name for p in (tmp_path / "joined.1-of-2").iterdir()) == sorted(
        ["ala2.pdb", "sample.json", "state.npz", f"ala2_2.{suffix}", f"ala2_3.{suffix}"]
    )
    assert merge.main([str(joined)]) == 0
    assert "4 replicas, of 2 parts" in capsys.readouterr().out
    one, other = contents(joined), contents(whole)
    if suffix == "h5":  # Its files have times of the clock, and cannot be gone on with.
        assert one.keys() == other.keys()
        for number in range(4):
            name = f"ala2_{number}.h5"
            a, b = (mdtraj.load(folder / name).xyz for folder in (joined, whole))
            np.testing.assert_array_equal(a, b)
        return
    assert one == other
    # It goes on as the whole one does.
    for folder in (joined, whole):
        assert sample.main([f"--output={folder}", *flags, "--num_jumps=8"]) == 0
    assert contents(joined) == contents(whole)


def test_a_part_goes_on_and_is_joined_when_it_is_done(shaken, flags, tmp_path):
    joined = run(2, tmp_path / "joined", *flags)
    longer = [f"--output={joined}", *flags, "--num_jumps=8"]
    assert sample.main([*longer, "--shard=1/2"]) == 0
    with pytest.raises(UsageError, match=r"joined.0-of-2: expected 8 jumps, found 6"):
        merge.main([str(joined)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "joined.0-of-2", "joined.1-of-2",
    ]  # fmt: skip
    assert sample.main([*longer, "--shard=0/2"]) == 0
    assert merge.main([str(joined)]) == 0
    whole = tmp_path / "whole"
    assert sample.main([f"--output={whole}", *flags, "--num_jumps=8"]) == 0
    assert contents(joined) == contents(whole)
    with pytest.raises(UsageError, match=r"joined: expected no folder, found one"):
        merge.main([str(joined)])


def test_parts_of_another_rollout_are_not_joined(shaken, flags, tmp_path, capsys):
    joined = run(2, tmp_path / "joined", *flags)
    again = [f"--output={joined}", "--shard=1/2", *flags]
    with pytest.raises(UsageError, match="was begun with replicas = 4, found 7"):
        sample.main([*again, "--replicas=7"])
    assert sample.main([*again, "--seed=4", "--overwrite"]) == 0
    assert cli.run("equijump merge", merge.main, [str(joined)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "joined.1-of-2" in err
    assert "seed = 3, found 4" in err
    shutil.rmtree(tmp_path / "joined.1-of-2")
    with pytest.raises(UsageError, match=r"missing: joined.1-of-2"):
        merge.main([str(joined)])


def test_frames_that_were_edited_are_not_joined(shaken, flags, tmp_path):
    joined = run(2, tmp_path / "joined", *flags)
    path = tmp_path / "joined.1-of-2" / "ala2_3.xtc"
    frames = bytearray(path.read_bytes())
    frames[-9] ^= 1
    path.write_bytes(frames)
    with pytest.raises(UsageError, match=r"ala2_3.xtc: expected the frames of an earl"):
        merge.main([str(joined)])
    assert not joined.exists()


def test_more_parts_than_replicas_are_refused(flags, tmp_path):
    with pytest.raises(UsageError, match="at most 4 parts of 4 replicas, found 6"):
        sample.main([f"--output={tmp_path / 'out'}", "--shard=0/6", *flags])


def test_what_broke_is_told_by_the_number_of_the_whole():
    counts = np.array([0, 2], np.int32)
    state = sampler.State(np.zeros((2, 1, 1, 3), np.float32), *[counts] * 3)
    assert outcome.summary_of(state, 4, 10.0, first=3).broken == {4: 20.0}


def test_trust_in_a_rollout_is_that_of_all_parts(tmp_path):
    trained = weights.load_weights("peptides")
    lag = trained.calibration.lag
    chosen = options.choose(trained, 2, lag=lag, sequence="GA")
    topology = tmp_path / "GA.pdb"
    trajfile.write_topology(topology, to_topology(chosen.system), chosen.starts[0])
    counts = np.array([9, 11], np.int32)
    state = sampler.State(chosen.starts, counts, counts - 2, 0 * counts)
    summary = outcome.summary_of(state, 9, lag)
    plan = sampler.plan_of(chosen, 0, 4)
    expected = outcome.with_confidence(summary, plan, trained)
    head = sample.header(trained, chosen, 0, "xtc")
    head["settings"]["lag"] = lag
    found = merge.with_confidence(summary, head, topology)
    assert found == expected
    assert found.confidence is not None
    head["weights_sha256"] = "0"
    with pytest.raises(UsageError, match="peptides: expected the weights of the roll"):
        merge.with_confidence(summary, head, topology)


def simulated(output, *more):
    given = [*QUICK, "--replicas=3", *more, f"--output={output}"]
    return cli.run("equijump simulate", simulate.main, given)


@pytest.mark.usefixtures("fresh_cache")
def test_simulations_of_parts_are_those_of_one_process(tmp_path, capsys):
    for name in ("openmm", "pdbfixer", "PeptideBuilder"):
        pytest.importorskip(name)
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    assert simulated(whole) == 0
    assert simulated(joined, "--shard=1/2") == 0
    assert simulated(joined, "--shard=0/2", "--length=0.0005") == 0
    assert cli.run("equijump merge", merge.main, [str(joined)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "joined.1-of-2" in err
    assert "length = 0.0005, found 0.001" in err
    assert simulated(joined, "--shard=0/2") == 0
    assert merge.main([str(joined)]) == 0
    states = {f"ace_a_nme_{number}.state" for number in range(3)}
    one, other = contents(joined), contents(whole)
    assert one.keys() == other.keys() > states
    for name in one.keys() - states:  # These have times of the clock.
        assert one[name] == other[name], name
    # Others would be of other parts.
    assert simulated(joined, "--shard=0/2", "--replicas=4") == 2
    assert "was begun with shard" in capsys.readouterr().err


def test_a_folding_temperature_is_not_found_in_parts(tmp_path, capsys):
    assert simulated(tmp_path, "--shard=0/2", "--find_folding_temperature") == 2
    assert "--find_folding_temperature: expected no --shard" in capsys.readouterr().err
