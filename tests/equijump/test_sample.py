"""Tests of sampled trajectories: what is asked, what is written, and going on."""

import functools
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest

import equijump
from common.commands import cli
from common.errors import UsageError
from equijump import outcome, sample, sampler, trajfile
from equijump.data.topology import to_topology
from equijump.weights import make_jump
from tests.equijump.test_data_topology import ALANINE_DIPEPTIDE, tripeptide

STRUCTURE = Path("equijump/packaged/ala2_300K.pdb").resolve()


def shake(params, cloud, chain, key):
    """Stands for the network, and compiles at once."""
    noise = jax.random.normal(key, cloud.shape)
    return cloud + 0.01 * noise * chain.slot_mask[..., None]


@pytest.fixture
def shaken(monkeypatch):
    monkeypatch.setattr(sampler, "make_jump", lambda *_: shake)


@pytest.fixture
def trained(monkeypatch, jump):
    """The network of six steps, whose frames are all broken."""
    monkeypatch.setattr(outcome, "check", lambda summary: None)
    monkeypatch.setattr(sampler, "make_jump", lambda *_: jump)


@pytest.fixture
def ask(packaged, tmp_path):
    """Runs the command; returns its folder."""

    def run(name, num_jumps, *more, replicas=2):
        folder = tmp_path / name
        given = [
            f"--checkpoint={packaged}", f"--output={folder}", "--chunk=4", "--seed=3",
            f"--num_jumps={num_jumps}", f"--replicas={replicas}", *more,
        ]  # fmt: skip
        assert sample.main(given) == 0
        return folder

    return run


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "state.npz"}


def read(folder, replica=0, suffix="xtc"):
    path = folder / f"ala2_{replica}.{suffix}"
    named = {} if suffix in ("h5", "pdb") else {"top": folder / "ala2.pdb"}
    return mdtraj.load(path, **named)


def test_the_command_writes_trajectories_and_what_decided_them(
    ask, shaken, loaded, capsys
):
    folder = ask("out", 10)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ala2.pdb", "ala2_0.xtc", "ala2_1.xtc", "sample.json", "state.npz",
    ]  # fmt: skip
    for replica in range(2):
        found = read(folder, replica)
        assert found.n_frames == 11
        np.testing.assert_allclose(found.time, 10.0 * np.arange(11))
        start = loaded.molecules["ala2"].starts[replica]
        apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
        np.testing.assert_allclose(apart(10 * found.xyz[0]), apart(start), atol=0.02)
    names = [atom.name for atom in found.topology.atoms]
    assert tuple(names) == loaded.molecules["ala2"].system.atom_names
    record = json.loads((folder / "sample.json").read_text())
    assert record["weights_sha256"] == loaded.checksum
    assert (record["seed"], record["settings"]["lag"]) == (3, 10.0)
    assert record["result"] == {
        "num_jumps": 10, "num_replicas": 2, "num_draws": 20, "num_accepted": 20,
        "num_moved": 2, "broken": {}, "num_intact": 20,
    }  # fmt: skip
    told = capsys.readouterr().out
    assert told.startswith("device: ")
    assert "11 frames of 2 replicas, 0.2 ns in all" in told
    assert "no geometry is broken" in told


def test_a_replica_is_the_same_however_many_there_are(ask, trained):
    two, three = ask("two", 4, "--no-gate"), ask("three", 4, "--no-gate", replicas=3)
    for replica in range(2):
        a, b = read(two, replica), read(three, replica)
        np.testing.assert_allclose(a.xyz, b.xyz, atol=0.00101)
    assert np.abs(a.xyz - read(two, 0).xyz).max() > 0.01


@pytest.mark.parametrize("suffix", trajfile.FORMATS)
def test_every_format_reads_back(suffix, ask, shaken, loaded):
    folder = ask("out", 6, f"--format={suffix}")
    found = read(folder, 1, suffix)
    (_, expected) = sampler.Sampler(loaded).sample(6, replicas=2, seed=3)
    assert found.n_frames == 7
    np.testing.assert_allclose(10 * found.xyz, 10 * expected.xyz, atol=0.01)
    if suffix in ("xtc", "h5"):
        np.testing.assert_allclose(found.time, expected.time)
    if suffix == "dcd":
        header = (folder / "ala2_1.dcd").read_bytes()
        assert struct.unpack_from("i", header, 8) == (7,)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
