"""Spellings of SDF and XYZ by other programs: what is read, and what is told of it."""

import contextlib
import gc
import gzip
import re
import subprocess
import sys

import numpy as np
import pytest

from common.errors import UsageError
from symphony import data
from tests.symphony.test_data_readers import (
    FIXTURES,
    SYMBOLS,
    TABLE,
    WATER,
    assert_waters,
    read,
    v2000,
    v3000,
    xyz,
)


def changed(text, row, change):
    """Returns a text with one row, counted from 0, changed."""
    lines = text.split("\n")
    lines[row] = change(lines[row])
    return "\n".join(lines)


def free(line):
    """Returns the line of an atom in no columns."""
    return " ".join(line.split()[:4])


FIRST_ATOM = 4
SDF = {
    "small letters": v2000(symbols=("o", "h", "h")),
    "capital letters": v3000().replace(" O ", " o ", 1),
    "symbol to the right": changed(
        v2000(), FIRST_ATOM, lambda line: line[:30] + "  O 0  0"
    ),
    "no version": v2000().replace(" V2000", ""),
    "version in small letters": v2000().replace("V2000", "v2000"),
    "counts alone": changed(v2000(), 3, lambda _: "3 0"),
    "exponents of Fortran": v2000().replace("    0.1173", "1.1730D-01"),
    "other exponents": v2000().replace("    0.1173", "1.1730e-01"),
    "no columns": changed(v2000(), FIRST_ATOM, free),
    "free columns with a tab": changed(
        v2000(), FIRST_ATOM, lambda line: "\t".join(line.split())
    ),
    "isotope": v2000(symbols=("O", "D", "T")),
    "byte order mark": "\ufeff" + v2000(),
    "line ends of Windows": v2000(newline="\r\n"),
    "line ends of old Macs": v2000(newline="\r"),
    "quotes and tabs in the title": v2000(title="\"water\"\t'of' 100 %"),
    "remarks before the title": "# made by hand\n\n" + v2000(),
    "V3000 of Fortran": v3000().replace("0.1173", "1.173D-01"),
}


@pytest.mark.parametrize("spelling", SDF)
def test_every_spelling_of_an_sdf_is_read(tmp_path, spelling):
    molecules, report = read(tmp_path, "set.sdf", SDF[spelling] + v2000("next"))
    assert_waters(molecules, 2)
    assert not report.skipped
    assert molecules.names[1] == "next"


NUMBERED = [("8", "1", "1"), ("8.0", "1.0", "1."), ("08", "001", "1")]
FORTRAN = "\n".join(
    f"{symbol} " + " ".join(f"{x:.8e}".replace("e", "D") for x in position)
    for symbol, position in zip(SYMBOLS, WATER, strict=True)
)
BOX = 'Lattice="9 0 0 0 9 0 0 0 9"'
XYZ = {
    "small letters": xyz(symbols=("o", "h", "H")),
    **{f"numbers as {names[0]}": xyz(symbols=names) for names in NUMBERED},
    "exponents of Fortran": f"3\n\n{FORTRAN}\n",
    "exponents of Mathematica": xyz().replace("0.000000", "0.*^0"),
    "words behind the number": xyz().replace("3", "3 atoms", 1),
    "byte order mark": "\ufeff" + xyz(),
    "line ends of Windows": xyz().replace("\n", "\r\n"),
    "line ends of old Macs": xyz().replace("\n", "\r"),
    "remarks": "# made by hand\n" + xyz().replace("\nH", "\n# hydrogens\nH", 1),
    "a remark behind an atom": xyz().replace("0.117300", "0.117300 # oxygen"),
    "a word like Properties": xyz("qm_properties=0.1 energy=-5"),
    "another key with Properties": xyz("my.Properties=a:b:c"),
    "an energy that is none": xyz("energy=unknown stress=1 virial=no"),
    "quotes and tabs": xyz("it's \"40\t% {done]} \\"),
    "an empty comment": xyz(),
    "columns": xyz('Properties="species:S:1:pos:R:3"'),
    "names with colons": xyz("Properties=species:S:1:pos:R:3:mtt::a::x:L:1").replace(
        "00\n", "00 T\n"
    ),
    "a box that is none": xyz(f'{BOX} Properties=species:S:1:pos:R:3 pbc="F F F"'),
    "QM9": (FIXTURES / "dsgdb9nsd_000003.xyz").read_text(),
}


