"""Tests of whose files are, of links, devices and locks, and of names given last."""

import json
import os
import stat
from pathlib import Path

import pytest

from common.commands import files
from common.errors import RunError, UsageError


def test_a_file_gets_its_name_only_once_complete(tmp_path):
    path = tmp_path / "new" / "molecules.sdf"
    with files.atomic_path(path) as partial:
        partial.write_text("whole")
        assert partial.suffix == ".sdf"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "molecules.sdf"
    path.write_text("former")

    def write_half():
        with files.atomic_path(path) as partial:
            partial.write_text("ha")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_output_that_cannot_be_a_file_is_bad_usage(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "inside.sdf"):
        with pytest.raises(UsageError, match=str(path)), files.atomic_path(path):
            raise AssertionError("the block was entered")


def test_an_output_may_not_be_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.check_apart(tmp_path / "out.sdf", tmp_path / "in.sdf", None)
    with pytest.raises(UsageError, match=r"found out\.sdf for both"):
        files.check_apart(Path("out.sdf"), None, tmp_path / "out.sdf")


def test_a_lock_keeps_others_out_until_it_is_left(tmp_path):
    refused = pytest.raises(UsageError, match="in use by another")
    with files.locked(tmp_path), refused, files.locked(tmp_path):
        raise AssertionError("the block was entered")
    with files.locked(tmp_path):
        pass


def test_an_output_in_a_folder_that_is_not_there_will_do(tmp_path):
    files.check_output(tmp_path / "new" / "deep" / "molecules.sdf")
    assert not (tmp_path / "new").exists()


def test_a_folder_in_place_of_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "run"
    refused = pytest.raises(UsageError, match="--workdir: cannot make")
    with refused, files.made_folder(inside, "--workdir"):
        raise AssertionError("the block was entered")
    with files.made_folder(tmp_path, "--workdir"):
        pass  # It is there already.


def fail_in(folder, leaves=""):
    def leave_and_fail():
        with files.made_folder(folder):
            if leaves:
                (folder / leaves).touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave_and_fail()


def test_a_failure_leaves_no_empty_folder_that_it_made(tmp_path):
    (tmp_path / "mine").mkdir()
    fail_in(tmp_path / "mine")
    fail_in(tmp_path / "mine" / "new" / "deep")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    fail_in(tmp_path / "new" / "deep", leaves="kept")
    assert (tmp_path / "new" / "deep" / "kept").exists()


