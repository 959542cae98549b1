"""Tests of trajectories made with OpenMM; what needs it is skipped where it lacks."""

import json
import signal
import sys

import mdtraj
import numpy as np
import pytest
from absl import logging

from common.commands import cli
from common.errors import UsageError
from configs.equijump import tiny
from equijump import replicas, simulate, simulate_flags, simulation
from equijump.data import molecules, splits

ALANINE = (
    "--sequence=A", "--caps", "--solvent=none", "--platform=Reference", "--processes=1",
)  # fmt: skip
QUICK = (*ALANINE, "--equilibration=0.2", "--spacing=0.1", "--length=0.001")


pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def md():
    for name in ("openmm", "pdbfixer", "PeptideBuilder"):
        pytest.importorskip(name)
    return simulate.load_md()


def run(output, *more):
    return cli.run("equijump simulate", simulate.main, [*more, f"--output={output}"])


def load(folder, stem="ace_a_nme", replica=0):
    return mdtraj.load(
        str(folder / f"{stem}_{replica}.xtc"), top=str(folder / f"{stem}.pdb")
    )


def chirality(positions, names):
    """Returns the sign of the volume at CA, positive for an L amino acid."""
    n, ca, c, cb = (positions[names.index(name)] for name in ("N", "CA", "C", "CB"))
    return np.sign(np.dot(np.cross(n - ca, c - ca), cb - ca))


def test_capped_alanine_is_written_with_times_and_a_topology(md, tmp_path):
    assert run(tmp_path / "out", *QUICK, "--replicas=2") == 0
    found = load(tmp_path / "out")
    np.testing.assert_allclose(found.time, 0.1 * np.arange(1, 11), atol=1e-5)
    system = molecules.read_system(found.topology, 10.0 * found.xyz[0], "out")
    assert system.residue_names == ("ACE", "ALA", "NME")
    assert len(system.kept) == found.n_atoms == 10
    alanine = [atom.index for atom in found.topology.residue(1).atoms]
    names = [found.topology.atom(index).name for index in alanine]
    assert all(chirality(xyz[alanine], names) == 1.0 for xyz in found.xyz)
    record = json.loads((tmp_path / "out" / "simulate.json").read_text())
    assert record["sequence"] == ["ACE", "ALA", "NME"]
    assert record["flags"]["solvent"] == "none"
    assert record["minimised_energy_kj_per_mol"] < 0.0
    other = load(tmp_path / "out", replica=1)
    assert np.abs(other.xyz - found.xyz).max() > 0.01