@pytest.mark.parametrize("spelling", XYZ)
def test_every_spelling_of_an_xyz_is_read(tmp_path, spelling, caplog):
    molecules, report = read(tmp_path, "set.xyz", XYZ[spelling] + xyz("name=next"))
    np.testing.assert_array_equal(molecules.num_atoms, [3, 3])
    np.testing.assert_array_equal(molecules.atomic_numbers, [8, 1, 1] * 2)
    if spelling != "QM9":
        assert_waters(molecules, 2)
    assert not report.skipped
    assert molecules.names[1] == "next"
    assert "WARNING" not in {record.levelname for record in caplog.records}


def test_a_symbol_that_ends_in_small_letters_is_that_of_its_element(tmp_path):
    table = (6, 17, 35)
    rows = "CL 0 0 0\nbr 3 0 0\nc 1.7 0 0\n"
    (tmp_path / "a.xyz").write_text(f"3\n\n{rows}")
    molecules, _ = data.read_molecules(tmp_path / "a.xyz", table, 9)
    np.testing.assert_array_equal(molecules.atomic_numbers, [17, 35, 6])


@pytest.mark.parametrize("mark", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize(("name", "text"), [("a.sdf", v2000()), ("a.xyz", xyz())])
def test_text_of_either_width_is_read(tmp_path, mark, name, text):
    assert_waters(read(tmp_path, name, text.encode(mark))[0], 1)


@pytest.mark.parametrize("name", ["a.sdf.gz", "a.mol.gz", "a.xyz.gz", "A.EXTXYZ.GZ"])
def test_every_form_is_read_from_gzip(tmp_path, name):
    text = xyz() if "XYZ" in name.upper() else v2000()
    assert_waters(read(tmp_path, name, gzip.compress(text.encode()))[0], 1)


@pytest.mark.parametrize("symbol", ["*", "R#", "C1", "X", "Du", "A", "0", "6.5", "119"])
@pytest.mark.parametrize("write", [v2000, xyz])
def test_what_is_no_element_is_refused_with_word_atom_and_line(tmp_path, write, symbol):
    text = write(symbols=("O", symbol, "H"))
    name = "a.sdf" if write is v2000 else "a.xyz"
    line = 6 if write is v2000 else 4
    message = (
        f"line {line}: expected the symbol of an element, found '{symbol}' (atom 2)"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        read(tmp_path, name, text, strict=True)


def test_a_label_is_refused_with_the_symbol_that_it_may_mean(tmp_path):
    with pytest.raises(UsageError, match=r"found 'C1' .*; write C if it is one"):
        read(tmp_path, "a.xyz", xyz(symbols=("C1", "H", "H")), strict=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.replace("0.7572", "0.75x2"), r"line 6: expected three .*0\.75x2"),
        (lambda t: t.replace("  3  0", "  x  0"), "line 4: expected the numbers of at"),
        (lambda t: t.replace("  3  0", "  9  0"), "line 4: expected 9 atoms.* found 3"),
        (lambda t: t.replace("  3  0", "  2  0"), "is no data field|found none"),
        (lambda t: t.replace("V2000", "V1000"), "line 4: expected V2000 or V3000"),
        (lambda t: t.split("\n", 1)[1], "line 1: expected a header of three lines"),
        (lambda t: t.replace("M  END\n", ""), "expected M  END"),
        (
            lambda t: t.replace("  3  0", "  3  1").replace("M  E", "  1  9  1\nM  E"),
            "line 8: expected a bond between two of 3 atoms",
        ),
        (lambda t: t.replace("    0.1173", "       nan"), "line 5: .*not finite"),
        (lambda t: t.replace("    0.1173", "       --1"), "line 5: expected three coo"),
        (lambda t: t.replace("    0.1173", "      0x10"), "line 5: expected three coo"),
        (lambda t: t.replace("    0.1173", "      1e30"), "line 5: .*too far away"),
    ],
)
def test_a_record_is_refused_with_its_line_and_the_cause(tmp_path, spoil, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, "a.sdf", spoil(v2000()), strict=True)
    assert "\n" not in str(caught.value)


