"""What is asked of the sampler besides the weights, checked. Positions are in Å."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from absl import logging
from jaxtyping import Float32

from common.errors import UsageError
from common.nn.conditions import CONDITIONS, ROOM_TEMPERATURE
from equijump import build
from equijump.data import frames
from equijump.data.residues import NUM_TYPES
from equijump.data.topology import System, difference, fit_to, is_same, reordered
from equijump.weights import Molecule, Weights

MAX_REPLICAS = 10_000
MAX_STEPS = 1_000
MAX_REDRAWS = 10


class Options(NamedTuple):
    """What decides the rollouts of a seed, besides the weights.

    Attributes:
        name: name of the system.
        system: molecule that is rolled out.
        starts: first frame of each replica, in Å.
        conditions: numbers that the network is given: the lag in ps, none for frames
            that are independent of each other; the temperature in K; and others.
        num_steps: evaluations of the network in a jump.
        method: one of the transport's samplers.
        every: jumps from one frame that is kept to the next.
        max_redraws: redraws of the gate; None for no gate.
        cloud: kind of cloud that the network sees, see `equijump.cloud`.
    """

    name: str
    system: System
    starts: Float32[np.ndarray, "num_replicas num_atoms 3"]
    conditions: dict[str, float]
    num_steps: int
    method: str
    every: int
    max_redraws: int | None
    cloud: str = "ca"

    @property
    def frame_time(self) -> float:
        """Returns ps from frame to frame; those of an ensemble are a ps apart."""
        return self.every * self.conditions.get("lag", 1.0)


class Request(TypedDict, total=False):
    """Keywords of `choose` that a user may give; it documents them."""

    lag: float | None
    num_steps: int | None
    start: Any
    topology: str | os.PathLike[str] | None
    system: str | None
    every: int
    gate: bool
    max_redraws: int
    temperature: float | None
    method: str | None
    ensemble: bool
    conditions: Mapping[str, float] | None
    select: str


def choose(
    weights: Weights,
    replicas: int = 1,
    lag: float | None = None,
    num_steps: int | None = None,
    start: Any = None,
    topology: str | os.PathLike[str] | None = None,
    system: str | None = None,
    every: int = 1,
    gate: bool = True,
    max_redraws: int = MAX_REDRAWS,
    temperature: float | None = None,
    method: str | None = None,
    ensemble: bool = False,
    conditions: Mapping[str, float] | None = None,
    select: str = "",
) -> Options:
    """Checks what is asked of a sampler.

    Args:
        weights: trained model.
        replicas: number of trajectories side by side.
        lag: time of a jump in ps; the first of the config's where None.
        num_steps: evaluations of the network in a jump; the config's where None.
        start: file with one structure or several, or a list of such files, or a
            trajectory of MDTraj. Replicas go round the files, one structure of each in
            turn. Where None, frames that come with the weights.
        topology: topology for files of `start` that have none.
        system: name of a system of the weights, where they have several.
        every: jumps from one frame that is kept to the next.
        gate: true to draw jumps again that break the geometry.
        max_redraws: largest number of redraws; then the replica stays where it is.
        temperature: temperature in K. Where None it is the first of the config's, or
            that of training nearest to room temperature.
        method: one of the transport's samplers; the config's where None.
        ensemble: true to draw each frame by itself, whatever was before it.
        conditions: other numbers that the network is given, by their names in
            `common.nn.conditions.CONDITIONS`.
        select: atoms of `start` that are read, in MDTraj's selection language; all
            where empty.

    Raises:
        UsageError: A value is out of range, or a start cannot be used.
    """
    if start is None:
        for flag, given in {"topology": topology, "select": select}.items():
            if given:
                raise UsageError(f"--{flag}: expected --start beside it, found none")
    config = weights.config
    num_steps = config.sample.num_steps if num_steps is None else num_steps
    _check_numbers(
        replicas=replicas, num_steps=num_steps, every=every, max_redraws=max_redraws
    )
    asked = dict(conditions or {})
    if temperature is not None:
        asked["temperature"] = temperature
    given = _check_lag(weights, lag, ensemble) | _check_conditions(weights, asked)
    known = config.model.residue_types or NUM_TYPES
    chosen, molecule = _find(
        weights, system, start, (topology, replicas, select, known)
    )
    return Options(
        name=chosen,
        system=molecule.system,
        starts=molecule.starts[np.arange(replicas) % len(molecule.starts)],
        conditions=given,
        num_steps=num_steps,
        method=_check_method(config, method),
        every=every,
        max_redraws=max_redraws if gate else None,
        cloud=config.model.cloud,
    )


_RANGES = {
    "replicas": (1, MAX_REPLICAS),
    "num_steps": (2, MAX_STEPS),
    "every": (1, 1_000_000),
    "max_redraws": (0, 1_000),
}


def _check_numbers(**values: int) -> None:
    for name, value in values.items():
        smallest, largest = _RANGES[name]
        if not smallest <= value <= largest:
            raise UsageError(
                f"--{name}: expected {smallest} to {largest}, found {value}"
            )


def _check_method(config: Any, method: str | None) -> str:
    """Returns the name of a sampler that the transport has."""
    known = build.TRANSPORTS[config.transport.kind].METHODS
    method = method or config.sample.method or known[0]
    if method not in known:
        raise UsageError(
            f"--method: expected one of {', '.join(known)}, found {method}"
        )
    return method


def _check_conditions(weights: Weights, asked: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers that the network is given besides the lag, all of them."""
    given = weights.config.model.conditions
    names = [name for name in given if name not in ("lag", "temperature")]
    for name in asked:
        if name not in ("temperature", *names):
            raise UsageError(
                f"--condition: expected one of {', '.join(['temperature', *names])}, "
                f"which the network is given, found {name}"
            )
    chosen = {"temperature": _check_temperature(weights, asked.get("temperature"))}
    for name in names:
        row, value = CONDITIONS[name], asked.get(name)
        low, high = weights.ranges.get(name, (row.low, row.high))
        if value is None or not low <= value <= high:
            raise UsageError(
                f"--condition: expected {name}={low:g} to {high:g} {row.unit}, for "
                "which the network was trained, found "
                f"{'none' if value is None else value}"
            )
        chosen[name] = float(value)
    return chosen


