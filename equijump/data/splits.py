"""Division of the data of a config into what trains and what validates.

It is by trajectories of each system, by blocks of time, by sequences, or by clusters of
sequences; see `KINDS`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging

from common.errors import UsageError
from equijump.data import lags, rebalance, sequences, sources
from equijump.data.crops import Crop
from equijump.data.residues import num_types_for
from equijump.data.segments import Segment, blocks, num_residues
from equijump.data.topology import fit_to

KINDS = ("trajectory", "time", "sequence", "cluster")

NUM_BLOCKS = 5
"""Blocks of time of a trajectory that is cut; the last one validates."""


class Segments(NamedTuple):
    """Stretches of trajectories that pairs are drawn from.

    Attributes:
        training: segments to learn from.
        validation: segments that are held out.
        lags: lags of the pairs.
        num_nodes: number of residues of the largest pair of training.
        num_types: number of residue types that the network needs.
        held_out: sequences that are held out; none where data are divided otherwise.
    """

    training: tuple[Segment, ...]
    validation: tuple[Segment, ...]
    lags: lags.Lags
    num_nodes: int
    num_types: int
    held_out: tuple[str, ...] = ()


Sides = tuple[list[Segment], list[Segment]]


def load_segments(config: ml_collections.ConfigDict) -> Segments:
    """Reads the trajectories of a config and divides them.

    All have the slots of `config.model.residue_types`, or of the types that they need.

    Raises:
        UsageError: There are none, or they cannot be divided as is asked, or none
            serves a lag or states a condition that the model is given, or one has a
            type of residue that the network does not know.
    """
    data = config.data
    given, is_range = tuple(map(float, data.lags)), bool(data.log_uniform)
    law = lags.Lags((given[0], given[-1]) if is_range else given, is_range)
    num_types, whole = _fitted(_read(data), config.model.residue_types)
    for segment in whole:
        _check_size(segment)
    by_sequence = data.split in ("sequence", "cluster")
    divide = _by_sequence if by_sequence else _by_trajectory
    training, validation = divide(whole, law, config)
    for side in (training, validation):
        _check_conditions(side, config.model.conditions)
    if data.num_clusters:
        middle = float(np.sqrt(law.values[0] * law.values[-1]))
        training = list(rebalance.rebalance(training, middle, data.num_clusters))
    held = [s.trajectory.system for s in validation if by_sequence]
    return Segments(
        training=tuple(training),
        validation=tuple(validation),
        lags=law,
        num_nodes=max(map(num_residues, training)),
        num_types=num_types,
        held_out=tuple(sorted(set(map(sequences.name_of, held)))),
    )


def _read(data: ml_collections.ConfigDict) -> Iterator[Segment]:
    """Yields whole trajectories, each with the weight of its entry and its crop."""
    for entry, part in enumerate(_entries(data)):
        share = float(data.weights[entry]) if data.weights else 1.0
        for trajectory in sources.read(part):
            count = len(trajectory.system.tokens)
            is_long = 0 < data.crop < count
            crop = Crop(data.crop, data.crop_kind == "space") if is_long else None
            yield Segment(
                trajectory, 0, len(trajectory.positions), None, entry, share, crop
            )


def _entries(data: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """Returns the group `data` with each entry of the sources alone, if they weigh."""
    if not data.weights:
        return [data]
    parts = []
    for entry, source in enumerate(data.sources):
        part = data.copy_and_resolve_references()
        part.sources = (source,)
        if data.temperatures:
            place = entry % len(data.temperatures)
            part.temperatures = (data.temperatures[place],)
        parts.append(part)
    return parts


def _fitted(found: Iterable[Segment], given: int) -> tuple[int, list[Segment]]:
    """Returns segments with the slots of one number of types, given or needed."""
    found = list(found)
    systems = {id(s.trajectory.system): s.trajectory for s in found}
    needed = num_types_for(
        int(one.system.tokens.max(initial=0)) for one in systems.values()
    )
    num_types = given or needed
    fitted = {
        key: fit_to(one.system, num_types, one.name) for key, one in systems.items()
    }

    def fit(segment: Segment) -> Segment:
        system = fitted[id(segment.trajectory.system)]
        return segment._replace(trajectory=segment.trajectory._replace(system=system))

    return num_types, list(map(fit, found))


def _by_trajectory(
    whole: Sequence[Segment], law: lags.Lags, config: ml_collections.ConfigDict
) -> Sides:
    """Divides trajectories of one system under the same conditions.

    The last `held_out` of them validate; where there are no more than so many, or where
    the division is by time, the last of five blocks of time of each.
    """
    held_out, unroll = config.data.held_out, config.loss.unroll
    is_whole = lambda members: config.data.split != "time" and len(members) > held_out
    fits = [s for s in whole if lags.served(law, s, unroll).values]
    cut = {id(s) for m in _alike(fits) if not is_whole(m) for s in m}
    asked = [(s, NUM_BLOCKS if id(s) in cut else 1) for s in whole]
    training, validation = [], []
    for members in _alike(_serving(asked, law, unroll)):
        if id(members[0]) in cut:
            kept, held = _cut_by_time(members, law, unroll)
        else:
            kept, held = members[:-held_out], members[-held_out:]
        training += kept
        validation += held
    _check_copies(training, validation)
    return training, validation


def _alike(whole: Iterable[Segment]) -> list[list[Segment]]:
    """Groups trajectories of one system under the same conditions."""
    found: dict[tuple[bytes, str], list[Segment]] = {}
    for segment in whole:
        one = segment.trajectory
        key = one.system.tokens.tobytes(), _text(dict(one.conditions))
        found.setdefault(key, []).append(segment)
    return list(found.values())


def _cut_by_time(members: Sequence[Segment], law: lags.Lags, num_before: int) -> Sides:
    """Holds out the last block of time of each trajectory."""
    training, validation = [], []
    for segment in members:
        longest = lags.longest_of(segment, num_before, NUM_BLOCKS)
        segment = segment._replace(longest=longest)
        gap = lags.gap_of(lags.served(law, segment, num_before), segment.trajectory)
        kept, held = blocks(segment, NUM_BLOCKS, NUM_BLOCKS - 1, gap)
        training += kept
        validation.append(held)
    return training, validation


def _by_sequence(
    whole: Sequence[Segment], law: lags.Lags, config: ml_collections.ConfigDict
) -> Sides:
    """Holds whole sequences out, or clusters of them, as their sequences decide."""
    data = config.data
    serving = _serving([(s, 1) for s in whole], law, config.loss.unroll)
    systems = [segment.trajectory.system for segment in serving]
    identity = data.identity if data.split == "cluster" else 1.0
    groups = sequences.groups_of(systems, identity)
    order = sequences.order_of(systems, groups)
    if len(order) <= data.held_out:
        raise UsageError(
            f"config.data.held_out: expected less than {len(order)}, as many "
            f"{data.split}s as the data have, found {data.held_out}; give more data, "
            "a smaller --config.data.held_out, or --config.data.split=time, which "
            "holds out the end of each trajectory"
        )
    is_held = np.isin(groups, order[: data.held_out])
    logging.info("%d of %d %ss are held out", data.held_out, len(order), data.split)
    side = lambda chosen: [s for s, is_in in zip(serving, chosen, strict=True) if is_in]
    return side(~is_held), side(is_held)


def _serving(
    asked: Sequence[tuple[Segment, int]], law: lags.Lags, num_before: int
) -> list[Segment]:
    """Returns the trajectories that serve a lag of the law, and tells of the others.

    Args:
        asked: whole trajectories, and the number of blocks that each is cut into.
        law: lags that are asked for; each must be served by one of them.
        num_before: number of frames before a source.

    Raises:
        UsageError: None serves a lag.
    """
    if not asked:
        raise UsageError(
            "config.data.sources: expected trajectories, found none that can be used"
        )
    found = [lags.served(law, segment, num_before, cut) for segment, cut in asked]
    values = [value for served in found for value in served.values]
    told = lambda lag, of: lags.refusal(lag, of[0], num_before, of[1])
    for lag in lags.distinct(law):
        near = lags.TOLERANCE * lag
        if not any(abs(value - lag) <= near * (1.0 + 1e-6) for value in values):
            raise UsageError(told(lag, _most_likely(asked, lag)))
    kept = [one for one, served in zip(asked, found, strict=True) if served.values]
    left = [one for one, served in zip(asked, found, strict=True) if not served.values]
    if left:
        logging.warning(
            "%d of %d trajectories are left out, since they serve no lag of "
            "config.data.lags; the first one: %s",
            len(left), len(asked), told(law.values[0], left[0]),
        )  # fmt: skip
    _tell_snapped(law, kept, found)
    return [segment for segment, _ in kept]


def _most_likely(
    asked: Sequence[tuple[Segment, int]], lag: float
) -> tuple[Segment, int]:
    """Returns the trajectory that comes nearest to serving a lag: the longest one."""
    fits = lambda s: s.trajectory.spacing <= lag * (1.0 + lags.TOLERANCE)
    return max(
        asked, key=lambda one: (fits(one[0]), one[0].stop * one[0].trajectory.spacing)
    )


def _tell_snapped(
    law: lags.Lags, kept: Sequence[tuple[Segment, int]], found: Sequence[lags.Lags]
) -> None:
    """Tells once of lags that are no multiples of the spacing of a trajectory."""
    if law.is_range:
        return
    exact = np.array(lags.distinct(law))
    for (segment, _), served in zip(kept, filter(_has_any, found), strict=True):
        for value in served.values:
            off = np.abs(exact - value)
            if off.min() > 1e-3 * segment.trajectory.spacing:
                logging.warning(
                    "a lag of %g ps is served as %g ps by %s, and by others like it, "
                    "since its frames are %g ps apart; the network is told %g ps",
                    exact[off.argmin()], value, segment.trajectory.name,
                    segment.trajectory.spacing, value,
                )  # fmt: skip
                return


def _has_any(served: lags.Lags) -> bool:
    return bool(served.values)


def _check_copies(training: Sequence[Segment], validation: Sequence[Segment]) -> None:
    """Raises `UsageError` if one trajectory trains and a copy of it validates."""
    whole = lambda s: s.stop - s.start == len(s.trajectory.positions)
    names = {s.trajectory.checksum: s.trajectory.name for s in training if whole(s)}
    for segment in filter(whole, validation):
        one = segment.trajectory
        if one.checksum and one.checksum in names:
            raise UsageError(
                f"config.data.sources: expected each trajectory once, found "
                f"{one.name} to validate, and its copy {names[one.checksum]} to train "
                "on; leave one of them out"
            )


def _check_size(segment: Segment) -> None:
    """Raises `UsageError` for one residue, whose CA never moves once it is centred."""
    trajectory = segment.trajectory
    if len(trajectory.system.tokens) < 2:
        raise UsageError(
            f"{trajectory.name}: expected two residues or more, of which a cap is one, "
            f"found {trajectory.system.residue_names[0]} alone; simulate it with --caps"
        )


def _check_conditions(segments: Sequence[Segment], names: Sequence[str]) -> None:
    stated = {name for s in segments for name in s.trajectory.conditions}
    for name in names:
        if name not in stated | {"lag"}:
            raise UsageError(
                f"config.model.conditions: expected {name} of a trajectory of each "
                f"side, found {', '.join(sorted(stated))}"
            )


def describe(segments: Segments) -> dict[str, Any]:
    """Returns what a checkpoint remembers of the data.

    They are the checksums that a run must go on with, names of what validates, with its
    sequences if they are held out, and the smallest and largest number of each
    condition in training.
    """
    held = {}
    if segments.held_out:
        text = "\n".join(segments.held_out)
        held = {
            "held_out_checksum": hashlib.sha256(text.encode()).hexdigest(),
            "held_out_sequences": list(segments.held_out),
        }
    used = {s.trajectory.checksum for s in segments.training + segments.validation}
    return held | {
        "training_checksum": _checksum(segments.training),
        "validation_checksum": _checksum(segments.validation),
        "data_checksum": hashlib.sha256("".join(sorted(used)).encode()).hexdigest(),
        "held_out": [s.trajectory.name for s in segments.validation],
        "conditions": _ranges(segments.training),
    }


def _ranges(segments: Sequence[Segment]) -> dict[str, list[float]]:
    """Returns the smallest and largest number of each condition."""
    values: dict[str, list[float]] = {}
    for segment in segments:
        for name, value in segment.trajectory.conditions.items():
            values.setdefault(name, []).append(float(value))
    return {name: [min(found), max(found)] for name, found in values.items()}


def _checksum(segments: Sequence[Segment]) -> str:
    """Returns the SHA-256 of trajectories, their conditions, and the frames in use."""
    rows = [
        (s.trajectory.checksum, dict(s.trajectory.conditions), s.start, s.stop)
        for s in segments
    ]
    return hashlib.sha256("\n".join(sorted(map(_text, rows))).encode()).hexdigest()


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