def test_the_same_seed_gives_the_same_frames_and_another_does_not(md, tmp_path):
    seeds = {"a": 3, "b": 3, "c": 4}
    for name, seed in seeds.items():
        assert run(tmp_path / name, *QUICK, f"--seed={seed}") == 0
    a, b, c = (load(tmp_path / name).xyz for name in seeds)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(md, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, *QUICK, "--replicas=2") == 0
    advance, calls = md.advance, []

    def die_in_the_second_replica(context, *arguments):
        calls.append(context)
        if len(calls) == 17:  # Equilibration and 10 frames, equilibration and 4.
            with (killed / "ace_a_nme_1.xtc").open("ab") as file:
                file.write(b"half a frame")
            raise KeyboardInterrupt
        return advance(context, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(md, "advance", die_in_the_second_replica)
        patch.setattr(simulation, "SAVE_SECONDS", 0.0)
        assert run(killed, *QUICK, "--replicas=2") == 130
    state = replicas.read_state(killed / "ace_a_nme_1.state")
    assert state.num_frames == 4
    assert run(killed, *QUICK, "--replicas=2") == 0
    for replica in range(2):
        name = f"ace_a_nme_{replica}.xtc"
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_signal_keeps_what_was_simulated(md, tmp_path, monkeypatch, capsys):
    advance, calls = md.advance, []

    def stop_in_the_fifth_frame(context, num_steps, stop):
        calls.append(context)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return advance(context, num_steps, stop)

    with monkeypatch.context() as patch:
        patch.setattr(md, "advance", stop_in_the_fifth_frame)
        assert run(tmp_path / "out", *QUICK) == 3
    assert "stopped after 4 of 10 frames; run again" in capsys.readouterr().err
    assert load(tmp_path / "out").n_frames == 4
    assert run(tmp_path / "out", *QUICK) == 0
    times = load(tmp_path / "out").time
    np.testing.assert_allclose(times, 0.1 * np.arange(1, 11), atol=1e-5)


def test_an_interrupted_equilibration_goes_on(md, tmp_path, monkeypatch):
    given = (*ALANINE, "--spacing=0.1", "--length=0.0003", "--equilibration=2")
    assert run(tmp_path / "whole", *given) == 0
    with monkeypatch.context() as patch:
        patch.setattr(md, "PIECE", 50)
        advance = md.advance

        def stop_half_way(context, num_steps, stop):
            return advance(context, num_steps, lambda: context.getStepCount() >= 500)

        patch.setattr(md, "advance", stop_half_way)
        assert run(tmp_path / "killed", *given) == 3
    assert run(tmp_path / "killed", *given) == 0
    whole, killed = (load(tmp_path / name) for name in ("whole", "killed"))
    np.testing.assert_array_equal(whole.xyz, killed.xyz)


def test_a_longer_run_adds_to_the_same_files(md, tmp_path, capsys):
    assert run(tmp_path / "out", *QUICK) == 0
    before = load(tmp_path / "out").xyz
    assert run(tmp_path / "out", *QUICK) == 0
    assert "all 10 frames are done" in capsys.readouterr().out
    assert run(tmp_path / "out", *QUICK, "--length=0.002", "--replicas=2") == 0
    after = load(tmp_path / "out").xyz
    assert len(after) == len(load(tmp_path / "out", replica=1).xyz) == 20
    np.testing.assert_array_equal(after[:10], before)


def test_a_simulation_that_becomes_unstable_says_where(md, tmp_path, capsys):
    given = (*ALANINE, "--step=100", "--spacing=1", "--length=0.1", "--equilibration=0")
    hot = ("--temperature=3000", "--hydrogen_mass=3")
    assert run(tmp_path / "out", *given, *hot) == 3
    err = capsys.readouterr().err
    assert "ace_a_nme_0.xtc: the simulation became unstable before" in err
    assert err.count("\n") == 1


def test_training_reads_what_was_written(md, tmp_path):
    given = (*ALANINE, "--equilibration=0", "--spacing=0.1", "--length=0.002")
    assert run(tmp_path / "out", *given, "--replicas=3") == 0
    config = tiny.get_config()
    config.data.sources = (f"{tmp_path}/out/*.xtc",)
    config.data.topology = f"{tmp_path}/out/ace_a_nme.pdb"
    config.data.lags = (0.1,)
    segments = splits.load_segments(config)
    assert len(segments.training) == 1
    assert segments.training[0].trajectory.spacing == pytest.approx(0.1)
    assert segments.num_nodes == 3


def test_a_protein_is_completed_and_what_is_foreign_removed(md, tmp_path):
    text = md.build_peptide("GAHKW", False, "helix")
    lines = [line for line in text.splitlines() if line.startswith("ATOM")]
    lines.remove(next(line for line in lines if "CB  ALA" in line))
    lines.append(lines[0].replace("ATOM  ", "HETATM").replace("N   GLY A", "O   HOH B"))
    path = tmp_path / "mine.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    given = ("--equilibration=0", "--spacing=0.1", "--length=0.0002", "--solvent=none")
    assert run(tmp_path / "out", f"--pdb={path}", *given, "--no-heavy") == 0
    found = load(tmp_path / "out", stem="mine")
    assert found.topology.to_fasta() == ["GAHKW"]
    names = [atom.name for atom in found.topology.residue(1).atoms]
    assert {"CB", "HB1"} <= set(names)


HELIX = ("--start=helix", "--length=0.001", "--equilibration=0")


@pytest.mark.parametrize("sequence", ["ACDHEFK", "HYIIFWSDDM"])
def test_a_helix_whose_side_chains_clash_is_simulated(md, tmp_path, sequence):
    """Molecular dynamics cannot begin from it before it is minimised."""
    molecule = md.prepare(md.build_peptide(sequence, True, "helix"), "", built=True)
    system = md.make_system(molecule.topology, "ff14SB", "none", 1.0)
    settings = md.Settings(300.0, 1.0, 0.002)
    assert max(md.speeds(molecule, system, settings).values()) > 0.0
    given = (f"--sequence={sequence}", "--caps", *HELIX, "--solvent=none")
    assert run(tmp_path / "out", *given) == 0


def test_an_engine_that_cannot_go_on_is_slow(md, monkeypatch):
    molecule = md.prepare(md.build_peptide("A", True, "extended"), "", built=True)
    system = md.make_system(molecule.topology, "ff14SB", "none", 1.0)

    def fail(context, molecule, settings):
        raise md.OpenMMException("Particle coordinate is NaN")

    monkeypatch.setattr(md, "_speed", fail)
    found = md.speeds(molecule, system, md.Settings(300.0, 1.0, 0.002))
    assert set(found.values()) == {0.0}


def test_what_openmm_cannot_go_on_from_is_one_line(md, tmp_path, capsys, monkeypatch):
    def fail(*given):
        raise md.OpenMMException("Particle coordinate is NaN.  For more information")

    with monkeypatch.context() as patch:
        patch.setattr(md, "advance", fail)
        assert run(tmp_path / "out", *QUICK) == 3
    monkeypatch.setattr(md, "positions", fail)
    assert run(tmp_path / "other", *QUICK) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert "OpenMM could not go on (Particle coordinate is NaN" in first
    assert "--sequence: no minimum was found nearby (Particle coordinate" in second


def test_a_disk_that_is_full_is_told_with_its_path(md, tmp_path, capsys, monkeypatch):
    write = replicas.write_state

    def fail(path, state):
        if state.num_frames > 0:
            raise OSError(28, "No space left on device")
        write(path, state)

    monkeypatch.setattr(replicas, "write_state", fail)
    assert run(tmp_path / "out", *QUICK) == 3
    told = capsys.readouterr().err
    assert "ace_a_nme_0.xtc: cannot be written (No space left on device); 0" in told
    assert told.count("\n") == 1


def peptide(md, sequence="GACDEFG", **renamed):
    """The text of a PDB file, in which residues get other names."""
    text = md.build_peptide(sequence, False, "extended")
    for name, other in renamed.items():
        text = text.replace(name, other)
    return text


@pytest.mark.parametrize(
    ("renamed", "told"),
    [
        ({"ALA": "NLE"}, "NLE2 would become LEU; --replace_nonstandard does so"),
        ({"ASP": "SEP"}, "SEP4 would become SER; --replace_nonstandard"),
        ({"ALA": "DAL"}, "DAL2 would become ALA"),
        ({"GLU": "ORN"}, "ORN5 would be removed"),
    ],
)
def test_modified_residues_are_named_with_what_would_become_of_them(md, renamed, told):
    with pytest.raises(UsageError) as error:
        md.prepare(peptide(md, **renamed), "mine.pdb")
    assert told in str(error.value)
    assert str(error.value).startswith("mine.pdb: expected residues that the force")


def test_modified_residues_are_replaced_where_asked(md, tmp_path, capsys):
    path = tmp_path / "mine.pdb"
    path.write_text(peptide(md, "GAG", ALA="NLE"))
    given = (f"--pdb={path}", *HELIX[1:], "--solvent=none", "--platform=Reference")
    assert run(tmp_path / "out", *given) == 2
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", *given, "--replace_nonstandard") == 0
    assert load(tmp_path / "out", "mine").topology.to_fasta() == ["GLG"]
    assert run(tmp_path / "a", "--sequence=AA", "--replace_nonstandard") == 2
    assert "expected --pdb beside it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["HID", "HIE", "HIP", "HSD", "LYN", "CYX", "CYM"])
def test_names_of_protonation_are_no_modified_residues(md, name):
    parent = {"H": "HIS", "L": "LYS", "C": "CYS"}[name[0]]
    found = md.prepare(peptide(md, "GHKCG", **{parent: name}), "mine.pdb")
    names = [residue.name for residue in found.topology.residues()]
    assert names == ["GLY", "HIS", "LYS", "CYS", "GLY"]


def move(text, atom, to, behind, apart=1.33):
    """Puts an atom, by its name and residue, behind two others in a line."""
    lines = text.splitlines()
    places = {
        line[12:16].strip() + line[22:26].strip(): place
        for place, line in enumerate(lines)
        if line.startswith("ATOM")
    }
    read = lambda name: np.array(lines[places[name]][30:54].split(), float)
    away = read(to) - read(behind)
    x = read(to) + apart * away / np.linalg.norm(away)
    line = lines[places[atom]]
    written = "".join(f"{number:8.3f}" for number in x)
    lines[places[atom]] = f"{line[:30]}{written}{line[54:]}"
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("atom", "to", "behind", "told"),
    [
        ("N1", "C7", "CA7", ("N of GLY1", "C of GLY7")),
        ("N1", "CG4", "CB4", ("N of GLY1", "CG of ASP4")),
        ("NZ3", "CD5", "CG5", ("NZ of LYS3", "CD of GLU5")),
    ],
)
def test_a_chain_that_is_closed_to_a_ring_is_refused(md, atom, to, behind, told):
    text = move(peptide(md, "GAKDEFG"), atom, to, behind)
    with pytest.raises(UsageError, match="expected an open chain, found a ring") as e:
        md.prepare(text, "mine.pdb")
    assert all(name in str(e.value) for name in told)


