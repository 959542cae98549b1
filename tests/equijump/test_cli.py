"""Tests of the `equijump` command, as long as there is nothing behind it."""

from equijump import cli


def test_equijump_says_that_it_is_not_here_yet(capsys):
    assert cli.main(["train"]) == 2
    err = capsys.readouterr().err
    assert err == "equijump: EquiJump is not part of this version\n"
