"""A model learns one molecule by heart: the shortest whole check of the project."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import symphony
from common.commands import cli
from symphony import data, train
from symphony.chemistry import bonds

ROOT = Path(__file__).resolve().parents[2]
NUM_SAMPLES = 200
SPECIES = (1, 6, 7, 8, 9)


def original():
    path = ROOT / "symphony" / "packaged" / "ethanol.xyz"
    molecules, _ = data.read_molecules(path, SPECIES, 9)
    return molecules.atomic_numbers, molecules.positions


def is_ethanol(atomic_numbers, positions):
    mol = bonds.perceive(atomic_numbers, positions, "xyz2mol_hueckel")
    return mol is not None and bonds.describe(mol).graph_smiles == "CCO"


def kabsch_rmsd(a, b):
    """Returns the least root mean square distance (Å) over proper rigid motions."""
    a, b = a - a.mean(0), b - b.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    sign = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag([1.0, 1.0, sign]) @ vt
    return float(np.sqrt(np.mean(np.sum((a @ rotation - b) ** 2, axis=1))))


def heavy_rmsd(numbers, positions, other_numbers, other_positions):
    """Returns the RMSD (Å) of heavy atoms over all matchings of equal elements."""
    heavy, others = numbers > 1, other_numbers > 1
    target = other_positions[others]
    least = np.inf
    for order in itertools.permutations(np.flatnonzero(heavy)):
        if np.array_equal(numbers[list(order)], other_numbers[others]):
            least = min(least, kabsch_rmsd(positions[list(order)], target))
    return least


def agreement(workdir):
    """Returns for each sample whether it is ethanol, and its RMSD (Å)."""
    numbers, positions = original()
    samples = symphony.load(workdir).sample_positions(NUM_SAMPLES, seed=0)
    same = np.array([is_ethanol(s.atomic_numbers, s.positions) for s in samples])
    far = [
        heavy_rmsd(s.atomic_numbers, s.positions, numbers, positions) for s in samples
    ]
    return same & np.array([s.stopped for s in samples]), np.array(far)


def test_rmsd_sees_shape_and_neither_motion_nor_order():
    numbers, positions = original()
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    order = rng.permutation(len(numbers))
    moved = (positions @ turn + 3.0)[order]
    assert heavy_rmsd(numbers[order], moved, numbers, positions) < 1e-5
    stretched = np.where(numbers[:, None] == 8, positions * 1.2, positions)
    assert heavy_rmsd(numbers, stretched, numbers, positions) > 0.05
    assert is_ethanol(numbers[order], moved)


@pytest.mark.slow
def test_2000_steps_learn_ethanol_by_heart(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = ["--config=configs/symphony/ethanol.py", f"--workdir={tmp_path}"]
    assert cli.run("symphony train", train.main, flags) == 0
    same, far = agreement(tmp_path)
    assert np.mean(same) >= 0.95
    assert np.mean(same & (far < 0.05)) >= 0.95
