"""Tests of tables and plots of a report, made by hand."""

import io

import pytest
from rich.console import Console

from symphony.evaluate import report

SCORE = {
    "definition": "bonds by a table",
    "valid": 0.875,
    "valid_standard_error": 0.01,
    "unique": 1.0,
    "novel": None,
    "valid_and_unique": 0.875,
    "atom_stability": 0.99,
    "molecule_stability": None,
    "failures": {"valence": 3},
}
LENGTHS = {"samples": [1.08, 1.1], "reference": [1.09, 1.1, 1.11]}


def make_report(geometry=True, poses=False):
    found = {
        "versions": {"rdkit": "2025.1"},
        "samples": {"source": "out.sdf", "num_molecules": 8},
        "reference": {"source": "qm9-sample", "num_molecules": 9},
        "conventions": {"edm": SCORE, "strict": {**SCORE, "failures": {}}},
        "sizes": {
            "samples": {"5": 6, "7": 2},
            "reference": {"5": 9},
            "jensen_shannon": 0.125,
        },
        "geometry": None,
        "poses": None,
        "relaxation": None,
        "viewer": None,
    }
    if geometry:
        found["geometry"] = {
            "jensen_shannon_species": 0.001,
            "jensen_shannon_environments": None,
            "bond_length_mmd": {"C-H": {"mmd": 0.5, "floor": 0.25}},
            "bispectrum_mmd": {"C(C,H)": {"mmd": None, "floor": None}},
            "rings_per_molecule": {"samples": {"3": 0.25}, "reference": {"10": 1.0}},
            "bond_lengths": {"C-H": LENGTHS},
        }
    if poses:
        found["poses"] = {
            "version": "1", "config": "mol", "num_molecules": 4, "all_passed": 0.5,
            "passed": {"bond_lengths": 0.75},
        }  # fmt: skip
    return found


def test_conventions_are_rows_in_per_cent():
    header, edm, strict = report.convention_rows(make_report())
    assert len(header) == len(edm) == len(strict)
    assert edm == ["edm", "87.50", "1.00", "100.00", "–", "87.50", "99.00", "–"]


def test_distances_have_their_floors_beside_them():
    rows = report.distribution_rows(make_report())
    assert rows[1:] == [
        ["sizes, JS (nats)", "0.1250", ""],
        ["atom types, JS (nats)", "0.0010", ""],
        ["environments, JS (nats)", "–", ""],
        ["bond C-H, MMD", "0.5000", "0.2500"],
        ["angles C(C,H), MMD", "–", "–"],
    ]


def test_rings_are_sorted_by_size_and_missing_ones_are_zero():
    rows = report.ring_rows(make_report())
    assert rows[1:] == [["3", "25.0", "0.0"], ["10", "0.0", "100.0"]]


def test_poses_end_with_all_tests():
    rows = report.pose_rows(make_report(poses=True))
    assert rows[0][0] == "PoseBusters 1 mol, 4 valid molecules"
    assert rows[1:] == [["bond_lengths", "75.00"], ["all tests", "50.00"]]


def test_poses_stand_beside_the_conventions():
    rows = report.convention_rows(make_report(poses=True))
    assert rows[-1][:3] == [
        "posebusters, of 4 valid by xyz2mol_hueckel",
        "50.00",
        "25.00",
    ]
    assert {len(row) for row in rows} == {8}
    page = report.to_html(make_report(poses=True))
    assert "PoseBusters 1, mol: the first valid molecules" in page
    assert "posebusters" not in report.to_html(make_report())


def test_a_relaxation_tells_what_was_not_relaxed():
    found = make_report()
    found["relaxation"] = {
        "version": "0.8", "num_molecules": 3, "num_failed": 1, "bonds": 0.0123,
        "failures": {"timeout": 1}, "angles": 1.5, "torsions": None,
        "energy_median": 2.25, "energy_mean": 3.0, "rmsd_median": 0.05,
    }  # fmt: skip
    header, *rows = report.relaxation_rows(found)
    assert "3 of the first 4 valid by geom_drugs" in header[0]
    assert [row[1] for row in rows] == [
        "0.0123",
        "1.50",
        "–",
        "2.25",
        "3.00",
        "0.050",
        "1",
    ]
    assert rows[-1][0] == "not relaxed: timeout"
    assert "2.25" in report.to_html(found)


def test_what_was_not_measured_is_left_out():
    bare = make_report(geometry=False)
    assert report.ring_rows(bare) == report.pose_rows(bare) == []
    assert report.relaxation_rows(bare) == []
    assert len(report.distribution_rows(bare)) == 2
    assert len(report.make_plots(bare)) == 2


@pytest.mark.parametrize("poses", [False, True])
def test_the_terminal_shows_every_table(poses):
    console = Console(file=io.StringIO(), width=160)
    report.print_report(make_report(poses=poses), console)
    text = console.file.getvalue()
    assert text.startswith("8 molecules of out.sdf, 9 of the data qm9-sample; RDKit")
    for word in ("stable molecules", "bond C-H, MMD", "ring size"):
        assert word in text
    assert ("PoseBusters" in text) == poses


def test_the_page_defines_each_convention_and_tells_why_molecules_fail():
    page = report.to_html(make_report())
    assert page.count("bonds by a table") == 2
    assert "valence 3" in page
    for title in ("Validity by convention", "Sizes", "Bond lengths", "Rings"):
        assert f"<h2>{title}</h2>" in page


def test_shares_add_up_to_a_hundred():
    assert report._normalized({"5": 3, "6": 1}) == {"5": 75.0, "6": 25.0}
    assert report._normalized({}) == {}


def test_reasons_are_on_the_screen_commonest_first_and_crashes_apart():
    found = make_report()
    failures = {"no atoms": 1, "crash": 2, "valence": 3, "net charge": 1}
    found["conventions"]["edm"] = {**SCORE, "failures": failures}
    lines = [
        "edm: invalid 5 of 8: valence 3, net charge 1, no atoms 1",
        "edm: not judged 2 of 8: crash 2",
    ]
    assert report.reasons(found) == lines
    console = Console(file=io.StringIO(), width=40)
    report.print_report(found, console)
    shown = console.file.getvalue()
    assert all(line in shown for line in lines)
    assert shown.index("87.50") < shown.index(lines[0]) < shown.index("distance from")


def test_what_is_missing_is_a_dash_and_never_zero():
    found = make_report()
    missing = dict.fromkeys(("valid", "valid_standard_error", "valid_and_unique"))
    found["conventions"] = {"edm": {**SCORE, **missing}}
    found["geometry"]["rings_per_molecule"] = {"samples": None, "reference": {"5": 1.0}}
    assert report.convention_rows(found)[1][1:3] == ["–", "–"]
    assert report.ring_rows(found)[1] == ["5", "–", "100.0"]
    assert "–" in report.to_html(found)
