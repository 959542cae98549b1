"""Tests of the calibration that is fitted to measured peptides."""

import json
import sys

import numpy as np
import pytest

from benchmarks import confidence as benchmark
from common.errors import UsageError
from equijump import confidence
from equijump.transferable import Transferable
from tests.equijump.test_options import make_weights

KNOWN = Transferable(("ACE-ALA-GLY-NME", "ACE-ALA-NME", "ACE-GLY-NME"), False)
FLAGS = {"lag": "10.0", "gate": "True"}
WEIGHTS = make_weights()._replace(transferable=KNOWN, molecules={})


def line(name, passed, js, times=((20.0, 10.0), (10.0, 10.0), (5.0, 10.0))):
    residues = {
        f"{place}": {"slowest": ours, "reference_slowest": theirs}
        for place, (ours, theirs) in enumerate(times)
    }
    return {"name": name, "passed": passed, "js": js, "residues": residues}


def lines(count=30):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        name = "".join(rng.choice(list("AGVW"), rng.integers(2, 6)))
        passed = rng.uniform(0.3, 1.0)
        noise = np.exp(0.2 * rng.normal())
        ours = 10.0 * np.exp(0.3 * rng.normal())
        found.append(line(name, passed, 0.005 / passed**3 * noise, [(ours, 10.0)]))
    return found


def test_a_line_of_the_benchmark_has_features_and_errors():
    found = benchmark.measured_of(line("AG", 0.5, 0.02), WEIGHTS)
    assert found.errors == {"js": 0.02, "time": pytest.approx(np.log(2.0))}
    assert found.features["new_pairs"] == 0.0
    assert found.features["refused"] == pytest.approx(np.log(2.0))


def test_peptides_without_figures_are_left_out():
    assert benchmark.measured_of({"name": "AG", "passed": 0.1}, WEIGHTS) is None
    apart = line("AG", 0.5, 0.02, times=[(None, 10.0)])
    assert benchmark.measured_of(apart, WEIGHTS).errors == {"js": 0.02}


def test_the_script_writes_a_calibration_that_weights_read(tmp_path, monkeypatch):
    measured = tmp_path / "peptides.json"
    measured.write_text(json.dumps({"flags": FLAGS, "peptides": lines()}))
    monkeypatch.setattr(benchmark, "load_weights", lambda name: WEIGHTS)
    monkeypatch.setattr(benchmark, "locate", lambda name, folder: tmp_path)
    flags = [f"--measured={measured}", f"--figure={tmp_path / 'plot.png'}"]
    monkeypatch.setattr(sys, "argv", ["confidence", *flags])
    benchmark.main()
    calibration = confidence.read(tmp_path, WEIGHTS.checksum)
    assert calibration.lag == 10.0
    good, bad = (
        confidence.estimate(
            calibration, confidence.features_of(passed, "ACE-ALA-GLY-NME", KNOWN)
        )
        for passed in (0.95, 0.4)
    )
    assert bad.js[0] > 4 * good.js[0]
    assert good.js[1] < good.js[0] < good.js[2]
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_estimates_are_judged_by_the_peptides_they_left_out():
    found = {
        str(number): benchmark.measured_of(one, WEIGHTS)
        for number, one in enumerate(lines())
    }
    estimates = confidence.leave_one_out(list(found.values()))
    figures = benchmark.judge(found, estimates)
    assert figures["js"]["correlation"] > 0.8
    assert 0.6 < figures["js"]["inside"] < 1.0
    assert figures["js"]["factor"] < 1.4


@pytest.mark.parametrize(
    "change", [{"gate": "False"}, {"lag": "x"}, {"lag": "20.0"}]
)  # fmt: skip
def test_rollouts_of_other_kinds_are_refused(change, tmp_path):
    paths = []
    for number, flags in enumerate((FLAGS, FLAGS | change)):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps({"flags": flags, "peptides": lines(2)}))
    with pytest.raises(UsageError):
        benchmark.read(paths, WEIGHTS)