def test_lines_are_counted_over_all_records(tmp_path):
    text = v2000() * 2 + v2000("bad", symbols=("O", "Q", "H"))
    line = text.split("\n").index("bad") + 6
    with pytest.raises(UsageError, match=rf"line {line}: .* found 'Q' \(atom 2\)"):
        read(tmp_path, "a.sdf", text, strict=True)


def test_molecules_without_a_delimiter_are_read_and_told(tmp_path, caplog):
    block = v2000().split("> <")[0]
    molecules, report = read(tmp_path, "a.sdf", block * 3 + v2000("last"))
    assert_waters(molecules, 4)
    assert not report.skipped
    assert "a.sdf: 3 molecules follow another one without $$$$" in caplog.text


def test_text_behind_a_molecule_is_told_with_its_line(tmp_path, caplog):
    text = v2000().replace("M  END\n", "M  END\nforgotten atoms\n")
    assert_waters(read(tmp_path, "a.sdf", text)[0], 1)
    assert "text behind M  END of 1 records" in caplog.text
    assert "(first in line 9)" in caplog.text


def test_a_periodic_box_is_told(tmp_path, caplog):
    text = xyz(f"{BOX} Properties=species:S:1:pos:R:3")
    assert_waters(read(tmp_path, "a.extxyz", text + xyz())[0], 2)
    assert "the periodic box of 1 molecules is not read" in caplog.text


def test_a_warning_comes_once_for_all_parts_of_a_file(tmp_path, caplog):
    text = "".join(v2000(f"m{i}") for i in range(40)) + v2000("bad", ("Q", "H", "H"))
    for split in data.SPLITS:
        read(tmp_path, "a.sdf", text, split=split)
    assert caplog.text.count("skipped 1 of 41 records") == 1


READ_PACKAGED = """
import sys
from pathlib import Path
from symphony import data
data.read_molecules("qm9-sample", (1, 6, 7, 8, 9), 29)
data.read_molecules("tetris", (1,), 29)
print(*{"rdkit", "ase"} & set(sys.modules))
"""


