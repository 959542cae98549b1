"""The page of `symphony view`: its data, what it refuses, and how it behaves."""

import base64
import json
import re

import numpy as np
import pytest

from symphony import cli
from symphony.chemistry import bonds
from symphony.evaluate import conventions, samples
from symphony.view import cards, fields
from tests import browser
from tests.symphony.test_evaluate import WATER, sdf_record, write_output, xyz_frame

METHANE = (
    np.array([6, 1, 1, 1, 1], np.uint8),
    np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], np.float32)
    * np.float32([[0.0], [0.629], [0.629], [0.629], [0.629]]),
)
BROKEN = (WATER[0], WATER[1] * 2.5)


def with_fields(molecule, name, **told):
    lines = [f"> <{key.replace('__', '.')}>\n{value}\n" for key, value in told.items()]
    text = sdf_record(molecule)[1:].replace("$$$$", "\n".join([*lines, "$$$$"]))
    return f"{name}\n{text}"


def perceive_here(molecules, preset, *_, **__):
    """Stands for `bonds.perceive_all`: perceives in this process."""
    return [bonds.describe_molecule(*one, preset) for one in molecules]


@pytest.fixture(scope="module", autouse=True)
def _no_processes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bonds, "perceive_all", perceive_here)
        yield


@pytest.fixture(scope="module")
def sdf(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "mine.sdf"
    path.write_text(
        with_fields(WATER, "water", logP="-0.5", atom__dprop__log_likelihood="1 n/a -3")
        + with_fields(METHANE, "methane", logP="1.1", source="</script>")
        + with_fields(BROKEN, "broken")
    )
    return path


def view(*flags):
    return cli.main(["view", *map(str, flags), "--num_workers=1"])


def page_data(path, name="molecules"):
    found = re.search(rf'id="{name}">(.*?)</script>', path.read_text(), re.S)
    return json.loads(found.group(1))


def unpacked(text, unit=0.01):
    return np.frombuffer(base64.b64decode(text), "<i2") * unit


@pytest.fixture(scope="module")
def page(sdf):
    out = sdf.with_name("shown.html")
    assert view(sdf, "-o", out) == 0
    return out


def test_cards_have_names_fields_and_the_judgement_of_evaluate(page, sdf):
    found = page_data(page)
    judged = conventions.judge(samples.read_samples(sdf).molecules)
    water, methane, broken = found["molecules"]
    assert [one["name"] for one in found["molecules"]] == ["water", "methane", "broken"]
    assert water["fields"]["logP"] == -0.5
    assert methane["fields"]["source"] == "</script>"
    assert (methane["fields"]["formula"], methane["fields"]["smiles"]) == ("CH4", "C")
    for index, one in enumerate(found["molecules"]):
        expected = [judged.perceptions[n][index].status for n in found["conventions"]]
        assert one["status"] == expected
    assert water["status"] == methane["status"] == ["valid"] * 5
    assert "valid" not in broken["status"][1:]  # EDM's table lets lone atoms pass.


def test_positions_keep_distances_and_handedness_and_bonds_are_perceived(page):
    one = page_data(page)["molecules"][1]
    found = unpacked(one["positions"]).reshape(-1, 3)
    pairs = np.linalg.norm(found[:, None] - found, axis=-1)
    expected = np.linalg.norm(METHANE[1][:, None] - METHANE[1], axis=-1)
    np.testing.assert_allclose(pairs, expected, atol=0.03)
    signed = lambda x: np.linalg.det(x[1:4] - x[0])
    assert np.sign(signed(found)) == np.sign(signed(METHANE[1]))
    bonds = unpacked(one["bonds"], 0.5).reshape(-1, 3)
    pairs = sorted(map(sorted, bonds[:, :2].tolist()))
    assert pairs == [[0, k] for k in range(1, 5)]
    assert bonds[:, 2].tolist() == [1.0] * 4


def test_numbers_of_atoms_are_read_and_shown_where_there_are_some(page):
    water, methane, _ = page_data(page)["molecules"]
    packed = np.frombuffer(base64.b64decode(water["values"]["log_likelihood"]), "<i2")
    assert packed.tolist() == [100, -32768, -300]
    assert methane["values"] == {}
    assert "atom.dprop.log_likelihood" not in water["fields"]


def test_lists_of_another_length_or_of_words_are_no_numbers_of_atoms():
    told = {"atom.dprop.a": "1 2", "atom.dprop.b": "1 x 3", "atom.dprop.c": "[?] 1 ? 3"}
    assert list(fields.of_atoms(told, 3)) == ["c"]


def test_what_symphony_wrote_shows_all_molecules_with_what_became_of_them(tmp_path):
    path = write_output(tmp_path, 3)
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    records[1].update(log_likelihood=4.5, smiles="O")
    path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    assert view(f"--molecules={path}", f"--output={tmp_path / 'v.html'}") == 0
    first, second, _ = page_data(tmp_path / "v.html")["molecules"]
    assert first["fields"]["log_likelihood"] == 4.5
    assert not {"sdf_bytes", "extxyz_bytes", "crc32"} & set(first["fields"])
    assert second["status"] == ["positions not finite"] * 5
    assert second["elements"] == "O H H"


def test_an_unfinished_molecule_is_drawn_and_says_so(tmp_path):
    (tmp_path / "a.extxyz").write_text(xyz_frame(WATER, "logP=2.5 pbc=F"))
    record = json.dumps({"index": 0, "stopped": False})
    (tmp_path / "a.jsonl").write_text(record + "\n")
    assert view(tmp_path / "a.extxyz", "-o", tmp_path / "v.html") == 0
    (one,) = page_data(tmp_path / "v.html")["molecules"]
    assert one["status"] == ["never finished"] * 5
    assert one["elements"] == "O H H"
    assert one["fields"]["logP"] == 2.5
    assert "pbc" not in one["fields"]


def test_arrays_of_an_archive_are_fields(tmp_path):
    np.savez(
        tmp_path / "a.npz", num_atoms=[3, 5], gap=[6.5, 7.5], label=["a", "b"],
        atomic_numbers=np.concatenate([WATER[0], METHANE[0]]),
        positions=np.concatenate([WATER[1], METHANE[1]]),
    )  # fmt: skip
    drawn = samples.read_samples(tmp_path / "a.npz")
    found = fields.read(drawn, 2)
    assert found == [{"gap": 6.5, "label": "a"}, {"gap": 7.5, "label": "b"}]


def test_an_unreadable_record_shifts_no_field(tmp_path):
    bad = with_fields(WATER, "bad", logP="3").replace("  3  0  0", "  x  0  0")
    path = tmp_path / "a.sdf"
    path.write_text(bad + with_fields(METHANE, "methane", logP="1.1"))
    assert view(path, "-o", tmp_path / "v.html") == 0
    good, lost = page_data(tmp_path / "v.html")["molecules"]
    assert (good["name"], good["fields"]["logP"]) == ("methane", 1.1)
    assert lost["status"] == ["unreadable record"] * 5


def test_a_thousand_molecules_make_a_page_below_two_megabytes():
    reference = samples.read_reference("qm9-sample", "validation")
    molecules = (reference.molecules * 3)[:1000]
    drawn = samples.Samples(molecules, [None] * 1000, "none.npz", molecules)
    made = cards.make(drawn, conventions.judge(molecules, ["edm"]), 1000)
    assert len(made["molecules"]) == 1000
    assert len(cards.to_html(made)) < 2_000_000


def test_only_the_first_molecules_are_shown_with_a_warning(sdf, tmp_path, caplog):
    assert view(sdf, "-o", tmp_path / "v.html", "--max_molecules=2") == 0
    assert len(page_data(tmp_path / "v.html")["molecules"]) == 2
    assert "only the first 2 of 3 molecules are shown; raise --max_molecules" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["none.sdf"], "none.sdf: expected a file of molecules, found nothing there"),
        ([], "expected one file, as first word or as --molecules, found none"),
        (["a.sdf", "--molecules=b.sdf"], "found a.sdf and b.sdf"),
        (
            ["mine.sdf", "-o", "view.png"],
            "--output: expected a name that ends in .html",
        ),
        (["mine.sdf", "-o", "taken.html"], "expected no file, or one as symphony view"),
        (["mine.sdf", "--max_molecules=0"], "--max_molecules: expected 1 to"),
        (["mine.sdf", "--build_up=-1"], "--build_up: expected 0 to"),
        (["mine.sdf", "--build_up=3"], "--build_up: expected 0 to 2, a molecule of"),
        (["mine.sdf", "--build_up=0", "--checkpoint=no"], "--checkpoint: "),
        (["mine.sdf", "--build_up=0", "--checkpoint=refine_qm9"], "of kind symphony"),
        (["iron.sdf", "--build_up=0"], "expected atoms of H, C, N, O, F that qm9"),
        (["apart.sdf", "--build_up=0"], "expected atoms that hang together"),
        (["empty.sdf"], "expected at least one molecule, found none"),
    ],
)
def test_bad_input_is_one_clear_line(sdf, monkeypatch, capfd, flags, told):
    monkeypatch.chdir(sdf.parent)
    (sdf.parent / "taken.html").write_text("mine")
    (sdf.parent / "empty.sdf").write_text("")
    record = sdf_record(WATER)
    (sdf.parent / "iron.sdf").write_text(record.replace(" O ", " Fe"))
    far = (WATER[0], WATER[1] + np.float32([[0], [0], [3e1]]))
    (sdf.parent / "apart.sdf").write_text(sdf_record(far))
    assert view(*flags) == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if "symphony view: " in x]
    assert len(lines) == 1
    assert told in lines[0]
    assert not (sdf.parent / "view.html").exists()


