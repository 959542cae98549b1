"""Tests of formulas: how they are read, and which molecules there can be."""

import pytest

from common.errors import UsageError
from symphony import formula


@pytest.mark.parametrize("text", ["C7H10O2", "O2C7H10", "H10C7O2", "CC6H9HO2"])
def test_elements_come_in_any_order(text):
    assert formula.write(formula.parse(text)) == "C7H10O2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Xx2", "symbols of elements, found 'Xx'"),
        ("c6h6", "symbols with numbers"),
        ("", "symbols with numbers"),
        ("C6 H6", "symbols with numbers"),
        ("NH4+", "a neutral molecule"),
        ("C2H3O2-", "a neutral molecule"),
        ("C0H4", "no element without atoms"),
    ],
)
def test_what_is_no_formula_is_refused(text, told):
    with pytest.raises(UsageError, match=told):
        formula.parse(text)


@pytest.mark.parametrize(
    "text",
    ["CH4", "H2O", "C6H6", "C5H9NO2", "HCN", "CO2", "O2", "CH3NO2", "C2H6OS", "PH5"],
)
def test_molecules_that_there_are_have_no_fault(text):
    assert formula.find_fault(formula.parse(text)) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("C2H9", "at most 6"),
        ("C7H18O2", "at most 16"),
        ("CH3", "odd number"),
        ("C5H10N", "odd number"),
        ("CO", "cannot all be bound"),
        ("C", "an atom alone"),
    ],
)
def test_molecules_that_there_cannot_be_have_one(text, told):
    assert told in formula.find_fault(formula.parse(text))


def test_nothing_is_said_of_elements_without_a_valence():
    assert formula.find_fault({26: 1, 6: 5, 8: 5}) is None


def test_elements_that_weights_do_not_serve_are_named():
    with pytest.raises(UsageError, match="found F, which they never saw"):
        formula.check_elements([6, 9], (1, 6, 9), (9,), "--formula=CF4")
    with pytest.raises(UsageError, match="found Cl, which they do not know"):
        formula.check_elements([6, 17], (1, 6, 9), (9,), "--formula=CCl4")
    formula.check_elements([6, 1], (1, 6, 9), (9,), "--formula=CH4")