def _check_temperature(weights: Weights, temperature: float | None) -> float:
    """Returns the temperature, if the network was trained for it."""
    listed = tuple(map(float, weights.config.data.temperatures))
    known = weights.ranges.get("temperature", listed or (ROOM_TEMPERATURE,))
    low, high = min(known), max(known)
    usual = listed[0] if listed else min(max(ROOM_TEMPERATURE, low), high)
    if temperature is None:
        return usual
    if low == high != temperature:
        raise UsageError(
            f"--temperature: expected {low:g} K, the one temperature of these weights, "
            f"found {temperature:g}"
        )
    if not low <= temperature <= high:
        raise UsageError(
            f"--temperature: expected {low:g} to {high:g} K, for which the "
            f"network was trained, found {temperature:g}"
        )
    if "temperature" not in weights.config.model.conditions and temperature != usual:
        raise UsageError(
            f"--temperature: expected {usual:g} K, since the network is not given "
            f"the temperature, found {temperature:g}"
        )
    return float(temperature)


def _check_ensemble(weights: Weights) -> None:
    """Raises `UsageError` for weights that cannot draw frames of the ensemble."""
    if not weights.config.data.ensemble_share:
        raise UsageError(
            "--ensemble: expected weights trained with config.data.ensemble_share "
            "above 0, found 0"
        )
    if not weights.ranges:  # The network was given a hidden source as a lag of 1 µs.
        raise UsageError(
            f"--ensemble: expected weights of version 0.2.0 or later, found earlier "
            f"ones in {weights.name}; version 0.1.0 reads them"
        )


def _check_lag(weights: Weights, lag: float | None, ensemble: bool) -> dict[str, float]:
    """Returns the lag, if the network was trained for it; none for an ensemble."""
    if ensemble:
        _check_ensemble(weights)
        return {}
    data = weights.config.data
    known = tuple(map(float, data.lags))
    lag = known[0] if lag is None else lag
    listed = ", ".join(f"{value:g}" for value in dict.fromkeys(known))
    fits = any(np.isclose(lag, known, rtol=1e-6))
    if data.log_uniform:
        listed = f"{known[0]:g} to {known[-1]:g}"
        fits = known[0] <= lag <= known[-1]
    if not fits:
        raise UsageError(
            f"--lag: expected {listed} ps, for which the network was trained, found "
            f"{lag:g}"
        )
    return {"lag": float(lag)}