def test_cysteines_that_are_near_are_bonded(md):
    text = move(peptide(md, "CGGC"), "SG1", "SG4", "CB4", apart=2.05)
    found = md.prepare(text, "mine.pdb")
    pairs = [(a.name, b.name) for a, b in found.topology.bonds()]
    assert ("SG", "SG") in pairs
    assert not [a for a in found.topology.atoms() if a.name == "HG"]
    md.make_system(found.topology, "ff14SB", "obc2", 1.0)


def test_one_residue_alone_is_told_the_remedy(md, tmp_path, capsys):
    check_refused(
        tmp_path, capsys, ["--sequence=A"],
        "--sequence: one uncapped residue has no parameters: give --caps",
    )  # fmt: skip
    text = "\n".join(x for x in peptide(md).splitlines() if "ALA A   2" in x)
    with pytest.raises(UsageError, match="found ALA2 alone in chain A: give ACE"):
        md.prepare(text, "mine.pdb")


def test_a_gap_in_a_chain_is_told(md, tmp_path):
    text = md.build_peptide("GAHKW", False, "extended")
    lines = [line for line in text.splitlines() if "HIS" not in line]
    with pytest.raises(UsageError, match="gap between ALA2 and LYS4 of chain A"):
        md.prepare("\n".join(lines), "mine.pdb")


