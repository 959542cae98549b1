"""Tests of what the benchmark of folding measures, on a process that is known."""

import mdtraj
import numpy as np
import pytest

from benchmarks import fast_folder


def two_states(num_frames, folds, unfolds, seed):
    """Fractions of native contacts of a chain that folds and unfolds at known rates."""
    rng = np.random.default_rng(seed)
    state, found = 1, []
    for draw in rng.random(num_frames):
        state = state ^ (draw < (unfolds if state else folds))
        found.append((0.9 if state else 0.0) + rng.normal(0.0, 0.02))
    return np.array(found)


def test_times_and_share_of_two_states_are_found():
    found = [
        fast_folder.passages(two_states(20_000, 0.01, 0.03, seed), 2.0, 0.1, 0.5)
        for seed in range(4)
    ]
    summary = fast_folder.summarise(found)
    assert summary["time"] == 160_000.0
    for name, expected in (("folding_time", 200.0), ("unfolding_time", 200.0 / 3)):
        low, high = summary[name]["interval_95"]
        assert low < expected < high
        assert summary[name]["mean"] == pytest.approx(expected, rel=0.15)
    low, high = summary["folded_interval_95"]
    assert low < 0.25 < high
    half = fast_folder.summarise(found[:2])
    ratios = fast_folder.compare(half, summary)
    assert ratios["folding_time_ratio"] == pytest.approx(1.0, abs=0.3)


def test_between_the_thresholds_a_frame_is_what_it_was():
    fractions = np.array([0.3, 0.9, 0.3, 0.05, 0.3, 0.45, 0.6])
    found = fast_folder.passages(fractions, 1.0, 0.1, 0.5)
    assert found.is_folded.tolist() == [True, True, False, False, False, True]
    assert (found.foldings, found.unfoldings, found.first) == (1, 1, 1.0)
    never = fast_folder.passages(np.full(5, 0.3), 1.0, 0.1, 0.5)
    assert len(never.is_folded) == 0
    summary = fast_folder.summarise([fast_folder.passages(fractions[3:6], 1, 0.1, 0.5)])
    assert summary["folding_time"] == {"mean": None, "interval_95": None}


def test_contacts_are_told_by_names_whatever_the_order_of_atoms():
    native = mdtraj.load(str(fast_folder.NATIVE))
    contacts = fast_folder.contacts_of(native)
    assert len(contacts) > 100
    order = np.random.default_rng(0).permutation(native.n_atoms)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for residue in native.topology.residues:
        added = topology.add_residue(residue.name, chain)
        for atom in sorted(residue.atoms, key=lambda a: order[a.index]):
            topology.add_atom(atom.name, atom.element, added)
    places = {(a.residue.index, a.name): a.index for a in native.topology.atoms}
    kept = [places[a.residue.index, a.name] for a in topology.atoms]
    shuffled = mdtraj.Trajectory(native.xyz[:, kept], topology)
    stretched = mdtraj.Trajectory(2.0 * native.xyz[:, kept], topology)
    assert fast_folder.fraction_native(shuffled, contacts)[0] > 0.95
    assert fast_folder.fraction_native(stretched, contacts)[0] < 1e-3
