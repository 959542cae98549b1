"""Tests of the flags of `equijump simulate`, none of which needs OpenMM."""

import pytest

from common.errors import UsageError
from equijump import simulate


def parse(*given):
    return simulate._parser().parse_args([*given, "--output=out"])


def plan(*given):
    return simulate.make_plan(parse(*given))


def test_lengths_are_counted_in_steps_and_frames():
    found = plan("--sequence=AA", "--length=0.5", "--spacing=2", "--equilibration=10")
    assert found == simulate.Plan(
        stem="aa",
        steps_per_frame=1_000,
        equilibration_steps=5_000,
        num_frames=250,
        spacing=2.0,
    )


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        (["--sequence=ACD"], "acd"),
        (["--sequence=ACD", "--caps"], "ace_acd_nme"),
        ([f"--sequence={'A' * 80}"], "a" * 60),
    ],
)
def test_files_are_named_by_the_sequence(given, stem):
    assert plan(*given).stem == stem


def test_files_are_named_by_the_pdb(tmp_path):
    (tmp_path / "1abc.x.pdb").touch()
    assert plan(f"--pdb={tmp_path / '1abc.x.pdb'}").stem == "1abc.x"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "expected --sequence or --pdb, found neither"),
        (["--sequence=A", "--pdb=a.pdb"], "expected --sequence or --pdb, found both"),
        (["--sequence="], "expected one letter or more, found none"),
        (["--sequence=AB"], "found 'B' at place 2"),
        (["--sequence=a"], "found 'a' at place 1"),
        (["--pdb=nowhere.pdb"], "--pdb: expected a file, found none at nowhere"),
        (["--sequence=A", "--permittivity=80"], "expected --solvent=none beside it"),
        (["--sequence=A", "--temperature=0"], "--temperature: expected a positive"),
        (["--sequence=A", "--friction=-1"], "--friction: expected a positive"),
        (["--sequence=A", "--step=inf"], "--step: expected a positive number"),
        (["--sequence=A", "--length=nan"], "--length: expected a positive number"),
        (["--sequence=A", "--equilibration=-1"], "--equilibration: expected 0 or more"),
        (
            ["--sequence=AA", "--equilibration=0.003"],
            "--equilibration: expected a mult",
        ),
        (["--sequence=A", "--step=nan"], "--step: expected a positive number"),
        (["--sequence=A", "--temperature=-1"], "--temperature: expected a positive"),
        (["--sequence=A", "--replicas=0"], "--replicas: expected 1 or more, found 0"),
        (["--sequence=A", "--seed=-1"], "--seed: expected 0 to 4294967295, found -1"),
        (
            ["--sequence=AA", "--spacing=0.003"],
            r"multiple of --step=2 fs, found 0\.003",
        ),
        (["--sequence=AA", "--length=0.0015"], r"multiple of --spacing=1 ps, found"),
    ],
)
def test_flags_that_cannot_be_are_told(given, told):
    with pytest.raises(UsageError, match=told):
        plan(*given)


def test_caps_need_a_sequence(tmp_path):
    (tmp_path / "a.pdb").touch()
    with pytest.raises(UsageError, match="--caps: expected --sequence beside it"):
        plan(f"--pdb={tmp_path / 'a.pdb'}", "--caps")


@pytest.mark.parametrize(
    ("value", "part", "count"),
    [(1.0, 0.002, 500), (0.1, 0.002, 50), (0.0, 0.002, 0), (1e4, 1e-3, 10_000_000)],
)
def test_multiples_forgive_rounding(value, part, count):
    assert simulate._multiple("--x", value, part, "ps", "y") == count


def test_what_decides_a_simulation_leaves_the_folder_out():
    found = simulate.describe(parse("--sequence=A", "--seed=3"))
    assert found["format"] == simulate.FORMAT_VERSION
    assert (found["flags"]["sequence"], found["flags"]["seed"]) == ("A", 3)
    assert "output" not in found["flags"]
    assert list(found["flags"]) == sorted(found["flags"])


def test_the_contents_of_a_pdb_decide_too(tmp_path):
    path = tmp_path / "a.pdb"
    found = []
    for text in ("one", "two", "one"):
        path.write_text(text)
        found.append(simulate.describe(parse(f"--pdb={path}"))["pdb_sha256"])
    assert found[0] == found[2] != found[1]


def test_seeds_of_replicas_differ_and_are_never_zero():
    seeds = {simulate.seed_of(seed, r) for seed in range(20) for r in range(50)}
    assert len(seeds) == 1_000
    assert all(0 < seed < 2**31 for seed in seeds)
    assert simulate.seed_of(3, 4) == simulate.seed_of(3, 4)