@pytest.mark.parametrize("num_writes", [1, 5])
def test_a_killed_command_goes_on_byte_for_byte(
    suffix, num_writes, ask, shaken, monkeypatch
):
    """It dies while it writes the starts, or the second chunk, in a file's middle."""
    given = 10, f"--format={suffix}"
    whole = ask("whole", *given)
    with monkeypatch.context() as patch:
        append, left = trajfile._append_bytes, iter(range(num_writes))

        def die(path, written):
            if next(left, None) is None:
                append(path, written[: len(written) // 2])
                raise KeyboardInterrupt
            append(path, written)

        patch.setattr(trajfile, "_append_bytes", die)
        with pytest.raises(KeyboardInterrupt):
            ask("killed", *given)
    killed = ask("killed", *given)
    assert contents(killed) == contents(whole)


def test_more_jumps_extend_a_rollout(ask, trained):
    whole = ask("whole", 6, "--no-gate")
    ask("begun", 3, "--no-gate")
    assert contents(ask("begun", 6, "--no-gate")) == contents(whole)


def test_a_rollout_that_is_done_is_left_alone(ask, shaken, capsys):
    before = contents(ask("out", 4))
    assert contents(ask("out", 3)) == before
    assert "all 4 jumps are done" in capsys.readouterr().out


def test_fewer_frames_are_kept_where_asked(ask, shaken):
    every, third = read(ask("every", 6)), read(ask("third", 6, "--every=3"))
    np.testing.assert_array_equal(third.xyz, every.xyz[::3])
    np.testing.assert_allclose(third.time, [0.0, 30.0, 60.0])


def test_settings_that_are_spelt_otherwise_are_the_same(ask, shaken, packaged):
    ask("out", 4)
    assert read(ask("out", 6, f"--checkpoint={packaged}/.", "--lag=10")).n_frames == 7


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--seed=4"], "was begun with seed = 3, found 4"),
        (["--num_steps=4"], "was begun with num_steps = 3, found 4"),
        (["--no-gate"], "was begun with max_redraws = 10, found None"),
    ],
)
def test_other_settings_do_not_go_on_in_the_same_folder(more, told, ask, shaken):
    before = contents(ask("out", 4))
    with pytest.raises(UsageError, match=told):
        ask("out", 6, *more)
    assert contents(ask("out", 4)) == before
    folder = ask("out", 2, *more, "--overwrite", replicas=1)
    assert not (folder / "ala2_1.xtc").exists()
    assert read(folder).n_frames == 3


def test_h5_is_not_gone_on_with(ask, shaken):
    folder = ask("out", 4, "--format=h5")
    before = contents(folder)
    with pytest.raises(UsageError, match="in H5, which cannot be gone on with"):
        ask("out", 8, "--format=h5")
    assert contents(folder) == before


