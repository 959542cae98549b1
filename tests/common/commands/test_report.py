"""Tests of tables, pages and files of a report."""

import io
import json

import matplotlib.figure
import pytest
from rich.console import Console

from common.commands import cli, report
from common.errors import UsageError

ROWS = [["name", "value"], ["a<b", "1.0"], ["c", "–"]]


def printed(tables):
    console = Console(file=io.StringIO(), width=80)
    report.print_tables(tables, console)
    return console.file.getvalue()


def test_a_number_that_is_missing_is_a_dash():
    assert report.number(0.123456) == "0.1235"
    assert report.number(2.0, digits=1) == "2.0"
    assert report.number(None) == "–"


def test_tables_without_rows_are_left_out():
    text = printed([[], ROWS])
    assert "name" in text
    assert text.count("a<b") == 1
    assert printed([[], []]) == ""


def test_cells_are_escaped():
    page = report.html_table(ROWS)
    assert "<td>a&lt;b</td>" in page
    assert page.count("<tr>") == 3
    assert '<td class="text">c</td>' in report.html_table(ROWS, text=True)


def test_a_figure_is_inside_the_page():
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    part = report.html_figure(figure, "Sizes & shapes")
    page = report.html_page("Title", "one < two", [part], {"rdkit": "1.0"})
    assert "data:image/png;base64," in page
    assert "Sizes &amp; shapes" in page
    assert "<p>one &lt; two" in page
    assert "rdkit 1.0" in page


def test_a_report_is_written_as_json_and_as_a_page(tmp_path, capsys):
    shown = []
    found = {"valid": 0.5, "unit": "Å"}
    folder = tmp_path / "new" / "report"
    report.show(found, "<p>page", lambda what, console: shown.append(what), folder)
    assert json.loads((folder / "report.json").read_text()) == found
    assert (folder / "report.html").read_text() == "<p>page"
    assert shown == [found]
    assert "report.html" in capsys.readouterr().out


def test_a_number_that_json_lacks_leaves_no_half_report(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write({"valid": float("nan")}, "", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_goes_into_a_folder(tmp_path):
    cli.check_report(tmp_path)
    cli.check_report(tmp_path / "new")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="expected a folder, found a file"):
        cli.check_report(file)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_has_32_bits(seed):
    cli.check_seed(0)
    cli.check_seed(2**32 - 1)
    with pytest.raises(UsageError, match=f"--seed: .* found {seed}"):
        cli.check_seed(seed)


def test_prose_is_set_as_text():
    page = report.html_table([["why"], ["a & b"]], text=True)
    assert '<td class="text">a &amp; b</td>' in page
    assert page.count("<tr>") == 2


def test_a_page_escapes_its_words_and_names_versions():
    page = report.html_page("a<b", "c&d", ["<p>kept"], {"jax": "0.11", "numpy": "2"})
    assert "<title>a&lt;b</title>" in page
    assert "<p>c&amp;d" in page
    assert "<p>kept\n" in page
    assert "jax 0.11, numpy 2" in page
