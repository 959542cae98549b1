"""The command: what it reads, what it refuses, and the report it writes."""

import json
import math

import numpy as np
import pytest

from common.errors import RunError, UsageError
from symphony import evaluate
from symphony.chemistry import bonds
from symphony.evaluate import samples

WATER = (
    np.array([8, 1, 1], np.uint8),
    np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], np.float32),
)


def xyz_frame(molecule, comment=""):
    symbols = {1: "H", 6: "C", 8: "O"}
    lines = [
        f"{symbols[int(number)]} {x} {y} {z}"
        for number, (x, y, z) in zip(*molecule, strict=True)
    ]
    return "\n".join([str(len(lines)), comment, *lines]) + "\n"


def sdf_record(molecule):
    numbers, positions = molecule
    symbols = {1: "H", 6: "C", 8: "O"}
    atoms = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbols[int(n)]:3s} 0  0  0  0  0"
        for n, (x, y, z) in zip(numbers, positions, strict=True)
    ]
    head = f"\n\n\n{len(numbers):3d}  0  0  0  0  0  0  0  0  0999 V2000"
    return "\n".join([head, *atoms, "M  END", "$$$$"]) + "\n"


def write_output(folder, num=2):
    """Writes three files as the sampler does: a molecule with bonds, the rest without.

    Returns:
        The path of the SDF.
    """
    broken = (WATER[0], np.array(WATER[1]) * np.nan)
    frames = [xyz_frame(WATER), *[xyz_frame(broken)] * (num - 1)]
    path = folder / "molecules.sdf"
    path.write_text(sdf_record(WATER))
    path.with_suffix(".extxyz").write_text("".join(frames))
    sizes = {"sdf_bytes": len(path.read_bytes())}
    lines = [{"record": "header"}]
    for index in range(num):
        sizes["extxyz_bytes"] = sum(map(len, frames[: index + 1]))
        lines.append({"index": index, "stopped": True, **sizes})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.with_suffix(".jsonl").write_text(text)
    return path


def test_everything_generated_is_read_in_place_of_what_had_bonds(tmp_path, caplog):
    drawn = samples.read_samples(write_output(tmp_path))
    assert len(drawn.molecules) == 2
    assert drawn.source.endswith("molecules.extxyz")
    assert "WARNING" not in {record.levelname for record in caplog.records}


@pytest.mark.parametrize("change", ["edited", "no manifest", "other manifest", "cut"])
def test_a_file_that_was_changed_is_judged_as_it_is(tmp_path, caplog, change):
    path = write_output(tmp_path)
    if change == "edited":
        path.write_text(sdf_record(WATER) * 3)
    elif change == "no manifest":
        path.with_suffix(".jsonl").unlink()
    elif change == "other manifest":
        path.with_suffix(".jsonl").write_text('{"index": 0}\n')
    else:
        frames = path.with_suffix(".extxyz")
        frames.write_text(frames.read_text().removesuffix("\n"))
    drawn = samples.read_samples(path)
    assert drawn.source == str(path)
    lost = ["not in the file"] if change == "cut" else []
    assert drawn.faults == [None] * (3 if change == "edited" else 1) + lost
    assert "molecules.extxyz is passed over" in caplog.text


def test_an_extxyz_that_is_named_is_judged_by_its_own_length(tmp_path, caplog):
    path = write_output(tmp_path).with_suffix(".extxyz")
    path.with_suffix(".sdf").unlink()
    assert len(samples.read_samples(path).molecules) == 2
    assert "WARNING" not in {record.levelname for record in caplog.records}
    path.write_text(path.read_text() + xyz_frame(WATER))
    assert len(samples.read_samples(path).molecules) == 3
    assert "it was changed since" in caplog.text


@pytest.mark.parametrize("line", ["[" * 100_000, "[1]", "7", '{"index": '])
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path, line):
    path = write_output(tmp_path)
    path.with_suffix(".jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=r"molecules\.jsonl: expected a JSON obj") as e:
        samples.read_samples(path)
    assert "\n" not in str(e.value)


def test_manifest_marks_unfinished_molecules(tmp_path):
    (tmp_path / "molecules.extxyz").write_text(xyz_frame(WATER) * 2)
    records = [
        {"record": "header", "seed": 0},
        {"index": 0, "stopped": True},
        {"index": 1, "stopped": False},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "molecules.jsonl").write_text(lines)
    drawn = samples.read_samples(tmp_path / "molecules.extxyz")
    assert drawn.faults == [None, "never finished"]
    assert [len(numbers) for numbers, _ in drawn.molecules] == [3, 0]


def test_an_unfinished_molecule_of_an_sdf_alone_counts_as_that(tmp_path):
    (tmp_path / "molecules.sdf").write_text(sdf_record(WATER) * 2)
    records = [
        {"index": 0, "stopped": True, "smiles": None},
        {"index": 1, "stopped": False, "smiles": "O"},
        {"index": 2, "stopped": True, "smiles": "O"},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "molecules.jsonl").write_text(lines)
    drawn = samples.read_samples(tmp_path / "molecules.sdf")
    assert drawn.faults == ["never finished", None, "not in the file"]


def test_molecules_missing_from_the_file_stay_in_the_denominator(tmp_path):
    (tmp_path / "molecules.sdf").write_text(sdf_record(WATER))
    (tmp_path / "molecules.jsonl").write_text('{"index": 0}\n' * 4)
    drawn = samples.read_samples(tmp_path / "molecules.sdf")
    assert drawn.faults == [None] + ["not in the file"] * 3


def test_more_molecules_than_the_manifest_has_is_an_error(tmp_path):
    (tmp_path / "molecules.sdf").write_text(sdf_record(WATER) * 2)
    (tmp_path / "molecules.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(UsageError, match="at most 1 molecules"):
        samples.read_samples(tmp_path / "molecules.sdf")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.sdf", None, "found nothing there"),
        ("molecules.pdb", "", "expected one of .sdf"),
        ("empty.xyz", "", "at least one molecule"),
        ("cut.xyz", "3\n\nO 0 0 0\n", "truncated"),
    ],
)
def test_unusable_samples_end_in_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    folder = tmp_path / "new" / "report"
    with pytest.raises(UsageError, match=message):
        evaluate.main([f"--samples={tmp_path / name}", f"--output={folder}"])
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--samples=a.sdf", "--conventions=openbabel"],
        ["--samples=a.sdf", "--num_workers=0"],
        ["--samples=a.sdf", "--max_molecules=many"],
        ["--samples=a.sdf", "--max_molecules=0"],
        ["--samples=a.sdf", "--num_perceived=-1"],
        ["--samples=a.sdf", "--num_relaxed=-1"],
        ["--samples=a.sdf", "--reference_split=all"],
    ],
)
def test_wrong_flags_are_usage_errors(flags):
    with pytest.raises(UsageError):
        evaluate.main(flags)


