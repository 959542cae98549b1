"""What the packaged weights do for a chemist; slow, since they roll out in earnest.

The reference is the packaged one, at one frame in 5 ps: its own noise is larger than
that of the figures in the docs, which are to all frames.
"""

import numpy as np
import pytest
import scipy.stats

import equijump
from equijump.data.sources.trajectories import PACKAGED
from equijump.evaluate import geometry, inputs, measure
from equijump.evaluate.sides import NAMES

pytestmark = pytest.mark.slow

NUM_JUMPS, REPLICAS = 1_000, 100


@pytest.fixture(scope="module")
def reference():
    paths = sorted(PACKAGED.glob("ala2_300K_*.xtc"))
    return inputs.read("--reference", paths, None, 0.0, finite=True)


@pytest.fixture(scope="module")
def rolled(reference):
    """Frames of all replicas in Å, atoms in the order of slots."""
    sampler = equijump.load("ala2")
    drawn = sampler.stream(NUM_JUMPS, replicas=REPLICAS, seed=0)
    frames = np.moveaxis(np.concatenate(list(drawn)), 1, 0)
    slots = sampler.weights.molecules["ala2"].system.slot_atoms
    return inputs.Replicas(
        names=tuple(f"replica {index}" for index in range(REPLICAS)),
        system=reference.system,
        positions=tuple(frames[:, :, slots[slots >= 0]]),
        spacing=10.0,
    )


@pytest.fixture(scope="module")
def report(rolled, reference):
    return measure.evaluate(rolled, reference, measure.Settings(lag=10.0))


def test_the_thermodynamics_of_alanine_dipeptide_are_kept(report):
    (angles,) = (
        entry
        for entry in report["distributions"].values()
        if entry["kind"] == "ramachandran"
    )
    assert angles["js"] < min(angles["floor"], 0.006)
    (basins,) = report["basins"].values()
    ours, theirs = (basins[n]["weights"]["alphaR"]["value"] for n in NAMES)
    assert ours == pytest.approx(theirs, abs=0.05)
    assert angles["thirds"]["trajectory"] < angles["floor"]


def test_the_slowest_time_scale_is_that_of_the_reference(report):
    ours, theirs = (report["models"][n]["time_scales"][0][0] for n in NAMES)
    assert theirs["low"] < ours["value"] < theirs["high"]


def test_geometry_holds_and_no_replica_is_lost(report):
    ours, theirs = (report["validity"][n] for n in NAMES)
    assert report["trajectory"]["lost"] == []
    assert ours["bond_rms"] == pytest.approx(theirs["bond_rms"], abs=0.005)
    assert not any(ours["wrong_hand_frames"].values())
    assert ours["clash_fraction"] < 1e-3


def test_the_radius_of_gyration_does_not_drift(rolled):
    """Means of replicas, which are independent of each other, unlike their frames."""
    third = NUM_JUMPS // 3
    radii = np.stack([geometry.fold_measures(x, x[0])["rg"] for x in rolled.positions])
    ends = radii[:, :third].mean(axis=1), radii[:, -third:].mean(axis=1)
    assert scipy.stats.ks_2samp(*ends).pvalue > 0.01