def test_files_of_another_origin_are_not_touched(ask, shaken, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ala2_1.xtc").write_text("precious")
    with pytest.raises(UsageError, match=r"ala2_1.xtc: expected no file"):
        ask("out", 4)
    assert os.listdir(tmp_path / "out") == ["ala2_1.xtc"]


def test_a_lost_trajectory_is_told(ask, shaken):
    folder = ask("out", 4)
    (folder / "ala2_1.xtc").unlink()
    with pytest.raises(UsageError, match=r"ala2_1.xtc: expected at least the"):
        ask("out", 8)


def test_two_commands_do_not_write_the_same_folder(ask, shaken):
    folder = ask("out", 4)
    with cli.locked(folder), pytest.raises(UsageError, match="in use by another"):
        ask("out", 8)


@pytest.mark.parametrize("more", [["--no-gate"], []])
def test_a_rollout_that_is_not_finite_stops_and_keeps_what_was(
    more, packaged, tmp_path, monkeypatch, capsys
):
    def fail(params, cloud, chain, key):
        """Fails by chance, about every twentieth time."""
        return jnp.where(jax.random.uniform(key) < 0.05, jnp.nan, cloud)

    monkeypatch.setattr(sampler, "make_jump", lambda *_: fail)
    folder = tmp_path / "out"
    given = [
        f"--checkpoint={packaged}", f"--output={folder}", "--num_jumps=1000",
        "--replicas=2", "--chunk=4", *more,
    ]  # fmt: skip
    assert cli.run("equijump sample", sample.main, given) == 3
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "is not finite after jump" in message
    found = read(folder)
    assert np.isfinite(found.xyz).all()
    assert found.n_frames % 4 == 1
    assert f"frames up to {found.time[-1]:g} ps are kept" in message


def test_the_gate_is_counted(ask, monkeypatch, capsys):
    def mirror(params, cloud, chain, key):
        return jnp.where(jax.random.bernoulli(key), -cloud, cloud)

    monkeypatch.setattr(sampler, "make_jump", lambda *_: mirror)
    result = json.loads((ask("out", 40) / "sample.json").read_text())
    share = result["result"]["num_accepted"] / result["result"]["num_draws"]
    assert 0.3 < share < 0.7
    assert f"the gate let {share:.1%} of draws pass" in capsys.readouterr().out


def freeze(params, cloud, chain, key):
    """Ends every jump in a mirror image, which the gate refuses."""
    return -cloud


@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setattr(sampler, "make_jump", lambda *_: freeze)


def test_a_rollout_that_never_moves_fails_and_keeps_its_files(
    packaged, tmp_path, frozen, capsys
):
    folder = tmp_path / "out"
    given = [
        f"--checkpoint={packaged}", f"--output={folder}", "--num_jumps=6",
        "--replicas=2", "--max_redraws=4",
    ]  # fmt: skip
    for _ in range(2):  # The second time all is done already.
        assert cli.run("equijump sample", sample.main, given) == 3
        told = capsys.readouterr()
        assert "2 of 2 replicas never moved; the gate let 0.0% of draws" in told.out
        assert "no geometry is broken" not in told.out
        assert "0 of 60 draws passed the gate (0.0%); a smaller --lag" in told.err
        assert told.err.count("\n") == 1
    result = json.loads((folder / "sample.json").read_text())["result"]
    assert (result["num_draws"], result["num_moved"]) == (60, 0)
    assert read(folder).n_frames == 7


def test_a_rollout_that_the_gate_refuses_is_stopped_early(
    packaged, tmp_path, frozen, monkeypatch, capsys
):
    told = []
    monkeypatch.setattr(
        sample.logging, "warning", lambda line, *rest: told.append(line % rest)
    )
    folder = tmp_path / "out"
    given = [f"--checkpoint={packaged}", f"--output={folder}", "--num_jumps=50000"]
    assert cli.run("equijump sample", sample.main, [*given, "--replicas=50"]) == 3
    assert told[0].startswith("stopped after 2 of 50000 jumps, since the gate refuses")
    assert "0 of 1100 draws passed the gate" in capsys.readouterr().err
    assert read(folder).n_frames == 3


def test_python_warns_of_a_rollout_that_never_moves(packaged, frozen, monkeypatch):
    told = []
    monkeypatch.setattr(
        sampler.logging, "warning", lambda line, *rest: told.append(line % rest)
    )
    drawn = equijump.load(packaged)
    assert drawn.summary is None
    two = drawn.sample(3, replicas=2, max_redraws=1)
    assert np.ptp(two[0].xyz, axis=0).max() == 0.0
    assert drawn.summary == (3, 2, 12, 0, 0, {}, 6, None)
    assert len(told) == 1
    assert "0 of 12 draws passed the gate" in told[0]


def test_structures_find_their_place_by_bonds_and_are_dealt_in_turn(
    ask, shaken, loaded, tmp_path
):
    """One file with hydrogens, one with two models in another order of atoms."""
    full = mdtraj.load(STRUCTURE)
    system = loaded.molecules["ala2"].system
    frames = mdtraj.Trajectory(
        loaded.molecules["ala2"].starts[:2] / 10.0, to_topology(system)
    )
    order = [2, 0, 1, 7, 6, 5, 4, 3, 9, 8]  # Residue by residue.
    other = tmp_path / "other.pdb"
    frames.save_pdb(str(other))
    lines = other.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("CONECT")]
    for first in [i for i, line in enumerate(kept) if line.startswith("MODEL")]:
        atoms = kept[first + 1 : first + 11]
        kept[first + 1 : first + 11] = [atoms[i] for i in order]
    other.write_text("\n".join([*kept, ""]))
    folder = ask("out", 4, "--start", str(STRUCTURE), str(other), replicas=4)
    heavy = full.topology.select("element != H")
    expected = [full.xyz[0, heavy], *frames.xyz, full.xyz[0, heavy]]
    apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
    for replica, positions in enumerate(expected):
        found = read(folder, replica).xyz[0]
        np.testing.assert_allclose(apart(found), apart(positions), atol=0.002)


