"""The notebooks of the documentation: what they hold, and (slow) that they run."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
LARGEST_PICTURE = 60_000  # Bytes.


def cells_of(name, kind):
    cells = json.loads((FOLDER / name).read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def run(source, namespace):
    """Runs a cell as IPython would: lines that begin with `!` are commands."""
    if source.startswith("!"):
        for line in source.splitlines():
            subprocess.run(line.removeprefix("!"), shell=True, check=True)
        return
    exec(compile(source, "cell", "exec"), namespace)


def test_each_model_has_a_notebook():
    assert NOTEBOOKS == ["equijump.ipynb", "symphony.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_small_and_without_errors(name):
    pictures = 0
    for cell in cells_of(name, "code"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            picture = output.get("data", {}).get("image/png")
            pictures += picture is not None
            assert len(base64.b64decode(picture or "")) < LARGEST_PICTURE
    assert pictures <= 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_to_pages(name):
    text = "".join("".join(cell["source"]) for cell in cells_of(name, "markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((FOLDER / link).is_file() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    here = [str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(here))
    (tmp_path / "workdir").mkdir()
    namespace = {}
    for cell in cells_of(name, "code"):
        run("".join(cell["source"]), namespace)
    page = (tmp_path / "workdir").glob("*.html")
    assert [one.stat().st_size > 100_000 for one in page] == [True]
