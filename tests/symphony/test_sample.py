"""Tests of sampled molecules: what is asked, what is written, and going on."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

import symphony
from common.commands import cli
from common.errors import UsageError
from common.runs import checkpoints
from symphony import manifest, molfile, options, sample, starts
from symphony.chemistry import bonds
from symphony.data.xyz import read_xyz
from tests.symphony import small

CORE = np.array([[0.0, 0.0, 0.0], [1.47, 0.0, 0.1], [2.0, 1.3, 0.0]]) + 20.0
METHANE = np.array(
    [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32
)
METHANE[1:] *= 1.09 / np.sqrt(3.0)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Small random weights."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    _, params = small.model_and_params()
    config = small.make_config()
    config.sample.max_atoms = 12
    counts = {"1": 50, "6": 30, "7": 9, "8": 8, "9": 0}
    checkpoints.save_packaged(folder, params, config, {"species_counts": counts})
    return folder


@pytest.fixture(scope="module")
def sampler(packaged):
    return symphony.load(packaged)


def arguments(packaged, output, count, *more):
    return [
        f"--checkpoint={packaged}", f"--output={output}", f"--num_molecules={count}",
        "--num_slots=4", "--seed=3", *more,
    ]  # fmt: skip


def contents(path):
    return [path.with_suffix(end).read_bytes() for end in (".sdf", ".extxyz", ".jsonl")]


def records(path):
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_xyz(path, positions, symbols):
    rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(symbols, positions, strict=True)]
    path.write_text("\n".join([str(len(rows)), "", *rows, ""]))
    return path


def test_a_molecule_is_the_same_however_many_are_asked_for(sampler):
    many = sampler.sample_positions(6, seed=3, num_slots=4)
    few = sampler.sample_positions(3, seed=3, num_slots=4)
    assert [molecule.index for molecule in many] == list(range(6))
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.atomic_numbers, other.atomic_numbers)
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-4)


@pytest.fixture
def bonds_in_process(monkeypatch):
    """Perceives in this process, by `bonds_for_some`."""
    monkeypatch.setattr(bonds, "perceive", bonds_for_some)
    monkeypatch.setattr(manifest, "with_bonds", small.with_bonds)


def bonds_for_some(atomic_numbers, positions, preset, charge):
    """Stands for perception: random weights hardly ever make a molecule with bonds."""
    if len(atomic_numbers) < 2 or len(atomic_numbers) % 3 == 0:
        return None
    mol = bonds.to_mol(atomic_numbers, positions)
    mol.AddBond(0, 1, Chem.BondType.SINGLE)
    return mol.GetMol()


def test_the_command_writes_all_and_tells_of_each(
    packaged, tmp_path, capsys, bonds_in_process
):
    output = tmp_path / "out" / "molecules.sdf"
    assert sample.main(arguments(packaged, output, 5)) == 0
    head, *lines = records(output)
    assert head["seed"] == 3
    assert len(head["weights_sha256"]) == len(head["config_sha256"]) == 64
    assert [line["index"] for line in lines] == list(range(5))
    with output.with_suffix(".extxyz").open("rb") as file:
        found = read_xyz(file, "out").molecules
    np.testing.assert_array_equal(
        found.num_atoms, [line["num_atoms"] for line in lines]
    )
    with_bonds = [line for line in lines if line["smiles"] is not None]
    assert 0 < len(with_bonds) < 5
    assert output.read_text().count("$$$$") == len(with_bonds)
    assert capsys.readouterr().out.startswith("device: ")

    before = contents(output)
    assert sample.main(arguments(packaged, output, 5)) == 0
    assert "all 5 molecules are done" in capsys.readouterr().out
    assert contents(output) == before


def test_a_killed_command_goes_on_with_the_same_molecules(
    packaged, tmp_path, monkeypatch, bonds_in_process
):
    whole, killed = tmp_path / "whole.sdf", tmp_path / "killed.sdf"
    assert sample.main(arguments(packaged, whole, 6)) == 0
    assert any(record["sdf_bytes"] > 0 for record in records(whole)[1:3])

    append, calls = molfile.append, []

    def die_in_the_third(output, record, sdf, extxyz):
        if len(calls) == 2:
            output.extxyz.write(extxyz.encode()[:20])
            output.sdf.write(b"half a reco")
            output.manifest.write(b'{"index": 2, "se')
            raise KeyboardInterrupt
        calls.append(record)
        append(output, record, sdf, extxyz)

    with monkeypatch.context() as patch:
        patch.setattr(molfile, "append", die_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            sample.main(arguments(packaged, killed, 6))
    assert sample.main(arguments(packaged, killed, 6)) == 0
    assert contents(killed) == contents(whole)


@pytest.mark.slow
def test_a_command_killed_by_force_goes_on_with_the_same_molecules(packaged, tmp_path):
    whole, killed = tmp_path / "whole.sdf", tmp_path / "killed.sdf"
    command = [sys.executable, "-m", "symphony.sample"]
    assert sample.main(arguments(packaged, whole, 60)) == 0
    manifest = killed.with_suffix(".jsonl")
    statuses = set()
    for wanted in (3, 20, 40):
        process = subprocess.Popen(
            [*command, *arguments(packaged, killed, 60)], stdout=subprocess.DEVNULL
        )
        while process.poll() is None:
            if manifest.exists() and manifest.read_bytes().count(b"\n") > wanted:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)
        statuses.add(process.wait())
    assert -signal.SIGKILL in statuses
    assert sample.main(arguments(packaged, killed, 60)) == 0
    lines = records(killed)[1:]
    assert [line["index"] for line in lines] == list(range(60))
    assert contents(killed) == contents(whole)


def test_other_settings_do_not_go_on_in_the_same_file(packaged, tmp_path):
    output = tmp_path / "molecules.sdf"
    assert sample.main(arguments(packaged, output, 2)) == 0
    before = contents(output)
    hotter = arguments(packaged, output, 2, "--temperature_focus=1.5")
    with pytest.raises(UsageError, match=r"temperature_focus.*--overwrite"):
        sample.main(hotter)
    assert contents(output) == before
    assert sample.main([*hotter, "--overwrite"]) == 0
    assert records(output)[0]["settings"]["temperature_focus"] == 1.5
    assert len(records(output)) == 3


def test_a_file_of_another_origin_is_not_touched(packaged, tmp_path):
    output = tmp_path / "mine.sdf"
    output.write_text("precious\n")
    with pytest.raises(UsageError, match="--overwrite"):
        sample.main(arguments(packaged, output, 2))
    assert output.read_text() == "precious\n"
    assert os.listdir(tmp_path) == ["mine.sdf"]


def test_atoms_of_a_fragment_come_first_and_stay_where_they_are(
    packaged, tmp_path, sampler
):
    fragment = write_xyz(tmp_path / "core.xyz", CORE, "CNO")
    output = tmp_path / "molecules.sdf"
    more = f"--fragment={fragment}"
    assert sample.main(arguments(packaged, output, 6, more)) == 0
    with output.with_suffix(".extxyz").open("rb") as file:
        found = read_xyz(file, "out").molecules
    for start in found.offsets[:-1]:
        np.testing.assert_array_equal(
            found.positions[start : start + 3], CORE.astype(np.float32)
        )
        np.testing.assert_array_equal(
            found.atomic_numbers[start : start + 3], [6, 7, 8]
        )
    grown = found.num_atoms > 3
    assert grown.any()
    # What was added lies beside the fragment, not where the network has its origin.
    for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        near = np.linalg.norm(found.positions[start:end] - CORE[0], axis=-1)
        assert near.max() < 2.7 * 12

    again = sampler.sample_positions(
        2, seed=3, num_slots=4, fragment=(np.array([6, 7, 8]), CORE)
    )
    np.testing.assert_array_equal(
        again[0].positions, found.positions[: found.offsets[1]]
    )


def test_the_order_in_which_a_fragment_is_taken_in_varies(sampler):
    core = options.choose(sampler.weights, fragment=(np.array([6, 7, 8]), CORE)).core
    order_of = starts.orders(sampler.weights, core, 0)
    orders = {tuple(order_of(index).tolist()) for index in range(30)}
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2)}


def test_a_start_is_the_first_atom(sampler):
    found = sampler.sample_positions(4, seed=3, num_slots=4, start="N")
    assert all(molecule.atomic_numbers[0] == 7 for molecule in found)


def test_an_element_that_the_weights_never_saw_is_told(sampler, caplog):
    options.choose(sampler.weights, start="N")
    assert not caplog.text
    options.choose(sampler.weights, start="F")
    assert "start: no molecule that the weights" in caplog.text
    assert "were trained on has F;" in caplog.text


@pytest.mark.parametrize(
    ("positions", "symbols", "told"),
    [
        ([[0, 0, 0], [np.nan, 0, 0]], "CC", "not finite"),
        ([[0, 0, 0], [0, 0, 0]], "CC", "apart"),
        ([[0, 0, 0], [1.7, 0, 0]], ["C", "Cl"], "H, C, N, O, F, such as Cl"),
        ([[0, 0, 0], [0.3, 0, 0]], "CC", "at least 0.6 Å apart"),
        ([[1.5 * i, 0, 0] for i in range(12)], "C" * 12, "more than 11 atoms"),
        ([[0, 0, 0], [9, 0, 0]], "CC", "hang together"),
    ],
)
def test_a_fragment_that_cannot_be_used_is_an_error_of_one_line(
    packaged, tmp_path, capsys, positions, symbols, told
):
    fragment = write_xyz(tmp_path / "core.xyz", positions, symbols)
    output = tmp_path / "molecules.sdf"
    given = arguments(packaged, output, 2, f"--fragment={fragment}")
    assert cli.run("symphony sample", sample.main, given) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("numbers", "positions", "told"),
    [
        ([300, 1], [[0, 0, 0], [1, 0, 0]], "1 to 118"),
        (["C", "H"], [[0, 0, 0], [1, 0, 0]], "integers"),
        ([6.7, 1.0], [[0, 0, 0], [1, 0, 0]], "integers"),
        ([6, 1], [[0, 0, 0], [1, 0]], "positions"),
        ([6, 1], [[0, 0, 0]], "three coordinates"),
    ],
)
def test_arrays_that_are_no_fragment_are_refused(sampler, numbers, positions, told):
    with pytest.raises(UsageError, match=told):
        options.choose(sampler.weights, fragment=(numbers, positions))


def test_a_drawing_in_two_dimensions_is_refused(sampler, tmp_path):
    drawn = Chem.MolFromSmiles("c1ccccc1C(N)=O")
    AllChem.Compute2DCoords(drawn)
    Chem.MolToMolFile(drawn, str(tmp_path / "flat.mol"))
    with pytest.raises(UsageError, match="a drawing"):
        options.choose(sampler.weights, fragment=tmp_path / "flat.mol")
    with pytest.raises(UsageError, match="three dimensions"):
        options.choose(sampler.weights, fragment=drawn)


def test_a_molecule_of_rdkit_is_a_fragment(sampler):
    methane = bonds.to_mol(np.array([6, 1, 1, 1, 1], np.uint8), METHANE)
    methane.GetConformer().Set3D(True)
    options_ = options.choose(sampler.weights, fragment=methane, basin=True)
    np.testing.assert_array_equal(options_.core[1], METHANE)
    assert options_.basin_temperature == options.BASIN_TEMPERATURE


def test_a_fragment_with_hydrogens_is_told_that_it_will_not_grow(sampler, caplog):
    options.choose(sampler.weights, fragment=(np.array([6, 7, 8]), CORE))
    assert "hydrogens" not in caplog.text
    options.choose(sampler.weights, fragment=(np.array([6, 1, 1, 1, 1]), METHANE))
    assert "only hydrogens will be added" in caplog.text


def test_an_output_that_is_the_fragment_is_refused(packaged, tmp_path, capsys):
    fragment = write_xyz(tmp_path / "core.extxyz", CORE, "CNO")
    before = fragment.read_bytes()
    given = arguments(packaged, tmp_path / "core.sdf", 2, "--overwrite")
    given.append(f"--fragment={fragment}")
    assert cli.run("symphony sample", sample.main, given) == 2
    assert "not the input" in capsys.readouterr().err
    assert fragment.read_bytes() == before


def test_a_manifest_of_another_origin_is_not_touched(packaged, tmp_path):
    (tmp_path / "mine.jsonl").write_text("my notes")
    with pytest.raises(UsageError, match="--overwrite"):
        sample.main(arguments(packaged, tmp_path / "mine.sdf", 2))
    assert (tmp_path / "mine.jsonl").read_text() == "my notes"
    assert os.listdir(tmp_path) == ["mine.jsonl"]


def test_a_lost_file_is_told_and_not_made_anew(packaged, tmp_path):
    output = tmp_path / "molecules.sdf"
    assert sample.main(arguments(packaged, output, 2)) == 0
    output.with_suffix(".extxyz").unlink()
    with pytest.raises(UsageError, match=r"molecules.extxyz: expected at least"):
        sample.main(arguments(packaged, output, 3))
    assert not output.with_suffix(".extxyz").exists()


def test_two_commands_do_not_write_the_same_file(packaged, tmp_path, capsys):
    output = tmp_path / "molecules.sdf"
    given = arguments(packaged, output, 2)
    with molfile.open_output(output, {}, False):
        assert cli.run("symphony sample", sample.main, [*given, "--overwrite"]) == 2
    assert "in use by another command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--checkpoint=nowhere"], "nowhere"),
        (["--start=Xe"], "expected one of C, N, O, F"),
        (["--start=H"], "expected one of C, N, O, F"),
        (["--temperature_position=1e-46"], "1e-6 to 1e6"),
        (["--start=C", "--fragment=a.sdf"], "found both"),
        (["--temperature_focus=0"], "1e-6 to 1e6"),
        (["--basin", "--temperature_position=0.5"], "found both"),
        (["--output=molecules.xyz"], "ends in .sdf"),
        (["--max_atoms=0"], "max_atoms"),
        (["--fragment=missing.sdf"], "missing.sdf"),
        (["--seed=-1"], "found -1"),
        (["--num_slots=0"], "found 2 and 0"),
        (["--num_molecules=-5"], "found -5"),
    ],
)
def test_bad_usage_is_one_line(packaged, tmp_path, capsys, more, told):
    given = [*arguments(packaged, tmp_path / "molecules.sdf", 2), *more]
    assert cli.run("symphony sample", sample.main, given) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_valid_molecule_is_written_with_bonds_and_properties():
    numbers = np.array([6, 1, 1, 1, 1], np.uint8)
    methane = manifest.Sample(7, 3, numbers, METHANE, True, -12.5)
    mol, record = manifest.finish(methane)
    assert record["valid"]
    assert (record["formula"], record["smiles"]) == ("CH4", "C")
    supplier = Chem.SDMolSupplier()
    supplier.SetData(Chem.SDWriter.GetText(mol), removeHs=False)
    (read,) = supplier
    assert read.GetNumBonds() == 4
    assert read.GetPropsAsDict()["log_likelihood"] == -12.5
    assert read.GetProp("index") == "7"
    assert read.GetProp("valid") == "True"
    unfinished = manifest.finish(methane._replace(stopped=False))[1]
    assert not unfinished["valid"]


def test_bonds_come_from_workers_in_the_order_of_the_molecules():
    numbers = np.array([6, 1, 1, 1, 1], np.uint8)
    methane = manifest.Sample(0, 3, numbers, METHANE, True, -12.5)
    far = methane._replace(positions=9.0 * METHANE)
    drawn = [(far if i % 3 else methane)._replace(index=i) for i in range(30)]
    found = list(manifest.with_bonds(iter(drawn)))
    assert [one.index for one, _, _ in found] == list(range(30))
    for one, smiles, sdf in found:
        mol, record = manifest.finish(one)
        assert smiles == record["smiles"] == (None if one.index % 3 else "C")
        assert sdf == ("" if mol is None else Chem.SDWriter.GetText(mol))


def test_python_gives_rdkit_molecules(sampler, monkeypatch):
    monkeypatch.setattr(bonds, "perceive", bonds_for_some)
    mols = sampler.sample(6, seed=3, num_slots=4)
    assert mols
    assert all(isinstance(mol, Chem.Mol) for mol in mols)
    everything = sampler.sample_positions(6, seed=3, num_slots=4)
    assert len(mols) == sum(manifest.finish(one)[0] is not None for one in everything)


def test_the_parts_of_the_atoms_and_the_stop_make_the_likelihood(sampler):
    drawn = sampler.sample_positions(12, seed=3, num_slots=4)
    stops = [one.log_likelihood - one.log_of_atoms.sum() for one in drawn]
    assert len({one.stopped for one in drawn}) == 2
    for one, stop in zip(drawn, stops, strict=True):
        assert len(one.log_of_atoms) == len(one.positions)
        assert stop < -1e-3 if one.stopped else abs(stop) < 1e-3


def test_every_coordinate_reads_back_as_it_was():
    rng = np.random.default_rng(0)
    positions = (rng.normal(size=(20, 3)) * 10.0 ** rng.integers(-6, 4)).astype("f4")
    positions[0] = [1e-7, -123.45679, 0.1]
    text = molfile.to_extxyz(np.full(20, 6, np.uint8), positions, {"name": "a b"})
    found = read_xyz(io.BytesIO(text.encode()), "text").molecules
    np.testing.assert_array_equal(found.positions, positions)
    assert found.names[0] == "a b"
