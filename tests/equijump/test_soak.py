"""Soaks: long work whose memory must not grow with it; minutes each, all slow."""

import os
import subprocess
import sys

import mdtraj
import numpy as np
import pytest
from mdtraj.formats import XTCTrajectoryFile

from equijump.evaluate import inputs
from tests.soak import watch

KEPT_PER_FRAME = 200
"""Bytes of the few numbers a frame that an evaluation of alanine dipeptide keeps.

They are four torsions, four slow coordinates, a state, a weight and what is closest, of
either side, and as much again while one of them is worked on.
"""


def command(*arguments):
    return [sys.executable, "-m", "equijump.cli", *map(str, arguments)]


def peak_of(arguments):
    """Runs a command; returns the peak of its memory in bytes, and its CPU seconds."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return 1024 * used.ru_maxrss, used.ru_utime + used.ru_stime


def write_tiled(path, num_frames):
    """Writes packaged frames with noise, over and over, at their spacing of 5 ps."""
    files = sorted(inputs.PACKAGED.glob("ala2_300K_*.xtc"))
    with XTCTrajectoryFile(str(files[0])) as file:
        frames = file.read()[0]
    rng, size = np.random.default_rng(0), len(frames)
    with XTCTrajectoryFile(str(path), "w") as file:
        for first in range(0, num_frames, size):
            count = min(size, num_frames - first)
            noise = rng.normal(0.0, 0.001, (count, *frames.shape[1:]))
            steps = np.arange(first, first + count)
            file.write(
                np.float32(frames[:count] + noise), np.float32(5.0 * steps),
                np.int32(steps), np.zeros((count, 3, 3), np.float32),
            )  # fmt: skip


@pytest.mark.slow
def test_an_evaluation_of_a_million_frames_keeps_a_few_numbers_each(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pdb, peaks = inputs.PACKAGED / "ala2_300K.pdb", {}
    for count in (500_000, 1_000_000):
        path = tmp_path / f"{count}.xtc"
        write_tiled(path, count)
        given = (
            f"--trajectory={path}",
            f"--topology={pdb}",
            f"--output={tmp_path / 'r'}",
        )
        peaks[count], seconds = peak_of(["evaluate", *given])
        sys.stdout.write(
            f"{count} frames: {peaks[count] / 1e6:.0f} MB, {seconds:.0f} CPU-s\n"
        )
    grown = peaks[1_000_000] - peaks[500_000]
    assert grown < 500_000 * KEPT_PER_FRAME


@pytest.mark.slow
def test_a_protein_of_160_residues_is_judged_in_2_gigabytes(tmp_path, monkeypatch):
    pytest.importorskip("PeptideBuilder")
    from equijump.prepare import build_peptide

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pdb, rng = tmp_path / "p.pdb", np.random.default_rng(0)
    pdb.write_text(build_peptide("ACDEFGHIKLMNPQRSTVWY" * 8, False, "extended"))
    start = mdtraj.load(str(pdb))
    assert start.n_residues == 160
    bend = 0.02 * np.sin(start.xyz[0] / 2.0)
    for name in ("a", "b"):
        slow = np.cumsum(rng.normal(0.0, 0.1, 10_000))[:, None, None]
        with XTCTrajectoryFile(str(tmp_path / f"{name}.xtc"), "w") as file:
            for first in range(0, 10_000, 1_000):
                steps = np.arange(first, first + 1_000)
                noise = rng.normal(0.0, 0.003, (1_000, *start.xyz[0].shape))
                frames = start.xyz + np.sin(slow[steps]) * bend + noise
                box = np.zeros((1_000, 3, 3), np.float32)
                file.write(np.float32(frames), np.float32(steps), np.int32(steps), box)
    given = (
        f"--trajectory={tmp_path / 'a.xtc'}", f"--reference={tmp_path / 'b.xtc'}",
        f"--output={tmp_path / 'report'}",
    )  # fmt: skip
    peak, seconds = peak_of(["evaluate", *given])
    sys.stdout.write(f"160 residues: {peak / 1e6:.0f} MB, {seconds:.0f} CPU-s\n")
    assert peak < 2e9


@pytest.mark.slow
def test_a_rollout_of_a_million_jumps_does_not_grow(tmp_path):
    memory = watch(
        "equijump", "sample", "--num_jumps=10000", "--replicas=100", "--every=10",
        f"--output={tmp_path / 'out'}",
    )  # fmt: skip
    assert memory.slope < 0.01
