"""The packaged weights with properties: what they name, and that they heed a target."""

import contextlib
import io

import numpy as np
import pytest
from rdkit.Chem import Crippen

import symphony
from symphony import sample


@pytest.fixture(scope="module")
def sampler():
    return symphony.load("qm9_properties")


def test_four_properties_have_units_and_ranges(sampler):
    units = {one.name: one.unit for one in sampler.weights.columns}
    assert units == {"gap": "eV", "dipole": "D", "logP": "", "num_rings": ""}
    for one in sampler.weights.columns:
        assert one.low < one.mean < one.high
        assert one.num_known > 30_000


def test_help_names_properties_and_units():
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        sample.main(["--help"])
    words = " ".join(told.getvalue().split())
    for text in ("qm9_properties: gap (eV, ", "dipole (D, ", "num_rings (0 to 4)"):
        assert text in words


def test_a_high_log_p_gives_more_than_a_low_one(sampler):
    """One draw of both, so that the network is compiled once."""
    targets = [{"logP": -1.0}, {"logP": 2.0}]
    drawn = sampler.sample(24, seed=0, property=targets)
    found = {-1.0: [], 2.0: []}
    for mol in drawn:
        found[mol.GetDoubleProp("target_logP")].append(Crippen.MolLogP(mol))
    assert min(map(len, found.values())) >= 6
    assert np.mean(found[2.0]) > np.mean(found[-1.0]) + 1.0
