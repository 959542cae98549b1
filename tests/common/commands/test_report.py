"""Tests of tables, pages and files of a report."""

import io
import json

import matplotlib.figure
import pytest
from rich.console import Console
from rich.text import Text

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


WIDE = [
    ["convention, %", "valid", "±", "unique", "novel", "valid and unique", "stable"],
    ["xyz2mol_hueckel", "92.51", "4.16", "99.93", "87.02", "92.44", "79.08"],
    ["18 of ramachandran, mean", "0.0123 (0.01–0.04)", "0.1", "0.2", "0.3", "0.4", "–"],
]


@pytest.mark.parametrize("width", [10, 30, 60, 80, 100, 200])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_number_is_cut_at_any_width(width, is_terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal)
    report.print_tables([WIDE, ROWS], console)
    text = console.file.getvalue()
    assert "…" not in text
    for row in WIDE[1:]:
        for cell in row:
            assert cell in text
    if width >= 60 and is_terminal:
        plain = Text.from_ansi(text).plain
        assert max(map(len, plain.splitlines())) <= width


def test_a_narrow_terminal_gets_parts_that_each_begin_with_the_names():
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    report.print_tables([WIDE], console)
    assert console.file.getvalue().count("xyz2mol_hueckel") > 1


def test_a_pipe_gets_one_line_a_row():
    console = Console(file=io.StringIO(), width=80)
    report.print_tables([WIDE], console)
    (row,) = (x for x in console.file.getvalue().splitlines() if "hueckel" in x)
    assert row.split() == WIDE[1]


def test_a_terminal_without_lines_gets_a_plain_box():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    report.print_tables([WIDE], Console(file=file))
    file.flush()
    assert "|xyz2mol_hueckel " in file.buffer.getvalue().decode("ascii")


def test_a_report_of_a_command_is_its_own(tmp_path):
    report.write({"valid": 0.5}, "<p>page", tmp_path, "symphony evaluate")
    cli.check_report(tmp_path, "symphony evaluate", overwrite=False)
    with pytest.raises(UsageError, match="as equijump evaluate left it"):
        cli.check_report(tmp_path, "equijump evaluate", overwrite=False)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["written"]["by"] == "symphony evaluate"
    assert set(found["written"]["sha256"]) == {"report.html", "report.json"}


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