def scaled(text, factor):
    """A PDB file with all positions multiplied."""
    rows = []
    for row in text.splitlines():
        if row.startswith("ATOM"):
            numbers = factor * np.array([row[a : a + 8] for a in (30, 38, 46)], float)
            row = row[:30] + "".join(f"{x:8.3f}" for x in numbers) + row[54:]
        rows.append(row)
    return "\n".join(rows)


def only(text, name):
    """The lines of a PDB file that have an atom of a name."""
    return "\n".join(row for row in text.splitlines() if row[12:16].strip() == name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: "", "found no line of an atom; write others as PDB"),
        (lambda text: "_atom_site.id\n" + text, "found mmCIF; write others"),
        (lambda text: scaled(text, 0.1), "lengths in Å, found bonds 0.097 times"),
        (lambda text: scaled(text, 10.0), "lengths in Å, found bonds 9.7 times"),
        (lambda text: scaled(text, 0.0), "found all atoms at one place"),
        (lambda text: only(text, "CA"), "found beads, or CA alone; build them anew"),
        (
            lambda text: f"{text[:30]}     nan{text[38:]}",
            "found others at N of GLY1; leave the atom out",
        ),
        (lambda text: f"{text[:30]}********{text[38:]}", "float.*; write it anew"),
    ],
)
def test_files_of_no_molecule_are_told(md, change, told):
    text = only_atoms(md.build_peptide("GAHKW", False, "extended"))
    with pytest.raises(UsageError, match=rf"^mine\.pdb: expected .*{told}"):
        md.prepare(change(text), "mine.pdb")


def only_atoms(text):
    return "\n".join(row for row in text.splitlines() if row.startswith("ATOM"))


def test_what_is_built_or_left_out_of_a_file_is_told(md, monkeypatch):
    told = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            logging, level, lambda line, *rest: told.append(line % rest)
        )
    rows = only_atoms(md.build_peptide("GAF", False, "extended")).splitlines()
    fewer = [row for row in rows if row[12:16].strip() != "CZ"]
    md.prepare("\n".join(fewer), "a.pdb")
    assert told.pop() == (
        "a.pdb: heavy atoms were missing and are built: CZ of PHE3; look at the "
        "topology that is written"
    )
    marked = [row[:16] + "A" + row[17:] for row in rows[:1]]
    marked += [row[:16] + "B" + row[17:] for row in rows[:1]]
    md.prepare("\n".join([*marked, *rows[1:]]), "a.pdb")
    assert told.pop() == "a.pdb: left out: 1 alternative places of atoms"
    models = ["MODEL        1", *rows, "ENDMDL"]
    models += ["MODEL        2", *rows, "ENDMDL"]
    md.prepare("\n".join(models), "a.pdb")
    assert told == ["a.pdb: of 2 models the first is taken"]


