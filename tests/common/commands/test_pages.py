"""Tests of memory in large pages."""

import subprocess
import sys

import pytest

from common.commands import environment, pages

PROGRAM = """
import os, sys
sys.path.insert(0, {root!r})
from common.commands import cli, pages
pages.gains = lambda known: "GLIBC_TUNABLES" not in known
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
{first}
cli.dispatch("symphony", {{"train": "", "sample": ""}})
"""


@pytest.mark.parametrize(
    ("switch", "libc", "given", "expected"),
    [
        ("always [madvise] never", (2, 36), {}, True),
        ("always [madvise] never", (2, 35), {}, True),
        ("always [madvise] never", (2, 31), {}, False),
        ("always [madvise] never", (), {}, False),
        ("[always] madvise never", (2, 36), {}, False),
        ("always madvise [never]", (2, 36), {}, False),
        ("always [madvise] never", (2, 36), {"GLIBC_TUNABLES": ""}, False),
    ],
)
def test_pages_are_asked_for_where_they_help(
    switch, libc, given, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(pages, "SWITCH", tmp_path / "enabled")
    assert not pages.gains(given)
    pages.SWITCH.write_text(switch + "\n")
    monkeypatch.setattr(pages, "_libc", lambda: libc)
    assert pages.gains(given) is expected


def started(verb, first="", **given):
    """Lines that the program above prints, once for each start."""
    text = PROGRAM.format(root=str(environment._ROOT), first=first)
    known = {k: v for k, v in environment.of_child().items() if k != pages.TUNABLES}
    done = subprocess.run(
        [sys.executable, "-c", text, verb, "--workdir=no such config"],
        env=known | given, capture_output=True, text=True,
    )  # fmt: skip
    return [line.split(" ", 2) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="exec makes another process there")
def test_training_starts_again_once_with_all_that_was_given():
    (first, before, given), (second, after, again) = started("train")
    assert first == second
    assert (before, after) == ("None", pages.HUGE_PAGES)
    assert given == again == "['train', '--workdir=no such config']"


@pytest.mark.parametrize(
    ("verb", "first", "given"),
    [
        ("sample", "", {}),
        ("train", "", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}),
        ("train", "sys.modules['jax'] = None", {}),
        ("train", "import threading; threading.Timer(.1, print).start()", {}),
    ],
)
def test_what_was_chosen_or_begun_goes_on_as_it_is(verb, first, given):
    starts = [line for line in started(verb, first, **given) if line != [""]]
    assert len(starts) == 1