def test_packaged_data_need_no_library_of_chemistry():
    code = [sys.executable, "-c", READ_PACKAGED]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_archive_of_qm9_needs_no_library_once_it_was_read(tmp_path, monkeypatch):
    from tests.symphony.test_data_qm9 import tar_of_fixtures

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tar_of_fixtures(tmp_path / "dsgdb9nsd.xyz.tar.bz2")
    data.read_molecules(path, TABLE, 29)
    code = READ_PACKAGED.replace('"qm9-sample"', repr(str(path)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


OTHERS = {
    "page.sdf": ("<!DOCTYPE html>\n<html></html>\n", "web page or XML; get the file"),
    "lfs.xyz": ("version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
    "mol2.sdf": ("# made by x\n@<TRIPOS>MOLECULE\n", "obabel -imol2 mol2.sdf -O"),
    "pdb.xyz": ("COMPND    water\nHETATM    1\n", "obabel -ipdb pdb.xyz -O"),
    "cif.xyz": ("data_water\n_cell_length_a 3\n", "obabel -icif cif.xyz -O"),
    "rxn.sdf": ("$RXN\n\n\n\n  1  1\n", "RXN (a reaction); give its molecules"),
    "coord.xyz": ("$coord\n0.0 0.0 0.0 o\n$end\n", "t2x > molecule.xyz"),
    "block.xyz": (v2000(), "SDF; rename it to .sdf"),
    "frames.sdf": (xyz(), "XYZ; rename it to .xyz"),
    "rows.xyz": (
        "O 0.0 0.0 0.1173\n",
        "write it and a line of comment before",
    ),
    "water.pdb": ("COMPND    water\n", "obabel -ipdb water.pdb -O molecules.sdf"),
    "water.smi": ("O\n", "obabel -ismi water.smi -O molecules.sdf --gen3d"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_form_is_told_with_what_to_do(name, tmp_path):
    text, remedy = OTHERS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=re.escape(remedy)):
        data.read_molecules(tmp_path / name, TABLE, 9)


@pytest.mark.parametrize("packed", [True, False])
def test_gzip_is_known_by_content(packed, tmp_path):
    path = tmp_path / ("water.sdf" if packed else "water.sdf.gz")
    text = v2000().encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert_waters(data.read_molecules(path, TABLE, 9)[0], 1)


def block(*lines):
    return v2000().replace("M  END", "\n".join([*lines, "M  END"]))


NOT_KEPT = {
    "charge.sdf": (block("M  CHG  1   1  -1"), "1 molecule has a net charge"),
    "radical.sdf": (block("M  RAD  1   1   2"), "unpaired electrons"),
    "isotope.sdf": (block("M  ISO  1   2   2"), "1 molecule has isotopes"),
    "D.sdf": (v2000(symbols=("O", "D", "H")), "1 molecule has isotopes"),
    "D3.sdf": (v3000().replace(" H ", " D ", 1), "1 molecule has isotopes"),
    "D.xyz": (xyz(symbols=("O", "D", "T")), "1 molecule has isotopes"),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_of_a_molecule_is_not_kept_is_told(name, tmp_path, caplog):
    text, told = NOT_KEPT[name]
    (tmp_path / name).write_text(text)
    molecules, _ = data.read_molecules(tmp_path / name, TABLE, 9)
    assert molecules.atomic_numbers.tolist() == [8, 1, 1]
    assert told in caplog.text


def test_charges_that_make_none_are_not_told(tmp_path, caplog):
    (tmp_path / "a.sdf").write_text(block("M  CHG  2   1  -1   2   1"))
    data.read_molecules(tmp_path / "a.sdf", TABLE, 9)
    assert not caplog.text


def test_an_atom_far_from_all_others_is_refused(tmp_path):
    text = v2000().replace("    0.1173", "-1000.1173")
    (tmp_path / "a.sdf").write_text(text)
    with pytest.raises(UsageError, match="an atom more than 20 Å from all others"):
        data.read_molecules(tmp_path / "a.sdf", TABLE, 9)


@pytest.mark.parametrize("name", ["a.sdf", "a.xyz", "empty.sdf", "rows.xyz"])
@pytest.mark.filterwarnings("error")
def test_no_file_is_left_open(name, tmp_path):
    texts = {"a.sdf": v2000(), "a.xyz": xyz(), "empty.sdf": "", "rows.xyz": "O 0 0 0"}
    (tmp_path / name).write_text(texts[name])
    with contextlib.suppress(UsageError):
        data.read_molecules(tmp_path / name, TABLE, 9)
    gc.collect()  # Where an unclosed file would be told.


@pytest.mark.parametrize("word", ["O1", "O(Iso=18)", "O:b", "O_w", "O-"])
def test_a_label_is_told_with_the_element_that_it_may_mean(word, tmp_path):
    (tmp_path / "a.xyz").write_text(xyz(symbols=(word, "H", "H")))
    told = re.escape(f"found {word!r} (atom 1); write O if it is one")
    with pytest.raises(UsageError, match=told):
        data.read_molecules(tmp_path / "a.xyz", TABLE, 9)
