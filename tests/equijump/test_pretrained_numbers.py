"""Packaged weights give what they gave: ten jumps stored from version 0.1.0."""

from pathlib import Path

import numpy as np

import equijump

STORED = np.load(Path(__file__).parent / "pretrained_jumps.npz")


def test_ten_jumps_of_four_replicas_are_the_same():
    chunks = equijump.load("ala2").stream(10, replicas=4, seed=0, gate=False)
    np.testing.assert_allclose(np.concatenate(list(chunks)), STORED["jumps"], atol=1e-4)