def _find(
    weights: Weights,
    name: str | None,
    start: Any,
    how: tuple[str | os.PathLike[str] | None, int, str, int],
) -> tuple[str, Molecule]:
    """Returns the system that is asked for, and the starts; `how` as of `_starts`."""
    molecules = weights.molecules
    if name is not None and name not in molecules:
        raise UsageError(
            f"--system: expected one of {', '.join(molecules)}, found {name}"
        )
    if name is not None:
        molecules = {name: molecules[name]}
    if start is not None:
        return _starts(molecules, start, *how)
    if len(molecules) > 1:
        raise UsageError(
            f"expected --start, or --system as one of {', '.join(molecules)}; found "
            "neither"
        )
    return next(iter(molecules.items()))


def _starts(
    molecules: dict[str, Molecule],
    start: Any,
    topology: str | os.PathLike[str] | None,
    replicas: int,
    select: str,
    residue_types: int,
) -> tuple[str, Molecule]:
    """Reads structures, all of one of the systems, and one of each file in turn."""
    most = replicas + 1  # One more tells that some are left over.
    if hasattr(start, "xyz"):
        read = [("start", *frames.from_mdtraj(start, "start", most, select))]
    else:
        is_one = isinstance(start, str | os.PathLike)
        given: Sequence[Any] = [start] if is_one else start
        read = [(p, *frames.read_structures(p, topology, most, select)) for p in given]
    for path, found_system, _ in read:
        fit_to(found_system, residue_types, str(path))
    matched = [_match(molecules, *structure) for structure in read]
    name = matched[0][0]
    for (path, _, _), (other, _) in zip(read, matched, strict=True):
        if other != name:
            raise UsageError(f"{path}: expected {name} as in the first, found {other}")
    found = [positions for _, positions in matched]
    order = in_turn(tuple(map(len, found)))[:replicas]
    _tell_left_over([str(path) for path, _, _ in read], found, order)
    starts = np.stack([found[file][place] for file, place in order])
    return name, Molecule(molecules[name].system, starts)


def in_turn(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Returns files and places of structures, one of each file at a time.

    >>> in_turn([1, 3])
    [(0, 0), (1, 0), (1, 1), (1, 2)]
    """
    rounds = range(max(counts, default=0))
    return [(f, k) for k in rounds for f, count in enumerate(counts) if k < count]


def _tell_left_over(
    paths: Sequence[str],
    found: Sequence[np.ndarray],
    order: Sequence[tuple[int, int]],
) -> None:
    """Logs which files have structures that no replica begins with."""
    used = np.bincount([file for file, _ in order], minlength=len(paths))
    left = [
        f"{path} ({count} used)"
        for path, count, one in zip(paths, used.tolist(), found, strict=True)
        if count < len(one)
    ]
    if left:
        logging.warning(
            "--start: %d replicas leave structures over: %s; give more --replicas",
            len(order), ", ".join(left),
        )  # fmt: skip


def _match(
    molecules: dict[str, Molecule],
    path: str | os.PathLike[str],
    system: System,
    positions: Float32[np.ndarray, "num_frames num_atoms 3"],
) -> tuple[str, Float32[np.ndarray, "num_frames num_atoms 3"]]:
    """Returns the trained system of some structures, and them in its order of atoms."""
    for name, (trained, _) in molecules.items():
        if is_same(trained, system):
            return name, reordered(positions, system, trained)
    differ = [
        difference(m.system, system)
        for m in molecules.values()
        if np.array_equal(m.system.tokens, system.tokens)
    ]
    listed = "; ".join(
        f"{name}: {_sequence(m.system)}" for name, m in molecules.items()
    )
    raise UsageError(
        f"{path}: expected a system that the network was trained on ({listed}), found "
        f"{_sequence(system)}{''.join(differ[:1])}; give --checkpoint of a network "
        "that was trained on it"
    )


def _sequence(system: System) -> str:
    names = system.residue_names
    shown = "-".join(names[:12])
    return f"{shown}-... ({len(names)} residues)" if len(names) > 12 else shown
