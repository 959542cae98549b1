"""What came of a rollout: draws that passed, replicas that moved, what broke.

The command puts it into `sample.json`, and `Sampler.summary` has it in Python.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from common.commands.outcome import judge
from equijump import confidence
from equijump.confidence import Estimate
from equijump.rollout import TRIAL, Plan, State
from equijump.transferable import sequence_of
from equijump.weights import Weights

_REMEDY = "a smaller --lag or more training may help, and --no-gate shows the draws"
_BROKEN_REMEDY = "the gate, a smaller --lag or more training may help"


class Summary(NamedTuple):
    """Figures of a rollout up to some number of jumps.

    Attributes:
        num_jumps: jumps of each replica.
        num_replicas: replicas side by side.
        num_draws: jumps drawn by all replicas, refused ones among them.
        num_accepted: jumps of all replicas that passed the gate; all, without one.
        num_moved: replicas of which a jump passed; the others are still at their start.
        broken: time in ps of the first frame of each replica beyond
            `equijump.rejection.BROKEN`.
        num_intact: jumps of all replicas before that frame.
        confidence: how far to trust it, see `equijump.confidence`; None where that is
            not known.
    """

    num_jumps: int
    num_replicas: int
    num_draws: int
    num_accepted: int
    num_moved: int
    broken: dict[int, float]
    num_intact: int
    confidence: Estimate | None = None

    @property
    def passed(self) -> float:
        """Returns the share of draws that passed the gate."""
        return self.num_accepted / max(self.num_draws, 1)


def summary_of(state: State, num_jumps: int, ps: float, first: int = 0) -> Summary:
    """Returns the figures of a state after so many jumps of `ps` each.

    Args:
        state: state of replicas.
        num_jumps: jumps of each.
        ps: time of a jump, in ps.
        first: number of the first replica.
    """
    accepted, broken_at = map(np.asarray, (state.num_accepted, state.broken_at))
    intact = np.where(broken_at > 0, broken_at - 1, num_jumps)
    return Summary(
        num_jumps=num_jumps,
        num_replicas=len(accepted),
        num_draws=int(np.asarray(state.num_draws).sum(dtype=np.int64)),
        num_accepted=int(accepted.sum(dtype=np.int64)),
        num_moved=int(np.count_nonzero(accepted)),
        broken={first + i: float(broken_at[i] * ps) for i in np.flatnonzero(broken_at)},
        num_intact=int(intact.sum(dtype=np.int64)),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Returns the figures as `sample.json` has them."""
    values = summary._asdict()
    del values["confidence"]  # It stands beside them.
    broken = {str(replica): time for replica, time in summary.broken.items()}
    return {**values, "broken": broken}


def with_confidence(summary: Summary, plan: Plan, weights: Weights) -> Summary:
    """Returns figures with how far to trust them, where that was measured.

    It was for weights with a calibration, at one lag and with the gate.
    """
    known, measured = weights.transferable, weights.calibration
    if known is None or measured is None or plan.max_redraws is None:
        return summary
    if not math.isclose(plan.conditions.get("lag", 0.0), measured.lag, rel_tol=1e-6):
        return summary
    sequence = sequence_of(plan.system)
    features = confidence.features_of(summary.passed, sequence, known)
    return summary._replace(confidence=confidence.estimate(measured, features))


def describe(summary: Summary, has_gate: bool) -> str:
    """Returns in words which replicas broke or never moved, and what the gate did.

    >>> describe(Summary(5, 2, 20, 5, 1, {}, 10), has_gate=True)
    '1 of 2 replicas never moved; the gate let 25.0% of draws pass'
    """
    count = summary.num_replicas
    parts = []
    if summary.broken:
        first = min(summary.broken.values())
        parts.append(
            f"geometry broke in {len(summary.broken)} of {count} replicas, first after "
            f"{first:g} ps"
        )
    if summary.num_moved < count:
        parts.append(f"{count - summary.num_moved} of {count} replicas never moved")
    if not parts:
        parts.append("no geometry is broken")
    if has_gate and summary.num_draws:
        share = summary.num_accepted / summary.num_draws
        parts.append(f"the gate let {share:.1%} of draws pass")
    return "; ".join(parts)


def is_hopeless(state: State) -> bool:
    """Returns whether the gate refuses so many draws that a rollout is to be stopped.

    That is where `check` will fail: less than 1 % of `equijump.rollout.TRIAL` draws or
    more passed.
    """
    drawn, passed = (
        int(np.asarray(x).sum(dtype=np.int64))
        for x in (state.num_draws, state.num_accepted)
    )
    return drawn >= TRIAL and 100 * passed < drawn


def check(summary: Summary) -> None:
    """Warns where little came of a rollout, and fails where hardly anything did.

    >>> check(Summary(5, 2, 10, 10, 2, {}, 10))

    Raises:
        RunError: Less than 1 % of the draws passed, of the replicas moved, or of the
            frames came before the geometry broke; what was made stays.
    """
    judge(summary.num_accepted, summary.num_draws, "draws passed the gate", _REMEDY)
    judge(summary.num_moved, summary.num_replicas, "replicas moved", _REMEDY)
    num_jumps = summary.num_jumps * summary.num_replicas
    what = "frames came before the geometry broke"
    judge(summary.num_intact, num_jumps, what, _BROKEN_REMEDY)
    num_kept = summary.num_replicas - len(summary.broken)
    if 2 * num_kept < summary.num_replicas and 2 * summary.num_intact >= num_jumps:
        logging.warning(
            "only %d of %d replicas kept their geometry; %s",
            num_kept,
            summary.num_replicas,
            _BROKEN_REMEDY,
        )
