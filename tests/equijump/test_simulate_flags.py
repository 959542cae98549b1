"""Tests of the flags of `equijump simulate`, none of which needs OpenMM."""

import pytest

from common.errors import UsageError
from equijump import parallel, replicas, simulate, simulate_flags, simulation


def parse(*given):
    return simulate_flags.parser().parse_args([*given, "--output=out"])


def plan(*given):
    return simulate_flags.make_plan(parse(*given))


def test_lengths_are_counted_in_steps_and_frames():
    found = plan("--sequence=AA", "--length=0.5", "--spacing=2", "--equilibration=10")
    assert found == simulation.Plan(
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
        (["--sequence=AA", "--step=4"], "2.5 fs at most with hydrogens of their own"),
        (["--sequence=AA", "--step=2.6", "--hydrogen_mass=1"], "hydrogens of 1 amu; g"),
        (["--sequence=AA", "--hydrogen_mass=9"], "expected 1 to 4 amu, found 9"),
        (["--sequence=AA", "--hydrogen_mass=-1"], "hydrogen_mass: expected 0 or more"),
        (["--sequence=AA", "--ph=4"], "--ph: expected --pdb beside it, found none"),
        (["--sequence=AA", "--processes=-1"], "--processes: expected 0 or more"),
        (["--sequence=AA", "--units=reduced"], "--units: expected --model=go beside"),
        (["--sequence=AA", "--model=go"], "expected the native structure as --pdb"),
        (["--sequence=AA", "--length=0.0015"], r"multiple of --spacing=1 ps, found"),
    ],
)
def test_flags_that_cannot_be_are_told(given, told):
    with pytest.raises(UsageError, match=told):
        plan(*given)


@pytest.mark.parametrize(
    ("value", "part", "count"),
    [(1.0, 0.002, 500), (0.1, 0.002, 50), (0.0, 0.002, 0), (1e4, 1e-3, 10_000_000)],
)
def test_multiples_forgive_rounding(value, part, count):
    assert simulate_flags.multiple("--x", value, part, "ps", "y") == count


def test_what_decides_a_simulation_leaves_the_folder_out():
    found = simulate_flags.describe(parse("--sequence=A", "--seed=3"))
    assert found["format"] == simulate_flags.FORMAT_VERSION
    assert (found["flags"]["sequence"], found["flags"]["seed"]) == ("A", 3)
    assert "output" not in found["flags"]
    assert list(found["flags"]) == sorted(found["flags"])


def test_the_contents_of_a_pdb_decide_too(tmp_path):
    path = tmp_path / "a.pdb"
    found = []
    for text in ("one", "two", "one"):
        path.write_text(text)
        found.append(simulate_flags.describe(parse(f"--pdb={path}"))["pdb_sha256"])
    assert found[0] == found[2] != found[1]


def test_seeds_of_replicas_differ_and_are_never_zero():
    seeds = {simulate.seed_of(seed, r) for seed in range(20) for r in range(50)}
    assert len(seeds) == 1_000
    assert all(0 < seed < 2**31 for seed in seeds)
    assert simulate.seed_of(3, 4) == simulate.seed_of(3, 4)


def test_flags_of_a_structure_based_model_are_told(tmp_path):
    path = tmp_path / "a.pdb"
    path.touch()
    go = (f"--pdb={path}", "--model=go")
    for given, told in (
        (["--units=reduced"], "expected kT in units of epsilon, about 1, found 300"),
        (["--caps"], "--caps: expected --model=all-atom beside it, found go"),
        (["--hydrogen_mass=3"], "--hydrogen_mass: expected --model=all-atom beside"),
        (["--epsilon=0"], "--epsilon: expected a positive number, found 0"),
    ):
        with pytest.raises(UsageError, match=told):
            plan(*go, *given)
    assert plan(*go, "--step=5", "--spacing=1").steps_per_frame == 200
    with pytest.raises(UsageError, match="--ph: expected 0 to 14, found 15"):
        plan(f"--pdb={path}", "--ph=15")


def test_each_sequence_is_simulated_as_if_it_were_the_only_one():
    for given in (["--sequence=AA,GT"], ["--sequence=AA", "--sequence=GT"]):
        found = simulate_flags.each(parse(*given, "--caps"))
        assert [own.sequence for own in found] == ["AA", "GT"]
        assert [own.output for own in found] == ["out/ace_aa_nme", "out/ace_gt_nme"]
        alone = parse("--sequence=GT", "--caps")
        assert simulate_flags.describe(found[1]) == simulate_flags.describe(alone)
    (found,) = simulate_flags.each(parse("--sequence=AA"))
    assert found.output == "out"


@pytest.mark.parametrize(
    ("sequence", "told"),
    [("AA,AA", "found AA twice"), ("AA,", "found none"), ("AA,AB", "found 'B' at")],
)
def test_sequences_that_cannot_be_together_are_told(sequence, told):
    with pytest.raises(UsageError, match=told):
        simulate_flags.each(parse(f"--sequence={sequence}"))


def test_processes_are_no_more_than_replicas_and_one_on_a_graphics_card():
    assert parallel.num_processes(8, None, 3) == 3
    assert parallel.num_processes(0, "CUDA", 3) == 1
    assert parallel.num_processes(2, "CUDA", 3) == 2
    assert 1 <= parallel.num_processes(0, "Reference", 100) <= 100


def test_how_many_processes_run_decides_nothing():
    one, two = (
        simulate_flags.describe(parse("--sequence=AA", f"--processes={n}"))
        for n in (1, 2)
    )
    assert one == two


def test_a_record_of_an_older_version_is_gone_on_with(tmp_path):
    wanted = simulate_flags.describe(parse("--sequence=AA"))
    newer = ("model", "contacts", "units", "epsilon", "hydrogen_mass", "ph", "restrain")
    flags = {k: v for k, v in wanted["flags"].items() if k not in newer}
    record = {**wanted, "flags": flags, "platform": "Reference", "threads": 0}
    replicas.write_record(tmp_path, record)
    assert replicas.find(tmp_path, wanted, "aa")["flags"] == flags
    other = simulate_flags.describe(parse("--sequence=AA", "--hydrogen_mass=3"))
    with pytest.raises(UsageError, match="was begun with --hydrogen_mass = None"):
        replicas.find(tmp_path, other, "aa")


def test_a_packaged_structure_is_simulated_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--pdb=cln025", "--model=go")
    assert plan(*given).stem == "cln025"
    packaged = simulate_flags.describe(parse(*given))
    (tmp_path / "cln025").write_text("mine")
    assert simulate_flags.describe(parse(*given)) != packaged