def test_a_topology_that_was_deleted_is_written_anew(md, tmp_path):
    folder = tmp_path / "out"
    assert run(folder, *QUICK) == 0
    before = (folder / "ace_a_nme.pdb").read_text()
    (folder / "ace_a_nme.pdb").unlink()
    assert run(folder, *QUICK) == 0
    after = (folder / "ace_a_nme.pdb").read_text()
    assert [row[:27] for row in after.splitlines()] == [
        row[:27] for row in before.splitlines()
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda contents: b"", "expected at least the"),
        (lambda contents: contents[:-9], "expected at least the"),
        (lambda contents: b"\0" * len(contents), "expected frames of an earlier"),
    ],
)
def test_frames_that_were_lost_or_damaged_are_told(
    md, tmp_path, capsys, change, told
):  # fmt: skip
    folder = tmp_path / "out"
    assert run(folder, *QUICK) == 0
    path = folder / "ace_a_nme_0.xtc"
    path.write_bytes(change(path.read_bytes()))
    more = [x.replace("length=0.001", "length=0.002") for x in QUICK]
    capsys.readouterr()
    assert run(folder, *more) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert f"{path}: {told}" in line
    assert line.endswith("give another --output")


def test_the_kernel_of_the_solvent_has_the_energy_of_the_expressions(md):
    molecule = md.prepare(md.build_peptide("KD", True, "helix"), "")
    files = md.FORCE_FIELDS["ff14SB"], "implicit/obc2.xml"
    system = md.app.ForceField(*files).createSystem(
        molecule.topology, constraints=md.app.HBonds
    )
    ours = md.make_system(molecule.topology, "ff14SB", "obc2", 1.0)
    np.testing.assert_allclose(
        energy(md, ours, molecule), energy(md, system, molecule), atol=0.03
    )


def test_permittivity_divides_the_energy_of_charges(md):
    molecule = md.prepare(md.build_peptide("A", True, "extended"), "")
    energies = [
        energy(md, md.make_system(molecule.topology, "ff14SB", "none", p), molecule)
        for p in (1.0, 2.0, 4.0)
    ]
    assert energies[2] - energies[1] == pytest.approx(
        (energies[1] - energies[0]) / 2, abs=1e-6
    )
    assert abs(energies[1] - energies[0]) > 1.0


def energy(md, system, molecule):
    """Returns the potential energy in kJ/mol."""
    settings = md.Settings(300.0, 1.0, 0.002)
    context = md.open_context(system, md.Engine("Reference"), settings, 1)
    context.setPositions(molecule.positions)
    return context.getState(getEnergy=True).getPotentialEnergy()._value


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--force_field=mine.xml"], "expected one of ff14SB"),
        (["--platform=Abacus"], "--platform: expected one that works here"),
    ],
)
def test_what_openmm_does_not_know_is_one_line(md, tmp_path, capsys, more, told):
    check_refused(tmp_path, capsys, [*QUICK, *more], told)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--sequence=AAXA"], "found 'X' at place 3"),
        (["--pdb=missing.pdb"], "found none at missing.pdb"),
        (["--sequence=A", "--solvent=water"], "--solvent"),
        (["--sequence=A", "--friktion=1"], "did you mean --friction?"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, more, told):
    check_refused(tmp_path, capsys, more, told)


def check_refused(tmp_path, capsys, given, told):
    assert run(tmp_path / "out", *given) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_openmm_the_install_command_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    monkeypatch.delitem(sys.modules, "equijump.md", raising=False)
    check_refused(tmp_path, capsys, QUICK, "pip install openmm pdbfixer PeptideBuilder")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--temperature=310"], "begun with --temperature = 300.0, found 310.0"),
        (["--length=0.0005"], "begun with --length = 0.001, found 0.0005"),
        (["--no-heavy"], "begun with --heavy = True, found False"),
    ],
)
def test_other_flags_do_not_go_on_in_the_same_folder(tmp_path, capsys, more, told):
    folder = tmp_path / "out"
    folder.mkdir()
    parse = simulate_flags.parser().parse_args
    wanted = simulate_flags.describe(parse([*QUICK, f"--output={folder}"]))
    wanted |= {"platform": "Reference", "threads": 0}
    replicas.write_record(folder, wanted)
    assert run(folder, *QUICK, *more) == 2
    assert told in capsys.readouterr().err
    assert replicas.find(folder, wanted, "ace_a_nme") == wanted


def test_trajectories_of_another_origin_are_not_touched(tmp_path, capsys):
    (tmp_path / "ace_a_nme_0.xtc").write_bytes(b"precious")
    assert run(tmp_path, *QUICK) == 2
    assert "expected simulate.json beside it" in capsys.readouterr().err
    assert (tmp_path / "ace_a_nme_0.xtc").read_bytes() == b"precious"
