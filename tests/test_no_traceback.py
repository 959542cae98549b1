"""Whatever is wrong with its input, a command tells it in one line.

Cases are generated: each names a command and one thing that is wrong. The child must
end with status 2 or 3 and one line, or with 0 and the warning that its class asks for;
it must leave nothing behind that is incomplete or of another's.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults import flags, molecules, outputs, trajectories, weights
from tests.faults.run import Case, run

KINDS = {
    "molecules": molecules.cases,
    "trajectories": trajectories.cases,
    "weights": weights.cases,
    "flags": flags.cases,
    "config": flags.config_cases,
    "outputs": outputs.cases,
}
NUM_FAST, NUM_SLOW = 100, 1_000


def check(case: Case) -> None:
    """Runs a case; fails unless it ends as every command should."""
    outcome = run(case)
    shown = f"{case}\n{outcome}"
    assert "Traceback" not in "".join(outcome.told + outcome.log), shown
    assert not [name for name in outcome.changed if ".partial" in name], shown
    if outcome.status == 0:
        assert case.warns, shown
        assert any(case.warns in line for line in outcome.log), shown
        return
    assert outcome.status in (2, 3), shown
    assert len(outcome.told) == 1, shown
    (line,) = outcome.told
    assert "a fault of this program" not in line, shown
    assert line.startswith(" ".join(case.argv[:2]) + ": "), shown
    assert len(line) > len(" ".join(case.argv[:2])) + 12, shown
    if outcome.status == 2:
        assert not outcome.changed, shown


def many(number: int, kind: str, strategy: st.SearchStrategy[Case]) -> None:
    """Checks a number of generated cases, always the same ones."""

    @settings(
        max_examples=number // len(KINDS),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case: Case) -> None:
        check(case)

    each()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_told_in_one_line(kind):
    many(NUM_FAST, kind, KINDS[kind]())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_of_every_class_is_told_in_one_line(kind):
    many(NUM_SLOW, kind, KINDS[kind]())