def test_a_file_that_fails_leaves_no_folder_either(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        files.atomic_path(tmp_path / "new" / "deep" / "a.txt"),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_stays_one(tmp_path):
    real, link = tmp_path / "far" / "real.csv", tmp_path / "link.csv"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with files.atomic_path(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert os.listdir(real.parent) == ["real.csv"]


def test_a_link_to_nothing_makes_its_target(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with files.atomic_path(tmp_path / "link.csv") as partial:
        partial.write_text("new")
    assert (tmp_path / "real.csv").read_text() == "new"
    assert (tmp_path / "link.csv").is_symlink()


def make(kind, folder):
    path = folder / "out.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "protected":
        path.write_text("mine")
        path.chmod(0o444)
    elif kind == "in a protected folder":
        (folder / "shut").mkdir(mode=0o555)
        path = folder / "shut" / "out.csv"
    elif kind == "name":
        path = folder / ("a" * 300)
    return path if "/" not in kind else Path(kind)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("/dev/null", "found a device or a pipe"),
        ("/dev/stdout", "found a device or a pipe"),
        ("/dev/none", "found a device or a pipe"),
        ("pipe", "found a device or a pipe"),
        ("link to a device", "found a device or a pipe"),
        ("loop", "cannot write"),
        ("protected", "is write-protected; chmod"),
        ("in a protected folder", "is not writable"),
        ("name", "cannot write"),
    ],
)
def test_what_cannot_be_replaced_is_refused_and_untouched(tmp_path, kind, told):
    path = make(kind, tmp_path)
    before = [(p, p.lstat()) for p in tmp_path.rglob("*")]
    for refused in (files.check_output, lambda p: files.atomic_path(p).__enter__()):
        with pytest.raises(UsageError, match=told):
            refused(path)
    assert [(p, p.lstat()) for p in tmp_path.rglob("*")] == before


def test_a_full_disk_names_the_file_and_leaves_what_was(tmp_path):
    (tmp_path / "a.txt").write_text("former")
    with (
        pytest.raises(RunError, match=r"a.txt: cannot be written \(No space left"),
        files.atomic_path(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")
    assert (tmp_path / "a.txt").read_text() == "former"


def test_the_failure_of_another_file_keeps_its_name(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"other.txt"),
        files.atomic_path(tmp_path / "a.txt"),
    ):
        (tmp_path / "other.txt").read_text()


def write(folder, command="symphony score", values=None, text="1.0"):
    record, table = folder / "scores.json", folder / "scores.csv"
    values = {"sizes": {2: "two", 10: ["Å", 0.1]}} if values is None else values
    files.write_own(command, record, values, {table: text})
    return record, table


def check(folder, command="symphony score", overwrite=False):
    record, table = folder / "scores.json", folder / "scores.csv"
    files.check_own(command, record, [table], overwrite)


def test_own_files_may_be_replaced_again_and_again(tmp_path):
    check(tmp_path)
    for text in ("1.0", "2.0"):
        record, table = write(tmp_path, text=text)
        check(tmp_path)
    assert table.read_text() == "2.0"
    assert json.loads(record.read_text())["sizes"]["10"] == ["Å", 0.1]


@pytest.mark.parametrize("name", ["scores.csv", "scores.json"])
@pytest.mark.parametrize("how", ["edited", "new", "without a record"])
def test_what_others_wrote_or_edited_is_refused(tmp_path, name, how):
    if how != "new":
        write(tmp_path)
    path = tmp_path / name
    if how == "edited" and name == "scores.json":
        path.write_text(path.read_text().replace("two", "too"))
    elif how == "edited":
        path.write_text(path.read_text() + "\n")
    elif how == "new":
        path.write_text("{}")
    else:
        (tmp_path / "scores.json").unlink()
        path = tmp_path / "scores.csv"
    with pytest.raises(UsageError, match=f"{path.name}: expected no file, or one as"):
        check(tmp_path)
    check(tmp_path, overwrite=True)


def test_the_files_of_another_command_are_not_own(tmp_path):
    write(tmp_path, command="symphony evaluate")
    with pytest.raises(UsageError, match="as symphony score left it"):
        check(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"written": 3}', '{"written": {"by": []}}', "[" * 10_000]
)
def test_a_record_of_any_contents_is_a_file_of_others(tmp_path, text):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(UsageError, match="expected no file"):
        check(tmp_path)


def test_two_files_have_their_names_together_or_not_at_all(tmp_path):
    write(tmp_path)
    former = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, values={"a": float("nan")}, text="9.0")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == former


def test_the_home_folder_stands_for_its_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.with_home("~/a.sdf") == "/home/me/a.sdf"
    assert files.with_home("~") == "/home/me"
    assert files.with_home("a/~/b") == "a/~/b"
    assert files.with_home_in_flag("--output=~/a.sdf") == "--output=/home/me/a.sdf"
    assert files.with_home_in_flag("~/runs/*.xtc") == "/home/me/runs/*.xtc"
    assert files.with_home_in_flag("--seed=3") == "--seed=3"
    assert files.with_home_in_flag("--fixed=") == "--fixed="
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UsageError, match="set HOME"):
        files.with_home("~/a.sdf")


@pytest.mark.parametrize("argument", ["--output=", "--workdir= "])
def test_nothing_to_write_to_is_not_the_working_folder(argument):
    with pytest.raises(UsageError, match=r"expected a path, found none; is a var"):
        files.with_home_in_flag(argument)
