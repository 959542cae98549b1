"""Tests of `benchmarks.tables`: parts that are kept, and tables; without a network."""

import json
import re

import numpy as np
import pytest

from benchmarks import markdown, molecules, report, tables
from common.errors import UsageError
from symphony.chemistry import bonds
from symphony.evaluate import conventions, samples

PAGE = "# Page\n\n<!-- table: one -->\nold\n<!-- end of table -->\n\nmore\n"
SHARES = dict.fromkeys(
    ("valid", "unique", "novel", "valid_and_unique", "atom_stability",
     "molecule_stability"), 0.5,
)  # fmt: skip


def make_seed(valid, number=100):
    named = {name: {**SHARES, "valid": valid} for name in conventions.NAMES}
    mmd = {"C-C 1.0": {"mmd": 0.25, "floor": 0.125}}
    return {
        "num_molecules": number, "never_stopped": 0.01, "conventions": named,
        "jensen_shannon_sizes": 0.001, "jensen_shannon_species": 0.002,
        "jensen_shannon_environments": None, "bond_length_mmd": mmd,
        "bispectrum_mmd": {}, "rings_per_molecule": {"samples": {"3": valid}},
    }  # fmt: skip


def make_found():
    own = {"0": make_seed(0.9), "1": make_seed(0.94)}
    return {
        "sets": {
            "data": {"seeds": {"": make_seed(1.0, 5000)}},
            "qm9_cpu basin": {"seeds": {"0": make_seed(0.8)}},
            "qm9 temperature_1": {"seeds": own},
        }
    }


def rows_of(text):
    return [[*map(str.strip, line.strip("|").split("|"))] for line in text.splitlines()]


def test_figures_are_means_over_seeds_with_their_deviation():
    head, _, counts, valid, *_ = rows_of(markdown.blocks(make_found())["molecules"])
    assert head == ["%", "`qm9`", "`qm9_cpu`, `--basin`", "QM9 itself"]
    assert counts[1:] == ["2 x 100", "1 x 100", "1 x 5,000"]
    assert valid == ["valid: `xyz2mol_hueckel`", "92.0 ± 2.8", "80.0", "100.0"]


def test_distances_and_rings_have_their_floor_and_what_is_missing():
    blocks = markdown.blocks(make_found())
    distances = {row[0]: row[1:] for row in rows_of(blocks["distances"])}
    assert distances["environments, JS, nats"] == ["–"] * 3
    assert distances["bond C-C 1.0, MMD (floor 0.125)"][1] == "0.250"
    rings = {row[0]: row[1:] for row in rows_of(blocks["rings"])}
    assert rings["of 3 atoms"] == ["92.0 ± 2.8", "80.0", "100.0"]
    assert rings["of 4 atoms"] == ["0.0 ± 0.0", "0.0", "0.0"]


def test_what_was_not_measured_yet_is_a_dash():
    found = make_found()
    for name in ("rings_per_molecule", "bond_length_mmd", "jensen_shannon_species"):
        del found["sets"]["qm9_cpu basin"]["seeds"]["0"][name]
    blocks = markdown.blocks(found)
    for row in ("| of 3 atoms |", "| atom types, JS, nats |", "| bond C-C 1.0"):
        (line,) = [line for text in blocks.values() for line in text.splitlines()
                   if line.startswith(row)]  # fmt: skip
        assert rows_of(line)[0][2] == "–"
    assert set(rows_of(blocks["relaxation"])[2][1:]) == {"–"}


def test_figures_of_others_have_a_source_and_stand_beside_ours():
    published = json.loads(markdown.PUBLISHED.read_text("utf-8"))["conventions"]
    for convention in published:
        for model in convention["models"]:
            assert model["source"]
            assert {*model} - {"name", "how", "source"} <= {*convention["columns"]}
    text = markdown.blocks(make_found())["published"]
    (ours,) = [row for row in rows_of(text) if row[0] == "**ours: `qm9`**"][:1]
    assert ours[3] == "92.0 ± 2.8"
    assert ours[-1] == "all of 200"
    assert text.count("**ours: `qm9`**") == 2  # None on GEOM-Drugs.


def test_figures_by_the_old_rdkit_are_rows_of_xyz2mol():
    one = {"valid": 0.9, "unique": 1.0, "valid_and_unique": 0.9,
           "num_molecules": 50, "rdkit": "2023.03.3"}  # fmt: skip
    names = "qm9_cpu_basin_0", "qm9_cpu_basin_1", "gschnet_samples"
    old = {"samples": dict.fromkeys(names, one)}
    text = markdown.blocks(make_found(), old)["published"]
    row = "| **ours: `qm9_cpu`, `--basin`** | 90.0 ± 0.0 | 100.0 ± 0.0 | 90.0 ± 0.0 |"
    assert f"{row} RDKit 2023.03.3; all of 100 |" in text
    assert "gschnet" not in text