def test_python_gives_trajectories(packaged):
    sampler = equijump.load(packaged)
    two = sampler.sample(4, replicas=2, seed=3)
    assert [type(one) for one in two] == 2 * [mdtraj.Trajectory]
    np.testing.assert_allclose(two[0].time, 10.0 * np.arange(5))
    chunks = list(sampler.stream(4, replicas=2, seed=3))
    assert [chunk.shape for chunk in chunks] == [(1, 2, 10, 3), (4, 2, 10, 3)]
    np.testing.assert_allclose(chunks[1][:, 1] / 10.0, two[1].xyz[1:], atol=1e-5)
    start = mdtraj.load(STRUCTURE)
    for given in (STRUCTURE, [str(STRUCTURE)], start):
        found = next(sampler.stream(4, replicas=2, start=given, lag=10.0))
        heavy = 10.0 * start.xyz[0, start.topology.select("element != H")]
        apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
        np.testing.assert_allclose(apart(found[0, 1]), apart(heavy), atol=1e-3)
    with pytest.raises(UsageError, match="--lag"):
        sampler.stream(4, lag=3.0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--checkpoint=nowhere"], "--checkpoint: expected the folder of a training"),
        (["--lag=20"], "--lag: expected 10 ps"),
        (["--replicas=0"], "--replicas: expected 1 to"),
        (["--num_jumps=0"], "--num_jumps: expected 1 to"),
        (["--every=3"], "a multiple of --every=3, found 4"),
        (["--every=0"], "--every: expected 1 to"),
        (["--num_steps=0"], "--num_steps: expected 2 to"),
        (["--seed=-1"], "--seed: expected 0 to"),
        (["--chunk=0"], "--chunk: expected 1 or more"),
        (["--max_redraws=-1"], "--max_redraws: expected 0 to"),
        (["--format=gro"], "--format: expected one of 'xtc'"),
        (["--system=villin"], "--system: expected one of ala2, found villin"),
        (["--start=missing.pdb"], "found no missing.pdb"),
        (["--start=GGG.pdb"], "expected a system that the network was trained on"),
        (["--start=NAN.pdb"], "NAN.pdb: expected finite positions"),
        (["--start=TEXT.pdb"], "TEXT.pdb: expected"),
        (["--start=run.xtc"], "--topology: expected the topology of run.xtc, found 3"),
        (["--output=TEXT.pdb"], "TEXT.pdb: expected"),
    ],
)
def test_bad_usage_is_one_line(more, told, packaged, tmp_path, capsys, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    monkeypatch.chdir(made)
    (made / "GGG.pdb").write_text(tripeptide("GLY"))
    (made / "NAN.pdb").write_text(ALANINE_DIPEPTIDE.replace("13.662", "   nan"))
    (made / "TEXT.pdb").write_text("precious")
    (made / "run.xtc").touch()
    before = contents(made)
    given = [
        f"--checkpoint={packaged}", f"--output={tmp_path / 'out'}", "--num_jumps=4",
        "--replicas=2", *more,
    ]  # fmt: skip
    assert cli.run("equijump sample", sample.main, given) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert contents(made) == before


def test_an_output_that_is_the_start_is_refused(ask, shaken, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "ala2.pdb").write_text(ALANINE_DIPEPTIDE)
    with pytest.raises(UsageError, match="not the input"):
        ask("out", 4, f"--start={folder / 'ala2.pdb'}")
    assert (folder / "ala2.pdb").read_text() == ALANINE_DIPEPTIDE


def test_lags_inside_a_range_are_allowed(loaded):
    config = loaded.config.copy_and_resolve_references()
    config.data.lags, config.data.log_uniform = (10.0, 100.0), True
    ranged = loaded._replace(config=config)
    choose = functools.partial(sample.choose, ranged)
    assert choose().conditions["lag"] == 10.0
    assert choose(lag=35.0).conditions["lag"] == 35.0
    with pytest.raises(UsageError, match="expected 10 to 100 ps"):
        choose(lag=150.0)


def test_an_ensemble_does_not_look_at_what_was_before(loaded):
    with pytest.raises(UsageError, match=r"config\.data\.ensemble_share above 0"):
        sample.choose(loaded, ensemble=True)
    config = loaded.config.copy_and_resolve_references()
    config.data.ensemble_share = 0.5
    statistics = loaded.statistics._replace(ensemble=np.ones(2))
    ranges = {"temperature": [300.0, 300.0]}
    both = loaded._replace(config=config, statistics=statistics, ranges=ranges)
    jump = make_jump(both, 3)
    options = sample.choose(both, 2, ensemble=True, gate=False)
    assert options.frame_time == 1.0
    plan = sampler.plan_of(options, seed=0, chunk=2)

    def frames(starts):
        moved = plan._replace(starts=starts)
        drawn = sampler.draw(jump, both.params, moved, None, 0, 2)
        return np.concatenate([chunk.frames for chunk in drawn])

    ours, theirs = frames(plan.starts), frames(plan.starts + 3 * plan.starts**2)
    assert np.any(ours[0] != theirs[0])
    np.testing.assert_array_equal(ours[1:], theirs[1:])
    assert np.any(ours[1] != ours[2])


def test_one_of_several_systems_is_named(loaded):
    molecule = loaded.molecules["ala2"]
    several = loaded._replace(molecules={"a": molecule, "b": molecule})
    assert sample.choose(several, system="b").name == "b"
    with pytest.raises(UsageError, match="--system as one of a, b"):
        sample.choose(several)


@pytest.mark.slow
def test_a_million_frames_take_no_more_memory_than_some(ask, shaken):
    few = functools.partial(ask, replicas=1)
    few("out", 100_000, "--chunk=1000")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    few("out", 1_000_000, "--chunk=1000")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 30_000  # kB; the frames alone are 120 MB.


@pytest.mark.slow
def test_a_command_killed_by_force_goes_on_byte_for_byte(
    ask, trained, packaged, tmp_path
):
    whole = ask("whole", 400, "--no-gate")
    killed = tmp_path / "killed"
    given = [
        f"--checkpoint={packaged}", f"--output={killed}", "--chunk=4", "--seed=3",
        "--num_jumps=400", "--replicas=2", "--no-gate",
    ]  # fmt: skip
    statuses = set()
    for wanted in (1, 5_000, 15_000):
        process = subprocess.Popen(
            [sys.executable, "-m", "equijump.sample", *given], stdout=subprocess.DEVNULL
        )
        first = killed / "ala2_0.xtc"
        while process.poll() is None:
            if first.exists() and first.stat().st_size > wanted:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.005)
        statuses.add(process.wait())
    assert -signal.SIGKILL in statuses
    assert contents(ask("killed", 400, "--no-gate")) == contents(whole)
