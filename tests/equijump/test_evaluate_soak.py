"""Memory and time of an evaluation of many short trajectories of a protein; slow."""

import sys

import mdtraj
import numpy as np
import pytest
from mdtraj.formats import XTCTrajectoryFile

from tests.equijump.test_soak import peak_of


def write_many(folder, start, num_files, rng):
    """Writes trajectories of 100 frames that sway slowly about one structure."""
    folder.mkdir()
    start.save(str(folder / "p.pdb"))
    bend, steps = 0.06 * np.sin(start.xyz[0] / 2.0), np.arange(100)
    for index in range(num_files):
        slow = np.cumsum(rng.normal(0.0, 0.3, 100))[:, None, None]
        noise = rng.normal(0.0, 0.003, (100, *start.xyz[0].shape))
        frames = np.float32(start.xyz + np.sin(slow) * bend + noise)
        with XTCTrajectoryFile(str(folder / f"p_{index:04d}.xtc"), "w") as file:
            box = np.zeros((100, 3, 3), np.float32)
            file.write(frames, np.float32(10.0 * steps), np.int32(steps), box)
    return f"{folder}/*.xtc"


@pytest.mark.slow
def test_a_thousand_trajectories_of_100_residues_fit_2_gigabytes_and_10_minutes(
    tmp_path, monkeypatch
):
    pytest.importorskip("PeptideBuilder")
    from equijump.prepare import build_peptide

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pdb, rng = tmp_path / "start.pdb", np.random.default_rng(0)
    pdb.write_text(build_peptide("ACDEFGHIKLMNPQRSTVWY" * 5, False, "helix"))
    start = mdtraj.load(str(pdb))
    assert start.n_residues == 100
    ours, theirs = (
        write_many(tmp_path / name, start, 1_000, rng) for name in ("a", "b")
    )
    given = f"--trajectory={ours}", f"--reference={theirs}"
    peak, seconds = peak_of(["evaluate", *given, f"--output={tmp_path / 'report'}"])
    sys.stdout.write(f"100 residues: {peak / 1e6:.0f} MB, {seconds:.0f} CPU-s\n")
    assert peak < 2e9
    assert seconds < 600
