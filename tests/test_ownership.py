"""Every command and the files that it finds where it is to write: one table.

Each call fails cheaply, later than the question whose the files are.
"""

import json
from pathlib import Path

import pytest

from common.commands import cli, files
from common.pages import own
from equijump.cli import VERBS as EQUIJUMP
from symphony.cli import VERBS as SYMPHONY

REPORT = ["report.json", "report.html"]
PACKAGE = ["config.json", "weights.npz"]
SEALED = {
    "symphony score": (
        ["--molecules=none.sdf", "--output=scores.csv"],
        ["scores.json", "scores.csv", "scores_atoms.csv"],
        "none.sdf: expected a file",
    ),
    "symphony evaluate": (["--samples=none.sdf", "--output=."], REPORT, "none.sdf"),
    "equijump evaluate": (["--trajectory=none.xtc", "--output=."], REPORT, "none.xtc"),
    "symphony package": (["--workdir=none", "--output=."], PACKAGE, "none: expected"),
    "equijump package": (["--workdir=none", "--output=."], PACKAGE, "none: expected"),
}
"""Flags, the files (the sealed one first), and what is told where they are own."""

STARTED = {
    "symphony sample": (["--num_molecules=2", "--output=a.sdf"], "a.sdf"),
    "symphony refine": (["--molecules=MOLECULES", "--output=a.sdf"], "a.jsonl"),
    "symphony properties": (["MOLECULES", "--output=a.npz"], "a.jsonl"),
    "symphony edit": (["MOLECULES", "--remove=0", "--output=a.sdf"], "a.jsonl"),
    "symphony complete": (["MOLECULES", "--output=a.sdf"], "a.jsonl"),
    "symphony train": (["--config=tiny", "--workdir=."], "config.json"),
    "equijump train": (["--config=tiny", "--workdir=."], "metrics.jsonl"),
    "equijump sample": (["--num_jumps=2", "--replicas=2", "--output=."], "state.npz"),
    "equijump simulate": (["--sequence=A", "--caps", "--output=."], "ace_a_nme_0.xtc"),
}
"""Flags of commands that go on with their own files, and one of the files."""

PAGES = {
    "symphony view": (["none.sdf", "--output=view.html"], "none.sdf: expected a file"),
    "equijump view": (["none.xtc", "--output=view.html"], "none.xtc"),
}
"""Flags of commands that write one sealed page, and what is told where they may."""

WRITES_NOTHING = {"equijump inspect"}

JOINS = {
    "symphony merge": ["a.sdf", "a.csv"],
    "equijump merge": ["a"],
}
"""Commands that join parts; `test_shards` of each has what they find beside these."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(command, flags, capfd):
    program, verb = command.split()
    verbs = SYMPHONY if program == "symphony" else EQUIJUMP
    status = cli.dispatch(program, verbs, [verb, *flags])
    return status, capfd.readouterr().err


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_every_command_is_in_the_table():
    known = {*SEALED, *STARTED, *PAGES, *WRITES_NOTHING, *JOINS}
    assert known == {
        *(f"symphony {verb}" for verb in SYMPHONY),
        *(f"equijump {verb}" for verb in EQUIJUMP),
    }


@pytest.mark.parametrize("command", SEALED)
def test_a_file_of_the_user_is_refused_and_replaced_only_when_told(
    command, folder, capfd
):
    flags, names, passes = SEALED[command]
    for name in names:
        (folder / name).write_text("mine")
        status, err = run(command, flags, capfd)
        assert status == 2
        assert f"{name}: expected no file, or one as {command} left it" in err
        assert err.count("\n") == 1
        assert contents(folder) == {name: b"mine"}
        status, err = run(command, [*flags, "--overwrite"], capfd)
        assert status == 2
        assert passes in err
        assert contents(folder) == {name: b"mine"}
        (folder / name).unlink()


@pytest.mark.parametrize("command", SEALED)
def test_own_files_are_replaced_unless_they_were_edited(command, folder, capfd):
    flags, names, passes = SEALED[command]
    record, *others = map(Path, names)
    files.write_own(command, record, {"a": 1}, dict.fromkeys(others, "1.0"))
    assert passes in run(command, flags, capfd)[1]
    for path in others:
        path.write_text("2.0")
        assert f"{path}: expected no file, or one as" in run(command, flags, capfd)[1]
        path.write_text("1.0")
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"a": 2}))
    assert f"{record}: expected no file, or one as" in run(command, flags, capfd)[1]


@pytest.mark.parametrize("command", PAGES)
def test_a_page_is_replaced_only_where_it_is_as_the_command_left_it(
    command, folder, capfd
):
    flags, passes = PAGES[command]
    page = folder / "view.html"
    page.write_text("mine")
    assert f"or one as {command} left it" in run(command, flags, capfd)[1]
    assert page.read_text() == "mine"
    assert passes in run(command, [*flags, "--overwrite"], capfd)[1]
    own.write(command, page, "<p>seen\n")
    assert passes in run(command, flags, capfd)[1]
    page.write_text(page.read_text().replace("seen", "edited"))
    assert f"or one as {command} left it" in run(command, flags, capfd)[1]


@pytest.mark.parametrize("command", STARTED)
def test_what_goes_on_refuses_files_of_others(command, folder, capfd):
    flags, name = STARTED[command]
    packaged = Path(cli.__file__).parents[2] / "symphony" / "packaged" / "ethanol.xyz"
    flags = [flag.replace("MOLECULES", str(packaged)) for flag in flags]
    (folder / name).write_text("mine")
    status, err = run(command, flags, capfd)
    assert status == 2
    assert name in err
    assert err.count("\n") == 1
    assert contents(folder) == {name: b"mine"}


@pytest.mark.parametrize("command", JOINS)
def test_what_joins_parts_touches_nothing_where_there_are_none(command, folder, capfd):
    for name in JOINS[command]:
        (folder / name).write_text("mine")
        status, err = run(command, [name], capfd)
        assert status == 2
        assert "expected parts beside it, as a.0-of-4" in err
        assert err.count("\n") == 1
        assert contents(folder) == {name: b"mine"}
        (folder / name).unlink()


LINKED = SEALED | {
    "symphony sample": (["--output=a.sdf", "--overwrite"], ["a.sdf"], ""),
    "symphony refine": (["--molecules=b.sdf", "--output=a.sdf"], ["a.extxyz"], ""),
    "symphony train": (["--config=tiny", "--workdir=."], ["config.json"], ""),
    "equijump train": (["--config=tiny", "--workdir=."], ["metrics.jsonl"], ""),
    "equijump sample": (["--output=.", "--overwrite"], ["sample.json"], ""),
    "equijump simulate": (["--sequence=AA", "--output=."], ["simulate.json"], ""),
    "symphony view": (["a.sdf", "--output=view.html"], ["view.html"], ""),
    "equijump view": (["a.xtc", "--output=view.html"], ["view.html"], ""),
}


@pytest.mark.parametrize("command", LINKED)
def test_devices_are_never_replaced(command, folder, capfd):
    flags, names, _ = LINKED[command]
    (folder / names[-1]).symlink_to("/dev/null")
    status, err = run(command, [*flags], capfd)
    assert status == 2
    assert "device" in err or "that no run wrote" in err
    assert (folder / names[-1]).is_symlink()
    assert len(list(folder.iterdir())) == 1
