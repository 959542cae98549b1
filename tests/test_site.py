"""The site of the guides: it builds without a warning, is whole, and needs no network.

The links of the guides are good in a view of the repository, too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from equijump.cli import VERBS as EQUIJUMP
from symphony.cli import VERBS as SYMPHONY

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOADED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|pre|icon))[^>]*\bhref=[\"']?https?:"
)
"""What makes a browser ask another host for something."""

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--site-dir", folder], cwd=ROOT, env=variables, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def pages(site):
    return {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*.html")}


def test_every_command_is_in_the_reference_with_its_flags(site):
    text = (site / "commands.html").read_text()
    for verb in SYMPHONY:
        assert f'id="symphony-{verb}"' in text
    for verb in EQUIJUMP:
        assert f'id="equijump-{verb}"' in text
    for flag in ("--workdir", "--num_molecules", "--num_jumps", "--overwrite"):
        assert flag in text


def test_every_module_with_a_docstring_is_in_the_reference(site):
    found = "".join(text for name, text in pages(site).items() if name[:4] == "api/")
    for package in ("common", "symphony", "equijump"):
        for path in (ROOT / package).rglob("[a-z]*.py"):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            assert f'id="{name}"' in found, name


def test_examples_are_code_and_formulas_need_no_script(site):
    found = pages(site)
    assert "<math" in found["api/common.so3.html"]
    assert "<math" in found["scoring.html"]
    for name, text in found.items():
        prose = re.sub(r"<code.*?</code>", "", text, flags=re.DOTALL)
        assert "&gt;&gt;&gt;" not in prose, name
        assert "$$" not in prose, name
        assert "arithmatex" not in prose, name


def test_no_page_loads_anything_from_elsewhere(site):
    for name, text in pages(site).items():
        assert LOADED.findall(text) == [], name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text()), path


@pytest.mark.parametrize("page", GUIDES, ids=lambda path: path.name)
def test_links_of_a_guide_lead_to_files_of_the_repository(page):
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        target = link.partition("#")[0]
        if target and "://" not in link:
            assert (page.parent / target).exists(), link
