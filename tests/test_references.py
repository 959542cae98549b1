"""The table of sources, and the file that says how to cite."""

import re
from pathlib import Path

import pytest
import yaml

import common

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "symphony", "equijump", "configs")
PAPERS = ("2311.16199", "2410.09667")
"""Symphony and EquiJump."""

NUMBER = re.compile(r"(?i:arXiv)[:\s]+(\d{4}\.\d{4,5})")
MODULE = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+\.py)`")
ROWS = [
    line
    for line in (ROOT / "docs" / "references.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and MODULE.search(line)
]


def cited():
    """Returns the arXiv numbers that the packages cite, and in which modules."""
    found = {}
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for number in NUMBER.findall(path.read_text("utf-8")):
            found.setdefault(number, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_row_names_modules_that_exist():
    named = {module for row in ROWS for module in MODULE.findall(row)}
    assert named
    assert [module for module in named if not (ROOT / module).is_file()] == []


def test_every_citation_of_the_code_has_a_row_with_its_module():
    listed = {}
    for row in ROWS:
        for number in NUMBER.findall(row):
            listed.setdefault(number, set()).update(MODULE.findall(row))
    missing = {
        number: sorted(modules - listed.get(number, set()))
        for number, modules in cited().items()
        if not modules <= listed.get(number, set())
    }
    assert missing == {}


@pytest.mark.parametrize("paper", PAPERS)
def test_the_citation_file_names_the_papers(paper):
    values = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    [found] = [
        reference
        for reference in values["references"]
        if {"type": "other", "value": f"arXiv:{paper}"} in reference["identifiers"]
    ]
    assert {"type", "title", "authors", "year"} <= found.keys()
    assert all({"given-names", "family-names"} == a.keys() for a in found["authors"])


def test_the_citation_file_is_whole_and_of_this_version():
    values = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert values["cff-version"] == "1.2.0"
    assert values["version"] == common.__version__
    assert values["authors"] == [{"name": "the developers"}]
    assert {"message", "title", "type", "license"} <= values.keys()
    assert not {"doi", "url", "repository-code"} & values.keys()
