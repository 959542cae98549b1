"""Tests of replicas in processes of their own; skipped where OpenMM lacks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from common.commands import cli
from common.errors import RunError
from equijump import replicas, simulate

ALANINE = ("--caps", "--solvent=none", "--platform=Reference", "--equilibration=0.1")
QUICK = (*ALANINE, "--spacing=0.1", "--length=0.001")


@pytest.fixture(autouse=True)
def md():
    for name in ("openmm", "pdbfixer", "PeptideBuilder"):
        pytest.importorskip(name)


def run(output, *more):
    return cli.run("equijump simulate", simulate.main, [*more, f"--output={output}"])


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*.xtc"))}


def test_replicas_side_by_side_are_those_of_one_after_the_other(tmp_path):
    given = ("--sequence=A", *QUICK, "--replicas=3")
    assert run(tmp_path / "one", *given, "--processes=1") == 0
    assert run(tmp_path / "two", *given, "--processes=2") == 0
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert len(bytes_of(tmp_path / "two")) == 3


def test_each_sequence_has_the_files_that_it_has_alone(tmp_path, capsys):
    given = (*QUICK, "--processes=1")
    assert run(tmp_path / "all", "--sequence=A,G", *given) == 0
    assert run(tmp_path / "g", "--sequence=G", *given) == 0
    folder = tmp_path / "all" / "ace_g_nme"
    assert bytes_of(folder) == bytes_of(tmp_path / "g")
    record = json.loads((folder / "simulate.json").read_text())
    assert record["sequence"] == ["ACE", "GLY", "NME"]
    assert run(folder, "--sequence=G", *given) == 0
    assert "all 10 frames are done" in capsys.readouterr().out


def test_a_replica_that_fails_in_its_process_is_told_in_one_line(tmp_path, capsys):
    hot = ("--step=100", "--spacing=1", "--length=0.1", "--temperature=3000")
    given = (*ALANINE[:-1], "--equilibration=0", "--hydrogen_mass=3", "--replicas=2")
    assert run(tmp_path, "--sequence=A", *given, *hot, "--processes=2") == 3
    err = capsys.readouterr().err
    assert "the simulation became unstable before" in err
    assert err.endswith("; 1 more failed\n")
    assert err.count("\n") == 1


def command(output, *given):
    code = "import sys; from equijump import cli; sys.exit(cli.main())"
    return [sys.executable, "-c", code, "simulate", *given, f"--output={output}"]


def test_a_molecule_that_fails_does_not_keep_others_from_it(
    tmp_path, capsys, monkeypatch
):  # fmt: skip
    set_up = simulate.set_up

    def fail_for_glycine(md, arguments, *given, **more):
        if arguments.sequence == "G":
            raise RunError("--sequence: no minimum was found nearby")
        return set_up(md, arguments, *given, **more)

    monkeypatch.setattr(simulate, "set_up", fail_for_glycine)
    assert run(tmp_path, "--sequence=G,A", *QUICK, "--processes=1") == 3
    assert "no minimum was found" in capsys.readouterr().err
    assert list(bytes_of(tmp_path)) == ["ace_a_nme_0.xtc"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_are_stopped_go_on(tmp_path, number):
    given = ("--sequence=A", *ALANINE, "--spacing=0.1", "--replicas=2")
    given = (*given, "--processes=2")
    folder, more = tmp_path / "out", ("--length=0.4",)
    process = subprocess.Popen(
        command(folder, *given, *more), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    names = [folder / f"ace_a_nme_{r}.state" for r in range(2)]
    while not all(name.exists() for name in names) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert process.wait(60) == (-9 if number == signal.SIGKILL else 3)
    time.sleep(0.5)  # In which the processes of one that was killed have ended.
    done = [replicas.read_state(name).num_frames for name in names]
    assert all(count < 4_000 for count in done)
    sizes = [path.stat().st_size for path in folder.glob("*.xtc")]
    time.sleep(0.5)
    assert sizes == [path.stat().st_size for path in folder.glob("*.xtc")]
