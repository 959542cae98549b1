"""A molecule step by step: its order, and what the network says of each step."""

import json

import numpy as np
import pytest

from symphony.evaluate import samples
from symphony.view import build_up, page, steps
from symphony.weights import Weights
from tests import browser
from tests.symphony.small import chain, make_config, model_and_params
from tests.symphony.test_view import unpacked

NUM_ATOMS = 6


@pytest.fixture(scope="module")
def weights():
    model, params = model_and_params()
    return Weights("small", make_config(), model, params, "sum", "")


@pytest.fixture(scope="module")
def molecule():
    positions, species = chain(3, NUM_ATOMS)
    return np.array([1, 6, 7, 8, 9], np.uint8)[species], positions


def drawn_of(molecule, folder, header):
    """A file as `symphony sample` leaves it, with a header in its manifest."""
    path = folder / "mine.extxyz"
    record = {"index": 0, "stopped": True}
    path.with_suffix(".jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(record)}")
    return samples.Samples([molecule], [None], str(path), [molecule], ["a"], [record])


SAMPLED = {"record": "header", "settings": {"max_atoms": 40}, "weights_sha256": "sum"}


@pytest.fixture(scope="module")
def built(weights, molecule, tmp_path_factory):
    drawn = drawn_of(molecule, tmp_path_factory.mktemp("a"), SAMPLED)
    origin = build_up.origin_of(drawn)
    return build_up.make(drawn, 0, weights, origin, 0)


@pytest.fixture(scope="module")
def found(weights, molecule):
    origin = build_up.Origin(True, {}, 0)
    return build_up._evaluate(weights, *molecule, origin, 0)


def test_directions_are_even_unit_vectors():
    found = steps.directions()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(3) / 3, atol=2e-3)


def test_probabilities_of_a_step_sum_to_one_and_belong_to_placed_atoms(found):
    first, each = found
    assert np.sum(first) == pytest.approx(1.0, abs=1e-5)
    for step in range(NUM_ATOMS):
        chances = each.focus_species[step]
        assert each.stop[step] + chances.sum() == pytest.approx(1.0, abs=1e-5)
        assert not chances[step + 1 :].any()


def test_the_focus_is_a_placed_atom_within_reach_of_the_next(found, weights, molecule):
    _, each = found
    for step in range(NUM_ATOMS - 1):
        focus = int(each.focus[step])
        length = np.linalg.norm(molecule[1][step + 1] - molecule[1][focus])
        assert focus <= step
        assert weights.model.min_radius < length < weights.model.max_radius
        assert np.isfinite(each.log_likelihood[step])


def test_shells_are_densities_and_draws_lie_within_reach(found, weights):
    _, each = found
    for step in range(NUM_ATOMS - 1):
        assert each.heights[step, 0] > 0
        masses = 4 * np.pi * np.exp(each.shells[step]).mean(axis=1)
        np.testing.assert_allclose(masses[each.heights[step] > 0], 1.0, atol=0.1)
        lengths = np.linalg.norm(each.draws[step], axis=1)
        assert lengths.min() >= weights.model.min_radius - 1e-4
        assert lengths.max() <= weights.model.max_radius + 1e-4


def test_a_sampled_molecule_keeps_its_order_and_ends_with_stop(built, molecule):
    assert (built["order"], built["atoms"]) == ("file", list(range(NUM_ATOMS)))
    assert len(built["steps"]) == NUM_ATOMS
    assert "focus" not in built["steps"][-1]
    assert all("shells" in step for step in built["steps"][:-1])
    positions = unpacked(built["positions"]).reshape(-1, 3)
    for step, one in enumerate(built["steps"][:-1]):
        assert len(one["foci"]) == step + 1
        draws = unpacked(one["draws"]).reshape(-1, 3)
        reach = np.linalg.norm(positions[step + 1] - positions[one["focus"]])
        assert abs(np.linalg.norm(draws, axis=1).mean() - reach) < 1.5


@pytest.mark.parametrize(
    ("header", "is_sampled", "num_given"),
    [
        (SAMPLED, True, 0),
        ({**SAMPLED, "settings": {"start": [[6, 0, 0, 0]]}}, True, 1),
        ({**SAMPLED, "molecules_sha256": "of a refined file"}, False, 0),
        ({"record": "header"}, False, 0),
    ],
)
def test_the_manifest_tells_who_placed_the_atoms(
    molecule, tmp_path, header, is_sampled, num_given
):
    origin = build_up.origin_of(drawn_of(molecule, tmp_path, header))
    assert origin[::2] == (is_sampled, num_given)


def test_another_file_gets_a_drawn_order_of_all_its_atoms(weights, molecule):
    origin = build_up.Origin(False, {}, 0)
    numbers = np.array([6, 6, 1, 1, 8, 6], np.uint8)
    order = build_up._order_of(weights, numbers, molecule[1], origin, 0)
    assert sorted(order.tolist()) == list(range(NUM_ATOMS))
    again = build_up._order_of(weights, numbers, molecule[1], origin, 1)
    assert order.tolist() != again.tolist()
    assert "drawn order" in page.ORDERS["drawn"]


def test_weights_that_did_not_draw_the_file_are_told(monkeypatch, weights, caplog):
    monkeypatch.setattr(build_up, "load_weights", lambda name: weights)
    build_up.choose_weights(build_up.Origin(True, {"weights_sha256": "sum"}, 0), None)
    assert not caplog.text
    build_up.choose_weights(build_up.Origin(True, {"weights_sha256": "no"}, 0), None)
    assert "drawn by other weights than small; give --checkpoint" in caplog.text


STEPS = """
const { buildUp } = document.querySelector("section.steps");
const title = () => document.querySelector(".steps h3").textContent;
this.first = title();
[...document.querySelectorAll(".steps button")][1].click();
this.second = title();
buildUp.show(3);
this.chosen = document.querySelectorAll(".steps .bar.chosen").length;
const { canvas } = buildUp.stage.view.context;
const pixels = () => canvas.toDataURL().length;
this.withShells = pixels();
buildUp.shells.click();
this.withoutShells = pixels();
put(buildUp.slider, buildUp.slider.max);
this.last = title();
"""


def test_steps_go_on_in_a_browser(built, tmp_path):
    text = f"<html><head></head><body>{build_up.to_html(built)}</body></html>"
    told = browser.run(text, tmp_path, STEPS)
    assert told["first"].startswith(f"0 of {NUM_ATOMS} atoms placed: ")
    assert told["second"].startswith(f"1 of {NUM_ATOMS} atoms placed: ")
    assert told["chosen"] == 3  # Go on, the species, the focus.
    assert told["withShells"] > told["withoutShells"]
    assert told["last"] == f"{NUM_ATOMS} of {NUM_ATOMS} atoms placed: stop"