def test_a_table_stands_between_its_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    for text in ("| new |", "| newer |"):
        markdown.put(path, {"one": text})
    assert path.read_text() == PAGE.replace("old", "| newer |")
    with pytest.raises(UsageError, match="expected a mark"):
        markdown.put(path, {"two": ""})


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_pages_have_the_tables_of_the_figures(request, tmp_path, page):
    text = (request.config.rootpath / page).read_text("utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(text, "utf-8")
    found, old = (
        markdown.read(report.RESULTS / f"{n}.json") for n in ("tables", "quetzal")
    )
    markdown.put(copy, markdown.blocks(found, old))
    assert copy.read_text("utf-8") == text


def test_every_other_file_of_results_is_printed_below_its_command():
    texts = "\n".join(markdown.others(report.RESULTS, leave_out="tables"))
    for path in report.RESULTS.glob("*.json"):
        if path.stem != "tables":
            assert f"## {path.stem}\n\n`python -m benchmarks." in texts
    assert "| formula | finished, % |" in texts
    assert "## tables" not in texts
    scripts = re.findall(r"`python -m benchmarks\.(\w+)", texts)
    assert all((report.RESULTS.parent / f"{name}.py").exists() for name in scripts)


def test_a_command_that_a_file_records_is_printed_as_it_is():
    assert markdown.command_of("any", {"command": "python -m x"}) == "python -m x"
    several = {"tables": {"a": {"command": "x"}, "b": {"command": "y"}}}
    assert markdown.command_of("any", {"command": "z", **several}) == "x; y"
    flags = {"flags": {"output": "a.json", "seed": "0", "gate": "None", "to": "b c"}}
    wanted = "python -m benchmarks.any --seed=0 --to='b c'"
    assert markdown.command_of("any", flags) == wanted
    assert "not recorded" in markdown.command_of("any", {})


def water(shift):
    numbers = np.array([8, 1, 1], np.uint8)
    place = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return numbers, place + shift


@pytest.fixture
def judged(monkeypatch):
    """Counts the molecules that are judged anew."""
    counts = []

    def perceive(some, faults, **_):
        counts.append(len(some))
        found = [
            bonds.Perception("valid", "O", "O", ((0, 1, 1.0),), charges=(0, 0, 0))
            if fault is None
            else bonds.Perception(fault)
            for fault in faults
        ]
        return dict.fromkeys(("edm", "xyz2mol", "xyz2mol_hueckel"), found)

    monkeypatch.setattr(molecules, "CHUNK", 2)
    monkeypatch.setattr(conventions, "perceive", perceive)
    return counts


def test_what_was_judged_is_kept_and_more_molecules_add_to_it(tmp_path, judged):
    some = [water(float(shift)) for shift in range(5)]
    faults = [None, "never finished", None, None, None]
    first = molecules.perceive(some[:4], faults[:4], tmp_path, 1)
    again = molecules.perceive(some, faults, tmp_path, 1)
    assert judged == [2, 2, 1]
    found = again["xyz2mol_hueckel"]
    assert found[:4] == first["xyz2mol_hueckel"]
    assert [one.status for one in found] == ["valid", "never finished", *["valid"] * 3]
    assert found[0].charges == (0, 0, 0)


def test_a_set_gains_parts_and_the_others_stay():
    sets = {"data": {"command": "old", "seeds": {"": {"num_molecules": 7}}}}
    tables.add(sets, "qm9 basin", "0", {"num_molecules": 5})
    tables.add(sets, "qm9 basin", "0", {"poses": None})
    tables.add(sets, "qm9 basin", "1", {"num_molecules": 6})
    assert sets["data"]["command"] == "old"
    assert sets["qm9 basin"]["command"].startswith("python -m ")
    seeds = {"0": {"num_molecules": 5, "poses": None}, "1": {"num_molecules": 6}}
    assert sets["qm9 basin"]["seeds"] == seeds


def test_other_molecules_are_judged_anew(tmp_path, judged):
    molecules.perceive([water(0.0), water(1.0)], [None] * 2, tmp_path, 1)
    molecules.perceive([water(0.0), water(1.001)], [None] * 2, tmp_path, 1)
    assert judged == [2, 2]


def test_molecules_are_drawn_only_where_some_are_missing(tmp_path, monkeypatch):
    ran = []

    def main(words):
        ran.append(words)
        path = tmp_path / case.path
        path.write_text("")
        lines = [{"record": "header"}, *({"index": i} for i in range(3))]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path.with_suffix(".jsonl").write_text(text)
        return 0

    three = samples.Samples([water(0.0)] * 3, [None] * 3, "mine")
    monkeypatch.setattr(molecules.sample, "main", main)
    monkeypatch.setattr(molecules.samples, "read_samples", lambda path: three)
    case = molecules.Case("qm9", "basin", 1)
    for count in (3, 2):
        assert len(molecules.draw(case, count, tmp_path).molecules) == count
    assert len(ran) == 1
    assert {"--basin", "--seed=1", "--num_molecules=3"} <= {*ran[0]}
