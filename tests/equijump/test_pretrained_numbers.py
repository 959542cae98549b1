"""Packaged weights give what they gave: ten jumps stored from version 0.1.0."""

from pathlib import Path

import numpy as np

import equijump
from equijump.transport import foellmer_steps

STORED = np.load(Path(__file__).parent / "pretrained_jumps.npz")
OLD_STEPS = foellmer_steps.Numbers(
    3.54, 0.008, 3.0, 1.29, (1.09, 0.35), 0.37, (0.9, 0.55)
)
"""Steps up to version 0.3.0: the network and all else of a jump are as they were."""


def test_ten_jumps_of_four_replicas_are_the_same(monkeypatch):
    monkeypatch.setattr(foellmer_steps, "FITTED", {10: OLD_STEPS})
    chunks = equijump.load("ala2").stream(10, replicas=4, seed=0, gate=False)
    np.testing.assert_allclose(np.concatenate(list(chunks)), STORED["jumps"], atol=1e-4)
