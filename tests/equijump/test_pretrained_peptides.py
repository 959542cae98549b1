"""The packaged weights `peptides`: peptides that they were not trained on."""

import mdtraj
import numpy as np
import pytest

import equijump

SEQUENCE = "KV"


@pytest.fixture(scope="module")
def rolled():
    sampler = equijump.load("peptides")
    made = sampler.sample(50, replicas=8, sequence=SEQUENCE, seed=0)
    return sampler, made


def test_it_was_not_trained_on_the_sequence(rolled):
    sampler, _ = rolled
    known = sampler.weights.transferable.sequences
    assert "ACE-LYS-VAL-NME" not in known
    assert len(known) == 173


def test_jumps_pass_the_gate_and_nothing_breaks(rolled):
    summary = rolled[0].summary
    assert not summary.broken
    assert summary.num_accepted > 0.9 * summary.num_draws


def test_bonds_have_the_lengths_of_molecular_dynamics(rolled):
    """Their spread at 300 K is .03 Å; within .005 Å of it, whatever the bond."""
    _, made = rolled
    pairs = [(a.index, b.index) for a, b in made[0].topology.bonds]
    lengths = np.concatenate(
        [10.0 * mdtraj.compute_distances(t[5:], pairs) for t in made]
    )
    assert np.std(lengths, axis=0).max() < 0.045
    assert np.sqrt(np.mean(np.var(lengths, axis=0))) == pytest.approx(0.029, abs=0.005)


def test_torsions_move_and_stay_where_they_can(rolled):
    """Phi of L residues is negative for all but nanoseconds; psi has two basins."""
    joined = mdtraj.join(rolled[1])
    phi = mdtraj.compute_phi(joined)[1]
    psi = mdtraj.compute_psi(joined)[1]
    assert np.mean(phi[:, :2] < 0.0) > 0.9
    is_alpha = (psi[:, :2] > -2.0) & (psi[:, :2] < 1.0)
    assert 0.1 < is_alpha.mean() < 0.9


def test_side_chains_of_a_longer_peptide_keep_clear_of_each_other(rolled):
    """Without steering the gate refuses half of the draws."""
    sampler, _ = rolled
    sampler.sample(8, replicas=8, sequence="RWEHYKNF", seed=0)
    summary = sampler.summary
    assert summary.num_accepted > 0.85 * summary.num_draws