GRID = """
const section = document.querySelector("section.molecules"), { grid } = section;
const names = () => [...section.querySelectorAll(".card")]
  .sort((a, b) => a.id.localeCompare(b.id))
  .map((card) => card.querySelector(".name").textContent);
this.first = names();
put(grid.sort, ".logP");
this.sorted = names();
grid.falling.click();
this.falling = names();
put(grid.search, "logp>0");
this.compared = names();
put(grid.search, "ch4");
this.searched = names();
put(grid.search, "nothing of this kind");
this.none = [names(), section.querySelector(".detail").textContent];
put(grid.search, "");
put(grid.sort, "");
grid.falling.click();
put(grid.only, "!");
this.invalid = names();
put(grid.only, "");
grid.list.focus();
grid.choose(0);
press(grid.list, "ArrowRight");
this.chosen = section.querySelector(".card.chosen .name").textContent;
press(grid.list, "End");
this.last = grid.list.getAttribute("aria-activedescendant");
press(document.body, "/");
document.activeElement.blur();
press(document.body, "/");
this.focus = document.activeElement.type;
this.range = grid.range;
const canvas = section.querySelector(".card canvas");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
this.drawn = pixels.data.some((x) => x);
this.across = document.documentElement.scrollWidth;
"""


def test_sorting_and_searching_change_the_cards_in_a_browser(page, tmp_path):
    told = browser.run(page.read_text(), tmp_path, GRID)
    assert told["first"] == ["water", "methane", "broken"]
    assert told["sorted"] == ["water", "methane", "broken"]
    assert told["falling"] == ["methane", "water", "broken"]
    assert told["compared"] == told["searched"] == ["methane"]
    assert told["none"][0] == []
    assert "No molecule matches" in told["none"][1]
    assert told["invalid"] == ["broken"]
    assert told["chosen"] == "methane"
    assert told["last"] == "molecule-2"
    assert told["focus"] == "search"
    assert told["range"] == [-3, 1]
    assert told["drawn"]
    assert told["across"] <= 1280
