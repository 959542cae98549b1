"""Tests of the page: what comes first, what is folded away, what the viewer has."""

import base64
import gzip
import re

import numpy as np
import pytest

from common.pages import embed
from equijump.evaluate import pictures
from equijump.evaluate import report as write_report
from tests.equijump.test_evaluate_structure import helix, report  # noqa: F401


@pytest.fixture(scope="module")
def page(report):  # noqa: F811
    return write_report.to_html(report)


def test_a_page_of_a_protein_begins_with_its_structure_and_ends_with_torsions(page):
    order = [
        "at a glance", "RMSD to native", "native contacts, Q", "share in helices",
        "<h2>Trajectories</h2>", "<h2>Course of time</h2>",
        "<h2>Secondary structure and fluctuations</h2>",
        "<h2>Contacts of CA within 8 Å</h2>", "<h2>Slow coordinates</h2>",
        "<h2>Free energies</h2>", "<h2>Implied time-scales</h2>",
        "MDGen&#x27;s figures", "<b>Torsions, worst first</b>",
        "<h2>Ramachandran maps</h2>", "<b>Definitions</b>",
    ]  # fmt: skip
    places = [page.find(part) for part in order]
    assert min(places) >= 0
    assert places == sorted(places)
    assert page.count("<details>") == page.count("</details>") == 2


def test_torsions_are_in_falling_order_of_divergence(report, page):  # noqa: F811
    torsions = page[page.find("Torsions, worst first") :]
    first = re.search(r"<tr><td>([^<]*)</td>", torsions).group(1)
    entries = report["distributions"].items()
    angles = {
        n: e["js"] for n, e in entries if e["kind"] in ("ramachandran", "torsion")
    }
    assert first == max(angles, key=angles.get)


def test_the_library_of_molecules_is_in_the_page_and_unpacks(page):
    packed = re.search(r'id="molecule-library">([^<]*)<', page).group(1)
    assert gzip.decompress(base64.b64decode(packed)) == embed.LIBRARY.read_bytes()
    assert "BSD-3-Clause" in embed.LIBRARY.with_name("LICENSE").read_text()
    assert "http" not in page


def test_scenes_name_atoms_and_the_secondary_structure_of_each_frame(report):  # noqa: F811
    scene = report["viewer"]["trajectory"]
    assert scene["is_protein"]
    assert scene["atoms"][1][:3] == ["CA", "ALA", 1]
    assert len(scene["atoms"]) == len(scene["elements"]) == 70
    assert len(scene["secondary"]) == scene["num_frames"]
    assert scene["secondary"][0].count("H") >= 8
    assert {len(letters) for letters in scene["secondary"]} == {14}


def test_a_map_of_contacts_is_symmetric_with_an_empty_diagonal():
    found = pictures.contact_map([0.1, 0.2, 0.3], size=3)
    assert np.isnan(np.diag(found)).all()
    assert found[2, 1] == found[1, 2] == 0.3


def test_a_structure_without_strands_has_no_panel_of_them(report):  # noqa: F811
    figure = pictures.plot_residues(report)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["share in a helix", "RMSF (Å)"]
