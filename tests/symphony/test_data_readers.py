"""Every supported form, and every way in which a file can be unusable."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from symphony import data

TABLE = (1, 6, 7, 8, 9)
FIXTURES = Path(__file__).parent / "fixtures"
WATER = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])
SYMBOLS = ("O", "H", "H")


def v2000(title="water", symbols=SYMBOLS, positions=WATER, newline="\n"):
    lines = [title, "  program", "", f"{len(symbols):3d}  0  0  0  0  0  0  0  0  0999"]
    lines[3] += " V2000"
    lines += [
        "".join(f"{x:10.4f}" for x in position) + f" {symbol:<3} 0  0  0  0  0  0"
        for symbol, position in zip(symbols, positions, strict=True)
    ]
    return newline.join([*lines, "M  END", "> <energy>", "-76.4", "", "$$$$", ""])


def v3000(title="water", declared=3):
    atoms = [
        f"M  V30 {i} {symbol} {x:.4f} -\nM  V30 {y:.4f} {z:.4f} 0"
        for i, (symbol, (x, y, z)) in enumerate(zip(SYMBOLS, WATER, strict=True), 1)
    ]
    head = [title, "  program", "", "  0  0  0     0  0            999 V3000"]
    body = ["M  V30 BEGIN CTAB", f"M  V30 COUNTS {declared} 0 0 0 0"]
    body += ["M  V30 BEGIN ATOM", *atoms, "M  V30 END ATOM", "M  V30 END CTAB"]
    return "\n".join([*head, *body, "M  END", "$$$$", ""])


def xyz(comment="", symbols=SYMBOLS, positions=WATER):
    lines = [
        f"{symbol} " + " ".join(f"{x:.6f}" for x in position)
        for symbol, position in zip(symbols, positions, strict=True)
    ]
    return "\n".join([str(len(symbols)), comment, *lines, ""])


def read(folder, name, contents, **options):
    path = folder / name
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        path.write_bytes(contents.encode())
    return data.read_molecules(path, TABLE, options.pop("max_atoms", 29), **options)


def assert_waters(molecules, num):
    np.testing.assert_array_equal(molecules.num_atoms, [3] * num)
    np.testing.assert_array_equal(molecules.atomic_numbers, [8, 1, 1] * num)
    np.testing.assert_allclose(molecules.positions, np.tile(WATER, (num, 1)), atol=1e-6)


def test_sdf_gives_atoms_and_titles(tmp_path):
    text = v2000("one") + v2000("two") + v2000("")
    molecules, report = read(tmp_path, "set.sdf", text)
    assert_waters(molecules, 3)
    assert molecules.names.tolist() == ["one", "two", "2"]
    assert report == data.SkipReport(3, {})


@pytest.mark.parametrize("name", ["crlf.sdf", "no_last_newline.sdf", "single.mol"])
def test_sdf_of_other_programs_is_read(tmp_path, name):
    text = {
        "crlf.sdf": v2000(newline="\r\n"),
        "no_last_newline.sdf": v2000().rstrip("\n"),
        "single.mol": v2000().split("> <")[0],
    }[name]
    assert_waters(read(tmp_path, name, text)[0], 1)


def test_short_atom_lines_are_read_to_their_end(tmp_path):
    lines = v2000().splitlines()
    lines[4:7] = [line[:32].rstrip() for line in lines[4:7]]
    assert_waters(read(tmp_path, "set.sdf", "\n".join(lines) + "\n")[0], 1)


def test_v3000_and_v2000_are_read_from_one_file(tmp_path):
    molecules, _ = read(tmp_path, "set.sdf", v3000("a") + v2000("b") + v3000("c"))
    assert_waters(molecules, 3)
    assert molecules.names.tolist() == ["a", "b", "c"]


def test_sdf_longer_than_a_block_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("symphony.data.sdf._CHUNK_CHARACTERS", 500)
    text = "".join(v2000(f"m{i}") for i in range(20))
    molecules, _ = read(tmp_path, "set.sdf", text)
    assert_waters(molecules, 20)
    assert molecules.names.tolist() == [f"m{i}" for i in range(20)]


def spoilt(title):
    """Returns records that no reader can parse."""
    good = v2000(title)
    return {
        "a letter in a coordinate": good.replace("0.7572", "0.75x2"),
        "fewer atoms than announced": good.replace("  3  0  0", "  9  0  0"),
        "no count": good.replace("  3  0  0", "  x  0  0"),
        "an unknown version": good.replace("V2000", "V1000"),
        "cut lines": f"{title}\n$$$$\n",
        "v3000 with another count": v3000(title, declared=4),
    }


@pytest.mark.parametrize("fault", spoilt(""))
def test_record_that_cannot_be_parsed_is_skipped_and_named(tmp_path, fault):
    text = "".join(v2000(f"m{i}") for i in range(20)) + spoilt("bad")[fault]
    molecules, report = read(tmp_path, "set.sdf", text + v2000("last"))
    assert_waters(molecules, 21)
    assert molecules.names[-1] == "last"
    assert report.num_records == 22
    assert list(report.skipped.values()) == [("bad",)]
    with pytest.raises(UsageError, match="bad"):
        read(tmp_path, "set.sdf", text, strict=True)


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("not finite", {"positions": WATER * np.nan}),
        ("apart", {"positions": WATER * 0.01}),
        ("element", {"symbols": ("S", "H", "H")}),
        ("element", {"symbols": ("Xx", "H", "H")}),
    ],
)
@pytest.mark.parametrize("write", [v2000, xyz])
def test_unusable_molecule_of_a_text_file_is_skipped(tmp_path, write, word, changes):
    name = "set.sdf" if write is v2000 else "set.xyz"
    text = write() * 20 + write(**changes)
    molecules, report = read(tmp_path, name, text)
    assert_waters(molecules, 20)
    ((reason, names),) = report.skipped.items()
    assert word in reason
    assert len(names) == 1
    with pytest.raises(UsageError, match=word):
        read(tmp_path, name, text, strict=True)


def test_molecule_above_max_atoms_is_skipped(tmp_path):
    text = v2000() * 20 + v2000("five", ("C",) * 5, np.arange(15).reshape(5, 3))
    _, report = read(tmp_path, "set.sdf", text, max_atoms=4)
    assert report.skipped == {"more than 4 atoms": ("five",)}


def test_truncated_sdf_is_an_error(tmp_path):
    text = v2000() * 30
    for cut in (len(text) - 80, len(text) - len(v2000()) // 2 - 40):
        with pytest.raises(UsageError, match=r"set\.sdf.*truncated"):
            read(tmp_path, "set.sdf", text[:cut])


def test_xyz_frames_follow_one_another(tmp_path):
    text = xyz("first") + xyz("name=ice energy=-1.0") + "\n" + xyz('name="warm water"')
    molecules, _ = read(tmp_path, "set.xyz", text)
    assert_waters(molecules, 3)
    assert molecules.names.tolist() == ["0", "ice", "warm water"]


def test_extxyz_columns_are_found_by_their_properties(tmp_path):
    rows = [
        f"{number} 0.1 0.2 0.3 {x} {y} {z} 7"
        for number, (x, y, z) in zip((8, 1, 1), WATER, strict=True)
    ]
    comment = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=Z:I:1:forces:R:3:pos:R:3:tag:I:1'
    text = "\n".join(["3", comment, *rows, ""])
    assert_waters(read(tmp_path, "set.extxyz", text)[0], 1)


@pytest.mark.parametrize(
    "fault",
    [
        "Properties=species:S:1:velocities:R:3",
        "Properties=pos:R:3",
        "Properties=pos:R",
        "column",
    ],
)
def test_frame_that_cannot_be_parsed_is_skipped(tmp_path, fault):
    bad = xyz(fault) if fault != "column" else xyz().replace("0.117300", "")
    _, report = read(tmp_path, "set.xyz", xyz() * 20 + bad)
    assert list(report.skipped.values()) == [("20",)]


def test_truncated_xyz_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"3 atoms in frame 29.*truncated after 1"):
        read(tmp_path, "set.xyz", (xyz() * 30).rsplit("\n", 3)[0] + "\n")


def test_xyz_without_a_count_is_an_error_with_its_line(tmp_path):
    with pytest.raises(UsageError, match=r"frame 1, line 6.*'four"):
        read(tmp_path, "set.xyz", xyz() + "four\n")


def arrays(num=20):
    return {
        "num_atoms": np.full(num, 3),
        "atomic_numbers": np.tile([8, 1, 1], num),
        "positions": np.tile(WATER, (num, 1)),
    }


def read_arrays(folder, changes, **options):
    path = folder / "set.npz"
    contents = {k: v for k, v in (arrays() | changes).items() if v is not None}
    np.savez_compressed(path, **contents)
    return data.read_molecules(path, TABLE, 29, **options)


def test_npz_in_angstrom_is_read(tmp_path):
    molecules, _ = read_arrays(tmp_path, {"smiles": np.array([b"O"] * 20)})
    assert_waters(molecules, 20)
    assert molecules.names[3] == "3"


@pytest.mark.parametrize("digits", [3, 4])
def test_npz_of_integers_is_read_in_its_unit(tmp_path, digits):
    compact = np.round(arrays()["positions"] * 10**digits).astype(np.int32)
    changes = {"positions": None, f"positions_1e{digits}": compact}
    changes |= {"gdb_index": np.arange(1, 21, dtype=np.int32)}
    molecules, _ = read_arrays(tmp_path, changes)
    np.testing.assert_allclose(
        molecules.positions, arrays()["positions"], atol=0.51 * 10**-digits
    )
    assert molecules.names[16] == "gdb_000017"


def test_npz_keeps_its_own_split(tmp_path):
    split = np.array([0, 1] * 10, np.uint8)
    for index, name in enumerate(data.SPLITS[:2]):
        found, _ = read_arrays(tmp_path, {"split": split}, split=name)
        assert found.names.tolist() == [str(i) for i in range(index, 20, 2)]
    with pytest.raises(UsageError, match="split test, found none"):
        read_arrays(tmp_path, {"split": split}, split="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_atoms": None}, "an array num_atoms"),
        ({"positions": None}, "an array positions"),
        ({"positions": np.zeros((59, 3))}, r"positions of shape \(60, 3\)"),
        ({"positions": np.zeros((60, 3), int)}, "as floats in Å"),
        ({"num_atoms": np.full(20, 3.0)}, "vector of non-negative integers"),
        ({"num_atoms": np.full(20, -3)}, "vector of non-negative integers"),
        ({"atomic_numbers": np.full(60, 300)}, "up to 118"),
        ({"split": np.zeros(3, int)}, r"split of shape \(20,\)"),
        ({"names": np.array([{}] * 20)}, "without pickled objects"),
    ],
)
def test_npz_whose_arrays_do_not_fit_is_an_error(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        read_arrays(tmp_path, changes)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_npz_is_an_error(tmp_path, keep):
    path = tmp_path / "whole.npz"
    np.savez_compressed(path, **arrays())
    contents = path.read_bytes()
    with pytest.raises(UsageError, match="complete NumPy archive"):
        read(tmp_path, "set.npz", contents[: int(keep * len(contents))])


def test_written_molecules_are_read_again_exactly(tmp_path):
    molecules, _ = data.read_molecules("tetris", (1,), 8)
    data.write_npz(molecules, tmp_path / "set.npz")
    again, _ = data.read_molecules(tmp_path / "set.npz", (1,), 8)
    for first, second in zip(molecules, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_a_set_without_a_split_is_divided_always_alike(tmp_path):
    text = "".join(v2000(f"m{i}") for i in range(50))
    parts = [
        read(tmp_path, "set.sdf", text, split=split)[0].names.tolist()
        for split in data.SPLITS
    ]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert len(set().union(*parts)) == 50
    again, _ = read(tmp_path, "set.sdf", text, split="train")
    assert again.names.tolist() == parts[0]


def test_one_molecule_is_its_own_validation(tmp_path):
    assert_waters(read(tmp_path, "set.sdf", v2000(), split="validation")[0], 1)


def test_more_than_a_twentieth_of_bad_records_is_an_error(tmp_path):
    text = v2000() * 9 + v2000("bad", symbols=("S", "H", "H"))
    with pytest.raises(UsageError, match=r"skipped 1 of 10 .*\(bad\).*at most 5%"):
        read(tmp_path, "set.sdf", text)


@pytest.mark.parametrize("name", ["set.sdf", "set.xyz", "set.extxyz", "set.mol"])
def test_empty_file_is_an_error(tmp_path, name):
    with pytest.raises(UsageError, match="at least one molecule, found none"):
        read(tmp_path, name, "")


def test_missing_file_and_folder_and_unknown_form_are_errors(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.sdf: .* found nothing there"):
        data.read_molecules(tmp_path / "nothing.sdf", TABLE, 29)
    with pytest.raises(UsageError, match="found a folder there"):
        data.read_molecules(tmp_path, TABLE, 29)
    with pytest.raises(UsageError, match=r"found '\.pdb'"):
        read(tmp_path, "set.pdb", "ATOM")
    with pytest.raises(UsageError, match="expected a split of train, validation, test"):
        read(tmp_path, "set.sdf", v2000(), split="dev")


def test_file_of_the_wrong_kind_is_an_error(tmp_path):
    for name in ("set.npz", "set.zip", "set.xyz", "set.sdf", "set.tar.bz2"):
        with pytest.raises(UsageError, match=r"set\."):
            read(tmp_path, name, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)


def test_messages_are_one_line(tmp_path):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "set.npz", b"not an archive")
    assert "\n" not in str(caught.value)


def test_zip_without_gdb9_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("other.sdf", v2000())
    with pytest.raises(
        UsageError, match=r"expected gdb9\.sdf inside, found other\.sdf"
    ):
        data.read_molecules(tmp_path / "set.zip", TABLE, 29)


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 99)
)
def test_every_set_of_molecules_comes_back_from_its_file(sizes, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    # On a lattice, apart and exact in four decimals.
    positions = np.concatenate(
        [
            1.5 * rng.permutation(np.indices((2, 2, 2)).reshape(3, -1).T)[:n]
            for n in sizes
        ]
    )
    # Turned, so that no face lies flat as a drawing does.
    about_z = [[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]
    about_x = [[1.0, 0.0, 0.0], [0.0, 0.6, -0.8], [0.0, 0.8, 0.6]]
    positions = positions @ about_z @ about_x
    numbers = rng.choice([1, 6, 7, 8, 9], size=sum(sizes))
    original = data.make_molecules(np.array(sizes), numbers, positions)
    path = tmp_path_factory.mktemp("set") / "set.npz"
    data.write_npz(original, path)
    found, report = data.read_molecules(path, (1, 6, 7, 8, 9), 6)
    assert not report.skipped
    assert data.checksum(found) == data.checksum(original)
    np.testing.assert_array_equal(found.names, original.names)
