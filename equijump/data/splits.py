"""Division of the data of a config into what trains and what validates."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from common.errors import UsageError
from equijump.data import pairs, rebalance, sources
from equijump.data.frames import Trajectory
from equijump.data.residues import num_types_for
from equijump.data.topology import fit_to

NUM_BLOCKS = 5
"""Blocks of time of a system with one trajectory; the last one validates."""


class Segments(NamedTuple):
    """Stretches of trajectories that pairs are drawn from.

    Attributes:
        training: segments to learn from.
        validation: segments that are held out.
        lags: lags of the pairs.
        num_nodes: number of residues of the largest system.
        num_types: number of residue types that the network needs.
    """

    training: tuple[pairs.Segment, ...]
    validation: tuple[pairs.Segment, ...]
    lags: pairs.Lags
    num_nodes: int
    num_types: int


def load_segments(config: ml_collections.ConfigDict) -> Segments:
    """Reads the trajectories of a config and divides them.

    The last `held_out` trajectories of each system under the same conditions validate;
    where there are no more than so many, the last of five blocks of time of each.

    All have the slots of `config.model.residue_types`, or of the types that they need.

    Raises:
        UsageError: There are none, or they are shorter than the largest lag, or none
            states a condition that the model is given, or one has a type of residue
            that the network does not know.
    """
    data = config.data
    lags = pairs.Lags(tuple(map(float, data.lags)), bool(data.log_uniform))
    training, validation = [], []
    num_types, trajectories = _fitted(sources.read(data), config.model.residue_types)
    for members in _alike(trajectories):
        _check_lengths(members, lags, config.loss.unroll)
        _check_size(members[0])
        kept, held = _divide(members, data.held_out, lags)
        training += kept
        validation += held
    for segments in (training, validation):
        _check_conditions(segments, config.model.conditions)
    if data.num_clusters:
        middle = float(np.sqrt(lags.values[0] * lags.values[-1]))
        training = rebalance.rebalance(training, middle, data.num_clusters)
    num_nodes = max(len(s.trajectory.system.tokens) for s in training)
    return Segments(tuple(training), tuple(validation), lags, num_nodes, num_types)


def _fitted(
    trajectories: Iterable[Trajectory], given: int
) -> tuple[int, list[Trajectory]]:
    """Returns trajectories with the slots of one number of types, given or needed."""
    found = list(trajectories)
    needed = num_types_for(int(t.system.tokens.max(initial=0)) for t in found)
    num_types = given or needed
    fitted = [t._replace(system=fit_to(t.system, num_types, t.name)) for t in found]
    return num_types, fitted


def _alike(trajectories: Iterable[Trajectory]) -> Iterable[list[Trajectory]]:
    """Groups trajectories of one system under the same conditions."""
    found: dict[tuple[bytes, str], list[Trajectory]] = {}
    for one in trajectories:
        key = one.system.tokens.tobytes(), _text(dict(one.conditions))
        found.setdefault(key, []).append(one)
    return found.values()


def _divide(
    members: Sequence[Trajectory], held_out: int, lags: pairs.Lags
) -> tuple[list[pairs.Segment], list[pairs.Segment]]:
    """Returns what trains and what validates of trajectories that are alike."""
    if len(members) > held_out:
        cut = len(members) - held_out
        whole = [pairs.Segment(t, 0, len(t.positions)) for t in members]
        return whole[:cut], whole[cut:]
    cut_up = [
        pairs.blocks(t, NUM_BLOCKS, NUM_BLOCKS - 1, max(pairs.in_frames(lags, t)) + 1)
        for t in members
    ]
    kept = [segment for several, _ in cut_up for segment in several]
    return kept, [segment for _, segment in cut_up]


def _check_lengths(
    members: Sequence[Trajectory], lags: pairs.Lags, unroll: int
) -> None:
    for trajectory in members:
        longest = max(pairs.in_frames(lags, trajectory))
        needed = (1 + max(1, unroll)) * NUM_BLOCKS * longest
        if len(trajectory.positions) <= needed:
            raise UsageError(
                f"{trajectory.name}: expected more than {needed} frames for lags up to "
                f"{max(lags.values):g} ps, found {len(trajectory.positions)}; give "
                "longer trajectories, or smaller --config.data.lags"
            )


def _check_size(trajectory: Trajectory) -> None:
    """Raises `UsageError` for one residue, whose CA never moves once it is centred."""
    if len(trajectory.system.tokens) < 2:
        raise UsageError(
            f"{trajectory.name}: expected two residues or more, of which a cap is one, "
            f"found {trajectory.system.residue_names[0]} alone; simulate it with --caps"
        )


def _check_conditions(segments: Sequence[pairs.Segment], names: Sequence[str]) -> None:
    stated = {name for s in segments for name in s.trajectory.conditions}
    for name in names:
        if name not in stated | {"lag"}:
            raise UsageError(
                f"config.model.conditions: expected {name} of a trajectory of each "
                f"side, found {', '.join(sorted(stated))}"
            )


def describe(segments: Segments) -> dict[str, Any]:
    """Returns what a checkpoint remembers of the data.

    They are the checksums that a run must go on with, names of what validates, and the
    smallest and largest number of each condition in training.
    """
    used = {s.trajectory.checksum for s in segments.training + segments.validation}
    return {
        "training_checksum": _checksum(segments.training),
        "validation_checksum": _checksum(segments.validation),
        "data_checksum": hashlib.sha256("".join(sorted(used)).encode()).hexdigest(),
        "held_out": [s.trajectory.name for s in segments.validation],
        "conditions": _ranges(segments.training),
    }


def _ranges(segments: Sequence[pairs.Segment]) -> dict[str, list[float]]:
    """Returns the smallest and largest number of each condition."""
    values: dict[str, list[float]] = {}
    for segment in segments:
        for name, value in segment.trajectory.conditions.items():
            values.setdefault(name, []).append(float(value))
    return {name: [min(found), max(found)] for name, found in values.items()}


def _checksum(segments: Sequence[pairs.Segment]) -> str:
    """Returns the SHA-256 of trajectories, their conditions, and the frames in use."""
    rows = [
        (s.trajectory.checksum, dict(s.trajectory.conditions), s.start, s.stop)
        for s in segments
    ]
    return hashlib.sha256("\n".join(sorted(map(_text, rows))).encode()).hexdigest()


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