def test_smiles_of_the_reference_are_those_of_its_file():
    whole = samples.read_reference("qm9-sample")
    assert len(whole.smiles) == len(whole.molecules) == 5500
    part = samples.read_reference("qm9-sample", "validation")
    assert part.smiles == whole.smiles[5000:]
    carbons = [list(numbers).count(6) for numbers, _ in whole.molecules]
    letters = [sum(c in "Cc" for c in smiles) for smiles in whole.smiles]
    assert carbons == letters


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    molecules = samples.read_reference("qm9-sample").molecules[:30]
    bad = (WATER[0], np.full((3, 3), np.nan, np.float32))
    mixed = [*molecules[:8], WATER, bad]
    for name, chosen in (("samples", mixed), ("data", molecules)):
        np.savez(
            folder / f"{name}.npz",
            num_atoms=np.array([len(numbers) for numbers, _ in chosen]),
            atomic_numbers=np.concatenate([numbers for numbers, _ in chosen]),
            positions=np.concatenate([positions for _, positions in chosen]),
        )
    status = evaluate.main(
        [
            f"--samples={folder / 'samples.npz'}",
            f"--reference={folder / 'data.npz'}",
            f"--output={folder / 'report'}",
            "--num_workers=1",
        ]
    )
    assert status == 0
    return folder / "report"


def test_report_counts_a_bad_molecule_as_invalid(report_folder):
    report = json.loads((report_folder / "report.json").read_text())
    for score in report["conventions"].values():
        assert score["num_molecules"] == 10
        assert score["failures"]["positions not finite"] == 1
    assert report["conventions"]["xyz2mol_hueckel"]["valid"] == 0.9
    assert report["versions"]["rdkit"]


def test_report_counts_novelty_against_the_reference(report_folder):
    report = json.loads((report_folder / "report.json").read_text())
    score = report["conventions"]["xyz2mol_hueckel"]
    assert score["num_unique"] == 9
    assert score["num_novel"] == 1  # Water is not in the data; the others are.


def test_html_report_stands_alone(report_folder):
    page = (report_folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "http://" not in page
    assert "https://" not in page
    assert "xyz2mol_hueckel" in page


def test_divergence_of_sizes_is_between_none_and_the_logarithm_of_two(report_folder):
    report = json.loads((report_folder / "report.json").read_text())
    divergence = report["sizes"]["jensen_shannon"]
    assert 0.0 < divergence < math.log(2)


@pytest.mark.parametrize(("num_crashes", "status"), [(2, "fails"), (1, "warns")])
def test_crashes_are_no_invalid_molecules(
    tmp_path, monkeypatch, capsys, caplog, num_crashes, status
):
    def perceive_all(molecules, preset, *_, **__):
        valid = bonds.Perception("valid", "O", "O")
        crash = bonds.Perception("crash")
        return ([crash] * num_crashes + [valid] * len(molecules))[: len(molecules)]

    path = tmp_path / "samples.xyz"
    path.write_text(xyz_frame(WATER) * (2 if status == "fails" else 3))
    monkeypatch.setattr(bonds, "perceive_all", perceive_all)
    flags = [f"--samples={path}", f"--reference={path}", "--conventions=edm,xyz2mol"]
    flags += [f"--output={tmp_path / 'report'}", "--num_perceived=0"]
    if status == "fails":
        with pytest.raises(RunError, match="0 of 2 molecules were judged by xyz2mol"):
            evaluate.main(flags)
    else:
        assert evaluate.main(flags) == 0
    text = (tmp_path / "report" / "report.json").read_text()
    score = json.loads(text)["conventions"]["xyz2mol"]
    assert score["valid"] == (None if status == "fails" else 1.0)
    assert score["num_judged"] == (0 if status == "fails" else 2)
    assert f"xyz2mol: not judged {num_crashes} of" in capsys.readouterr().out
