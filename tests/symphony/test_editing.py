"""Tests of what becomes of the molecules of a file. Positions in Å."""

import argparse

import numpy as np
import pytest

from common.commands import cli
from common.errors import UsageError
from symphony import complete, edit, editing, inputs
from symphony.wishes import Wishes
from tests.symphony.test_wishes import ETHANOL, NUMBERS

SPECIES = (1, 6, 7, 8, 9)
MOLECULE = (NUMBERS.astype(np.uint8), ETHANOL.astype(np.float32))


NOTHING = Wishes()


def removed(*atoms, keep_formula=False, asked=NOTHING):
    change = editing.without_atoms(atoms, keep_formula, asked, True)
    return change(MOLECULE, SPECIES, "ethanol")


def test_hydrogens_go_with_their_atom_and_its_neighbours_grow():
    change = removed(2)
    assert change.core[0].tolist() == [6, 6, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(change.core[1][:2], MOLECULE[1][:2])
    assert change.wishes == Wishes(attach=(1,), keep_hydrogens=True)


def test_a_part_within_leaves_two_ends():
    change = removed(1)
    assert change.core[0].tolist() == [6, 8, 1, 1, 1, 1]
    assert change.wishes.attach == (0, 1)


def test_a_hydrogen_alone_can_be_removed():
    change = removed(8)
    assert change.core[0].tolist() == NUMBERS[:8].tolist()
    assert change.wishes.attach == (2,)


def test_the_formula_is_kept_where_it_is_asked():
    change = removed(2, keep_formula=True, asked=Wishes(max_heavy=3))
    assert change.wishes.formula == {6: 2, 8: 1, 1: 6}
    assert change.wishes.max_heavy == 3


def test_atoms_that_are_not_there_are_named():
    with pytest.raises(UsageError, match=r"from 0 \(C\) to 8 \(H\), found 9"):
        removed(9)
    with pytest.raises(UsageError, match="--remove: expected some atoms of ethanol"):
        removed(0, 1, 2)


@pytest.mark.parametrize("lost", [3, 6, 8])
def test_a_lost_hydrogen_is_asked_back_where_it_was(lost):
    stays = np.arange(9) != lost
    core = (MOLECULE[0][stays], MOLECULE[1][stays])
    change = editing.with_hydrogens(core, SPECIES, "ethanol")
    assert change.wishes == Wishes(num_atoms=(9, 9), max_heavy=3)
    assert change.spare.tolist() == [3, 2, 1, 0, 0, 0, 0, 0]


def test_all_hydrogens_are_asked_for_where_there_is_none():
    core = (MOLECULE[0][:3], MOLECULE[1][:3])
    change = editing.with_hydrogens(core, SPECIES, "ethanol")
    assert change.wishes.num_atoms == (9, 9)


def test_nothing_is_added_to_a_whole_molecule():
    change = editing.with_hydrogens(MOLECULE, SPECIES, "ethanol")
    assert change.wishes.num_atoms == (9, 9)


def test_the_network_decides_where_lengths_make_an_odd_number_of_electrons(
    monkeypatch,
):
    too_many = np.array([3, 2, 2, 0, 0, 0, 0, 0])
    monkeypatch.setattr(editing.wishes, "open_valences", lambda *given: too_many)
    core = (np.delete(MOLECULE[0], 3), np.delete(MOLECULE[1], 3, axis=0))
    change = editing.with_hydrogens(core, SPECIES, "ethanol")
    # Nine or eleven atoms: ten would be a radical.
    assert change.wishes.num_atoms == (9, 11)
    assert change.spare.min() > 4


def flags(**given):
    return argparse.Namespace(**{"molecules": None, "molecules_flag": None, **given})


def test_the_input_is_the_first_word_or_a_flag():
    assert inputs.input_of(flags(molecules="a.sdf")) == "a.sdf"
    assert inputs.input_of(flags(molecules_flag="b.sdf")) == "b.sdf"
    with pytest.raises(UsageError, match="found none"):
        inputs.input_of(flags())
    with pytest.raises(UsageError, match=r"found both a\.sdf and --molecules=b"):
        inputs.input_of(flags(molecules="a.sdf", molecules_flag="b.sdf"))


@pytest.mark.parametrize(
    ("command", "argv", "told"),
    [
        (edit, ["in.xyz", "--remove=x"], "--remove: expected numbers of atoms"),
        (edit, ["in.xyz"], "--remove"),
        (edit, ["--remove=1"], "as first word or --molecules"),
        (edit, ["missing.sdf", "--remove=1"], "missing.sdf"),
        (edit, ["in.xyz", "--remove=2", "--formula=C2H9"], "at most 6"),
        (edit, ["in.xyz", "--remove=2", "--formula=C3H2"], "fewer of H"),
        (edit, ["in.xyz", "--remove=2", "--num_molecules=0"], "at least 1"),
        (complete, ["in.xyz", "--attach=3"], r"found atom 3 (H)"),
        (complete, ["in.xyz", "-o", "in.xyz"], "ends in .sdf"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, monkeypatch, capsys, command, argv, told):
    monkeypatch.chdir(tmp_path)
    symbols = {6: "C", 8: "O", 1: "H"}
    rows = [
        f"{symbols[int(number)]} {x} {y} {z}"
        for number, (x, y, z) in zip(NUMBERS, ETHANOL, strict=True)
    ]
    (tmp_path / "in.xyz").write_text("\n".join(["9", "ethanol", *rows, ""]))
    assert cli.run("symphony", command.main, argv) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.xyz"]
